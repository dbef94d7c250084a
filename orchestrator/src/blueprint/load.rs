//! From the text of a blueprint file to a [`Definition`], or to everything that is wrong with the file.
//!
//! A definition has one canonical form, JSON with every default of its tasks written out, from which it can be made again: the store keeps that
//! form, and two definitions with the same one are the same version. The order of work: [`yaml`] makes a tree of the text,
//! [`states`](super::states) reads it, [`check`] looks at the whole.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::{
    Blueprint, KeyRule, Schema, State, check,
    expr::Place,
    finding::{Finding, Findings, Position},
    reader::Reader,
    states::Draft,
    yaml::{self, Node},
};
use crate::hash::FastIndexMap;

/// Largest blueprint file. A hundred times a large one; bounds what a mistaken path can make the loader read.
pub const FILE_BYTES_MAX: usize = 1024 * 1024;

/// States of one blueprint; more than anybody can read.
pub const STATES_MAX: usize = 1000;

/// Branches of one map.
pub const BRANCHES_MAX: u32 = 10_000;

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
    input_schema: Option<Schema>,
    keys: Vec<KeyRule>,
    states: FastIndexMap<Arc<str>, State>,
    canonical: Arc<str>,
}

/// A file that was loaded.
#[derive(Debug)]
pub struct Loaded {
    /// What it defines.
    pub definition: Definition,
    /// What is probably not meant so.
    pub warnings: Vec<Finding>,
    pub(super) file: String,
    pub(super) name_at: Position,
    pub(super) endpoint_at: Position,
    pub(super) runs: Vec<(Arc<str>, Position)>,
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
            is_put: false,
            endpoint: self.endpoint,
            start: self.start,
            max_transitions: self.max_transitions,
            input_schema: self.input_schema,
            keys: self.keys,
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

pub(super) const CURE_TOO_LARGE: &str = "split the blueprint";

pub(super) fn too_large(bytes: u64) -> String {
    format!("the file has {bytes} bytes, at most {FILE_BYTES_MAX} are allowed")
}

const KEYS: [&str; 8] =
    ["blueprint", "endpoint", "max_transitions", "input_schema", "concurrency", "rate", "defaults", "states"];

pub(super) fn load_tree(tree: &Node, findings: Findings) -> Result<Loaded, Vec<Finding>> {
    let mut reader = Reader::new(findings);
    let Some(top) = reader.members(tree, "a blueprint", &KEYS) else {
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
    let input_schema = top.value("input_schema").map(|node| (reader.schema(node, "`input_schema`"), node));
    let keys = reader.key_rules(&top, Place::Common);
    if let Some(node) = top.value("defaults") {
        reader.read_defaults(node);
    }
    let (states, canonical_states) =
        match top.required(&mut reader, "states", "list the states under `states:`") {
            Some(node) => reader.states(node),
            None => (Vec::new(), Map::new()),
        };
    let at = top.entry("states").map_or(tree.at, |entry| entry.key_at);
    let draft = Draft { at, states };
    let start = check::check(&draft, &mut reader.findings);
    check::check_results(&draft, &reader.look_at_results, &mut reader.findings);
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
    let input_schema = match input_schema {
        Some((schema, node)) => {
            canonical.insert("input_schema".to_owned(), node.to_json());
            schema
        }
        None => None,
    };
    let (keys, keys_form) = keys.unwrap_or_default();
    canonical.extend(keys_form);
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
        input_schema,
        keys,
        states: states.collect(),
        canonical: Value::Object(canonical).to_string().into(),
    };
    let Reader { findings, runs, .. } = reader;
    let file = findings.file().to_owned();
    Ok(Loaded { file, definition, warnings: findings.into_sorted(), name_at, endpoint_at, runs })
}
