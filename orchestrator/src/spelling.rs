//! The name that was probably meant: for errors that tell people how to mend a typo.

use avtomatika_proto::limits::NAME_BYTES_MAX;

/// The candidate nearest to `name`, if it is near enough to have been meant: at most a third of its letters differ, and one in a
/// name of up to four. Case does not count.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // A longer name is no slip of the pen, and comparing it is the only costly part.
    if name.len() > 2 * NAME_BYTES_MAX {
        return None;
    }
    candidates
        .into_iter()
        .map(|candidate| (edits(name, candidate), candidate))
        .filter(|(edits, candidate)| *edits <= slips(candidate.chars().count()))
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, candidate)| candidate)
}

/// How many slips of the pen a name of so many letters may have had.
fn slips(letters: usize) -> usize {
    if letters <= 4 { 1 } else { letters.div_ceil(3) }
}

/// `; did you mean "name"?`, or nothing.
pub fn did_you_mean<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    nearest(name, candidates).map(|name| format!("; did you mean {name:?}?")).unwrap_or_default()
}

/// Insertions, deletions, substitutions and swaps of neighbours that make `a` into `b`, ignoring case.
fn edits(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().flat_map(char::to_lowercase).collect();
    let b: Vec<char> = b.chars().flat_map(char::to_lowercase).collect();
    let mut before: Vec<usize> = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let substituted = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = substituted.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typo_finds_its_name_and_a_different_word_finds_none() {
        let names = ["priority", "labels", "listen", "init", "completed", "failed"];
        for (typed, meant) in [
            ("pririty", Some("priority")),
            ("Priority", Some("priority")),
            ("lables", Some("labels")),
            ("listne", Some("listen")),
            ("compelted", Some("completed")),
            ("Completed", Some("completed")),
            ("complete", Some("completed")),
            ("intit", Some("init")),
            ("fialed", Some("failed")),
            ("quite_another", None),
            ("webhook", None),
            ("exit", None),
            ("", None),
        ] {
            assert_eq!(nearest(typed, names), meant, "{typed}");
        }
        assert_eq!(nearest(&"p".repeat(100_000), names), None);
        assert_eq!(did_you_mean("labelz", names), "; did you mean \"labels\"?");
        assert_eq!(did_you_mean("other", names), "");
    }
}
