//! `avtomatika blueprint put`: a blueprint goes to the orchestrator over the wire, without a file there.

use std::path::PathBuf;

use avtomatika_orchestrator::blueprint::FILE_BYTES_MAX;
use avtomatika_proto::v1::{FindingSeverity, PutBlueprintRequest, PutBlueprintResponse};
use serde::Serialize;

use crate::{
    args::{Format, Options},
    client::Server,
    commands::reload::{ShownChange, ShownFinding, finding_line},
    console::Console,
    data,
    exit::Exit,
    failure::Failure,
    render::{json, text::clean},
};

const HELP: &str = "\
The blueprint is checked as a file is. With an error nothing changes, every finding is shown, and the exit code is 1. New
jobs take it from then on, in place of the one of its name; jobs that exist keep their version. It stays, whatever files the
orchestrator reads, until the file of its name changes or another blueprint is put.

Examples:
  avtomatika blueprint put order.yaml
  avtomatika blueprint put order.yaml --dry-run
  generate-blueprint | avtomatika blueprint put -";

/// Options of `blueprint put`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = HELP)]
pub struct Args {
    /// Blueprint file, or - for standard input
    #[arg(value_name = "FILE|-")]
    file: PathBuf,

    /// Only show what would change
    #[arg(long)]
    dry_run: bool,
}

pub(super) async fn run(args: Args, options: &Options, console: &mut Console) -> Result<Exit, Failure> {
    let definition = data::text(&args.file, FILE_BYTES_MAX)?;
    let file = args.file.display().to_string();
    let server = Server::connect(options).await?;
    let request = PutBlueprintRequest { definition, name: String::new(), file, dry_run: args.dry_run };
    let response = server.answer(server.admin().put_blueprint(request)).await?;
    let failed = response.findings.iter().any(|finding| finding.severity() == FindingSeverity::Error);
    let exit = if failed { Exit::Failed } else { Exit::Ok };
    exit.after(match console.format() {
        Format::Json => console.print_line(&json::line(&Shown::of(&response))),
        Format::Table => show(&response, args.dry_run, console),
    })
}

fn show(response: &PutBlueprintResponse, dry_run: bool, console: &mut Console) -> Result<(), Failure> {
    for finding in &response.findings {
        console.print_line(&clean(&finding_line(finding)))?;
    }
    let Some(change) = &response.change else {
        console.note("Nothing has changed.");
        return Ok(());
    };
    let (name, version) = (&change.name, change.version);
    let said = match change.previous_version {
        before if before == version => {
            format!("Blueprint {name} is served like this already: version {version}.")
        }
        0 => format!("Blueprint {name}: version {version}, not served before."),
        before => format!("Blueprint {name}: version {version} instead of {before}."),
    };
    console.print_line(&clean(&said))?;
    if dry_run {
        console.note("This is what it would change.");
    }
    Ok(())
}

/// As programs read it: the form of the REST API.
#[derive(Serialize)]
struct Shown<'a> {
    applied: bool,
    change: Option<ShownChange<'a>>,
    findings: Vec<ShownFinding<'a>>,
}

impl<'a> Shown<'a> {
    fn of(response: &'a PutBlueprintResponse) -> Self {
        Self {
            applied: response.applied,
            change: response.change.as_ref().map(ShownChange::of),
            findings: response.findings.iter().map(ShownFinding::of).collect(),
        }
    }
}
