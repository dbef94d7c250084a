//! What checking data against a schema may cost: a step for each time that data meets a part of the schema.
//!
//! A schema that refers to itself may have the same data tried in ever more ways, the deeper it is: some hundred bytes can take hours.
//! The library that checks knows no bound. So each part of a schema gets a keyword of our own, which counts; when the steps are used
//! up, it leaves the library by unwinding. It promises that a check ends, with the same answer whatever the machine. It refuses to
//! know what a schema says.

use std::{
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
};

use jsonschema::{Keyword, ValidationError};
use serde_json::{Map, Value};

/// The keyword that counts.
pub(super) const KEYWORD: &str = "x-avtomatika-step";

thread_local! {
    /// Steps that the check on this thread may still take.
    static LEFT: Cell<u32> = const { Cell::new(0) };
}

/// Thrown when there are none.
struct UsedUp;

/// Counts, and has nothing against any data.
pub(super) struct Step;

impl<'i> Keyword<'i> for Step {
    fn validate(&self, _: &'i Value) -> Result<(), ValidationError<'i>> {
        take();
        Ok(())
    }

    fn is_valid(&self, _: &'i Value) -> bool {
        take();
        true
    }
}

fn take() {
    match LEFT.get().checked_sub(1) {
        Some(left) => LEFT.set(left),
        // This tells no panic hook: nothing is wrong.
        None => resume_unwind(Box::new(UsedUp)),
    }
}

/// What the check comes to; `None` when it would take more steps than these.
pub(super) fn within<T>(steps: u32, check: impl FnOnce() -> T) -> Option<T> {
    LEFT.set(steps);
    // What is left half done is the library's own bookkeeping of this very check.
    match catch_unwind(AssertUnwindSafe(check)) {
        Ok(checked) => Some(checked),
        Err(thrown) if thrown.is::<UsedUp>() => None,
        Err(panic) => resume_unwind(panic),
    }
}

/// The schema with the keyword in each of its parts.
pub(super) fn counted(schema: &Value) -> Value {
    match schema {
        Value::Object(keywords) => {
            let mut counted: Map<String, Value> =
                keywords.iter().map(|(name, value)| (name.clone(), within_keyword(name, value))).collect();
            counted.insert(KEYWORD.to_owned(), Value::Bool(true));
            Value::Object(counted)
        }
        other => other.clone(),
    }
}

fn within_keyword(name: &str, value: &Value) -> Value {
    match (name, value) {
        // Data, and lists of names.
        ("const" | "enum" | "default" | "examples" | "required" | "dependentRequired", _) => value.clone(),
        // Schemas by names.
        (
            "properties" | "patternProperties" | "$defs" | "definitions" | "dependentSchemas"
            | "dependencies",
            Value::Object(schemas),
        ) => Value::Object(schemas.iter().map(|(name, schema)| (name.clone(), counted(schema))).collect()),
        // A schema, several, or something else.
        (_, Value::Array(schemas)) => Value::Array(schemas.iter().map(counted).collect()),
        (_, value) => counted(value),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_part_of_a_schema_is_counted_and_its_data_is_left_alone() {
        let schema = json!({
            "const": { "a": 1 },
            "properties": { "const": { "type": "object" }, "b": true },
            "items": { "oneOf": [{ "enum": [{ "c": 1 }] }, false] },
            "whatever": { "d": { "$ref": "#" } },
        });
        assert_eq!(
            counted(&schema),
            json!({
                "const": { "a": 1 },
                "properties": { "const": { "type": "object", KEYWORD: true }, "b": true },
                "items": { "oneOf": [{ "enum": [{ "c": 1 }], KEYWORD: true }, false], KEYWORD: true },
                "whatever": { "d": { "$ref": "#", KEYWORD: true }, KEYWORD: true },
                KEYWORD: true,
            })
        );
    }

    #[test]
    fn a_check_that_takes_too_long_is_left_and_other_panics_are_not_hidden() {
        assert_eq!(
            within(2, || {
                take();
                take();
                7
            }),
            Some(7)
        );
        assert_eq!(
            within(2, || loop {
                take()
            }),
            None::<()>
        );
        let other = catch_unwind(|| within(2, || resume_unwind(Box::new("a fault"))));
        assert!(matches!(other, Err(thrown) if thrown.is::<&str>()));
    }
}
