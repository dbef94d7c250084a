//! TOML tables whose mistakes have lines: what `clients.toml` and `workers.toml` have in common.

use std::path::Path;

use toml::{
    Spanned,
    de::{DeArray, DeTable, DeValue},
};

use super::{Glob, TokenHash, mistake};
use crate::{
    blueprint::Finding,
    file::{self, Unreadable},
    spelling::did_you_mean,
};

/// Size of a file.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Tokens of one entry at once: the old one, the new one, and some for machines that lag behind.
const TOKENS_MAX: usize = 16;

/// Patterns in one list.
const GLOBS_MAX: usize = 100;

/// The text of a file.
pub(super) fn read(path: &Path, key: &str) -> Result<String, Finding> {
    file::text(path, FILE_BYTES_MAX).map_err(|error| {
        let cure = match error {
            Unreadable::Unusable(_) => format!("check the path of {key}, and the permissions of the file"),
            Unreadable::TooLarge { .. } => {
                "it holds a short table for each entry, and nothing else".to_owned()
            }
        };
        mistake(&path.display().to_string(), 0, error.to_string(), cure)
    })
}

/// What each table of a file is understood to say, or everything that is wrong with it. Beyond `max` tables `cure` helps.
pub(super) fn entries<T>(
    file: &str,
    text: &str,
    (max, cure): (usize, &str),
    mut understand: impl FnMut(&mut Entry<'_, '_>) -> Option<T>,
) -> Result<Vec<T>, Vec<Finding>> {
    // A byte order mark is what some editors leave; it means nothing.
    let source = Source { file, text: text.strip_prefix('\u{feff}').unwrap_or(text) };
    let tables = source.tables()?;
    if tables.len() > max {
        return Err(vec![mistake(
            file,
            0,
            format!("it has {} tables, the limit is {max}", tables.len()),
            cure,
        )]);
    }
    let (mut understood, mut wrong) = (Vec::new(), Vec::new());
    for mut entry in tables {
        understood.extend(understand(&mut entry));
        wrong.append(&mut entry.wrong);
    }
    wrong.sort_by_key(|finding| finding.at);
    if wrong.is_empty() { Ok(understood) } else { Err(wrong) }
}

/// A file as it is read: its name for errors, and its text for lines.
struct Source<'t> {
    file: &'t str,
    text: &'t str,
}

impl<'t> Source<'t> {
    /// The tables of the file by name, each with its line.
    fn tables(&self) -> Result<Vec<Entry<'t, '_>>, Vec<Finding>> {
        let parsed = DeTable::parse(self.text).map_err(|error| {
            let line = self.line(error.span().unwrap_or_default().start);
            // The message of a duplicate names the key, and no message quotes a value.
            vec![self.mistake(line, error.message().trim_end(), "mend the TOML there")]
        })?;
        let (mut entries, mut wrong) = (Vec::new(), Vec::new());
        for (name, value) in parsed.into_inner() {
            let line = self.line(name.span().start);
            let name = name.into_inner().into_owned();
            match value.into_inner() {
                DeValue::Table(table) => {
                    entries.push(Entry {
                        source: self,
                        name,
                        line,
                        keys: Vec::from_iter(table),
                        wrong: Vec::new(),
                    });
                }
                _ => wrong.push(self.mistake(
                    line,
                    format!("{name:?} is not a table"),
                    "write [name], and its keys below",
                )),
            }
        }
        if wrong.is_empty() { Ok(entries) } else { Err(wrong) }
    }

    fn line(&self, at: usize) -> usize {
        self.text[..self.text.floor_char_boundary(at)].matches('\n').count() + 1
    }

    fn mistake(&self, line: usize, what: impl Into<String>, cure: impl Into<String>) -> Finding {
        mistake(self.file, line, what, cure)
    }
}

type Key<'t> = (Spanned<std::borrow::Cow<'t, str>>, Spanned<DeValue<'t>>);

/// One table, as it is taken apart. What is wrong is gathered, so that all of it is told.
pub(super) struct Entry<'t, 's> {
    source: &'s Source<'t>,
    pub name: String,
    pub line: usize,
    keys: Vec<Key<'t>>,
    wrong: Vec<Finding>,
}

impl<'t> Entry<'t, '_> {
    /// Something is wrong with the entry as a whole, or with what stands in this line.
    pub fn wrong(&mut self, line: usize, what: impl Into<String>, cure: impl Into<String>) {
        let what = format!("{:?}: {}", self.name, what.into());
        self.wrong.push(self.source.mistake(line, what, cure));
    }

    /// Refuses keys that are not among these.
    pub fn only(&mut self, known: &[&str]) {
        let named = |(name, _): &Key<'_>| (name.get_ref().to_string(), self.source.line(name.span().start));
        let names: Vec<_> = self.keys.iter().map(named).collect();
        for (name, line) in names {
            match name.as_str() {
                "token" | "tokens" => {
                    self.wrong(line, format!("{name} would hold a token in clear text"), CLEAR_TEXT)
                }
                known_name if known.contains(&known_name) => {}
                _ => {
                    let meant = did_you_mean(&name, known.iter().copied());
                    self.wrong(
                        line,
                        format!("unknown key {name:?}{meant}"),
                        format!("keys: {}", known.join(", ")),
                    );
                }
            }
        }
    }

    fn take(&mut self, key: &str) -> Option<(usize, DeValue<'t>)> {
        let at = self.keys.iter().position(|(name, _)| name.get_ref() == key)?;
        let (name, value) = self.keys.remove(at);
        Some((self.source.line(name.span().start), value.into_inner()))
    }

    /// A value that `read` understands; it says what it expected when it does not.
    pub fn value<T>(
        &mut self,
        key: &str,
        read: impl FnOnce(&DeValue<'t>) -> Option<T>,
        expected: &str,
    ) -> Option<T> {
        let (line, value) = self.take(key)?;
        let read = read(&value);
        if read.is_none() {
            self.wrong(line, format!("{key} is not what it must be"), format!("write {expected}"));
        }
        read
    }

    /// The hashes of `token_sha256`: one, or a list while tokens are exchanged. Each with its line.
    pub fn token_hashes(&mut self) -> Vec<(TokenHash, usize)> {
        let Some((line, value)) = self.take("token_sha256") else {
            self.wrong(self.line, "token_sha256 is missing", NO_HASH);
            return Vec::new();
        };
        let texts: Vec<(Option<String>, usize)> = match value {
            DeValue::String(text) => vec![(Some(text.into_owned()), line)],
            DeValue::Array(items) => self.texts(&items),
            _ => vec![(None, line)],
        };
        if !(1..=TOKENS_MAX).contains(&texts.len()) {
            self.wrong(line, format!("token_sha256 has not 1 to {TOKENS_MAX} hashes"), NO_HASH);
            return Vec::new();
        }
        let mut hashes = Vec::new();
        for (text, line) in texts {
            match text.and_then(|text| TokenHash::from_hex(&text)) {
                Some(hash) => hashes.push((hash, line)),
                // What stands there may be a token: it is not shown.
                None => self.wrong(line, "token_sha256 holds what is not 64 hexadecimal digits", CLEAR_TEXT),
            }
        }
        hashes
    }

    /// A list of patterns.
    pub fn globs(&mut self, key: &str) -> Option<Vec<Glob>> {
        let (line, value) = self.take(key)?;
        let DeValue::Array(items) = value else {
            self.wrong(
                line,
                format!("{key} is not a list"),
                format!("write {key} = [\"name\", \"prefix-*\"]"),
            );
            return None;
        };
        let texts = self.texts(&items);
        if texts.len() > GLOBS_MAX {
            self.wrong(
                line,
                format!("{key} has more than {GLOBS_MAX} patterns"),
                "let a * stand for many names",
            );
        }
        let mut globs = Vec::new();
        for (text, line) in texts {
            match Glob::new(text.as_deref().unwrap_or_default()) {
                Ok(glob) => globs.push(glob),
                Err(invalid) => {
                    let shown = text.unwrap_or_default();
                    let what = format!("{key}: {shown:?} is no pattern: {}", invalid.0);
                    self.wrong(line, what, "write a name, with * for any letters and ? for any one");
                }
            }
        }
        Some(globs)
    }

    fn texts(&self, items: &DeArray<'t>) -> Vec<(Option<String>, usize)> {
        let text = |item: &Spanned<DeValue<'t>>| {
            (item.get_ref().as_str().map(str::to_owned), self.source.line(item.span().start))
        };
        items.iter().map(text).collect()
    }
}

const CLEAR_TEXT: &str =
    "make the token's hash with `avtomatika token hash`, and write it as token_sha256 = \"…\"";

const NO_HASH: &str = "make a token with `avtomatika token new`, which prints the line to paste";

/// A whole number within these bounds.
pub(super) fn whole(value: &DeValue<'_>, min: u64, max: u64) -> Option<u64> {
    let integer = value.as_integer()?;
    let number = u64::from_str_radix(integer.as_str(), integer.radix()).ok()?;
    (min..=max).contains(&number).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn toml_that_is_none_is_told_with_its_line() {
        let wrong = |text| {
            let source = Source { file: "f.toml", text };
            match source.tables() {
                Ok(_) => panic!("accepted {text:?}"),
                Err(findings) => findings.into_iter().map(|finding| finding.to_string()).collect::<Vec<_>>(),
            }
        };
        assert!(
            wrong("[a]\n[a]\n")[0].starts_with("f.toml:2:1: error: duplicate key"),
            "{:?}",
            wrong("[a]\n[a]\n")
        );
        assert!(wrong("\n[a\n")[0].starts_with("f.toml:2:1: error: "));
        assert_eq!(
            wrong("x = 1\n\ny = \"secret\"\n"),
            [
                "f.toml:1:1: error: \"x\" is not a table; write [name], and its keys below",
                "f.toml:3:1: error: \"y\" is not a table; write [name], and its keys below",
            ]
        );
    }
}
