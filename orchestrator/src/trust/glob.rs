//! Names with `*` for any letters and `?` for any one, as the Python system's patterns have them. A bracket means itself nowhere
//! and is refused: nobody shall believe that it selects.

use std::{fmt, sync::Arc};

/// Length of a pattern.
const GLOB_BYTES_MAX: usize = 128;

/// Stars in a pattern: each may cost a walk through the name.
const STARS_MAX: usize = 8;

/// A pattern for names.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Glob(Arc<str>);

/// What is wrong with a pattern, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidGlob(pub String);

impl Glob {
    /// The pattern that this text is.
    ///
    /// # Errors
    /// It is empty, too long, has too many stars, or has letters that no name has.
    pub fn new(text: &str) -> Result<Self, InvalidGlob> {
        if text.is_empty() || text.len() > GLOB_BYTES_MAX {
            return Err(InvalidGlob(format!("it is not 1 to {GLOB_BYTES_MAX} characters long")));
        }
        let odd = |letter: &char| !letter.is_ascii_alphanumeric() && !"._:-*?".contains(*letter);
        if let Some(letter) = text.chars().find(odd) {
            return Err(InvalidGlob(format!("{letter:?} is in no name")));
        }
        if text.matches('*').count() > STARS_MAX {
            return Err(InvalidGlob(format!("it has more than {STARS_MAX} stars")));
        }
        Ok(Self(Arc::from(text)))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The only name that it stands for, when it is no pattern.
    pub fn literal(&self) -> Option<&Arc<str>> {
        (!self.0.contains(['*', '?'])).then_some(&self.0)
    }

    /// Whether it stands for this name.
    pub fn matches(&self, name: &str) -> bool {
        let (pattern, name) = (self.0.as_bytes(), name.as_bytes());
        let (mut at, mut seen) = (0, 0);
        // Where the last star stands, and how far the name was when it was met.
        let mut star = None;
        while seen < name.len() {
            match pattern.get(at) {
                Some(b'*') => {
                    star = Some((at, seen));
                    at += 1;
                }
                Some(letter) if *letter == b'?' || *letter == name[seen] => {
                    at += 1;
                    seen += 1;
                }
                _ => match star {
                    // The star takes one letter more.
                    Some((star_at, from)) => {
                        star = Some((star_at, from + 1));
                        at = star_at + 1;
                        seen = from + 1;
                    }
                    None => return false,
                },
            }
        }
        pattern[at..].iter().all(|letter| *letter == b'*')
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_any_letters_and_a_question_mark_is_one() {
        for (pattern, name, stands) in [
            ("gpu-*", "gpu-7", true),
            ("gpu-*", "gpu-", true),
            ("gpu-*", "gpu", false),
            ("*", "", true),
            ("*", "anything", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("w?", "w1", true),
            ("w?", "w", false),
            ("w?", "w12", false),
            ("*-prod", "a-prod-prod", true),
            ("a**b", "ab", true),
            ("exact", "exact", true),
            ("exact", "exactly", false),
            ("Exact", "exact", false),
        ] {
            assert_eq!(Glob::new(pattern).unwrap().matches(name), stands, "{pattern} {name}");
        }
        let hostile = Glob::new("*a*a*a*a*a*a*a*b").unwrap();
        assert!(!hostile.matches(&"a".repeat(128)), "and it ends soon");
    }

    #[test]
    fn what_selects_nothing_is_no_pattern() {
        for (text, what) in [
            ("", "it is not 1 to 128"),
            ("gpu-[0-9]", "'[' is in no name"),
            ("a b", "' ' is in no name"),
            ("*********", "it has more than 8 stars"),
        ] {
            assert!(Glob::new(text).unwrap_err().0.starts_with(what), "{text}");
        }
        assert_eq!(Glob::new("w1").unwrap().literal().map(|name| &**name), Some("w1"));
        assert_eq!(Glob::new("w*").unwrap().literal(), None);
    }
}
