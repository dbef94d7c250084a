//! The JSON gate: text from outside becomes [`Json`] here or nowhere.
//!
//! It promises that a [`Json`] is one JSON object in UTF-8, with every key once per object, nested no deeper than
//! [`JSON_DEPTH_MAX`](avtomatika_proto::limits::JSON_DEPTH_MAX), which is serde_json's own bound. It keeps the text byte for byte and refuses to know what the text means: data is parsed where an
//! expression looks into it, and passed through everywhere else.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    fmt,
    sync::Arc,
};

use serde::{
    Deserialize, Serialize, Serializer,
    de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor},
    ser::Error as _,
};
use serde_json::{Map, Value, value::RawValue};

/// The text of one JSON object. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct Json(Arc<str>);

/// The text of one JSON value that this process has written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonText(String);

/// The text of a JSON value as a part of what is serialised: passed through.
pub struct Raw<'a>(pub &'a str);

/// Why a text is not an acceptable JSON object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidJson(String);

impl Json {
    /// The object `{}`.
    pub fn empty() -> Self {
        Self(Arc::from("{}"))
    }

    /// Takes text from outside; an empty text is an error, as every other text that is no object.
    pub fn object(text: &str) -> Result<Self, InvalidJson> {
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let kind = Gate
            .deserialize(&mut deserializer)
            .and_then(|kind| deserializer.end().map(|()| kind))
            .map_err(|error| InvalidJson(error.to_string()))?;
        match kind {
            Kind::Object => Ok(Self(Arc::from(text))),
            Kind::Other(name) => Err(InvalidJson(format!("expected a JSON object, got {name}"))),
        }
    }

    /// Takes bytes from outside.
    pub fn object_from_bytes(bytes: &[u8]) -> Result<Self, InvalidJson> {
        let text = std::str::from_utf8(bytes)
            .map_err(|error| InvalidJson(format!("not UTF-8 at byte {}", error.valid_up_to())))?;
        Self::object(text)
    }

    /// Wraps text that passed the gate before it was stored.
    pub fn from_stored(text: &str) -> Self {
        Self(Arc::from(text))
    }

    /// The text of an object that this process built: a struct, or a map with string keys.
    pub fn of(members: &impl Serialize) -> Self {
        Self(Arc::from(serde_json::to_string(members).expect("what has string keys always serialises")))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is the object without members, however it is spaced.
    pub fn is_empty_object(&self) -> bool {
        self.0.bytes().all(|byte| byte == b'{' || byte == b'}' || byte.is_ascii_whitespace())
    }

    /// The members, parsed.
    pub fn to_map(&self) -> Map<String, Value> {
        serde_json::from_str(&self.0).expect("a Json is always one JSON object")
    }

    /// This object with the members of `newer` put over it, top level only. Keeps the order of first appearance, and each value as it
    /// is written: what nobody touched is not even rounded.
    pub fn merged(&self, newer: &Json) -> Json {
        if newer.is_empty_object() {
            return self.clone();
        }
        if self.is_empty_object() {
            return newer.clone();
        }
        self.under(newer, |_| true)
    }

    /// This object with the members of `patch` put over it, where `null` takes a member out: a merge patch (RFC 7396) of the
    /// top level.
    pub fn patched(&self, patch: &Json) -> Json {
        if patch.is_empty_object() {
            return self.clone();
        }
        self.under(patch, |value| value.get() != "null")
    }

    /// This object with the members of `over` in place of its own; those that do not stay are taken out.
    fn under(&self, over: &Json, stays: impl Fn(&RawValue) -> bool) -> Json {
        let mut members: Vec<(String, Option<&RawValue>)> =
            self.members().map(|(key, value)| (key, Some(value))).collect();
        let places: HashMap<String, usize> =
            members.iter().enumerate().map(|(place, (key, _))| (key.clone(), place)).collect();
        for (key, value) in over.members() {
            let value = Some(value).filter(|value| stays(value));
            match places.get(&key) {
                Some(&place) => members[place].1 = value,
                None => members.push((key, value)),
            }
        }
        let members = members.iter().filter_map(|(key, value)| Some((key, (*value)?)));
        let mut text = Vec::with_capacity(self.0.len() + over.0.len());
        serde_json::Serializer::new(&mut text)
            .collect_map(members)
            .expect("members with string keys always serialise");
        Self(Arc::from(String::from_utf8(text).expect("serde_json writes UTF-8")))
    }

    /// The members in their order, as they are written.
    fn members(&self) -> impl Iterator<Item = (String, &RawValue)> {
        let Members(members) = serde_json::from_str(&self.0).expect("a Json is always one JSON object");
        members.into_iter()
    }
}

/// The members of an object, in their order, as they are written.
struct Members<'t>(Vec<(String, &'t RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

impl JsonText {
    /// Takes a text that is made of values that passed the gate.
    pub fn written(text: String) -> Self {
        Self(text)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The object that it is, if it is one.
    pub fn to_object(&self) -> Option<Json> {
        self.0.starts_with('{').then(|| Json(Arc::from(&*self.0)))
    }

    /// Whether it is a string.
    pub fn is_string(&self) -> bool {
        self.0.starts_with('"')
    }

    /// What a string says; everything else as it is written.
    pub fn to_plain(&self) -> Cow<'_, str> {
        if self.is_string() {
            return Cow::Owned(serde_json::from_str(&self.0).expect("a JsonText is always one JSON value"));
        }
        self.as_str().into()
    }

    /// The value, parsed.
    pub fn to_value(&self) -> Value {
        serde_json::from_str(&self.0).expect("a JsonText is always one JSON value")
    }
}

impl Serialize for Raw<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let raw: &RawValue = serde_json::from_str(self.0).map_err(S::Error::custom)?;
        raw.serialize(serializer)
    }
}

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What the outermost value is.
enum Kind {
    Object,
    Other(&'static str),
}

/// Walks a value without building it.
#[derive(Clone, Copy)]
struct Gate;

impl<'de> DeserializeSeed<'de> for Gate {
    type Value = Kind;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Kind, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Gate {
    type Value = Kind;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Kind, E> {
        Ok(Kind::Other("a boolean"))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Kind, E> {
        Ok(Kind::Other("a number"))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Kind, E> {
        Ok(Kind::Other("a number"))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Kind, E> {
        Ok(Kind::Other("a number"))
    }

    fn visit_str<E>(self, _: &str) -> Result<Kind, E> {
        Ok(Kind::Other("a string"))
    }

    fn visit_unit<E>(self) -> Result<Kind, E> {
        Ok(Kind::Other("null"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Kind, A::Error> {
        while items.next_element_seed(Gate)?.is_some() {}
        Ok(Kind::Other("an array"))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Kind, A::Error> {
        let mut seen = Keys::default();
        while let Some(key) = members.next_key::<String>()? {
            if let Some(twice) = seen.insert(key) {
                return Err(A::Error::custom(format_args!(
                    "the key {:?} stands twice in one object",
                    cut(&twice)
                )));
            }
            members.next_value_seed(Gate)?;
        }
        Ok(Kind::Object)
    }
}

/// The keys of one object: a list while it is short, a hashed set (keyed at random, so nobody can choose collisions) after.
#[derive(Default)]
struct Keys {
    few: Vec<String>,
    many: HashSet<String>,
}

impl Keys {
    const FEW: usize = 16;

    /// Returns the key if it was there already.
    fn insert(&mut self, key: String) -> Option<String> {
        if self.few.contains(&key) || self.many.contains(&key) {
            return Some(key);
        }
        if self.few.len() < Self::FEW {
            self.few.push(key);
        } else {
            self.many.insert(key);
        }
        None
    }
}

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(64)]
}

#[cfg(test)]
mod tests {
    use avtomatika_proto::limits::JSON_DEPTH_MAX;

    use super::*;

    #[test]
    fn an_object_is_kept_byte_for_byte() {
        let text = " { \"a\" : 1.10, \"б\": [1, {\"a\": null}] }\n";
        assert_eq!(Json::object(text).unwrap().as_str(), text);
    }

    #[test]
    fn everything_else_is_named() {
        let deep = "[".repeat(200);
        let deep = format!("{{\"a\":{deep}");
        for (text, reason) in [
            ("", "EOF while parsing a value at line 1 column 0"),
            ("{\"a\":", "EOF while parsing a value at line 1 column 5"),
            ("[]", "expected a JSON object, got an array"),
            ("7", "expected a JSON object, got a number"),
            ("null", "expected a JSON object, got null"),
            ("{} {}", "trailing characters at line 1 column 4"),
            ("{\"a\":1,\"b\":{},\"a\":2}", "the key \"a\" stands twice in one object at line 1 column 17"),
            ("{\"x\":[{\"a\":1,\"a\":1}]}", "the key \"a\" stands twice in one object at line 1 column 16"),
            ("{\"a\":\"\\ud800\"}", "unexpected end of hex escape at line 1 column 13"),
            ("{\"a\":1e400}", "number out of range at line 1 column 10"),
            (deep.as_str(), "recursion limit exceeded at line 1 column 132"),
        ] {
            assert_eq!(Json::object(text).unwrap_err().to_string(), reason, "{text}");
        }
        assert_eq!(
            Json::object_from_bytes(b"{\"a\":\"\xff\"}").unwrap_err().to_string(),
            "not UTF-8 at byte 6"
        );
    }

    #[test]
    fn nesting_is_accepted_up_to_the_limit_and_not_beyond() {
        let nested = |levels: usize| format!("{}1{}", "{\"a\":".repeat(levels), "}".repeat(levels));
        assert!(Json::object(&nested(JSON_DEPTH_MAX)).is_ok());
        assert!(Json::object(&nested(JSON_DEPTH_MAX + 1)).is_err());
    }

    #[test]
    fn a_key_repeated_among_many_is_found() {
        let many: Vec<String> = (0..100).map(|n| format!("\"k{n}\":0")).collect();
        assert!(Json::object(&format!("{{{}}}", many.join(","))).is_ok());
        assert!(Json::object(&format!("{{{},\"k90\":1}}", many.join(","))).is_err());
    }

    #[test]
    fn merging_is_shallow_and_later_keys_win() {
        let older = Json::object(r#"{"a":{"x":1},"b":1}"#).unwrap();
        let newer = Json::object(r#"{"a":{"y":2},"c":3}"#).unwrap();
        assert_eq!(older.merged(&newer).as_str(), r#"{"a":{"y":2},"b":1,"c":3}"#);
        assert_eq!(older.merged(&Json::empty()), older);
        assert_eq!(Json::object(" { }").unwrap().merged(&newer), newer);
    }

    #[test]
    fn what_is_merged_stays_as_it_is_written() {
        let text =
            r#"{"big":12345678901234567890123,"amount":1.10,"e":1E2,"in":{ "prec":0.1234567890123456789 }}"#;
        let older = Json::object(text).unwrap();
        let newer = Json::object(r#"{"\u0062ig":0.10,"y":"\u00e9"}"#).unwrap();
        let expected =
            r#"{"big":0.10,"amount":1.10,"e":1E2,"in":{ "prec":0.1234567890123456789 },"y":"\u00e9"}"#;
        assert_eq!(older.merged(&newer).as_str(), expected);
        let patch = Json::object(r#"{"big": null, "y":1}"#).unwrap();
        assert_eq!(
            older.patched(&patch).as_str(),
            &format!("{{{},\"y\":1}}", text[..text.len() - 1].split_once(',').unwrap().1)
        );
    }

    #[test]
    fn a_patch_replaces_members_and_null_takes_them_out() {
        let data = Json::object(r#"{"a":{"x":1},"b":1,"c":null}"#).unwrap();
        let patched = |patch: &str| data.patched(&Json::object(patch).unwrap()).as_str().to_owned();
        assert_eq!(patched(r#"{"a":{"y":2},"d":3}"#), r#"{"a":{"y":2},"b":1,"c":null,"d":3}"#);
        assert_eq!(patched(r#"{"a":null,"z":null,"c":0}"#), r#"{"b":1,"c":0}"#);
        assert_eq!(patched("{}"), data.as_str());
    }
}
