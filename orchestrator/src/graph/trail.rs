//! The path that a job has taken through its blueprint, from its history: which states it entered, which ways it took and in what
//! order, and where it stands.

use std::sync::Arc;

use avtomatika_proto::outcome;

use crate::{
    blueprint::{Edge, Graph, Node, Shape, Stands},
    engine::{HistoryEntry, HistoryEvent, Job, JobStatus},
};

/// Follows a job through its blueprint, entry by entry.
#[derive(Debug)]
pub struct Trail {
    graph: Graph,
    moves: u32,
    /// The code of what failed last where the job is.
    failed_with: Option<Arc<str>>,
    /// A human is about to move the job.
    jump: Option<&'static str>,
}

impl Trail {
    /// At the beginning.
    pub fn over(graph: Graph) -> Self {
        Self { graph, moves: 0, failed_with: None, jump: None }
    }

    /// The next thing that happened to the job.
    pub fn follow(&mut self, entry: &HistoryEntry) {
        match entry.event {
            HistoryEvent::TaskFailed | HistoryEvent::TaskTimedOut => {
                self.failed_with = entry.error.as_ref().map(|error| error.code.clone());
            }
            HistoryEvent::JobRetried => self.jump = Some("retried"),
            HistoryEvent::JobMigrated => self.jump = Some("migrated"),
            HistoryEvent::StateEntered => {
                let to = self.place(&entry.state);
                self.graph.nodes[to].visits += 1;
                if let Some(from) = &entry.from_state {
                    let from = self.place(from);
                    self.moves += 1;
                    let way = self.way(from, to, entry.outcome.as_deref());
                    let number = self.moves;
                    self.graph.edges[way].moves.push(number);
                }
                (self.failed_with, self.jump) = (None, None);
            }
            _ => {}
        }
    }

    /// The graph, with where the job stands now.
    pub fn end(mut self, job: &Job, status: JobStatus) -> Graph {
        let place = self.place(&job.state);
        self.graph.nodes[place].stands = Some(match status {
            JobStatus::Finished => Stands::Well,
            status if status.is_terminal() => Stands::Badly,
            _ => Stands::Open,
        });
        self.graph.caption = Some(format!(
            "{} (version {}), job {}: {status} in state {} after {} move{}",
            job.blueprint,
            job.blueprint_version,
            job.id,
            job.state,
            self.moves,
            if self.moves == 1 { "" } else { "s" }
        ));
        self.graph
    }

    /// The place of a state. A job that was moved to another version may have been in states that are gone.
    fn place(&mut self, name: &str) -> usize {
        self.graph.place(name).unwrap_or_else(|| {
            let (name, shape) = (name.to_owned(), Shape::Gone);
            self.graph.nodes.push(Node { name, note: None, shape, visits: 0, stands: None });
            self.graph.nodes.len() - 1
        })
    }

    /// The way that was taken. An entry says what a state ended with, and a blueprint may have caught that under another name.
    fn way(&mut self, from: usize, to: usize, outcome: Option<&str>) -> usize {
        let jump = self.jump;
        let edges = &self.graph.edges;
        let ways = || edges.iter().enumerate().filter(|(_, edge)| edge.from == from && edge.to == to);
        let labelled = |label: &str| {
            ways().find(|(_, edge)| edge.jump == jump.is_some() && edge.label.as_deref() == Some(label))
        };
        let found = match jump {
            Some(jump) => labelled(jump),
            None => self
                .failed_with
                .as_deref()
                .and_then(labelled)
                .or_else(|| outcome.and_then(labelled))
                .or_else(|| labelled(outcome::FAILURE).filter(|_| outcome.is_some()))
                .or_else(|| ways().find(|(_, edge)| !edge.jump)),
        };
        found.map(|(way, _)| way).unwrap_or_else(|| {
            // A way that this version of the blueprint does not have.
            let label = jump.or(outcome).map(str::to_owned);
            self.graph.edges.push(Edge { from, to, label, jump: true, moves: Vec::new() });
            self.graph.edges.len() - 1
        })
    }
}
