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
            let when = choice.when.iter().enumerate();
            let when = when.map(|(index, (_, next))| (format!("when {}", index + 1), &**next));
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
    use std::{collections::BTreeMap, sync::Arc};

    use super::*;
    use crate::blueprint::{RetryPolicy, TaskState, Template};

    #[test]
    fn a_blueprint_is_drawn_with_every_state_and_transition() {
        let task = StateKind::Task(TaskState {
            task_type: Arc::from("process_data"),
            params: Template::Literal(serde_json::Value::Null),
            timeout: Blueprint::TASK_TIMEOUT_DEFAULT,
            retry: RetryPolicy::default(),
            on: BTreeMap::from([(Arc::from("success"), Arc::from("completed"))]),
        });
        let state = |name: &str, kind| (Arc::from(name), State { name: Arc::from(name), kind });
        let blueprint = Blueprint {
            name: Arc::from("a \"quoted\" name"),
            version: 1,
            endpoint: None,
            start: Arc::from("init"),
            max_transitions: 100,
            states: BTreeMap::from([
                state("init", task),
                state("completed", StateKind::End(EndState::Finished)),
            ]),
            definition: Arc::from("{}"),
        };
        let expected = r#"digraph "a \"quoted\" name" {
  rankdir=LR;
  node [shape=box, style=rounded];
  "" [shape=point];
  "" -> "init";
  "completed" [label="completed", peripheries=2];
  "init" [label="init\nprocess_data"];
  "init" -> "completed" [label="success"];
}
"#;
        assert_eq!(dot(&blueprint), expected);
    }
}
