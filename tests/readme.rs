//! The documents tell the truth about the repository: what they quote is there word for word, what they link to exists, and
//! the commands that CI takes from the README are where CI looks for them.

// A test that panics has failed, which is what tests are for.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    path::{Path, PathBuf},
};

const README: &str = include_str!("../README.md");

/// The documents with links in them.
fn documents() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let at_root = ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "examples/pipeline/README.md"];
    let mut documents: Vec<PathBuf> = at_root.map(|document| root.join(document)).into();
    for dir in ["docs", "docs/adr"] {
        let files = fs::read_dir(root.join(dir)).unwrap().map(|entry| entry.unwrap().path());
        documents.extend(files.filter(|path| path.extension().is_some_and(|extension| extension == "md")));
    }
    documents
}

/// What stands between `](` and `)`, without those that lead to the web or to a place in the same document.
fn local_links(text: &str) -> impl Iterator<Item = &str> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target);
    targets
        .map(|target| target.split_once('#').map_or(target, |(path, _)| path))
        .filter(|target| !target.is_empty() && !target.contains("://"))
}

#[test]
fn what_the_readme_quotes_is_what_the_examples_say() {
    let quotes = [
        (include_str!("../examples/worker.rs"), "use avtomatika_worker"),
        (include_str!("../examples/blueprints/picture.yaml"), "blueprint: picture"),
        (include_str!("../examples/workers/word_count.sh"), "set -eu"),
    ];
    for (example, from) in quotes {
        let quoted = &example[example.find(from).expect(from)..];
        assert!(README.contains(quoted), "the README quotes another text than that from {from:?} on");
    }
}

/// The lines of a piece of YAML without remarks, blank lines and the indentation that all of them share.
fn bare_lines(yaml: &str) -> Vec<&str> {
    let lines: Vec<&str> = yaml
        .lines()
        .map(str::trim_end)
        .filter(|line| !line.is_empty() && !line.trim_start().starts_with('#'))
        .collect();
    let indent = |line: &str| line.len() - line.trim_start().len();
    let shared = lines.iter().map(|line| indent(line)).min().unwrap_or(0);
    lines.into_iter().map(|line| &line[shared..]).collect()
}

/// Whether these lines follow each other somewhere in the file, be it further to the right.
fn quotes(file: &str, snippet: &[&str]) -> bool {
    let lines: Vec<&str> = bare_lines(file);
    lines.windows(snippet.len()).any(|window| bare_lines(&window.join("\n")) == snippet)
}

#[test]
fn blueprints_in_the_documents_are_those_of_the_examples() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = fs::read_dir(root.join("examples/blueprints")).unwrap().map(|entry| entry.unwrap().path());
    let examples: Vec<String> = files.map(|path| fs::read_to_string(path).unwrap()).collect();
    let page = fs::read_to_string(root.join("docs/blueprints.md")).unwrap();
    let snippets = page.split("```yaml\n").skip(1).map(|rest| rest.split_once("```").unwrap().0);
    // A function is no part of a file that everybody can run.
    let mut quoted = 0;
    for snippet in snippets.filter(|snippet| !snippet.contains("function:")) {
        let snippet = bare_lines(snippet);
        assert!(examples.iter().any(|example| quotes(example, &snippet)), "no example has {snippet:#?}");
        quoted += 1;
    }
    assert!(quoted > 10, "only {quoted} snippets");
}

#[test]
fn the_commands_for_ci_follow_their_markers() {
    for (marker, command) in [
        ("<!-- ci: run -->", "cargo run --release --bin avtomatika -- dev"),
        ("<!-- ci: test -->", "cargo test --workspace"),
    ] {
        let mut after = README.lines().skip_while(|line| *line != marker).skip(1);
        let first = after.find(|line| !line.is_empty());
        assert_eq!(first, Some(&*format!("    {command}")), "after {marker}");
    }
}

#[test]
fn every_link_to_a_file_leads_to_one() {
    let mut links = 0;
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        let dir = document.parent().unwrap();
        for target in local_links(&text) {
            links += 1;
            assert!(dir.join(target).exists(), "{} links to {target}", document.display());
        }
    }
    assert!(links > 30, "only {links} links were found");
}

/// The text of every test.
fn sources(dir: &Path, into: &mut String) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push_str(&fs::read_to_string(&path).unwrap());
        }
    }
}

/// Rows that have no test, because what they are about does not exist.
const WITHOUT_TEST: [&str; 1] = ["B82"];

/// The text of all tests there are.
fn all_tests(root: &Path) -> String {
    let mut tests = String::new();
    for dir in ["orchestrator/src", "orchestrator/tests", "worker/tests", "client-cli/tests", "tests"] {
        sources(&root.join(dir), &mut tests);
    }
    tests
}

#[test]
fn every_test_that_the_page_on_testing_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let tests = all_tests(root);
    let page = fs::read_to_string(root.join("docs/testing.md")).unwrap();
    let is_name = |word: &&str| {
        let is_letter = |letter: u8| letter == b'_' || letter.is_ascii_lowercase() || letter.is_ascii_digit();
        word.matches('_').count() > 3 && word.bytes().all(is_letter)
    };
    let named: Vec<&str> = page.split('`').filter(is_name).collect();
    assert!(named.len() > 30, "only {} tests are named", named.len());
    for test in named {
        assert!(tests.contains(&format!("fn {test}(")), "docs/testing.md names {test}, which is not there");
    }
}

#[test]
fn every_row_of_the_catalogue_of_bad_input_has_its_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let tests = all_tests(root);
    let page = fs::read_to_string(root.join("docs/bad-input.md")).unwrap();
    let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| B")).collect();
    for (number, row) in (1..).zip(&rows) {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let (name, test) = (cells[0], cells[cells.len() - 1].trim_matches(['`', '|', ' ']));
        assert_eq!(name, format!("B{number:02}"), "in their order");
        if !WITHOUT_TEST.contains(&name) {
            assert!(
                tests.contains(&format!("fn {test}(")),
                "{name} names the test {test:?}, which is not there"
            );
        }
    }
    assert_eq!(rows.len(), 87);
}
