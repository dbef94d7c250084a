//! Pictures of blueprints and of jobs: a [`Graph`] as text that others draw (DOT, Mermaid), or drawn (SVG).
//!
//! The same graph always gives the same text. Whatever a name or a condition holds, it is shown and never understood: nothing from
//! outside becomes markup. Nothing needs to be installed, and a picture takes a bounded time.

mod dot;
mod layout;
mod mermaid;
mod svg;
#[cfg(test)]
mod tests;
mod trail;

use crate::blueprint::{Edge, Graph, Node};

pub use trail::Trail;

/// How a graph is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// The language of Graphviz.
    Dot,
    /// The language of Mermaid.
    Mermaid,
    /// A picture.
    Svg,
}

impl Format {
    /// Every format.
    pub const ALL: [Format; 3] = [Self::Dot, Self::Mermaid, Self::Svg];

    /// Its name on every surface.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dot => "dot",
            Self::Mermaid => "mermaid",
            Self::Svg => "svg",
        }
    }

    /// The format with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.as_str() == name)
    }

    /// What HTTP calls it.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Dot => "text/vnd.graphviz; charset=utf-8",
            Self::Mermaid => "text/plain; charset=utf-8",
            Self::Svg => "image/svg+xml; charset=utf-8",
        }
    }
}

/// The graph in this format.
pub fn render(graph: &Graph, format: Format) -> String {
    match format {
        Format::Dot => dot::render(graph),
        Format::Mermaid => mermaid::render(graph),
        Format::Svg => svg::render(graph),
    }
}

/// Moves that an edge names one by one; of more, it says how many.
const MOVES_NAMED_MAX: usize = 3;

/// The lines of text in a node: its name, what it is about, how often it was entered.
fn lines_of(node: &Node) -> Vec<String> {
    let visits = (node.visits > 1).then(|| format!("entered {} times", node.visits));
    [Some(node.name.clone()), node.note.clone(), visits].into_iter().flatten().collect()
}

/// What an edge says: what selects it, and which moves took it, such as `success #1 #4`.
fn words_of(edge: &Edge) -> Option<String> {
    let moves = match edge.moves.len() {
        0 => None,
        1..=MOVES_NAMED_MAX => {
            Some(edge.moves.iter().map(|number| format!("#{number}")).collect::<Vec<_>>().join(" "))
        }
        times => Some(format!("#{} … {times} times", edge.moves[0])),
    };
    match (&edge.label, moves) {
        (Some(label), Some(moves)) => Some(format!("{label} {moves}")),
        (Some(label), None) => Some(label.clone()),
        (None, moves) => moves,
    }
}
