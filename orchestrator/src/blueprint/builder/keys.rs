//! Keys in a blueprint that is built: see `concurrency` and `rate` in docs/blueprints.md.

use std::time::Duration;

use serde_json::{Map, Value};

use super::{super::KeyPolicy, form::Form};

/// A key of which so many may be under way at once.
pub fn at_once(key: impl Into<String>, limit: u32) -> Key {
    Key::of(key.into(), limit)
}

/// A key of which so many may start in each period.
pub fn per(key: impl Into<String>, limit: u32, period: Duration) -> Key {
    // One that is no whole number of milliseconds is left for the loader to refuse.
    let whole = period.subsec_nanos().is_multiple_of(1_000_000);
    let text = if whole { format!("{}ms", period.as_millis()) } else { format!("{period:?}") };
    Key::of(key.into(), limit).with("per", text)
}

/// See [`at_once`] and [`per`].
#[derive(Debug, Clone)]
#[must_use = "add it to a blueprint or to a task"]
pub struct Key(Map<String, Value>);

impl Key {
    fn of(key: String, limit: u32) -> Self {
        Self(Map::new()).with("key", key).with("limit", limit)
    }

    fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.0.insert(key.to_owned(), value.into());
        self
    }

    /// How many may start in a row, of a key that counts starts; without it, as many as in a period.
    pub fn burst(self, burst: u32) -> Self {
        self.with("burst", burst)
    }

    /// What becomes of one too many; without it, it waits.
    pub fn policy(self, policy: KeyPolicy) -> Self {
        self.with("policy", policy.as_str())
    }

    pub(super) fn into_value(self) -> Value {
        Value::Object(self.0)
    }
}

/// With these keys, as a file says them.
pub(super) fn with_keys(form: Form, concurrency: Vec<Value>, rate: Vec<Value>) -> Form {
    [("concurrency", concurrency), ("rate", rate)]
        .into_iter()
        .fold(form, |form, (kind, keys)| if keys.is_empty() { form } else { form.with(kind, keys) })
}
