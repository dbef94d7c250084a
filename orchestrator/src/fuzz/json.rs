//! The gate through which all JSON from outside comes.

use crate::{blueprint::Datum, json::Json};

const WORDS: [&str; 24] = [
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    "\"",
    "\\",
    "\\u0000",
    "\\ud800",
    "\\udc00",
    "\"a\":1",
    "null",
    "true",
    "-0",
    "1e308",
    "1E-400",
    "18446744073709551616",
    "0.1",
    "{\"a\":",
    "[[[[[[[[",
    "\u{feff}",
    "\u{2028}",
    "\0",
];

/// What is taken is kept as it is and means one thing; what is refused is refused in a sentence.
fn check(bytes: &[u8]) {
    match Json::object_from_bytes(bytes) {
        Ok(json) => {
            assert_eq!(json.as_str().as_bytes(), bytes);
            let map = json.to_map();
            assert_eq!(Datum::read(json.as_str()).unwrap().written(), json.as_str().trim());
            assert_eq!(Json::object(Json::of(&map).as_str()).unwrap().to_map(), map);
            assert_eq!(Json::empty().merged(&json).to_map(), map);
            assert_eq!(json.merged(&json).to_map(), map);
            assert_eq!(json.patched(&Json::empty()).to_map(), map);
        }
        Err(refusal) => {
            let said = refusal.to_string();
            assert!(said.len() < 500 && !said.chars().any(char::is_control), "{said:?}");
        }
    }
    // Two of them, one as a change of the other.
    let Some((old, new)) = bytes.split_once_at(0) else { return };
    if let (Ok(old), Ok(new)) = (Json::object_from_bytes(old), Json::object_from_bytes(new)) {
        for made in [old.merged(&new), old.patched(&new)] {
            assert!(Json::object(made.as_str()).is_ok(), "{}", made.as_str());
        }
    }
}

trait SplitOnce {
    fn split_once_at(&self, byte: u8) -> Option<(&[u8], &[u8])>;
}

impl SplitOnce for [u8] {
    fn split_once_at(&self, byte: u8) -> Option<(&[u8], &[u8])> {
        let at = self.iter().position(|found| *found == byte)?;
        Some((&self[..at], &self[at + 1..]))
    }
}

#[test]
fn fuzz_json() {
    super::fuzz("json", Vec::new(), &WORDS, check);
}
