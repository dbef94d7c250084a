//! A blueprint as a picture: its states and transitions in DOT, for graphviz.

use std::fmt::Write as _;

use crate::blueprint::{Blueprint, EndState, State, StateKind};

/// The state graph in DOT.
pub(super) fn dot(blueprint: &Blueprint) -> String {
    let mut dot = format!(
        "digraph {} {{\n  rankdir=LR;\n  node [shape=box, style=rounded];\n  \"\" [shape=point];\n",
        id(&blueprint.name)
    );
    let mut line = |text: std::fmt::Arguments<'_>| {
        writeln!(dot, "  {text};").expect("writing into a String cannot fail");
    };
    line(format_args!("\"\" -> {}", id(&blueprint.start)));
    for state in blueprint.states.values() {
        let (text, shape) = node(state);
        line(format_args!("{} [label={}{shape}]", id(&state.name), id(&text)));
        for (label, target) in edges(state) {
            line(format_args!("{} -> {} [label={}]", id(&state.name), id(target), id(&label)));
        }
    }
    dot.push_str("}\n");
    dot
}

fn node(state: &State) -> (String, &'static str) {
    let name = &state.name;
    match &state.kind {
        StateKind::Task(task) => (format!("{name}\n{}", task.task_type), ""),
        StateKind::Choice(_) => (name.to_string(), ", shape=diamond, style=\"\""),
        StateKind::Pass(_) => (name.to_string(), ""),
        StateKind::End(EndState::Finished) => (name.to_string(), ", peripheries=2"),
        StateKind::End(EndState::Failed) => (name.to_string(), ", peripheries=2, color=red"),
    }
}

fn edges(state: &State) -> Vec<(String, &str)> {
    match &state.kind {
        StateKind::Task(task) => {
            task.on.iter().map(|(outcome, next)| (outcome.to_string(), &**next)).collect()
        }
        StateKind::Choice(choice) => {
            let when = choice.when.iter().map(|(condition, next)| (condition.source().to_owned(), &**next));
            when.chain(choice.otherwise.iter().map(|next| ("else".to_owned(), &**next))).collect()
        }
        StateKind::Pass(pass) => vec![(String::new(), &*pass.next)],
        StateKind::End(_) => Vec::new(),
    }
}

/// A quoted id: DOT knows two escapes, of the quote and of the backslash before it.
fn id(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for letter in text.chars() {
        match letter {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            letter => quoted.push(letter),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blueprint::load;

    #[test]
    fn a_blueprint_is_drawn_with_every_state_and_transition() {
        let text = r#"
blueprint: order
states:
  check:
    start: true
    choice:
      - { when: "initial_data.rush == true", next: ship }
    else: mark
  mark: { pass: { slow: true }, next: ship }
  ship:
    task: { type: ship_order }
    on: { success: done, failure: lost }
  done: { end: finished }
  lost: { end: failed }
"#;
        let blueprint = match load("order.yaml", text) {
            Ok(loaded) => loaded.definition.into_blueprint(1),
            Err(findings) => panic!("{findings:?}"),
        };
        let expected = r#"digraph "order" {
  rankdir=LR;
  node [shape=box, style=rounded];
  "" [shape=point];
  "" -> "check";
  "check" [label="check", shape=diamond, style=""];
  "check" -> "ship" [label="initial_data.rush == true"];
  "check" -> "mark" [label="else"];
  "mark" [label="mark"];
  "mark" -> "ship" [label=""];
  "ship" [label="ship\nship_order"];
  "ship" -> "lost" [label="failure"];
  "ship" -> "done" [label="success"];
  "done" [label="done", peripheries=2];
  "lost" [label="lost", peripheries=2, color=red];
}
"#;
        assert_eq!(dot(&blueprint), expected);
    }

    #[test]
    fn names_are_quoted_so_that_they_stay_names() {
        assert_eq!(id("a \"b\" \\ c\nd"), r#""a \"b\" \\ c\nd""#);
    }
}
