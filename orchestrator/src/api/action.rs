//! What somebody may do to a job that is there: signal it, decide for it, repair it. Checked in one place for every way in, as
//! [`submission`](super::submission) does for new jobs. Texts that are empty are as good as absent. It refuses to know whether the
//! job is in a position to take it: that is the engine's to say.

use std::sync::Arc;

use avtomatika_proto::{
    ApiError, ErrorCode,
    limits::{
        APPROVER_BYTES_MAX, NAME_BYTES_MAX, OUTCOME_BYTES_MAX, PAYLOAD_BYTES_MAX, REPAIR_JOBS_MAX,
        SIGNAL_DATA_BYTES_MAX, SIGNAL_ID_BYTES_MAX,
    },
    names::is_outcome,
};

use sha2::{Digest, Sha256};

use super::submission::{comment, idempotency_key, invalid, invalid_json, quote, reason};
use crate::{
    conductor::RepairQuery,
    engine::{Edit, JobStatus, RepairKey, Retry, Ruling, Signal, Skip},
    json::Json,
    store::ListQuery,
    time::Timestamp,
};

/// A signal as it was read.
#[derive(Debug, Default, Clone, Copy)]
pub struct SignalDraft<'a> {
    /// What kind of news.
    pub name: &'a str,
    /// Its own name, if the sender may repeat it.
    pub id: &'a str,
    /// The news: a JSON object.
    pub data: &'a str,
}

impl SignalDraft<'_> {
    /// The signal, when everything in it is as it may be.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` that names the field, `INVALID_JSON`, `PAYLOAD_TOO_LARGE`.
    pub fn check(self) -> Result<Signal, ApiError> {
        if self.name.is_empty() {
            return Err(
                invalid("name is missing".to_owned()).with_hint("Name the signal that the job waits for.")
            );
        }
        Ok(Signal {
            name: Arc::from(line("name", self.name, NAME_BYTES_MAX)?),
            id: signal_id(self.id)?,
            data: object("data", self.data, SIGNAL_DATA_BYTES_MAX)?,
            // The engine knows what time it is.
            at: Timestamp::default(),
        })
    }
}

/// A human's decision as it was read.
#[derive(Debug, Default, Clone, Copy)]
pub struct RulingDraft<'a> {
    /// One of the state's transitions.
    pub decision: &'a str,
    /// Why.
    pub comment: &'a str,
    /// Who.
    pub by: &'a str,
    /// What to merge into the state history: a JSON object.
    pub data: &'a str,
    /// The approval's own token.
    pub token: &'a str,
}

/// Who decides.
#[derive(Debug, Clone, Copy)]
pub enum Decider<'a> {
    /// The client that owns the job.
    Owner(&'a Arc<str>),
    /// Whoever has the token.
    Holder,
}

impl RulingDraft<'_> {
    /// The decision, when everything in it is as it may be. The history says of a name that a stranger gave how he came in.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` that names the field, `INVALID_JSON`, `PAYLOAD_TOO_LARGE`.
    pub fn check(self, decider: Decider<'_>) -> Result<Ruling, ApiError> {
        if self.decision.is_empty() {
            let hint = "Name one of the transitions of the job's state, such as \"approved\".";
            return Err(invalid("decision is required in body".to_owned()).with_hint(hint));
        }
        let by = line("by", self.by, APPROVER_BYTES_MAX)?;
        let by = match (decider, by) {
            (Decider::Owner(client), "") => client.clone(),
            (Decider::Owner(_), by) => Arc::from(by),
            (Decider::Holder, "") => Arc::from("holder of the token"),
            (Decider::Holder, by) => Arc::from(format!("{by} (by token)")),
        };
        Ok(Ruling {
            token: Some(self.token).filter(|token| !token.is_empty()).map(Arc::from),
            decision: outcome("decision", self.decision)?,
            by,
            comment: comment(self.comment)?,
            data: object("data", self.data, PAYLOAD_BYTES_MAX)?,
        })
    }
}

/// A retry as it was read.
#[derive(Debug, Default, Clone, Copy)]
pub struct RetryDraft<'a> {
    /// Where to begin.
    pub state: &'a str,
    /// The input from now on: a JSON object.
    pub initial_data: &'a str,
    /// What to change of the input: a merge patch.
    pub initial_data_patch: &'a str,
    /// What to change of the state history: a merge patch.
    pub state_history_patch: &'a str,
    /// Why.
    pub reason: &'a str,
    /// Makes it safe to repeat.
    pub idempotency_key: &'a str,
}

impl RetryDraft<'_> {
    /// The retry, when everything in it is as it may be.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` that names the field, `INVALID_JSON`, `PAYLOAD_TOO_LARGE`.
    pub fn check(self, client: &Arc<str>) -> Result<Retry, ApiError> {
        let initial_data = match (self.initial_data, self.initial_data_patch) {
            ("", "") => None,
            (data, "") => Some(Edit::Replace(object("initial_data", data, PAYLOAD_BYTES_MAX)?)),
            ("", patch) => Some(Edit::Patch(object("initial_data_patch", patch, PAYLOAD_BYTES_MAX)?)),
            _ => return Err(invalid("initial_data and initial_data_patch exclude each other".to_owned())),
        };
        let patch = Some(self.state_history_patch).filter(|patch| !patch.is_empty());
        let patch = patch.map(|patch| object("state_history_patch", patch, PAYLOAD_BYTES_MAX)).transpose()?;
        let Self { state, initial_data: data, initial_data_patch, state_history_patch, reason: why, .. } =
            self;
        let asked = ["retry", state, data, initial_data_patch, state_history_patch, why];
        Ok(Retry {
            state: optional("state", self.state, NAME_BYTES_MAX)?,
            initial_data,
            state_history: patch.map(Edit::Patch),
            by: client.clone(),
            reason: reason(self.reason)?,
            key: repair_key(self.idempotency_key, &asked)?,
        })
    }
}

/// A skip as it was read.
#[derive(Debug, Default, Clone, Copy)]
pub struct SkipDraft<'a> {
    /// Selects the transition.
    pub outcome: &'a str,
    /// What to merge into the state history: a JSON object.
    pub data: &'a str,
    /// Why.
    pub reason: &'a str,
    /// Makes it safe to repeat.
    pub idempotency_key: &'a str,
}

impl SkipDraft<'_> {
    /// The skip, when everything in it is as it may be.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` that names the field, `INVALID_JSON`, `PAYLOAD_TOO_LARGE`.
    pub fn check(self, client: &Arc<str>) -> Result<Skip, ApiError> {
        if self.outcome.is_empty() {
            let hint = "Name one of the transitions of the job's state, such as \"success\".";
            return Err(invalid("outcome is missing".to_owned()).with_hint(hint));
        }
        Ok(Skip {
            outcome: outcome("outcome", self.outcome)?,
            data: object("data", self.data, PAYLOAD_BYTES_MAX)?,
            by: client.clone(),
            reason: reason(self.reason)?,
            key: repair_key(self.idempotency_key, &["skip", self.outcome, self.data, self.reason])?,
        })
    }
}

/// A repair of many jobs as it was read.
#[derive(Debug, Default)]
pub struct RepairDraft<'a> {
    /// Whose jobs, with which labels, since when and so on; its limit is that of the call, 0 for the largest.
    pub jobs: ListQuery,
    /// Only jobs that failed in this state.
    pub failed_state: &'a str,
    /// Only jobs that ended with this code.
    pub error_code: &'a str,
    /// Only say which.
    pub dry_run: bool,
}

impl RepairDraft<'_> {
    /// The query, when everything in it is as it may be.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` that names the field.
    pub fn check(mut self) -> Result<RepairQuery, ApiError> {
        if let Some(status) = self.jobs.statuses.iter().find(|status| !status.is_repairable()) {
            return Err(invalid(format!("a job that is {status} cannot be repaired")).with_hint(format!(
                "Repair jobs that are {} or {}.",
                JobStatus::Failed,
                JobStatus::Quarantined
            )));
        }
        match self.jobs.limit {
            0 => self.jobs.limit = REPAIR_JOBS_MAX as usize,
            limit if limit > REPAIR_JOBS_MAX as usize => {
                return Err(invalid(format!(
                    "one call repairs at most {REPAIR_JOBS_MAX} jobs, {limit} were asked for"
                ))
                .with_hint("Go on with the cursor of the answer."));
            }
            _ => {}
        }
        Ok(RepairQuery {
            failed_state: optional("failed_state", self.failed_state, NAME_BYTES_MAX)?,
            error_code: optional("error_code", self.error_code, NAME_BYTES_MAX)?,
            jobs: self.jobs,
            dry_run: self.dry_run,
        })
    }
}

/// A JSON object within its limit, through the gate; an empty text is the empty object.
fn object(field: &str, text: &str, bytes_max: usize) -> Result<Json, ApiError> {
    if text.is_empty() {
        return Ok(Json::empty());
    }
    if text.len() > bytes_max {
        let text = format!("{field} has {} bytes, the limit is {bytes_max}", text.len());
        return Err(ApiError::new(ErrorCode::PayloadTooLarge, text));
    }
    Json::object(text).map_err(|error| invalid_json(format_args!("in {field}, {error}")))
}

fn outcome(field: &str, text: &str) -> Result<Arc<str>, ApiError> {
    match is_outcome(text) {
        true => Ok(Arc::from(text)),
        false => Err(invalid(format!(
            "{field} is {}, not 1 to {OUTCOME_BYTES_MAX} characters of a-z A-Z 0-9 . _ -",
            quote(text)
        ))),
    }
}

fn signal_id(text: &str) -> Result<Option<Arc<str>>, ApiError> {
    match text.len() <= SIGNAL_ID_BYTES_MAX && text.bytes().all(|byte| (0x20..=0x7e).contains(&byte)) {
        true => Ok(Some(text).filter(|id| !id.is_empty()).map(Arc::from)),
        false => Err(invalid(format!("id is not 1 to {SIGNAL_ID_BYTES_MAX} printable ASCII characters"))),
    }
}

/// The key of a repair, with a fingerprint of what is asked for.
fn repair_key(id: &str, asked: &[&str]) -> Result<Option<RepairKey>, ApiError> {
    if id.is_empty() {
        return Ok(None);
    }
    let mut hash = Sha256::new();
    for text in asked {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
    }
    let [a, b, c, d, e, f, g, h, ..] = <[u8; 32]>::from(hash.finalize());
    let fingerprint = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
    Ok(Some(RepairKey { id: idempotency_key(id)?, fingerprint }))
}

fn optional(field: &str, text: &str, bytes_max: usize) -> Result<Option<Arc<str>>, ApiError> {
    Ok(Some(line(field, text, bytes_max)?).filter(|text| !text.is_empty()).map(Arc::from))
}

/// A short text for people.
fn line<'a>(field: &str, text: &'a str, bytes_max: usize) -> Result<&'a str, ApiError> {
    match text.len() <= bytes_max && !text.chars().any(char::is_control) {
        true => Ok(text),
        false => Err(invalid(format!("{field} has more than {bytes_max} bytes or a control character"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alice() -> Arc<str> {
        Arc::from("alice")
    }

    fn told<T: std::fmt::Debug>(result: Result<T, ApiError>) -> (ErrorCode, String) {
        let error = result.unwrap_err();
        (error.code, format!("{} | {}", error.message, error.hint))
    }

    #[test]
    fn what_is_left_out_is_absent() {
        let signal = SignalDraft { name: "paid", ..Default::default() }.check().unwrap();
        assert_eq!((signal.id, signal.data.as_str()), (None, "{}"));
        let retry = RetryDraft::default().check(&alice()).unwrap();
        assert_eq!(
            (retry.state, retry.initial_data, retry.state_history, retry.reason),
            (None, None, None, None)
        );
        assert_eq!(&*retry.by, "alice");
        let query = RepairDraft::default().check().unwrap();
        assert_eq!((query.jobs.limit, query.failed_state), (1000, None));
    }

    #[test]
    fn a_history_says_who_decided_and_how_he_came_in() {
        let by = |by, decider| {
            RulingDraft { decision: "approved", by, ..Default::default() }.check(decider).unwrap().by
        };
        let alice = alice();
        assert_eq!(&*by("", Decider::Owner(&alice)), "alice");
        assert_eq!(&*by("anna", Decider::Owner(&alice)), "anna");
        assert_eq!(&*by("", Decider::Holder), "holder of the token");
        assert_eq!(&*by("alice", Decider::Holder), "alice (by token)");
    }

    #[test]
    fn what_is_beyond_a_limit_is_refused_by_name() {
        let long = |bytes: usize| "x".repeat(bytes);
        let large = |bytes: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(bytes - 8));
        let signal = |name: &str, id: &str, data: &str| told(SignalDraft { name, id, data }.check());
        let ruling = |decision: &str, by: &str, comment: &str| {
            told(RulingDraft { decision, by, comment, ..Default::default() }.check(Decider::Holder))
        };
        let retry = |draft: RetryDraft<'_>| told(draft.check(&alice()));
        let skip = |outcome: &str, data: &str| {
            told(SkipDraft { outcome, data, ..Default::default() }.check(&alice()))
        };
        let (argument, json, size) =
            (ErrorCode::InvalidArgument, ErrorCode::InvalidJson, ErrorCode::PayloadTooLarge);
        for ((code, text), expected, words) in [
            (signal("", "", ""), argument, "name is missing | Name the signal"),
            (signal(&long(129), "", ""), argument, "name has more than 128 bytes or a control character"),
            (signal("a\nb", "", ""), argument, "name has more than 128 bytes or a control character"),
            (signal("a", &long(256), ""), argument, "id is not 1 to 255 printable ASCII"),
            (signal("a", "ö", ""), argument, "id is not 1 to 255 printable ASCII"),
            (signal("a", "", "[]"), json, "in data, expected a JSON object, got an array"),
            (
                signal("a", "", &large(SIGNAL_DATA_BYTES_MAX + 1)),
                size,
                "data has 262145 bytes, the limit is 262144",
            ),
            (ruling("", "", ""), argument, "decision is required in body"),
            (ruling("yes please", "", ""), argument, "decision is \"yes please\", not 1 to 64"),
            (ruling("yes", &long(129), ""), argument, "by has more than 128 bytes"),
            (ruling("yes", "", &long(1001)), argument, "comment has 1001 characters, the limit is 1000"),
            (
                retry(RetryDraft { initial_data: "{}", initial_data_patch: "{}", ..Default::default() }),
                argument,
                "initial_data and initial_data_patch exclude each other",
            ),
            (
                retry(RetryDraft { state_history_patch: "7", ..Default::default() }),
                json,
                "in state_history_patch, expected a JSON object, got a number",
            ),
            (
                retry(RetryDraft { state: &long(129), ..Default::default() }),
                argument,
                "state has more than 128",
            ),
            (
                retry(RetryDraft { reason: &long(1001), ..Default::default() }),
                argument,
                "reason has 1001 characters",
            ),
            (
                retry(RetryDraft { idempotency_key: "schlüssel", ..Default::default() }),
                argument,
                "the idempotency key is not 1 to 255 printable ASCII characters",
            ),
            (skip("", ""), argument, "outcome is missing"),
            (
                skip("success", &large(PAYLOAD_BYTES_MAX + 1)),
                size,
                "data has 1048577 bytes, the limit is 1048576",
            ),
        ] {
            assert_eq!(code, expected, "{text}");
            assert!(text.contains(words), "{text:?} does not contain {words:?}");
        }
    }

    #[test]
    fn only_what_failed_can_be_repaired_and_so_much_at_once() {
        let of = |statuses: &[JobStatus], limit| RepairDraft {
            jobs: ListQuery { statuses: statuses.to_vec(), limit, ..Default::default() },
            ..Default::default()
        };
        assert!(of(&[JobStatus::Failed, JobStatus::Quarantined], 1000).check().is_ok());
        assert_eq!(
            told(of(&[JobStatus::Cancelled], 1).check()).1.split(" | ").next(),
            Some("a job that is cancelled cannot be repaired")
        );
        assert!(
            told(of(&[], 1001).check())
                .1
                .starts_with("one call repairs at most 1000 jobs, 1001 were asked for")
        );
    }
}
