//! `avtomatika blueprints`: what jobs can be submitted to.

use avtomatika_proto::v1::{BlueprintInfo, ListBlueprintsRequest};

use crate::{
    args::{Format, Options},
    client::Server,
    console::Console,
    exit::Exit,
    failure::Failure,
    render::{
        json,
        table::{Cell, Overflow, Table},
    },
};

const HELP: &str = "\
Examples:
  avtomatika blueprints
  avtomatika blueprints -o json | jq -r '.[].name'";

/// Options of `blueprints`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = HELP)]
pub struct Args {}

pub(super) async fn run(_: Args, options: &Options, console: &mut Console) -> Result<Exit, Failure> {
    let server = Server::connect(options).await?;
    let blueprints =
        server.answer(server.admin().list_blueprints(ListBlueprintsRequest {})).await?.blueprints;
    match console.format() {
        Format::Json => {
            let forms: Vec<_> = blueprints.iter().map(|info| json::blueprint(info, None)).collect();
            console.print_line(&json::line(&forms))?;
        }
        Format::Table if blueprints.is_empty() => console.note("The orchestrator serves no blueprint."),
        Format::Table => {
            let mut table =
                Table::new(&["BLUEPRINT", "VERSION", "ENDPOINT", "START", "STATES", "TASKS"], Overflow::Wrap);
            console.print(&table.page(blueprints.iter().map(row)))?;
        }
    }
    Ok(Exit::Ok)
}

fn row(info: &BlueprintInfo) -> Vec<Cell> {
    vec![
        Cell::from(&info.name),
        info.version.to_string().into(),
        Cell::from(&info.endpoint),
        Cell::from(&info.start_state),
        info.states.len().to_string().into(),
        info.task_types.join(" ").into(),
    ]
}
