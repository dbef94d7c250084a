//! What states jobs and attempts go through, found out from the real engine and drawn into `docs/states.md`.
//!
//! Small blueprints with every kind of state are explored breadth first: in every job that can be reached, everything that can
//! happen happens. What became of each is an arrow. When the document says something else the test fails; when that is meant so,
//! write it anew with `INSTA_UPDATE=always cargo test -p avtomatika-orchestrator --test states`.

// A test that cannot go on should stop where it is.
#![allow(clippy::unwrap_used)]

mod draw;
mod explore;
mod leases;

use std::{collections::BTreeSet, env, fs, path::Path};

use avtomatika_orchestrator::engine::JobStatus;

use crate::{
    draw::document,
    explore::{Explored, Place},
};

#[test]
fn the_document_shows_what_the_engine_does() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/states.md");
    let drawn = document(&Explored::all(), &leases::observed());
    if env::var("INSTA_UPDATE").is_ok_and(|update| update == "always") {
        fs::write(&path, &drawn).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == drawn,
        "docs/states.md shows other states than the engine has; look at the difference that \
         `INSTA_UPDATE=always cargo test -p avtomatika-orchestrator --test states` makes"
    );
}

#[test]
fn every_status_is_reached_and_only_the_end_is_final() {
    let explored = Explored::all();
    let reached: BTreeSet<JobStatus> =
        explored.arrows.keys().filter_map(|arrow| arrow.to.status()).chain([JobStatus::Pending]).collect();
    // A held task reads as running; what is stored never does.
    let stored: BTreeSet<JobStatus> =
        JobStatus::ALL.iter().copied().filter(|status| *status != JobStatus::Running).collect();
    assert_eq!(reached, stored);
    for status in stored {
        let ways: BTreeSet<&str> = explored
            .arrows
            .iter()
            .filter(|(arrow, _)| arrow.from == Place::Status(status))
            .flat_map(|(_, labels)| labels.iter().map(String::as_str))
            .collect();
        let repairs = BTreeSet::from(["retry", "skip"]);
        match status {
            JobStatus::Finished | JobStatus::Cancelled => assert_eq!(ways, BTreeSet::new(), "{status}"),
            JobStatus::Failed | JobStatus::Quarantined => assert_eq!(ways, repairs, "{status}"),
            _ => assert!(ways.len() > repairs.len(), "{status} goes on by {ways:?}"),
        }
    }
}

#[test]
fn every_open_job_can_be_cancelled_and_stays_so() {
    let explored = Explored::all();
    for status in JobStatus::ALL {
        let cancelled = explored.labels(Place::Status(*status), Place::Status(JobStatus::Cancelled));
        let open = !status.is_terminal() && *status != JobStatus::Running;
        assert_eq!(cancelled.iter().any(|label| label == "cancel"), open, "{status}");
    }
}
