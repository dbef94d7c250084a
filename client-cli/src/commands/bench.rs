//! `avtomatika bench`: how fast an orchestrator is on this machine, how near that is to what the machine could do, and whether
//! every job ended exactly once.
//!
//! `args` decides what to measure and `run` measures it once: it starts the `subject` (an orchestrator in a `process` of its own),
//! its `worker`, and the `callers`, who take `tickets` and tell the `tally`. The `ledger` finds what was lost or doubled, `waits`
//! compares clocks. `floor` measures the machine, `report` tells it all.

mod args;
mod blueprint;
mod callers;
mod figures;
mod floor;
mod ledger;
mod machine;
pub(crate) mod orchestrator;
#[doc(hidden)]
pub mod process;
mod procfs;
mod progress;
mod report;
mod run;
mod subject;
mod tally;
mod tickets;
mod waits;
mod worker;

use std::path::PathBuf;

use tokio_util::sync::CancellationToken;

pub use self::args::{Api, Args, WorkerKind};
use self::{
    args::{Plan, Target},
    floor::Floor,
    machine::Machine,
    progress::Progress,
    report::{Circumstances, Report},
    run::Run,
};
use crate::{
    args::{Format, Options},
    console::Console,
    exit::Exit,
    failure::Failure,
    render::json,
    signals::Signals,
};

pub(super) async fn run(args: Args, options: &Options, console: &mut Console) -> Result<Exit, Failure> {
    let mut signals = Signals::install()?;
    let format = args.report.unwrap_or(console.format());
    let plan = args.plan(options)?;
    let file_system = machine::file_system(&plan.disk());
    if let Some(kind) = file_system.as_deref().filter(|kind| machine::is_in_memory(kind)) {
        let dir = plan.disk();
        console.note(&format!(
            "{} is {kind}, which is memory: a sync costs nothing there. Name a directory on a disk with --data-dir.",
            dir.display()
        ));
    }
    let stop = CancellationToken::new();
    let mut ended_by = None;
    let (runs, floor) = {
        let (progress, mut words) = Progress::start(console.is_live());
        let mut measuring = std::pin::pin!(measure(&plan, options, &progress, &stop));
        loop {
            tokio::select! {
                measured = &mut measuring => break measured?,
                Some(words) = words.recv() => progress.aside(|| console.note(&words)),
                exit = signals.next() => match ended_by.replace(exit) {
                    None => {
                        stop.cancel();
                        progress.aside(|| console.note("Ending; once more ends at once, without a report."));
                    }
                    Some(_) => return Ok(exit),
                },
            }
        }
    };
    let around = Circumstances {
        machine: Machine::here(),
        url: options.url_is_given.then(|| options.url.clone()),
        file_system: matches!(plan.target, Target::Own { .. }).then_some(file_system).flatten(),
        interrupted: ended_by.is_some(),
    };
    let report = Report::new(&plan, around, runs, floor);
    let shown = match format {
        Format::Json => console.print_line(&json::line(&report)),
        Format::Table => console.print(&report.page()),
    };
    judge(&plan, &report, ended_by, console).after(shown)
}

/// All runs, and the floor after them: the machine is warm, and the orchestrator is gone.
async fn measure(
    plan: &Plan,
    options: &Options,
    progress: &Progress,
    stop: &CancellationToken,
) -> Result<(Vec<Run>, Option<Floor>), Failure> {
    let mut runs = Vec::new();
    while !plan.floor_only && runs.len() < plan.repeat as usize && !stop.is_cancelled() {
        runs.push(run::run(plan, options, progress, stop).await?);
    }
    let floor = match plan.floor {
        Some(each) => {
            let dir = subject::temporary_dir(&plan.disk())?;
            let measuring = floor::measure(plan, options, each, (dir.path(), progress));
            stop.run_until_cancelled(measuring).await.transpose()?
        }
        None => None,
    };
    Ok((runs, floor))
}

/// What the report means for whoever called.
fn judge(plan: &Plan, report: &Report, ended_by: Option<Exit>, console: &mut Console) -> Exit {
    let mut is_bad = false;
    for fault in report.faults() {
        is_bad = true;
        console.note(&format!("error: {fault}"));
    }
    if let (Some(min), Some(ratio)) = (plan.min_ratio, report.ratio())
        && ratio < min
    {
        is_bad = true;
        console.note(&format!("error: measured / floor is {ratio:.3}, and at least {min} was asked for"));
    }
    match (is_bad, ended_by) {
        (true, _) => Exit::Failed,
        (false, Some(exit)) => exit,
        (false, None) => Exit::Ok,
    }
}

impl Plan {
    /// The directory whose disk matters.
    fn disk(&self) -> PathBuf {
        match &self.target {
            Target::Own { data_dir } => data_dir.clone(),
            Target::Other { .. } => std::env::temp_dir(),
        }
    }
}
