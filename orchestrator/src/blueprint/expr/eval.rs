//! The value of an expression.
//!
//! Evaluation borrows from the job's data and copies only what it makes. Every step is paid from a [`Budget`], so that no
//! expression over any data can hold up or exhaust the orchestrator. It is written here, over the parser's tree, because the
//! crate's own interpreter has no such budget and copies all data before the first step.

use std::{
    cell::{Cell, OnceCell},
    rc::Rc,
};

use avtomatika_proto::limits::{JSON_DEPTH_MAX, PAYLOAD_BYTES_MAX};
use serde_json::{Map, Number, Value};

use super::{
    Scope,
    parse::{Binary, Function, Loop, LoopKind, Node, Root},
    value::{List, MapVal, Val, span_text},
};
use crate::{json::Json, time::Timestamp};

/// Steps of one evaluation or of one rendered template: some tens of milliseconds at worst.
const STEPS_MAX: u64 = 500_000;

/// Bytes of text scanned or made that count as one step.
const BYTES_PER_STEP: usize = 64;

/// Elements that one loop may go over. Larger lists belong into a worker.
const LOOP_ELEMENTS_MAX: usize = 10_000;

/// What an evaluation may still cost.
#[derive(Debug, Default)]
pub struct Budget {
    steps: Cell<u64>,
    made_bytes: Cell<usize>,
}

impl Budget {
    /// Pays for one step.
    pub fn step(&self) -> Result<(), String> {
        self.pay(1)
    }

    /// Pays for looking through text.
    pub fn scan(&self, bytes: usize) -> Result<(), String> {
        self.pay(bytes / BYTES_PER_STEP)
    }

    fn pay(&self, steps: usize) -> Result<(), String> {
        let spent = self.steps.get().saturating_add(steps as u64);
        self.steps.set(spent);
        if spent > STEPS_MAX {
            return Err(format!("it takes more than {STEPS_MAX} steps; leave such work to a worker"));
        }
        Ok(())
    }

    /// Pays for text that is made on the way.
    fn make(&self, bytes: usize) -> Result<(), String> {
        let made = self.made_bytes.get().saturating_add(bytes);
        self.made_bytes.set(made);
        if made > PAYLOAD_BYTES_MAX {
            return Err(format!("it makes more than {PAYLOAD_BYTES_MAX} bytes of text"));
        }
        self.scan(bytes)
    }
}

/// A job's data, each root of it parsed when an expression first looks at it, and once.
pub struct Data<'s> {
    scope: &'s Scope<'s>,
    initial_data: OnceCell<Map<String, Value>>,
    state_history: OnceCell<Map<String, Value>>,
    result: OnceCell<Map<String, Value>>,
    job: OnceCell<Val<'s>>,
    client: OnceCell<Val<'s>>,
    pub budget: Budget,
}

impl<'s> Data<'s> {
    pub fn new(scope: &'s Scope<'s>) -> Self {
        Self {
            scope,
            initial_data: OnceCell::new(),
            state_history: OnceCell::new(),
            result: OnceCell::new(),
            job: OnceCell::new(),
            client: OnceCell::new(),
            budget: Budget::default(),
        }
    }

    fn root(&self, root: Root) -> Val<'_> {
        let scope = self.scope;
        let parsed = match root {
            Root::InitialData => self.initial_data.get_or_init(|| scope.initial_data.to_map()),
            Root::StateHistory => self.state_history.get_or_init(|| scope.state_history.to_map()),
            Root::Result => self.result.get_or_init(|| scope.result.map(Json::to_map).unwrap_or_default()),
            Root::Client => {
                return self.client.get_or_init(|| made_map([("name", Val::Str(scope.client))])).clone();
            }
            Root::Job => return self.job.get_or_init(|| job_of(scope)).clone(),
        };
        Val::Map(MapVal::Data(parsed))
    }

    #[cfg(test)]
    pub fn has_parsed(&self, root: Root) -> bool {
        match root {
            Root::InitialData => self.initial_data.get().is_some(),
            Root::StateHistory => self.state_history.get().is_some(),
            Root::Result => self.result.get().is_some(),
            Root::Job | Root::Client => false,
        }
    }
}

fn job_of<'s>(scope: &Scope<'s>) -> Val<'s> {
    let labels = scope.labels.iter().map(|(key, value)| (key.as_str(), Val::Str(value)));
    made_map([
        ("id", Val::Made(scope.job_id.to_string().into())),
        ("blueprint_name", Val::Str(scope.blueprint_name)),
        ("blueprint_version", Val::Int(scope.blueprint_version.into())),
        ("current_state", Val::Str(scope.current_state)),
        ("labels", made_map(labels)),
        ("priority", Val::Int(scope.priority.into())),
        ("created_at", Val::Time(scope.created_at)),
    ])
}

fn made_map<'d, 'k>(members: impl IntoIterator<Item = (&'k str, Val<'d>)>) -> Val<'d> {
    Val::Map(MapVal::Made(members.into_iter().map(|(key, value)| (Rc::from(key), value)).collect()))
}

/// An evaluation under way: the data, and the variables of the loops that it is inside of.
pub struct Evaluation<'d, 's> {
    data: &'d Data<'s>,
    locals: Vec<Val<'d>>,
}

type Evaluated<'d> = Result<Val<'d>, String>;

impl<'d, 's> Evaluation<'d, 's> {
    pub fn new(data: &'d Data<'s>) -> Self {
        Self { data, locals: Vec::new() }
    }

    /// The value of a node, or the reason why it has none.
    pub fn eval(&mut self, node: &'d Node) -> Evaluated<'d> {
        self.data.budget.step()?;
        match node {
            Node::Null => Ok(Val::Null),
            Node::Bool(value) => Ok(Val::Bool(*value)),
            Node::Int(value) => Ok(Val::Int(*value)),
            Node::Float(value) => Ok(Val::Float(*value)),
            Node::Str(text) => Ok(Val::Str(text)),
            Node::Root(root) => Ok(self.data.root(*root)),
            Node::Local(place, name) => {
                self.locals.get(*place).cloned().ok_or_else(|| format!("`{name}` has no value"))
            }
            Node::Member(of, name) => self.member(of, name),
            Node::Has(of, name) => self.has(of, name),
            Node::Index(of, index) => self.index(of, index),
            Node::Not(of) => Ok(Val::Bool(!self.condition(of)?)),
            Node::Negate(of) => self.negate(of),
            Node::And(left, right) => self.decide(left, right, false),
            Node::Or(left, right) => self.decide(left, right, true),
            Node::If(condition, yes, no) => {
                if self.condition(condition)? {
                    self.eval(yes)
                } else {
                    self.eval(no)
                }
            }
            Node::Binary(operator, left, right) => {
                let (left, right) = (self.eval(left)?, self.eval(right)?);
                binary(*operator, left, right, &self.data.budget)
            }
            Node::Call(function, arguments) => self.call(*function, arguments),
            Node::Matches(subject, pattern) => {
                let subject = self.eval(subject)?;
                let text = text_of(&subject, "matches")?;
                self.data.budget.scan(8 * text.len())?;
                Ok(Val::Bool(pattern.is_match(text)))
            }
            Node::List(elements) => {
                let values: Result<Vec<_>, _> = elements.iter().map(|element| self.eval(element)).collect();
                Ok(Val::List(List::Made(values?.into())))
            }
            Node::Map(entries) => self.map(entries),
            Node::Loop(loop_) => self.run_loop(loop_),
        }
    }

    /// The value of a condition.
    pub fn condition(&mut self, node: &'d Node) -> Result<bool, String> {
        match self.eval(node)? {
            Val::Bool(value) => Ok(value),
            other => Err(format!("{} is {}, a boolean is needed", describe(node), other.type_name())),
        }
    }

    fn member(&mut self, of: &'d Node, name: &str) -> Evaluated<'d> {
        match self.eval(of)? {
            Val::Map(map) => map.get(name).ok_or_else(|| {
                format!(
                    "{} has no member `{name}`; where it may be missing, test for it with has(…)",
                    describe(of)
                )
            }),
            other => Err(format!("{} is {}, so it has no member `{name}`", describe(of), other.type_name())),
        }
    }

    fn has(&mut self, of: &'d Node, name: &str) -> Evaluated<'d> {
        match self.eval(of)? {
            Val::Map(map) => Ok(Val::Bool(map.get(name).is_some())),
            other => Err(format!("{} is {}, so it has no member `{name}`", describe(of), other.type_name())),
        }
    }

    fn index(&mut self, of: &'d Node, index: &'d Node) -> Evaluated<'d> {
        match (self.eval(of)?, self.eval(index)?) {
            (Val::List(list), Val::Int(index)) => usize::try_from(index)
                .ok()
                .and_then(|index| list.get(index))
                .ok_or_else(|| format!("{} has {} elements, so none at {index}", describe(of), list.len())),
            (Val::Map(map), index) => {
                let key = text_of(&index, "a map's key")?;
                map.get(key).ok_or_else(|| format!("{} has no member `{}`", describe(of), cut(key)))
            }
            (of_value, index) => Err(format!(
                "{} is {}, which has no element at {}",
                describe(of),
                of_value.type_name(),
                index.type_name()
            )),
        }
    }

    fn negate(&mut self, of: &'d Node) -> Evaluated<'d> {
        match self.eval(of)? {
            Val::Int(value) => Val::int(-value),
            Val::Float(value) => Ok(Val::Float(-value)),
            Val::Span(value) => {
                value.checked_neg().map(Val::Span).ok_or_else(|| "duration overflow".to_owned())
            }
            other => Err(format!("{} has no negative", other.type_name())),
        }
    }

    /// `&&` and `||`: an operand that decides the value makes an error of the other one irrelevant, on either side.
    fn decide(&mut self, left: &'d Node, right: &'d Node, decisive: bool) -> Evaluated<'d> {
        let left = self.condition(left);
        if left == Ok(decisive) {
            return Ok(Val::Bool(decisive));
        }
        let right = self.condition(right);
        if right == Ok(decisive) {
            return Ok(Val::Bool(decisive));
        }
        left.and(right).map(Val::Bool)
    }

    fn map(&mut self, entries: &'d [(Node, Node)]) -> Evaluated<'d> {
        let mut members: Vec<(Rc<str>, Val<'d>)> = Vec::with_capacity(entries.len());
        for (key, value) in entries {
            let key = self.eval(key)?;
            let key: Rc<str> = match key {
                Val::Made(key) => key,
                other => {
                    let key = text_of(&other, "a map's key")?;
                    self.data.budget.make(key.len())?;
                    Rc::from(key)
                }
            };
            if members.iter().any(|(known, _)| *known == key) {
                return Err(format!("the key `{}` stands twice in one map", cut(&key)));
            }
            members.push((key, self.eval(value)?));
        }
        Ok(Val::Map(MapVal::Made(members.into())))
    }

    fn run_loop(&mut self, loop_: &'d Loop) -> Evaluated<'d> {
        let list = match self.eval(&loop_.over)? {
            Val::List(list) => list,
            Val::Map(map) => {
                self.data.budget.pay(map.len())?;
                List::Made(map.keys().into())
            }
            other => {
                return Err(format!(
                    "{} is {}, a list or a map is needed",
                    describe(&loop_.over),
                    other.type_name()
                ));
            }
        };
        if list.len() > LOOP_ELEMENTS_MAX {
            return Err(format!(
                "{} has {} elements, a loop goes over at most {LOOP_ELEMENTS_MAX}; leave such work to a worker",
                describe(&loop_.over),
                list.len()
            ));
        }
        if loop_.kind == LoopKind::Collect { self.collect(loop_, &list) } else { self.quantify(loop_, &list) }
    }

    /// `map` and `filter`.
    fn collect(&mut self, loop_: &'d Loop, list: &List<'d>) -> Evaluated<'d> {
        let mut collected = Vec::new();
        for index in 0..list.len() {
            let Some(element) = list.get(index) else { break };
            self.locals.push(element);
            let value = self.collect_one(loop_);
            self.locals.pop();
            collected.extend(value?);
        }
        Ok(Val::List(List::Made(collected.into())))
    }

    fn collect_one(&mut self, loop_: &'d Loop) -> Result<Option<Val<'d>>, String> {
        if let Some(condition) = &loop_.condition
            && !self.condition(condition)?
        {
            return Ok(None);
        }
        loop_.body.as_ref().map(|body| self.eval(body)).transpose()
    }

    /// `all`, `exists` and `exists_one`. An element that decides makes errors of other elements irrelevant, as with `&&` and
    /// `||`; `exists_one` has no deciding element.
    fn quantify(&mut self, loop_: &'d Loop, list: &List<'d>) -> Evaluated<'d> {
        let Some(condition) = &loop_.condition else { return Err("the loop has no condition".to_owned()) };
        let mut error = None;
        let mut matches = 0_usize;
        for index in 0..list.len() {
            let Some(element) = list.get(index) else { break };
            self.locals.push(element);
            let holds = self.condition(condition);
            self.locals.pop();
            match (holds, loop_.kind) {
                (Ok(false), LoopKind::All) => return Ok(Val::Bool(false)),
                (Ok(true), LoopKind::Exists) => return Ok(Val::Bool(true)),
                (Ok(true), _) => matches += 1,
                (Ok(false), _) => {}
                (Err(reason), LoopKind::ExistsOne) => return Err(reason),
                (Err(reason), _) => {
                    error.get_or_insert(reason);
                }
            }
        }
        match error {
            Some(reason) => Err(reason),
            None => Ok(Val::Bool(match loop_.kind {
                LoopKind::ExistsOne => matches == 1,
                LoopKind::Exists => false,
                LoopKind::All | LoopKind::Collect => true,
            })),
        }
    }

    fn call(&mut self, function: Function, arguments: &'d [Node]) -> Evaluated<'d> {
        let mut values = arguments.iter().map(|argument| self.eval(argument));
        let first = values.next().transpose()?.unwrap_or(Val::Null);
        let second = values.next().transpose()?;
        let budget = &self.data.budget;
        match function {
            Function::Size => size(&first, budget),
            Function::Contains | Function::StartsWith | Function::EndsWith => {
                let second = second.unwrap_or(Val::Null);
                let (text, part) = (text_of(&first, "the text")?, text_of(&second, "the part")?);
                budget.scan(text.len() + part.len())?;
                Ok(Val::Bool(match function {
                    Function::Contains => text.contains(part),
                    Function::StartsWith => text.starts_with(part),
                    _ => text.ends_with(part),
                }))
            }
            Function::String => to_text(first, budget),
            Function::Int => to_int(&first),
            Function::Double => to_double(&first),
            Function::Bool => match (first.as_text(), &first) {
                (_, Val::Bool(value)) => Ok(Val::Bool(*value)),
                (Some("true"), _) => Ok(Val::Bool(true)),
                (Some("false"), _) => Ok(Val::Bool(false)),
                _ => Err(no_conversion(&first, "bool")),
            },
            Function::Timestamp => to_timestamp(first),
            Function::Duration => to_duration(first),
            Function::Get(field) => match first {
                Val::Time(time) => field.of_time(time).map(|value| Val::Int(value.into())),
                Val::Span(micros) => field
                    .of_span(micros)
                    .map(|value| Val::Int(value.into()))
                    .ok_or_else(|| "a duration has hours, minutes, seconds and milliseconds only".to_owned()),
                other => {
                    Err(format!("{} has no parts of time; make a timestamp(…) of it", other.type_name()))
                }
            },
        }
    }
}

fn binary<'d>(operator: Binary, left: Val<'d>, right: Val<'d>, budget: &Budget) -> Evaluated<'d> {
    match operator {
        Binary::Equal => Ok(Val::Bool(left.equals(&right, budget)?)),
        Binary::NotEqual => Ok(Val::Bool(!left.equals(&right, budget)?)),
        Binary::In => member_of(&left, &right, budget),
        Binary::Less | Binary::LessEqual | Binary::Greater | Binary::GreaterEqual => {
            compare(operator, &left, &right, budget)
        }
        Binary::Add if left.as_text().is_some() && right.as_text().is_some() => {
            let (left, right) = (left.as_text().unwrap_or_default(), right.as_text().unwrap_or_default());
            budget.make(left.len() + right.len())?;
            Ok(Val::Made([left, right].concat().into()))
        }
        Binary::Add | Binary::Subtract | Binary::Multiply | Binary::Divide | Binary::Remainder => {
            arithmetic(operator, left, right, budget)
        }
    }
}

fn compare<'d>(operator: Binary, left: &Val<'d>, right: &Val<'d>, budget: &Budget) -> Evaluated<'d> {
    let numbers = |value: &Val<'_>| matches!(value, Val::Int(_) | Val::Float(_));
    let order = left.order(right, budget)?;
    Ok(Val::Bool(match (operator, order) {
        // Only NaN has no order among numbers, and every comparison with it is false.
        (_, None) if numbers(left) && numbers(right) => false,
        (_, None) => {
            return Err(format!("cannot compare {} with {}", left.type_name(), right.type_name()));
        }
        (Binary::Less, Some(order)) => order.is_lt(),
        (Binary::LessEqual, Some(order)) => order.is_le(),
        (Binary::Greater, Some(order)) => order.is_gt(),
        (_, Some(order)) => order.is_ge(),
    }))
}

fn member_of<'d>(needle: &Val<'d>, hay: &Val<'d>, budget: &Budget) -> Evaluated<'d> {
    match hay {
        Val::Map(map) => {
            budget.pay(1)?;
            Ok(Val::Bool(needle.as_text().is_some_and(|key| map.get(key).is_some())))
        }
        Val::List(list) => {
            for index in 0..list.len() {
                let Some(element) = list.get(index) else { break };
                if needle.equals(&element, budget)? {
                    return Ok(Val::Bool(true));
                }
            }
            Ok(Val::Bool(false))
        }
        other => Err(format!("`in` needs a list or a map, not {}", other.type_name())),
    }
}

fn arithmetic<'d>(operator: Binary, left: Val<'d>, right: Val<'d>, budget: &Budget) -> Evaluated<'d> {
    let shift = |time: Timestamp, micros: Option<i64>| {
        micros
            .and_then(|micros| time.as_micros().checked_add(micros))
            .map(|micros| Val::Time(Timestamp::from_micros(micros)))
            .ok_or_else(|| "timestamp overflow".to_owned())
    };
    let span = |micros: Option<i64>| micros.map(Val::Span).ok_or_else(|| "duration overflow".to_owned());
    match (operator, left, right) {
        (_, Val::Int(a), Val::Int(b)) => integer_arithmetic(operator, a, b),
        (_, Val::Float(a), Val::Float(b)) => float_arithmetic(operator, a, b),
        // CEL refuses to mix them; JSON does not tell 100 from 100.0, so refusing would make expressions fail by chance.
        (_, Val::Int(a), Val::Float(b)) => float_arithmetic(operator, a as f64, b),
        (_, Val::Float(a), Val::Int(b)) => float_arithmetic(operator, a, b as f64),
        (Binary::Add, Val::List(a), Val::List(b)) => {
            budget.pay(a.len() + b.len())?;
            let elements = |list: &List<'d>| {
                let list = list.clone();
                (0..list.len()).filter_map(move |index| list.get(index))
            };
            Ok(Val::List(List::Made(elements(&a).chain(elements(&b)).collect())))
        }
        (Binary::Add, Val::Time(time), Val::Span(micros))
        | (Binary::Add, Val::Span(micros), Val::Time(time)) => shift(time, Some(micros)),
        (Binary::Subtract, Val::Time(time), Val::Span(micros)) => shift(time, micros.checked_neg()),
        (Binary::Subtract, Val::Time(a), Val::Time(b)) => span(a.as_micros().checked_sub(b.as_micros())),
        (Binary::Add, Val::Span(a), Val::Span(b)) => span(a.checked_add(b)),
        (Binary::Subtract, Val::Span(a), Val::Span(b)) => span(a.checked_sub(b)),
        (_, a, b) => {
            Err(format!("`{}` does not work on {} and {}", operator.symbol(), a.type_name(), b.type_name()))
        }
    }
}

fn integer_arithmetic<'d>(operator: Binary, a: i128, b: i128) -> Evaluated<'d> {
    // Both are within 65 bits, so that nothing but a product can leave 128, and a division by zero is the only other trap.
    let value = match operator {
        Binary::Add => a.checked_add(b),
        Binary::Subtract => a.checked_sub(b),
        Binary::Multiply => a.checked_mul(b),
        _ if b == 0 => return Err("division by zero".to_owned()),
        Binary::Divide => a.checked_div(b),
        _ => a.checked_rem(b),
    };
    Val::int(value.ok_or_else(|| "integer overflow".to_owned())?)
}

fn float_arithmetic<'d>(operator: Binary, a: f64, b: f64) -> Evaluated<'d> {
    Ok(Val::Float(match operator {
        Binary::Add => a + b,
        Binary::Subtract => a - b,
        Binary::Multiply => a * b,
        Binary::Divide => a / b,
        _ => return Err("`%` works on integers only".to_owned()),
    }))
}

fn size<'d>(value: &Val<'d>, budget: &Budget) -> Evaluated<'d> {
    let size = match value {
        Val::List(list) => list.len(),
        Val::Map(map) => map.len(),
        other => {
            let text = text_of(other, "what `size` is asked of")?;
            budget.scan(text.len())?;
            text.chars().count()
        }
    };
    Ok(Val::Int(size as i128))
}

fn to_text<'d>(value: Val<'d>, budget: &Budget) -> Evaluated<'d> {
    Ok(match value {
        Val::Str(_) | Val::Made(_) => value,
        Val::List(_) | Val::Map(_) | Val::Null => return Err(no_conversion(&value, "string")),
        scalar => {
            let text = match &scalar {
                Val::Int(value) => value.to_string(),
                Val::Bool(value) => value.to_string(),
                Val::Float(value) => value.to_string(),
                Val::Time(time) => time.to_string(),
                Val::Span(micros) => span_text(*micros),
                other => return Err(no_conversion(other, "string")),
            };
            budget.make(text.len())?;
            Val::Made(text.into())
        }
    })
}

fn to_int<'d>(value: &Val<'d>) -> Evaluated<'d> {
    match (value.as_text(), value) {
        (_, Val::Int(value)) => Ok(Val::Int(*value)),
        // The cast truncates and saturates, and what it saturates is out of range.
        (_, Val::Float(value)) if !value.is_nan() => Val::int(value.trunc() as i128),
        (_, Val::Time(time)) => Ok(Val::Int(time.as_micros().div_euclid(1_000_000).into())),
        (Some(text), _) => text.parse().map_err(|_| no_conversion(value, "int")).and_then(Val::int),
        _ => Err(no_conversion(value, "int")),
    }
}

fn to_double<'d>(value: &Val<'d>) -> Evaluated<'d> {
    match (value.as_text(), value) {
        (_, Val::Int(value)) => Ok(Val::Float(*value as f64)),
        (_, Val::Float(value)) => Ok(Val::Float(*value)),
        (Some(text), _) => text.parse().map(Val::Float).map_err(|_| no_conversion(value, "double")),
        _ => Err(no_conversion(value, "double")),
    }
}

fn to_timestamp(value: Val<'_>) -> Evaluated<'_> {
    match (value.as_text(), &value) {
        (_, Val::Time(_)) => Ok(value),
        (_, Val::Int(seconds)) => i64::try_from(*seconds)
            .ok()
            .and_then(|seconds| seconds.checked_mul(1_000_000))
            .map(|micros| Val::Time(Timestamp::from_micros(micros)))
            .ok_or_else(|| "timestamp overflow".to_owned()),
        (Some(text), _) => text
            .parse::<jiff::Timestamp>()
            .map(|time| Val::Time(Timestamp::from_micros(time.as_microsecond())))
            .map_err(|_| format!("`{}` is no RFC 3339 timestamp", cut(text))),
        _ => Err(no_conversion(&value, "timestamp")),
    }
}

fn to_duration(value: Val<'_>) -> Evaluated<'_> {
    match (value.as_text(), &value) {
        (_, Val::Span(_)) => Ok(value),
        (Some(text), _) => text
            .parse::<jiff::SignedDuration>()
            .ok()
            .and_then(|span| i64::try_from(span.as_micros()).ok())
            .map(Val::Span)
            .ok_or_else(|| format!("`{}` is no duration such as 90s or 1h30m", cut(text))),
        _ => Err(no_conversion(&value, "duration")),
    }
}

fn no_conversion(value: &Val<'_>, to: &str) -> String {
    match value.as_text() {
        Some(text) => format!("{to}(…) cannot convert `{}`", cut(text)),
        None => format!("{to}(…) cannot convert {}", value.type_name()),
    }
}

fn text_of<'v>(value: &'v Val<'_>, what: &str) -> Result<&'v str, String> {
    value.as_text().ok_or_else(|| format!("{what} must be a string, not {}", value.type_name()))
}

fn cut(text: &str) -> String {
    crate::blueprint::finding::shown(text)
}

/// The node as its author wrote it, where that is a path.
fn describe(node: &Node) -> String {
    fn path(node: &Node) -> Option<String> {
        Some(match node {
            Node::Root(root) => root.name().to_owned(),
            Node::Local(_, name) => name.clone(),
            Node::Member(of, name) => format!("{}.{name}", path(of)?),
            Node::Index(of, index) => match &**index {
                Node::Int(index) => format!("{}[{index}]", path(of)?),
                Node::Str(key) => format!("{}['{}']", path(of)?, cut(key)),
                _ => format!("{}[…]", path(of)?),
            },
            _ => return None,
        })
    }
    path(node).map_or_else(|| "the value".to_owned(), |path| format!("`{path}`"))
}

/// Values on their way out, as JSON: counts the bytes of the text that they will be.
#[derive(Debug, Default)]
pub struct Output {
    bytes: usize,
}

impl Output {
    /// The JSON of a value that will stand inside `depth` lists and objects.
    pub fn json(&mut self, value: &Val<'_>, depth: usize) -> Result<Value, String> {
        Ok(match value {
            Val::Null => self.literal(&Value::Null, depth)?,
            Val::Bool(value) => self.literal(&Value::Bool(*value), depth)?,
            Val::Int(value) => {
                let number = i64::try_from(*value)
                    .map(Number::from)
                    .or_else(|_| u64::try_from(*value).map(Number::from));
                self.literal(&Value::Number(number.map_err(|_| "integer overflow".to_owned())?), depth)?
            }
            Val::Float(value) => {
                let number = Number::from_f64(*value).ok_or_else(|| format!("{value} is no JSON number"))?;
                self.literal(&Value::Number(number), depth)?
            }
            Val::Str(text) => self.text((*text).to_owned())?,
            Val::Made(text) => self.text((**text).to_owned())?,
            Val::Time(time) => self.text(time.to_string())?,
            Val::Span(micros) => self.text(span_text(*micros))?,
            Val::List(List::Data(items)) => {
                self.list(items.iter(), |out, item, depth| out.literal(item, depth), depth)?
            }
            Val::List(List::Made(items)) => {
                self.list(items.iter(), |out, item, depth| out.json(item, depth), depth)?
            }
            Val::Map(MapVal::Data(members)) => self.object(
                members.iter().map(|(key, value)| (key.as_str(), value)),
                |out, value, depth| out.literal(value, depth),
                depth,
            )?,
            Val::Map(MapVal::Made(members)) => self.object(
                members.iter().map(|(key, value)| (&**key, value)),
                |out, value, depth| out.json(value, depth),
                depth,
            )?,
        })
    }

    /// A copy of JSON.
    pub fn literal(&mut self, value: &Value, depth: usize) -> Result<Value, String> {
        match value {
            Value::Array(items) => {
                self.list(items.iter(), |out, item, depth| out.literal(item, depth), depth)
            }
            Value::Object(members) => self.object(
                members.iter().map(|(key, value)| (key.as_str(), value)),
                |out, value, depth| out.literal(value, depth),
                depth,
            ),
            Value::String(text) => self.text(text.clone()),
            Value::Number(number) => {
                self.count(number.to_string().len())?;
                Ok(value.clone())
            }
            Value::Null | Value::Bool(_) => {
                self.count(5)?;
                Ok(value.clone())
            }
        }
    }

    /// Text.
    pub fn text(&mut self, text: String) -> Result<Value, String> {
        self.count(json_text_len(&text))?;
        Ok(Value::String(text))
    }

    /// A list of anything that `convert` knows to convert.
    pub fn list<T>(
        &mut self,
        items: impl Iterator<Item = T>,
        convert: impl Fn(&mut Self, T, usize) -> Result<Value, String>,
        depth: usize,
    ) -> Result<Value, String> {
        let depth = deeper(depth)?;
        self.count(2)?;
        let items = items.map(|item| {
            self.count(1)?;
            convert(self, item, depth)
        });
        Ok(Value::Array(items.collect::<Result<_, _>>()?))
    }

    /// An object of anything that `convert` knows to convert.
    pub fn object<'k, T>(
        &mut self,
        members: impl Iterator<Item = (&'k str, T)>,
        convert: impl Fn(&mut Self, T, usize) -> Result<Value, String>,
        depth: usize,
    ) -> Result<Value, String> {
        let depth = deeper(depth)?;
        self.count(2)?;
        let members = members.map(|(key, value)| {
            self.count(json_text_len(key) + 2)?;
            Ok((key.to_owned(), convert(self, value, depth)?))
        });
        Ok(Value::Object(members.collect::<Result<_, String>>()?))
    }

    /// A list whose elements are counted already.
    pub fn wrap_list(&mut self, items: Vec<Value>) -> Result<Value, String> {
        self.count(2 + items.len())?;
        Ok(Value::Array(items))
    }

    /// An object whose values are counted already.
    pub fn wrap_object(&mut self, members: Vec<(String, Value)>) -> Result<Value, String> {
        self.count(2 + members.iter().map(|(key, _)| json_text_len(key) + 2).sum::<usize>())?;
        Ok(Value::Object(members.into_iter().collect()))
    }

    fn count(&mut self, bytes: usize) -> Result<(), String> {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > PAYLOAD_BYTES_MAX {
            return Err(format!(
                "the value has more than {PAYLOAD_BYTES_MAX} bytes; pass large data by reference"
            ));
        }
        Ok(())
    }
}

fn deeper(depth: usize) -> Result<usize, String> {
    if depth >= JSON_DEPTH_MAX {
        return Err(format!("the value is nested deeper than {JSON_DEPTH_MAX} levels"));
    }
    Ok(depth + 1)
}

/// Length of a string as JSON text, with its quotes.
fn json_text_len(text: &str) -> usize {
    let escaped = |byte: u8| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 2,
        0..0x20 => 6,
        _ => 1,
    };
    2 + text.bytes().map(escaped).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_counted_as_it_will_be_written() {
        for text in ["", "plain", "q\"\\\n\r\t\u{8}\u{c}\u{1}\u{1f}\u{7f}é😀/"] {
            assert_eq!(json_text_len(text), serde_json::to_string(text).unwrap().len(), "{text:?}");
        }
    }
}
