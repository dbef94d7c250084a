//! The grammar of states: what each kind has for keys, and what they mean.
//!
//! Reading a state also writes its canonical form. States are looked at one by one here; what they mean together is the lint's
//! business.

use std::{collections::BTreeMap, sync::Arc};

use avtomatika_proto::limits::{NAME_BYTES_MAX, OUTCOME_BYTES_MAX};
use serde_json::{Map, Value, json};

use super::{
    Blueprint, ChoiceState, End, EndState, Expr, PassState, RetryPolicy, StateKind, TaskState, TaskWork,
    Template,
    finding::{Position, did_you_mean, shown},
    load::{MAX_RETRIES_MAX, MULTIPLIER_MAX, STATES_MAX},
    reader::{Members, Reader, duration_text, literal},
    yaml::{Entry, Node, Yaml},
};

/// What a file says, before it is known to make sense.
pub struct Draft {
    /// Where the states are listed.
    pub at: Position,
    pub states: Vec<DraftState>,
}

pub struct DraftState {
    pub name: Arc<str>,
    pub at: Position,
    /// Where it says that it is the start.
    pub start_at: Option<Position>,
    /// Nothing when the state is wrong in itself, which has been reported.
    pub kind: Option<StateKind>,
    pub links: Vec<Link>,
}

/// A way out of a state.
pub struct Link {
    pub to: Arc<str>,
    pub at: Position,
}

/// The keys that make a state what it is.
const KINDS: [&str; 4] = ["task", "choice", "pass", "end"];

impl Reader {
    pub fn states(&mut self, node: &Node) -> (Vec<DraftState>, Map<String, Value>) {
        let Some(entries) = self.map(node, "`states`") else { return (Vec::new(), Map::new()) };
        if entries.len() > STATES_MAX {
            self.findings.error(
                node.at,
                format!("the blueprint has {} states, at most {STATES_MAX} are allowed", entries.len()),
                "split it into several blueprints",
            );
        }
        let mut canonical = Map::new();
        let mut states = Vec::new();
        for entry in entries.iter().take(STATES_MAX) {
            let Some(name) = self.checked(&entry.key, entry.key_at, "a state's name", NAME_BYTES_MAX, "._-")
            else {
                continue;
            };
            let (state, form) = self.state(name, entry);
            canonical.insert(entry.key.clone(), Value::Object(form));
            states.push(state);
        }
        (states, canonical)
    }

    fn state(&mut self, name: Arc<str>, entry: &Entry) -> (DraftState, Map<String, Value>) {
        let mut state = DraftState { name, at: entry.key_at, start_at: None, kind: None, links: Vec::new() };
        let mut form = Map::new();
        let Some(entries) = self.map(&entry.value, &format!("state `{}`", state.name)) else {
            return (state, form);
        };
        let kinds: Vec<&Entry> = entries.iter().filter(|entry| KINDS.contains(&entry.key.as_str())).collect();
        let known: &[&str] = match kinds.as_slice() {
            [kind] => match kind.key.as_str() {
                "task" => &["start", "task", "on"],
                "choice" => &["start", "choice", "else"],
                "pass" => &["start", "pass", "next"],
                _ => &["start", "end"],
            },
            _ => &["start", "task", "choice", "pass", "end", "on", "else", "next"],
        };
        let what = format!("state `{}`", state.name);
        self.state_keys(entries, known, &what, kinds.first().map(|kind| kind.key.as_str()));
        let members = Members { at: entry.key_at, what, entries };
        if let Some(start) = members.entry("start") {
            match start.value.value {
                Yaml::Bool(false) => {}
                Yaml::Bool(true) => state.start_at = Some(start.key_at),
                _ => {
                    // Taken for a start, so that the lint does not miss one too.
                    state.start_at = Some(start.key_at);
                    self.findings.error(
                        start.value.at,
                        format!("`start` must be true or false, not {}", literal(&start.value)),
                        "write `start: true` in one state",
                    );
                }
            }
        }
        if state.start_at.is_some() {
            form.insert("start".to_owned(), Value::Bool(true));
        }
        match kinds.as_slice() {
            [] => self.findings.error(
                state.at,
                format!("{} has no kind", members.what),
                "give it one of `task`, `choice`, `pass` and `end`",
            ),
            [kind] => {
                let links = &mut state.links;
                state.kind = match kind.key.as_str() {
                    "task" => self.task(&kind.value, &members, links, &mut form).map(StateKind::Task),
                    "choice" => self.choice(&kind.value, &members, links, &mut form).map(StateKind::Choice),
                    "pass" => self.pass(&kind.value, &members, links, &mut form).map(StateKind::Pass),
                    _ => self.end(&kind.value, &mut form).map(StateKind::End),
                };
            }
            [first, second, ..] => self.findings.error(
                second.key_at,
                format!(
                    "{} is both `{}` (line {}) and `{}`",
                    members.what, first.key, first.key_at.line, second.key
                ),
                "make two states of it",
            ),
        }
        (state, form)
    }

    /// Unknown keys of a state; a key that belongs to another kind is told from a misspelt one.
    fn state_keys(&mut self, entries: &[Entry], known: &[&str], what: &str, kind: Option<&str>) {
        for entry in entries.iter().filter(|entry| !known.contains(&entry.key.as_str())) {
            let key = shown(&entry.key);
            let (fault, cure) = match (entry.key.as_str(), kind) {
                ("on" | "next" | "else", Some("end")) => (
                    format!("{what} ends the job and has the transition `{key}`"),
                    "remove `end` or the transition".to_owned(),
                ),
                ("on" | "next" | "else", Some(kind)) => (
                    format!("`{key}` does not belong to a {kind} state"),
                    match kind {
                        "task" => "write the transitions of a task under `on`",
                        "choice" => "write the transitions of a choice as `when`, `next` and `else`",
                        _ => "write the transition of a pass state as `next`",
                    }
                    .to_owned(),
                ),
                _ => (
                    format!("unknown key `{key}` in {what}"),
                    did_you_mean(&entry.key, known.iter().copied()),
                ),
            };
            self.findings.error(entry.key_at, fault, cure);
        }
    }

    /// The target of a transition.
    fn link(&mut self, node: &Node, what: &str, links: &mut Vec<Link>) -> Option<Arc<str>> {
        let to: Arc<str> = Arc::from(self.text(node, what)?);
        links.push(Link { to: to.clone(), at: node.at });
        Some(to)
    }

    fn task(
        &mut self,
        node: &Node,
        state: &Members<'_>,
        links: &mut Vec<Link>,
        form: &mut Map<String, Value>,
    ) -> Option<TaskState> {
        let what = format!("the task of {}", state.what);
        // Transitions are read even if the task is wrong, so that what they lead to is not called unreachable.
        let on = self.outcomes(state, links);
        let task = self.members(node, &what, &["type", "params", "timeout", "retry"])?;
        let task_type = task
            .required(self, "type", "say what a worker must serve, as in `type: process_data`")
            .and_then(|node| {
                let text = self.text(node, "a task's type")?;
                self.checked(text, node.at, "a task's type", NAME_BYTES_MAX, "._:-")
            });
        let params_form = task.value("params").map_or_else(|| json!({}), Node::to_json);
        let params = match task.value("params") {
            Some(node) => self.template(node),
            None => Some(Template::Literal(json!({}))),
        };
        let timeout = match task.value("timeout") {
            Some(node) => self.duration(node, "timeout"),
            None => Some(Blueprint::TASK_TIMEOUT_DEFAULT),
        };
        let retry = match task.value("retry") {
            Some(node) => self.retry(node),
            None => Some(RetryPolicy::default()),
        };
        let work = TaskWork {
            task_type: task_type?,
            params: params?,
            timeout: timeout?,
            retry: retry?,
            result_schema: None,
        };
        let task = TaskState { work, output: None, catch: BTreeMap::new(), on: on? };
        let work = &task.work;
        form.insert(
            "task".to_owned(),
            json!({
                "type": work.task_type,
                "params": params_form,
                "timeout": duration_text(work.timeout),
                "retry": {
                    "max_retries": work.retry.max_retries,
                    "initial_delay": duration_text(work.retry.initial_delay),
                    "max_delay": duration_text(work.retry.max_delay),
                    "multiplier": work.retry.multiplier,
                },
            }),
        );
        form.insert("on".to_owned(), json!(task.on));
        Some(task)
    }

    fn outcomes(
        &mut self,
        state: &Members<'_>,
        links: &mut Vec<Link>,
    ) -> Option<BTreeMap<Arc<str>, Arc<str>>> {
        const CURE: &str = "say where a success leads, as in `on: { success: completed }`";
        let node = state.required(self, "on", CURE)?;
        let entries = self.map(node, "`on`")?;
        let mut on = BTreeMap::new();
        for entry in entries {
            let outcome = self.checked(&entry.key, entry.key_at, "an outcome", OUTCOME_BYTES_MAX, "._-");
            let to = self.link(&entry.value, "the state after an outcome", links);
            if let (Some(outcome), Some(to)) = (outcome, to) {
                on.insert(outcome, to);
            }
        }
        if entries.is_empty() {
            self.findings.error(node.at, format!("`on` of {} is empty", state.what), CURE);
        } else if !entries.iter().any(|entry| entry.key == "success") {
            self.findings.error(node.at, format!("`on` of {} has no `success`", state.what), CURE);
        }
        Some(on)
    }

    fn retry(&mut self, node: &Node) -> Option<RetryPolicy> {
        let keys = ["max_retries", "initial_delay", "max_delay", "multiplier"];
        let retry = self.members(node, "`retry`", &keys)?;
        let default = RetryPolicy::default();
        // Everything is read before giving up, so that every error is found.
        let max_retries = match retry.value("max_retries") {
            Some(node) => self.integer(node, "max_retries", 0, MAX_RETRIES_MAX),
            None => Some(default.max_retries),
        };
        let initial = retry.value("initial_delay").map(|node| self.duration(node, "initial_delay"));
        let max = retry.value("max_delay").map(|node| self.duration(node, "max_delay"));
        let multiplier = match retry.value("multiplier") {
            Some(node) => self.multiplier(node),
            None => Some(default.multiplier),
        };
        // A default gives way to what is written.
        let (initial_delay, max_delay) = match (initial, max) {
            (Some(initial), Some(max)) => (initial?, max?),
            (Some(initial), None) => (initial?, default.max_delay.max(initial?)),
            (None, Some(max)) => (default.initial_delay.min(max?), max?),
            (None, None) => (default.initial_delay, default.max_delay),
        };
        if initial_delay > max_delay {
            let (initial, max) = (duration_text(initial_delay), duration_text(max_delay));
            self.findings.error(
                retry.entry("max_delay").map_or(node.at, |entry| entry.value.at),
                format!("`max_delay` {max} is shorter than `initial_delay` {initial}"),
                "raise `max_delay`",
            );
        }
        Some(RetryPolicy { max_retries: max_retries?, initial_delay, max_delay, multiplier: multiplier? })
    }

    fn multiplier(&mut self, node: &Node) -> Option<f64> {
        let number = match &node.value {
            Yaml::Number(number) => number.as_f64(),
            _ => None,
        };
        if let Some(number) = number.filter(|number| (1.0..=MULTIPLIER_MAX).contains(number)) {
            return Some(number);
        }
        self.findings.error(
            node.at,
            format!("`multiplier` must be a number, not {}", literal(node)),
            format!("write one from 1 to {MULTIPLIER_MAX}"),
        );
        None
    }

    fn choice(
        &mut self,
        node: &Node,
        state: &Members<'_>,
        links: &mut Vec<Link>,
        form: &mut Map<String, Value>,
    ) -> Option<ChoiceState> {
        const CURE: &str =
            "list conditions, as in `choice: [ { when: \"initial_data.amount > 100\", next: manual } ]`";
        let otherwise = state.entry("else").map(|entry| self.link(&entry.value, "`else`", links));
        let branches = match &node.value {
            Yaml::List(branches) if !branches.is_empty() => branches,
            Yaml::List(_) => {
                self.findings.error(node.at, format!("the choice of {} is empty", state.what), CURE);
                return None;
            }
            _ => {
                let fault = format!("`choice` must be a list, not {}", node.type_name());
                self.findings.error(node.at, fault, CURE);
                return None;
            }
        };
        if otherwise.is_none() {
            self.findings.warning(
                state.at,
                format!("{} has no `else`: a job for which no condition holds fails", state.what),
                "add `else: some_state`",
            );
        }
        let branches: Vec<Option<(Expr, Arc<str>)>> =
            branches.iter().map(|branch| self.branch(branch, links)).collect();
        let when: Vec<(Expr, Arc<str>)> = branches.into_iter().collect::<Option<_>>()?;
        let branches: Vec<Value> =
            when.iter().map(|(when, next)| json!({ "when": when.source(), "next": next })).collect();
        form.insert("choice".to_owned(), Value::Array(branches));
        let otherwise = match otherwise {
            Some(to) => Some(to?),
            None => None,
        };
        if let Some(to) = &otherwise {
            form.insert("else".to_owned(), json!(to));
        }
        Some(ChoiceState { when, otherwise })
    }

    fn branch(&mut self, node: &Node, links: &mut Vec<Link>) -> Option<(Expr, Arc<str>)> {
        let branch = self.members(node, "a condition", &["when", "next"])?;
        let when = branch
            .required(self, "when", "say when, as in `when: \"initial_data.amount > 100\"`")
            .and_then(|node| self.expression(node, "`when`"));
        let next = branch
            .required(self, "next", "say where it leads, as in `next: some_state`")
            .and_then(|node| self.link(node, "`next`", links));
        Some((when?, next?))
    }

    fn pass(
        &mut self,
        node: &Node,
        state: &Members<'_>,
        links: &mut Vec<Link>,
        form: &mut Map<String, Value>,
    ) -> Option<PassState> {
        let next = state
            .required(self, "next", "say where it leads, as in `next: some_state`")
            .and_then(|node| self.link(node, "`next`", links));
        let set = match &node.value {
            // `pass:` with nothing behind it only goes on.
            Yaml::Null => Some(Template::Literal(json!({}))),
            _ => self.map(node, "`pass`").and_then(|_| self.template(node)),
        };
        let pass = PassState { set: set?, next: next? };
        let set_form = if matches!(node.value, Yaml::Null) { json!({}) } else { node.to_json() };
        form.insert("pass".to_owned(), set_form);
        form.insert("next".to_owned(), json!(pass.next));
        Some(pass)
    }

    fn end(&mut self, node: &Node, form: &mut Map<String, Value>) -> Option<EndState> {
        let (end, word) = match &node.value {
            Yaml::Text(text) if text == "finished" => (End::Finished, "finished"),
            Yaml::Text(text) if text == "failed" => (End::Failed, "failed"),
            _ => {
                self.findings.error(
                    node.at,
                    format!("a job cannot end as {}", literal(node)),
                    "write `end: finished` or `end: failed`",
                );
                return None;
            }
        };
        form.insert("end".to_owned(), json!(word));
        Some(EndState { end, result: None })
    }
}
