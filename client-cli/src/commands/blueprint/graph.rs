//! `avtomatika blueprint graph`: the state graph in DOT.

use super::Served;
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
  avtomatika blueprint graph test_workflow | dot -Tsvg > test_workflow.svg";

/// Options of `blueprint graph`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = HELP)]
pub struct Args {
    #[command(flatten)]
    served: Served,
}

pub(super) async fn run(args: Args, options: &Options, console: &mut Console) -> Result<Exit, Failure> {
    let (info, response) = args.served.fetch(options).await?;
    match console.format() {
        Format::Json => console.print_line(&json::line(&json::graph(&info, &response.graph_dot)))?,
        Format::Table => console.print(&clean_lines(&response.graph_dot))?,
    }
    Ok(Exit::Ok)
}
