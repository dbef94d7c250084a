//! Pictures for clients: of a blueprint, and of one of their jobs with the path that it has taken.

use std::sync::Arc;

use avtomatika_proto::{ApiError, ErrorCode, JobId};

use super::Inside;
use crate::{
    blueprint::{Blueprint, Graph},
    graph::{Format, Trail, render},
};

/// Entries of a history that are read at once.
const HISTORY_PAGE: usize = 1000;

/// Entries of a history that are followed: more than any job has that a human has not started again many times.
const HISTORY_FOLLOWED_MAX: usize = 50_000;

/// The blueprint's states.
pub(super) async fn of_blueprint(blueprint: &Blueprint, format: Format) -> Result<String, ApiError> {
    drawn(blueprint.graph(), format).await
}

/// The states of the job's blueprint, with its path.
pub(super) async fn of_job(
    inside: &Inside,
    client: &Arc<str>,
    id: JobId,
    format: Format,
) -> Result<String, ApiError> {
    let conductor = &inside.conductor;
    let view = conductor.get(client, id).await?;
    let job = &view.job;
    let blueprint = conductor.blueprints().version(&job.blueprint, job.blueprint_version).cloned();
    let blueprint = blueprint.ok_or_else(|| {
        let (name, version) = (&job.blueprint, job.blueprint_version);
        ApiError::new(
            ErrorCode::BlueprintNotFound,
            format!("Blueprint not found: {name:?} in version {version}"),
        )
    })?;
    let mut trail = Trail::over(blueprint.graph());
    let mut followed = 0;
    while followed < HISTORY_FOLLOWED_MAX {
        let entries = conductor.history(client, id, followed as u64, HISTORY_PAGE).await?;
        // What came since the job was read is not of its past.
        let of_its_past = entries.iter().filter(|entry| entry.sequence < job.history_len);
        of_its_past.for_each(|entry| trail.follow(entry));
        followed += entries.len();
        if entries.len() < HISTORY_PAGE {
            break;
        }
    }
    drawn(trail.end(job, view.status()), format).await
}

/// Drawing takes its time: it must not hold up those who are served beside it.
async fn drawn(graph: Graph, format: Format) -> Result<String, ApiError> {
    let drawn = tokio::task::spawn_blocking(move || render(&graph, format)).await;
    drawn.map_err(|_| ApiError::new(ErrorCode::Internal, "A graph could not be drawn"))
}
