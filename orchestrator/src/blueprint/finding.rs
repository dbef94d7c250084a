//! What the loader and the lint have to say about a file: where, what, and how to mend it.

use std::fmt;

use crate::spelling::nearest;

/// Whether a finding keeps the blueprint from being loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The blueprint cannot be used.
    Error,
    /// The blueprint can be used, and probably does not mean what its author meant.
    Warning,
}

/// A place in a file: line and column, both counted from 1 and in characters. The default means the file as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position {
    /// Line, from 1; 0 for the file as a whole.
    pub line: usize,
    /// Column, from 1; 0 for the file as a whole.
    pub column: usize,
}

impl Position {
    /// ` (line 7)`, to go behind a name; nothing for what stands in no line.
    pub(super) fn in_brackets(self) -> String {
        if self.line == 0 { String::new() } else { format!(" (line {})", self.line) }
    }
}

/// One thing wrong with a file. Shown as `file:line:column: error: what; cure`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// The name of the file, as the caller gave it.
    pub file: String,
    /// Where in the file.
    pub at: Position,
    /// What is wrong.
    pub what: String,
    /// How to mend it.
    pub cure: String,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
        })
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file)?;
        if self.at.line > 0 {
            write!(f, "{}:{}:", self.at.line, self.at.column)?;
        }
        write!(f, " {}: {}; {}", self.severity, self.what, self.cure)
    }
}

/// The findings on one file, as they are made.
#[derive(Debug)]
pub(super) struct Findings {
    file: String,
    found: Vec<Finding>,
}

impl Findings {
    /// More findings than anybody reads; what comes after them is dropped, so that a hostile file costs little.
    const FOUND_MAX: usize = 200;

    pub(super) fn new(file: &str) -> Self {
        Self { file: file.to_owned(), found: Vec::new() }
    }

    /// What the file is called.
    pub(super) fn file(&self) -> &str {
        &self.file
    }

    pub(super) fn error(&mut self, at: Position, what: impl Into<String>, cure: impl Into<String>) {
        self.add(Severity::Error, at, what.into(), cure.into());
    }

    pub(super) fn warning(&mut self, at: Position, what: impl Into<String>, cure: impl Into<String>) {
        self.add(Severity::Warning, at, what.into(), cure.into());
    }

    fn add(&mut self, severity: Severity, at: Position, what: String, cure: String) {
        if self.found.len() < Self::FOUND_MAX {
            self.found.push(Finding { severity, file: self.file.clone(), at, what, cure });
        }
    }

    pub(super) fn any_error(&self) -> bool {
        self.found.iter().any(|finding| finding.severity == Severity::Error)
    }

    /// The findings in the order of the file.
    pub(super) fn into_sorted(mut self) -> Vec<Finding> {
        self.found.sort_by_key(|finding| finding.at);
        self.found
    }
}

/// The cure for a misspelt name: the nearest one if there is one, else all of them.
pub(super) fn did_you_mean<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str> + Clone) -> String {
    const LISTED_MAX: usize = 12;
    match nearest(name, candidates.clone()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => {
            let names: Vec<String> = candidates.into_iter().map(|name| format!("`{name}`")).collect();
            match names.len().checked_sub(LISTED_MAX) {
                None | Some(0) => format!("known are {}", names.join(", ")),
                Some(more) => format!("known are {} and {more} more", names[..LISTED_MAX].join(", ")),
            }
        }
    }
}

/// Text of a user as it may stand in a message: cut, and without line breaks or other control characters.
pub(super) fn shown(text: &str) -> String {
    const SHOWN_CHARS_MAX: usize = 60;
    let mut shown: String = text.chars().take(SHOWN_CHARS_MAX).flat_map(char::escape_debug).collect();
    if text.chars().nth(SHOWN_CHARS_MAX).is_some() {
        shown.push('…');
    }
    shown.replace("\\\"", "\"").replace("\\'", "'")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_in_messages_is_cut_and_harmless() {
        assert_eq!(shown("a\nb\u{1b}[31m"), "a\\nb\\u{1b}[31m");
        assert_eq!(shown(&"x".repeat(100)).chars().count(), 61);
        assert_eq!(shown("it's \"so\""), "it's \"so\"");
    }
}
