//! `avtomatika blueprint graph`: the state graph in DOT.

use std::path::{Path, PathBuf};

use super::{Served, local};
use crate::{
    args::{Format, Options},
    console::Console,
    exit::Exit,
    failure::Failure,
    render::{json, text::clean_lines},
};

const HELP: &str = "\
Examples:
  avtomatika blueprint graph test_workflow
  avtomatika blueprint graph --file order.yaml
  avtomatika blueprint graph test_workflow | dot -Tsvg > test_workflow.svg";

/// Options of `blueprint graph`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = HELP)]
pub struct Args {
    /// Name of a blueprint that the orchestrator serves
    #[arg(required_unless_present = "file")]
    name: Option<String>,

    /// Version of it; the newest when not given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    version: Option<u32>,

    /// Take the blueprint from a file of this machine instead
    #[arg(long, conflicts_with_all = ["name", "version"])]
    file: Option<PathBuf>,
}

pub(super) async fn run(args: Args, options: &Options, console: &mut Console) -> Result<Exit, Failure> {
    let (name, version, dot) = match args.file {
        Some(file) => {
            let (name, dot) = drawn(&file)?;
            (name, None, dot)
        }
        None => {
            let served = Served { name: args.name.unwrap_or_default(), version: args.version };
            let (info, response) = served.fetch(options).await?;
            (info.name, Some(info.version), response.graph_dot)
        }
    };
    match console.format() {
        Format::Json => console.print_line(&json::line(&json::graph(&name, version, &dot)))?,
        Format::Table => console.print(&clean_lines(&dot))?,
    }
    Ok(Exit::Ok)
}

/// The graph of a blueprint file.
fn drawn(file: &Path) -> Result<(String, String), Failure> {
    let loaded = local(file).map_err(|findings| {
        let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
        Failure::usage(lines.join("\n"), "each line names the place and the cure")
    })?;
    let name = loaded.definition.name().to_string();
    Ok((name, loaded.definition.into_blueprint(1).to_dot()))
}
