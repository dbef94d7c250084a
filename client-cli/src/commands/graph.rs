//! `avtomatika graph`: the path that a job has taken through its blueprint.

use avtomatika_orchestrator::graph::Format as Written;
use avtomatika_proto::v1::{GetJobGraphRequest, GraphFormat};
use clap::ValueEnum;

use super::JobArg;
use crate::{
    args::{Format, Options},
    client::Server,
    console::Console,
    exit::Exit,
    failure::Failure,
    render::{json, text::clean_lines},
};

const HELP: &str = "\
The states are those of the version of the blueprint that the job follows. Ways that it took are bold and carry the numbers of
its moves, #1 being the first; the state in which it stands or ended is filled.

Examples:
  avtomatika graph 01890a5d-ac96-774b-bcce-b302099a8057 --format svg > job.svg
  avtomatika graph 01890a5d-ac96-774b-bcce-b302099a8057 --format mermaid
  avtomatika graph 01890a5d-ac96-774b-bcce-b302099a8057 | dot -Tpng > job.png";

/// Options of `graph`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = HELP)]
pub struct Args {
    #[command(flatten)]
    job: JobArg,

    #[command(flatten)]
    form: FormatArg,
}

/// How to write a graph.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct FormatArg {
    /// Form of the graph: text for Graphviz or Mermaid, or a picture for browsers
    #[arg(long, value_enum, default_value_t = GraphForm::Dot)]
    format: GraphForm,
}

/// Form of a graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum GraphForm {
    /// The language of Graphviz.
    Dot,
    /// The language of Mermaid.
    Mermaid,
    /// A picture.
    Svg,
}

impl FormatArg {
    /// Its name on every surface.
    pub(super) fn name(self) -> &'static str {
        self.of_file().as_str()
    }

    /// What the protocol calls it.
    pub(super) fn on_the_wire(self) -> GraphFormat {
        match self.format {
            GraphForm::Dot => GraphFormat::Dot,
            GraphForm::Mermaid => GraphFormat::Mermaid,
            GraphForm::Svg => GraphFormat::Svg,
        }
    }

    /// What this machine calls it, where it draws by itself.
    pub(super) fn of_file(self) -> Written {
        match self.format {
            GraphForm::Dot => Written::Dot,
            GraphForm::Mermaid => Written::Mermaid,
            GraphForm::Svg => Written::Svg,
        }
    }
}

pub(super) async fn run(args: Args, options: &Options, console: &mut Console) -> Result<Exit, Failure> {
    let server = Server::connect(options).await?;
    let (job_id, form) = (args.job.id.to_string(), args.form);
    let request = GetJobGraphRequest { job_id: job_id.clone(), format: form.on_the_wire().into() };
    let graph = server.answer(server.jobs().get_job_graph(request)).await?.graph;
    match console.format() {
        Format::Json => console.print_line(&json::line(&json::job_graph(&job_id, form.name(), &graph)))?,
        Format::Table => console.print(&clean_lines(&graph))?,
    }
    Ok(Exit::Ok)
}
