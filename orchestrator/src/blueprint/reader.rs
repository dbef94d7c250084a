//! Reads the nodes of a file as what they should be, and notes what they are not.
//!
//! One function for each kind of value: names, numbers, durations, endpoints, expressions, templates. Which of them stands where is
//! the business of the grammar.

use std::{sync::Arc, time::Duration};

use avtomatika_proto::{
    limits::{NAME_BYTES_MAX, TIMEOUT_MAX},
    span,
};

use super::{
    Expr, ExprSyntaxError, RetryPolicy, Schema, Template,
    expr::{Place, Root},
    finding::{Findings, Position, did_you_mean, shown},
    yaml::{Entry, Node, Yaml},
};

/// The members of a map, with its name for messages.
pub struct Members<'n> {
    pub at: Position,
    pub what: String,
    pub entries: &'n [Entry],
}

impl<'n> Members<'n> {
    pub fn entry(&self, key: &str) -> Option<&'n Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }

    pub fn value(&self, key: &str) -> Option<&'n Node> {
        self.entry(key).map(|entry| &entry.value)
    }

    pub fn required(&self, reader: &mut Reader, key: &str, cure: &str) -> Option<&'n Node> {
        let node = self.value(key);
        if node.is_none() {
            reader.findings.error(self.at, format!("{} has no `{key}`", self.what), cure);
        }
        node
    }
}

/// Reads nodes as what they should be, and notes what they are not.
pub struct Reader {
    pub findings: Findings,
    /// What tasks have that say nothing else.
    pub defaults: Defaults,
    /// Blueprints that are run, with where that is said.
    pub runs: Vec<(Arc<str>, Position)>,
    /// Expressions that look at what only a map leaves behind.
    pub look_at_results: Vec<Position>,
}

/// What the tasks of a blueprint have that say nothing else.
pub struct Defaults {
    pub timeout: Duration,
    pub retry: RetryPolicy,
}

impl Reader {
    pub fn new(findings: Findings) -> Self {
        let defaults =
            Defaults { timeout: super::Blueprint::TASK_TIMEOUT_DEFAULT, retry: RetryPolicy::default() };
        Self { findings, defaults, runs: Vec::new(), look_at_results: Vec::new() }
    }

    /// The members of a map that may have these keys and no others.
    pub fn members<'n>(&mut self, node: &'n Node, what: &str, keys: &[&str]) -> Option<Members<'n>> {
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

    pub fn map<'n>(&mut self, node: &'n Node, what: &str) -> Option<&'n [Entry]> {
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

    pub fn text<'n>(&mut self, node: &'n Node, what: &str) -> Option<&'n str> {
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

    pub fn name(&mut self, node: &Node, what: &str) -> Option<Arc<str>> {
        let text = self.text(node, what)?;
        self.checked(text, node.at, what, NAME_BYTES_MAX, "._-")
    }

    /// A name of letters, digits and the characters in `also`.
    pub fn checked(
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

    pub fn integer(&mut self, node: &Node, what: &str, min: u32, max: u32) -> Option<u32> {
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

    pub fn boolean(&mut self, node: &Node, what: &str) -> Option<bool> {
        if let Yaml::Bool(value) = &node.value {
            return Some(*value);
        }
        self.findings.error(
            node.at,
            format!("`{what}` must be true or false, not {}", literal(node)),
            "write one of them, without quotes",
        );
        None
    }

    /// A duration such as `500ms`, `30s`, `5m`, `1h`.
    pub fn duration(&mut self, node: &Node, what: &str) -> Option<Duration> {
        let span = match &node.value {
            Yaml::Text(text) => span::parse(text).ok(),
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

    pub fn endpoint(&mut self, node: &Node) -> Option<Arc<str>> {
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
        if is_taken(path) {
            self.findings.error(
                node.at,
                format!("the endpoint `{path}` is taken by the API itself"),
                "choose another, for example `/jobs/my_workflow`",
            );
            return None;
        }
        Some(Arc::from(path))
    }

    pub fn expression(&mut self, node: &Node, what: &str, place: Place) -> Option<Expr> {
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
        let expr = Expr::compile_at(text, place).map_err(|error| self.expression_error(node, error)).ok()?;
        self.note_looks(node, &expr);
        Some(expr)
    }

    fn note_looks(&mut self, node: &Node, expr: &Expr) {
        if expr.roots().iter().any(|(root, _)| *root == Root::Results) {
            self.look_at_results.push(node.at);
        }
    }

    pub fn expression_error(&mut self, node: &Node, error: ExprSyntaxError) {
        self.findings.error(node.place_in_text(error.offset), error.message, error.cure);
    }

    /// What an object is made of: a map with templates in it, or one expression that gives an object.
    pub fn object(&mut self, node: &Node, what: &str, place: Place) -> Option<Template> {
        let whole = match &node.value {
            Yaml::Map(_) => return self.template(node, place),
            Yaml::Text(_) => self.template(node, place)?,
            _ => Template::Literal(node.to_json()),
        };
        if matches!(whole, Template::Expr(_)) {
            return Some(whole);
        }
        self.findings.error(
            node.at,
            format!("{what} must be a map, not {}", literal(node)),
            "write it as `key: value` lines, or as one `${…}` that gives an object",
        );
        None
    }

    /// A JSON Schema.
    pub fn schema(&mut self, node: &Node, what: &str) -> Option<Schema> {
        self.map(node, what)?;
        let error = match Schema::compile(&node.to_json()) {
            Ok(schema) => return Some(schema),
            Err(error) => error,
        };
        self.findings.error(
            node.at_pointer(&error.place).at,
            format!("{what} is no JSON Schema: {}", shown_reason(&error.reason)),
            "see https://json-schema.org, draft 2020-12; other documents cannot be referred to",
        );
        None
    }

    pub fn template(&mut self, node: &Node, place: Place) -> Option<Template> {
        match &node.value {
            Yaml::Text(text) => {
                let template = Template::text_at(text, place)
                    .map_err(|error| self.expression_error(node, error))
                    .ok()?;
                template.expressions().for_each(|expr| self.note_looks(node, expr));
                Some(template)
            }
            // All members are read before giving up, so that every error is found.
            Yaml::List(items) => {
                let items: Vec<_> = items.iter().map(|item| self.template(item, place)).collect();
                Some(Template::list(items.into_iter().collect::<Option<_>>()?))
            }
            Yaml::Map(entries) => {
                let members: Vec<_> = entries
                    .iter()
                    .map(|entry| Some((entry.key.clone(), self.template(&entry.value, place)?)))
                    .collect();
                Some(Template::object(members.into_iter().collect::<Option<_>>()?))
            }
            Yaml::Null | Yaml::Bool(_) | Yaml::Number(_) => Some(Template::Literal(node.to_json())),
        }
    }
}

/// Paths of the API itself.
const TAKEN_ENDPOINTS: [&str; 5] = ["/jobs", "/jobs/repair", "/workers", "/dashboard", "/reload"];

/// What the API does to a job, below its path.
const DONE_TO_JOBS: [&str; 7] = ["cancel", "signal", "decide", "approve", "reject", "retry", "skip"];

/// What the API does to a worker, below its path.
const DONE_TO_WORKERS: [&str; 2] = ["restore", "drain"];

/// Whether the API itself is asked for something at this path. It looks for its own paths before it looks for blueprints, so a blueprint
/// at such a one could never be reached.
fn is_taken(path: &str) -> bool {
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    match parts[..] {
        ["blueprints" | "v1", ..] => true,
        ["jobs", _, verb] => DONE_TO_JOBS.contains(&verb),
        ["jobs", _, "webhooks", "redeliver"] | ["jobs", _, "webhooks", _, "redeliver"] => true,
        ["workers", _, verb] => DONE_TO_WORKERS.contains(&verb),
        _ => TAKEN_ENDPOINTS.contains(&path),
    }
}

/// A node as it may stand in a message.
pub fn literal(node: &Node) -> String {
    match &node.value {
        Yaml::Text(text) => format!("`{}`", shown(text)),
        Yaml::Number(number) => format!("`{number}`"),
        Yaml::Bool(value) => format!("`{value}`"),
        Yaml::Null | Yaml::List(_) | Yaml::Map(_) => node.type_name().to_owned(),
    }
}

/// A reason that quotes the user's text: cut, and on one line.
fn shown_reason(reason: &str) -> String {
    const REASON_CHARS_MAX: usize = 200;
    reason.chars().take(REASON_CHARS_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// A duration in its canonical form: seconds if it is whole ones.
pub fn duration_text(span: Duration) -> String {
    if span.subsec_millis() == 0 { format!("{}s", span.as_secs()) } else { format!("{}ms", span.as_millis()) }
}
