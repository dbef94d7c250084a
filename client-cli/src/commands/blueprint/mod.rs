//! `avtomatika blueprint …`: one blueprint, looked at closely.

use avtomatika_proto::v1::{BlueprintInfo, GetBlueprintRequest, GetBlueprintResponse};

use crate::{args::Options, client::Server, console::Console, exit::Exit, failure::Failure};

pub mod graph;
pub mod show;

/// The commands about one blueprint.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Show a blueprint with its definition
    Show(show::Args),
    /// Print the state graph in DOT, for graphviz
    Graph(graph::Args),
}

pub(super) async fn run(command: Command, options: &Options, console: &mut Console) -> Result<Exit, Failure> {
    match command {
        Command::Show(args) => show::run(args, options, console).await,
        Command::Graph(args) => graph::run(args, options, console).await,
    }
}

/// A blueprint that the orchestrator serves.
#[derive(Debug, clap::Args)]
pub struct Served {
    /// Name of the blueprint
    name: String,

    /// Version of it; the newest when not given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    version: Option<u32>,
}

impl Served {
    async fn fetch(self, options: &Options) -> Result<(BlueprintInfo, GetBlueprintResponse), Failure> {
        let server = Server::connect(options).await?;
        let request = GetBlueprintRequest { name: self.name, version: self.version.unwrap_or(0) };
        let mut response = server.answer(server.admin().get_blueprint(request)).await?;
        Ok((response.blueprint.take().unwrap_or_default(), response))
    }
}
