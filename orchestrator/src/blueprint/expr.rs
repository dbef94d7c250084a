//! Expressions and templates: how a blueprint looks into a job's data. CEL, bounded in every dimension.
//!
//! Compilation happens once, when a blueprint is loaded, and finds every unknown name; evaluation is pure: the same scope gives
//! the same value, costs a bounded number of steps, and never panics. Data is parsed only when an expression looks at it. How
//! jobs are stored and who asks for values is unknown here.

use std::{cell::Cell, collections::BTreeMap, sync::Arc};

use serde_json::Value;

mod budget;
mod datum;
mod eval;
mod operators;
mod output;
mod parse;
mod value;

pub(super) use parse::Root;
pub use parse::{Place, SOURCE_BYTES_MAX};

use self::{
    budget::Budget,
    eval::Evaluation,
    output::Output,
    parse::{Node, Parsed},
};
pub use self::{datum::Datum, eval::Data};
use crate::{
    json::{Json, JsonText},
    time::Timestamp,
};

/// One compiled CEL expression.
#[derive(Debug)]
pub struct Expr {
    source: Arc<str>,
    tree: Node,
    roots: Vec<(Root, usize)>,
}

/// An expression that is not one: what is wrong, how to mend it, and at which byte of the source.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}; {cure}")]
pub struct ExprSyntaxError {
    /// What is wrong.
    pub message: String,
    /// How to mend it.
    pub cure: String,
    /// Byte in the text that was compiled: of an expression, or of the text around it.
    pub offset: usize,
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
#[error("expression `{expression}`{}: {reason}", at(*.character))]
pub struct ExprError {
    /// The source of the expression.
    pub expression: String,
    /// The character of it, from 1, at which the value stands that did not fit; nothing where that is no place of its own.
    pub character: Option<usize>,
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
    /// `results`: what the branches of the last map ended with, as the text of a JSON list; an empty list before there is one.
    pub results: Option<&'a str>,
    /// `item` and `index`: what a branch of a map is for. Nowhere else.
    pub item: Option<(&'a Datum<'a>, u32)>,
    /// `signal`: the data of a signal, in the condition of an event. Nowhere else.
    pub signal: Option<&'a Json>,
    /// `now`, a CEL timestamp: when the engine decided.
    pub now: Timestamp,
    /// Steps that the same decision has taken elsewhere, if they count together.
    pub turn: Option<&'a Cell<u64>>,
}

impl Scope<'_> {
    /// Pays for text of this length that is looked through beside the expressions of the same decision.
    ///
    /// # Errors
    /// Why the decision may not take any more.
    pub fn pay_for_text(&self, bytes: usize) -> Result<(), String> {
        Budget::of(self.turn).scan(bytes)
    }
}

impl Expr {
    /// Compiles an expression.
    pub fn compile(source: &str) -> Result<Self, ExprSyntaxError> {
        Self::compile_at(source, Place::Common)
    }

    /// Compiles an expression that stands where more can be looked at than elsewhere.
    pub fn compile_at(source: &str, place: Place) -> Result<Self, ExprSyntaxError> {
        let Parsed { tree, roots } = parse::parse(source, place)?;
        Ok(Self { tree, roots, source: Arc::from(source) })
    }

    /// What it looks at: each root once, with the byte at which its name first stands.
    pub(super) fn roots(&self) -> &[(Root, usize)] {
        &self.roots
    }

    /// The text that it was compiled from.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The value of the expression as JSON. What it only names in the data is as it is written there.
    pub fn eval(&self, scope: &Scope<'_>) -> Result<JsonText, ExprError> {
        self.eval_over(&Data::new(scope))
    }

    /// The value of the expression over data that several expressions share.
    pub fn eval_over(&self, data: &Data<'_>) -> Result<JsonText, ExprError> {
        let mut output = Output::default();
        self.eval_into(data, &mut output, 0)?;
        Ok(JsonText::written(output.into_text()))
    }

    /// The value of a condition. A value that is no boolean is an error.
    pub fn eval_bool(&self, scope: &Scope<'_>) -> Result<bool, ExprError> {
        self.holds(&Data::new(scope))
    }

    /// The value of a condition, over data that several conditions share: each part of it is parsed once for all of them.
    pub fn holds(&self, data: &Data<'_>) -> Result<bool, ExprError> {
        Evaluation::new(data).condition(&self.tree).map_err(|reason| self.error(reason))
    }

    fn eval_into(&self, data: &Data<'_>, output: &mut Output, depth: usize) -> Result<(), ExprError> {
        let mut evaluation = Evaluation::new(data);
        let written = match evaluation.named(&self.tree) {
            Ok(Some(datum)) => output.datum(datum, depth),
            Ok(None) => evaluation.eval(&self.tree).and_then(|value| output.value(&value, depth)),
            Err(reason) => Err(reason),
        };
        written.map_err(|reason| self.error(reason))
    }

    fn error(&self, reason: String) -> ExprError {
        ExprError { expression: self.source.to_string(), character: place_of(&self.source, &reason), reason }
    }
}

impl Template {
    /// Compiles every `${…}` in the strings of a value. Object keys are taken as they stand. Stops at the first error, which
    /// does not say in which string it is: the loader, which must, compiles string by string with [`Template::text`].
    pub fn compile(value: &Value) -> Result<Self, ExprSyntaxError> {
        Ok(match value {
            Value::String(text) => Self::text(text)?,
            Value::Array(items) => Self::list(items.iter().map(Self::compile).collect::<Result<_, _>>()?),
            Value::Object(members) => Self::object(
                members
                    .iter()
                    .map(|(key, value)| Ok((key.clone(), Self::compile(value)?)))
                    .collect::<Result<_, _>>()?,
            ),
            literal => Template::Literal(literal.clone()),
        })
    }

    /// A list of templates.
    pub fn list(items: Vec<Template>) -> Self {
        if items.iter().all(|item| matches!(item, Template::Literal(_))) {
            return Template::Literal(items.into_iter().filter_map(Self::into_literal).collect());
        }
        Template::List(items)
    }

    /// An object of templates.
    pub fn object(members: Vec<(String, Template)>) -> Self {
        if members.iter().all(|(_, value)| matches!(value, Template::Literal(_))) {
            let members = members.into_iter().filter_map(|(key, value)| Some((key, value.into_literal()?)));
            return Template::Literal(Value::Object(members.collect()));
        }
        Template::Object(members)
    }

    /// The expressions of one string.
    pub(super) fn expressions(&self) -> impl Iterator<Item = &Expr> {
        let (whole, parts) = match self {
            Template::Expr(expr) => (Some(expr), [].as_slice()),
            Template::Text(parts) => (None, parts.as_slice()),
            Template::Literal(_) | Template::List(_) | Template::Object(_) => (None, [].as_slice()),
        };
        whole.into_iter().chain(parts.iter().filter_map(|part| match part {
            TextPart::Expr(expr) => Some(expr),
            TextPart::Text(_) => None,
        }))
    }

    fn into_literal(self) -> Option<Value> {
        match self {
            Template::Literal(value) => Some(value),
            _ => None,
        }
    }

    /// Compiles one string. `$${` stands for a plain `${`.
    pub fn text(text: &str) -> Result<Self, ExprSyntaxError> {
        Self::text_at(text, Place::Common)
    }

    /// Compiles one string that stands where more can be looked at than elsewhere.
    pub fn text_at(text: &str, place: Place) -> Result<Self, ExprSyntaxError> {
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(dollar) = rest.find("${") {
            let at = text.len() - rest.len() + dollar;
            if rest[..dollar].ends_with('$') {
                plain.push_str(&rest[..dollar - 1]);
                plain.push_str("${");
                rest = &rest[dollar + 2..];
                continue;
            }
            plain.push_str(&rest[..dollar]);
            let inside = &rest[dollar + 2..];
            let Some(end) = closing_brace(inside) else {
                return Err(ExprSyntaxError {
                    message: "`${` is not closed".to_owned(),
                    cure: "close it with `}`, or write `$${` for a plain `${`".to_owned(),
                    offset: at,
                });
            };
            let expr = Expr::compile_at(&inside[..end], place)
                .map_err(|error| ExprSyntaxError { offset: at + 2 + error.offset, ..error })?;
            if !plain.is_empty() {
                parts.push(TextPart::Text(std::mem::take(&mut plain)));
            }
            parts.push(TextPart::Expr(expr));
            rest = &inside[end + 1..];
        }
        plain.push_str(rest);
        if parts.is_empty() {
            return Ok(Template::Literal(Value::String(plain)));
        }
        if !plain.is_empty() {
            parts.push(TextPart::Text(plain));
        }
        if let [TextPart::Expr(_)] = parts.as_slice()
            && let Some(TextPart::Expr(expr)) = parts.pop()
        {
            return Ok(Template::Expr(expr));
        }
        Ok(Template::Text(parts))
    }

    /// The template with every expression replaced by its value.
    pub fn render(&self, scope: &Scope<'_>) -> Result<JsonText, ExprError> {
        self.render_over(&Data::new(scope))
    }

    /// The template over data that several templates share: each part of it is taken apart once for all of them.
    pub fn render_over(&self, data: &Data<'_>) -> Result<JsonText, ExprError> {
        let mut output = Output::default();
        self.render_into(data, &mut output, 0)?;
        Ok(JsonText::written(output.into_text()))
    }

    fn render_into(&self, data: &Data<'_>, output: &mut Output, depth: usize) -> Result<(), ExprError> {
        match self {
            Template::Expr(expr) => expr.eval_into(data, output, depth),
            Template::Literal(value) => Ok(output.literal(value, depth)?),
            Template::Text(parts) => Ok(output.string(&interpolate(parts, data)?)?),
            Template::List(items) => {
                output.list(items.iter(), depth, |output, item, depth| item.render_into(data, output, depth))
            }
            Template::Object(members) => output.object(
                members.iter().map(|(key, value)| (key.as_str(), value)),
                depth,
                |output, value, depth| value.render_into(data, output, depth),
            ),
        }
    }
}

/// Strings as they are, everything else as JSON text.
fn interpolate(parts: &[TextPart], data: &Data<'_>) -> Result<String, ExprError> {
    // Bounds the text while it grows; what it is in the end is counted by the caller.
    let mut text = Output::default();
    for part in parts {
        match part {
            TextPart::Text(plain) => text.put(plain)?,
            TextPart::Expr(expr) => {
                text.put(&expr.eval_over(data)?.to_plain()).map_err(|reason| expr.error(reason))?;
            }
        }
    }
    Ok(text.into_text())
}

/// The error of a template that is too large as a whole.
impl From<String> for ExprError {
    fn from(reason: String) -> Self {
        ExprError { expression: "${…}".to_owned(), character: None, reason }
    }
}

/// Where that stands in an expression which a reason names first. At its beginning goes without saying.
fn place_of(source: &str, reason: &str) -> Option<usize> {
    let (named, _) = reason.strip_prefix('`')?.split_once('`')?;
    let before = source.get(..source.find(named)?)?;
    Some(before.chars().count() + 1).filter(|character| *character > 1)
}

fn at(character: Option<usize>) -> String {
    character.map(|character| format!(" at character {character}")).unwrap_or_default()
}

/// Where the `}` is that ends an expression: the first one outside of braces, strings and comments of the expression.
fn closing_brace(source: &str) -> Option<usize> {
    let bytes = source.as_bytes();
    let (mut at, mut open) = (0, 0_usize);
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'}' if open == 0 => return Some(at),
            b'}' => open -= 1,
            b'{' => open += 1,
            b'"' | b'\'' => {
                at = end_of_string(bytes, at)?;
                continue;
            }
            b'/' if bytes.get(at + 1) == Some(&b'/') => {
                at += bytes[at..].iter().position(|byte| *byte == b'\n')?;
            }
            _ => {}
        }
        at += 1;
    }
    None
}

/// The byte after the string that begins at `start`; knows raw and triple-quoted strings.
fn end_of_string(bytes: &[u8], start: usize) -> Option<usize> {
    let quote = bytes[start];
    let raw = start > 0 && bytes[start - 1].eq_ignore_ascii_case(&b'r');
    let triple = bytes[start..].starts_with(&[quote; 3]);
    let end: &[u8] = if triple { &[quote; 3] } else { &[quote] };
    let mut at = start + end.len();
    while at < bytes.len() {
        if bytes[at..].starts_with(end) {
            return Some(at + end.len());
        }
        at += if bytes[at] == b'\\' && !raw { 2 } else { 1 };
    }
    None
}

#[cfg(test)]
mod tests;
