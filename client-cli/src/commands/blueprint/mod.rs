//! `avtomatika blueprint …`: one blueprint, looked at closely.

use std::path::Path;

use avtomatika_orchestrator::blueprint::{FILE_BYTES_MAX, Finding, Loaded, Position, Severity, load};
use avtomatika_proto::v1::{BlueprintInfo, GetBlueprintRequest, GetBlueprintResponse, GraphFormat};

use crate::{args::Options, client::Server, console::Console, exit::Exit, failure::Failure};

pub mod check;
pub mod diff;
pub mod graph;
pub mod migrate;
pub mod put;
pub mod schema;
pub mod show;

/// The commands about one blueprint.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Show a blueprint with its definition
    Show(show::Args),
    /// Draw the states of a blueprint, for graphviz, Mermaid or a browser
    Graph(graph::Args),
    /// Check blueprint files, without an orchestrator
    Check(check::Args),
    /// Print the JSON Schema of blueprint files, for editors
    Schema(schema::Args),
    /// Serve a blueprint to new jobs, without a file on the orchestrator's machine
    Put(put::Args),
    /// Show what changes from one version to another, and for which jobs
    Diff(diff::Args),
    /// Move jobs to another version of their blueprint
    Migrate(migrate::Args),
}

pub(super) async fn run(command: Command, options: &Options, console: &mut Console) -> Result<Exit, Failure> {
    match command {
        Command::Show(args) => show::run(args, options, console).await,
        Command::Graph(args) => graph::run(args, options, console).await,
        Command::Check(args) => check::run(args, console),
        Command::Schema(args) => schema::run(&args, console),
        Command::Put(args) => put::run(args, options, console).await,
        Command::Diff(args) => diff::run(args, options, console).await,
        Command::Migrate(args) => migrate::run(args, options, console).await,
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
        self.fetch_drawn(options, GraphFormat::Unspecified).await
    }

    async fn fetch_drawn(
        self,
        options: &Options,
        format: GraphFormat,
    ) -> Result<(BlueprintInfo, GetBlueprintResponse), Failure> {
        let server = Server::connect(options).await?;
        let (version, graph_format) = (self.version.unwrap_or(0), format.into());
        let request = GetBlueprintRequest { name: self.name, version, graph_format };
        let mut response = server.answer(server.admin().get_blueprint(request)).await?;
        Ok((response.blueprint.take().unwrap_or_default(), response))
    }
}

/// The blueprint in a file of this machine.
fn local(path: &Path) -> Result<Loaded, Vec<Finding>> {
    let file = path.display().to_string();
    let finding = |what: String, cure: String| {
        let (severity, at) = (Severity::Error, Position::default());
        vec![Finding { severity, file: file.clone(), at, what, cure }]
    };
    let large = |length: u64| length > FILE_BYTES_MAX as u64;
    if std::fs::metadata(path).is_ok_and(|metadata| large(metadata.len())) {
        let what = format!("the file is larger than {FILE_BYTES_MAX} bytes");
        return Err(finding(what, "split it into several blueprints".to_owned()));
    }
    match std::fs::read_to_string(path) {
        Ok(text) => load(&file, &text),
        Err(error) => {
            Err(finding(format!("cannot be read: {error}"), "name a readable file of UTF-8 text".to_owned()))
        }
    }
}
