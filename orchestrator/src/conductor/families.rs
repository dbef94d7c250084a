//! Families: parents and the children that they wait for.
//!
//! A parent's children are started a slice at a time, as many at once as its state allows, and when all have ended the parent is
//! told once. What is here follows from the stored jobs: which children there are from their keys, which run from the book, how
//! they ended from the store; so a crash between any two steps loses nothing, and [`Families::restore`] makes it again. It promises
//! never to hold up the conductor for more than a slice, to look at a parent's data a few times however many its children are, and
//! that a child whose parent no longer waits for it is cancelled.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    ops::{ControlFlow, Range},
    sync::Arc,
};

use avtomatika_proto::JobId;

use super::{
    BATCH_MAX,
    core::{AGAIN_AFTER, Core},
    crowd::Crowd,
};
use crate::{
    engine::{
        ChildResult, ChildSpec, Children, Event, Harvest, Job, JobError, Plan, RESULTS_BYTES_MAX,
        child_result, children_of, code, plan, unknown,
    },
    museum::{Mistake, plants},
    store::{Store, StoreError, Stub},
    time::Timestamp,
};

/// Children that are started, or read, in one go: about a millisecond.
const SLICE: u32 = 128;

/// A family's children are computed in so many goes at most, if they are many: each of them parses the parent's data anew.
const GOES_MAX: u32 = 8;

/// Bytes of results of children that are kept until their parents have them all. What is not kept is read again.
const KEPT_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Bytes of children that are computed and not started yet. What is not kept is computed again.
const PREPARED_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Every family with a parent that waits.
#[derive(Default)]
pub(super) struct Families {
    /// By the key of the first child.
    by_first: BTreeMap<i64, Family>,
    /// Families with something to do.
    todo: VecDeque<i64>,
    /// Families whose parents have gone on as decided, and not yet as stored.
    stalled: BTreeSet<i64>,
    /// Children that nobody waits for.
    orphans: VecDeque<JobId>,
    /// Children beyond the limits of open jobs.
    crowd: Crowd,
    kept_bytes: usize,
    prepared_bytes: usize,
    /// When to go on, while there is no room or the store cannot be read.
    pub paused_until: Option<Timestamp>,
}

/// How the children of a job are doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChildCounts {
    /// How many there are to be.
    pub total: u32,
    /// Of these, how many were started.
    pub started: u32,
    /// Of those, how many have not ended.
    pub running: u32,
    /// Of those that ended, how many are known to have failed. Those that failed before a restart are counted only at the end.
    pub failed: u32,
    /// How many may run, and how many may fail; `None` until the parent has been looked at.
    pub plan: Option<Plan>,
}

/// One parent and its children.
struct Family {
    parent: JobId,
    children: Children,
    /// `None` until the parent has been looked at.
    plan: Option<Plan>,
    origin: Option<Origin>,
    /// How deep the parent is nested.
    depth: u32,
    /// The children from number `started` on, as far as they have been computed.
    prepared: VecDeque<ChildSpec>,
    /// Children 0 to this exist.
    started: u32,
    /// Of these, children that have not ended.
    running: u32,
    /// Children that are known to have failed.
    failed: u32,
    /// Children of before a restart that have not been looked at since.
    unread: Range<u32>,
    /// What those ended with that ended while this process watched, or that were read since.
    results: BTreeMap<u32, ChildResult>,
    result_bytes: usize,
    /// All results before this one are there.
    gathered: u32,
    /// Whether its children are called back.
    is_called_back: bool,
    queued: bool,
}

/// Where the children of a job come from.
#[derive(Debug, Clone)]
pub(super) struct Origin {
    job_id: JobId,
    client: Arc<str>,
    blueprint: Arc<str>,
    blueprint_version: u32,
}

impl Origin {
    pub fn of(job: &Job) -> Self {
        Self {
            job_id: job.id,
            client: job.client.clone(),
            blueprint: job.blueprint.clone(),
            blueprint_version: job.blueprint_version,
        }
    }
}

impl Family {
    fn of(parent: JobId, children: Children) -> Self {
        Self {
            parent,
            children,
            plan: None,
            origin: None,
            depth: 0,
            prepared: VecDeque::new(),
            started: 0,
            running: 0,
            failed: 0,
            unread: 0..0,
            results: BTreeMap::new(),
            result_bytes: 0,
            gathered: 0,
            is_called_back: false,
            queued: false,
        }
    }

    fn keys(&self) -> Range<i64> {
        keys_of(&self.children)
    }

    /// More failed than is tolerated: the others need not run.
    fn has_failed(&self) -> bool {
        self.plan.is_some_and(|plan| self.failed > plan.tolerated)
    }

    /// Children that may be started now.
    fn wanted(&self) -> u32 {
        let room = self.plan.map_or(0, |plan| plan.max_parallel.saturating_sub(self.running));
        if self.has_failed() { 0 } else { room.min(self.children.total - self.started) }
    }

    fn is_over(&self) -> bool {
        self.running == 0 && (self.started == self.children.total || self.has_failed())
    }

    fn prepared_bytes(&self) -> usize {
        self.prepared.iter().map(bytes_of_spec).sum()
    }
}

/// The keys of these children.
pub(super) fn keys_of(children: &Children) -> Range<i64> {
    let first = children.first.key();
    first..first + i64::from(children.total)
}

fn bytes_of(result: &ChildResult) -> usize {
    size_of::<ChildResult>() + result.data.as_ref().map_or(0, |data| data.as_str().len())
}

fn bytes_of_spec(spec: &ChildSpec) -> usize {
    size_of::<ChildSpec>() + spec.submission.initial_data.as_str().len()
}

impl Families {
    /// Whether there is something to do.
    pub fn is_busy(&self) -> bool {
        !self.todo.is_empty() || !self.orphans.is_empty() || self.crowd.is_somebodys_turn()
    }

    /// Makes the families again from the stubs of all open jobs. Returns the largest key that is promised to a child.
    pub fn restore(&mut self, stubs: &[Stub], store: &dyn Store) -> Result<i64, StoreError> {
        let mut last = 0;
        for stub in stubs {
            let Some(children) = &stub.children else { continue };
            let mut family = Family::of(stub.id, children.clone());
            let keys = family.keys();
            last = last.max(keys.end - 1);
            let newest = store.last_key_between(keys.clone())?;
            family.started = newest.map_or(0, |newest| (newest - keys.start + 1) as u32);
            family.unread = 0..family.started;
            self.insert(family);
        }
        for stub in stubs {
            let Some(parent) = stub.parent else { continue };
            match self.family_of(stub.id).filter(|family| family.parent == parent) {
                Some(family) => family.running += 1,
                None => self.orphans.push_back(stub.id),
            }
        }
        Ok(last)
    }

    fn insert(&mut self, family: Family) {
        let key = family.children.first.key();
        self.by_first.insert(key, family);
        self.enqueue(key);
    }

    fn enqueue(&mut self, key: i64) {
        if let Some(family) = self.by_first.get_mut(&key).filter(|family| !family.queued) {
            family.queued = true;
            self.todo.push_back(key);
        }
    }

    /// Decisions have been undone: parents that seemed to have gone on may wait again.
    pub fn look_again(&mut self) {
        for key in std::mem::take(&mut self.stalled) {
            self.enqueue(key);
        }
    }

    /// There may be room for families that found none.
    pub fn look_for_room(&mut self) {
        for key in self.crowd.look_at_some() {
            self.enqueue(key);
        }
    }

    /// The family to which a child belongs.
    fn family_of(&mut self, child: JobId) -> Option<&mut Family> {
        let (_, family) = self.by_first.range_mut(..=child.key()).next_back()?;
        family.keys().contains(&child.key()).then_some(family)
    }

    /// How these children are doing; `None` when nobody waits for them any more, or not yet.
    pub fn counts(&self, children: &Children) -> Option<ChildCounts> {
        let family =
            self.by_first.get(&children.first.key()).filter(|family| family.children == *children)?;
        Some(ChildCounts {
            total: children.total,
            started: family.started,
            running: family.running,
            failed: family.failed,
            plan: family.plan,
        })
    }

    /// Whether somebody waits for this job, so that it must not be forgotten.
    pub fn needs(&self, child: JobId) -> bool {
        let nearest = self.by_first.range(..=child.key()).next_back();
        nearest.is_some_and(|(_, family)| family.keys().contains(&child.key()))
    }

    fn remove(&mut self, key: i64) -> Option<Family> {
        self.stalled.remove(&key);
        let family = self.by_first.remove(&key)?;
        self.kept_bytes -= family.result_bytes;
        self.prepared_bytes -= family.prepared_bytes();
        Some(family)
    }

    /// Notes how a child has ended.
    fn note(&mut self, key: i64, index: u32, result: ChildResult, must_keep: bool) {
        let Some(family) = self.by_first.get_mut(&key) else { return };
        let bytes = bytes_of(&result);
        if must_keep || self.kept_bytes + bytes <= KEPT_BYTES_MAX {
            self.kept_bytes += bytes;
            family.result_bytes += bytes;
            family.results.insert(index, result);
        }
    }

    /// A child's end is durable.
    fn ended(&mut self, child: &Job) {
        let Some(family) = self.family_of(child.id) else { return };
        let key = family.children.first.key();
        let index = (child.id.key() - key) as u32;
        family.running = family.running.saturating_sub(1);
        // It will be read with the others of before the restart.
        if !family.unread.contains(&index) {
            let result = child_result(child);
            family.failed += u32::from(result.failed);
            self.note(key, index, result, false);
        }
        self.enqueue(key);
    }

    fn forget_prepared(&mut self, key: i64) {
        let Some(family) = self.by_first.get_mut(&key) else { return };
        self.prepared_bytes -= family.prepared_bytes();
        // With its memory.
        family.prepared = VecDeque::new();
    }
}

impl Core {
    /// A job begins to wait for its children; that is durable.
    pub fn start_children(&mut self, job: &Job) {
        if let Some(children) = job.children() {
            self.families.insert(Family::of(job.id, children.clone()));
        }
    }

    /// A job no longer waits for these; that is durable.
    pub fn cancel_children(&mut self, children: &Children) {
        self.families.remove(children.first.key());
        self.families.orphans.extend(self.book.open_between(keys_of(children)));
    }

    /// A job's end is durable: whoever waits for it is told.
    pub fn child_ended(&mut self, job: &Job) {
        self.families.crowd.ended(job.id);
        if job.waiting_parent().is_some() {
            self.families.ended(job);
        }
    }

    /// A child that was to be started could not be stored.
    pub fn child_undone(&mut self, job: &Job) {
        self.families.crowd.ended(job.id);
        let Some(family) = self.families.family_of(job.id).filter(|_| job.waiting_parent().is_some()) else {
            return;
        };
        let key = family.children.first.key();
        family.started = family.started.min((job.id.key() - key) as u32);
        family.running = family.running.saturating_sub(1);
        self.families.forget_prepared(key);
        self.families.enqueue(key);
    }

    /// Starts, cancels and gathers children for as long as there is something to do and room in the batch.
    pub fn tend_families(&mut self, now: Timestamp) {
        if self.families.paused_until.is_some_and(|until| until > now) {
            return;
        }
        self.families.paused_until = None;
        while self.batch.afterwards.len() < BATCH_MAX
            && let Some(orphan) = self.families.orphans.pop_front()
        {
            self.let_go(orphan);
        }
        for key in self.families.crowd.turns() {
            self.families.enqueue(key);
        }
        // Each family has its turn, so that a large one does not hold up the others.
        for _ in 0..self.families.todo.len() {
            if self.batch.afterwards.len() >= BATCH_MAX {
                return;
            }
            let Some(key) = self.families.todo.pop_front() else { return };
            if let Some(family) = self.families.by_first.get_mut(&key) {
                family.queued = false;
            }
            match self.tend_family(key) {
                Ok(()) => {}
                // Nothing but a repair helps it; after a restart it is looked at again.
                Err(error @ StoreError::Corrupt { .. }) => {
                    tracing::error!(%error, hint = error.hint(), "a job that waits for its children cannot be read");
                }
                Err(error) => {
                    tracing::error!(%error, hint = error.hint(), "the children of a job cannot be read");
                    self.families.enqueue(key);
                    self.families.paused_until = Some(now + AGAIN_AFTER);
                    return;
                }
            }
        }
    }

    /// Cancels a child that nobody waits for. One that a human has started again is on its own.
    fn let_go(&mut self, orphan: JobId) {
        let reason = Some(Arc::from("nobody waits for it any more"));
        let event = Event::CancelRequested { reason };
        match self.load(orphan) {
            Ok(Some(job)) if job.waiting_parent().is_some() => self.notice_of(&job, event),
            Ok(_) => {}
            Err(_) => self.notice(orphan, event),
        }
    }

    fn tend_family(&mut self, key: i64) -> Result<(), StoreError> {
        let Some(family) = self.families.by_first.get(&key) else { return Ok(()) };
        if family.plan.is_none() && !self.prepare(key)? {
            return Ok(());
        }
        let Some(family) = self.families.by_first.get(&key) else { return Ok(()) };
        if !family.unread.is_empty() {
            return self.read_some(key);
        }
        if family.wanted() > 0 {
            self.start_some(key)?;
        }
        let Some(family) = self.families.by_first.get_mut(&key) else { return Ok(()) };
        if family.has_failed() && family.running > 0 {
            // Once is enough: no other begins.
            if !std::mem::replace(&mut family.is_called_back, true) {
                let running = self.book.open_between(family.keys());
                self.families.orphans.extend(running);
            }
            return Ok(());
        }
        if family.is_over() { self.harvest(key) } else { Ok(()) }
    }

    /// Sees to it that the next children of a family are computed. Returns whether its parent still waits for them.
    fn prepare(&mut self, key: i64) -> Result<bool, StoreError> {
        let Some(family) = self.families.by_first.get(&key) else { return Ok(false) };
        let resident = self.book.resident(family.parent);
        if resident.is_some_and(|job| job.children() != Some(&family.children)) {
            // It has gone on, or will when that is durable.
            self.families.stalled.insert(key);
            return Ok(false);
        }
        if family.plan.is_some() && !family.prepared.is_empty() {
            return Ok(true);
        }
        let parent = match resident {
            Some(job) => Some(job.clone()),
            None => self.store.load(family.parent)?.map(Arc::new),
        };
        let parent = parent.filter(|job| job.children() == Some(&family.children));
        let blueprint =
            parent.as_ref().and_then(|job| self.blueprints.version(&job.blueprint, job.blueprint_version));
        let (Some(parent), Some(blueprint)) = (parent, blueprint) else {
            // It has gone on, and its children were cancelled.
            self.families.remove(key);
            return Ok(false);
        };
        let (plan, from) = (plan(&parent, blueprint), family.started);
        let count = SLICE.max(family.children.total.div_ceil(GOES_MAX));
        let prepared = VecDeque::from(children_of(&parent, blueprint, from, count));
        let is_short = prepared.is_empty() && from < family.children.total || plan.is_none();
        let Some(family) = self.families.by_first.get_mut(&key) else { return Ok(false) };
        family.plan = plan;
        family.origin = Some(Origin::of(&parent));
        family.depth = parent.depth();
        family.prepared = prepared;
        self.families.prepared_bytes += family.prepared_bytes();
        if is_short {
            // Hardly possible: the parent was decided with the same version of its blueprint.
            let message =
                "The children can no longer be computed, though they could when their state was entered";
            let error = JobError { code: code::EXPRESSION.into(), message: message.into() };
            self.tell_parent(key, Err(error));
        }
        Ok(!is_short)
    }

    /// Starts the next children of a family.
    fn start_some(&mut self, key: i64) -> Result<(), StoreError> {
        if !self.prepare(key)? {
            return Ok(());
        }
        let origin = self.families.by_first.get(&key).and_then(|family| family.origin.as_ref());
        let is_full = origin.is_some_and(|origin| self.check_room(&origin.client).is_err());
        let Some(family) = self.families.by_first.get_mut(&key) else { return Ok(()) };
        let mut wanted = family.wanted().min(family.prepared.len() as u32).min(SLICE);
        // A full house takes a few children of those who are in it, one for each, so that all get on.
        if is_full {
            if wanted > 0 && family.running > 0 {
                self.families.crowd.wait_for_room(key);
                return Ok(());
            }
            wanted = wanted.min(1);
            if wanted > 0 && !self.families.crowd.has_place(family.depth) {
                self.families.crowd.wait(key, family.depth);
                return Ok(());
            }
        }
        let specs: Vec<ChildSpec> = family.prepared.drain(..wanted as usize).collect();
        if family.prepared.len() < family.prepared.capacity() / 2 {
            family.prepared.shrink_to_fit();
        }
        family.started += wanted;
        family.running += wanted;
        let (more, origin, depth) = (family.wanted() > 0, family.origin.clone(), family.depth);
        // It was made with the first of them.
        let Some(origin) = origin else { return Ok(()) };
        self.families.prepared_bytes -= specs.iter().map(bytes_of_spec).sum::<usize>();
        if self.families.prepared_bytes > PREPARED_BYTES_MAX {
            self.families.forget_prepared(key);
        }
        for spec in specs {
            if is_full {
                self.families.crowd.begins(spec.id, depth);
            }
            self.start_child(&origin, spec);
        }
        if more && wanted > 0 {
            self.families.enqueue(key);
        }
        Ok(())
    }

    /// Puts a child's first step into the batch.
    pub fn start_child(&mut self, parent: &Origin, spec: ChildSpec) {
        let ChildSpec { id, blueprint: name, state, submission, mut error } = spec;
        let own = self.blueprints.version(&parent.blueprint, parent.blueprint_version).cloned();
        let blueprint = match &name {
            None => own,
            Some(name) => self.blueprints.newest(name).cloned().or_else(|| {
                error.get_or_insert_with(|| unknown(name));
                own
            }),
        };
        // The parent's own blueprint is there: the parent has just been decided with it.
        let Some(blueprint) = blueprint else { return };
        let mut job =
            Job::accepted(id, parent.client.clone(), &blueprint, Arc::new(submission), self.clock.now());
        if name.is_none() {
            job.state = state;
        }
        let event = error.map_or(Event::Submitted, Event::Stillborn);
        if let Err(refusal) = self.decide_first(&job, event, None) {
            // A new job refuses nothing.
            tracing::error!("Child {id} of job {} could not be started: {refusal}", parent.job_id);
        }
    }

    /// Reads how children of before a restart have ended, as far as they have: failures count before another begins.
    fn read_some(&mut self, key: i64) -> Result<(), StoreError> {
        let Some(family) = self.families.by_first.get(&key) else { return Ok(()) };
        let from = family.unread.start;
        let slice = from..family.unread.end.min(from + SLICE);
        // The end of one that is open here will be told when it has been performed, whatever the store has by now.
        let ended: Vec<u32> =
            slice.clone().filter(|index| !self.book.contains(family.children.child(*index))).collect();
        let ids: Vec<JobId> = ended.iter().map(|index| family.children.child(*index)).collect();
        let results = self.results_of(&ids)?;
        let read_to = ended.get(results.len()).copied().unwrap_or(slice.end);
        if let Some(family) = self.families.by_first.get_mut(&key) {
            family.unread.start = read_to;
            family.failed += results.iter().filter(|result| result.failed).count() as u32;
        }
        for (index, result) in ended.into_iter().zip(results) {
            self.families.note(key, index, result, false);
        }
        self.families.enqueue(key);
        Ok(())
    }

    /// What these children ended with: the first of them at least, if there is one.
    fn results_of(&self, ids: &[JobId]) -> Result<Vec<ChildResult>, StoreError> {
        let mut results = Vec::with_capacity(ids.len());
        let outcome = self.store.load_many(ids, &mut |_, job| {
            results.push(job.as_ref().map_or_else(lost_child, child_result));
            ControlFlow::Continue(())
        });
        match outcome {
            Err(error @ StoreError::Corrupt { .. }) if results.len() < ids.len() => {
                tracing::error!(
                    "Job {} cannot be read, so its parent takes it for failed: {error}",
                    ids[results.len()]
                );
                results.push(lost_child());
            }
            Err(error) if results.is_empty() => return Err(error),
            _ => {}
        }
        Ok(results)
    }

    /// All children have ended: reads how, a slice at a time, and tells the parent.
    fn harvest(&mut self, key: i64) -> Result<(), StoreError> {
        let Some(family) = self.families.by_first.get(&key) else { return Ok(()) };
        let (mut missing, mut gathered) = (Vec::new(), family.gathered);
        while gathered < family.started && missing.len() < SLICE as usize {
            missing.extend((!family.results.contains_key(&gathered)).then_some(gathered));
            gathered += 1;
        }
        let ids: Vec<JobId> = missing.iter().map(|index| family.children.child(*index)).collect();
        let results = if ids.is_empty() { Vec::new() } else { self.results_of(&ids)? };
        let gathered = missing.get(results.len()).copied().unwrap_or(gathered);
        for (index, result) in missing.into_iter().zip(results) {
            self.families.note(key, index, result, true);
        }
        let Some(family) = self.families.by_first.get_mut(&key) else { return Ok(()) };
        family.gathered = gathered;
        let too_large =
            family.result_bytes > RESULTS_BYTES_MAX + family.results.len() * size_of::<ChildResult>();
        if too_large {
            let message = format!("The results of the branches have more than {RESULTS_BYTES_MAX} bytes");
            let error = JobError { code: code::DATA_TOO_LARGE.into(), message: message.into() };
            self.tell_parent(key, Err(error));
        } else if gathered < family.started {
            self.families.enqueue(key);
        } else {
            let (total, mut results) = (family.children.total, std::mem::take(&mut family.results));
            let results =
                (0..total).map(|index| results.remove(&index).unwrap_or_else(not_started)).collect();
            self.tell_parent(key, Ok(results));
        }
        Ok(())
    }

    /// The family is no more; its parent goes on.
    fn tell_parent(&mut self, key: i64, results: Result<Vec<ChildResult>, JobError>) {
        let Some(family) = self.families.remove(key) else { return };
        let harvest = Harvest { first: family.children.first, results };
        let event = Event::ChildrenEnded(harvest);
        if plants(Mistake::ParentResumedTwice) {
            self.notice(family.parent, event.clone());
        }
        self.notice(family.parent, event);
    }
}

/// A child that the store does not have, or cannot read. Nothing removes one that is waited for.
fn lost_child() -> ChildResult {
    let message = "The child cannot be read from the store".into();
    let error = JobError { code: code::CHILD_FAILED.into(), message };
    ChildResult { outcome: "failure".into(), failed: true, data: None, error: Some(error) }
}

/// A child that was not needed any more when its turn came.
fn not_started() -> ChildResult {
    ChildResult { outcome: "cancelled".into(), failed: true, data: None, error: None }
}
