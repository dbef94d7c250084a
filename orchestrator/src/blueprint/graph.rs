//! A blueprint as a picture: text in the DOT language, for Graphviz and everything that reads it.
//!
//! The same blueprint always gives the same text: states in the order of the definition, outcomes by name.

use std::fmt::Write as _;

use super::{Blueprint, End, EndState, State, StateKind, Transitions};

/// Longest condition on an edge; a longer one is cut, the picture is not the place to read it.
const LABEL_CHARS_MAX: usize = 60;

impl Blueprint {
    /// The blueprint as a DOT digraph: tasks are boxes, choices diamonds, pass states rounded boxes, ends doubly outlined
    /// ellipses; an arrow from a point leads to the start.
    pub fn to_dot(&self) -> String {
        let mut dot = format!("digraph {} {{\n  rankdir=LR;\n", quoted(&self.name));
        // No state can have this name, for its brackets.
        let _ = writeln!(dot, "  \"(start)\" [shape=point];");
        for state in self.states.values() {
            let _ = writeln!(dot, "  {} {};", quoted(&state.name), attributes(state));
        }
        let _ = writeln!(dot, "  \"(start)\" -> {};", quoted(&self.start));
        for state in self.states.values() {
            for (label, to) in edges(state) {
                let (from, to) = (quoted(&state.name), quoted(to));
                let _ = match label {
                    Some(label) => writeln!(dot, "  {from} -> {to} [label={}];", quoted(&cut(label))),
                    None => writeln!(dot, "  {from} -> {to};"),
                };
            }
        }
        dot.push_str("}\n");
        dot
    }
}

fn attributes(state: &State) -> String {
    match &state.kind {
        StateKind::Task(task) => {
            format!("[shape=box, label={}]", quoted(&format!("{}\n{}", state.name, task.work.task_type)))
        }
        StateKind::Choice(_) => "[shape=diamond]".to_owned(),
        StateKind::Pass(_) => "[shape=box, style=rounded]".to_owned(),
        StateKind::Wait(_) | StateKind::Event(_) => "[shape=box, style=\"rounded,dashed\"]".to_owned(),
        StateKind::Approval(_) => "[shape=house]".to_owned(),
        StateKind::Run(run) => {
            let label = quoted(&format!("{}\nrun {}", state.name, run.work.blueprint));
            format!("[shape=box, peripheries=2, label={label}]")
        }
        StateKind::Map(_) => "[shape=box3d]".to_owned(),
        StateKind::End(EndState { end: End::Finished, .. }) => "[shape=ellipse, peripheries=2]".to_owned(),
        StateKind::End(EndState { end: End::Failed, .. }) => {
            "[shape=ellipse, peripheries=2, style=dashed]".to_owned()
        }
    }
}

fn named(on: &Transitions) -> impl Iterator<Item = (Option<&str>, &str)> {
    on.iter().map(|(outcome, to)| (Some(&**outcome), &**to))
}

/// The ways out of a state, with what selects them.
fn edges(state: &State) -> Vec<(Option<&str>, &str)> {
    match &state.kind {
        StateKind::Task(task) => named(&task.on).chain(named(&task.catch)).collect(),
        StateKind::Event(event) => named(&event.on).collect(),
        StateKind::Approval(approval) => named(&approval.on).collect(),
        StateKind::Run(run) => named(&run.on).collect(),
        StateKind::Map(map) => named(&map.on).collect(),
        StateKind::Wait(wait) => vec![(None, &*wait.next)],
        StateKind::Choice(choice) => {
            let when = choice.when.iter().map(|(when, to)| (Some(when.source()), &**to));
            when.chain(choice.otherwise.iter().map(|to| (Some("else"), &**to))).collect()
        }
        StateKind::Pass(pass) => vec![(None, &*pass.next)],
        StateKind::End(_) => Vec::new(),
    }
}

fn cut(label: &str) -> String {
    let mut cut: String = label.chars().take(LABEL_CHARS_MAX).collect();
    if cut.len() < label.len() {
        cut.push('…');
    }
    cut
}

/// A string of the DOT language.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            c if c.is_control() => quoted.push(' '),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use crate::blueprint::load;

    #[test]
    fn a_blueprint_is_drawn_in_the_order_of_its_definition() {
        let text = r#"
            blueprint: drawn
            states:
              zeta:
                start: true
                task: { type: work }
                on: { success: decide, failure: failed, odd: note }
              decide:
                choice:
                  - { when: 'state_history.path == "a\\b"', next: note }
                  - { when: "state_history.a + state_history.b + state_history.c + state_history.d > 1000", next: done }
                else: failed
              note: { pass: { noted: true }, next: done }
              done: { end: finished }
              failed: { end: failed }
        "#;
        insta::assert_snapshot!(load("drawn", text).unwrap().definition.into_blueprint(1).to_dot(), @r#"
        digraph "drawn" {
          rankdir=LR;
          "(start)" [shape=point];
          "zeta" [shape=box, label="zeta\nwork"];
          "decide" [shape=diamond];
          "note" [shape=box, style=rounded];
          "done" [shape=ellipse, peripheries=2];
          "failed" [shape=ellipse, peripheries=2, style=dashed];
          "(start)" -> "zeta";
          "zeta" -> "failed" [label="failure"];
          "zeta" -> "note" [label="odd"];
          "zeta" -> "decide" [label="success"];
          "decide" -> "note" [label="state_history.path == \"a\\\\b\""];
          "decide" -> "done" [label="state_history.a + state_history.b + state_history.c + state_…"];
          "decide" -> "failed" [label="else"];
          "note" -> "done";
        }
        "#);
    }
}
