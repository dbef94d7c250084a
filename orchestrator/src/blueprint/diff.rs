//! What differs between two versions of a blueprint, and what that means for jobs that are on their way by the older one.
//!
//! The differences are those of the canonical forms, so that remarks and spacing make none. What they mean follows from the rules of
//! a migration: see `engine/migrate.rs`.

use std::sync::Arc;

use serde_json::Value;

use super::{Blueprint, State, StateKind};

/// The differences between two versions.
#[derive(Debug, Clone, PartialEq)]
pub struct Diff {
    /// Where the two say something different, in the order of the older one.
    pub differences: Vec<Difference>,
    /// States of the older one in which a job may stand that could not simply go on in the newer one.
    pub concerns: Vec<Concern>,
}

/// One place at which two versions differ.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    /// The keys that lead there, such as `states.init.task.timeout`.
    pub path: String,
    /// What the older one says; `None` when it says nothing.
    pub before: Option<Value>,
    /// What the newer one says.
    pub after: Option<Value>,
}

/// A state whose jobs are concerned by the change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Concern {
    /// The state.
    pub state: Arc<str>,
    /// What a migration means for the jobs that stand there.
    pub fate: Fate,
}

/// What a migration means for the jobs of a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// The newer version has no such state: they stay, unless somebody says where they are to stand.
    Stay,
    /// The newer version does something else there: they enter it anew, and what they waited for is given up.
    EnterAnew,
    /// They wait for children: they stay until those have ended.
    WaitForChildren,
}

impl Fate {
    /// Its name on every surface.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stay => "stay",
            Self::EnterAnew => "enter_anew",
            Self::WaitForChildren => "wait_for_children",
        }
    }
}

impl Diff {
    /// The differences from `old` to `new`.
    pub fn between(old: &Blueprint, new: &Blueprint) -> Self {
        let (older, newer) = (tree(old), tree(new));
        let mut differences = Vec::new();
        compare("", &older, &newer, &mut differences);
        if differences.is_empty() && old.definition != new.definition {
            let order = |blueprint: &Blueprint| {
                Some(Value::from(blueprint.states.keys().map(|name| &**name).collect::<Vec<_>>()))
            };
            let path = "states".to_owned();
            differences.push(Difference { path, before: order(old), after: order(new) });
        }
        let concern = |(name, state): (&Arc<str>, &State)| {
            let texts = [&older, &newer].map(|tree| &tree["states"][&**name]);
            let fate = fate(&state.kind, new.state(name).map(|state| &state.kind), texts)?;
            Some(Concern { state: name.clone(), fate })
        };
        Self { differences, concerns: old.states.iter().filter_map(concern).collect() }
    }

    /// Whether every job can move, wherever it stands, without a word about where to.
    pub fn is_compatible(&self) -> bool {
        self.concerns.iter().all(|concern| concern.fate != Fate::Stay)
    }
}

fn compare(path: &str, old: &Value, new: &Value, differences: &mut Vec<Difference>) {
    let within = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    match (old, new) {
        _ if old == new => {}
        (Value::Object(old), Value::Object(new)) => {
            for (key, before) in old {
                match new.get(key) {
                    Some(after) => compare(&within(key), before, after, differences),
                    None => differences.push(Difference {
                        path: within(key),
                        before: Some(before.clone()),
                        after: None,
                    }),
                }
            }
            let added = new.iter().filter(|(key, _)| !old.contains_key(*key));
            differences.extend(added.map(|(key, after)| Difference {
                path: within(key),
                before: None,
                after: Some(after.clone()),
            }));
        }
        (Value::Array(old), Value::Array(new)) => {
            for index in 0..old.len().max(new.len()) {
                let path = format!("{path}[{index}]");
                match (old.get(index), new.get(index)) {
                    (Some(before), Some(after)) => compare(&path, before, after, differences),
                    (before, after) => {
                        differences.push(Difference { path, before: before.cloned(), after: after.cloned() })
                    }
                }
            }
        }
        _ => differences.push(Difference {
            path: path.to_owned(),
            before: Some(old.clone()),
            after: Some(new.clone()),
        }),
    }
}

/// What a migration means for jobs that stand in a state of the older version; `None` when they go on as they would have, or when no
/// job ever stands there. `texts` are the two states as the canonical forms have them.
fn fate(old: &StateKind, new: Option<&StateKind>, texts: [&Value; 2]) -> Option<Fate> {
    let has_children = match old {
        // A job passes through these without ever waiting there.
        StateKind::Choice(_) | StateKind::Pass(_) | StateKind::End(_) => return None,
        StateKind::Run(run) if !run.waits => return None,
        StateKind::Run(_) | StateKind::Map(_) => true,
        _ => false,
    };
    let Some(new) = new else { return Some(Fate::Stay) };
    if has_children {
        return Some(Fate::WaitForChildren);
    }
    let same = |kind: &str, key: &str| texts[0][kind][key] == texts[1][kind][key];
    let goes_on = match (old, new) {
        (StateKind::Task(old), StateKind::Task(new)) => old.work.task_type == new.work.task_type,
        (StateKind::Wait(_), StateKind::Wait(_)) => true,
        (StateKind::Event(_), StateKind::Event(_)) => same("event", "name"),
        (StateKind::Approval(_), StateKind::Approval(_)) => same("approval", "message"),
        _ => false,
    };
    (!goes_on).then_some(Fate::EnterAnew)
}

/// The canonical form, which is JSON by its very making.
fn tree(blueprint: &Blueprint) -> Value {
    serde_json::from_str(&blueprint.definition).unwrap_or(Value::Null)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blueprint::load;

    fn blueprint(states: &str) -> Blueprint {
        let text = format!("blueprint: b\nstates:\n{states}");
        load("test.yaml", &text)
            .unwrap_or_else(|findings| panic!("{findings:?}"))
            .definition
            .into_blueprint(1)
    }

    fn told(old: &str, new: &str) -> (Vec<String>, Vec<String>) {
        let diff = Diff::between(&blueprint(old), &blueprint(new));
        let side = |value: &Option<Value>| value.as_ref().map_or("-".to_owned(), Value::to_string);
        let difference =
            |one: &Difference| format!("{}: {} > {}", one.path, side(&one.before), side(&one.after));
        let concern = |one: &Concern| format!("{} {}", one.state, one.fate.as_str());
        (diff.differences.iter().map(difference).collect(), diff.concerns.iter().map(concern).collect())
    }

    const TASK: &str = "  it: { start: true, task: { type: work, timeout: 1m }, on: { success: done } }\n  done: { end: finished }\n";

    #[test]
    fn what_means_the_same_is_no_difference() {
        let spelled = "  it:\n    start: true\n    task: { timeout: 60s, type: work }   # the same\n    on: { success: done }\n  done: { end: finished }\n";
        assert_eq!(told(TASK, spelled), (vec![], vec![]));
    }

    #[test]
    fn a_difference_is_told_by_the_keys_that_lead_there() {
        let newer = TASK.replace("1m", "2m").replace("success: done", "success: done, failure: done");
        let (mut differences, concerns) = told(TASK, &newer);
        differences.sort();
        assert_eq!(
            differences,
            ["states.it.on.failure: - > \"done\"", "states.it.task.timeout: \"60s\" > \"120s\""]
        );
        assert_eq!(concerns, [""; 0]);
        let (differences, _) = told(
            TASK,
            "  done: { end: finished }\n  it: { start: true, task: { type: work, timeout: 1m }, on: { success: done } }\n",
        );
        assert_eq!(differences, [r#"states: ["it","done"] > ["done","it"]"#]);
    }

    #[test]
    fn jobs_of_a_state_that_is_gone_stay_and_jobs_of_one_that_does_something_else_enter_it_anew() {
        for (new, concern) in [
            (
                "  that: { start: true, task: { type: work }, on: { success: done } }\n  done: { end: finished }\n",
                "it stay",
            ),
            (
                "  it: { start: true, task: { type: other }, on: { success: done } }\n  done: { end: finished }\n",
                "it enter_anew",
            ),
            ("  it: { start: true, wait: 1s, next: done }\n  done: { end: finished }\n", "it enter_anew"),
        ] {
            let (_, concerns) = told(TASK, new);
            assert_eq!(concerns, [concern], "{new}");
        }
        let event = |name: &str| {
            format!(
                "  it: {{ start: true, event: {{ name: {name} }}, on: {{ received: done }} }}\n  done: {{ end: finished }}\n"
            )
        };
        assert_eq!(
            told(
                &event("a"),
                &event("a")
                    .replace("done }", "done, timeout: done }")
                    .replace("name: a", "name: a, deadline: 1s")
            )
            .1,
            [""; 0]
        );
        assert_eq!(told(&event("a"), &event("b")).1, ["it enter_anew"]);
        let map = "  it: { start: true, map: { branches: { a: { task: { type: a } } } }, on: { success: done } }\n  done: { end: finished }\n";
        assert_eq!(told(map, &map.replace("type: a", "type: b")).1, ["it wait_for_children"]);
    }
}
