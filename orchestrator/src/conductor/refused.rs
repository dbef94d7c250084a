//! Why a job does not take what somebody wants to do to it, in words for whoever asked. Whoever has no right to a job learns
//! nothing from them.

use std::sync::Arc;

use avtomatika_proto::{ApiError, ErrorCode, limits::PAYLOAD_BYTES_MAX};

use super::handle::{check_input, job_not_found};
use crate::{
    blueprint::{Blueprint, Registry},
    engine::{
        Context, Edit, Entropy, Event, Job, JobStatus, Refusal, SIGNAL_BYTES_MAX, SIGNALS_MAX,
        STATE_HISTORY_BYTES_MAX, Unlimited, Wait, decide,
        outlook::{decisions, skips},
    },
    time::Timestamp,
};

/// States that a hint names.
const STATES_NAMED_MAX: usize = 20;

/// Of what was asked, that of which a refusal speaks.
#[derive(Debug, Default)]
pub(super) struct AskedFor {
    /// The state or the outcome.
    word: Option<Arc<str>>,
    input: Option<Edit>,
}

impl AskedFor {
    pub(super) fn by(event: &Event) -> Self {
        match event {
            Event::RetryRequested(retry) => {
                Self { word: retry.state.clone(), input: retry.initial_data.clone() }
            }
            Event::SkipRequested(skip) => Self { word: Some(skip.outcome.clone()), input: None },
            Event::Decided(ruling) => Self { word: Some(ruling.decision.clone()), input: None },
            _ => Self::default(),
        }
    }

    fn word(&self) -> &str {
        self.word.as_deref().unwrap_or_default()
    }
}

/// Whether the job would take this now. Whether there is room for it, and for its keys, is seen when it does.
pub(super) fn would_take(
    blueprints: &Registry,
    blueprint: &Blueprint,
    (job, event, now): (&Job, &Event, Timestamp),
) -> Result<(), Refusal> {
    let context = &mut Context {
        now,
        blueprint,
        // What is made of these is thrown away.
        entropy: &mut Entropy::from_seed([0; 32]),
        reserve: &mut |_| job.id.key(),
        serves: &|name| blueprints.newest(name).is_some(),
        room: &|| u32::MAX,
        keys: &Unlimited,
    };
    decide(job, event, context).map(drop)
}

/// The answer to what was refused. Who is no owner has come with the token of an approval.
pub(super) fn refused(
    blueprints: &Registry,
    job: &Job,
    asked: &AskedFor,
    refusal: Refusal,
    is_owner: bool,
) -> ApiError {
    // Whoever has no right to the job learns nothing of it.
    if !is_owner && refusal != Refusal::NoSuchTransition {
        return job_not_found();
    }
    match refusal {
        Refusal::JobTerminal => {
            let text = format!("The job has ended already: it is {}", job.status);
            ApiError::new(ErrorCode::JobTerminal, text)
        }
        Refusal::NoSuchApproval if job.status == JobStatus::WaitingForHuman => {
            ApiError::new(ErrorCode::ApprovalNotFound, "The token is not that of the job's present approval")
        }
        Refusal::NoSuchApproval => {
            let text = format!("Nobody is asked to decide: the job is {}", job.status);
            ApiError::new(ErrorCode::ApprovalNotFound, text)
        }
        Refusal::NoSuchTransition => no_transition(blueprints, job, asked),
        Refusal::InputInvalid => misfit(blueprints, job, asked.input.as_ref()),
        Refusal::NoSuchState => {
            let text = format!("Blueprint {:?} has no state {:?}", job.blueprint, asked.word());
            let error = ApiError::new(ErrorCode::StateNotFound, text);
            match blueprints.version(&job.blueprint, job.blueprint_version) {
                Some(blueprint) => error.with_hint(format!("Choose one of: {}.", states_of(blueprint))),
                None => error,
            }
        }
        Refusal::NotRetryable => {
            let text =
                format!("Only a failed or quarantined job can be repaired: this one is {}", job.status);
            let error = ApiError::new(ErrorCode::NotRepairable, text);
            match job.status.is_terminal() {
                true => error.with_hint("Submit a new job: this one is over."),
                false => error.with_hint("Wait until it has ended, or skip its state."),
            }
        }
        Refusal::NeverBegan => {
            let cause = job.error.as_ref().map_or("its parent could not start it", |error| &*error.message);
            let text =
                format!("The job failed before it began, so that there is nothing to go on with: {cause}");
            let error = ApiError::new(ErrorCode::NotRepairable, text);
            match &job.submission.parent {
                Some(parent) => error.with_hint(format!(
                    "Retry its parent, job {}, which starts its children anew, or submit a job with what it needs.",
                    parent.job_id
                )),
                None => error,
            }
        }
        Refusal::RepairKeyTaken => {
            let text = "This idempotency key came with another repair of this job";
            ApiError::new(ErrorCode::IdempotencyConflict, text)
        }
        Refusal::SignalsFull => {
            let text = format!(
                "The job keeps as many signals as a job may: {SIGNALS_MAX} of them, with {SIGNAL_BYTES_MAX} bytes of data together"
            );
            ApiError::new(ErrorCode::TooManySignals, text)
        }
        Refusal::DataTooLarge => {
            let text = format!(
                "The edited data would be larger than it may be: {PAYLOAD_BYTES_MAX} bytes of initial_data, {STATE_HISTORY_BYTES_MAX} of state_history"
            );
            ApiError::new(ErrorCode::PayloadTooLarge, text)
        }
        Refusal::StateUnknown => {
            let text =
                format!("Version {} of blueprint {:?} is not served", job.blueprint_version, job.blueprint);
            ApiError::new(ErrorCode::StateNotFound, text)
        }
        other => ApiError::new(ErrorCode::Internal, format!("The job does not take this: {other}")),
    }
}

/// Where the input, edited or not, is not what the blueprint wants.
fn misfit(blueprints: &Registry, job: &Job, edit: Option<&Edit>) -> ApiError {
    let input = edit.map_or_else(|| job.initial_data().clone(), |edit| edit.apply(job.initial_data()));
    let blueprint = blueprints.version(&job.blueprint, job.blueprint_version);
    let misfit = blueprint.and_then(|blueprint| check_input(blueprint, &input).err());
    misfit.unwrap_or_else(|| ApiError::new(ErrorCode::InputInvalid, "The input does not fit its schema"))
}

/// The state of the job has no transition of that name; the hint says which it has.
fn no_transition(blueprints: &Registry, job: &Job, asked: &AskedFor) -> ApiError {
    let refused = |text: String| ApiError::new(ErrorCode::OutcomeUnknown, text);
    if matches!(job.wait, Some(Wait::Start)) {
        return refused(
            "The job has not started yet, so that it stands in no state that could be skipped".to_owned(),
        )
        .with_hint("Wait until it starts, or cancel it.");
    }
    if let Some(parent) = job.submission.parent.as_ref().filter(|_| job.is_branch()) {
        return refused("A branch of a map cannot be skipped".to_owned()).with_hint(format!(
            "Skip the map's state in its parent, job {}, or retry the branch.",
            parent.job_id
        ));
    }
    let state = match job.status.is_terminal() {
        true => job.failed_state.as_ref().unwrap_or(&job.state),
        false => &job.state,
    };
    let error = refused(format!("State {state:?} has no transition {:?}", asked.word()));
    let outcomes = match blueprints.version(&job.blueprint, job.blueprint_version) {
        Some(blueprint) if matches!(job.wait, Some(Wait::Approval { .. })) => decisions(job, blueprint),
        Some(blueprint) => skips(job, blueprint),
        None => Vec::new(),
    };
    match outcomes.is_empty() {
        true => error.with_hint("Nobody can choose how this state ends."),
        false => error.with_hint(format!("Choose one of: {}.", outcomes.join(", "))),
    }
}

fn states_of(blueprint: &Blueprint) -> String {
    let mut names: Vec<&str> = blueprint.states.keys().map(|name| &**name).take(STATES_NAMED_MAX).collect();
    if blueprint.states.len() > STATES_NAMED_MAX {
        names.push("…");
    }
    names.join(", ")
}
