//! `avtomatika reload`: the orchestrator reads its settings and its files again.

use avtomatika_proto::v1::{
    BlueprintChange, Finding, FindingSeverity, ReloadConfigRequest, ReloadConfigResponse,
};
use serde::Serialize;

use crate::{
    args::{Format, Options},
    client::Server,
    console::Console,
    exit::Exit,
    failure::Failure,
    render::{
        json,
        table::{Cell, Overflow, Table},
        text::{clean, counted},
    },
};

const HELP: &str = "\
The orchestrator reads its settings file again, as it does on SIGHUP, and then the blueprints, schedules, clients, workers and
certificates, from where that file says now. All or nothing: when one file cannot be used, nothing changes, every finding is
shown, and the exit code is 1. A setting that has changed and needs a restart is shown as a warning. New jobs take the new
versions of blueprints; jobs that exist keep theirs. A blueprint that has left the directory takes no new jobs.

Examples:
  avtomatika reload
  avtomatika reload --dry-run
  avtomatika reload -o json | jq -r '.changes[].name'";

/// Options of `reload`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = HELP)]
pub struct Args {
    /// Only show what would change
    #[arg(long)]
    dry_run: bool,
}

pub(super) async fn run(args: Args, options: &Options, console: &mut Console) -> Result<Exit, Failure> {
    let server = Server::connect(options).await?;
    let request = ReloadConfigRequest { dry_run: args.dry_run };
    let response = server.answer(server.admin().reload_config(request)).await?;
    let failed = response.findings.iter().any(|finding| finding.severity() == FindingSeverity::Error);
    let exit = if failed { Exit::Failed } else { Exit::Ok };
    exit.after(match console.format() {
        Format::Json => console.print_line(&json::line(&Shown::of(&response))),
        Format::Table => show(&response, args.dry_run, failed, console),
    })
}

fn show(
    response: &ReloadConfigResponse,
    dry_run: bool,
    failed: bool,
    console: &mut Console,
) -> Result<(), Failure> {
    for finding in &response.findings {
        console.print_line(&clean(&finding_line(finding)))?;
    }
    if !response.changes.is_empty() {
        let mut table = Table::new(&["BLUEPRINT", "BEFORE", "NOW"], Overflow::Wrap);
        console.print(&table.page(response.changes.iter().map(row)))?;
    }
    let unchanged = |one, many| counted(response.unchanged.into(), one, many);
    console.note(&match (failed, dry_run) {
        (true, _) => "Nothing has changed.".to_owned(),
        (false, true) => {
            let stay = unchanged("would stay as it is", "would stay as they are");
            format!("This is what a reload would change; {stay}.")
        }
        (false, false) => {
            format!("Reloaded; {}.", unchanged("blueprint is as it was", "blueprints are as they were"))
        }
    });
    Ok(())
}

fn row(change: &BlueprintChange) -> Vec<Cell> {
    let version = |number: u32, none: &str| match number {
        0 => none.to_owned(),
        number => format!("version {number}"),
    };
    vec![
        Cell::from(&change.name),
        version(change.previous_version, "not served").into(),
        version(change.version, "not served").into(),
    ]
}

/// As `blueprint check` shows it.
pub(super) fn finding_line(finding: &Finding) -> String {
    let place = match finding.line {
        0 => String::new(),
        line => format!("{line}:{}:", finding.column),
    };
    let severity = severity_name(finding);
    format!("{}:{place} {severity}: {}; {}", finding.file, finding.what, finding.cure)
}

fn severity_name(finding: &Finding) -> &'static str {
    match finding.severity() {
        FindingSeverity::Warning => "warning",
        _ => "error",
    }
}

// ---- As programs read it: the form of the REST API ----

#[derive(Serialize)]
struct Shown<'a> {
    applied: bool,
    changes: Vec<ShownChange<'a>>,
    unchanged: u32,
    findings: Vec<ShownFinding<'a>>,
}

#[derive(Serialize)]
pub(super) struct ShownChange<'a> {
    name: &'a str,
    version: Option<u32>,
    previous_version: Option<u32>,
}

#[derive(Serialize)]
pub(super) struct ShownFinding<'a> {
    severity: &'static str,
    file: &'a str,
    line: u32,
    column: u32,
    what: &'a str,
    cure: &'a str,
}

impl<'a> ShownChange<'a> {
    pub fn of(change: &'a BlueprintChange) -> Self {
        let number = |version: u32| (version > 0).then_some(version);
        Self {
            name: &change.name,
            version: number(change.version),
            previous_version: number(change.previous_version),
        }
    }
}

impl<'a> ShownFinding<'a> {
    pub fn of(finding: &'a Finding) -> Self {
        Self {
            severity: severity_name(finding),
            file: &finding.file,
            line: finding.line,
            column: finding.column,
            what: &finding.what,
            cure: &finding.cure,
        }
    }
}

impl<'a> Shown<'a> {
    fn of(response: &'a ReloadConfigResponse) -> Self {
        Self {
            applied: response.applied,
            changes: response.changes.iter().map(ShownChange::of).collect(),
            unchanged: response.unchanged,
            findings: response.findings.iter().map(ShownFinding::of).collect(),
        }
    }
}
