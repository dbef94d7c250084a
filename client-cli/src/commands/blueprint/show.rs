//! `avtomatika blueprint show`: a blueprint with its definition.

use super::Served;
use crate::{
    args::{Format, Options},
    console::Console,
    exit::Exit,
    failure::Failure,
    render::{
        job::block,
        json,
        table::{Cell, fields},
    },
};

const HELP: &str = "\
Examples:
  avtomatika blueprint show test_workflow
  avtomatika blueprint show test_workflow -o json | jq .definition";

/// Options of `blueprint show`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = HELP)]
pub struct Args {
    #[command(flatten)]
    served: Served,
}

pub(super) async fn run(args: Args, options: &Options, console: &mut Console) -> Result<Exit, Failure> {
    let (info, response) = args.served.fetch(options).await?;
    match console.format() {
        Format::Json => {
            console.print_line(&json::line(&json::blueprint(&info, Some(&response.definition))))?
        }
        Format::Table => {
            let endpoint =
                if info.endpoint.is_empty() { String::new() } else { format!("/api{}", info.endpoint) };
            let page = fields([
                ("Blueprint", Cell::from(&info.name)),
                ("Version", info.version.to_string().into()),
                ("Endpoint", endpoint.into()),
                ("Start", Cell::from(&info.start_state)),
                ("States", info.states.join(" ").into()),
                ("Tasks", info.task_types.join(" ").into()),
            ]);
            console.print(&(page + &block("Definition", &response.definition)))?;
        }
    }
    Ok(Exit::Ok)
}
