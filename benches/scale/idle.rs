//! An orchestrator that has nothing to do.

use std::time::Duration;

use crate::{Figures, Goal, Size, process::Orchestrator, progress, report::Table};

const ABOUT: &str = "The real program, just started over an empty data directory, after two quiet seconds.";

pub async fn measure(size: &Size) -> Table {
    progress("idle: an orchestrator");
    let mut figures = Figures::new("idle", ABOUT);
    let orchestrator = Orchestrator::start(&size.dir).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    figures.add("resident memory, MiB", orchestrator.resident_mib(), 1, Goal::AtMost(25.0));
    figures.0
}
