//! Making text from outside safe to show: a job's data or a worker's message must not move the cursor, set the title or
//! write lines of its own.

use std::borrow::Cow;

/// The text as one line: line breaks and tabs become a space, other control characters and those that reorder text are
/// left out.
pub fn clean(text: &str) -> Cow<'_, str> {
    if !text.chars().any(|c| is_space(c) || is_unsafe(c)) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(
        text.chars()
            .filter(|&c| !is_unsafe(c))
            .map(|c| if is_space(c) { ' ' } else { c })
            .collect::<String>(),
    )
}

/// The text with its lines, without everything else that [`clean`] leaves out.
pub fn clean_lines(text: &str) -> String {
    text.lines().map(|line| clean(line) + "\n").collect()
}

/// So many of something, with the words for one and for any other number.
pub fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

fn is_space(c: char) -> bool {
    matches!(c, '\n' | '\r' | '\t' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

fn is_unsafe(c: char) -> bool {
    (c.is_control() && !is_space(c)) || is_reordering(c)
}

/// Marks that make a terminal show characters in another order than they stand.
pub(super) fn is_reordering(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{061c}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_of_any_language_stays() {
        for text in ["", "process_data", "données ✓ 数据 данные"] {
            assert_eq!(clean(text), text);
        }
    }

    #[test]
    fn text_cannot_command_the_terminal() {
        assert_eq!(clean("a\u{1b}[31mred\u{1b}]0;title\u{7}"), "a[31mred]0;title");
        assert_eq!(clean("c1 \u{9b}2J del \u{7f}."), "c1 2J del .");
        assert_eq!(clean("abc\u{202e}fed"), "abcfed");
        assert_eq!(clean("one\ntwo\r\n\tthree"), "one two   three");
        assert_eq!(clean_lines("digraph {\n\u{1b}c}"), "digraph {\nc}\n");
    }
}
