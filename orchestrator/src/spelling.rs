//! The name that was probably meant: for errors that tell people how to mend a typo.

/// The candidate nearest to `word`, when it is near enough to have been meant: at most a third of the letters differ.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Longer words cost quadratic time and are no typo of any name here.
    if word.len() > 64 {
        return None;
    }
    let word: Vec<char> = word.to_lowercase().chars().collect();
    let tolerated = (word.len() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (edits(&word, candidate), candidate))
        .filter(|(edits, _)| *edits <= tolerated)
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, candidate)| candidate)
}

/// `; did you mean "name"?`, or nothing.
pub fn did_you_mean<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    nearest(word, candidates).map(|name| format!("; did you mean {name:?}?")).unwrap_or_default()
}

/// Letters to insert, delete, replace or swap with their neighbour to make one of the other.
fn edits(word: &[char], candidate: &str) -> usize {
    let candidate: Vec<char> = candidate.chars().collect();
    let mut before_last = Vec::new();
    let mut last: Vec<usize> = (0..=candidate.len()).collect();
    for (i, letter) in word.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, other) in candidate.iter().enumerate() {
            let replaced = last[j] + usize::from(letter != other);
            let mut cost = replaced.min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *letter == candidate[j - 1] && word[i - 1] == *other {
                let before: &Vec<usize> = &before_last;
                cost = cost.min(before[j - 1] + 1);
            }
            row.push(cost);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[candidate.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typo_finds_its_name_and_a_different_word_finds_none() {
        let names = ["priority", "labels", "listen"];
        for (typo, meant) in [
            ("pririty", Some("priority")),
            ("Priority", Some("priority")),
            ("lables", Some("labels")),
            ("listne", Some("listen")),
            ("webhook", None),
            ("", None),
        ] {
            assert_eq!(nearest(typo, names), meant, "{typo}");
        }
        assert_eq!(nearest(&"p".repeat(100_000), names), None);
        assert_eq!(did_you_mean("labelz", names), "; did you mean \"labels\"?");
        assert_eq!(did_you_mean("other", names), "");
    }
}
