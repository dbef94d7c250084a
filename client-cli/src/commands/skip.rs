//! `avtomatika skip`: let a job go on as if its state had ended, or all that a filter selects.

use avtomatika_proto::v1::{SkipAction, SkipJobRequest, repair_jobs_request::Action};

use super::repair::{self, FILTERS, Which};
use crate::{args::Options, client::Server, console::Console, data, exit::Exit, failure::Failure};

const HELP: &str = "\
The job leaves its state by the transition of the outcome: its present state if it waits for
something, the state that failed if it failed or was quarantined. A worker that holds a task of it
is told to stop. A filter selects failed and quarantined jobs only.

Examples:
  avtomatika skip 01890a5d-ac96-774b-bcce-b302099a8057 --outcome success --reason 'done by hand'
  avtomatika skip --status quarantined --failed-state notify --outcome success --dry-run";

/// Options of `skip`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = HELP)]
pub struct Args {
    #[command(flatten)]
    which: Which,

    /// What the state shall have ended with: one of its transitions
    #[arg(long, value_name = "WORD")]
    outcome: String,

    /// What to merge into the job's state history: a JSON object, @FILE, or - for standard input
    #[arg(short, long, value_name = "JSON|@FILE|-", default_value = "{}", hide_default_value = true)]
    data: String,

    /// Why; kept in the job's history
    #[arg(short, long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    reason: String,

    /// Makes the command safe to repeat: the same key is taken once
    #[arg(long, value_name = "KEY", default_value = "", hide_default_value = true, conflicts_with_all = FILTERS)]
    idempotency_key: String,
}

pub(super) async fn run(args: Args, options: &Options, console: &mut Console) -> Result<Exit, Failure> {
    args.which.check()?;
    let data = data::read(&args.data, console)?;
    let action = SkipAction { outcome: args.outcome, data, reason: args.reason };
    let server = Server::connect(options).await?;
    match args.which.id {
        Some(id) => {
            let (job_id, action) = (id.to_string(), Some(action));
            let request = SkipJobRequest { job_id, action, idempotency_key: args.idempotency_key };
            let answer = server.answer(server.jobs().skip_job(request)).await?;
            repair::show_one("goes on", answer.job, answer.deduplicated, console)
        }
        None => repair::run_many("skipped", args.which, Action::Skip(action), &server, console).await,
    }
}
