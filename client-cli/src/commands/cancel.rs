//! `avtomatika cancel`: end a job.

use avtomatika_proto::v1::CancelJobRequest;

use super::JobArg;
use crate::{
    args::{Format, Options},
    client::Server,
    console::Console,
    exit::Exit,
    failure::Failure,
    render::json,
};

const HELP: &str = "\
A worker that holds a task of the job is told to stop it. A job that has ended cannot be cancelled (exit code 13).

Examples:
  avtomatika cancel 01890a5d-ac96-774b-bcce-b302099a8057
  avtomatika cancel 01890a5d-ac96-774b-bcce-b302099a8057 --reason 'ordered twice'";

/// Options of `cancel`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = HELP)]
pub struct Args {
    #[command(flatten)]
    job: JobArg,

    /// Why; kept in the job's history and told to the worker
    #[arg(short, long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    reason: String,
}

pub(super) async fn run(args: Args, options: &Options, console: &mut Console) -> Result<Exit, Failure> {
    let server = Server::connect(options).await?;
    let job_id = args.job.id.to_string();
    let request = CancelJobRequest { job_id: job_id.clone(), reason: args.reason };
    let job = server.answer(server.jobs().cancel_job(request)).await?.job.unwrap_or_default();
    match console.format() {
        Format::Json => console.print_line(&json::line(&json::job(&job)))?,
        Format::Table => console.print_line(&format!("Job {job_id} cancelled."))?,
    }
    Ok(Exit::Ok)
}
