//! Expressions and templates: how a blueprint looks into a job's data. CEL, bounded in every dimension.
//!
//! Compilation happens once, when a blueprint is loaded; evaluation is pure: the same scope gives the same value.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Map, Value};

use crate::{json::Json, time::Timestamp};

/// One compiled CEL expression.
#[derive(Debug)]
pub struct Expr {
    source: Arc<str>,
}

/// A JSON value in which strings may hold `${…}` expressions. A string that is wholly one `${…}` becomes the value of that
/// expression, with its type; inside other text the value is interpolated.
#[derive(Debug)]
pub enum Template {
    /// A value without expressions.
    Literal(Value),
    /// A string that is wholly one expression.
    Expr(Expr),
    /// Text with expressions in it.
    Text(Vec<TextPart>),
    /// A list with templates in it.
    List(Vec<Template>),
    /// An object with templates in it.
    Object(Vec<(String, Template)>),
}

/// A piece of a [`Template::Text`].
#[derive(Debug)]
pub enum TextPart {
    /// Text as it stands.
    Text(String),
    /// The value of an expression, as text.
    Expr(Expr),
}

/// An expression that could not be evaluated: which one, why, and what to look at.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expression `{expression}`: {reason}")]
pub struct ExprError {
    /// The source of the expression.
    pub expression: String,
    /// Why it has no value for this job.
    pub reason: String,
}

/// What an expression may look at.
#[derive(Debug, Clone, Copy)]
pub struct Scope<'a> {
    /// `job.id`.
    pub job_id: avtomatika_proto::JobId,
    /// `job.blueprint_name`.
    pub blueprint_name: &'a str,
    /// `job.blueprint_version`.
    pub blueprint_version: u32,
    /// `job.current_state`.
    pub current_state: &'a str,
    /// `job.labels`.
    pub labels: &'a BTreeMap<String, String>,
    /// `job.priority`.
    pub priority: i32,
    /// `job.created_at`, a CEL timestamp.
    pub created_at: Timestamp,
    /// `client.name`.
    pub client: &'a str,
    /// `initial_data`.
    pub initial_data: &'a Json,
    /// `state_history`.
    pub state_history: &'a Json,
    /// `result`: the data of the last result; an empty object before there is one.
    pub result: Option<&'a Json>,
}

impl Expr {
    /// The value of the expression as JSON.
    pub fn eval(&self, scope: &Scope<'_>) -> Result<Value, ExprError> {
        let _ = (scope, &self.source, Map::<String, Value>::new());
        unimplemented!()
    }

    /// The value of a condition. A value that is no boolean is an error.
    pub fn eval_bool(&self, scope: &Scope<'_>) -> Result<bool, ExprError> {
        let _ = scope;
        unimplemented!()
    }
}

impl Template {
    /// The template with every expression replaced by its value.
    pub fn render(&self, scope: &Scope<'_>) -> Result<Value, ExprError> {
        let _ = scope;
        unimplemented!()
    }
}
