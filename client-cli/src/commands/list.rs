//! `avtomatika list`: jobs, newest first, page by page, however many there are.

use avtomatika_proto::{
    limits::PAGE_SIZE_MAX,
    v1::{Job, JobStatus, ListJobsRequest},
};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use jiff::{SignedDuration, Timestamp};

use super::{Label, labels};
use crate::{
    args::{Format, Options},
    client::Server,
    console::Console,
    exit::Exit,
    failure::Failure,
    render::{
        job::{STATUS_NAMES, detail, status_cell, status_from_name},
        json,
        table::{Cell, Overflow, Table},
        time,
    },
    span::Span,
};

const HELP: &str = "\
A terminal too narrow for the table shows fewer of its columns; pipes get them all.

Examples:
  avtomatika list
  avtomatika list --status failed,quarantined --since 1d
  avtomatika list --status quarantined          # stopped for a human: see `retry` and `skip`
  avtomatika list --status waiting_for_human    # asks a human: see `approve` and `reject`
  avtomatika list --blueprint test_workflow --label team=billing --limit 100
  avtomatika list --all -o json | jq -r '.[].id'";

/// Options of `list`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = HELP)]
pub struct Args {
    /// Only jobs in one of these
    #[arg(short, long, value_name = "STATUS", value_delimiter = ',', value_parser = status_parser())]
    status: Vec<JobStatus>,

    /// Only jobs of this blueprint
    #[arg(short, long, value_name = "NAME", default_value = "", hide_default_value = true)]
    blueprint: String,

    /// Only jobs with this label; given more than once, only jobs with all of them
    #[arg(short, long = "label", value_name = "KEY=VALUE")]
    labels: Vec<Label>,

    /// Only jobs created since: a duration before now such as 1h, or a time such as 2026-01-31T12:00:00Z
    #[arg(long, value_name = "DURATION|TIME", value_parser = since)]
    since: Option<Timestamp>,

    /// Most jobs to list
    #[arg(short = 'n', long, value_name = "N", default_value_t = 20)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,

    /// List every job that matches
    #[arg(short, long, conflicts_with = "limit")]
    all: bool,
}

fn status_parser() -> impl TypedValueParser<Value = JobStatus> {
    PossibleValuesParser::new(STATUS_NAMES).try_map(|name| status_from_name(&name).ok_or("no such status"))
}

pub(super) fn since(text: &str) -> Result<Timestamp, String> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    text.parse::<Span>()
        .ok()
        .and_then(|span| SignedDuration::try_from(span.0).ok())
        .and_then(|span| Timestamp::now().checked_sub(span).ok())
        .ok_or_else(|| {
            "expected a duration such as 30m, 1h or 7d, or a time such as 2026-01-31T12:00:00Z".into()
        })
}

pub(super) async fn run(args: Args, options: &Options, console: &mut Console) -> Result<Exit, Failure> {
    let server = Server::connect(options).await?;
    let mut request = ListJobsRequest {
        statuses: args.status.iter().map(|&status| status.into()).collect(),
        blueprint: args.blueprint,
        labels: labels(args.labels),
        created_after: args.since.map(time::to_wire),
        ..ListJobsRequest::default()
    };
    let mut listing = Listing::begin(console)?;
    let mut left = if args.all { u64::MAX } else { args.limit.into() };
    loop {
        request.page_size = left.min(PAGE_SIZE_MAX.into()) as u32;
        let page = server.answer(server.jobs().list_jobs(request.clone())).await?;
        let taken = page.jobs.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        listing.page(&page.jobs[..taken], console)?;
        left -= taken as u64;
        request.cursor = page.next_cursor;
        if request.cursor.is_empty() || left == 0 {
            break;
        }
    }
    listing.end(!request.cursor.is_empty(), console)?;
    Ok(Exit::Ok)
}

/// What has been listed so far. Pages are written as they come, so that memory does not grow with the list.
struct Listing {
    table: Table,
    count: u64,
}

impl Listing {
    fn begin(console: &mut Console) -> Result<Self, Failure> {
        if console.format() == Format::Json {
            console.print("[")?;
        }
        let table = Table::new(
            &["ID", "STATUS", "STATE", "BLUEPRINT", "CREATED", "UPDATED", "DETAIL"],
            Overflow::Cut,
        );
        Ok(Self { table, count: 0 })
    }

    fn page(&mut self, jobs: &[Job], console: &mut Console) -> Result<(), Failure> {
        if jobs.is_empty() {
            return Ok(());
        }
        let text = match console.format() {
            Format::Table => {
                let now = Timestamp::now();
                self.table.page(jobs.iter().map(|job| row(job, now)))
            }
            Format::Json => {
                let lines: Vec<_> = jobs.iter().map(|job| json::line(&json::job(job))).collect();
                let before = if self.count == 0 { "\n" } else { ",\n" };
                before.to_owned() + &lines.join(",\n")
            }
        };
        self.count += jobs.len() as u64;
        console.print(&text)
    }

    fn end(self, more: bool, console: &mut Console) -> Result<(), Failure> {
        match console.format() {
            Format::Json if self.count == 0 => console.print("]\n")?,
            Format::Json => console.print("\n]\n")?,
            Format::Table if self.count == 0 => console.note("No jobs match."),
            Format::Table if more => console.note("There are more; use --limit or --all."),
            Format::Table => {}
        }
        Ok(())
    }
}

fn row(job: &Job, now: Timestamp) -> Vec<Cell> {
    vec![
        Cell::from(&job.id),
        status_cell(job.status),
        Cell::from(&job.current_state),
        Cell::from(&job.blueprint_name),
        time::ago(job.created_at.as_ref(), now).into(),
        time::ago(job.updated_at.as_ref(), now).into(),
        detail(job).into(),
    ]
}
