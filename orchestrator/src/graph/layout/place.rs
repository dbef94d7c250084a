//! From order to places: each vertex as near to the middle of what it is linked to as its neighbours allow, and level below level.

use std::collections::HashMap;

use super::{Layered, Point, Size};

/// Room around the whole.
const MARGIN: f64 = 16.0;

/// Room between two neighbours of a level.
const GAP: f64 = 18.0;

/// Room between two levels at least.
const LEVEL_GAP: f64 = 20.0;

/// Times that the levels are gone through.
const SWEEPS: usize = 48;

/// How much a passing link wants to be straight, against a thing or words.
const STRAIGHTNESS: f64 = 40.0;

/// Where the vertices and levels are.
pub(super) struct Places {
    pub x: Vec<f64>,
    /// Top and bottom of each level.
    levels: Vec<(f64, f64)>,
    pub size: Size,
}

impl Places {
    pub fn level(&self, level: usize) -> (f64, f64) {
        self.levels[level]
    }

    pub fn middle(&self, layered: &Layered, vertex: usize) -> Point {
        let (top, bottom) = self.levels[layered.vertices[vertex].level];
        Point { x: self.x[vertex], y: (top + bottom) / 2.0 }
    }

    pub fn top(&self, layered: &Layered, vertex: usize) -> f64 {
        self.middle(layered, vertex).y - layered.vertices[vertex].size.height / 2.0
    }

    pub fn bottom(&self, layered: &Layered, vertex: usize) -> f64 {
        self.middle(layered, vertex).y + layered.vertices[vertex].size.height / 2.0
    }
}

/// Places for everything.
pub(super) fn places(layered: &Layered) -> Places {
    let mut x = vec![0.0; layered.vertices.len()];
    for level in &layered.levels {
        let mut left = 0.0;
        for &vertex in level {
            let width = layered.vertices[vertex].size.width;
            x[vertex] = left + width / 2.0;
            left += width + GAP;
        }
    }
    let count = layered.levels.len();
    for sweep in 0..SWEEPS {
        for step in 0..count {
            let level = if sweep % 2 == 0 { step } else { count - 1 - step };
            // The last times, both sides count.
            let both = sweep + 4 >= SWEEPS;
            pull(layered, level, (both || sweep % 2 == 0, both || sweep % 2 == 1), &mut x);
        }
    }
    let half = |vertex: usize| layered.vertices[vertex].size.width / 2.0;
    let left = (0..x.len()).map(|vertex| x[vertex] - half(vertex)).fold(f64::INFINITY, f64::min);
    x.iter_mut().for_each(|x| *x += MARGIN - left);
    let right = (0..x.len()).map(|vertex| x[vertex] + half(vertex)).fold(0.0, f64::max);
    let levels = levels(layered, &x);
    let bottom = levels.last().map_or(0.0, |(_, bottom)| *bottom);
    Places { x, levels, size: Size { width: right + MARGIN, height: bottom + MARGIN } }
}

/// Moves the vertices of a level towards what they are linked to above and below, as far as order and room allow.
fn pull(layered: &Layered, level: usize, (above, below): (bool, bool), x: &mut [f64]) {
    let vertices = &layered.levels[level];
    let mut offset = 0.0;
    // Where each wants to be, were all of them points; how much it matters; and how much room those before it take.
    let mut wishes = Vec::with_capacity(vertices.len());
    for (place, &vertex) in vertices.iter().enumerate() {
        let width = |vertex: usize| layered.vertices[vertex].size.width;
        if place > 0 {
            offset += (width(vertices[place - 1]) + width(vertex)) / 2.0 + GAP;
        }
        let (mut sum, mut weight) = (0.0, 0.0);
        for (counts, linked) in [(above, &layered.up[vertex]), (below, &layered.down[vertex])] {
            for &other in linked.iter().filter(|_| counts) {
                let straight = [vertex, other].iter().all(|&end| layered.vertices[end].edge.is_none());
                let share = if straight { STRAIGHTNESS } else { 1.0 };
                sum += share * x[other];
                weight += share;
            }
        }
        let (wish, weight) = if weight > 0.0 { (sum / weight, weight) } else { (x[vertex], 0.1) };
        wishes.push((wish - offset, weight, offset));
    }
    for (&vertex, place) in vertices.iter().zip(nearest_in_order(&wishes)) {
        x[vertex] = place;
    }
}

/// The places nearest to what is wished, by the sum of squares, that keep their order: neighbours that get in each other's way share
/// the middle of their wishes.
fn nearest_in_order(wishes: &[(f64, f64, f64)]) -> Vec<f64> {
    // Groups of neighbours: where they are, how much they matter, how many they are.
    let mut groups: Vec<(f64, f64, usize)> = Vec::new();
    for &(wish, weight, _) in wishes {
        let mut group = (wish, weight, 1);
        while let Some(&(before, its_weight, its_count)) = groups.last()
            && before > group.0
        {
            groups.pop();
            let both = its_weight + group.1;
            group = ((before * its_weight + group.0 * group.1) / both, both, its_count + group.2);
        }
        groups.push(group);
    }
    let places = groups.into_iter().flat_map(|(place, _, count)| std::iter::repeat_n(place, count));
    places.zip(wishes).map(|(place, (.., offset))| place + offset).collect()
}

/// Top and bottom of each level: as high as what stands on it, and further apart where links go far to the side.
fn levels(layered: &Layered, x: &[f64]) -> Vec<(f64, f64)> {
    let mut levels = Vec::with_capacity(layered.levels.len());
    let mut top = MARGIN;
    for vertices in &layered.levels {
        let height = vertices.iter().map(|&vertex| layered.vertices[vertex].size.height).fold(0.0, f64::max);
        levels.push((top, top + height));
        let aside = vertices
            .iter()
            .flat_map(|&vertex| layered.down[vertex].iter().map(move |&lower| (x[vertex] - x[lower]).abs()));
        top += height + LEVEL_GAP + (aside.fold(0.0, f64::max) / 12.0).min(2.0 * LEVEL_GAP);
    }
    levels
}

/// Where links leave and meet things: side by side along their edges, in the order of where they go.
pub(super) struct Ports {
    x: HashMap<(usize, usize), f64>,
}

impl Ports {
    pub fn of(layered: &Layered, places: &Places) -> Self {
        let mut x = HashMap::new();
        for (vertex, of) in layered.vertices.iter().enumerate() {
            for linked in [&layered.down[vertex], &layered.up[vertex]] {
                let mut linked = linked.clone();
                linked.sort_by(|&a, &b| places.x[a].total_cmp(&places.x[b]));
                let room = of.edge.unwrap_or(0.0);
                let count = linked.len() as f64;
                for (place, other) in linked.into_iter().enumerate() {
                    let aside = room * ((place as f64 + 0.5) / count - 0.5);
                    x.insert((vertex, other), places.x[vertex] + aside);
                }
            }
        }
        Self { x }
    }

    /// Where the link from a vertex to one below it leaves.
    pub fn below(&self, vertex: usize, lower: usize) -> f64 {
        self.x.get(&(vertex, lower)).copied().unwrap_or_default()
    }

    /// Where the link from a vertex to one above it leaves.
    pub fn above(&self, vertex: usize, upper: usize) -> f64 {
        self.x.get(&(vertex, upper)).copied().unwrap_or_default()
    }
}
