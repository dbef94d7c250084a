//! `avtomatika webhooks`: what a job's webhook was told, and telling it again.

use avtomatika_proto::{
    JobId,
    v1::{ListWebhooksRequest, RedeliverWebhookRequest, WebhookMessage},
};

use super::JobArg;
use crate::{
    args::{Format, Options},
    client::Server,
    console::Console,
    exit::Exit,
    failure::Failure,
    render::{json, webhook},
};

const HELP: &str = "\
A job that was submitted with a webhook tells it of its end and of every approval. A message that nobody took is tried again for
a day; then it counts as failed, and is sent again when you ask for it. Receivers get every message at least once, always under
the same id. docs/webhooks.md says what arrives.

Examples:
  avtomatika webhooks 01890a5d-ac96-774b-bcce-b302099a8057
  avtomatika webhooks 01890a5d-ac96-774b-bcce-b302099a8057 -o json | jq '.[] | select(.status == \"failed\") | .problem'
  avtomatika webhooks redeliver 01890a5d-ac96-774b-bcce-b302099a8057";

/// Options of `webhooks`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = HELP, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,

    /// Id of the job, as `submit` and `list` show it
    #[arg(value_name = "JOB_ID", required = true)]
    id: Option<JobId>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Send messages again: those that failed, or the one that is named, whatever came of it
    Redeliver(RedeliverArgs),
}

const REDELIVER_HELP: &str = "\
Without a message's id, every message about the job that was given up is sent again.

Examples:
  avtomatika webhooks redeliver 01890a5d-ac96-774b-bcce-b302099a8057
  avtomatika webhooks redeliver 01890a5d-ac96-774b-bcce-b302099a8057 msg_01890a5d-ac96-774b-bcce-b302099a8057_5";

/// Options of `webhooks redeliver`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = REDELIVER_HELP)]
struct RedeliverArgs {
    #[command(flatten)]
    job: JobArg,

    /// Id of the message, as `webhooks` shows it
    #[arg(value_name = "MESSAGE_ID", default_value = "", hide_default_value = true)]
    message: String,
}

pub(super) async fn run(args: Args, options: &Options, console: &mut Console) -> Result<Exit, Failure> {
    let server = Server::connect(options).await?;
    match args {
        Args { command: Some(Command::Redeliver(args)), .. } => {
            let request =
                RedeliverWebhookRequest { job_id: args.job.id.to_string(), webhook_id: args.message };
            let messages = server.answer(server.jobs().redeliver_webhook(request)).await?.messages;
            show(&messages, "No message about this job has failed.", console)
        }
        Args { id, .. } => {
            let job_id = id.map(|id| id.to_string()).unwrap_or_default();
            let request = ListWebhooksRequest { job_id };
            let messages = server.answer(server.jobs().list_webhooks(request)).await?.messages;
            show(&messages, "The job has told no webhook anything.", console)
        }
    }
}

fn show(messages: &[WebhookMessage], none: &str, console: &mut Console) -> Result<Exit, Failure> {
    match console.format() {
        Format::Json => {
            let forms: Vec<_> = messages.iter().map(webhook::form).collect();
            console.print_line(&json::line(&forms))?;
        }
        Format::Table if messages.is_empty() => console.note(none),
        Format::Table => console.print(&webhook::page(messages))?,
    }
    Ok(Exit::Ok)
}
