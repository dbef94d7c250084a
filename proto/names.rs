//! What may be a name: the rules that a worker checks before it asks, and the orchestrator checks whoever asks.

use crate::limits::{NAME_BYTES_MAX, OUTCOME_BYTES_MAX};

/// What the types of tasks begin with that call functions of the orchestrator's own process. No worker may announce one.
pub const CODE_PREFIX: &str = "code:";

/// Whether this may be a worker's id or a task type: 1 to [`NAME_BYTES_MAX`] characters of `[a-zA-Z0-9._:-]`.
pub fn is_name(text: &str) -> bool {
    consists_of(text, b"._:-", NAME_BYTES_MAX)
}

/// Whether this may be an outcome: 1 to [`OUTCOME_BYTES_MAX`] characters of `[a-zA-Z0-9._-]`.
pub fn is_outcome(text: &str) -> bool {
    consists_of(text, b"._-", OUTCOME_BYTES_MAX)
}

fn consists_of(text: &str, marks: &[u8], bytes_max: usize) -> bool {
    (1..=bytes_max).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || marks.contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_outcomes_are_short_and_plain() {
        for (text, name, outcome) in [
            ("resize.2-x_Y", true, true),
            ("images:resize", true, false),
            ("", false, false),
            ("two words", false, false),
            ("straße", false, false),
            ("a/b", false, false),
            ("a\n", false, false),
        ] {
            assert_eq!((is_name(text), is_outcome(text)), (name, outcome), "{text:?}");
        }
        assert!(is_name(&"n".repeat(NAME_BYTES_MAX)) && !is_name(&"n".repeat(NAME_BYTES_MAX + 1)));
        assert!(
            is_outcome(&"o".repeat(OUTCOME_BYTES_MAX)) && !is_outcome(&"o".repeat(OUTCOME_BYTES_MAX + 1))
        );
    }
}
