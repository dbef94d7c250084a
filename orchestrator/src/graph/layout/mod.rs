//! Where things go in a picture: a layered layout, from top to bottom.
//!
//! States stand on every other level, and the words on a way have a place of their own on the level below the state that is left: so
//! nothing lies over anything. A way that goes further passes each level at a place of its own, and those that lead to one state
//! share them. Ways that lead back are laid out like the others, from bottom to top. It refuses to know what is drawn: sizes
//! come in, places go out, in pixels. The same sizes and links always give the same places.

mod order;
mod place;
mod rank;

use std::collections::HashMap;

/// Places on all levels together. Beyond it, nobody could read the picture, and it would take long to make.
const VERTICES_MAX: usize = 20_000;

/// A size in pixels.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Size {
    pub width: f64,
    pub height: f64,
}

/// A place in pixels, from the left and from the top.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Point {
    pub x: f64,
    pub y: f64,
}

/// Something to be placed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Thing {
    /// The room that it takes.
    pub size: Size,
    /// How much of its width, around the middle, links may leave and meet it at.
    pub edge: f64,
}

/// A way from one thing to another; at most one between two, and none from a thing to itself.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Link {
    pub from: usize,
    pub to: usize,
    /// The room that its words take; none without words.
    pub words: Size,
}

/// Where everything goes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Layout {
    pub size: Size,
    /// The middle of each thing.
    pub nodes: Vec<Point>,
    /// How each link goes.
    pub routes: Vec<Route>,
}

/// How a link goes, in its own direction.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Route {
    /// Where it leaves the thing that it comes from.
    pub from: Point,
    /// What it passes.
    pub stops: Vec<Stop>,
    /// Where it meets the thing that it leads to.
    pub to: Point,
}

/// A level that a link passes, straight up or down.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Stop {
    pub x: f64,
    /// Where it comes to the level.
    pub enters: f64,
    /// Where it leaves it.
    pub leaves: f64,
    /// Its words stand here.
    pub words: bool,
    /// The place, if other links to the same thing pass it as well: from here on they all go the same way.
    pub shared: Option<usize>,
}

/// Something with a place on a level.
#[derive(Debug, Clone, Copy)]
struct Vertex {
    level: usize,
    size: Size,
    /// Of a thing; `None` for the words of a link, and for a link that passes.
    edge: Option<f64>,
}

/// Things, words and passing links on their levels. The first vertices are the things.
#[derive(Debug, Default)]
struct Layered {
    vertices: Vec<Vertex>,
    /// The vertices of each level, from left to right.
    levels: Vec<Vec<usize>>,
    /// From each vertex, those on the next level that a link leads to; each once.
    down: Vec<Vec<usize>>,
    /// And those on the level before.
    up: Vec<Vec<usize>>,
}

/// The vertices that a link passes, from top to bottom, and what it does there.
#[derive(Debug)]
struct Course {
    vertices: Vec<usize>,
    /// Which of them has its words.
    words: usize,
    /// It leads from bottom to top.
    back: bool,
}

/// Places for these things, or nothing when there would be too many. `start` is at the top.
pub(super) fn layout(things: &[Thing], links: &[Link], start: usize) -> Option<Layout> {
    let ranks = rank::ranks(things.len(), links, start);
    let (mut layered, courses) = layered(things, links, &ranks)?;
    order::order(&mut layered);
    let places = place::places(&layered);
    let ports = place::Ports::of(&layered, &places);
    let route = |course: &Course| route(course, &layered, &places, &ports);
    Some(Layout {
        size: places.size,
        nodes: (0..things.len()).map(|node| places.middle(&layered, node)).collect(),
        routes: courses.iter().map(route).collect(),
    })
}

/// The links cut into pieces that reach from one level to the next.
fn layered(things: &[Thing], links: &[Link], ranks: &[usize]) -> Option<(Layered, Vec<Course>)> {
    let mut layered = Layered::default();
    for (thing, rank) in things.iter().zip(ranks) {
        layered.add(Vertex { level: 2 * rank, size: thing.size, edge: Some(thing.edge) });
    }
    // Links to one thing share their way to it, those that come from above and those that come from below.
    let mut shared: HashMap<(usize, bool, usize), usize> = HashMap::new();
    let mut courses = Vec::with_capacity(links.len());
    for link in links {
        let back = ranks[link.from] > ranks[link.to];
        let (top, bottom) = if back { (link.to, link.from) } else { (link.from, link.to) };
        let (first, last) = (2 * ranks[top] + 1, 2 * ranks[bottom] - 1);
        let words_at = if back { last } else { first };
        let mut vertices = vec![top];
        for level in first..=last {
            let passing = Vertex { level, size: Size::default(), edge: None };
            vertices.push(match level == words_at {
                true => layered.add(Vertex { size: link.words, ..passing }),
                false => *shared.entry((link.to, back, level)).or_insert_with(|| layered.add(passing)),
            });
            if layered.vertices.len() > VERTICES_MAX {
                return None;
            }
        }
        vertices.push(bottom);
        vertices.windows(2).for_each(|pair| layered.connect(pair[0], pair[1]));
        courses.push(Course { words: words_at - first + 1, vertices, back });
    }
    Some((layered, courses))
}

fn route(course: &Course, layered: &Layered, places: &place::Places, ports: &place::Ports) -> Route {
    let last = course.vertices.len() - 1;
    let mut stops: Vec<Stop> = (1..last)
        .map(|at| {
            let vertex = course.vertices[at];
            let (top, bottom) = places.level(layered.vertices[vertex].level);
            // A line goes up to the words and on from them, and not through.
            let words = at == course.words && layered.vertices[vertex].size.height > 0.0;
            let shared = (at != course.words).then_some(vertex);
            Stop { x: places.x[vertex], enters: top, leaves: bottom, words, shared }
        })
        .collect();
    let bottom_of_first = places.bottom(layered, course.vertices[0]);
    let top_of_last = places.top(layered, course.vertices[last]);
    let upper = Point { x: ports.below(course.vertices[0], course.vertices[1]), y: bottom_of_first };
    let lower = Point { x: ports.above(course.vertices[last], course.vertices[last - 1]), y: top_of_last };
    if !course.back {
        return Route { from: upper, stops, to: lower };
    }
    stops.reverse();
    for stop in &mut stops {
        std::mem::swap(&mut stop.enters, &mut stop.leaves);
    }
    Route { from: lower, stops, to: upper }
}

impl Layered {
    fn add(&mut self, vertex: Vertex) -> usize {
        let number = self.vertices.len();
        if self.levels.len() <= vertex.level {
            self.levels.resize(vertex.level + 1, Vec::new());
        }
        self.levels[vertex.level].push(number);
        self.vertices.push(vertex);
        self.down.push(Vec::new());
        self.up.push(Vec::new());
        number
    }

    fn connect(&mut self, upper: usize, lower: usize) {
        // Lists are short, but for the things that everything leads to, whose links mostly share their last piece.
        if !self.down[upper].contains(&lower) {
            self.down[upper].push(lower);
            self.up[lower].push(upper);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The room that each thing and each link's words take: left, top, right, bottom.
    fn boxes(things: &[Thing], links: &[Link], layout: &Layout) -> Vec<[f64; 4]> {
        let around = |x: f64, y: f64, size: Size| {
            [x - size.width / 2.0, y - size.height / 2.0, x + size.width / 2.0, y + size.height / 2.0]
        };
        let nodes = things.iter().zip(&layout.nodes).map(|(thing, at)| around(at.x, at.y, thing.size));
        let words = links.iter().zip(&layout.routes).filter_map(|(link, route)| {
            let stop = route.stops.iter().find(|stop| stop.words)?;
            Some(around(stop.x, (stop.enters + stop.leaves) / 2.0, link.words))
        });
        nodes.chain(words).collect()
    }

    fn overlap(a: &[f64; 4], b: &[f64; 4]) -> bool {
        a[0] < b[2] && b[0] < a[2] && a[1] < b[3] && b[1] < a[3]
    }

    fn is_crossed(room: &[f64; 4], stop: &Stop) -> bool {
        let (top, bottom) = (stop.enters.min(stop.leaves), stop.enters.max(stop.leaves));
        room[0] < stop.x && stop.x < room[2] && room[1] < bottom && top < room[3]
    }

    fn thing(size: Size) -> Thing {
        Thing { size, edge: size.width / 2.0 }
    }

    fn graphs() -> impl Strategy<Value = (Vec<Thing>, Vec<Link>)> {
        let size = (10.0..300.0, 10.0..60.0).prop_map(|(width, height)| Size { width, height });
        let nodes = prop::collection::vec(size.clone().prop_map(thing), 1..12);
        nodes.prop_flat_map(move |nodes| {
            let count = nodes.len();
            let words = prop_oneof![Just(Size::default()), size.clone()];
            let links = prop::collection::vec((0..count, 0..count, words), 0..30);
            (Just(nodes), links).prop_map(|(nodes, links)| {
                let mut seen = std::collections::HashSet::new();
                let links = links.into_iter().filter(|(from, to, _)| from != to && seen.insert((*from, *to)));
                let links = links.map(|(from, to, words)| Link { from, to, words }).collect();
                (nodes, links)
            })
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn nothing_lies_over_anything_and_all_of_it_is_in_the_picture((things, links) in graphs()) {
            let layout = layout(&things, &links, 0).unwrap();
            prop_assert_eq!(&layout, &super::layout(&things, &links, 0).unwrap());
            let boxes = boxes(&things, &links, &layout);
            for (number, one) in boxes.iter().enumerate() {
                prop_assert!(one[0] >= 0.0 && one[1] >= 0.0 && one[2] <= layout.size.width && one[3] <= layout.size.height, "{one:?}");
                for other in &boxes[number + 1..] {
                    prop_assert!(!overlap(one, other), "{one:?} {other:?}");
                }
                for route in &layout.routes {
                    for stop in route.stops.iter().filter(|stop| !stop.words) {
                        prop_assert!(!is_crossed(one, stop), "{one:?} {stop:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_chain_of_a_thousand_with_a_common_end_takes_little_and_a_tangle_of_a_thousand_is_given_up() {
        let things = vec![thing(Size { width: 80.0, height: 30.0 }); 1000];
        let words = Size { width: 40.0, height: 12.0 };
        let mut links: Vec<Link> = (1..999).map(|to| Link { from: to - 1, to, words }).collect();
        links.extend((0..998).map(|from| Link { from, to: 999, words }));
        assert!(layout(&things, &links, 0).is_some());
        let tangle =
            (0..999).flat_map(|from| (1..8).map(move |step| (from, (from * 31 + step * 137) % 1000)));
        links.extend(tangle.filter(|(from, to)| from != to).map(|(from, to)| Link { from, to, words }));
        assert_eq!(layout(&things, &links, 0), None);
    }
}
