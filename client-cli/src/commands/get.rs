//! `avtomatika get`: a job as it is now.

use avtomatika_proto::v1::GetJobRequest;

use super::JobArg;
use crate::{
    args::{Format, Options},
    client::Server,
    console::Console,
    exit::Exit,
    failure::Failure,
    render::{job, json},
};

const HELP: &str = "\
Of a job that waits, it shows what for; of one that asks a human, also the commands that decide, and
the token that lets somebody decide, once and without any other credential. No other command shows
that token.

Examples:
  avtomatika get 01890a5d-ac96-774b-bcce-b302099a8057
  avtomatika get -o json 01890a5d-ac96-774b-bcce-b302099a8057 | jq .result";

/// Options of `get`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = HELP)]
pub struct Args {
    #[command(flatten)]
    job: JobArg,
}

pub(super) async fn run(args: Args, options: &Options, console: &mut Console) -> Result<Exit, Failure> {
    let server = Server::connect(options).await?;
    let request = GetJobRequest { job_id: args.job.id.to_string() };
    let job = server.answer(server.jobs().get_job(request)).await?.job.unwrap_or_default();
    match console.format() {
        Format::Json => console.print_line(&json::line(&json::job(&job)))?,
        Format::Table => console.print(&job::page(&job))?,
    }
    Ok(Exit::Ok)
}
