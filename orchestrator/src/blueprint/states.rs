//! The grammar of states: what each kind has for keys, and what they mean.
//!
//! Reading a state also writes its canonical form. States are looked at one by one here; what they mean together is the lint's
//! business. What is common to all kinds is in this file, with those that only move a job; those in which somebody works are in
//! [`work`](super::work), those that wait in [`pauses`](super::pauses).

use std::sync::Arc;

use avtomatika_proto::limits::{NAME_BYTES_MAX, OUTCOME_BYTES_MAX};
use serde_json::{Map, Value, json};

use super::{
    ChoiceState, End, EndState, Expr, PassState, StateKind, Template, Transitions,
    expr::Place,
    finding::{Position, did_you_mean, shown},
    load::STATES_MAX,
    reader::{Members, Reader, literal},
    yaml::{Entry, Node, Yaml},
};
use crate::spelling::nearest;

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

/// The keys that make a state what it is, each with the others that such a state may have.
const KINDS: [(&str, &[&str]); 10] = [
    ("task", &["on", "catch"]),
    ("code", &["on", "catch"]),
    ("map", &["on"]),
    ("run", &["on"]),
    ("choice", &["else"]),
    ("pass", &["next"]),
    ("wait", &["next"]),
    ("event", &["on"]),
    ("approval", &["on"]),
    ("end", &["result"]),
];

/// Keys that lead to other states.
const TRANSITIONS: [&str; 4] = ["on", "catch", "next", "else"];

/// Which outcomes a state may have transitions for.
pub struct Outcomes {
    /// What kind of state, with its article.
    pub of: &'static str,
    /// The one that must be there, if there is such a one.
    pub required: Option<&'static str>,
    /// Which words there are.
    pub words: Words,
    /// What to write.
    pub cure: &'static str,
}

/// Which words the outcomes of a state may be.
pub enum Words {
    /// These and no others.
    Only(&'static [&'static str]),
    /// Words of the author's own, too.
    Own {
        /// What such a word is called, with its article.
        called: &'static str,
        /// Those that every such state may have, for which one of the author's own could be a slip of the pen.
        usual: &'static [&'static str],
    },
}

/// What a state is read with: its members, the transitions that are found, and the canonical form that grows.
pub struct Reading<'r, 'n> {
    pub members: &'r Members<'n>,
    pub links: &'r mut Vec<Link>,
    pub form: &'r mut Map<String, Value>,
}

fn is_kind(key: &str) -> bool {
    KINDS.iter().any(|(kind, _)| *kind == key)
}

/// The keys that a state of these kinds may have.
fn known_keys(kinds: &[&Entry]) -> Vec<&'static str> {
    let kind = match kinds {
        [kind] => KINDS.iter().find(|(name, _)| *name == kind.key),
        _ => None,
    };
    let (mut keys, others): (Vec<&str>, &[&str]) = match kind {
        Some((kind, others)) => (vec!["start", kind], others),
        None => (
            ["start"].into_iter().chain(KINDS.iter().map(|(kind, _)| *kind)).collect(),
            &["on", "catch", "next", "else", "result"],
        ),
    };
    keys.extend(others);
    keys
}

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
        let kinds: Vec<&Entry> = entries.iter().filter(|entry| is_kind(&entry.key)).collect();
        let what = format!("state `{}`", state.name);
        self.state_keys(entries, &known_keys(&kinds), &what, kinds.first().map(|kind| kind.key.as_str()));
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
                format!("give it one of {}", KINDS.map(|(kind, _)| format!("`{kind}`")).join(", ")),
            ),
            [kind] => {
                let reading = Reading { members: &members, links: &mut state.links, form: &mut form };
                state.kind = self.kind(kind, reading);
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

    fn kind(&mut self, kind: &Entry, state: Reading<'_, '_>) -> Option<StateKind> {
        let node = &kind.value;
        match kind.key.as_str() {
            key @ ("task" | "code") => self.task(key, node, state).map(StateKind::Task),
            "map" => self.fan_out(node, state).map(StateKind::Map),
            "run" => self.run(node, state).map(StateKind::Run),
            "choice" => self.choice(node, state).map(StateKind::Choice),
            "pass" => self.pass(node, state).map(StateKind::Pass),
            "wait" => self.wait(node, state).map(StateKind::Wait),
            "event" => self.event(node, state).map(StateKind::Event),
            "approval" => self.approval(node, state).map(StateKind::Approval),
            _ => self.end(node, state).map(StateKind::End),
        }
    }

    /// Unknown keys of a state; a key that belongs to another kind is told from a misspelt one.
    fn state_keys(&mut self, entries: &[Entry], known: &[&str], what: &str, kind: Option<&str>) {
        for entry in entries.iter().filter(|entry| !known.contains(&entry.key.as_str())) {
            let key = shown(&entry.key);
            let is_transition = TRANSITIONS.contains(&entry.key.as_str());
            let (fault, cure) = match kind {
                Some("end") if is_transition => (
                    format!("{what} ends the job and has the transition `{key}`"),
                    "remove `end` or the transition".to_owned(),
                ),
                Some(kind) if is_transition => {
                    let fault = format!("`{key}` does not belong to {} state", with_article(kind));
                    (fault, transitions_of(kind).to_owned())
                }
                Some(kind @ ("task" | "code"))
                    if ["output", "result_schema", "params", "timeout", "retry", "concurrency", "rate"]
                        .contains(&&*key) =>
                {
                    let fault = format!("`{key}` stands beside the {kind} of {what}");
                    (fault, format!("write it under `{kind}`"))
                }
                _ => (
                    format!("unknown key `{key}` in {what}"),
                    did_you_mean(&entry.key, known.iter().copied()),
                ),
            };
            self.findings.error(entry.key_at, fault, cure);
        }
    }

    /// The target of a transition.
    pub fn link(&mut self, node: &Node, what: &str, links: &mut Vec<Link>) -> Option<Arc<str>> {
        let to: Arc<str> = Arc::from(self.text(node, what)?);
        links.push(Link { to: to.clone(), at: node.at });
        Some(to)
    }

    /// The one transition of a state that has no outcomes.
    pub fn next(&mut self, state: &mut Reading<'_, '_>) -> Option<Arc<str>> {
        let node = state.members.required(self, "next", "say where it leads, as in `next: some_state`")?;
        self.link(node, "`next`", state.links)
    }

    fn check_word(&mut self, outcome: &str, at: Position, wanted: &Outcomes) {
        match wanted.words {
            Words::Only(known) if !known.contains(&outcome) => self.findings.error(
                at,
                format!("`{outcome}` is no outcome of {}", wanted.of),
                did_you_mean(outcome, known.iter().copied()),
            ),
            // A word of the author's own that is nearly one of the usual ones was hardly meant.
            Words::Own { called, usual } if !usual.contains(&outcome) => {
                if let Some(usual) = nearest(outcome, usual.iter().copied()) {
                    self.findings.warning(
                        at,
                        format!("{called} `{outcome}` is not `{usual}`"),
                        format!("did you mean `{usual}`?"),
                    );
                }
            }
            _ => {}
        }
    }

    /// The transitions of a state by outcome.
    pub fn outcomes(&mut self, state: &mut Reading<'_, '_>, wanted: &Outcomes) -> Option<Transitions> {
        let node = state.members.required(self, "on", wanted.cure)?;
        let entries = self.map(node, "`on`")?;
        let mut on = Transitions::new();
        for entry in entries {
            let outcome = self.checked(&entry.key, entry.key_at, "an outcome", OUTCOME_BYTES_MAX, "._-");
            let to = self.link(&entry.value, "the state after an outcome", state.links);
            let (Some(outcome), Some(to)) = (outcome, to) else { continue };
            self.check_word(&outcome, entry.key_at, wanted);
            on.insert(outcome, to);
        }
        let what = &state.members.what;
        if entries.is_empty() {
            self.findings.error(node.at, format!("`on` of {what} is empty"), wanted.cure);
        } else if let Some(required) = wanted.required
            && !entries.iter().any(|entry| entry.key == required)
        {
            self.findings.error(node.at, format!("`on` of {what} has no `{required}`"), wanted.cure);
        }
        Some(on)
    }

    fn choice(&mut self, node: &Node, mut state: Reading<'_, '_>) -> Option<ChoiceState> {
        const CURE: &str =
            "list conditions, as in `choice: [ { when: \"initial_data.amount > 100\", next: manual } ]`";
        let what = &state.members.what;
        let otherwise =
            state.members.entry("else").map(|entry| self.link(&entry.value, "`else`", state.links));
        let branches = match &node.value {
            Yaml::List(branches) if !branches.is_empty() => branches,
            Yaml::List(_) => {
                self.findings.error(node.at, format!("the choice of {what} is empty"), CURE);
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
                state.members.at,
                format!("{what} has no `else`: a job for which no condition holds fails"),
                "add `else: some_state`",
            );
        }
        // All are read before giving up, so that every error is found.
        let branches: Vec<Option<(Expr, Arc<str>)>> =
            branches.iter().map(|branch| self.branch(branch, &mut state)).collect();
        let when: Vec<(Expr, Arc<str>)> = branches.into_iter().collect::<Option<_>>()?;
        let branches: Vec<Value> =
            when.iter().map(|(when, next)| json!({ "when": when.source(), "next": next })).collect();
        state.form.insert("choice".to_owned(), Value::Array(branches));
        let otherwise = match otherwise {
            Some(to) => Some(to?),
            None => None,
        };
        if let Some(to) = &otherwise {
            state.form.insert("else".to_owned(), json!(to));
        }
        Some(ChoiceState { when, otherwise })
    }

    fn branch(&mut self, node: &Node, state: &mut Reading<'_, '_>) -> Option<(Expr, Arc<str>)> {
        let branch = self.members(node, "a condition", &["when", "next"])?;
        let when = branch
            .required(self, "when", "say when, as in `when: \"initial_data.amount > 100\"`")
            .and_then(|node| self.expression(node, "`when`", Place::Common));
        let next = branch
            .required(self, "next", "say where it leads, as in `next: some_state`")
            .and_then(|node| self.link(node, "`next`", state.links));
        Some((when?, next?))
    }

    fn pass(&mut self, node: &Node, mut state: Reading<'_, '_>) -> Option<PassState> {
        let next = self.next(&mut state);
        let (set, form) = match &node.value {
            // `pass:` with nothing behind it only goes on.
            Yaml::Null => (Some(Template::Literal(json!({}))), json!({})),
            _ => (self.map(node, "`pass`").and_then(|_| self.template(node, Place::Common)), node.to_json()),
        };
        let pass = PassState { set: set?, next: next? };
        state.form.insert("pass".to_owned(), form);
        state.form.insert("next".to_owned(), json!(pass.next));
        Some(pass)
    }

    fn end(&mut self, node: &Node, state: Reading<'_, '_>) -> Option<EndState> {
        let result = state
            .members
            .value("result")
            .map(|node| (self.object(node, "the result of an end", Place::Common), node.to_json()));
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
        state.form.insert("end".to_owned(), json!(word));
        let result = match result {
            Some((result, form)) => {
                state.form.insert("result".to_owned(), form);
                Some(result?)
            }
            None => None,
        };
        Some(EndState { end, result })
    }
}

/// How the transitions of a kind are written.
fn transitions_of(kind: &str) -> &'static str {
    match kind {
        "task" => "write the transitions of a task under `on` and `catch`",
        "code" => "write the transitions of a code state under `on` and `catch`",
        "choice" => "write the transitions of a choice as `when`, `next` and `else`",
        "pass" => "write the transition of a pass state as `next`",
        "wait" => "write the transition of a wait state as `next`",
        _ => "write its transitions under `on`",
    }
}

fn with_article(kind: &str) -> String {
    let article = if kind.starts_with(['a', 'e']) { "an" } else { "a" };
    format!("{article} {kind}")
}
