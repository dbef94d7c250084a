//! A blueprint as a graph: its states and what leads from one to the next.
//!
//! The same blueprint always gives the same graph: states in the order of the definition, outcomes by name. It refuses to know how a
//! graph is drawn.

use super::{Blueprint, End, EndState, State, StateKind, Transitions};

/// Longest condition on an edge, in characters; a longer one is cut, a picture is not the place to read it.
const LABEL_CHARS_MAX: usize = 60;

/// States, and the ways between them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Graph {
    /// The blueprint's name.
    pub name: String,
    /// The states. The first ones are the blueprint's, in the order of the definition.
    pub nodes: Vec<Node>,
    /// The ways out of each state, state by state.
    pub edges: Vec<Edge>,
    /// The state that a job enters first, as a place in `nodes`.
    pub start: usize,
    /// One line about the job whose path is marked; `None` when it is nobody's.
    pub caption: Option<String>,
}

/// A state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// What it is about: a task type, a blueprint.
    pub note: Option<String>,
    /// What it does.
    pub shape: Shape,
    /// How often the marked job entered it.
    pub visits: u32,
    /// How the marked job stands there, if it does.
    pub stands: Option<Stands>,
}

/// What a state does, as far as one sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Asks a worker.
    Task,
    /// Chooses.
    Choice,
    /// Only notes something.
    Pass,
    /// Waits for a time or a signal.
    Pause,
    /// Asks a human.
    Human,
    /// Runs another blueprint.
    Run,
    /// Has branches.
    Map,
    /// Ends the job well.
    Finished,
    /// Ends the job badly.
    Failed,
    /// Is not in this version of the blueprint.
    Gone,
}

/// How a job stands in a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stands {
    /// It is not done with it.
    Open,
    /// It ended well there.
    Well,
    /// It ended badly there.
    Badly,
}

/// A way from one state to the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edge {
    /// Place of the state that is left.
    pub from: usize,
    /// Place of the state that is entered.
    pub to: usize,
    /// What selects it, if there is a choice.
    pub label: Option<String>,
    /// Whether it is none of the blueprint's: a human moved the job.
    pub jump: bool,
    /// The moves of the marked job that took it, numbered from 1.
    pub moves: Vec<u32>,
}

impl Graph {
    /// The place of the state with this name.
    pub fn place(&self, name: &str) -> Option<usize> {
        self.nodes.iter().position(|node| node.name == name)
    }
}

impl Blueprint {
    /// The blueprint as a graph.
    pub fn graph(&self) -> Graph {
        let place = |name: &str| self.states.get_index_of(name);
        let ways = self.states.values().enumerate().flat_map(|(from, state)| {
            ways(state).into_iter().map(move |(label, to)| (from, label.map(cut), to))
        });
        // Every transition leads to a state that is there: the loader sees to it.
        let edges = ways.filter_map(|(from, label, to)| {
            Some(Edge { from, to: place(to)?, label, jump: false, moves: Vec::new() })
        });
        Graph {
            name: self.name.to_string(),
            edges: edges.collect(),
            nodes: self.states.values().map(node).collect(),
            start: place(&self.start).unwrap_or(0),
            caption: None,
        }
    }
}

fn node(state: &State) -> Node {
    let (shape, note) = match &state.kind {
        StateKind::Task(task) => (Shape::Task, Some(task.work.task_type.to_string())),
        StateKind::Choice(_) => (Shape::Choice, None),
        StateKind::Pass(_) => (Shape::Pass, None),
        StateKind::Wait(_) | StateKind::Event(_) => (Shape::Pause, None),
        StateKind::Approval(_) => (Shape::Human, None),
        StateKind::Run(run) => (Shape::Run, Some(format!("run {}", run.work.blueprint))),
        StateKind::Map(_) => (Shape::Map, None),
        StateKind::End(EndState { end: End::Finished, .. }) => (Shape::Finished, None),
        StateKind::End(EndState { end: End::Failed, .. }) => (Shape::Failed, None),
    };
    Node { name: state.name.to_string(), note, shape, visits: 0, stands: None }
}

fn named(on: &Transitions) -> impl Iterator<Item = (Option<&str>, &str)> {
    on.iter().map(|(outcome, to)| (Some(&**outcome), &**to))
}

/// The ways out of a state, with what selects them.
fn ways(state: &State) -> Vec<(Option<&str>, &str)> {
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
