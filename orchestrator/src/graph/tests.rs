//! What graphs look like as text, that nothing in them is more than text, and that they take a bounded time.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use avtomatika_proto::JobId;

use super::{Format, Trail, render};
use crate::{
    blueprint::{Blueprint, Edge, Graph, Node, Shape, load},
    engine::{HistoryEntry, HistoryEvent, Job, JobError, JobStatus, Submission},
    json::Json,
    time::Timestamp,
};

/// A state of every kind, a way back, a way from a state to itself, and a condition that would be markup if it could.
const KINDS: &str = r#"
blueprint: kinds
states:
  fetch:
    start: true
    task: { type: fetch }
    catch: { NOT_THERE: wait_a_bit }
    on: { success: decide, failure: failed, again: fetch }
  wait_a_bit: { wait: 10m, next: fetch }
  decide:
    choice:
      - { when: 'state_history.path == "]]><a b=''&amp;''></text><script>"', next: note }
      - { when: "size(state_history.pages) > 1", next: pages }
    else: invoice
  pages:
    map: { over: "state_history.pages", task: { type: ocr } }
    on: { success: review, failure: failed }
  invoice:
    run: { blueprint: invoicing }
    on: { success: review, failure: failed }
  review:
    approval: { message: "Publish?" }
    on: { approved: paid, rejected: decide }
  paid:
    event: { name: paid, deadline: 7d }
    on: { received: note, timeout: failed }
  note: { pass: { noted: true }, next: done }
  done: { end: finished }
  failed: { end: failed }
"#;

fn blueprint(text: &str) -> Blueprint {
    match load("test.yaml", text) {
        Ok(loaded) => loaded.definition.into_blueprint(1),
        Err(findings) => panic!("{findings:?}"),
    }
}

fn entry(event: HistoryEvent, state: &str) -> HistoryEntry {
    HistoryEntry {
        sequence: 0,
        at: Timestamp::default(),
        event,
        state: Arc::from(state),
        from_state: None,
        outcome: None,
        task_id: None,
        attempt: None,
        worker_id: None,
        error: None,
        duration: None,
        by: None,
        detail: None,
    }
}

fn moved(from: &str, outcome: &str, to: &str) -> HistoryEntry {
    let outcome = (!outcome.is_empty()).then(|| Arc::from(outcome));
    HistoryEntry { from_state: Some(Arc::from(from)), outcome, ..entry(HistoryEvent::StateEntered, to) }
}

fn failed(state: &str, code: &str) -> HistoryEntry {
    let error = Some(JobError { code: Arc::from(code), message: Arc::from("no") });
    HistoryEntry { error, ..entry(HistoryEvent::TaskFailed, state) }
}

fn job(blueprint: &Blueprint, state: &str) -> Job {
    let id = JobId::compose(1_769_860_800_000, 0, 7);
    let submission = Arc::new(Submission::of(Json::empty()));
    let mut job = Job::accepted(id, Arc::from("acme"), blueprint, submission, Timestamp::default());
    job.state = Arc::from(state);
    job
}

/// A job that was caught by a code, went round, fell, was started again by a human, and waits for another.
fn travelled(format: Format) -> String {
    let blueprint = blueprint(KINDS);
    let mut trail = Trail::over(blueprint.graph());
    for entry in [
        entry(HistoryEvent::StateEntered, "fetch"),
        failed("fetch", "NOT_THERE"),
        moved("fetch", "failure", "wait_a_bit"),
        moved("wait_a_bit", "", "fetch"),
        moved("fetch", "again", "fetch"),
        failed("fetch", "PERMANENT_ERROR"),
        moved("fetch", "timeout", "failed"),
        entry(HistoryEvent::JobRetried, "failed"),
        moved("failed", "", "fetch"),
        moved("fetch", "success", "decide"),
        moved("decide", "", "invoice"),
        moved("invoice", "success", "review"),
        moved("review", "rejected", "decide"),
        moved("decide", "", "invoice"),
        moved("invoice", "success", "review"),
    ] {
        trail.follow(&entry);
    }
    render(&trail.end(&job(&blueprint, "review"), JobStatus::WaitingForHuman), format)
}

#[test]
fn a_job_leaves_its_path() {
    insta::assert_snapshot!("travelled_dot", travelled(Format::Dot));
    insta::assert_snapshot!("travelled_mermaid", travelled(Format::Mermaid));
    insta::assert_snapshot!("travelled_svg", travelled(Format::Svg));
}

#[test]
fn a_state_that_this_version_lacks_is_shown_as_gone() {
    let blueprint = blueprint(KINDS);
    let mut trail = Trail::over(blueprint.graph());
    trail.follow(&entry(HistoryEvent::StateEntered, "before"));
    trail.follow(&entry(HistoryEvent::JobMigrated, "before"));
    trail.follow(&moved("before", "", "note"));
    let graph = trail.end(&job(&blueprint, "note"), JobStatus::Failed);
    let dot = render(&graph, Format::Dot);
    assert!(dot.contains("\"before\" [shape=box, style=\"dotted,bold\"]"), "{dot}");
    assert!(dot.contains("\"before\" -> \"note\" [label=\"migrated #1\", style=\"dashed,bold\"]"), "{dot}");
    assert!(dot.contains("fillcolor=lightpink"), "{dot}");
}

/// The texts of a picture, which is sound XML and has nothing in it that a browser would do.
fn texts_of(svg: &str) -> Vec<String> {
    let document = roxmltree::Document::parse(svg).unwrap_or_else(|error| panic!("{error}: {svg}"));
    for element in document.descendants().filter(roxmltree::Node::is_element) {
        let name = element.tag_name().name();
        let known =
            ["svg", "title", "style", "defs", "marker", "path", "rect", "g", "text", "circle", "polygon"];
        assert!(known.contains(&name), "{name}");
        for attribute in element.attributes() {
            let (name, value) = (attribute.name(), attribute.value());
            let is_link = name.starts_with("on") || name.contains("href");
            assert!(!is_link && (!value.contains("url(") || name == "marker-end"), "{name}={value}");
        }
    }
    let texts = document.descendants().filter(|node| node.tag_name().name() == "text");
    texts.map(|text| text.text().unwrap_or_default().to_owned()).collect()
}

#[test]
fn whatever_a_condition_says_is_text() {
    let svg = travelled(Format::Svg);
    let condition = "state_history.path == \"]]><a b='&amp;'></text><script>\"";
    assert!(texts_of(&svg).iter().any(|text| text == condition), "{svg}");
    let mut graph = blueprint(KINDS).graph();
    let nasty =
        "\"]; s1[\"x\"]\n<img src=x onerror=alert(1)> \\N \\\" #quot; %% `${x}` \u{1b}[2J\u{0}\u{ffff}";
    graph.name = nasty.to_owned();
    graph.caption = Some(nasty.to_owned());
    graph.nodes[0].name = nasty.to_owned();
    graph.edges[0].label = Some(nasty.to_owned());
    let svg = render(&graph, Format::Svg);
    assert!(texts_of(&svg).iter().filter(|text| text.contains("<img src=x onerror=alert(1)>")).count() >= 3);
    let mermaid = render(&graph, Format::Mermaid);
    for line in mermaid.lines().filter(|line| !line.starts_with("title: ")) {
        assert!(
            line.matches('"').count() % 2 == 0 && !line.contains("<img") && !line.contains('`'),
            "{line}"
        );
    }
    let title = mermaid.lines().find_map(|line| line.strip_prefix("title: ")).unwrap();
    let title: String = serde_json::from_str(title).unwrap();
    assert!(title.contains("<img"));
    let dot = render(&graph, Format::Dot);
    for line in dot.lines() {
        // Outside of strings there is nothing but what was written here.
        let mut inside = false;
        let mut escaped = false;
        let mut outside = String::new();
        for c in line.chars() {
            match (inside, c) {
                (true, '"') if !escaped => inside = false,
                (false, '"') => inside = true,
                (false, c) => outside.push(c),
                _ => {}
            }
            escaped = inside && c == '\\' && !escaped;
        }
        assert!(!inside && !outside.contains("img") && !outside.contains("s1"), "{line}");
    }
    for text in [svg, mermaid, dot] {
        assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
    }
}

/// A thousand states with these ways between them.
fn thousand(ways: impl Iterator<Item = (usize, usize, String)>) -> Graph {
    let node = |number| Node {
        name: format!("s{number}"),
        note: Some("work".to_owned()),
        shape: Shape::Task,
        visits: 0,
        stands: None,
    };
    let edge = |(from, to, label)| Edge { from, to, label: Some(label), jump: false, moves: Vec::new() };
    Graph {
        name: "thousand".to_owned(),
        nodes: (0..1000).map(node).collect(),
        edges: ways.map(edge).collect(),
        start: 0,
        caption: None,
    }
}

/// Each leads to the next and, when it fails, to the same end.
fn chain() -> Graph {
    let ways = |from| [(from, from + 1, "success".to_owned()), (from, 999, "failure".to_owned())];
    thousand((0..997).flat_map(ways))
}

/// Each leads to eight others here and there.
fn tangle() -> Graph {
    let ways = |from| (0..8).map(move |step| (from, (from * 31 + step * 137) % 1000, format!("way {step}")));
    thousand((0..1000).flat_map(ways))
}

#[test]
fn a_thousand_states_are_drawn_or_listed_in_a_bounded_time() {
    // All failures of the chain end in one arrow, but for the last, which is next to it.
    for (graph, lines, arrows) in [(chain(), 997 * 2, 997 + 2), (tangle(), 0, 0)] {
        let begun = Instant::now();
        let svg = render(&graph, Format::Svg);
        // Far beyond what it takes, without optimisation and on a busy machine.
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
        let count = |text| svg.matches(text).count();
        assert_eq!((count("<path class=\"line"), count("marker-end")), (lines, arrows));
        assert!(svg.len() < 2_000_000, "{} bytes", svg.len());
        let texts = texts_of(&svg);
        assert!(texts.iter().any(|text| text == "s500"));
        for format in [Format::Dot, Format::Mermaid] {
            assert!(render(&graph, format).lines().count() > 2000);
        }
    }
}
