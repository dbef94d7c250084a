//! `avtomatika explain`: why a job is where it is, and what can be done.

use avtomatika_proto::v1::ExplainJobRequest;

use super::JobArg;
use crate::{
    args::{Format, Options},
    client::Server,
    console::Console,
    exit::Exit,
    failure::Failure,
    render::{explanation, json},
};

const HELP: &str = "\
The answer is one sentence, then the facts behind it: what the job waits for and until when, how many workers could take its
task and what the nearest one lacks, its place in the queue, or the state, attempt, worker and error that ended it. The reason
is one word of a closed list; docs/explain.md shows each with an example.

Examples:
  avtomatika explain 01890a5d-ac96-774b-bcce-b302099a8057
  avtomatika explain 01890a5d-ac96-774b-bcce-b302099a8057 -o json | jq -r .reason
  avtomatika list -s waiting_for_worker -o json | jq -r '.[].id' | xargs -n 1 avtomatika explain";

/// Options of `explain`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = HELP)]
pub struct Args {
    #[command(flatten)]
    job: JobArg,
}

pub(super) async fn run(args: Args, options: &Options, console: &mut Console) -> Result<Exit, Failure> {
    let server = Server::connect(options).await?;
    let request = ExplainJobRequest { job_id: args.job.id.to_string() };
    let explained = server.answer(server.jobs().explain_job(request)).await?;
    match console.format() {
        Format::Json => console.print_line(&json::line(&explanation::form(&explained)))?,
        Format::Table => console.print(&explanation::page(&explained))?,
    }
    Ok(Exit::Ok)
}
