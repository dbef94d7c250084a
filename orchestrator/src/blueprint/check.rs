//! The lint: what the states of a blueprint mean together.
//!
//! The loader has read every state by itself. Here transitions are followed: to states that exist, from the one start, to an end,
//! and never in a circle that no worker interrupts. Shape errors hide what lies behind them, so the ways are followed only
//! when every transition leads somewhere.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::{
    RunState, StateKind, WaitState, WaitUntil,
    finding::{Findings, Position, did_you_mean, shown},
    states::{Draft, DraftState},
};

/// Checks the states together and returns the start, if there is exactly one.
pub(super) fn check(draft: &Draft, findings: &mut Findings) -> Option<Arc<str>> {
    if draft.states.is_empty() {
        if !findings.any_error() {
            findings.error(
                draft.at,
                "the blueprint has no states",
                "add a start and an end, see docs/blueprints.md",
            );
        }
        return None;
    }
    let start = check_start(draft, findings);
    let places: HashMap<&str, usize> =
        draft.states.iter().enumerate().map(|(place, state)| (&*state.name, place)).collect();
    let links_resolve = check_links(draft, &places, findings);
    let complete = draft.states.iter().all(|state| state.kind.is_some());
    if links_resolve && complete {
        let ways: Vec<Vec<usize>> = draft
            .states
            .iter()
            .map(|state| state.links.iter().filter_map(|link| places.get(&*link.to).copied()).collect())
            .collect();
        check_ends(draft, &ways, start, findings);
        check_circles(draft, &ways, findings);
    }
    start.map(|place| draft.states[place].name.clone())
}

fn check_start(draft: &Draft, findings: &mut Findings) -> Option<usize> {
    let mut starts =
        draft.states.iter().enumerate().filter_map(|(place, state)| Some((place, state, state.start_at?)));
    let Some((place, first, first_at)) = starts.next() else {
        let likely = draft.states.first().map_or("init", |state| &*state.name);
        findings.error(
            draft.at,
            "no state is the start",
            format!("add `start: true` to one, perhaps to `{likely}`"),
        );
        return None;
    };
    let mut only = true;
    for (_, state, at) in starts {
        only = false;
        findings.error(
            at,
            format!(
                "state `{}` is a second start beside `{}`{}",
                state.name,
                first.name,
                first_at.in_brackets()
            ),
            "keep `start: true` in one of them",
        );
    }
    only.then_some(place)
}

fn check_links(draft: &Draft, places: &HashMap<&str, usize>, findings: &mut Findings) -> bool {
    let names = draft.states.iter().map(|state| &*state.name);
    let mut resolve = true;
    for link in
        draft.states.iter().flat_map(|state| &state.links).filter(|link| !places.contains_key(&*link.to))
    {
        resolve = false;
        findings.error(
            link.at,
            format!("there is no state `{}`", shown(&link.to)),
            did_you_mean(&link.to, names.clone()),
        );
    }
    resolve
}

/// Every state can be reached from the start, and an end from every state.
fn check_ends(draft: &Draft, ways: &[Vec<usize>], start: Option<usize>, findings: &mut Findings) {
    let reached = start.map(|start| reachable(ways, [start]));
    if let Some(reached) = &reached {
        for (_, state) in draft.states.iter().enumerate().filter(|(place, _)| !reached.contains(place)) {
            findings.error(
                state.at,
                format!("no transition leads to state `{}`", state.name),
                "let a transition lead to it, or remove it",
            );
        }
    }
    let ends: Vec<usize> = places_of(draft, |kind| matches!(kind, StateKind::End(_)));
    if ends.is_empty() {
        findings.error(draft.at, "no state ends the job", "add one, as in `completed: { end: finished }`");
        return;
    }
    let mut back = vec![Vec::new(); ways.len()];
    for (from, ways) in ways.iter().enumerate() {
        for to in ways {
            back[*to].push(from);
        }
    }
    let ending = reachable(&back, ends);
    let stuck = |place: &usize| {
        !ending.contains(place) && reached.as_ref().is_none_or(|reached| reached.contains(place))
    };
    for state in (0..ways.len()).filter(stuck).map(|place| &draft.states[place]) {
        findings.error(
            state.at,
            format!("no way leads from state `{}` to an end", state.name),
            "add a transition towards an end state",
        );
    }
}

/// Whether a job leaves such a state as soon as it enters it, at least the second time.
fn is_instant(kind: &StateKind) -> bool {
    match kind {
        StateKind::Choice(_) | StateKind::Pass(_) => true,
        StateKind::Run(RunState { waits, .. }) => !waits,
        StateKind::Wait(WaitState { until: WaitUntil::Time(_), .. }) => true,
        _ => false,
    }
}

/// `results` is what a map leaves behind. Without a map it is always empty, which nobody wants to look at.
pub(super) fn check_results(draft: &Draft, looks: &[Position], findings: &mut Findings) {
    let may_be_map =
        |state: &DraftState| state.kind.as_ref().is_none_or(|kind| matches!(kind, StateKind::Map(_)));
    if draft.states.iter().any(may_be_map) {
        return;
    }
    for at in looks {
        findings.warning(
            *at,
            "`results` is what the branches of a map end with, and this blueprint has no map",
            "look at `result`, the data of the last task",
        );
    }
}

/// A circle of states that wait for nobody would go round until the job is stopped.
fn check_circles(draft: &Draft, ways: &[Vec<usize>], findings: &mut Findings) {
    let instant: HashSet<usize> = places_of(draft, is_instant).into_iter().collect();
    let mut done: HashSet<usize> = HashSet::new();
    for start in 0..ways.len() {
        if !instant.contains(&start) || done.contains(&start) {
            continue;
        }
        // Depth first, with the present way on a stack of (state, next way to try).
        let mut way: Vec<(usize, usize)> = vec![(start, 0)];
        while let Some((place, tried)) = way.last_mut() {
            let place = *place;
            let next = ways[place].get(*tried).copied();
            *tried += 1;
            match next {
                None => {
                    done.insert(place);
                    way.pop();
                }
                Some(next) if !instant.contains(&next) || done.contains(&next) => {}
                Some(next) => match way.iter().position(|(on_way, _)| *on_way == next) {
                    Some(first) => {
                        report_circle(draft, way[first..].iter().map(|(place, _)| *place), findings)
                    }
                    None => way.push((next, 0)),
                },
            }
        }
    }
}

fn report_circle(draft: &Draft, circle: impl Iterator<Item = usize>, findings: &mut Findings) {
    const SHOWN_MAX: usize = 10;
    let states: Vec<&DraftState> = circle.map(|place| &draft.states[place]).collect();
    let Some(first) = states.first() else { return };
    let mut names: Vec<&str> = states.iter().take(SHOWN_MAX).map(|state| &*state.name).collect();
    if states.len() > SHOWN_MAX {
        names.push("…");
    }
    names.push(&first.name);
    findings.error(
        first.at,
        format!("unbounded loop {}", names.join("→")),
        "put a task into it, or let it end",
    );
}

fn places_of(draft: &Draft, is: impl Fn(&StateKind) -> bool) -> Vec<usize> {
    let places = draft.states.iter().enumerate();
    places.filter(|(_, state)| state.kind.as_ref().is_some_and(&is)).map(|(place, _)| place).collect()
}

fn reachable(ways: &[Vec<usize>], from: impl IntoIterator<Item = usize>) -> HashSet<usize> {
    let mut open: Vec<usize> = from.into_iter().collect();
    let mut reached: HashSet<usize> = open.iter().copied().collect();
    while let Some(place) = open.pop() {
        for next in &ways[place] {
            if reached.insert(*next) {
                open.push(*next);
            }
        }
    }
    reached
}
