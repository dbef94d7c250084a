//! What data must be like: a JSON Schema, compiled once.
//!
//! Checking is pure and fetches nothing: a schema that refers to another document is refused when it is compiled. Patterns are
//! matched in time that grows with the text alone, whatever they are.

use std::fmt;

use jsonschema::{PatternOptions, ValidationError};
use serde_json::Value;

/// Memory for one compiled pattern.
const PATTERN_BYTES_MAX: usize = 256 * 1024;

/// Of a reason, which may quote data.
const REASON_CHARS_MAX: usize = 300;

/// Of the value that does not fit.
const VALUE_CHARS_MAX: usize = 60;

/// A compiled JSON Schema.
pub struct Schema {
    validator: jsonschema::Validator,
}

/// Why data does not fit: the first place that does not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {reason}")]
pub struct SchemaError {
    /// Where, as a JSON pointer with the name of the data before it, such as `initial_data/pages/3`.
    pub place: String,
    /// What is wrong there.
    pub reason: String,
}

impl Schema {
    /// Compiles a schema. What it says of formats (`email`, `date-time`, …) holds.
    ///
    /// # Errors
    /// When it is no JSON Schema, or refers to another document. The place is a pointer into the schema.
    pub fn compile(definition: &Value) -> Result<Self, SchemaError> {
        let patterns =
            PatternOptions::regex().size_limit(PATTERN_BYTES_MAX).dfa_size_limit(PATTERN_BYTES_MAX);
        let validator = jsonschema::options()
            .offline()
            .should_validate_formats(true)
            .should_ignore_unknown_formats(false)
            .with_pattern_options(patterns)
            .build(definition)
            .map_err(|error| SchemaError {
                place: error.instance_path().to_string(),
                reason: cut(&error.to_string(), REASON_CHARS_MAX),
            })?;
        Ok(Self { validator })
    }

    /// Whether data fits; `name` is what the data is called.
    ///
    /// # Errors
    /// With the first place that does not fit.
    pub fn check(&self, name: &str, data: &Value) -> Result<(), SchemaError> {
        self.validator.validate(data).map_err(|error| SchemaError {
            place: format!("{name}{}", error.instance_path()),
            reason: reason(&error),
        })
    }
}

/// What is wrong, and with which value if that is short enough to be of help.
fn reason(error: &ValidationError<'_>) -> String {
    let reason = cut(&error.masked_with("the value").to_string(), REASON_CHARS_MAX);
    match &**error.instance() {
        Value::Array(_) | Value::Object(_) => reason,
        value => format!("{reason}; it is {}", cut(&value.to_string(), VALUE_CHARS_MAX)),
    }
}

fn cut(text: &str, chars_max: usize) -> String {
    let mut cut: String = text.chars().take(chars_max).collect();
    if cut.len() < text.len() {
        cut.push('…');
    }
    cut
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Schema").finish_non_exhaustive()
    }
}
