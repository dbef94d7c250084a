//! From the text of a YAML or JSON file to a tree in which every key and value knows its place.
//!
//! It promises that the tree is small and shallow, whatever the text; that a key stands once in a map; and that plain words are
//! read by the rules of YAML 1.2 (so `on`, `yes` and `no` are words). It refuses to know what a blueprint is.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Number, Value};
use serde_saphyr::granit_parser::{Event, Marker, Options, Parser, ScalarStyle, ScanError, Span};

use super::finding::{Findings, Position, shown};

/// Nesting of lists and maps: far above what a blueprint needs, far below what overflows a stack.
const DEPTH_MAX: usize = 64;

/// Nodes of one file, those that aliases repeat included, so that no few lines can grow into gigabytes.
const NODES_MAX: usize = 200_000;

const CURE_TWICE: &str = "remove or rename one of them";

/// A value with its place.
#[derive(Debug, Clone)]
pub struct Node {
    pub at: Position,
    pub value: Yaml,
    /// Columns from `at` to the first character of the text, where the text stands in the file as it is.
    verbatim: Option<usize>,
}

/// What a node is.
#[derive(Debug, Clone)]
pub enum Yaml {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A key of a map with its value.
#[derive(Debug, Clone)]
pub struct Entry {
    pub key: String,
    pub key_at: Position,
    pub value: Node,
}

impl Node {
    /// The tree of a JSON value, which has no places.
    pub fn of_json(value: &Value) -> Self {
        let at = Position::default();
        let value = match value {
            Value::Null => Yaml::Null,
            Value::Bool(value) => Yaml::Bool(*value),
            Value::Number(number) => Yaml::Number(number.clone()),
            Value::String(text) => Yaml::Text(text.clone()),
            Value::Array(items) => Yaml::List(items.iter().map(Node::of_json).collect()),
            Value::Object(members) => Yaml::Map(
                members
                    .iter()
                    .map(|(key, value)| Entry { key: key.clone(), key_at: at, value: Node::of_json(value) })
                    .collect(),
            ),
        };
        Node { at, value, verbatim: None }
    }

    /// A map that was made by a program, and has no place.
    pub fn of_entries(entries: Vec<Entry>) -> Self {
        Node { at: Position::default(), value: Yaml::Map(entries), verbatim: None }
    }

    /// Whether a tree that was made by a program keeps what is promised of those from files: no key twice, few nodes, little
    /// depth. What it does not keep is noted.
    pub fn check_made(&self, findings: &mut Findings) {
        let (size, depth) = self.size_and_depth();
        if let Err(fault) = check_nodes(self.at, size).and_then(|()| check_depth(self.at, depth)) {
            findings.error(fault.at, fault.what, fault.cure);
            return;
        }
        let mut open = vec![self];
        while let Some(node) = open.pop() {
            match &node.value {
                Yaml::List(items) => open.extend(items),
                Yaml::Map(entries) => {
                    let mut seen = HashSet::new();
                    for twice in entries.iter().filter(|entry| !seen.insert(&entry.key)) {
                        let what = format!("the key `{}` stands twice", shown(&twice.key));
                        findings.error(twice.key_at, what, CURE_TWICE);
                    }
                    open.extend(entries.iter().map(|entry| &entry.value));
                }
                _ => {}
            }
        }
    }

    /// The value without its places.
    pub fn to_json(&self) -> Value {
        match &self.value {
            Yaml::Null => Value::Null,
            Yaml::Bool(value) => Value::Bool(*value),
            Yaml::Number(number) => Value::Number(number.clone()),
            Yaml::Text(text) => Value::String(text.clone()),
            Yaml::List(items) => Value::Array(items.iter().map(Node::to_json).collect()),
            Yaml::Map(entries) => {
                let members = entries.iter().map(|entry| (entry.key.clone(), entry.value.to_json()));
                Value::Object(members.collect::<Map<_, _>>())
            }
        }
    }

    /// What the value is, for messages.
    pub fn type_name(&self) -> &'static str {
        match &self.value {
            Yaml::Null => "nothing",
            Yaml::Bool(_) => "a boolean",
            Yaml::Number(_) => "a number",
            Yaml::Text(_) => "a string",
            Yaml::List(_) => "a list",
            Yaml::Map(_) => "a map",
        }
    }

    /// The place of a byte of the node's text; of the node as a whole where the file spells the text differently.
    pub fn place_in_text(&self, offset: usize) -> Position {
        match (&self.value, self.verbatim) {
            (Yaml::Text(text), Some(skipped)) => {
                let before = text.get(..offset).map_or(0, |before| before.chars().count());
                Position { line: self.at.line, column: self.at.column + skipped + before }
            }
            _ => self.at,
        }
    }

    /// The node to which a JSON pointer leads, or the last one on the way that is there.
    pub fn at_pointer(&self, pointer: &str) -> &Node {
        let mut node = self;
        for token in pointer.split('/').skip(1) {
            let token = token.replace("~1", "/").replace("~0", "~");
            let next = match &node.value {
                Yaml::Map(entries) => {
                    entries.iter().find(|entry| entry.key == token).map(|entry| &entry.value)
                }
                Yaml::List(items) => token.parse().ok().and_then(|place: usize| items.get(place)),
                _ => None,
            };
            let Some(next) = next else { break };
            node = next;
        }
        node
    }

    /// How many nodes it has, and how deep its lists and maps are nested.
    fn size_and_depth(&self) -> (usize, usize) {
        let children: Vec<&Node> = match &self.value {
            Yaml::List(items) => items.iter().collect(),
            Yaml::Map(entries) => entries.iter().map(|entry| &entry.value).collect(),
            _ => return (1, 0),
        };
        children
            .into_iter()
            .map(Node::size_and_depth)
            .fold((1, 1), |(size, depth), (more, below)| (size + more, depth.max(below + 1)))
    }
}

/// The one document of a file. Nothing when it is no YAML or too large, which the findings then say.
pub fn parse(text: &str, findings: &mut Findings) -> Option<Node> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut options = Options::default();
    options.flow_nesting_limit = DEPTH_MAX;
    options.block_nesting_limit = DEPTH_MAX;
    options.emit_comments = false;
    let mut tree = Tree { text, ..Tree::default() };
    for next in Parser::new_from_str_with_options(text, options) {
        let taken = match next {
            Ok((event, span)) => tree.take(event, span, findings),
            Err(error) => Err(syntax_fault(text, &error)),
        };
        if let Err(fault) = taken {
            findings.error(fault.at, fault.what, fault.cure);
            return None;
        }
    }
    if tree.root.is_none() {
        findings.error(
            Position { line: 1, column: 1 },
            "the file is empty",
            "write a blueprint, see docs/blueprints.md",
        );
    }
    tree.root
}

/// What makes the rest of a file unreadable.
struct Fault {
    at: Position,
    what: String,
    cure: &'static str,
}

fn syntax_fault(text: &str, error: &ScanError) -> Fault {
    let at = place(error.marker());
    let line = text.lines().nth(at.line.saturating_sub(1)).unwrap_or_default();
    Fault {
        at,
        what: format!("not YAML: {}", shown(&error.info())),
        cure: match has_bare_expression(line) {
            true => {
                "write expressions in quotes, as in `\"${initial_data.id}\"`: within { } and [ ] they end at the first brace"
            }
            false => "check the indentation, colons and quotes around here",
        },
    }
}

/// Whether a `${` stands outside of quotes.
fn has_bare_expression(line: &str) -> bool {
    let mut quote = None;
    let mut before = ' ';
    for c in line.chars() {
        match quote {
            None if c == '{' && before == '$' => return true,
            None if c == '"' || c == '\'' => quote = Some(c),
            Some(open) if c == open => quote = None,
            _ => {}
        }
        before = c;
    }
    false
}

fn place(marker: &Marker) -> Position {
    Position { line: marker.line(), column: marker.col() + 1 }
}

/// The tree while it grows.
#[derive(Default)]
struct Tree<'t> {
    text: &'t str,
    /// Lists and maps that are not ended, outermost first.
    open: Vec<Open>,
    root: Option<Node>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
}

struct Open {
    at: Position,
    anchor: usize,
    filling: Filling,
}

enum Filling {
    List(Vec<Node>),
    Map { entries: Vec<Entry>, seen: HashSet<String>, key: Option<(String, Position)> },
}

impl Tree<'_> {
    fn take(&mut self, event: Event<'_>, span: Span, findings: &mut Findings) -> Result<(), Fault> {
        let at = place(&span.start);
        let fault = |what: &str, cure| Err(Fault { at, what: what.to_owned(), cure });
        match event {
            Event::DocumentStart(..) if self.root.is_some() => {
                fault("the file has a second document", "put each blueprint into a file of its own")
            }
            Event::Scalar(_, _, _, Some(_))
            | Event::SequenceStart(_, _, Some(_))
            | Event::MappingStart(_, _, Some(_)) => {
                let at = span.tag_start.as_ref().map_or(at, place);
                let what = "tags are not supported".to_owned();
                Err(Fault { at, what, cure: "write the value without its `!` tag" })
            }
            Event::Scalar(text, style, anchor, None) => {
                let node = self.scalar(&text, style, &span)?;
                self.add(node, anchor, findings)
            }
            Event::Alias(anchor) => match self.anchors.get(&anchor) {
                Some(node) => {
                    // What is repeated counts again.
                    let (size, depth) = node.size_and_depth();
                    let node = node.clone();
                    self.count(at, size)?;
                    check_depth(at, self.open.len() + depth)?;
                    self.add(node, 0, findings)
                }
                None => fault("the alias stands inside its own anchor", "write the value out"),
            },
            Event::SequenceStart(_, anchor, None) => self.open(at, anchor, Filling::List(Vec::new())),
            Event::MappingStart(_, anchor, None) => {
                let filling = Filling::Map { entries: Vec::new(), seen: HashSet::new(), key: None };
                self.open(at, anchor, filling)
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(findings),
            _ => Ok(()),
        }
    }

    fn open(&mut self, at: Position, anchor: usize, filling: Filling) -> Result<(), Fault> {
        check_depth(at, self.open.len() + 1)?;
        self.open.push(Open { at, anchor, filling });
        Ok(())
    }

    fn close(&mut self, findings: &mut Findings) -> Result<(), Fault> {
        // The parser ends only what it began.
        let Some(open) = self.open.pop() else { return Ok(()) };
        let value = match open.filling {
            Filling::List(items) => Yaml::List(items),
            Filling::Map { entries, .. } => Yaml::Map(entries),
        };
        self.add(Node { at: open.at, value, verbatim: None }, open.anchor, findings)
    }

    fn add(&mut self, node: Node, anchor: usize, findings: &mut Findings) -> Result<(), Fault> {
        let at = node.at;
        self.count(at, 1)?;
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        match self.open.last_mut().map(|open| &mut open.filling) {
            None => self.root = Some(node),
            Some(Filling::List(items)) => items.push(node),
            Some(Filling::Map { entries, seen, key }) => match key.take() {
                None => *key = Some((key_text(&node)?, at)),
                Some((key, key_at)) => {
                    if seen.insert(key.clone()) {
                        entries.push(Entry { key, key_at, value: node });
                    } else {
                        let first =
                            entries.iter().find(|entry| entry.key == key).map_or(at, |entry| entry.key_at);
                        findings.error(
                            key_at,
                            format!("the key `{}` stands twice, first at line {}", shown(&key), first.line),
                            CURE_TWICE,
                        );
                    }
                }
            },
        }
        Ok(())
    }

    fn count(&mut self, at: Position, nodes: usize) -> Result<(), Fault> {
        self.nodes += nodes;
        check_nodes(at, self.nodes)
    }

    fn scalar(&self, text: &str, style: ScalarStyle, span: &Span) -> Result<Node, Fault> {
        let at = place(&span.start);
        let value = if style == ScalarStyle::Plain {
            plain(text).ok_or_else(|| Fault {
                at,
                what: format!("the number `{}` is out of range", shown(text)),
                cure: "write it as a string, in quotes",
            })?
        } else {
            Yaml::Text(text.to_owned())
        };
        let source = span.byte_range().and_then(|range| self.text.get(range)).unwrap_or_default();
        let verbatim = match style {
            ScalarStyle::Plain => (source == text).then_some(0),
            ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted => {
                (source.get(1..source.len().saturating_sub(1)) == Some(text)).then_some(1)
            }
            _ => None,
        };
        Ok(Node { at, value, verbatim: verbatim.filter(|_| !text.contains('\n')) })
    }
}

fn check_nodes(at: Position, nodes: usize) -> Result<(), Fault> {
    if nodes <= NODES_MAX {
        return Ok(());
    }
    Err(Fault { at, what: format!("the file has more than {NODES_MAX} values"), cure: "split it" })
}

fn check_depth(at: Position, depth: usize) -> Result<(), Fault> {
    if depth <= DEPTH_MAX {
        return Ok(());
    }
    let what = format!("lists and maps are nested deeper than {DEPTH_MAX} levels");
    Err(Fault { at, what, cure: "flatten the data" })
}

fn key_text(node: &Node) -> Result<String, Fault> {
    Ok(match &node.value {
        Yaml::Text(text) => text.clone(),
        Yaml::Null => "null".to_owned(),
        Yaml::Bool(value) => value.to_string(),
        Yaml::Number(number) => number.to_string(),
        Yaml::List(_) | Yaml::Map(_) => {
            return Err(Fault {
                at: node.at,
                what: format!("{} cannot be a key", node.type_name()),
                cure: "write a plain word before the colon",
            });
        }
    })
}

/// What a plain scalar means by the core schema of YAML 1.2. Nothing when it is a number that JSON cannot hold.
fn plain(text: &str) -> Option<Yaml> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Some(Yaml::Null),
        "true" | "True" | "TRUE" => return Some(Yaml::Bool(true)),
        "false" | "False" | "FALSE" => return Some(Yaml::Bool(false)),
        _ => {}
    }
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let radix = |prefix, radix| {
        digits.strip_prefix(prefix).and_then(|digits| u64::from_str_radix(digits, radix).ok())
    };
    if text == digits
        && let Some(number) = radix("0x", 16).or_else(|| radix("0o", 8))
    {
        return Some(Yaml::Number(number.into()));
    }
    // Rust reads more as a float than YAML does: `inf`, `nan`, and an exponent without a digit before it.
    let numeric = digits.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && digits.bytes().any(|byte| byte.is_ascii_digit())
        && digits.bytes().all(|byte| byte.is_ascii_digit() || b".eE+-".contains(&byte));
    if !numeric {
        return Some(Yaml::Text(text.to_owned()));
    }
    let unsigned = text.strip_prefix('+').unwrap_or(text);
    if let Ok(number) = unsigned.parse::<i64>() {
        return Some(Yaml::Number(number.into()));
    }
    if let Ok(number) = unsigned.parse::<u64>() {
        return Some(Yaml::Number(number.into()));
    }
    match unsigned.parse::<f64>() {
        Ok(number) => Number::from_f64(number).map(Yaml::Number),
        Err(_) => Some(Yaml::Text(text.to_owned())),
    }
}
