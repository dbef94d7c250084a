//! What stands in a file, while it is put together: keys with their values, in the order in which they were given.
//!
//! A key that is given twice stays twice, for the loader to find.

use std::time::Duration;

use serde_json::Value;

use super::super::{
    finding::Position,
    yaml::{Entry, Node},
};

/// Keys and values.
#[derive(Debug, Clone, Default)]
pub struct Form(Vec<Entry>);

impl Form {
    /// With this value.
    pub fn with(self, key: impl Into<String>, value: impl Into<Value>) -> Self {
        self.with_node(key, Node::of_json(&value.into()))
    }

    /// With what is put together already.
    pub fn with_node(mut self, key: impl Into<String>, value: Node) -> Self {
        self.0.push(Entry { key: key.into(), key_at: Position::default(), value });
        self
    }

    /// With these too.
    pub fn and(mut self, more: Form) -> Self {
        self.0.extend(more.0);
        self
    }

    /// With this map, unless it is empty.
    pub fn with_form(self, key: &str, form: Form) -> Self {
        if form.0.is_empty() { self } else { self.with_node(key, form.into_node()) }
    }

    /// With this span, as a file says it. One that is no whole number of milliseconds is left for the loader to refuse.
    pub fn with_span(self, key: &str, span: Duration) -> Self {
        let whole = span.subsec_nanos().is_multiple_of(1_000_000);
        self.with(key, if whole { format!("{}ms", span.as_millis()) } else { format!("{span:?}") })
    }

    pub fn into_node(self) -> Node {
        Node::of_entries(self.0)
    }
}

/// A state in the making, of whichever kind.
#[derive(Debug, Clone)]
pub struct StateForm(pub(super) Form);
