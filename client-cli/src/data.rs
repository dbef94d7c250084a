//! JSON as given on the command line: JSON itself, `@file`, or `-` for standard input.
//!
//! It promises that what it returns is one JSON object within the size limit, byte for byte as given. Finer rules
//! (depth, double keys) are the orchestrator's to check.

use std::{
    fs::File,
    io::{self, IsTerminal, Read},
    path::Path,
};

use avtomatika_proto::limits::PAYLOAD_BYTES_MAX;
use serde_json::value::RawValue;

use crate::{console::Console, failure::Failure};

/// How an option that takes JSON is used.
fn usage(option: &str) -> String {
    format!(
        "give a JSON object: {option} '{{\"key\": \"value\"}}', {option} @file.json, or {option} - for standard input"
    )
}

/// Reads the argument of `--data`. Errors: [`Failure::Usage`], naming the place of the fault.
pub fn read(argument: &str, console: &mut Console) -> Result<String, Failure> {
    read_for("--data", argument, console)
}

/// Reads the argument of this option. Errors: as [`read`].
pub fn read_for(option: &str, argument: &str, console: &mut Console) -> Result<String, Failure> {
    let (origin, bytes) = if argument == "-" {
        if io::stdin().is_terminal() {
            console.note("Reading JSON from the terminal; end it with Ctrl+D.");
        }
        ("standard input".to_owned(), bounded(io::stdin().lock()))
    } else if let Some(path) = argument.strip_prefix('@') {
        (path.to_owned(), File::open(path).and_then(bounded))
    } else {
        (option.to_owned(), Ok(argument.as_bytes().to_vec()))
    };
    let bytes =
        bytes.map_err(|error| Failure::usage(format!("cannot read {origin}: {error}"), usage(option)))?;
    object(option, &origin, bytes)
}

/// The text of a file, or of standard input for `-`. Errors: [`Failure::Usage`], when it cannot be read or is too large.
pub fn text(path: &Path, bytes_max: usize) -> Result<String, Failure> {
    let shown = path.display();
    let bytes = match path.to_str() {
        Some("-") => up_to(bytes_max, io::stdin().lock()),
        _ => File::open(path).and_then(|file| up_to(bytes_max, file)),
    };
    let hint = "name a readable file of UTF-8 text, or - for standard input";
    let bytes = bytes.map_err(|error| Failure::usage(format!("cannot read {shown}: {error}"), hint))?;
    if bytes.len() > bytes_max {
        return Err(Failure::usage(format!("{shown} holds more than {} KiB", bytes_max / 1024), hint));
    }
    String::from_utf8(bytes).map_err(|_| Failure::usage(format!("{shown} is not UTF-8 text"), hint))
}

/// Everything there is, or one byte more than is allowed.
fn bounded(source: impl Read) -> io::Result<Vec<u8>> {
    up_to(PAYLOAD_BYTES_MAX, source)
}

fn up_to(bytes_max: usize, source: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    source.take(bytes_max as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn object(option: &str, origin: &str, bytes: Vec<u8>) -> Result<String, Failure> {
    if bytes.len() > PAYLOAD_BYTES_MAX {
        return Err(Failure::usage(
            format!("{origin} holds more than {} KiB", PAYLOAD_BYTES_MAX / 1024),
            "put large data elsewhere and submit a reference to it",
        ));
    }
    let text = String::from_utf8(bytes)
        .map_err(|_| Failure::usage(format!("{origin} is not UTF-8 text"), usage(option)))?;
    // Editors on some systems put a byte order mark in front; JSON knows none.
    let text = text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text);
    let value: &RawValue = serde_json::from_str(&text)
        .map_err(|error| Failure::usage(format!("{origin} is not valid JSON: {error}"), usage(option)))?;
    if !value.get().starts_with('{') {
        return Err(Failure::usage(format!("{origin} is JSON, but not an object"), usage(option)));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(bytes: &[u8]) -> String {
        object("--data", "--data", bytes.to_vec()).expect_err("must be refused").to_string()
    }

    #[test]
    fn an_object_is_kept_byte_for_byte() {
        let text = "{ \"big\": 12345678901234567890123, \"b\": 1.0 }\n";
        assert_eq!(object("--data", "--data", text.as_bytes().to_vec()).expect("is an object"), text);
        assert_eq!(object("--data", "f", "\u{feff}{}".as_bytes().to_vec()).expect("is an object"), "{}");
    }

    #[test]
    fn anything_else_is_refused_with_the_place_of_the_fault() {
        assert_eq!(refusal(b"{\"a\": }"), "--data is not valid JSON: expected value at line 1 column 7");
        assert_eq!(refusal(b""), "--data is not valid JSON: EOF while parsing a value at line 1 column 0");
        assert_eq!(refusal(b"[1]"), "--data is JSON, but not an object");
        assert_eq!(refusal(b"{\"a\": \"\xff\"}"), "--data is not UTF-8 text");
        assert_eq!(refusal(&vec![b' '; PAYLOAD_BYTES_MAX + 1]), "--data holds more than 1024 KiB");
    }
}
