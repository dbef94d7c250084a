//! Why a job does not take what somebody wants to do to it, in words for whoever asked. Whoever has no right to a job learns
//! nothing from them.

use avtomatika_proto::{ApiError, ErrorCode, limits::PAYLOAD_BYTES_MAX};

use super::{
    core::Core,
    handle::{check_input, job_not_found},
};
use crate::{
    blueprint::Blueprint,
    engine::{
        Edit, Job, JobStatus, Refusal, SIGNAL_BYTES_MAX, SIGNALS_MAX, STATE_HISTORY_BYTES_MAX, Wait,
        is_decision,
    },
};

impl Core {
    /// The answer to what was refused. Who is no owner has come with the token of an approval.
    pub(super) fn refused(&self, job: &Job, refusal: Refusal, is_owner: bool) -> ApiError {
        // Whoever has no right to the job learns nothing of it.
        if !is_owner && refusal != Refusal::NoSuchTransition {
            return job_not_found();
        }
        match refusal {
            Refusal::JobTerminal => {
                let text = format!("The job has ended already: it is {}", job.status);
                ApiError::new(ErrorCode::JobTerminal, text)
            }
            Refusal::NoSuchApproval if job.status == JobStatus::WaitingForHuman => ApiError::new(
                ErrorCode::ApprovalNotFound,
                "The token is not that of the job's present approval",
            ),
            Refusal::NoSuchApproval => {
                let text = format!("Nobody is asked to decide: the job is {}", job.status);
                ApiError::new(ErrorCode::ApprovalNotFound, text)
            }
            Refusal::NoSuchTransition => self.no_transition(job),
            Refusal::NoSuchState => {
                let text = format!("Blueprint {:?} has no such state", job.blueprint);
                ApiError::new(ErrorCode::StateNotFound, text)
            }
            Refusal::NotRetryable => {
                let text =
                    format!("Only a failed or quarantined job can be repaired: this one is {}", job.status);
                ApiError::new(ErrorCode::NotRepairable, text)
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
                let text = format!(
                    "Version {} of blueprint {:?} is not served",
                    job.blueprint_version, job.blueprint
                );
                ApiError::new(ErrorCode::StateNotFound, text)
            }
            other => ApiError::new(ErrorCode::Internal, format!("The job does not take this: {other}")),
        }
    }

    /// Where the edited input is not what the blueprint wants.
    pub(super) fn misfit(&self, job: &Job, edit: Option<&Edit>) -> ApiError {
        let input = edit.map_or_else(|| job.initial_data().clone(), |edit| edit.apply(job.initial_data()));
        let blueprint = self.blueprints.version(&job.blueprint, job.blueprint_version);
        let misfit = blueprint.and_then(|blueprint| check_input(blueprint, &input).err());
        misfit.unwrap_or_else(|| {
            ApiError::new(ErrorCode::InputInvalid, "The edited input does not fit its schema")
        })
    }

    /// The state of the job has no transition of that name; the hint says which it has.
    fn no_transition(&self, job: &Job) -> ApiError {
        let state = match job.status.is_terminal() {
            true => job.failed_state.as_ref().unwrap_or(&job.state),
            false => &job.state,
        };
        let error =
            ApiError::new(ErrorCode::OutcomeUnknown, format!("State {state:?} has no such transition"));
        let outcomes = match self.blueprints.version(&job.blueprint, job.blueprint_version) {
            Some(blueprint) => outcomes_of(blueprint, state, job),
            None => Vec::new(),
        };
        match outcomes.is_empty() {
            true => error.with_hint("Nobody can choose how this state ends."),
            false => error.with_hint(format!("Choose one of: {}.", outcomes.join(", "))),
        }
    }
}

/// What may be chosen for the end of the state.
pub(super) fn outcomes_of<'a>(blueprint: &'a Blueprint, state: &str, job: &Job) -> Vec<&'a str> {
    let waits_for_a_human = matches!(job.wait, Some(Wait::Approval { .. }));
    let transitions = blueprint.state(state).and_then(|state| state.kind.transitions());
    let outcomes = transitions.into_iter().flatten().map(|(outcome, _)| &**outcome);
    outcomes.filter(|outcome| !waits_for_a_human || is_decision(outcome)).collect()
}
