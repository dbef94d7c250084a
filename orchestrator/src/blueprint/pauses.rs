//! The grammar of states that wait for something that is no work: `wait`, `event` and `approval`.

use std::time::Duration;

use avtomatika_proto::limits::NAME_BYTES_MAX;
use serde_json::{Map, Value, json};

use super::{
    ApprovalState, EventState, Template, Transitions, WaitState, WaitUntil,
    expr::Place,
    reader::{Members, Reader, duration_text, literal},
    states::{Outcomes, Reading, Words},
    yaml::{Node, Yaml},
};
use crate::time::Timestamp;

const OUTCOMES_OF_EVENT: Outcomes = Outcomes {
    of: "an event",
    required: Some("received"),
    words: Words::Only(&["received", "timeout", "failure"]),
    cure: "say where the signal leads, as in `on: { received: ship, timeout: give_up }`",
};

const OUTCOMES_OF_APPROVAL: Outcomes = Outcomes {
    of: "an approval",
    required: None,
    words: Words::Own { called: "the decision", usual: &["approved", "rejected", "timeout", "failure"] },
    cure: "name the decisions, as in `on: { approved: ship, rejected: refused }`",
};

impl Reader {
    pub fn wait(&mut self, node: &Node, mut state: Reading<'_, '_>) -> Option<WaitState> {
        let next = self.next(&mut state);
        let (until, form) = match &node.value {
            Yaml::Map(_) => {
                let wait = self.members(node, "`wait`", &["until"])?;
                let until =
                    wait.required(self, "until", "say until when, as in `until: \"2026-12-24T18:00:00Z\"`")?;
                self.point_in_time(until)
            }
            Yaml::Text(text) if text.contains("${") => self.computed_time(node),
            _ => {
                let span = self.duration(node, "wait")?;
                Some((WaitUntil::Span(span), json!(duration_text(span))))
            }
        }?;
        let wait = WaitState { until, next: next? };
        state.form.insert("wait".to_owned(), form);
        state.form.insert("next".to_owned(), json!(wait.next));
        Some(wait)
    }

    fn point_in_time(&mut self, node: &Node) -> Option<(WaitUntil, Value)> {
        let time = match &node.value {
            Yaml::Text(text) if text.contains("${") => return self.computed_time(node),
            Yaml::Text(text) => Timestamp::from_rfc3339(text),
            _ => None,
        };
        if let Some(time) = time {
            return Some((WaitUntil::Time(time), json!({ "until": time.to_string() })));
        }
        self.findings.error(
            node.at,
            format!("`until` must be a time, not {}", literal(node)),
            "write it as in \"2026-12-24T18:00:00Z\", or as a `${…}` that gives one",
        );
        None
    }

    /// Whether a span or a time comes out is seen when a job gets there, so both are spelled alike.
    fn computed_time(&mut self, node: &Node) -> Option<(WaitUntil, Value)> {
        match self.template(node, Place::Common)? {
            Template::Literal(_) => {
                self.findings.error(
                    node.at,
                    format!("`wait` must be a duration or a `${{…}}`, not {}", literal(node)),
                    "write for example 10m, or `${initial_data.pause}`",
                );
                None
            }
            template => Some((WaitUntil::Computed(template), node.to_json())),
        }
    }

    pub fn event(&mut self, node: &Node, mut state: Reading<'_, '_>) -> Option<EventState> {
        let on = self.outcomes(&mut state, &OUTCOMES_OF_EVENT);
        let what = format!("the event of {}", state.members.what);
        let event = self.members(node, &what, &["name", "when", "deadline"])?;
        let name = event
            .required(self, "name", "name the signal to wait for, as in `name: paid`")
            .and_then(|node| self.signal_name(node).map(|name| (name, node.to_json())));
        let when = match event.value("when") {
            Some(node) => self.expression(node, "`when`", Place::Condition).map(Some),
            None => Some(None),
        };
        let deadline = self.deadline(&event, on.as_ref(), &what);
        let ((name, name_form), deadline) = (name?, deadline?);
        let event = EventState { name, when: when?, deadline, on: on? };
        let mut form = Map::new();
        form.insert("name".to_owned(), name_form);
        form.extend(event.when.as_ref().map(|when| ("when".to_owned(), json!(when.source()))));
        form.extend(deadline.map(|deadline| ("deadline".to_owned(), json!(duration_text(deadline)))));
        state.form.insert("event".to_owned(), Value::Object(form));
        state.form.insert("on".to_owned(), json!(event.on));
        Some(event)
    }

    fn signal_name(&mut self, node: &Node) -> Option<Template> {
        let text = self.text(node, "a signal's name")?;
        let template = self.template(node, Place::Common)?;
        if matches!(template, Template::Literal(_)) {
            self.checked(text, node.at, "a signal's name", NAME_BYTES_MAX, "._:/-")?;
        }
        Some(template)
    }

    pub fn approval(&mut self, node: &Node, mut state: Reading<'_, '_>) -> Option<ApprovalState> {
        let on = self.outcomes(&mut state, &OUTCOMES_OF_APPROVAL);
        self.check_decisions(&state);
        let what = format!("the approval of {}", state.members.what);
        let approval = match &node.value {
            // `approval:` with nothing behind it only asks.
            Yaml::Null => Members { at: node.at, what: what.clone(), entries: &[] },
            _ => self.members(node, &what, &["message", "deadline"])?,
        };
        let message = match approval.value("message") {
            Some(node) => {
                self.text(node, "`message`").and_then(|_| self.template(node, Place::Common)).map(Some)
            }
            None => Some(None),
        };
        let deadline = self.deadline(&approval, on.as_ref(), &what)?;
        let mut form = Map::new();
        form.extend(approval.value("message").map(|message| ("message".to_owned(), message.to_json())));
        form.extend(deadline.map(|deadline| ("deadline".to_owned(), json!(duration_text(deadline)))));
        let approval = ApprovalState { message: message?, deadline, on: on? };
        state.form.insert("approval".to_owned(), Value::Object(form));
        state.form.insert("on".to_owned(), json!(approval.on));
        Some(approval)
    }

    /// Somebody must be able to decide something.
    fn check_decisions(&mut self, state: &Reading<'_, '_>) {
        let Some(on) = state.members.value("on") else { return };
        let Yaml::Map(entries) = &on.value else { return };
        if !entries.is_empty() && entries.iter().all(|entry| ["timeout", "failure"].contains(&&*entry.key)) {
            let fault = format!("`on` of {} has no decision", state.members.what);
            self.findings.error(on.at, fault, OUTCOMES_OF_APPROVAL.cure);
        }
    }

    /// How long to wait, and whether the transitions agree. Nothing is an answer too.
    fn deadline(
        &mut self,
        of: &Members<'_>,
        on: Option<&Transitions>,
        what: &str,
    ) -> Option<Option<Duration>> {
        let deadline = match of.entry("deadline") {
            Some(entry) => Some((self.duration(&entry.value, "deadline")?, entry.key_at)),
            None => None,
        };
        let has = |outcome: &str| on.is_some_and(|on| on.contains_key(outcome));
        match deadline {
            None if has("timeout") => self.findings.error(
                of.at,
                format!("{what} has a transition for `timeout` and no deadline"),
                "add for example `deadline: 48h`, or remove the transition",
            ),
            Some((_, at)) if on.is_some() && !has("timeout") && !has("failure") => self.findings.warning(
                at,
                format!(
                    "{what} has a deadline and no transition for `timeout`: a job that waits too long fails"
                ),
                "add `timeout: some_state` to `on`",
            ),
            _ => {}
        }
        Some(deadline.map(|(deadline, _)| deadline))
    }
}
