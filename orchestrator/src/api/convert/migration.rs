//! Moving jobs to another version, on the wire.

use std::sync::Arc;

use avtomatika_proto::{ApiError, v1};

use super::{jobs_cursor, jobs_cursor_text};
use crate::{
    api::submission::invalid,
    blueprint::STATES_MAX,
    conductor::{MigrationPage, MigrationRequest, Move},
    engine::Refusal,
};

pub(in crate::api) fn migration_request(wire: v1::MigrateJobsRequest) -> Result<MigrationRequest, ApiError> {
    if wire.blueprint.is_empty() {
        return Err(invalid("blueprint is missing".to_owned()));
    }
    if wire.states.len() > STATES_MAX {
        return Err(invalid(format!("there are {} states, the limit is {STATES_MAX}", wire.states.len())));
    }
    let version = |number: u32| (number > 0).then_some(number);
    Ok(MigrationRequest {
        blueprint: Arc::from(wire.blueprint),
        to_version: version(wire.to_version),
        from_version: version(wire.from_version),
        states: wire.states.into_iter().map(|(from, to)| (Arc::from(from), Arc::from(to))).collect(),
        with_failed: wire.include_failed,
        dry_run: wire.dry_run,
        below_key: jobs_cursor(&wire.cursor)?,
    })
}

pub(in crate::api) fn migrated(page: &MigrationPage) -> v1::MigrateJobsResponse {
    v1::MigrateJobsResponse {
        to_version: page.to_version,
        moves: page.moves.iter().map(job_move).collect(),
        next_cursor: jobs_cursor_text(page.next_below_key),
    }
}

fn job_move(done: &Move) -> v1::JobMove {
    v1::JobMove {
        job_id: done.job_id.to_string(),
        version: done.version,
        state: done.state.to_string(),
        to_state: done.to_state.to_string(),
        refused: done.refused.map_or("", Refusal::as_str).to_owned(),
        why: done.refused.map_or("", why).to_owned(),
    }
}

/// Why a job stays as it was, and what helps.
fn why(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::NoSuchState => "the version has no such state: say where the job is to stand",
        Refusal::ChildrenRun => "it waits for children: it can move when they have ended",
        Refusal::WouldFail => {
            "it would fail there at once: look at the state's expressions and at where it leads"
        }
        Refusal::TooManyMoves => "it has made as many moves as the version allows",
        Refusal::NeverBegan => "it failed before it began and cannot be retried: its parent can",
        Refusal::HasGoneOn => "it has gone on meanwhile: ask again",
        Refusal::UnknownJob => "it is not there any more",
        _ => "it does not take this",
    }
}
