//! What `approve` and `reject` share: a human decides what a job asks.
//!
//! The question is read first, and the decision is sent for that one: a command that is run twice never decides the next question.

use avtomatika_proto::v1::{DecideApprovalRequest, GetJobRequest, waiting_for::What};

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

/// Options of both.
#[derive(Debug, clap::Args)]
pub struct Ruling {
    #[command(flatten)]
    job: JobArg,

    /// Why; kept in the job's history
    #[arg(short, long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    comment: String,

    /// Who decides, for the job's history; the client's name when nobody is named
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    by: String,

    /// What to merge into the job's state history: a JSON object, @FILE, or - for standard input
    #[arg(short, long, value_name = "JSON|@FILE|-", default_value = "{}", hide_default_value = true)]
    data: String,
}

pub(super) async fn run(
    decision: String,
    ruling: Ruling,
    options: &Options,
    console: &mut Console,
) -> Result<Exit, Failure> {
    let data = data::read(&ruling.data, console)?;
    let server = Server::connect(options).await?;
    let job_id = ruling.job.id.to_string();
    let asked = server.answer(server.jobs().get_job(GetJobRequest { job_id: job_id.clone() })).await?;
    // Without a question the orchestrator knows best what to say.
    let token = match asked.job.unwrap_or_default().waiting_for.and_then(|waiting| waiting.what) {
        Some(What::Approval(approval)) => approval.token,
        _ => String::new(),
    };
    let (comment, by) = (ruling.comment, ruling.by);
    let request = DecideApprovalRequest {
        job_id: job_id.clone(),
        decision: decision.clone(),
        comment,
        by,
        data,
        token,
    };
    let job = server.answer(server.jobs().decide_approval(request)).await?.job.unwrap_or_default();
    match console.format() {
        Format::Json => console.print_line(&json::line(&json::job(&job)))?,
        Format::Table => {
            console.print_line(&format!("Job {job_id}: {decision}; it is {}.", status_name(job.status)))?
        }
    }
    Ok(Exit::Ok)
}
