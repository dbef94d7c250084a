//! Values on their way out: JSON no larger and no deeper than a payload may be.

use avtomatika_proto::limits::{JSON_DEPTH_MAX, PAYLOAD_BYTES_MAX};
use serde_json::{Number, Value};

use super::value::{List, MapVal, Val, span_text};

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
    // Most chunks hold nothing that is escaped. That much the compiler finds out many bytes at once, which matters for a megabyte:
    // the conductor waits for it.
    let is_escaped = |&byte: &u8| (byte < 0x20) | (byte == b'"') | (byte == b'\\');
    let extra = |chunk: &[u8]| match chunk.iter().fold(false, |any, byte| any | is_escaped(byte)) {
        true => chunk.iter().filter(|byte| is_escaped(byte)).map(|byte| escape_extra(*byte)).sum(),
        false => 0,
    };
    2 + text.len() + text.as_bytes().chunks(CHUNK).map(extra).sum::<usize>()
}

/// Bytes that are looked at together.
const CHUNK: usize = 64;

/// Bytes by which a byte that is escaped gets longer: `\n` by one, `\u0001` by five.
fn escape_extra(byte: u8) -> usize {
    match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 1,
        _ => 5,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_counted_as_it_will_be_written() {
        let long = "\u{1}".repeat(1000) + &"\n".repeat(100) + &"é".repeat(77);
        for text in ["", "plain", "q\"\\\n\r\t\u{8}\u{c}\u{1}\u{1f}\u{7f}é😀/", &long] {
            assert_eq!(json_text_len(text), serde_json::to_string(text).unwrap().len(), "{text:?}");
        }
    }
}
