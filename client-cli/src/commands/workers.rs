//! `avtomatika workers`: who is connected, and how busy; `workers restore`, for one that was set aside; and `workers drain`, for one
//! that shall end.

use avtomatika_proto::v1::{
    DrainWorkerRequest, ListWorkersRequest, RestoreWorkerRequest, WorkerInfo, WorkerStatus,
};
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
  avtomatika workers -o json | jq -r '.[] | select(.status == \"full\") | .worker_id'
  avtomatika workers restore gpu-7
  avtomatika workers drain gpu-7";

const RESTORE_HELP: &str = "\
A worker on which many different jobs in a row fail is set aside: it gets no tasks for a time, which is longer each time. When
what was wrong with it is mended, this brings it back at once, and nothing is held against it any more.

Examples:
  avtomatika workers -o json | jq -r '.[] | select(.status == \"set_aside\") | .worker_id'
  avtomatika workers restore gpu-7";

const DRAIN_HELP: &str = "\
The worker stops in order, as if its process had got SIGTERM: from now on it gets no tasks, it finishes those that it holds, gives
back what takes longer than its own --drain-timeout, and exits with 0. This returns when the worker has been told, and does not wait
for its end: then it is gone from `avtomatika workers`. Whatever starts it again (systemd, Kubernetes) has to be told by itself.

Examples:
  avtomatika workers drain gpu-7
  while avtomatika workers -o json | jq -e '.[] | select(.worker_id == \"gpu-7\")' > /dev/null; do sleep 1; done";

/// Options of `workers`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = HELP)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
}

/// What can be done to a worker.
#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Bring back a worker that was set aside
    #[command(after_long_help = RESTORE_HELP)]
    Restore {
        /// The worker's name
        worker_id: String,
    },
    /// Let a worker finish what it holds, and end
    #[command(after_long_help = DRAIN_HELP)]
    Drain {
        /// The worker's name
        worker_id: String,
    },
}

pub(super) async fn run(args: Args, options: &Options, console: &mut Console) -> Result<Exit, Failure> {
    match args.command {
        None => list(options, console).await,
        Some(Command::Restore { worker_id }) => restore(worker_id, options, console).await,
        Some(Command::Drain { worker_id }) => drain(worker_id, options, console).await,
    }
}

async fn restore(worker_id: String, options: &Options, console: &mut Console) -> Result<Exit, Failure> {
    let server = Server::connect(options).await?;
    let request = RestoreWorkerRequest { worker_id };
    let worker = server.answer(server.admin().restore_worker(request)).await?.worker.unwrap_or_default();
    tell(&worker, console, |worker| {
        let status = worker_status_name(worker.status);
        format!("Worker {} is {status}; nothing is held against it.", worker.worker_id)
    })
}

async fn drain(worker_id: String, options: &Options, console: &mut Console) -> Result<Exit, Failure> {
    let server = Server::connect(options).await?;
    let request = DrainWorkerRequest { worker_id };
    let worker = server.answer(server.admin().drain_worker(request)).await?.worker.unwrap_or_default();
    tell(&worker, console, |worker| {
        let ends = match worker.running_tasks {
            0 => "it holds none and ends".to_owned(),
            1 => "it ends when the one that it holds is done".to_owned(),
            tasks => format!("it ends when the {tasks} that it holds are done"),
        };
        format!("Worker {} gets no more tasks; {ends}.", worker.worker_id)
    })
}

/// What has become of a worker: in words for people, and as it is for programs.
fn tell(
    worker: &WorkerInfo,
    console: &mut Console,
    words: impl FnOnce(&WorkerInfo) -> String,
) -> Result<Exit, Failure> {
    match console.format() {
        Format::Json => console.print_line(&json::line(&json::worker(worker)))?,
        Format::Table => console.print_line(&words(worker))?,
    }
    Ok(Exit::Ok)
}

async fn list(options: &Options, console: &mut Console) -> Result<Exit, Failure> {
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
        WorkerStatus::SetAside | WorkerStatus::Suspected => Some(Tone::Bad),
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
