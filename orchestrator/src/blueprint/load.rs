//! From the text of a blueprint file to a [`Definition`], or to everything that is wrong with the file.
//!
//! The grammar of docs/blueprints.md lives here; what the states mean together is looked at by [`check`](super::check). A
//! definition has one canonical form, JSON with every default written out, from which it can be made again: the store keeps that
//! form, and two definitions with the same one are the same version.

use std::{collections::BTreeMap, fs, path::Path, sync::Arc, time::Duration};

use avtomatika_proto::limits::{NAME_BYTES_MAX, OUTCOME_BYTES_MAX, TIMEOUT_MAX};
use indexmap::IndexMap;
use serde_json::{Map, Value, json};

use super::{
    Blueprint, ChoiceState, EndState, Expr, ExprSyntaxError, PassState, RetryPolicy, State, StateKind,
    TaskState, Template, check,
    finding::{Finding, Findings, Position, Severity, did_you_mean, shown},
    yaml::{self, Entry, Node, Yaml},
};

/// Largest blueprint file. A hundred times a large one; bounds what a mistaken path can make the loader read.
pub const FILE_BYTES_MAX: usize = 1024 * 1024;

/// States of one blueprint; more than anybody can read.
pub const STATES_MAX: usize = 1000;

/// Moves that a blueprint may allow one job.
pub const MAX_TRANSITIONS_MAX: u32 = 10_000;

/// Retries that a state may ask for.
pub const MAX_RETRIES_MAX: u32 = 1000;

/// Largest growth of the pause between retries.
pub const MULTIPLIER_MAX: f64 = 100.0;

/// A blueprint that has no version yet.
#[derive(Debug)]
pub struct Definition {
    name: Arc<str>,
    endpoint: Option<Arc<str>>,
    start: Arc<str>,
    max_transitions: u32,
    states: IndexMap<Arc<str>, State>,
    canonical: Arc<str>,
}

/// A file that was loaded.
#[derive(Debug)]
pub struct Loaded {
    /// What it defines.
    pub definition: Definition,
    /// What is probably not meant so.
    pub warnings: Vec<Finding>,
    name_at: Position,
    endpoint_at: Position,
}

impl Definition {
    /// The blueprint's name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The path under `/api` at which `POST` creates a job.
    pub fn endpoint(&self) -> Option<&Arc<str>> {
        self.endpoint.as_ref()
    }

    /// The canonical form. Two definitions are the same version if, and only if, these are the same text.
    pub fn canonical(&self) -> &Arc<str> {
        &self.canonical
    }

    /// The definition that a canonical form was taken from. Errors mean that the text is damaged, or was written by a later
    /// release.
    pub fn from_canonical(text: &str) -> Result<Self, Vec<Finding>> {
        const FILE: &str = "stored definition";
        let mut findings = Findings::new(FILE);
        let tree: Value = match serde_json::from_str(text) {
            Ok(tree) => tree,
            Err(error) => {
                findings.error(
                    Position::default(),
                    format!("not JSON: {error}"),
                    "load the blueprint from its file again",
                );
                return Err(findings.into_sorted());
            }
        };
        load_tree(&Node::of_json(&tree), findings).map(|loaded| loaded.definition)
    }

    /// The blueprint, as this version of it.
    pub fn into_blueprint(self, version: u32) -> Blueprint {
        Blueprint {
            name: self.name,
            version,
            endpoint: self.endpoint,
            start: self.start,
            max_transitions: self.max_transitions,
            states: self.states,
            definition: self.canonical,
        }
    }
}

/// Loads one blueprint from the text of a YAML or JSON file. `file` is what the findings call it. The error holds all findings,
/// in the order of the file.
pub fn load(file: &str, text: &str) -> Result<Loaded, Vec<Finding>> {
    let mut findings = Findings::new(file);
    if text.len() > FILE_BYTES_MAX {
        findings.error(Position::default(), too_large(text.len() as u64), CURE_TOO_LARGE);
        return Err(findings.into_sorted());
    }
    match yaml::parse(text, &mut findings) {
        Some(tree) => load_tree(&tree, findings),
        None => Err(findings.into_sorted()),
    }
}

/// Loads every `*.yaml`, `*.yml` and `*.json` file of a directory, sorted by name, and compares their names and endpoints. The
/// error holds the findings on all files.
pub fn load_dir(dir: &Path) -> Result<Vec<Loaded>, Vec<Finding>> {
    let unreadable = |path: &Path, error: &dyn std::fmt::Display| Finding {
        severity: Severity::Error,
        file: path.display().to_string(),
        at: Position::default(),
        what: format!("cannot be read: {error}"),
        cure: "check the path and its permissions".to_owned(),
    };
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir).map_err(|error| vec![unreadable(dir, &error)])? {
        let path = entry.map_err(|error| vec![unreadable(dir, &error)])?.path();
        if path
            .extension()
            .is_some_and(|extension| ["yaml", "yml", "json"].iter().any(|known| extension == *known))
        {
            paths.push(path);
        }
    }
    paths.sort();
    let mut loaded = Vec::new();
    let mut findings = Vec::new();
    for path in paths {
        let file = path.display().to_string();
        let text = match read(&path) {
            Ok(text) => text,
            Err(error) => {
                findings.push(unreadable(&path, &error));
                continue;
            }
        };
        match load(&file, &text) {
            Ok(one) => loaded.push((file, one)),
            Err(found) => findings.extend(found),
        }
    }
    findings.extend(clashes(&loaded));
    if findings.is_empty() {
        return Ok(loaded.into_iter().map(|(_, one)| one).collect());
    }
    findings.extend(loaded.into_iter().flat_map(|(_, one)| one.warnings));
    Err(findings)
}

/// The text of a regular file of acceptable size. Opens nothing else: a pipe would hold the reader up for ever.
fn read(path: &Path) -> Result<String, String> {
    let about = fs::metadata(path).map_err(|error| error.to_string())?;
    if !about.is_file() {
        return Err("it is no regular file".to_owned());
    }
    if about.len() > FILE_BYTES_MAX as u64 {
        return Err(too_large(about.len()));
    }
    let bytes = fs::read(path).map_err(|error| error.to_string())?;
    String::from_utf8(bytes)
        .map_err(|error| format!("not UTF-8 at byte {}", error.utf8_error().valid_up_to()))
}

const CURE_TOO_LARGE: &str = "split the blueprint";

fn too_large(bytes: u64) -> String {
    format!("the file has {bytes} bytes, at most {FILE_BYTES_MAX} are allowed")
}

/// Names and endpoints that two files claim.
fn clashes(loaded: &[(String, Loaded)]) -> Vec<Finding> {
    let mut names: BTreeMap<&str, String> = BTreeMap::new();
    let mut endpoints: BTreeMap<&str, String> = BTreeMap::new();
    let mut findings = Vec::new();
    for (file, one) in loaded {
        let claims = [
            ("the blueprint", Some(one.definition.name()), one.name_at, &mut names),
            ("the endpoint", one.definition.endpoint(), one.endpoint_at, &mut endpoints),
        ];
        for (what, claimed, at, seen) in claims {
            let Some(claimed) = claimed else { continue };
            if let Some(first) = seen.get(&**claimed) {
                findings.push(Finding {
                    severity: Severity::Error,
                    file: file.clone(),
                    at,
                    what: format!("{what} `{claimed}` is defined already at {first}"),
                    cure: "rename one of them".to_owned(),
                });
            } else {
                seen.insert(claimed, format!("{file}:{}:{}", at.line, at.column));
            }
        }
    }
    findings
}

/// What a file says, before it is known to make sense.
pub(super) struct Draft {
    /// Where the states are listed.
    pub at: Position,
    pub states: Vec<DraftState>,
}

pub(super) struct DraftState {
    pub name: Arc<str>,
    pub at: Position,
    /// Where it says that it is the start.
    pub start_at: Option<Position>,
    /// Nothing when the state is wrong in itself, which has been reported.
    pub kind: Option<StateKind>,
    pub links: Vec<Link>,
}

/// A way out of a state.
pub(super) struct Link {
    pub to: Arc<str>,
    pub at: Position,
}

fn load_tree(tree: &Node, findings: Findings) -> Result<Loaded, Vec<Finding>> {
    let mut reader = Reader { findings };
    let Some(top) =
        reader.members(tree, "a blueprint", &["blueprint", "endpoint", "max_transitions", "states"])
    else {
        return Err(reader.findings.into_sorted());
    };
    let name = top
        .required(&mut reader, "blueprint", "name it, as in `blueprint: my_workflow`")
        .and_then(|node| reader.name(node, "a blueprint's name").map(|name| (name, node.at)));
    let endpoint = top.value("endpoint").and_then(|node| Some((reader.endpoint(node)?, node.at)));
    let max_transitions = top
        .value("max_transitions")
        .and_then(|node| reader.integer(node, "max_transitions", 1, MAX_TRANSITIONS_MAX))
        .unwrap_or(Blueprint::MAX_TRANSITIONS_DEFAULT);
    let (states, canonical_states) =
        match top.required(&mut reader, "states", "list the states under `states:`") {
            Some(node) => reader.states(node),
            None => (Vec::new(), Map::new()),
        };
    let at = top.entry("states").map_or(tree.at, |entry| entry.key_at);
    let draft = Draft { at, states };
    let start = check::check(&draft, &mut reader.findings);
    let (Some((name, name_at)), Some(start), false) = (name, start, reader.findings.any_error()) else {
        return Err(reader.findings.into_sorted());
    };
    let endpoint_at = endpoint.as_ref().map_or(Position::default(), |(_, at)| *at);
    let endpoint: Option<Arc<str>> = endpoint.map(|(endpoint, _)| endpoint);
    let mut canonical = Map::new();
    canonical.insert("blueprint".to_owned(), json!(name));
    if let Some(endpoint) = &endpoint {
        canonical.insert("endpoint".to_owned(), json!(endpoint));
    }
    canonical.insert("max_transitions".to_owned(), json!(max_transitions));
    canonical.insert("states".to_owned(), Value::Object(canonical_states));
    let states = draft
        .states
        .into_iter()
        .filter_map(|state| Some((state.name.clone(), State { name: state.name, kind: state.kind? })));
    let definition = Definition {
        name,
        endpoint,
        start,
        max_transitions,
        states: states.collect(),
        canonical: Value::Object(canonical).to_string().into(),
    };
    Ok(Loaded { definition, warnings: reader.findings.into_sorted(), name_at, endpoint_at })
}

/// The members of a map, with its name for messages.
struct Members<'n> {
    at: Position,
    what: String,
    entries: &'n [Entry],
}

impl<'n> Members<'n> {
    fn entry(&self, key: &str) -> Option<&'n Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }

    fn value(&self, key: &str) -> Option<&'n Node> {
        self.entry(key).map(|entry| &entry.value)
    }

    fn required(&self, reader: &mut Reader, key: &str, cure: &str) -> Option<&'n Node> {
        let node = self.value(key);
        if node.is_none() {
            reader.findings.error(self.at, format!("{} has no `{key}`", self.what), cure);
        }
        node
    }
}

/// Reads nodes as what they should be, and notes what they are not.
struct Reader {
    findings: Findings,
}

/// The keys that make a state what it is.
const KINDS: [&str; 4] = ["task", "choice", "pass", "end"];

impl Reader {
    /// The members of a map that may have these keys and no others.
    fn members<'n>(&mut self, node: &'n Node, what: &str, keys: &[&str]) -> Option<Members<'n>> {
        let entries = self.map(node, what)?;
        for entry in entries.iter().filter(|entry| !keys.contains(&entry.key.as_str())) {
            self.findings.error(
                entry.key_at,
                format!("unknown key `{}` in {what}", shown(&entry.key)),
                did_you_mean(&entry.key, keys.iter().copied()),
            );
        }
        Some(Members { at: node.at, what: what.to_owned(), entries })
    }

    fn map<'n>(&mut self, node: &'n Node, what: &str) -> Option<&'n [Entry]> {
        if let Yaml::Map(entries) = &node.value {
            return Some(entries);
        }
        self.findings.error(
            node.at,
            format!("{what} must be a map, not {}", node.type_name()),
            "write it as `key: value` lines",
        );
        None
    }

    fn text<'n>(&mut self, node: &'n Node, what: &str) -> Option<&'n str> {
        if let Yaml::Text(text) = &node.value {
            return Some(text);
        }
        let cure = match &node.value {
            Yaml::Bool(_) | Yaml::Number(_) => "put it in quotes",
            _ => "write it out",
        };
        self.findings.error(node.at, format!("{what} must be a string, not {}", node.type_name()), cure);
        None
    }

    fn name(&mut self, node: &Node, what: &str) -> Option<Arc<str>> {
        let text = self.text(node, what)?;
        self.checked(text, node.at, what, NAME_BYTES_MAX, "._-")
    }

    /// A name of letters, digits and the characters in `also`.
    fn checked(
        &mut self,
        text: &str,
        at: Position,
        what: &str,
        bytes_max: usize,
        also: &str,
    ) -> Option<Arc<str>> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || also.contains(c);
        if !text.is_empty() && text.len() <= bytes_max && text.chars().all(allowed) {
            return Some(Arc::from(text));
        }
        self.findings.error(
            at,
            format!("`{}` cannot be {what}", shown(text)),
            format!("use 1 to {bytes_max} characters of a-z, A-Z, 0-9 and {also}"),
        );
        None
    }

    fn integer(&mut self, node: &Node, what: &str, min: u32, max: u32) -> Option<u32> {
        let number = match &node.value {
            Yaml::Number(number) => number.as_u64().and_then(|number| u32::try_from(number).ok()),
            _ => None,
        };
        if let Some(number) = number.filter(|number| (min..=max).contains(number)) {
            return Some(number);
        }
        self.findings.error(
            node.at,
            format!("`{what}` must be a whole number, not {}", literal(node)),
            format!("write one from {min} to {max}"),
        );
        None
    }

    /// A duration such as `500ms`, `30s`, `5m`, `1h`.
    fn duration(&mut self, node: &Node, what: &str) -> Option<Duration> {
        let span = match &node.value {
            Yaml::Text(text) => parse_duration(text),
            _ => None,
        };
        if let Some(span) = span.filter(|span| (Duration::from_millis(1)..=TIMEOUT_MAX).contains(span)) {
            return Some(span);
        }
        self.findings.error(
            node.at,
            format!("`{what}` must be a duration, not {}", literal(node)),
            format!("write for example 500ms, 30s, 5m or 1h; from 1ms to {}h", TIMEOUT_MAX.as_secs() / 3600),
        );
        None
    }

    fn endpoint(&mut self, node: &Node) -> Option<Arc<str>> {
        let path = self.text(node, "an endpoint")?;
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "/_-".contains(c);
        if !path.starts_with('/')
            || path.len() < 2
            || path.len() > NAME_BYTES_MAX
            || !path.chars().all(allowed)
        {
            self.findings.error(
                node.at,
                format!("`{}` cannot be an endpoint", shown(path)),
                format!(
                    "begin it with `/` and use at most {NAME_BYTES_MAX} characters of a-z, 0-9, `/`, `_` and `-`, as in \
                     `/jobs/test`"
                ),
            );
            return None;
        }
        if path.contains("//") || path.ends_with('/') {
            self.findings.error(
                node.at,
                format!("the endpoint `{path}` has an empty part"),
                "write one `/` between parts and none at the end",
            );
            return None;
        }
        let first = path.split('/').nth(1).unwrap_or_default();
        if ["/jobs", "/workers", "/dashboard"].contains(&path) || ["blueprints", "v1"].contains(&first) {
            self.findings.error(
                node.at,
                format!("the endpoint `{path}` is taken by the API itself"),
                "choose another, for example `/jobs/my_workflow`",
            );
            return None;
        }
        Some(Arc::from(path))
    }

    fn expression(&mut self, node: &Node, what: &str) -> Option<Expr> {
        let text = match &node.value {
            // `when: true` is YAML for a boolean, and a sensible condition.
            Yaml::Bool(value) => {
                if *value {
                    "true"
                } else {
                    "false"
                }
            }
            _ => self.text(node, what)?,
        };
        Expr::compile(text).map_err(|error| self.expression_error(node, error)).ok()
    }

    fn expression_error(&mut self, node: &Node, error: ExprSyntaxError) {
        self.findings.error(node.place_in_text(error.offset), error.message, error.cure);
    }

    fn template(&mut self, node: &Node) -> Option<Template> {
        match &node.value {
            Yaml::Text(text) => Template::text(text).map_err(|error| self.expression_error(node, error)).ok(),
            // All members are read before giving up, so that every error is found.
            Yaml::List(items) => {
                let items: Vec<_> = items.iter().map(|item| self.template(item)).collect();
                Some(Template::list(items.into_iter().collect::<Option<_>>()?))
            }
            Yaml::Map(entries) => {
                let members: Vec<_> = entries
                    .iter()
                    .map(|entry| Some((entry.key.clone(), self.template(&entry.value)?)))
                    .collect();
                Some(Template::object(members.into_iter().collect::<Option<_>>()?))
            }
            Yaml::Null | Yaml::Bool(_) | Yaml::Number(_) => Some(Template::Literal(node.to_json())),
        }
    }

    fn states(&mut self, node: &Node) -> (Vec<DraftState>, Map<String, Value>) {
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
        let task =
            TaskState { task_type: task_type?, params: params?, timeout: timeout?, retry: retry?, on: on? };
        form.insert(
            "task".to_owned(),
            json!({
                "type": task.task_type,
                "params": params_form,
                "timeout": duration_text(task.timeout),
                "retry": {
                    "max_retries": task.retry.max_retries,
                    "initial_delay": duration_text(task.retry.initial_delay),
                    "max_delay": duration_text(task.retry.max_delay),
                    "multiplier": task.retry.multiplier,
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
            Yaml::Text(text) if text == "finished" => (EndState::Finished, "finished"),
            Yaml::Text(text) if text == "failed" => (EndState::Failed, "failed"),
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
        Some(end)
    }
}

/// A node as it may stand in a message.
fn literal(node: &Node) -> String {
    match &node.value {
        Yaml::Text(text) => format!("`{}`", shown(text)),
        Yaml::Number(number) => format!("`{number}`"),
        Yaml::Bool(value) => format!("`{value}`"),
        Yaml::Null | Yaml::List(_) | Yaml::Map(_) => node.type_name().to_owned(),
    }
}

fn parse_duration(text: &str) -> Option<Duration> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit())?;
    let (count, unit) = text.split_at(unit_at);
    let count: u64 = count.parse().ok()?;
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60 * 1000,
        "h" => 60 * 60 * 1000,
        _ => return None,
    };
    count.checked_mul(unit_ms).map(Duration::from_millis)
}

/// A duration in its canonical form: seconds if it is whole ones.
fn duration_text(span: Duration) -> String {
    if span.subsec_millis() == 0 { format!("{}s", span.as_secs()) } else { format!("{}ms", span.as_millis()) }
}
