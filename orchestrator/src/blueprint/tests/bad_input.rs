//! The catalogue of bad input, as far as blueprint files are concerned: B66 to B76 of docs/bad-input.md, a row for each. What exactly is
//! said of each mistake stands in the other tests; here is that each is found, where it stands, and at no cost.

use std::{
    os::unix::fs::symlink,
    process::Command,
    time::{Duration, Instant},
};

use super::*;

/// What is found in this text: each with its place, in one go.
fn found(text: &str) -> Vec<String> {
    load("f", text).err().unwrap_or_default().iter().map(ToString::to_string).collect()
}

/// Two good states around these.
fn among(states: &str) -> String {
    format!("blueprint: b\nstates:\n{states}\n  done: {{ end: finished }}\n  failed: {{ end: failed }}\n")
}

fn task(more: &str) -> String {
    among(&format!(
        "  a: {{ start: true, task: {{ type: t, {more} }}, on: {{ success: done, failure: failed }} }}"
    ))
}

fn guard(when: &str) -> String {
    among(&format!("  a: {{ start: true, choice: [ {{ when: \"{when}\", next: done }} ], else: failed }}"))
}

#[test]
fn b66_to_b73_b76_mistakes_are_found_where_they_stand() {
    let (expr, mut missed) = (guard, Vec::new());
    for (number, text, place, words) in [
        ("B66", String::new(), "f:1:1", "the file is empty"),
        ("B66", "# only a remark\n".into(), "f:1:1", "the file is empty"),
        ("B66", "- 1\n".into(), "f:1:1", "must be a map, not a list"),
        ("B66", "blueprint: b\nstates: {}\n".into(), "f:2:1", "has no states"),
        ("B67", "blueprint: [\n".into(), "f:1:12", "not YAML"),
        ("B67", "blueprint: b\n\tstates: {}\n".into(), "f:1:12", "found a tab"),
        ("B67", "a: 1\n b: 2\n".into(), "f:2:3", "not YAML"),
        ("B67", among("  done: { end: failed }"), "f:4:3", "stands twice, first at line 3"),
        ("B67", task("type: u"), "f:3:38", "stands twice"),
        ("B68", among("  a: { start: true, pass: {}, next: dnoe }"), "f:3:37", "did you mean `done`?"),
        ("B69", among("  a: { pass: {}, next: done }"), "f:2:1", "no state is the start"),
        (
            "B69",
            among("  a: { start: true, end: failed }\n  b: { start: true, end: failed }"),
            "f:4:8",
            "second start",
        ),
        (
            "B69",
            among("  a: { start: true, pass: {}, next: done }\n  b: { pass: {}, next: failed }"),
            "f:4:3",
            "no transition leads",
        ),
        (
            "B69",
            "blueprint: b\nstates:\n  a: { start: true, task: { type: t }, on: { success: a } }\n".into(),
            "f:2:1",
            "no state ends the job",
        ),
        (
            "B70",
            among("  a: { start: true, pass: {}, next: b }\n  b: { pass: {}, next: a }"),
            "f:3:3",
            "a→b→a",
        ),
        ("B71", expr("initial_data.x >"), "f:3:56", "expected expression"),
        ("B71", expr("initail_data.x"), "f:3:40", "did you mean `initial_data`?"),
        ("B71", expr("siez(job.id)"), "f:3:40", "did you mean `size`?"),
        ("B71", expr("job.id.matches('(foo')"), "f:3:47", "unclosed group"),
        ("B72", expr(&"(".repeat(200)), "f:3:", ""),
        ("B72", expr(&format!("{}1{}", "[".repeat(5000), "]".repeat(5000))), "f:3:", ""),
        ("B72", expr(&format!("{}true", "!".repeat(5000))), "f:3:", ""),
        ("B72", expr("job.id.matches('(a{1000}){1000}')"), "f:3:", ""),
        ("B73", task("timeout: 0s"), "f:3:", "from 1ms to 8784h"),
        ("B73", task("timeout: -1s"), "f:3:", "from 1ms to 8784h"),
        ("B73", task("timeout: 5x"), "f:3:", "from 1ms to 8784h"),
        ("B73", task("timeout: 5"), "f:3:", "from 1ms to 8784h"),
        ("B73", task("timeout: 99999999999999999999s"), "f:3:", "from 1ms to 8784h"),
        ("B73", task("retry: { max_retries: -1 }"), "f:3:", "from 0 to 1000"),
        ("B73", task("retry: { max_retries: 4294967296 }"), "f:3:", "from 0 to 1000"),
        ("B73", task("retry: { multiplier: .nan }"), "f:3:", "from 1 to 100"),
        ("B73", task("retry: { multiplier: 0.5 }"), "f:3:", "from 1 to 100"),
        (
            "B76",
            format!("include: ../../etc/passwd\n{}", among("  a: { start: true, end: failed }")),
            "f:1:1",
            "unknown key `include`",
        ),
        (
            "B76",
            format!("blueprint: !include /etc/passwd\n{}", among("")),
            "f:1:12",
            "tags are not supported",
        ),
    ] {
        let began = Instant::now();
        let found = found(&text);
        assert!(began.elapsed() < Duration::from_secs(2), "{number}: {:?} for {text:.80}", began.elapsed());
        if !found.iter().any(|finding| finding.starts_with(place) && finding.contains(words)) {
            missed.push(format!("{number} {place} {words}: {found:#?}"));
        }
        assert!(found.iter().all(|finding| finding.len() < 1000), "{number}: {found:?}");
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}

/// What is written cannot say how much work it is: that is bounded when it is evaluated.
#[test]
fn b72_what_is_small_and_works_for_ever_is_stopped() {
    let doubling = format!("[initial_data.text]{}.size() > 0", ".map(x, x + x)".repeat(30));
    let nested = "[1,2,3,4,5,6,7,8,9,10].all(a, [1,2,3,4,5,6,7,8,9,10].all(b, [1,2,3,4,5,6,7,8,9,10].all(c, [1,2,3,4,5,6,7,8,9,10].all(d, [1,2,3,4,5,6,7,8,9,10].all(e, true)))))";
    for text in [doubling.as_str(), nested] {
        let refused = found(&guard(text));
        assert!(
            !refused.is_empty() || crate::blueprint::expr::Expr::compile(text).is_ok(),
            "{text:.80}: {refused:?}"
        );
    }
    // What comes of evaluating them: work_is_bounded_however_little_is_written.
}

#[test]
fn b74_files_that_are_none_or_too_much_are_named_and_nobody_waits() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("bytes.yaml"), b"blueprint: \xff").unwrap();
    fs::create_dir(at("directory.yaml")).unwrap();
    assert!(Command::new("mkfifo").arg(at("fifo.yaml")).status().unwrap().success());
    fs::write(at("huge.yaml"), vec![b'#'; 50 << 20]).unwrap();
    symlink("loop.yaml", at("loop.yaml")).unwrap();
    symlink("nowhere", at("missing.yaml")).unwrap();
    fs::write(
        at("name.yaml"),
        format!("blueprint: {}\nstates: {{ a: {{ start: true, end: failed }} }}\n", "n".repeat(10_000)),
    )
    .unwrap();
    let states: String = (0..100_000).map(|n| format!("  s{n}: {{}}\n")).collect();
    fs::write(at("states.yaml"), format!("blueprint: b\nstates:\n{states}")).unwrap();
    let began = Instant::now();
    let found: Vec<String> = load_dir(dir.path()).unwrap_err().iter().map(ToString::to_string).collect();
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    for (file, words) in [
        ("bytes.yaml", "not UTF-8 at byte 11"),
        ("directory.yaml", "it is no regular file"),
        ("fifo.yaml", "it is no regular file"),
        ("huge.yaml", "at most 1048576 are allowed"),
        ("loop.yaml", "cannot be read"),
        ("missing.yaml", "cannot be read"),
        ("name.yaml", "use 1 to 128 characters"),
        ("states.yaml", "at most"),
    ] {
        let is_it = |finding: &&String| finding.contains(&format!("/{file}")) && finding.contains(words);
        assert!(found.iter().any(|finding| is_it(&finding)), "B74 {file}: {found:#?}");
    }
    assert!(found.iter().all(|finding| finding.len() < 1000), "{found:#?}");
}

#[test]
fn b75_one_name_has_one_definition_in_a_directory_and_versions_by_what_they_say() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a.yaml"), SEED).unwrap();
    fs::write(dir.path().join("b.yaml"), SEED.replace("/jobs/test", "/jobs/other")).unwrap();
    let found = load_dir(dir.path()).unwrap_err();
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].to_string().contains("is defined already at"), "{}", found[0]);
    // Another content under the same name is another version: spelling_makes_no_new_version_and_meaning_does.
}
