//! A graph in the DOT language, for Graphviz and everything that reads it.

use std::fmt::Write as _;

use super::{lines_of, words_of};
use crate::blueprint::{Edge, Graph, Node, Shape, Stands};

/// The graph as a DOT digraph: tasks are boxes, choices diamonds, pass states rounded boxes, ends doubly outlined ellipses; an
/// arrow from a point leads to the start. What the job went through is drawn in bold, and where it stands is filled.
pub(super) fn render(graph: &Graph) -> String {
    let mut dot = format!("digraph {} {{\n  rankdir=LR;\n", quoted(&graph.name));
    if let Some(caption) = &graph.caption {
        let _ = writeln!(dot, "  label={};\n  labelloc=t;", quoted(caption));
    }
    // No state can have this name, for its brackets.
    let _ = writeln!(dot, "  \"(start)\" [shape=point];");
    for node in &graph.nodes {
        let _ = writeln!(dot, "  {} [{}];", quoted(&node.name), node_attributes(node));
    }
    if let Some(start) = graph.nodes.get(graph.start) {
        let _ = writeln!(dot, "  \"(start)\" -> {};", quoted(&start.name));
    }
    for edge in &graph.edges {
        let (from, to) = (quoted(&graph.nodes[edge.from].name), quoted(&graph.nodes[edge.to].name));
        let attributes = edge_attributes(edge);
        let _ = match attributes.is_empty() {
            true => writeln!(dot, "  {from} -> {to};"),
            false => writeln!(dot, "  {from} -> {to} [{attributes}];"),
        };
    }
    dot.push_str("}\n");
    dot
}

fn node_attributes(node: &Node) -> String {
    let (shape, mut style) = match node.shape {
        Shape::Task => ("shape=box", vec![]),
        Shape::Choice => ("shape=diamond", vec![]),
        Shape::Pass => ("shape=box", vec!["rounded"]),
        Shape::Pause => ("shape=box", vec!["rounded", "dashed"]),
        Shape::Human => ("shape=house", vec![]),
        Shape::Run => ("shape=box, peripheries=2", vec![]),
        Shape::Map => ("shape=box3d", vec![]),
        Shape::Finished => ("shape=ellipse, peripheries=2", vec![]),
        Shape::Failed => ("shape=ellipse, peripheries=2", vec!["dashed"]),
        Shape::Gone => ("shape=box", vec!["dotted"]),
    };
    let fill = node.stands.map(|stands| match stands {
        Stands::Open => "lightblue",
        Stands::Well => "palegreen",
        Stands::Badly => "lightpink",
    });
    style.extend(fill.map(|_| "filled"));
    style.extend((node.visits > 0).then_some("bold"));
    let mut attributes = shape.to_owned();
    match style.as_slice() {
        [] => {}
        [one] => attributes += &format!(", style={one}"),
        many => attributes += &format!(", style=\"{}\"", many.join(",")),
    }
    if let Some(fill) = fill {
        attributes += &format!(", fillcolor={fill}");
    }
    let lines = lines_of(node);
    if lines.len() > 1 {
        attributes += &format!(", label={}", quoted(&lines.join("\n")));
    }
    attributes
}

fn edge_attributes(edge: &Edge) -> String {
    let label = words_of(edge).map(|words| format!("label={}", quoted(&words)));
    let style = match (edge.jump, edge.moves.is_empty()) {
        (true, _) => Some("style=\"dashed,bold\"".to_owned()),
        (false, false) => Some("style=bold".to_owned()),
        (false, true) => None,
    };
    [label, style].into_iter().flatten().collect::<Vec<_>>().join(", ")
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
