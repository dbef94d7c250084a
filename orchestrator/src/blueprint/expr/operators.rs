//! What operators and conversions make of values.
//!
//! Total: every pair of types, every overflow and every division has an answer, which may be the reason why there is none.

use super::{
    budget::Budget,
    parse::Binary,
    value::{List, Val, span_text},
};
use crate::time::Timestamp;

/// A value, or the reason why there is none.
pub type Evaluated<'d> = Result<Val<'d>, String>;

pub fn binary<'d>(operator: Binary, left: Val<'d>, right: Val<'d>, budget: &Budget) -> Evaluated<'d> {
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
            return Err(format!("cannot compare {} with {}", left.shown(), right.shown()));
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
        other => Err(format!("`in` needs a list or a map, not {}", other.shown())),
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
        (_, a, b) => Err(format!("`{}` does not work on {} and {}", operator.symbol(), a.shown(), b.shown())),
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

pub fn size<'d>(value: &Val<'d>, budget: &Budget) -> Evaluated<'d> {
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

pub fn to_text<'d>(value: Val<'d>, budget: &Budget) -> Evaluated<'d> {
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

pub fn to_int<'d>(value: &Val<'d>) -> Evaluated<'d> {
    match (value.as_text(), value) {
        (_, Val::Int(value)) => Ok(Val::Int(*value)),
        // The cast truncates and saturates, and what it saturates is out of range.
        (_, Val::Float(value)) if !value.is_nan() => Val::int(value.trunc() as i128),
        (_, Val::Time(time)) => Ok(Val::Int(time.as_micros().div_euclid(1_000_000).into())),
        (Some(text), _) => text.parse().map_err(|_| no_conversion(value, "int")).and_then(Val::int),
        _ => Err(no_conversion(value, "int")),
    }
}

pub fn to_double<'d>(value: &Val<'d>) -> Evaluated<'d> {
    match (value.as_text(), value) {
        (_, Val::Int(value)) => Ok(Val::Float(*value as f64)),
        (_, Val::Float(value)) => Ok(Val::Float(*value)),
        (Some(text), _) => text.parse().map(Val::Float).map_err(|_| no_conversion(value, "double")),
        _ => Err(no_conversion(value, "double")),
    }
}

pub fn to_bool<'d>(value: &Val<'d>) -> Evaluated<'d> {
    match (value.as_text(), value) {
        (_, Val::Bool(value)) => Ok(Val::Bool(*value)),
        (Some("true"), _) => Ok(Val::Bool(true)),
        (Some("false"), _) => Ok(Val::Bool(false)),
        _ => Err(no_conversion(value, "bool")),
    }
}

pub fn to_timestamp(value: Val<'_>) -> Evaluated<'_> {
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
            .map_err(|_| format!("`{}` is no RFC 3339 timestamp", shown_key(text))),
        _ => Err(no_conversion(&value, "timestamp")),
    }
}

pub fn to_duration(value: Val<'_>) -> Evaluated<'_> {
    match (value.as_text(), &value) {
        (_, Val::Span(_)) => Ok(value),
        (Some(text), _) => text
            .parse::<jiff::SignedDuration>()
            .ok()
            .and_then(|span| i64::try_from(span.as_micros()).ok())
            .map(Val::Span)
            .ok_or_else(|| format!("`{}` is no duration such as 90s or 1h30m", shown_key(text))),
        _ => Err(no_conversion(&value, "duration")),
    }
}

fn no_conversion(value: &Val<'_>, to: &str) -> String {
    match value.as_text() {
        Some(text) => format!("{to}(…) cannot convert `{}`", shown_key(text)),
        None => format!("{to}(…) cannot convert {}", value.shown()),
    }
}

pub fn text_of<'v>(value: &'v Val<'_>, what: &str) -> Result<&'v str, String> {
    value.as_text().ok_or_else(|| format!("{what} must be a string, not {}", value.shown()))
}

/// A key or other text of the data, as it may stand in a message.
pub fn shown_key(text: &str) -> String {
    crate::blueprint::finding::shown(text)
}
