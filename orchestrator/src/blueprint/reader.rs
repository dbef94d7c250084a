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
    Expr, ExprSyntaxError, Template,
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
}

impl Reader {
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

    pub fn expression(&mut self, node: &Node, what: &str) -> Option<Expr> {
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

    pub fn expression_error(&mut self, node: &Node, error: ExprSyntaxError) {
        self.findings.error(node.place_in_text(error.offset), error.message, error.cure);
    }

    pub fn template(&mut self, node: &Node) -> Option<Template> {
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

/// A duration in its canonical form: seconds if it is whole ones.
pub fn duration_text(span: Duration) -> String {
    if span.subsec_millis() == 0 { format!("{}s", span.as_secs()) } else { format!("{}ms", span.as_millis()) }
}
