//! `avtomatika submit`: create a job and, with `--wait`, see it through to its end.

use std::time::Duration;

use avtomatika_proto::{
    limits::PRIORITY_MAX,
    v1::{GetJobRequest, Job, SubmitJobRequest},
    wire_time,
};
use jiff::Timestamp;

use super::{Label, labels};
use crate::{
    args::{Format, Options},
    client::Server,
    console::Console,
    data,
    exit::Exit,
    failure::Failure,
    follow::{Followed, News, follow},
    render::{job, json, progress::ProgressLine, text::clean, time},
    span::Span,
};

const HELP: &str = "\
Standard output carries the job's id and nothing else, so that scripts can take it; with --wait it carries the job.
With --wait, the exit code tells how the job ended: 0 finished, 1 failed, 3 cancelled, 4 quarantined, 5 still open.

Examples:
  avtomatika submit test_workflow --data '{\"input\": 42}'
  avtomatika submit test_workflow --data @order.json --label team=billing --wait
  avtomatika submit test_workflow --wait=5m && echo finished
  avtomatika submit test_workflow --delay 10m
  avtomatika submit test_workflow --start-at 2026-12-24T18:00:00+01:00
  id=$(avtomatika submit test_workflow --idempotency-key order-4711)
  avtomatika submit test_workflow --webhook-url https://example.com/hooks
  generate | avtomatika submit test_workflow --data - -o json";

/// Options of `submit`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = HELP)]
pub struct Args {
    /// Blueprint that the job is to run through
    blueprint: String,

    /// The job's input: a JSON object, @FILE, or - for standard input
    #[arg(short, long, value_name = "JSON|@FILE|-", default_value = "{}")]
    data: String,

    /// Mark the job, to find it again with `list --label`; may be given more than once
    #[arg(short, long = "label", value_name = "KEY=VALUE")]
    labels: Vec<Label>,

    /// From -100 to 100; higher goes first
    #[arg(short, long, default_value_t = 0, allow_negative_numbers = true)]
    #[arg(value_parser = clap::value_parser!(i32).range(-i64::from(PRIORITY_MAX)..=i64::from(PRIORITY_MAX)))]
    priority: i32,

    /// Makes the command safe to repeat: the same key never makes a second job
    #[arg(short = 'k', long, value_name = "KEY", default_value = "", hide_default_value = true)]
    idempotency_key: String,

    /// Longest that a task of the job may wait for a worker
    #[arg(long, value_name = "DURATION")]
    dispatch_timeout: Option<Span>,

    /// Longest that the job may take to its end, from its start when that is later
    #[arg(long, value_name = "DURATION")]
    result_timeout: Option<Span>,

    /// Start the job at this time, at most 366 days ahead; until then it can be cancelled
    #[arg(long, value_name = "TIME", value_parser = start_at)]
    start_at: Option<Timestamp>,

    /// Start the job this much later
    #[arg(long, value_name = "DURATION", conflicts_with = "start_at")]
    delay: Option<Span>,

    /// URL that is told of the job's end and of its approvals: see docs/webhooks.md
    #[arg(long, value_name = "URL", default_value = "", hide_default_value = true)]
    webhook_url: String,

    /// Wait for the job's end, at most this long when a duration is given
    #[arg(short, long, value_name = "DURATION", num_args = 0..=1, require_equals = true)]
    wait: Option<Option<Span>>,
}

pub(super) async fn run(args: Args, options: &Options, console: &mut Console) -> Result<Exit, Failure> {
    let initial_data = data::read(&args.data, console)?;
    let server = Server::connect(options).await?;
    let has_key = !args.idempotency_key.is_empty();
    let to_wire = |span: Span| wire_time::duration(span.0);
    let request = SubmitJobRequest {
        blueprint: args.blueprint,
        initial_data,
        idempotency_key: args.idempotency_key,
        labels: labels(args.labels),
        priority: args.priority,
        dispatch_timeout: args.dispatch_timeout.map(to_wire),
        result_timeout: args.result_timeout.map(to_wire),
        start_at: args.start_at.map(time::to_wire),
        delay: args.delay.map(to_wire),
        webhook_url: args.webhook_url,
        ..SubmitJobRequest::default()
    };
    let response = server
        .answer(server.jobs().submit_job(request))
        .await
        .map_err(|failure| in_doubt(failure, has_key))?;
    let job_id = clean(&response.job_id).into_owned();
    let known = if response.deduplicated { "was already accepted under this key" } else { "accepted" };
    match (args.wait, console.format()) {
        (Some(limit), format) => {
            if format == Format::Table {
                console.note(&format!("Job {job_id} {known}."));
            }
            see_through(&server, &job_id, limit.map(|span| span.0), console).await
        }
        (None, Format::Json) => {
            console.print_line(&json::line(&json::accepted(&job_id, response.deduplicated)))?;
            Ok(Exit::Ok)
        }
        (None, Format::Table) => {
            console.note(&format!("Job {known}; follow it with `avtomatika watch {job_id}`:"));
            console.print_line(&job_id)?;
            Ok(Exit::Ok)
        }
    }
}

/// A time with its offset: a time of day alone would mean another one on another machine.
fn start_at(text: &str) -> Result<Timestamp, String> {
    text.parse().map_err(|_| {
        "expected a time with its offset, such as 2026-12-24T18:00:00Z or 2026-12-24T18:00:00+01:00"
            .to_owned()
    })
}

/// When the answer to a submission is lost, nobody here knows whether there is a job.
fn in_doubt(failure: Failure, has_key: bool) -> Failure {
    match (&failure, has_key) {
        (Failure::Unreachable { .. } | Failure::NoAnswer { .. }, true) => {
            failure.with_hint("the job may or may not exist; repeating the command with the same key is safe")
        }
        (Failure::Unreachable { .. } | Failure::NoAnswer { .. }, false) => failure.with_hint(
            "the job may or may not exist: look with `avtomatika list`; with --idempotency-key, repeating is safe",
        ),
        _ => failure,
    }
}

async fn see_through(
    server: &Server,
    job_id: &str,
    limit: Option<Duration>,
    console: &mut Console,
) -> Result<Exit, Failure> {
    let line = ProgressLine::start(console.is_live());
    let followed = follow(server, job_id, limit, |news| {
        match news {
            News::Job(job) => line.show(job),
            News::Lost(_) => line.show_lost(),
        }
        Ok(())
    })
    .await;
    drop(line);
    let Followed { job, exit } = followed?;
    if matches!(exit, Exit::Interrupted | Exit::Terminated) {
        console.note(&format!("Interrupted. The job goes on; follow it with `avtomatika watch {job_id}`."));
        return Ok(exit);
    }
    let job = match job {
        Some(job) => job,
        // A wait too short for the first message: ask for what there is.
        None => get(server, job_id).await?,
    };
    let shown = match console.format() {
        Format::Json => console.print_line(&json::line(&json::job(&job))),
        Format::Table => console.print(&job::page(&job)),
    };
    if exit == Exit::StillOpen {
        console
            .note(&format!("The wait is over. The job goes on; follow it with `avtomatika watch {job_id}`."));
    }
    exit.after(shown)
}

async fn get(server: &Server, job_id: &str) -> Result<Job, Failure> {
    let request = GetJobRequest { job_id: job_id.to_owned() };
    Ok(server.answer(server.jobs().get_job(request)).await?.job.unwrap_or_default())
}
