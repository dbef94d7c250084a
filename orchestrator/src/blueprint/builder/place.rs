//! Where something stands in a blueprint that has no lines: the way to it, such as `states.init.task.params.url`.
//!
//! The loader tells of places by line and column. Here every node of the tree gets a column of its own in line 0, which is the line
//! of everything that stands in no file, and findings are told by the way that belongs to the column.

use super::super::{
    Finding,
    finding::Position,
    yaml::{Node, Yaml},
};

/// The ways to the nodes of a tree.
#[derive(Debug, Default)]
pub struct Ways(Vec<String>);

impl Ways {
    /// Gives every node a place of its own, and remembers the way to it.
    pub fn through(tree: &mut Node) -> Self {
        let mut ways = Self::default();
        ways.walk(tree, String::new());
        ways
    }

    fn walk(&mut self, node: &mut Node, way: String) {
        let at = Position { line: 0, column: self.0.len() };
        node.at = at;
        self.0.push(way.clone());
        match &mut node.value {
            Yaml::List(items) => {
                for (index, item) in items.iter_mut().enumerate() {
                    self.walk(item, format!("{way}[{index}]"));
                }
            }
            Yaml::Map(entries) => {
                for entry in entries {
                    entry.key_at = Position { line: 0, column: self.0.len() };
                    let dot = if way.is_empty() { "" } else { "." };
                    self.walk(&mut entry.value, format!("{way}{dot}{}", entry.key));
                }
            }
            _ => {}
        }
    }

    /// The finding with the way in the place of a line.
    pub fn tell(&self, finding: Finding) -> Finding {
        let way = self.0.get(finding.at.column).filter(|way| finding.at.line == 0 && !way.is_empty());
        let file = match way {
            Some(way) => format!("{}, {way}", finding.file),
            None => finding.file,
        };
        Finding { file, at: Position::default(), ..finding }
    }
}
