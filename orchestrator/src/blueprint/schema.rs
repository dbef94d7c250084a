//! What data must be like: a JSON Schema, compiled once.
//!
//! Checking is pure and fetches nothing: a schema that refers to another document is refused when it is compiled.

use serde_json::Value;

/// A compiled JSON Schema.
#[derive(Debug)]
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
    /// Compiles a schema.
    ///
    /// # Errors
    /// When it is no JSON Schema, or refers to another document.
    pub fn compile(definition: &Value) -> Result<Self, String> {
        let validator = jsonschema::options().build(definition).map_err(|error| error.to_string())?;
        Ok(Self { validator })
    }

    /// Whether data fits; `name` is what the data is called.
    ///
    /// # Errors
    /// With the first place that does not fit.
    pub fn check(&self, name: &str, data: &Value) -> Result<(), SchemaError> {
        self.validator.validate(data).map_err(|error| SchemaError {
            place: format!("{name}{}", error.instance_path()),
            reason: error.to_string(),
        })
    }
}
