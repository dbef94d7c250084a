//! `avtomatika history`: what happened to a job, oldest first.

use avtomatika_proto::{
    limits::PAGE_SIZE_MAX,
    v1::{GetJobHistoryRequest, HistoryEntry},
};

use super::JobArg;
use crate::{
    args::{Format, Options},
    client::Server,
    console::Console,
    exit::Exit,
    failure::Failure,
    render::{
        json,
        table::{Cell, Overflow, Table, Tone},
        time::{between, exact},
    },
    span::Span,
};

const HELP: &str = "\
Examples:
  avtomatika history 01890a5d-ac96-774b-bcce-b302099a8057
  avtomatika history 01890a5d-ac96-774b-bcce-b302099a8057 -o json | jq '.[] | select(.event == \"task_failed\")'";

/// Options of `history`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = HELP)]
pub struct Args {
    #[command(flatten)]
    job: JobArg,
}

pub(super) async fn run(args: Args, options: &Options, console: &mut Console) -> Result<Exit, Failure> {
    let server = Server::connect(options).await?;
    let entries = fetch(&server, args.job.id.to_string()).await?;
    match console.format() {
        Format::Json => {
            let forms: Vec<_> = entries.iter().map(json::history_entry).collect();
            console.print_line(&json::line(&forms))?;
        }
        Format::Table => {
            let mut table = Table::new(
                &["TIME", "ELAPSED", "EVENT", "STATE", "ATTEMPT", "WORKER", "DETAIL"],
                Overflow::Wrap,
            );
            let start = entries.first().and_then(|entry| entry.at);
            console.print(&table.page(entries.iter().map(|entry| row(entry, start.as_ref()))))?;
        }
    }
    Ok(Exit::Ok)
}

/// The whole history: a job makes a bounded number of moves, so it fits.
async fn fetch(server: &Server, job_id: String) -> Result<Vec<HistoryEntry>, Failure> {
    let mut request = GetJobHistoryRequest { job_id, page_size: PAGE_SIZE_MAX, cursor: String::new() };
    let mut entries = Vec::new();
    loop {
        let page = server.answer(server.jobs().get_job_history(request.clone())).await?;
        entries.extend(page.entries);
        if page.next_cursor.is_empty() {
            return Ok(entries);
        }
        request.cursor = page.next_cursor;
    }
}

fn row(entry: &HistoryEntry, start: Option<&prost_types::Timestamp>) -> Vec<Cell> {
    let tone = match entry.event.as_str() {
        "job_finished" | "task_succeeded" => Some(Tone::Good),
        "job_failed" | "task_failed" | "task_timed_out" => Some(Tone::Bad),
        "worker_lost" | "job_quarantined" | "retry_scheduled" => Some(Tone::Warning),
        _ => None,
    };
    vec![
        exact(entry.at.as_ref()).into(),
        between(start, entry.at.as_ref()).map_or(String::new(), |span| format!("+{span}")).into(),
        Cell::toned(&entry.event, tone),
        Cell::from(&entry.state),
        if entry.attempt > 0 { entry.attempt.to_string() } else { String::new() }.into(),
        Cell::from(&entry.worker_id),
        detail(entry).into(),
    ]
}

fn detail(entry: &HistoryEntry) -> String {
    let mut parts = Vec::new();
    match (entry.from_state.as_str(), entry.outcome.as_str()) {
        ("", "") => {}
        ("", outcome) => parts.push(outcome.to_owned()),
        (from, "") => parts.push(format!("from {from}")),
        (from, outcome) => parts.push(format!("from {from} on {outcome}")),
    }
    match (entry.error_code.as_str(), entry.error_message.as_str()) {
        ("", "") => {}
        (code, "") => parts.push(code.to_owned()),
        ("", message) => parts.push(message.to_owned()),
        (code, message) => parts.push(format!("{code}: {message}")),
    }
    if let Some(span) = entry.duration.and_then(|span| std::time::Duration::try_from(span).ok()) {
        parts.push(format!("took {}", Span(span)));
    }
    parts.join("; ")
}
