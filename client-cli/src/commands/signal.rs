//! `avtomatika signal`: give a job the news that it waits for.

use avtomatika_proto::v1::{JobStatus, SignalJobRequest};

use super::JobArg;
use crate::{
    args::{Format, Options},
    client::Server,
    console::Console,
    data,
    exit::Exit,
    failure::Failure,
    render::{job::status_name, json},
};

const HELP: &str = "\
A signal that nobody waits for yet is kept until the job comes to a state that does. With --id, the
command is safe to repeat: the same id is taken once.

Examples:
  avtomatika signal 01890a5d-ac96-774b-bcce-b302099a8057 paid
  avtomatika signal 01890a5d-ac96-774b-bcce-b302099a8057 paid --id invoice-7 --data '{\"amount\": 7}'";

/// Options of `signal`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = HELP)]
pub struct Args {
    #[command(flatten)]
    job: JobArg,

    /// Name of the signal, as `get` shows what the job waits for
    #[arg(value_name = "NAME")]
    name: String,

    /// What came: a JSON object, @FILE, or - for standard input
    #[arg(short, long, value_name = "JSON|@FILE|-", default_value = "{}", hide_default_value = true)]
    data: String,

    /// Makes the command safe to repeat: the same id is taken once
    #[arg(long = "id", value_name = "ID", default_value = "", hide_default_value = true)]
    signal_id: String,
}

pub(super) async fn run(args: Args, options: &Options, console: &mut Console) -> Result<Exit, Failure> {
    let data = data::read(&args.data, console)?;
    let server = Server::connect(options).await?;
    let job_id = args.job.id.to_string();
    let request =
        SignalJobRequest { job_id: job_id.clone(), name: args.name.clone(), id: args.signal_id, data };
    let answer = server.answer(server.jobs().signal_job(request)).await?;
    let job = answer.job.unwrap_or_default();
    if answer.deduplicated {
        console.note("A signal with this id came before; nothing has changed.");
    }
    match console.format() {
        Format::Json => console.print_line(&json::line(&json::job(&job)))?,
        Format::Table => {
            let status = status_name(job.status);
            let waits = job.status == i32::from(JobStatus::WaitingForEvent);
            let also = if waits { ", and waits for one still" } else { "" };
            console.print_line(&format!("Job {job_id} has the signal; it is {status}{also}."))?;
        }
    }
    Ok(Exit::Ok)
}
