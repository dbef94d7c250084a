//! `workers.toml`: a table for each worker, or for all whose names match a pattern, with the hashes of their tokens.

use std::path::Path;

use super::{
    Glob, TokenHash, WorkerEntry, WorkerTerms,
    table::{Entry, entries, read},
};
use crate::blueprint::Finding;

/// Entries in one file.
pub const WORKERS_MAX: usize = 10_000;

const KEYS: [&str; 2] = ["token_sha256", "allowed_tasks"];

/// The workers of a file.
///
/// # Errors
/// Everything that is wrong with it.
pub fn workers(path: &Path) -> Result<Vec<WorkerEntry>, Vec<Finding>> {
    let text = read(path, "workers_file").map_err(|finding| vec![finding])?;
    parse(&path.display().to_string(), &text)
}

fn parse(file: &str, text: &str) -> Result<Vec<WorkerEntry>, Vec<Finding>> {
    let limit = (WORKERS_MAX, "let a pattern such as [\"gpu-*\"] stand for many workers");
    entries(file, text, limit, |entry| worker(file, entry))
}

fn worker(file: &str, entry: &mut Entry<'_, '_>) -> Option<WorkerEntry> {
    entry.only(&KEYS);
    let tokens = entry.token_hashes();
    let allowed_tasks = entry.globs("allowed_tasks");
    let place = format!("{file}:{}", entry.line);
    // The Python system marks patterns; here a star is enough.
    let name = entry.name.strip_prefix("pattern:").unwrap_or(&entry.name);
    match Glob::new(name) {
        Ok(names) => {
            // Of the entry and not of the token, so that a worker keeps its session when its token is exchanged.
            let owner = format!("workers.toml\0{names}");
            let credential = Some(TokenHash::of(owner.as_bytes()).to_bytes());
            let terms = WorkerTerms { names, allowed_tasks }.into();
            Some(WorkerEntry { tokens, terms, credential, place })
        }
        Err(invalid) => {
            let line = entry.line;
            entry.wrong(
                line,
                format!("is no worker's name and no pattern: {}", invalid.0),
                "write [name], or [\"prefix-*\"] with * for any letters and ? for any one",
            );
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_for_one_name_or_for_a_pattern() {
        let hash = TokenHash::of(b"t").to_hex();
        let text = format!(
            "[gpu-7]\ntoken_sha256 = \"{hash}\"\nallowed_tasks = [\"render_*\"]\n[\"cpu-*\"]\ntoken_sha256 = \"{hash}\"\n\
             [\"pattern:old-?\"]\ntoken_sha256 = \"{hash}\"\n"
        );
        let workers = parse("workers.toml", &text).unwrap();
        let [cpu, gpu, old] = &workers[..] else { panic!("{workers:?}") };
        assert!(gpu.terms.may_be_called("gpu-7") && !gpu.terms.may_be_called("gpu-70"));
        assert!(gpu.terms.may_serve("render_frame") && !gpu.terms.may_serve("mail"));
        assert!(cpu.terms.may_be_called("cpu-x") && cpu.terms.may_serve("mail"));
        assert!(old.terms.may_be_called("old-1"));
        assert_eq!((cpu.tokens[0].1, &*cpu.place), (5, "workers.toml:4"));
    }

    #[test]
    fn the_example_names_every_key_and_is_accepted() {
        let text = include_str!("../../../examples/workers.toml");
        assert_eq!(parse("workers.toml", text).unwrap().len(), 2);
        for key in KEYS {
            assert!(text.contains(&format!("\n{key} = ")), "examples/workers.toml lacks {key}");
        }
    }

    #[test]
    fn mistakes_have_their_lines() {
        let text = "[\"w[0-9]\"]\ntoken_sha256 = \"00\"\n[w]\ntoken = \"secret\"\nallowed_task = []\n";
        let wrong: Vec<String> =
            parse("workers.toml", text).unwrap_err().iter().map(ToString::to_string).collect();
        let expected = [
            "workers.toml:1:1: error: \"w[0-9]\": is no worker's name and no pattern: '[' is in no name",
            "workers.toml:2:1: error: \"w[0-9]\": token_sha256 holds what is not 64 hexadecimal digits",
            "workers.toml:3:1: error: \"w\": token_sha256 is missing",
            "workers.toml:4:1: error: \"w\": token would hold a token in clear text",
            "workers.toml:5:1: error: \"w\": unknown key \"allowed_task\"; did you mean \"allowed_tasks\"?",
        ];
        assert_eq!(wrong.len(), expected.len(), "{wrong:#?}");
        for (wrong, expected) in wrong.iter().zip(expected) {
            assert!(wrong.starts_with(expected), "{wrong}\nshould begin with\n{expected}");
        }
    }
}
