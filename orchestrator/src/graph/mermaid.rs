//! A graph in the language of Mermaid, which code hosts and wikis draw by themselves.

use std::fmt::Write as _;

use super::{lines_of, words_of};
use crate::blueprint::{Edge, Graph, Node, Shape, Stands};

/// The graph as a flowchart. States are named by their numbers, so that no name can be taken for a word of the language.
pub(super) fn render(graph: &Graph) -> String {
    let mut text = String::new();
    if let Some(caption) = &graph.caption {
        // In a front matter, as YAML: a JSON string is one.
        let _ = writeln!(text, "---\ntitle: {}\n---", serde_json::Value::from(flat(caption)));
    }
    text.push_str("flowchart TD\n  start((\" \")) --> ");
    let _ = writeln!(text, "s{}", graph.start);
    for (number, node) in graph.nodes.iter().enumerate() {
        let _ = writeln!(text, "  s{number}{}", shape(node));
    }
    for edge in &graph.edges {
        let arrow = match (edge.jump, edge.moves.is_empty()) {
            (true, _) => "-.->",
            (false, false) => "==>",
            (false, true) => "-->",
        };
        let words = words_of(edge).map(|words| format!("|{}|", quoted(&words))).unwrap_or_default();
        let Edge { from, to, .. } = edge;
        let _ = writeln!(text, "  s{from} {arrow}{words} s{to}");
    }
    text.push_str(&classes(graph));
    text
}

fn shape(node: &Node) -> String {
    let (open, close) = match node.shape {
        Shape::Task | Shape::Gone => ("[", "]"),
        Shape::Choice => ("{{", "}}"),
        Shape::Pass | Shape::Pause => ("(", ")"),
        Shape::Human => ("[/", "\\]"),
        Shape::Run => ("[[", "]]"),
        Shape::Map => ("[(", ")]"),
        Shape::Finished | Shape::Failed => ("([", "])"),
    };
    let lines: Vec<String> = lines_of(node).iter().map(|line| escaped(line)).collect();
    format!("{open}\"{}\"{close}", lines.join("<br/>"))
}

/// Which nodes look like what.
fn classes(graph: &Graph) -> String {
    const CLASSES: [(&str, &str); 5] = [
        ("taken", "stroke-width:3px"),
        ("open", "fill:#cfe8ff,stroke:#0b5cad,stroke-width:3px"),
        ("well", "fill:#d7f3d7,stroke:#1b7a1b,stroke-width:3px"),
        ("badly", "fill:#ffd9d9,stroke:#b01515,stroke-width:3px"),
        ("gone", "stroke-dasharray:2 4"),
    ];
    let class_of = |node: &Node| match (node.stands, node.shape) {
        (Some(Stands::Open), _) => Some("open"),
        (Some(Stands::Well), _) => Some("well"),
        (Some(Stands::Badly), _) => Some("badly"),
        (None, Shape::Gone) => Some("gone"),
        (None, _) => (node.visits > 0).then_some("taken"),
    };
    let mut text = String::new();
    for (class, style) in CLASSES {
        let of_class =
            |(number, node): (usize, &Node)| (class_of(node) == Some(class)).then(|| format!("s{number}"));
        let members: Vec<String> = graph.nodes.iter().enumerate().filter_map(of_class).collect();
        if !members.is_empty() {
            let _ = writeln!(text, "  classDef {class} {style}\n  class {} {class}", members.join(","));
        }
    }
    text
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", escaped(text))
}

/// Text within quotation marks, in which nothing but letters, digits and plain punctuation stands as it is.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in flat(text).chars() {
        match c {
            ' ' | '.' | ',' | '_' | '-' | '+' | '=' | '/' | ':' | '…' => escaped.push(c),
            c if c.is_alphanumeric() => escaped.push(c),
            // Mermaid's own spelling of a character by its number. Writing to a String cannot fail.
            c => drop(write!(escaped, "#{};", u32::from(c))),
        }
    }
    escaped
}

/// The text on one line.
fn flat(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
