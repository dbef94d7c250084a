//! The blueprint that `bench` measures with, and the data that its jobs carry.
//!
//! It has the shape of the sample `test_workflow`, with as many tasks in a row as asked for: each task gets the job's input.

use std::fmt::Write;

/// Name of the blueprint.
pub const NAME: &str = "bench";

/// Type of its tasks.
pub const TASK_TYPE: &str = "bench";

/// Tasks in a row at most: their cost grows with their number and nothing else would be learned.
pub(super) const TASKS_MAX: u32 = 100;

/// Initial data with an empty input: what the payload's size cannot go below.
pub(super) const INPUT_FRAME: &str = r#"{"input":""}"#;

/// Concurrency keys at most: as many as there are milliseconds in a minute, from which they are made.
pub(super) const KEYS_MAX: u32 = 60_000;

/// The blueprint with so many tasks, as text. With keys, each job takes one of so many from its start to its end, and none waits: what
/// is measured is the keeping of the book.
pub(super) fn text(tasks: u32, keys: u32) -> String {
    let mut text = format!("blueprint: {NAME}\nmax_transitions: {}\n", tasks + 1);
    if keys > 0 {
        let time = "job.created_at.getSeconds() * 1000 + job.created_at.getMilliseconds()";
        // Writing to a String cannot fail.
        let _ =
            writeln!(text, "concurrency: {{ key: \"'key:' + string(({time}) % {keys})\", limit: 1000000 }}");
    }
    text.push_str("states:\n");
    for task in 1..=tasks {
        let start = if task == 1 { "start: true, " } else { "" };
        let next = if task == tasks { "done".to_owned() } else { format!("task_{}", task + 1) };
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "  task_{task}: {{ {start}task: {{ type: {TASK_TYPE}, params: {{ payload: \"${{initial_data.input}}\" }} }}, \
             on: {{ success: {next}, failure: failed }} }}"
        );
    }
    text + "  done: { end: finished }\n  failed: { end: failed }\n"
}

/// Initial data of exactly this many bytes, and never less than [`INPUT_FRAME`] has.
pub(super) fn initial_data(bytes: usize) -> String {
    let input = "x".repeat(bytes.saturating_sub(INPUT_FRAME.len()));
    format!(r#"{{"input":"{input}"}}"#)
}

#[cfg(test)]
mod tests {
    use avtomatika_orchestrator::blueprint::load;

    use super::*;

    #[test]
    fn the_blueprint_is_sound_for_every_number_of_tasks() {
        for tasks in [1, 2, TASKS_MAX] {
            for keys in [0, 1, KEYS_MAX] {
                let loaded = load("bench.yaml", &text(tasks, keys)).unwrap();
                assert_eq!(&**loaded.definition.name(), NAME);
            }
        }
    }

    #[test]
    fn initial_data_has_the_size_that_was_asked_for() {
        for bytes in [12, 13, 100, 5_000] {
            let data = initial_data(bytes);
            assert_eq!(data.len(), bytes);
            assert!(serde_json::from_str::<serde_json::Value>(&data).unwrap()["input"].is_string());
        }
    }
}
