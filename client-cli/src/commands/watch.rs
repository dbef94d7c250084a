//! `avtomatika watch`: every change of a job, a line each, until it ends.

use avtomatika_proto::v1::Job;

use super::JobArg;
use crate::{
    args::{Format, Options},
    client::Server,
    console::Console,
    exit::Exit,
    failure::Failure,
    follow::{News, follow},
    render::{job, json, text::clean},
};

const HELP: &str = "\
The exit code tells how the job ended: 0 finished, 1 failed, 3 cancelled, 4 quarantined. Ctrl+C leaves the job alone.

Examples:
  avtomatika watch 01890a5d-ac96-774b-bcce-b302099a8057
  avtomatika watch 01890a5d-ac96-774b-bcce-b302099a8057 -o json | jq -r .status";

/// Options of `watch`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = HELP)]
pub struct Args {
    #[command(flatten)]
    job: JobArg,
}

pub(super) async fn run(args: Args, options: &Options, console: &mut Console) -> Result<Exit, Failure> {
    let server = Server::connect(options).await?;
    let job_id = args.job.id.to_string();
    let followed = follow(&server, &job_id, None, |news| match news {
        News::Job(job) => show(job, console),
        News::Lost(failure) => {
            console.note(&format!("Connection lost ({}); trying again.", clean(&failure.to_string())));
            Ok(())
        }
    })
    .await?;
    if matches!(followed.exit, Exit::Interrupted | Exit::Terminated) {
        console.note("Interrupted. The job goes on.");
    }
    Ok(followed.exit)
}

fn show(job: &Job, console: &mut Console) -> Result<(), Failure> {
    match console.format() {
        Format::Json => console.print_line(&json::line(&json::job(job))),
        Format::Table => console.print_line(&job::change_line(job)),
    }
}
