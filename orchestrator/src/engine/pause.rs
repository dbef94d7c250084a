//! What a job waits for that is no work: a point in time, a signal, a human's decision.

use std::sync::Arc;

use avtomatika_proto::{limits::TIMEOUT_MAX, outcome, span};
use serde::Serialize;
use serde_json::Value;
use subtle::ConstantTimeEq;

use super::{
    Effect, HistoryEvent, JobError, JobStatus, Notice, Refusal, Ruling, SIGNAL_BYTES_MAX, SIGNAL_IDS_MAX,
    SIGNALS_MAX, Signal, Wait, code,
    draft::{Draft, Step, error},
    outlook::decisions,
};
use crate::{
    blueprint::{ApprovalState, EventState, ExprError, StateKind, WaitState, WaitUntil},
    json::{Json, Raw},
    time::Timestamp,
};

/// What a signal that was waited for is called among the transitions of its state.
const RECEIVED: &str = "received";

impl Draft<'_, '_> {
    // ---- Time ----

    pub fn start_wait(&mut self, wait: &WaitState) -> Step {
        let until = match self.wait_until(&wait.until) {
            Ok(until) => until,
            Err(error) => return self.end(JobStatus::Failed, Some(error)),
        };
        let now = self.context.now;
        if until <= now {
            return Step::Go { outcome: None, next: wait.next.clone() };
        }
        self.job.status = JobStatus::WaitingForTimer;
        self.job.wait = Some(Wait::Timer);
        self.job.resumes_at = Some(until);
        self.note(HistoryEvent::WaitStarted).duration = Some(until.saturating_since(now));
        Step::Stay
    }

    pub fn wait_is_over(&mut self) -> Step {
        self.note(HistoryEvent::WaitEnded);
        let next = match self.state().map(|state| &state.kind) {
            Some(StateKind::Wait(wait)) => Ok(wait.next.clone()),
            _ => Err(error(code::STATE_UNKNOWN, format!("State {:?} is no wait", self.job.state))),
        };
        self.go_or_fail(next)
    }

    fn wait_until(&self, until: &WaitUntil) -> Result<Timestamp, JobError> {
        let now = self.context.now;
        let (until, shown) = match until {
            WaitUntil::Span(span) => return Ok(now + *span),
            // How far away it is depends on when the job gets there.
            WaitUntil::Time(time) => (later(*time, now), time.to_string()),
            WaitUntil::Computed(template) => {
                let value = template.render(&self.scope(now)).map_err(|cause| self.no_value(&cause))?;
                (point_in_time(&value.to_value(), now), value.as_str().chars().take(80).collect())
            }
        };
        until.ok_or_else(|| {
            let message = format!(
                "State {:?} cannot wait for {shown}: give a span such as \"10m\", a number of seconds, or a time such as \
                 \"2026-12-24T18:00:00Z\", at most {} days away",
                self.job.state,
                TIMEOUT_MAX.as_secs() / 86_400,
            );
            error(code::EXPRESSION, message)
        })
    }

    // ---- Signals ----

    pub fn await_signal(&mut self, event: &EventState) -> Step {
        let name = match self.signal_name(event) {
            Ok(name) => name,
            Err(error) => return self.fail(outcome::FAILURE, error, JobStatus::Failed),
        };
        if let Some(place) = self.kept_signal(event, &name) {
            let signal = self.job.signals.remove(place);
            return self.receive(&signal);
        }
        let now = self.context.now;
        self.job.status = JobStatus::WaitingForEvent;
        self.job.resumes_at = event.deadline.map(|deadline| now + deadline);
        let entry = self.note(HistoryEvent::WaitStarted);
        entry.detail = Some(name.clone());
        entry.duration = event.deadline;
        self.job.wait = Some(Wait::Signal { name, since: now });
        Step::Stay
    }

    /// Whether a job that waits for the signal of this name waits for what this state waits for, and none that was kept would do.
    pub fn still_awaits(&self, event: &EventState, name: &Arc<str>) -> bool {
        self.signal_name(event).is_ok_and(|wanted| wanted == *name) && self.kept_signal(event, name).is_none()
    }

    fn signal_name(&self, event: &EventState) -> Result<Arc<str>, JobError> {
        let name = event.name.render(&self.scope(self.context.now)).map_err(|cause| self.no_value(&cause))?;
        if !name.is_string() {
            let message = format!("The name of the signal in state {:?} is no text", self.job.state);
            return Err(error(code::EXPRESSION, message));
        }
        Ok(Arc::from(name.to_plain()))
    }

    /// Where among the signals that came early there is one that the state takes.
    fn kept_signal(&self, event: &EventState, name: &Arc<str>) -> Option<usize> {
        let takes = |signal: &Signal| signal.name == *name && self.fits(event, signal).unwrap_or(false);
        self.job.signals.iter().position(takes)
    }

    pub fn signalled(&mut self, signal: &Signal) -> Result<Step, Refusal> {
        if let Some(id) = &signal.id {
            if self.job.signal_ids.contains(id) {
                return Err(Refusal::SignalRepeated);
            }
            if self.job.signal_ids.len() == SIGNAL_IDS_MAX {
                self.job.signal_ids.remove(0);
            }
            self.job.signal_ids.push(id.clone());
        }
        let event = match self.state().map(|state| &state.kind) {
            Some(StateKind::Event(event)) => Some(event),
            _ => None,
        };
        let awaited = matches!(&self.job.wait, Some(Wait::Signal { name, .. }) if *name == signal.name);
        let mut misfit = None;
        if let Some(event) = event.filter(|_| awaited) {
            match self.fits(event, signal) {
                Ok(true) => return Ok(self.receive(signal)),
                Ok(false) => {}
                // Whoever sends nonsense must not bring the job down. It is kept, and the history says why it was not taken.
                Err(cause) => misfit = Some(self.no_value(&cause)),
            }
        }
        let bytes: usize = self.job.signals.iter().map(|kept| kept.data.as_str().len()).sum();
        if self.job.signals.len() == SIGNALS_MAX || bytes + signal.data.as_str().len() > SIGNAL_BYTES_MAX {
            return Err(Refusal::SignalsFull);
        }
        self.job.signals.push(Signal { at: self.context.now, ..signal.clone() });
        let entry = self.note(HistoryEvent::SignalKept);
        entry.detail = Some(signal.name.clone());
        entry.error = misfit;
        Ok(Step::Stay)
    }

    fn fits(&self, event: &EventState, signal: &Signal) -> Result<bool, ExprError> {
        let Some(when) = &event.when else { return Ok(true) };
        let mut scope = self.scope(self.context.now);
        scope.signal = Some(&signal.data);
        when.eval_bool(&scope)
    }

    fn receive(&mut self, signal: &Signal) -> Step {
        self.note(HistoryEvent::SignalReceived).detail = Some(signal.name.clone());
        self.stop_waiting();
        self.job.outcome = Some(Arc::from(RECEIVED));
        if let Err(error) = self.take_data(&signal.data, None) {
            return self.fail(outcome::FAILURE, error, JobStatus::Failed);
        }
        self.go(RECEIVED)
    }

    // ---- Humans ----

    pub fn ask_human(&mut self, approval: &ApprovalState) -> Step {
        let now = self.context.now;
        let message = match self.question(approval, now) {
            Ok(message) => message,
            Err(error) => return self.fail(outcome::FAILURE, error, JobStatus::Failed),
        };
        // 128 random bits: nobody guesses them.
        let token = Arc::from(format!("{:032x}", self.context.entropy.next_u128()));
        self.job.status = JobStatus::WaitingForHuman;
        self.job.resumes_at = approval.deadline.map(|deadline| now + deadline);
        self.job.wait = Some(Wait::Approval { token, message: message.clone(), since: now });
        let entry = self.note(HistoryEvent::ApprovalRequested);
        entry.detail = message;
        entry.duration = approval.deadline;
        if self.job.submission.webhook_url.is_some() {
            self.effects.push(Effect::Notify(Notice::ApprovalRequested));
        }
        Step::Stay
    }

    /// Whether a job that asked a human this asks what this state asks.
    pub fn still_asks(&self, approval: &ApprovalState, message: Option<&Arc<str>>, since: Timestamp) -> bool {
        self.question(approval, since).is_ok_and(|question| question.as_ref() == message)
    }

    /// What the human is asked.
    fn question(&self, approval: &ApprovalState, now: Timestamp) -> Result<Option<Arc<str>>, JobError> {
        let Some(message) = &approval.message else { return Ok(None) };
        let question = message.render(&self.scope(now)).map_err(|cause| self.no_value(&cause))?;
        Ok(Some(Arc::from(question.to_plain())))
    }

    pub fn decided(&mut self, ruling: &Ruling) -> Result<Step, Refusal> {
        if !self.job.wait.as_ref().is_some_and(|wait| wait.opens_to(ruling)) {
            return Err(Refusal::NoSuchApproval);
        }
        if !decisions(&self.job, self.context.blueprint).contains(&ruling.decision) {
            return Err(Refusal::NoSuchTransition);
        }
        let entry = self.note(HistoryEvent::ApprovalDecided);
        entry.outcome = Some(ruling.decision.clone());
        entry.by = Some(ruling.by.clone());
        entry.detail = ruling.comment.clone();
        self.stop_waiting();
        if let Err(error) = self.take_data(&ruling.data, None) {
            return Ok(self.fail(outcome::FAILURE, error, JobStatus::Failed));
        }
        self.job.outcome = Some(ruling.decision.clone());
        self.job.result = Some(record_of(ruling));
        Ok(self.go(&ruling.decision))
    }
}

impl Wait {
    /// Whether this is an approval that the ruling may decide: its token, if it has one, is the approval's own.
    pub fn opens_to(&self, ruling: &Ruling) -> bool {
        let Self::Approval { token, .. } = self else { return false };
        ruling.token.as_ref().is_none_or(|given| bool::from(given.as_bytes().ct_eq(token.as_bytes())))
    }
}

/// The decision, for the expressions of the states that follow.
#[derive(Serialize)]
struct Record<'r> {
    decision: &'r str,
    by: &'r str,
    comment: Option<&'r str>,
    data: Raw<'r>,
}

fn record_of(ruling: &Ruling) -> Json {
    Json::of(&Record {
        decision: &ruling.decision,
        by: &ruling.by,
        comment: ruling.comment.as_deref(),
        data: Raw(ruling.data.as_str()),
    })
}

/// A span from now on, a number of seconds, or a time.
fn point_in_time(value: &Value, now: Timestamp) -> Option<Timestamp> {
    let span = match value {
        Value::Number(seconds) => span::from_seconds(seconds.as_f64()?).ok()?,
        Value::String(text) => match span::parse_or_seconds(text) {
            Ok(span) => span,
            Err(_) => return later(Timestamp::from_rfc3339(text)?, now),
        },
        _ => return None,
    };
    (span <= TIMEOUT_MAX).then(|| now + span)
}

/// The time, unless it is further away than anybody plans.
fn later(time: Timestamp, now: Timestamp) -> Option<Timestamp> {
    (time.saturating_since(now) <= TIMEOUT_MAX).then_some(time)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_point_in_time_has_three_spellings() {
        let now = Timestamp::from_micros(1_000_000_000_000_000);
        let at = |json: &str| point_in_time(&serde_json::from_str(json).unwrap(), now);
        assert_eq!(at("\"10m\""), Some(now + Duration::from_secs(600)));
        assert_eq!(at("90"), Some(now + Duration::from_secs(90)));
        assert_eq!(at("\"90s\""), Some(now + Duration::from_secs(90)));
        assert_eq!(at("\"2001-09-09T01:46:41Z\""), Some(now + Duration::from_secs(1)));
        assert_eq!(at("\"2001-09-09T01:46:39Z\""), Some(Timestamp::from_micros(999_999_999_000_000)));
        for nonsense in ["true", "null", "\"soon\"", "-5", "\"9999-01-01T00:00:00Z\"", "1e300", "{}"] {
            assert_eq!(at(nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn a_decision_keeps_its_data_as_they_are_written() {
        let ruling = Ruling {
            token: None,
            decision: Arc::from("approved"),
            by: Arc::from("Ann \"A.\""),
            comment: None,
            data: Json::object(r#"{"amount": 1.10, "id": 12345678901234567890123}"#).unwrap(),
        };
        let expected = r#"{"decision":"approved","by":"Ann \"A.\"","comment":null,"data":{"amount": 1.10, "id": 12345678901234567890123}}"#;
        assert_eq!(record_of(&ruling).as_str(), expected);
    }
}
