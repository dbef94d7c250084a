//! The gate: which jobs and attempts hold which keys, who waits for them, and whose turn it is.
//!
//! It is a cache of the jobs as decided: what a job holds or waits for is read from it ([`Gate::put`]) or from its stub
//! ([`Gate::restore`]), and is taken back the same way when a decision comes to nothing. Buckets alone are remembered beside the jobs, since
//! a token is gone when its job is: whoever takes one is told what to store. It promises that no key is ever taken more often than its limit
//! allows, that nobody waits whose turn it is in every key, that nobody is passed for ever, and that a key that nobody has or wants takes no room.
//! Every step costs the logarithm of a line's length, however many wait. It refuses to know what jobs do with their keys.

mod line;
#[cfg(test)]
mod tests;

use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use avtomatika_proto::{JobId, TaskId};

use self::line::{Line, Load, Rank, Room};
use crate::{
    blueprint::{KeyLimit, KeyPolicy, Share},
    engine::{Asked, Claim, Displaced, Hold, Job, KeyScope, Keys, Passage},
    store::{BucketRecord, Stub, StubKeys},
    time::Timestamp,
};

/// Holders of a key that are named to whoever asks.
pub const HOLDERS_NAMED_MAX: usize = 10;

/// Of those in line before a job, so many are counted.
pub const AHEAD_COUNTED_MAX: usize = 1000;

/// How often buckets that are full are forgotten by the store: it looks at all that it has for that.
const FORGET_EVERY: Duration = Duration::from_secs(10);

/// A key: its kind (a rate's period, in microseconds) and its text.
type Name = (Option<u64>, Arc<str>);

/// What one job has to do with keys.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Seat {
    id: JobId,
    priority: i32,
    job: Option<Hold>,
    task: Option<Hold>,
    /// Each attempt takes a token of its own.
    task_id: Option<TaskId>,
    waits: Option<KeyScope>,
    /// Of the keys that it waits for, how many it is not near in: those whose oldest is not to be cancelled, and the others.
    missing: [u32; 2],
}

/// Every key that somebody has or wants.
#[derive(Debug, Default)]
pub(super) struct Gate {
    lines: HashMap<Name, Line>,
    /// By the job's key.
    seats: HashMap<i64, Seat>,
    /// Jobs that are near in every key they wait for.
    open: BTreeSet<Rank>,
    /// Jobs that may be first in line for a key whose oldest holder is to be cancelled for them.
    pushing: BTreeSet<Rank>,
    /// When to look at which bucket again.
    alarms: BTreeSet<(Timestamp, Name)>,
    alarm_of: HashMap<Name, Timestamp>,
    /// Buckets that are emptier than before.
    spent: BTreeSet<Name>,
    depths: HashMap<Name, Duration>,
    /// Buckets were forgotten that the store may still have.
    has_forgotten: bool,
    /// When the store may be told of it.
    forget_at: Option<Timestamp>,
}

/// What is to be done next for those who wait.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Next {
    /// This job has its turn.
    Grant(JobId),
    /// This job has to give up a key.
    Displace(JobId, Displaced),
}

/// One of the keys that a job waits for.
#[derive(Debug, Clone, PartialEq)]
pub struct AwaitedKey {
    /// The key, its limit and its policy.
    pub share: Share,
    /// Whether it is the job's turn here.
    pub has_room: bool,
    /// How many have one at once.
    pub held: u64,
    /// The oldest of these, at most [`HOLDERS_NAMED_MAX`].
    pub holders: Vec<JobId>,
    /// How many stand in line before the job; at most [`AHEAD_COUNTED_MAX`] are counted.
    pub ahead: u64,
    /// How many stand in line.
    pub waiting: u64,
    /// Of a rate: when its bucket will have a token for the first in line.
    pub next_token_at: Option<Timestamp>,
}

fn name_of(share: &Share) -> Name {
    let per = match share.limit {
        KeyLimit::Concurrency(_) => None,
        KeyLimit::Rate(rate) => Some(rate.per.as_micros() as u64),
    };
    (per, share.key.clone())
}

impl Seat {
    fn of(job: &Job) -> Option<Self> {
        job.has_claims().then(|| Self {
            id: job.id,
            priority: job.submission.priority,
            job: job.claim.clone(),
            task: job.task_claim.clone(),
            task_id: job.attempt.as_ref().map(|attempt| attempt.task_id),
            waits: job.awaited_keys(),
            missing: [0; 2],
        })
    }

    fn of_stub(stub: &Stub, keys: &StubKeys) -> Self {
        Self {
            id: stub.id,
            priority: keys.priority,
            job: keys.job.clone(),
            task: keys.task.clone(),
            task_id: stub.task.as_ref().map(|task| task.task_id),
            waits: keys.waits,
            missing: [0; 2],
        }
    }

    fn hold(&self, scope: KeyScope) -> Option<&Hold> {
        match scope {
            KeyScope::Job => self.job.as_ref(),
            KeyScope::Task => self.task.as_ref(),
        }
    }

    /// What it has of this scope.
    fn held(&self, scope: KeyScope) -> Option<&Hold> {
        self.hold(scope).filter(|_| self.waits != Some(scope))
    }

    /// What it waits for, and its place in line.
    fn awaited(&self) -> Option<(Rank, &Hold)> {
        let hold = self.hold(self.waits?)?;
        Some(((Reverse(self.priority), hold.since, self.id.key()), hold))
    }
}

/// Which of the two counts of [`Seat::missing`] is about keys with this policy.
fn pushes(share: &Share) -> usize {
    usize::from(share.policy == KeyPolicy::CancelOldest)
}

impl Keys for Gate {
    fn ask(&self, asked: &Asked<'_>) -> Passage {
        let rank = (Reverse(asked.priority), asked.now, asked.job_id.key());
        let mut passage = Passage::Open;
        for share in &asked.claim.shares {
            match self.room(asked, share, rank) {
                Room::Now => continue,
                Room::None if share.policy == KeyPolicy::RefuseNewest => {
                    return Passage::Refused(share.clone());
                }
                // Beside others, it is a moment until its turn here.
                Room::Beside | Room::None => passage = Passage::Wait,
            }
        }
        passage
    }
}

impl Gate {
    fn room(&self, asked: &Asked<'_>, share: &Share, rank: Rank) -> Room {
        let name = name_of(share);
        let load = Load::of(share);
        let beside =
            asked.beside.is_some_and(|claim| claim.shares.iter().any(|own| own.is_of_same_key(share)));
        let beside = if beside { load.weight() } else { 0 };
        let Some(line) = self.lines.get(&name) else {
            return Line::default().room(load.beside(beside), rank, asked.now, 0);
        };
        let own = self.seats.get(&rank.2).and_then(|seat| seat.held(asked.scope));
        let holds = own.is_some_and(|hold| line.is_held_by(hold.since, rank.2));
        if asked.keeps && holds {
            return Room::Now;
        }
        line.room(load.beside(beside), rank, asked.now, u64::from(holds))
    }

    // ---- What jobs have ----

    /// Takes over what a job holds and waits for, as decided. Tokens are taken by whoever holds more than before. Returns what was here
    /// before, for [`Gate::put_back`].
    pub fn put(&mut self, job: &Job, now: Timestamp) -> Option<Seat> {
        let before = self.seats.get(&job.id.key()).cloned();
        self.change(job.id.key(), Seat::of(job), now, true);
        before
    }

    /// The decision has come to nothing. Tokens that it took are gone all the same, which is safe.
    pub fn put_back(&mut self, id: JobId, before: Option<Seat>, now: Timestamp) {
        self.change(id.key(), before, now, false);
    }

    /// Takes a job from before a restart.
    pub fn restore(&mut self, stub: &Stub, now: Timestamp) {
        if let Some(keys) = &stub.keys {
            self.change(stub.id.key(), Some(Seat::of_stub(stub, keys)), now, false);
        }
    }

    /// Takes a bucket from before a restart. Should the clock have been set back, it is empty and no emptier.
    pub fn restore_bucket(&mut self, bucket: &BucketRecord, now: Timestamp) {
        let full_at = bucket.full_at.min(now + bucket.depth);
        self.has_forgotten = true;
        if full_at <= now {
            return;
        }
        let name = (Some(bucket.per.as_micros() as u64), bucket.key.clone());
        self.depths.insert(name.clone(), bucket.depth);
        self.lines.entry(name.clone()).or_default().set_full_at(full_at);
        self.settle(&name, now, None);
    }

    fn change(&mut self, key: i64, seat: Option<Seat>, now: Timestamp, spends: bool) {
        let before = self.seats.remove(&key);
        if let Some(before) = &before {
            self.stand_aside(before, now);
        }
        for scope in [KeyScope::Job, KeyScope::Task] {
            let (old, new) = (before.as_ref(), seat.as_ref());
            let is_same_attempt = scope == KeyScope::Job
                || old.and_then(|seat| seat.task_id) == new.and_then(|seat| seat.task_id);
            let (old, new) = (old.and_then(|seat| seat.held(scope)), new.and_then(|seat| seat.held(scope)));
            if old == new && is_same_attempt {
                continue;
            }
            if let Some(new) = new {
                self.hold(key, new, now, spends);
            }
            if let Some(old) = old {
                self.let_go(key, old, new, now);
            }
        }
        if let Some(seat) = seat {
            let awaited = seat.awaited().map(|(rank, hold)| (rank, hold.claim.clone()));
            self.seats.insert(key, seat);
            if let Some((rank, claim)) = awaited {
                self.stand_in_line(rank, &claim, now);
            }
        }
    }

    fn hold(&mut self, key: i64, hold: &Hold, now: Timestamp, spends: bool) {
        for share in &hold.claim.shares {
            let name = name_of(share);
            match share.limit {
                KeyLimit::Concurrency(_) => {
                    self.lines.entry(name.clone()).or_default().hold(hold.since, key);
                }
                KeyLimit::Rate(rate) if spends => {
                    self.lines.entry(name.clone()).or_default().spend(Load::of(share), now);
                    self.depths.insert(name.clone(), rate.depth());
                    self.spent.insert(name.clone());
                }
                KeyLimit::Rate(_) => continue,
            }
            self.settle(&name, now, None);
        }
    }

    fn let_go(&mut self, key: i64, hold: &Hold, kept: Option<&Hold>, now: Timestamp) {
        let keeps = |share: &Share| {
            kept.is_some_and(|kept| {
                kept.since == hold.since && kept.claim.shares.iter().any(|own| own.is_of_same_key(share))
            })
        };
        for share in hold.claim.shares.iter().filter(|share| share.is_slot() && !keeps(share)) {
            let name = name_of(share);
            if let Some(line) = self.lines.get_mut(&name) {
                line.let_go(hold.since, key);
            }
            self.settle(&name, now, None);
        }
    }

    // ---- Who waits ----

    fn stand_in_line(&mut self, rank: Rank, claim: &Claim, now: Timestamp) {
        if let Some(seat) = self.seats.get_mut(&rank.2) {
            seat.missing = [0; 2];
            claim.shares.iter().for_each(|share| seat.missing[pushes(share)] += 1);
        }
        for share in &claim.shares {
            let name = name_of(share);
            self.lines.entry(name.clone()).or_default().come(rank, Load::of(share));
            self.settle(&name, now, Some(rank));
        }
        self.look_at(rank);
    }

    fn stand_aside(&mut self, seat: &Seat, now: Timestamp) {
        let Some((rank, hold)) = seat.awaited() else { return };
        self.open.remove(&rank);
        self.pushing.remove(&rank);
        for share in &hold.claim.shares {
            let name = name_of(share);
            if let Some(line) = self.lines.get_mut(&name) {
                line.go(rank);
            }
            self.settle(&name, now, None);
        }
    }

    /// Something about this key has changed: others may be near now, or far.
    fn settle(&mut self, name: &Name, now: Timestamp, came: Option<Rank>) {
        let Some(line) = self.lines.get_mut(name) else { return };
        let moves = line.settle(now, came);
        let (first, is_idle) = (line.first(), line.is_idle(now));
        let alarm = match line.next_near() {
            _ if name.0.is_none() => None,
            None => (line.full_at() > now).then_some(line.full_at()),
            Some(at) => Some(at),
        };
        for (jobs, more) in [(moves.far, true), (moves.near, false)] {
            for job in jobs {
                self.count(job, name, more);
            }
        }
        if let Some(first) = first {
            // Whoever it is may now be the one for whom another has to go.
            self.look_at(first);
        }
        self.set_alarm(name, alarm.filter(|_| !is_idle));
        if is_idle {
            self.lines.remove(name);
            self.depths.remove(name);
            self.has_forgotten |= name.0.is_some();
        }
    }

    fn count(&mut self, job: i64, name: &Name, more: bool) {
        let Some(seat) = self.seats.get_mut(&job) else { return };
        let Some((rank, hold)) = seat.awaited() else { return };
        let Some(share) = hold.claim.shares.iter().find(|share| name_of(share) == *name) else { return };
        let kind = pushes(share);
        seat.missing[kind] = if more { seat.missing[kind] + 1 } else { seat.missing[kind].saturating_sub(1) };
        self.look_at(rank);
    }

    /// Notes whether a job that waits has its turn, or may push.
    fn look_at(&mut self, rank: Rank) {
        let missing = self.seats.get(&rank.2).filter(|seat| seat.waits.is_some()).map(|seat| seat.missing);
        let (is_open, pushes) = match missing {
            Some([0, 0]) => (true, false),
            Some([0, _]) => (false, true),
            _ => (false, false),
        };
        if is_open {
            self.open.insert(rank)
        } else {
            self.open.remove(&rank)
        };
        if pushes {
            self.pushing.insert(rank)
        } else {
            self.pushing.remove(&rank)
        };
    }

    fn set_alarm(&mut self, name: &Name, at: Option<Timestamp>) {
        let before = match at {
            Some(at) => self.alarm_of.insert(name.clone(), at),
            None => self.alarm_of.remove(name),
        };
        if before == at {
            return;
        }
        if let Some(before) = before {
            self.alarms.remove(&(before, name.clone()));
        }
        self.alarms.extend(at.map(|at| (at, name.clone())));
    }

    // ---- Whose turn it is ----

    /// Whether [`Gate::next`] may have something to say.
    pub fn is_busy(&self) -> bool {
        !self.open.is_empty() || !self.pushing.is_empty()
    }

    /// When time brings the next turn, or makes a bucket full.
    pub fn next_due(&self) -> Option<Timestamp> {
        self.alarms.first().map(|(at, _)| *at)
    }

    /// Time has passed.
    pub fn advance(&mut self, now: Timestamp) {
        while let Some((at, name)) = self.alarms.first().cloned()
            && at <= now
        {
            self.set_alarm(&name, None);
            self.settle(&name, now, None);
        }
    }

    /// What is to be done next. It stays so until the job that it is about has been [put](Gate::put) as it then is.
    pub fn next(&mut self) -> Option<Next> {
        if let Some((_, _, key)) = self.open.first() {
            return self.seats.get(key).map(|seat| Next::Grant(seat.id));
        }
        while let Some(rank) = self.pushing.pop_first() {
            if let Some(displaced) = self.displaced_for(rank) {
                self.pushing.insert(rank);
                return Some(displaced);
            }
        }
        None
    }

    /// The one who has to go for this job: of the first key that it is first in line for, the oldest holder.
    fn displaced_for(&self, rank: Rank) -> Option<Next> {
        let seat = self.seats.get(&rank.2)?;
        let (_, hold) = seat.awaited()?;
        hold.claim.shares.iter().filter(|share| pushes(share) == 1).find_map(|share| {
            let name = name_of(share);
            let line = self.lines.get(&name)?;
            if line.is_near(rank) || line.first() != Some(rank) {
                return None;
            }
            let oldest = self.seats.get(&line.holders().next()?)?;
            let has = |scope| {
                let held = oldest.held(scope);
                held.is_some_and(|hold| hold.claim.shares.iter().any(|own| own.is_of_same_key(share)))
            };
            let scope = if has(KeyScope::Task) { KeyScope::Task } else { KeyScope::Job };
            Some(Next::Displace(oldest.id, Displaced { scope, key: share.key.clone(), by: Some(seat.id) }))
        })
    }

    /// This job cannot be read: whoever waits behind it shall not wait for that.
    pub fn give_up(&mut self, id: JobId, now: Timestamp) {
        self.change(id.key(), None, now, false);
    }

    // ---- Buckets ----

    /// Buckets that are emptier than when this was last asked.
    pub fn take_spent(&mut self) -> Vec<BucketRecord> {
        let record = |name: &Name| {
            let (line, depth) = (self.lines.get(name)?, self.depths.get(name)?);
            let per = Duration::from_micros(name.0?);
            Some(BucketRecord { key: name.1.clone(), per, full_at: line.full_at(), depth: *depth })
        };
        let records = self.spent.iter().filter_map(record).collect();
        self.spent.clear();
        records
    }

    /// Whether the store should forget buckets that are full: now and then, if there are such.
    pub fn take_forgotten(&mut self, now: Timestamp) -> bool {
        if !self.has_forgotten || self.forget_at.is_some_and(|at| at > now) {
            return false;
        }
        self.forget_at = Some(now + FORGET_EVERY);
        std::mem::take(&mut self.has_forgotten)
    }

    /// Whether a job waits for keys.
    pub fn stands_in_line(&self, id: JobId) -> bool {
        self.seats.get(&id.key()).is_some_and(|seat| seat.awaited().is_some())
    }

    // ---- For people ----

    /// The keys that a job waits for, and what for; `None` when it waits for none.
    pub fn awaited(&self, id: JobId, now: Timestamp) -> Option<(KeyScope, Vec<AwaitedKey>)> {
        let seat = self.seats.get(&id.key())?;
        let (scope, (rank, hold)) = seat.waits.zip(seat.awaited())?;
        let key = |share: &Share| {
            let line = self.lines.get(&name_of(share))?;
            let holders = line.holders().take(HOLDERS_NAMED_MAX);
            let holders = holders.filter_map(|key| self.seats.get(&key).map(|seat| seat.id)).collect();
            Some(AwaitedKey {
                share: share.clone(),
                has_room: line.is_near(rank),
                held: line.held() as u64,
                holders,
                ahead: line.ahead(rank, AHEAD_COUNTED_MAX) as u64,
                waiting: line.len() as u64,
                next_token_at: line.next_near().filter(|_| !share.is_slot()).map(|at| at.max(now)),
            })
        };
        Some((scope, hold.claim.shares.iter().filter_map(key).collect()))
    }
}
