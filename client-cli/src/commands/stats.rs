//! `avtomatika stats`: how many jobs, tasks and workers there are.

use std::collections::HashMap;

use avtomatika_proto::v1::{GetStatsRequest, GetStatsResponse};
use jiff::Timestamp;

use crate::{
    args::{Format, Options},
    client::Server,
    console::Console,
    exit::Exit,
    failure::Failure,
    render::{
        json,
        table::{Cell, Overflow, Table, fields},
        time::ago,
    },
};

const HELP: &str = "\
Examples:
  avtomatika stats
  avtomatika stats -o json | jq '.ready_tasks | add'";

/// Options of `stats`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = HELP)]
pub struct Args {}

pub(super) async fn run(_: Args, options: &Options, console: &mut Console) -> Result<Exit, Failure> {
    let server = Server::connect(options).await?;
    let stats = server.answer(server.admin().get_stats(GetStatsRequest {})).await?;
    match console.format() {
        Format::Json => console.print_line(&json::line(&json::stats(&stats)))?,
        Format::Table => console.print(&page(&stats))?,
    }
    Ok(Exit::Ok)
}

fn page(stats: &GetStatsResponse) -> String {
    let mut page = fields([
        ("Server", Cell::from(&stats.server_version)),
        ("Store", Cell::from(&stats.store)),
        ("Started", ago(stats.started_at.as_ref(), Timestamp::now()).into()),
        ("Workers", stats.connected_workers.to_string().into()),
        ("Running tasks", stats.running_tasks.to_string().into()),
        (
            "Ready tasks",
            stats.ready_tasks.values().fold(0, |sum: u64, &n| sum.saturating_add(n)).to_string().into(),
        ),
    ]);
    page += &counts(&["JOBS", "COUNT"], &stats.jobs);
    page += &counts(&["READY TASKS", "COUNT"], &stats.ready_tasks);
    page
}

fn counts(header: &'static [&'static str], counts: &HashMap<String, u64>) -> String {
    let mut rows: Vec<_> = counts.iter().collect();
    rows.sort_unstable();
    if rows.is_empty() {
        return String::new();
    }
    let rows = rows.into_iter().map(|(name, count)| vec![Cell::from(name), count.to_string().into()]);
    "\n".to_owned() + &Table::new(header, Overflow::Wrap).page(rows)
}
