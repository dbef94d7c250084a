//! Values on their way out: JSON text, no larger and no deeper than a payload may be.

use avtomatika_proto::limits::{JSON_DEPTH_MAX, PAYLOAD_BYTES_MAX};
use serde_json::{Number, Value};

use super::{
    datum::Datum,
    value::{List, MapVal, Val, span_text},
};

/// A JSON text that grows.
#[derive(Debug, Default)]
pub struct Output {
    text: String,
}

impl Output {
    /// The text.
    pub fn into_text(self) -> String {
        self.text
    }

    /// Appends a value that will stand inside `depth` lists and objects.
    pub fn value(&mut self, value: &Val<'_>, depth: usize) -> Result<(), String> {
        match value {
            Val::Null => self.put("null"),
            Val::Bool(value) => self.put(if *value { "true" } else { "false" }),
            Val::Int(value) => self.put(&value.to_string()),
            Val::Float(value) => {
                let number = Number::from_f64(*value).ok_or_else(|| format!("{value} is no JSON number"))?;
                self.put(&number.to_string())
            }
            Val::Str(text) => self.string(text),
            Val::Made(text) => self.string(text),
            Val::Time(time) => self.string(&time.to_string()),
            Val::Span(micros) => self.string(&span_text(*micros)),
            Val::List(List::Data(items)) => self.written(items.written, items.levels, depth),
            Val::List(List::Made(items)) => {
                self.list(items.iter(), depth, |out, item, depth| out.value(item, depth))
            }
            Val::Map(MapVal::Data(members)) => self.written(members.written, members.levels, depth),
            Val::Map(MapVal::Made(members)) => {
                self.object(members.iter().map(|(key, value)| (&**key, value)), depth, |out, value, depth| {
                    out.value(value, depth)
                })
            }
        }
    }

    /// Appends a value of the data as it is written.
    pub fn datum(&mut self, datum: &Datum<'_>, depth: usize) -> Result<(), String> {
        self.written(datum.written(), datum.levels(), depth)
    }

    /// Appends a value of the blueprint.
    pub fn literal(&mut self, value: &Value, depth: usize) -> Result<(), String> {
        match value {
            Value::Array(items) => {
                self.list(items.iter(), depth, |out, item, depth| out.literal(item, depth))
            }
            Value::Object(members) => {
                let members = members.iter().map(|(key, value)| (key.as_str(), value));
                self.object(members, depth, |out, value, depth| out.literal(value, depth))
            }
            Value::String(text) => self.string(text),
            Value::Null | Value::Bool(_) | Value::Number(_) => self.put(&value.to_string()),
        }
    }

    /// Appends a list of anything that `item` knows to append.
    pub fn list<T, E: From<String>>(
        &mut self,
        items: impl Iterator<Item = T>,
        depth: usize,
        item: impl Fn(&mut Self, T, usize) -> Result<(), E>,
    ) -> Result<(), E> {
        let depth = deeper(depth, 1)?;
        self.put("[")?;
        for (place, of) in items.enumerate() {
            self.put(if place == 0 { "" } else { "," })?;
            item(self, of, depth)?;
        }
        Ok(self.put("]")?)
    }

    /// Appends an object of anything that `value` knows to append.
    pub fn object<'k, T, E: From<String>>(
        &mut self,
        members: impl Iterator<Item = (&'k str, T)>,
        depth: usize,
        value: impl Fn(&mut Self, T, usize) -> Result<(), E>,
    ) -> Result<(), E> {
        let depth = deeper(depth, 1)?;
        self.put("{")?;
        for (place, (key, of)) in members.enumerate() {
            self.put(if place == 0 { "" } else { "," })?;
            self.string(key)?;
            self.put(":")?;
            value(self, of, depth)?;
        }
        Ok(self.put("}")?)
    }

    /// Appends a string.
    pub fn string(&mut self, text: &str) -> Result<(), String> {
        if has_escapes(text) {
            return self.put(&Value::from(text).to_string());
        }
        self.put("\"")?;
        self.put(text)?;
        self.put("\"")
    }

    fn written(&mut self, text: &str, levels: usize, depth: usize) -> Result<(), String> {
        deeper(depth, levels)?;
        self.put(text)
    }

    /// Appends text as it stands.
    pub fn put(&mut self, text: &str) -> Result<(), String> {
        if self.text.len() + text.len() > PAYLOAD_BYTES_MAX {
            return Err(format!(
                "the value has more than {PAYLOAD_BYTES_MAX} bytes; pass large data by reference"
            ));
        }
        self.text.push_str(text);
        Ok(())
    }
}

/// Inside of so many more lists and objects.
fn deeper(depth: usize, levels: usize) -> Result<usize, String> {
    if depth + levels > JSON_DEPTH_MAX {
        return Err(format!("the value is nested deeper than {JSON_DEPTH_MAX} levels"));
    }
    Ok(depth + levels)
}

/// Whether a string is longer as JSON than it is. Most hold nothing that is escaped, and of that the compiler makes a look at many bytes
/// at once, which matters for a megabyte: the conductor waits for it.
fn has_escapes(text: &str) -> bool {
    let is_escaped = |&byte: &u8| (byte < 0x20) | (byte == b'"') | (byte == b'\\');
    text.as_bytes().chunks(CHUNK).any(|chunk| chunk.iter().fold(false, |any, byte| any | is_escaped(byte)))
}

/// Bytes that are looked at together.
const CHUNK: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_written_as_json() {
        let long = "plain ".repeat(100) + "\u{1}" + &"é".repeat(77);
        for text in ["", "plain", "q\"\\\n\r\t\u{8}\u{c}\u{1}\u{1f}\u{7f}é😀/", &long] {
            let mut output = Output::default();
            output.string(text).unwrap();
            assert_eq!(output.into_text(), serde_json::to_string(text).unwrap(), "{text:?}");
        }
    }
}
