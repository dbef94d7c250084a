//! `avtomatika retry`: start a failed or quarantined job again, or all that a filter selects.

use avtomatika_proto::v1::{RetryAction, RetryJobRequest, repair_jobs_request::Action};

use super::repair::{self, FILTERS, Which};
use crate::{args::Options, client::Server, console::Console, data, exit::Exit, failure::Failure};

const HELP: &str = "\
A job begins again in the state that failed, with the data it has gathered, or in another state,
with other data. Patches are merge patches of the top level: each member takes the place of the
one with its name, and null takes it out. A filter leaves out branches and children that a parent
waited for: retry the parent. Ends with 13 when jobs were refused.

Examples:
  avtomatika retry 01890a5d-ac96-774b-bcce-b302099a8057
  avtomatika retry 01890a5d-ac96-774b-bcce-b302099a8057 --data '{\"url\": \"ftp://b/c\"}'
  avtomatika retry 01890a5d-ac96-774b-bcce-b302099a8057 --state resize --reason 'was too small'
  avtomatika retry --status quarantined --blueprint thumbnails --since 1d --dry-run
  avtomatika retry --status failed --failed-state download --error-code TRANSIENT_ERROR";

/// Options of `retry`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = HELP)]
pub struct Args {
    #[command(flatten)]
    which: Which,

    /// Where to begin; the state that failed when nothing is said
    #[arg(long, value_name = "STATE", default_value = "", hide_default_value = true)]
    state: String,

    /// What to change of the job's input: a JSON object, @FILE, or - for standard input
    #[arg(short, long, value_name = "PATCH|@FILE|-")]
    data: Option<String>,

    /// Take --data as the whole input instead
    #[arg(long, requires = "data")]
    replace: bool,

    /// What to change of the job's state history: a JSON object, @FILE, or - for standard input
    #[arg(long, value_name = "PATCH|@FILE|-")]
    history: Option<String>,

    /// Why; kept in the job's history
    #[arg(short, long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    reason: String,

    /// Makes the command safe to repeat: the same key is taken once
    #[arg(long, value_name = "KEY", default_value = "", hide_default_value = true, conflicts_with_all = FILTERS)]
    idempotency_key: String,
}

pub(super) async fn run(args: Args, options: &Options, console: &mut Console) -> Result<Exit, Failure> {
    args.which.check()?;
    let data = args.data.map(|data| data::read(&data, console)).transpose()?.unwrap_or_default();
    let history = args.history.map(|patch| data::read_for("--history", &patch, console)).transpose()?;
    let (initial_data, initial_data_patch) =
        if args.replace { (data, String::new()) } else { (String::new(), data) };
    let action = RetryAction {
        state: args.state,
        initial_data,
        initial_data_patch,
        state_history_patch: history.unwrap_or_default(),
        reason: args.reason,
    };
    let server = Server::connect(options).await?;
    match args.which.id {
        Some(id) => {
            let (job_id, action) = (id.to_string(), Some(action));
            let request = RetryJobRequest { job_id, action, idempotency_key: args.idempotency_key };
            let answer = server.answer(server.jobs().retry_job(request)).await?;
            repair::show_one("started again", answer.job, answer.deduplicated, console)
        }
        None => repair::run_many("started again", args.which, Action::Retry(action), &server, console).await,
    }
}
