//! `avtomatika blueprint graph`: the states of a blueprint, and what leads from one to the next.

use std::path::{Path, PathBuf};

use avtomatika_orchestrator::graph::render;

use super::{Served, local};
use crate::{
    args::{Format, Options},
    commands::graph::FormatArg,
    console::Console,
    exit::Exit,
    failure::Failure,
    render::{json, text::clean_lines},
};

const HELP: &str = "\
Examples:
  avtomatika blueprint graph test_workflow
  avtomatika blueprint graph --file order.yaml
  avtomatika blueprint graph test_workflow --format svg > test_workflow.svg
  avtomatika blueprint graph test_workflow --format mermaid
  avtomatika blueprint graph test_workflow | dot -Tpng > test_workflow.png";

/// Options of `blueprint graph`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = HELP)]
// One of the two, and when there is none, both are named.
#[command(group = clap::ArgGroup::new("blueprint").required(true).args(["name", "file"]))]
pub struct Args {
    /// Name of a blueprint that the orchestrator serves
    name: Option<String>,

    /// Version of it; the newest when not given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    version: Option<u32>,

    /// Take the blueprint from a file of this machine instead
    #[arg(long, conflicts_with = "version")]
    file: Option<PathBuf>,

    #[command(flatten)]
    form: FormatArg,
}

pub(super) async fn run(args: Args, options: &Options, console: &mut Console) -> Result<Exit, Failure> {
    let (name, version, graph) = match args.file {
        Some(file) => {
            let (name, graph) = drawn(&file, args.form)?;
            (name, None, graph)
        }
        None => {
            let served = Served { name: args.name.unwrap_or_default(), version: args.version };
            let (info, response) = served.fetch_drawn(options, args.form.on_the_wire()).await?;
            (info.name, Some(info.version), response.graph)
        }
    };
    match console.format() {
        Format::Json => {
            console.print_line(&json::line(&json::graph(&name, version, args.form.name(), &graph)))?
        }
        Format::Table => console.print(&clean_lines(&graph))?,
    }
    Ok(Exit::Ok)
}

/// The graph of a blueprint file.
fn drawn(file: &Path, form: FormatArg) -> Result<(String, String), Failure> {
    let loaded = local(file).map_err(|findings| {
        let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
        Failure::usage(lines.join("\n"), "each line names the place and the cure")
    })?;
    let name = loaded.definition.name().to_string();
    Ok((name, render(&loaded.definition.into_blueprint(1).graph(), form.of_file())))
}
