//! `avtomatika workers`: who is connected, and how busy.

use avtomatika_proto::v1::{ListWorkersRequest, WorkerInfo, WorkerStatus};
use jiff::Timestamp;

use crate::{
    args::{Format, Options},
    client::Server,
    console::Console,
    exit::Exit,
    failure::Failure,
    render::{
        job::worker_status_name,
        json,
        table::{Cell, Overflow, Table, Tone},
        time::ago,
    },
};

const HELP: &str = "\
Examples:
  avtomatika workers
  avtomatika workers -o json | jq -r '.[] | select(.status == \"full\") | .worker_id'";

/// Options of `workers`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = HELP)]
pub struct Args {}

pub(super) async fn run(_: Args, options: &Options, console: &mut Console) -> Result<Exit, Failure> {
    let server = Server::connect(options).await?;
    let workers = server.answer(server.admin().list_workers(ListWorkersRequest {})).await?.workers;
    match console.format() {
        Format::Json => {
            let forms: Vec<_> = workers.iter().map(json::worker).collect();
            console.print_line(&json::line(&forms))?;
        }
        Format::Table if workers.is_empty() => console.note("No worker is connected."),
        Format::Table => {
            let now = Timestamp::now();
            let mut table = Table::new(
                &["WORKER", "TYPE", "STATUS", "TASKS", "LOAD", "CONNECTED", "HOST", "LABELS", "SUPPORTS"],
                Overflow::Wrap,
            );
            console.print(&table.page(workers.iter().map(|worker| row(worker, now))))?;
        }
    }
    Ok(Exit::Ok)
}

fn row(worker: &WorkerInfo, now: Timestamp) -> Vec<Cell> {
    let tone = match worker.status() {
        WorkerStatus::Idle => Some(Tone::Good),
        WorkerStatus::Busy => Some(Tone::Busy),
        WorkerStatus::Full | WorkerStatus::Draining => Some(Tone::Warning),
        WorkerStatus::Unspecified => None,
    };
    let mut labels: Vec<_> = worker.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    labels.sort_unstable();
    vec![
        Cell::from(&worker.worker_id),
        Cell::from(&worker.worker_type),
        Cell::toned(worker_status_name(worker.status), tone),
        format!("{}/{}", worker.running_tasks, worker.max_concurrent_tasks).into(),
        format!("{:.0}%", worker.load * 100.0).into(),
        ago(worker.connected_at.as_ref(), now).into(),
        Cell::from(&worker.hostname),
        labels.join(" ").into(),
        worker.supported_tasks.join(" ").into(),
    ]
}
