//! `avtomatika blueprint check`: every finding on the given files, without an orchestrator.

use std::path::{Path, PathBuf};

use avtomatika_orchestrator::blueprint::{Finding, Loaded, Severity, load_filled_dir};
use serde::Serialize;

use super::local;
use crate::{
    args::Format,
    console::Console,
    exit::Exit,
    failure::Failure,
    render::{json, text::counted},
};

const HELP: &str = "\
Each finding is one line: file:line:column: what is wrong; how to mend it. Warnings do not fail.
The exit code is 0 when every file can be loaded, and 1 otherwise. A directory without blueprints is an error, too.

Examples:
  avtomatika blueprint check order.yaml
  avtomatika blueprint check blueprints/*.yaml -o json
  avtomatika blueprint check blueprints/";

/// Options of `blueprint check`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = HELP)]
pub struct Args {
    /// Blueprint files, or directories of them
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

pub(super) fn run(args: Args, console: &mut Console) -> Result<Exit, Failure> {
    let mut findings = Vec::new();
    let mut sound = 0_usize;
    for path in &args.files {
        match read(path) {
            Ok(loaded) => {
                sound += loaded.len();
                findings.extend(loaded.into_iter().flat_map(|loaded| loaded.warnings));
            }
            Err(errors) => findings.extend(errors),
        }
    }
    let failed = findings.iter().any(|finding| finding.severity == Severity::Error);
    let exit = if failed { Exit::Failed } else { Exit::Ok };
    exit.after(match console.format() {
        Format::Json => {
            let shown: Vec<Shown<'_>> = findings.iter().map(Shown::of).collect();
            console.print_line(&json::line(&shown))
        }
        Format::Table => show(&findings, (!failed).then_some(sound), console),
    })
}

fn show(findings: &[Finding], sound: Option<usize>, console: &mut Console) -> Result<(), Failure> {
    for finding in findings {
        console.print_line(&finding.to_string())?;
    }
    if let Some(sound) = sound {
        console.note(&counted(sound as u64, "blueprint is in order.", "blueprints are in order."));
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<Loaded>, Vec<Finding>> {
    if !path.is_dir() {
        return local(path).map(|loaded| vec![loaded]);
    }
    // An orchestrator does not start with a directory without blueprints either.
    load_filled_dir(path)
}

/// A finding as programs read it.
#[derive(Serialize)]
struct Shown<'a> {
    severity: String,
    file: &'a str,
    line: usize,
    column: usize,
    what: &'a str,
    cure: &'a str,
}

impl<'a> Shown<'a> {
    fn of(finding: &'a Finding) -> Self {
        Self {
            severity: finding.severity.to_string(),
            file: &finding.file,
            line: finding.at.line,
            column: finding.at.column,
            what: &finding.what,
            cure: &finding.cure,
        }
    }
}
