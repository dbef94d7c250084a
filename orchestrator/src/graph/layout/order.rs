//! From left to right on each level, so that few links cross: each goes to the middle of what it is linked to, again and again, and
//! the best order is kept.

use super::Layered;

/// Times that the levels are gone through. More hardly ever finds better.
const SWEEPS: usize = 12;

/// Orders the vertices of each level.
pub(super) fn order(layered: &mut Layered) {
    let mut at = vec![0; layered.vertices.len()];
    number(layered, &mut at);
    let mut best = (crossings(layered, &at), layered.levels.clone());
    for sweep in 0..SWEEPS {
        let down = sweep % 2 == 0;
        let count = layered.levels.len();
        for step in 1..count {
            let level = if down { step } else { count - 1 - step };
            sort(layered, level, down, &mut at);
        }
        let crossed = crossings(layered, &at);
        if crossed < best.0 {
            best = (crossed, layered.levels.clone());
        }
        if best.0 == 0 {
            break;
        }
    }
    layered.levels = best.1;
}

fn number(layered: &Layered, at: &mut [usize]) {
    for level in &layered.levels {
        for (place, &vertex) in level.iter().enumerate() {
            at[vertex] = place;
        }
    }
}

/// Sorts a level by the middle of what its vertices are linked to, above or below. One that is linked to nothing there stays
/// about where it is.
fn sort(layered: &mut Layered, level: usize, down: bool, at: &mut [usize]) {
    let mut vertices = std::mem::take(&mut layered.levels[level]);
    let linked = |vertex: usize| if down { &layered.up[vertex] } else { &layered.down[vertex] };
    let mut keyed: Vec<(f64, usize)> = vertices
        .iter()
        .map(|&vertex| {
            let linked = linked(vertex);
            let sum: usize = linked.iter().map(|&other| at[other]).sum();
            let middle = if linked.is_empty() { at[vertex] as f64 } else { sum as f64 / linked.len() as f64 };
            (middle, vertex)
        })
        .collect();
    // Stable: equals stay as they are.
    keyed.sort_by(|a, b| a.0.total_cmp(&b.0));
    vertices.clear();
    for (place, (_, vertex)) in keyed.into_iter().enumerate() {
        at[vertex] = place;
        vertices.push(vertex);
    }
    layered.levels[level] = vertices;
}

/// How often links cross.
fn crossings(layered: &Layered, at: &[usize]) -> u64 {
    let mut crossed = 0;
    for pair in layered.levels.windows(2) {
        // How many links so far end at each place of the lower level, as a tree of sums.
        let mut ends = vec![0_u64; pair[1].len() + 1];
        let mut total = 0;
        for &upper in &pair[0] {
            let mut places: Vec<usize> = layered.down[upper].iter().map(|&lower| at[lower]).collect();
            places.sort_unstable();
            for &place in &places {
                crossed += total - sum_to(&ends, place + 1);
            }
            for &place in &places {
                total += 1;
                add(&mut ends, place + 1);
            }
        }
    }
    crossed
}

fn add(tree: &mut [u64], mut place: usize) {
    while place < tree.len() {
        tree[place] += 1;
        place += place & place.wrapping_neg();
    }
}

fn sum_to(tree: &[u64], mut place: usize) -> u64 {
    let mut sum = 0;
    while place > 0 {
        sum += tree[place];
        place -= place & place.wrapping_neg();
    }
    sum
}
