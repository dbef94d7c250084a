//! A blueprint that changes while jobs of it run, and jobs that are moved from one of its versions to another.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, LazyLock},
};

use avtomatika_orchestrator::{
    blueprint::{Change, Definition, Registry, load},
    conductor::Move,
    engine::{HistoryEntry, HistoryEvent, Job, Wait},
    store::{BlueprintRecord, Store},
};
use avtomatika_proto::JobId;

use crate::{
    faults::SECOND,
    invariants::{Checked, Invariant as I, require},
    process::Asked,
    sometimes::Sometimes as S,
    world::{Happening, World},
};

/// Its name.
pub const NAME: &str = "moving";

/// Jobs that are moved at once, at most.
const PAGE_MAX: usize = 16;

/// Definitions that take turns: states come and go, wait for something else, or for the same in another way.
const TEXTS: [&str; 4] = [
    "
  first: { start: true, task: { type: cut, params: { n: '${initial_data.n}' }, timeout: 5s, retry: { max_retries: 2, initial_delay: 100ms, max_delay: 1s } }, on: { success: second, failure: second } }
  second: { event: { name: go, deadline: 5s }, on: { received: third, timeout: third } }
  third: { wait: 2s, next: fourth }
  fourth: { approval: { deadline: 5s }, on: { yes: done, no: bad, timeout: bad } }
",
    "
  first: { start: true, task: { type: cut, params: { m: '${initial_data.n}' }, timeout: 5s, retry: { max_retries: 2, initial_delay: 100ms, max_delay: 1s } }, on: { success: second, failure: fourth } }
  second: { event: { name: go, deadline: 8s }, on: { received: fourth, timeout: bad } }
  fourth: { task: { type: mix, timeout: 5s, retry: { max_retries: 2, initial_delay: 100ms, max_delay: 1s } }, on: { success: done }, catch: { CAUGHT: done } }
",
    "
  zero: { start: true, wait: 1s, next: first }
  first: { task: { type: send, params: { n: '${initial_data.n}' }, timeout: 5s, retry: { max_retries: 2, initial_delay: 100ms, max_delay: 1s } }, on: { success: third, failure: bad } }
  third: { approval: { deadline: 5s }, on: { yes: fourth, no: bad, timeout: fourth } }
  fourth: { wait: 3s, next: done }
",
    "
  first: { start: true, map: { over: 'initial_data.items', max_parallel: 2, tolerate: 9, task: { type: cut, timeout: 5s, retry: { max_retries: 2, initial_delay: 100ms, max_delay: 1s } } }, on: { success: second, failure: bad } }
  second: { wait: 1s, next: third }
  third: { event: { name: stop, deadline: 4s }, on: { received: done, timeout: done } }
",
];

/// As they are stored.
static EDITIONS: LazyLock<Vec<Arc<str>>> = LazyLock::new(|| {
    let edition = |states: &&str| {
        let text = format!(
            "blueprint: {NAME}\nmax_transitions: 12\nstates:{states}  done: {{ end: finished }}\n  bad: {{ end: failed }}\n"
        );
        let loaded = load("moving.yaml", &text).unwrap_or_else(|findings| panic!("{findings:?}"));
        loaded.definition.canonical().clone()
    };
    TEXTS.iter().map(edition).collect()
});

fn definition(canonical: &str) -> Definition {
    Definition::from_canonical(canonical).unwrap_or_else(|findings| panic!("{findings:?}"))
}

/// The first edition, as the version that there is from the beginning.
pub fn add_first(registry: &mut Registry) {
    registry.add(Arc::new(definition(&EDITIONS[0]).into_blueprint(1)), true);
}

/// What is known of versions and of jobs that have moved.
#[derive(Default)]
pub struct Versions {
    /// The version of each blueprint that somebody was told is in force.
    in_force: HashMap<Arc<str>, u32>,
    /// Which job has ever moved to which version.
    moved: HashSet<(JobId, u32)>,
}

impl Versions {
    /// A version that new jobs of this blueprint have at least.
    pub fn least(&self, name: &str) -> u32 {
        self.in_force.get(name).copied().unwrap_or(1)
    }

    /// A version is durable: the next one of its name, whatever crashed in between.
    pub fn put(registry: &mut Arc<Registry>, record: &BlueprintRecord) -> Checked {
        let last = registry.newest(&record.name).map_or(0, |blueprint| blueprint.version);
        require(record.version == last + 1, I::VersionsStay, || {
            format!("version {} of {} is stored after version {last}", record.version, record.name)
        })?;
        let blueprint = definition(&record.definition).into_blueprint(record.version);
        Arc::make_mut(registry).add(Arc::new(blueprint), true);
        Ok(())
    }

    /// A job has changed: unless it has moved, it keeps its version; and wherever it stands, its version has that state.
    pub fn changed(&mut self, before: &Job, job: &Job, entries: &[HistoryEntry], law: &Registry) -> Checked {
        let moves = entries.iter().any(|entry| entry.event == HistoryEvent::JobMigrated);
        let keeps = before.blueprint_version == job.blueprint_version;
        require(keeps != moves, I::VersionsStay, || {
            format!("{before:?} has version {} from now on", job.blueprint_version)
        })?;
        if moves {
            self.moved.insert((job.id, job.blueprint_version));
        }
        let version = law.version(&job.blueprint, job.blueprint_version);
        let stands = version.is_some_and(|version| version.state(&job.state).is_some());
        require(stands, I::StandsInItsVersion, || format!("{job:?} stands where its version has no state"))
    }
}

/// The version that a job had before this entry, or has from it on.
fn version_in(entry: &HistoryEntry, place: usize) -> Option<u32> {
    let detail = entry.detail.as_deref().filter(|_| entry.event == HistoryEvent::JobMigrated)?;
    detail.split_whitespace().filter_map(|word| word.parse().ok()).nth(place)
}

/// The versions that a job had, entry by entry.
pub fn versions_of(job: &Job, history: &[HistoryEntry]) -> Vec<u32> {
    let first = history.iter().find_map(|entry| version_in(entry, 0));
    let mut version = first.unwrap_or(job.blueprint_version);
    let of_entry = |entry: &HistoryEntry| {
        version = version_in(entry, 1).unwrap_or(version);
        version
    };
    history.iter().map(of_entry).collect()
}

impl World {
    /// The blueprints as the disk has them: whatever was stored is what the model saw.
    pub fn stored_registry(&self) -> Arc<Registry> {
        let mut registry = (*self.registry).clone();
        let stored = self.disk.synced().blueprints().unwrap_or_default();
        for record in &stored {
            let known = self.model.registry().version(&record.name, record.version);
            let known = known.filter(|known| known.definition == record.definition);
            let blueprint = known.unwrap_or_else(|| panic!("nobody stored {record:?}")).clone();
            registry.add(blueprint, true);
        }
        Arc::new(registry)
    }

    /// Somebody changes the blueprint.
    pub fn puts_blueprint(&mut self) -> Checked {
        if self.is_calm {
            return Ok(());
        }
        let pause = self.random.between(SECOND / 2, 5 * SECOND);
        self.after(pause, Happening::Put);
        let edition = self.random.pick(&EDITIONS).clone();
        let Some(up) = self.process.up.as_mut() else { return Ok(()) };
        let answer = up.conductor.put(definition(&edition));
        up.asked.push(Asked::Put { answer });
        self.take_in()
    }

    /// That is in force, they say.
    pub fn is_in_force(&mut self, changes: &[Change]) -> Checked {
        for change in changes {
            let Some(version) = change.after else { continue };
            let durable = self.model.registry().version(&change.name, version).is_some();
            require(durable, I::VersionsStay, || format!("{change} is in force and not durable"))?;
            self.model.versions.in_force.insert(change.name.clone(), version);
            self.model.met.mark(S::BlueprintPut);
        }
        Ok(())
    }

    /// Somebody moves jobs that do not have this version yet, as they were when they were looked at.
    pub fn migrates(&mut self) -> Checked {
        if self.is_calm {
            return Ok(());
        }
        let pause = self.random.between(SECOND / 2, 5 * SECOND);
        self.after(pause, Happening::Migrate);
        let newest = self.model.registry().newest(NAME).map_or(1, |blueprint| blueprint.version);
        let version = self.random.between(1, i64::from(newest)) as u32;
        let client = self.random.pick(&self.clients).clone();
        let jobs = self.model.jobs.values().rev().map(|known| &known.job);
        let concerned = jobs.filter(|job| {
            &*job.blueprint == NAME
                && job.client == client
                && job.blueprint_version != version
                && (!job.status.is_terminal() || job.status.is_repairable())
        });
        let jobs: Vec<Arc<Job>> = concerned.take(PAGE_MAX).cloned().collect();
        let moves: Vec<Move> = jobs.iter().filter_map(|job| self.draw_move(job, version)).collect();
        let Some(up) = self.process.up.as_mut().filter(|_| !moves.is_empty()) else { return Ok(()) };
        let answer = up.conductor.migrate(&client, moves, version);
        up.asked.push(Asked::Migrate { version, answer });
        self.take_in()
    }

    fn draw_move(&mut self, job: &Job, version: u32) -> Option<Move> {
        let target = self.model.registry().version(NAME, version)?.clone();
        let failed = job.failed_state.as_ref().filter(|_| job.status.is_terminal());
        let state = failed.unwrap_or(&job.state).clone();
        let to_state = match job.wait {
            Some(Wait::Start) => target.start.clone(),
            _ if self.random.chance(400) => {
                let names: BTreeMap<_, _> = target.states.keys().map(|name| (name.clone(), ())).collect();
                let names: Vec<Arc<str>> = names.into_keys().collect();
                self.random.pick(&names).clone()
            }
            _ => state.clone(),
        };
        Some(Move { job_id: job.id, version: job.blueprint_version, state, to_state, refused: None })
    }

    /// What became of them, they say.
    pub fn has_migrated(&mut self, moves: &[Move], version: u32) -> Checked {
        for done in moves {
            if let Some(refusal) = &done.refused {
                self.model.met.mark(match refusal {
                    avtomatika_orchestrator::engine::Refusal::HasGoneOn => S::GoneOn,
                    _ => S::NotMigrated,
                });
                continue;
            }
            let durable = self.model.versions.moved.contains(&(done.job_id, version));
            require(durable, I::SeenIsDurable, || format!("{done:?} is done and not durable"))?;
            self.model.met.mark(S::Migrated);
        }
        Ok(())
    }
}
