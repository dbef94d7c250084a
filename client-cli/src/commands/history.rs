//! `avtomatika history`: what happened to a job, oldest first.

use avtomatika_proto::{
    limits::PAGE_SIZE_MAX,
    v1::{GetJobHistoryRequest, HistoryEntry},
};
use jiff::Timestamp;

use super::JobArg;
use crate::{
    args::{Format, Options},
    client::Server,
    console::Console,
    exit::Exit,
    failure::Failure,
    render::{json, timeline},
};

const HELP: &str = "\
Each state has a line with how long the job was in it, and a bar with its share of the whole; below it
stands what happened there, with the time since the job was accepted.

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
        Format::Table => console.print(&timeline::page(&entries, Timestamp::now()))?,
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
