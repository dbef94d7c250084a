//! Moving a client's jobs to another version of their blueprint, page by page.
//!
//! A page is read beside the conductor; the moves themselves are decided by it, a slice at a time, and become durable with
//! everything else. What a move would come to is decided by the engine too, and thrown away. So a page may be asked for again, or
//! never: jobs that have moved are not met twice.

use std::{collections::BTreeMap, sync::Arc};

use avtomatika_proto::{ApiError, ErrorCode, JobId};

use super::{
    batch::Afterwards,
    core::Core,
    handle::Conductor,
    mailbox::{Reply, Request},
    refused::would_take,
    view::JobView,
};
use crate::{
    blueprint::{Blueprint, Registry},
    engine::{ChildKind, Event, Job, JobStatus, Migration, Refusal},
    spelling::did_you_mean,
    store::ListQuery,
};

/// Jobs that one page looks at, at most.
pub const MIGRATION_PAGE_MAX: usize = 500;

/// Moves that are decided in one go: a few milliseconds, also when every job has to be read.
const SLICE: usize = 64;

/// Which jobs to move, and where.
#[derive(Debug, Clone)]
pub struct MigrationRequest {
    /// Of this blueprint.
    pub blueprint: Arc<str>,
    /// To this version; the one that new jobs take when nobody says.
    pub to_version: Option<u32>,
    /// Only jobs of this version; of every other than the one to move to when nobody says.
    pub from_version: Option<u32>,
    /// Where to stand, by the name of the state in which a job stands: what is not named here keeps its name.
    pub states: BTreeMap<Arc<str>, Arc<str>>,
    /// Also jobs that have failed or were quarantined, so that they can be tried again by the other version.
    pub with_failed: bool,
    /// Only say what would become of them.
    pub dry_run: bool,
    /// Where the page before ended.
    pub below_key: Option<i64>,
}

/// What became of one page.
#[derive(Debug)]
pub struct MigrationPage {
    /// The version to move to.
    pub to_version: u32,
    /// The jobs that were concerned, newest first.
    pub moves: Vec<Move>,
    /// Where the next page begins.
    pub next_below_key: Option<i64>,
}

/// One job and what became of it, or would.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    /// The job.
    pub job_id: JobId,
    /// The version that it has, or had.
    pub version: u32,
    /// Where it stands, or stood; of a job that has ended, where it failed.
    pub state: Arc<str>,
    /// Where it was to stand.
    pub to_state: Arc<str>,
    /// Why it stays.
    pub refused: Option<Refusal>,
}

impl Conductor {
    /// Moves the client's jobs of one page, or says what would become of them. Answers when the moves are durable.
    ///
    /// # Errors
    /// `BLUEPRINT_NOT_FOUND`, also for a version that there is not; `STATE_NOT_FOUND` when `states` names a state that the version
    /// lacks, or one that no version has from which jobs are moved; `STORAGE_FULL`, `STORAGE_FAILED`, `OVERLOADED`, `SHUTTING_DOWN`: some of the page may have moved then, and asking again
    /// moves the rest.
    pub async fn migrate(
        &self,
        client: &Arc<str>,
        request: MigrationRequest,
    ) -> Result<MigrationPage, ApiError> {
        let target = self.target(&request)?;
        let page = self.list(query(client, &request)).await?;
        let concerned = |view: &JobView| {
            let version = view.job.blueprint_version;
            version != target.version
                && request.from_version.is_none_or(|from| from == version)
                && !is_own_branch(&view.job)
        };
        let views: Vec<JobView> = page.jobs.into_iter().filter(concerned).collect();
        let mut moves: Vec<Move> = views.iter().map(|view| planned(&view.job, &target, &request)).collect();
        if request.dry_run {
            for (view, planned) in views.iter().zip(&mut moves) {
                planned.refused = self.tried(view, planned, &target).err();
            }
        } else {
            for slice in moves.chunks_mut(SLICE) {
                self.move_slice(client, slice, target.version).await?;
            }
        }
        // What has ended meanwhile no longer concerns anybody.
        moves.retain(|done| done.refused != Some(Refusal::JobTerminal));
        Ok(MigrationPage { to_version: target.version, moves, next_below_key: page.next_below_key })
    }

    fn target(&self, request: &MigrationRequest) -> Result<Arc<Blueprint>, ApiError> {
        let blueprints = self.blueprints();
        let name = &request.blueprint;
        let found = match request.to_version {
            None => blueprints.newest(name),
            Some(version) => blueprints.version(name, version),
        };
        let target = found.cloned().ok_or_else(|| match request.to_version {
            None => super::handle::no_blueprint(&blueprints, name),
            Some(version) => ApiError::new(
                ErrorCode::BlueprintNotFound,
                format!("Blueprint not found: {name:?} in version {version}"),
            ),
        })?;
        if let Some(state) = request.states.values().find(|state| target.state(state).is_none()) {
            return Err(ApiError::new(
                ErrorCode::StateNotFound,
                format!("Blueprint {name:?} has no state {state:?} in version {}", target.version),
            ));
        }
        check_where_from(request, &blueprints, target.version)?;
        Ok(target)
    }

    /// What the engine would say now.
    fn tried(&self, view: &JobView, planned: &Move, target: &Blueprint) -> Result<(), Refusal> {
        let event = event_of(planned, target.version, view.lease.is_some(), &view.job.client);
        would_take(&self.blueprints(), target, (&view.job, &event, self.clock.now()))
    }

    async fn move_slice(&self, client: &Arc<str>, slice: &mut [Move], version: u32) -> Result<(), ApiError> {
        let (client, moves) = (client.clone(), slice.to_vec());
        let done = self.mailbox.ask(|reply| Request::Migrate { client, moves, version, reply }).await??;
        slice.clone_from_slice(&done);
        Ok(())
    }
}

impl Core {
    pub(super) fn migrate(
        &mut self,
        client: &Arc<str>,
        mut moves: Vec<Move>,
        version: u32,
        reply: Reply<Result<Vec<Move>, ApiError>>,
    ) {
        if let Err(error) = self.check_serving() {
            return drop(reply.send(Err(error)));
        }
        for planned in &mut moves {
            planned.refused = match self.load(planned.job_id) {
                Ok(Some(job)) if job.client == *client => self.migrate_one(&job, planned, version).err(),
                Ok(_) => Some(Refusal::UnknownJob),
                Err(error) => {
                    // What was decided so far goes its way; whoever asks again finds the rest.
                    return drop(reply.send(Err(error)));
                }
            };
        }
        self.batch.afterwards.push(Afterwards::Migrated { moves, reply });
    }

    fn migrate_one(&mut self, job: &Job, planned: &Move, version: u32) -> Result<(), Refusal> {
        // It has gone on since the page was read: where to is decided by where it stands.
        if standing(job) != planned.state || job.blueprint_version != planned.version {
            return Err(Refusal::HasGoneOn);
        }
        let event = event_of(planned, version, self.is_held(job), &job.client);
        let moved = self.decide(job, event, false)?;
        // An attempt may stay that no worker has, for the sake of one that is expected back. Should that one not have it, it goes to
        // another by the version that the job has now: the offer that was made by the one before is left.
        if let Some(attempt) = &moved.attempt {
            self.dispatch.put_aside(attempt.task_id);
        }
        Ok(())
    }

    /// Whether a worker has the job's task, or is expected back and may have it.
    fn is_held(&self, job: &Job) -> bool {
        job.attempt.as_ref().is_some_and(|attempt| {
            self.dispatch.lease(attempt.task_id).is_some()
                || self.dispatch.awaited(&attempt.task_type).is_some()
        })
    }
}

/// Whether jobs can stand where the request says that they stand. A name that no job can have would be passed over, and whoever has
/// slipped would find jobs where they should not be. It goes by the versions and not by the jobs, so that asking again is no mistake.
fn check_where_from(request: &MigrationRequest, blueprints: &Registry, target: u32) -> Result<(), ApiError> {
    let name = &request.blueprint;
    // Versions are counted from 1, and all of them stay.
    let versions = (1..).map_while(|version| blueprints.version(name, version));
    let moved: Vec<&Arc<Blueprint>> = versions
        .filter(|blueprint| {
            let version = blueprint.version;
            version != target && request.from_version.is_none_or(|from| from == version)
        })
        .collect();
    let is_nowhere = |state: &&Arc<str>| moved.iter().all(|blueprint| blueprint.state(state).is_none());
    let Some(state) = request.states.keys().find(is_nowhere) else { return Ok(()) };
    let known = moved.iter().flat_map(|blueprint| blueprint.states.keys());
    let meant = did_you_mean(state, known.map(|known| &**known));
    let text = format!("No version of {name:?} that is moved has a state {state:?}{meant}");
    Err(ApiError::new(ErrorCode::StateNotFound, text).with_hint(format!(
        "Name the state in which jobs stand now, and with it the state of version {target} in which they are to stand."
    )))
}

fn query(client: &Arc<str>, request: &MigrationRequest) -> ListQuery {
    let concerned =
        |status: &JobStatus| !status.is_terminal() || request.with_failed && status.is_repairable();
    ListQuery {
        client: client.clone(),
        statuses: JobStatus::ALL.iter().copied().filter(concerned).collect(),
        blueprint: Some(request.blueprint.clone()),
        labels: BTreeMap::new(),
        created_from: None,
        created_before: None,
        below_key: request.below_key,
        limit: MIGRATION_PAGE_MAX,
    }
}

/// A branch is a part of its parent, which is in the listing itself.
fn is_own_branch(job: &Job) -> bool {
    job.submission.parent.as_ref().is_some_and(|parent| parent.kind == ChildKind::Branch)
}

fn planned(job: &Job, target: &Blueprint, request: &MigrationRequest) -> Move {
    let state = standing(job);
    let has_begun = !matches!(job.wait, Some(crate::engine::Wait::Start));
    let to_state = match has_begun {
        true => request.states.get(&state).unwrap_or(&state).clone(),
        false => target.start.clone(),
    };
    Move { job_id: job.id, version: job.blueprint_version, state, to_state, refused: None }
}

/// Where a job stands; of one that has ended, where a retry would begin.
fn standing(job: &Job) -> Arc<str> {
    let failed = job.failed_state.as_ref().filter(|_| job.status.is_terminal());
    failed.unwrap_or(&job.state).clone()
}

fn event_of(planned: &Move, version: u32, task_is_held: bool, by: &Arc<str>) -> Event {
    let state = (planned.to_state != planned.state).then(|| planned.to_state.clone());
    Event::MigrateRequested(Migration { version, state, task_is_held, by: by.clone() })
}
