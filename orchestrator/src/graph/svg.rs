//! A graph as a picture that every browser shows. Nothing in it is executed, and nothing is fetched.
//!
//! Letters are of one width, and their room is written beside them, so that the layout knows how long a text is whatever font is
//! there. A graph that is too large to be laid out is listed: a box for each state, with the ways out of it as lines.

use std::{
    collections::{BTreeMap, HashSet},
    fmt::Write as _,
};

use super::{
    layout::{Layout, Link, Point, Route, Size, Thing, layout},
    lines_of, words_of,
};
use crate::blueprint::{Graph, Node, Shape, Stands};

/// Width of a letter, of those that are twice as wide half of it; and from line to line.
const LETTER: f64 = 7.3;
const LINE: f64 = 16.0;

/// The same, of the smaller words on ways.
const SMALL_LETTER: f64 = 6.1;
const SMALL_LINE: f64 = 13.0;

/// Room between the edge of a box and what is in it.
const PADDING: f64 = 12.0;

/// How much of a box's width ways leave and meet it at: where it is flat, whatever its shape.
const EDGE: f64 = 0.55;

/// How far a way from a state to itself swings out.
const LOOP: f64 = 26.0;

/// What is told above the picture.
const CAPTION_HEIGHT: f64 = 30.0;

const STYLE: &str = "\
text{font:12px ui-monospace,'DejaVu Sans Mono',Menlo,Consolas,monospace;fill:#1c2330;text-anchor:middle;dominant-baseline:central}\
.note,.way{font-size:10px;fill:#5a6475}.caption{text-anchor:start;font-weight:bold}.row{text-anchor:start}\
.box{fill:#fff;stroke:#5a6475;stroke-width:1.2}.dashed{stroke-dasharray:5 3}.dotted{stroke-dasharray:1.5 3}\
.line{fill:none;stroke:#8a94a6;stroke-width:1.2}.jump{stroke-dasharray:6 4}\
.faint .box{stroke:#b9c0cc}.faint text{fill:#8a94a6}\
.taken .box{stroke:#1c2330;stroke-width:2.2}.line.taken{stroke:#1b6ec2;stroke-width:2.4}.way.taken{fill:#1b6ec2;font-weight:bold}\
.open .box{fill:#cfe8ff;stroke:#0b5cad;stroke-width:2.6}.well .box{fill:#d7f3d7;stroke:#1b7a1b;stroke-width:2.6}\
.badly .box{fill:#ffd9d9;stroke:#b01515;stroke-width:2.6}";

/// All that leads from one state to another, which is one line.
struct Way {
    from: usize,
    to: usize,
    lines: Vec<(String, bool)>,
    taken: bool,
    jump: bool,
}

/// The graph as a picture.
pub(super) fn render(graph: &Graph) -> String {
    let (ways, loops): (Vec<Way>, Vec<Way>) = ways(graph).into_iter().partition(|way| way.from != way.to);
    let thing = |node| {
        let size = size_of(node);
        Thing { size, edge: size.width * EDGE }
    };
    let mut things: Vec<Thing> = graph.nodes.iter().map(thing).collect();
    for way in &loops {
        // On both sides, so that the box stays in the middle of its room.
        let room = &mut things[way.from].size;
        room.width += 2.0 * (LOOP + words_size(way).width);
        room.height = room.height.max(words_size(way).height);
    }
    let links: Vec<Link> =
        ways.iter().map(|way| Link { from: way.from, to: way.to, words: words_size(way) }).collect();
    match layout(&things, &links, graph.start) {
        Some(layout) => drawn(graph, &ways, &loops, &layout),
        None => listed(graph),
    }
}

/// The ways between the states, one for each pair.
fn ways(graph: &Graph) -> Vec<Way> {
    let mut places: BTreeMap<(usize, usize), usize> = BTreeMap::new();
    let mut ways: Vec<Way> = Vec::new();
    for edge in &graph.edges {
        let (from, to) = (edge.from, edge.to);
        let place = *places.entry((from, to)).or_insert_with(|| {
            ways.push(Way { from, to, lines: Vec::new(), taken: false, jump: true });
            ways.len() - 1
        });
        let way = &mut ways[place];
        let taken = !edge.moves.is_empty();
        way.taken |= taken;
        way.jump &= edge.jump;
        way.lines.extend(words_of(edge).map(|words| (words, taken)));
    }
    ways
}

// ---- Sizes ----

/// How many letters of the usual width a text takes.
fn letters(text: &str) -> f64 {
    // From the Hangul Jamo on, letters are mostly of the double width.
    text.chars().map(|c| if u32::from(c) < 0x1100 { 1.0 } else { 2.0 }).sum()
}

/// The room of a node's box.
fn size_of(node: &Node) -> Size {
    let lines = lines_of(node);
    let name = lines.first().map_or(0.0, |name| letters(name) * LETTER);
    let notes = lines.iter().skip(1).map(|line| letters(line) * SMALL_LETTER);
    let width = notes.fold(name, f64::max) + 2.0 * PADDING;
    // Whatever comes to a point needs room beside the text.
    let aside = match node.shape {
        Shape::Choice | Shape::Finished | Shape::Failed => 2.0 * PADDING,
        Shape::Run | Shape::Map | Shape::Human => PADDING,
        _ => 0.0,
    };
    let lower = lines.len().saturating_sub(1) as f64 * SMALL_LINE;
    Size { width: width + aside, height: LINE + lower + 1.4 * PADDING }
}

fn words_size(way: &Way) -> Size {
    match way.lines.iter().map(|(line, _)| letters(line) * SMALL_LETTER).fold(0.0, f64::max) {
        0.0 => Size::default(),
        width => Size { width: width + 4.0, height: way.lines.len() as f64 * SMALL_LINE + 2.0 },
    }
}

// ---- Drawing ----

fn drawn(graph: &Graph, ways: &[Way], loops: &[Way], layout: &Layout) -> String {
    let mut picture = Picture::new(graph, layout.size);
    // What was taken lies over what was not.
    for taken in [false, true] {
        for (way, route) in ways.iter().zip(&layout.routes).filter(|(way, _)| way.taken == taken) {
            picture.way(way, route);
        }
        for way in loops.iter().filter(|way| way.taken == taken) {
            picture.loops(way, &graph.nodes[way.from], layout.nodes[way.from]);
        }
    }
    for (number, (node, middle)) in graph.nodes.iter().zip(&layout.nodes).enumerate() {
        picture.node(node, *middle, number == graph.start);
    }
    picture.done()
}

/// A picture in the making.
struct Picture {
    body: String,
    size: Size,
    title: String,
    caption: Option<String>,
    /// Whether a job's path is marked in it.
    is_marked: bool,
    /// Places that shared ways have passed, and how those looked.
    passed: HashSet<(usize, bool, bool)>,
}

impl Picture {
    fn new(graph: &Graph, mut size: Size) -> Self {
        let caption = graph.caption.clone();
        if let Some(caption) = &caption {
            size.width = size.width.max(letters(caption) * LETTER + 2.0 * PADDING);
        }
        let title = graph.name.clone();
        let is_marked = caption.is_some();
        Self { body: String::new(), size, title, is_marked, caption, passed: HashSet::new() }
    }

    fn way(&mut self, way: &Way, route: &Route) {
        let mut at = route.from;
        let mut path = format!("M{} {}", number(at.x), number(at.y));
        for stop in &route.stops {
            curve(&mut path, at, Point { x: stop.x, y: stop.enters });
            // Where it joins others that look the same, it is drawn to its end already: a thousand ways to one end are one line.
            if stop.shared.is_some_and(|place| !self.passed.insert((place, way.taken, way.jump))) {
                return self.line(way, &path, false);
            }
            at = Point { x: stop.x, y: stop.leaves };
            if stop.words {
                let _ = write!(path, "M{} {}", number(at.x), number(at.y));
                self.words(way, Point { x: stop.x, y: (stop.enters + stop.leaves) / 2.0 });
            } else if stop.enters != stop.leaves {
                let _ = write!(path, "V{}", number(stop.leaves));
            }
        }
        curve(&mut path, at, route.to);
        self.line(way, &path, true);
    }

    /// A way from a state to itself, out at its right side and in again.
    fn loops(&mut self, way: &Way, node: &Node, middle: Point) {
        let size = size_of(node);
        let (x, y) = (middle.x + size.width / 2.0, middle.y);
        let (out, high) = (LOOP * 1.1, size.height / 4.0);
        let path = format!(
            "M{} {}C{} {} {} {} {} {}",
            number(x),
            number(y - high),
            number(x + out),
            number(y - high * 2.0),
            number(x + out),
            number(y + high * 2.0),
            number(x),
            number(y + high)
        );
        self.line(way, &path, true);
        let words = words_size(way);
        self.words(way, Point { x: x + LOOP + words.width / 2.0, y });
    }

    fn line(&mut self, way: &Way, path: &str, to_its_end: bool) {
        let taken = if way.taken { " taken" } else { "" };
        let jump = if way.jump { " jump" } else { "" };
        let head = match (to_its_end, way.taken) {
            (false, _) => "",
            (true, true) => " marker-end=\"url(#taken)\"",
            (true, false) => " marker-end=\"url(#plain)\"",
        };
        let _ = writeln!(self.body, "<path class=\"line{taken}{jump}\" d=\"{path}\"{head}/>");
    }

    fn words(&mut self, way: &Way, middle: Point) {
        let first = middle.y - (way.lines.len() as f64 - 1.0) * SMALL_LINE / 2.0;
        for (place, (line, taken)) in way.lines.iter().enumerate() {
            let class = if *taken { "way taken" } else { "way" };
            let at = Point { x: middle.x, y: first + place as f64 * SMALL_LINE };
            self.text(class, at, line, SMALL_LETTER);
        }
    }

    fn text(&mut self, class: &str, at: Point, text: &str, letter: f64) {
        let class = if class.is_empty() { String::new() } else { format!(" class=\"{class}\"") };
        let _ = writeln!(
            self.body,
            "<text{class} x=\"{}\" y=\"{}\" textLength=\"{}\" lengthAdjust=\"spacingAndGlyphs\">{}</text>",
            number(at.x),
            number(at.y),
            number(letters(text) * letter),
            escaped(text)
        );
    }

    fn node(&mut self, node: &Node, middle: Point, is_start: bool) {
        let size = size_of(node);
        let class = match node.stands {
            Some(Stands::Open) => "open",
            Some(Stands::Well) => "well",
            Some(Stands::Badly) => "badly",
            None if node.visits > 0 => "taken",
            None if self.is_marked => "faint",
            None => "plain",
        };
        let _ = writeln!(
            self.body,
            "<g class=\"{class}\"><title>{}</title>",
            escaped(&lines_of(node).join(", "))
        );
        self.body.push_str(&shape(node.shape, middle, size));
        if is_start {
            let (x, y) = (middle.x - size.width / 2.0, middle.y - size.height / 2.0);
            let _ = writeln!(self.body, "<circle cx=\"{}\" cy=\"{}\" r=\"4.5\"/>", number(x), number(y));
        }
        let lines = lines_of(node);
        let mut y = middle.y - (lines.len() as f64 - 1.0) * SMALL_LINE / 2.0;
        for (place, line) in lines.iter().enumerate() {
            let (class, letter) = if place == 0 { ("", LETTER) } else { ("note", SMALL_LETTER) };
            self.text(class, Point { x: middle.x, y }, line, letter);
            y += if place == 0 { (LINE + SMALL_LINE) / 2.0 } else { SMALL_LINE };
        }
        self.body.push_str("</g>\n");
    }

    fn done(mut self) -> String {
        let above = if self.caption.is_some() { CAPTION_HEIGHT } else { 0.0 };
        let (width, height) = (number(self.size.width), number(self.size.height + above));
        let mut picture = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 -{above} {width} {height}\">\n\
             <title>{}</title>\n<style>{STYLE}</style>\n<defs>{}{}</defs>\n\
             <rect x=\"0\" y=\"-{above}\" width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n",
            escaped(&self.title),
            head("plain", "#8a94a6"),
            head("taken", "#1b6ec2"),
        );
        if let Some(caption) = self.caption.take() {
            self.text("caption", Point { x: PADDING, y: -above / 2.0 }, &caption, LETTER);
        }
        picture.push_str(&self.body);
        picture.push_str("</svg>\n");
        picture
    }
}

/// The head of an arrow.
fn head(id: &str, colour: &str) -> String {
    format!(
        "<marker id=\"{id}\" viewBox=\"0 0 10 10\" refX=\"9\" refY=\"5\" markerWidth=\"9\" markerHeight=\"9\" \
         markerUnits=\"userSpaceOnUse\" orient=\"auto\"><path d=\"M0 0L10 5L0 10z\" fill=\"{colour}\"/></marker>"
    )
}

/// On to there, leaving and arriving straight up or down.
fn curve(path: &mut String, from: Point, to: Point) {
    if from.x == to.x {
        let _ = write!(path, "V{}", number(to.y));
        return;
    }
    let half = number((from.y + to.y) / 2.0);
    let _ =
        write!(path, "C{} {half} {} {half} {} {}", number(from.x), number(to.x), number(to.x), number(to.y));
}

fn shape(shape: Shape, middle: Point, size: Size) -> String {
    let (left, top) = (middle.x - size.width / 2.0, middle.y - size.height / 2.0);
    let (right, bottom) = (left + size.width, top + size.height);
    let rect = |inset: f64, radius: f64, class: &str| {
        format!(
            "<rect class=\"box{class}\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" rx=\"{}\"/>\n",
            number(left + inset),
            number(top + inset),
            number(size.width - 2.0 * inset),
            number(size.height - 2.0 * inset),
            number((radius - inset).max(0.0))
        )
    };
    let polygon = |points: &[(f64, f64)]| {
        let points: Vec<String> =
            points.iter().map(|(x, y)| format!("{},{}", number(*x), number(*y))).collect();
        format!("<polygon class=\"box\" points=\"{}\"/>\n", points.join(" "))
    };
    let round = size.height / 2.0;
    match shape {
        Shape::Task => rect(0.0, 2.0, ""),
        Shape::Pass => rect(0.0, 9.0, ""),
        Shape::Pause => rect(0.0, 9.0, " dashed"),
        Shape::Gone => rect(0.0, 2.0, " dotted"),
        Shape::Run => rect(0.0, 2.0, "") + &rect(3.0, 2.0, ""),
        Shape::Finished => rect(0.0, round, "") + &rect(3.0, round, ""),
        Shape::Failed => rect(0.0, round, "") + &rect(3.0, round, " dashed"),
        Shape::Choice => {
            let point = PADDING * 1.4;
            polygon(&[
                (left, middle.y),
                (left + point, top),
                (right - point, top),
                (right, middle.y),
                (right - point, bottom),
                (left + point, bottom),
            ])
        }
        Shape::Human => {
            let slant = PADDING * 0.8;
            polygon(&[(left + slant, top), (right - slant, top), (right, bottom), (left, bottom)])
        }
        // A stack of sheets.
        Shape::Map => {
            let sheet = |aside: f64| {
                format!(
                    "<rect class=\"box\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" rx=\"2\"/>\n",
                    number(left + 6.0 - aside),
                    number(top + aside),
                    number(size.width - 6.0),
                    number(size.height - 6.0)
                )
            };
            sheet(0.0) + &sheet(3.0) + &sheet(6.0)
        }
    }
}

// ---- Listing ----

/// A graph that is too large to be laid out.
fn listed(graph: &Graph) -> String {
    let mut ways: Vec<Vec<(String, bool)>> = vec![Vec::new(); graph.nodes.len()];
    for edge in &graph.edges {
        let words = words_of(edge).map(|words| format!("{words} ")).unwrap_or_default();
        let line = format!("{words}→ {}", graph.nodes[edge.to].name);
        ways[edge.from].push((line, !edge.moves.is_empty()));
    }
    let width = |node: &Node, ways: &[(String, bool)]| {
        let ways = ways.iter().map(|(line, _)| letters(line) * SMALL_LETTER + 3.0 * PADDING);
        ways.fold(size_of(node).width, f64::max)
    };
    let width = graph.nodes.iter().zip(&ways).map(|(node, ways)| width(node, ways)).fold(0.0, f64::max);
    let mut picture = Picture::new(graph, Size { width: width + 2.0 * PADDING, height: 0.0 });
    let mut y = PADDING;
    for (place, (node, ways)) in graph.nodes.iter().zip(&ways).enumerate() {
        let size = size_of(node);
        let middle = Point { x: PADDING + size.width / 2.0, y: y + size.height / 2.0 };
        picture.node(node, middle, place == graph.start);
        y += size.height + SMALL_LINE;
        for (line, taken) in ways {
            let class = if *taken { "way row taken" } else { "way row" };
            picture.text(class, Point { x: 3.0 * PADDING, y }, line, SMALL_LETTER);
            y += SMALL_LINE;
        }
        y += PADDING;
    }
    picture.size.height = y;
    picture.done()
}

// ---- Letters ----

/// A number of pixels, to a tenth.
fn number(pixels: f64) -> String {
    let rounded = (pixels * 10.0).round() / 10.0;
    // There is no minus zero in a picture.
    format!("{}", if rounded == 0.0 { 0.0 } else { rounded })
}

/// Text that is nothing but text.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&apos;"),
            // XML does not know them, not even escaped.
            '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            c if c.is_control() => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped
}
