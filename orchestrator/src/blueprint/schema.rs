//! What data must be like: a JSON Schema, compiled once.
//!
//! Checking is pure and fetches nothing: a schema that refers to another document is refused when it is compiled. Patterns are
//! matched in time that grows with the text alone, whatever they are; and a check that would take too many steps is given up.

mod steps;

use std::fmt;

use jsonschema::{PatternOptions, ValidationError};
use serde_json::Value;

/// Memory for one compiled pattern.
const PATTERN_BYTES_MAX: usize = 256 * 1024;

/// Steps of a check: ten for each element of a payload that is as large as may be and full of numbers of four digits, a quarter
/// of a second at worst.
const STEPS_MAX: u32 = 500_000;

/// Steps to find out what does not fit, with all that is noted on the way.
const TELLING_STEPS_MAX: u32 = 20_000;

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
            .with_keyword(steps::KEYWORD, |_, _, _| Ok(Box::new(steps::Step)))
            .build(&steps::counted(definition))
            .map_err(|error| SchemaError {
                place: error.instance_path().to_string(),
                reason: cut(&error.to_string(), REASON_CHARS_MAX),
            })?;
        Ok(Self { validator })
    }

    /// Whether data fits; `name` is what the data is called.
    ///
    /// # Errors
    /// With the first place that does not fit; or without one, when finding out takes too many steps.
    pub fn check(&self, name: &str, data: &Value) -> Result<(), SchemaError> {
        match steps::within(STEPS_MAX, || self.validator.is_valid(data)) {
            Some(true) => Ok(()),
            Some(false) => {
                // It notes every way in which the data does not fit, which may take much longer.
                let told = steps::within(TELLING_STEPS_MAX, || self.first_misfit(name, data));
                told.unwrap_or_else(|| {
                    Err(SchemaError::of_all(name, "it does not fit, in too many ways to say where"))
                })
            }
            None => {
                let reason = format!(
                    "checking it takes more than {STEPS_MAX} steps: there is too much of it, or the schema has it tried in too many ways"
                );
                Err(SchemaError::of_all(name, &reason))
            }
        }
    }

    fn first_misfit(&self, name: &str, data: &Value) -> Result<(), SchemaError> {
        self.validator.validate(data).map_err(|error| SchemaError {
            place: format!("{name}{}", error.instance_path()),
            reason: reason(&error),
        })
    }
}

impl SchemaError {
    fn of_all(name: &str, reason: &str) -> Self {
        Self { place: name.to_owned(), reason: reason.to_owned() }
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// An expression that adds and multiplies; nothing is wrong with it.
    fn expression() -> Schema {
        let operation = |name| {
            let args = json!({ "type": "array", "items": { "$ref": "#/$defs/node" } });
            json!({ "type": "object", "properties": { "op": { "const": name }, "args": args }, "required": ["op", "args"] })
        };
        let node =
            json!({ "oneOf": [{ "type": "number" }, operation("add"), operation("mul"), operation("neg")] });
        Schema::compile(&json!({ "$defs": { "node": node }, "$ref": "#/$defs/node" })).unwrap()
    }

    fn nested(depth: usize, leaf: Value) -> Value {
        (0..depth).fold(leaf, |inner, _| json!({ "op": "add", "args": [inner] }))
    }

    #[test]
    fn a_misfit_is_told_with_its_place() {
        let told = expression().check("initial_data", &nested(2, json!("bad"))).unwrap_err();
        assert!(told.to_string().starts_with("initial_data: "), "{told}");
        expression().check("initial_data", &nested(6, json!(7))).unwrap();
    }

    #[test]
    fn data_that_a_schema_tries_in_ever_more_ways_is_refused_soon() {
        let items = json!({ "allOf": [{ "$ref": "#/$defs/n" }, { "$ref": "#/$defs/n" }] });
        let n = json!({ "type": "array", "items": items });
        let twice = Schema::compile(&json!({ "$defs": { "n": n }, "$ref": "#/$defs/n" })).unwrap();
        let deep = |leaf| (0..100).fold(leaf, |inner, _| json!([inner]));
        twice.check("initial_data", &deep(json!([]))).unwrap();
        twice.check("initial_data", &deep(json!(7))).unwrap_err();
        let told = expression().check("initial_data", &nested(60, json!("bad"))).unwrap_err();
        assert_eq!(told.to_string(), "initial_data: it does not fit, in too many ways to say where");
        // Wide is not deep.
        let rows =
            Schema::compile(&json!({ "items": { "properties": { "a": { "type": "integer" } } } })).unwrap();
        rows.check("initial_data", &Value::Array(vec![json!({ "a": 1 }); 100_000])).unwrap();
    }
}
