//! The gate by itself: jobs of every kind come, wait, hold, are cancelled and come to nothing, time passes, and everything is made again
//! from what would be stored. After each step a plain account of the jobs says what must be true.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::{
    blueprint::{Rate, load},
    engine::{Attempt, JobStatus, Submission, Wait},
    json::Json,
};

const START: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);

/// A time in which a waiting job must have had its turn if all others go: longer than it takes to fill any bucket here.
const LONG: Duration = Duration::from_secs(3600);

fn slot(key: &str, limit: u32, policy: KeyPolicy) -> Share {
    Share { key: key.into(), limit: KeyLimit::Concurrency(limit), policy }
}

fn token(key: &str, count: u32, burst: u32) -> Share {
    let rate = Rate { count, per: Duration::from_secs(10), burst };
    Share { key: key.into(), limit: KeyLimit::Rate(rate), policy: KeyPolicy::Queue }
}

/// Jobs and their gate, as the conductor has them.
struct House {
    gate: Gate,
    jobs: BTreeMap<i64, Job>,
    /// What the store has of buckets.
    buckets: BTreeMap<(Arc<str>, Duration), BucketRecord>,
    /// When tokens were taken, by key, with the time that each stands for and the depth of its bucket.
    taken: BTreeMap<Arc<str>, Vec<(Timestamp, Duration, Duration)>>,
    now: Timestamp,
    made: u64,
    template: Job,
}

impl House {
    fn new() -> Self {
        let text = "blueprint: b\nstates: { a: { start: true, task: { type: t }, on: { success: z } }, z: { end: finished } }";
        let blueprint = load("b.yaml", text).unwrap().definition.into_blueprint(1);
        let submission = Arc::new(Submission::of(Json::empty()));
        let id = JobId::compose(START.as_unix_ms(), 0, 0);
        let template = Job::accepted(id, "acme".into(), &blueprint, submission, START);
        Self {
            gate: Gate::default(),
            jobs: BTreeMap::new(),
            buckets: BTreeMap::new(),
            taken: BTreeMap::new(),
            now: START,
            made: 0,
            template,
        }
    }

    /// A job with this claim comes. Returns its key, or nothing when it is refused.
    fn come(&mut self, priority: i32, scope: KeyScope, shares: Vec<Share>) -> Option<i64> {
        self.made += 1;
        let mut job = self.template.clone();
        job.id = JobId::compose(START.as_unix_ms() + self.made, 0, self.made);
        job.submission = Arc::new(Submission { priority, ..Submission::of(Json::empty()) });
        let claim = Claim { shares };
        let asked = Asked {
            job_id: job.id,
            priority,
            now: self.now,
            scope,
            claim: &claim,
            beside: None,
            keeps: false,
        };
        let passage = self.gate.ask(&asked);
        if let Passage::Refused(_) = passage {
            return None;
        }
        let hold = Hold { claim: Arc::new(claim), since: self.now };
        match scope {
            KeyScope::Job => job.claim = Some(hold),
            KeyScope::Task => job.task_claim = Some(hold),
        }
        match passage {
            Passage::Open => self.hold(job.clone(), scope),
            _ => {
                job.wait = Some(Wait::Keys(scope));
                job.status = JobStatus::WaitingForKey;
                self.put(job.clone());
            }
        }
        Some(job.id.key())
    }

    /// The job has what it claims.
    fn hold(&mut self, mut job: Job, scope: KeyScope) {
        job.wait = None;
        let hold = match scope {
            KeyScope::Job => job.claim.as_mut(),
            KeyScope::Task => job.task_claim.as_mut(),
        };
        let hold = hold.expect("it claims something");
        hold.since = self.now;
        let claim = hold.claim.clone();
        self.made += 1;
        job.status = JobStatus::WaitingForWorker;
        job.attempt = Some(Attempt {
            task_id: TaskId::from_random(u128::from(self.made)),
            task_type: "t".into(),
            needs: None,
            number: 1,
            ready_at: self.now,
        });
        for share in &claim.shares {
            if let KeyLimit::Rate(rate) = share.limit {
                let taken = self.taken.entry(share.key.clone()).or_default();
                taken.push((self.now, rate.interval(), rate.depth()));
            }
        }
        self.put(job);
    }

    fn put(&mut self, job: Job) {
        self.gate.put(&job, self.now);
        self.jobs.insert(job.id.key(), job);
        for bucket in self.gate.take_spent() {
            self.buckets.insert((bucket.key.clone(), bucket.per), bucket);
        }
    }

    fn end(&mut self, key: i64) {
        let Some(mut job) = self.jobs.remove(&key) else { return };
        (job.claim, job.task_claim, job.wait) = (None, None, None);
        self.gate.put(&job, self.now);
    }

    /// What the conductor does as long as there is something to do.
    fn tend(&mut self) {
        self.gate.advance(self.now);
        for _ in 0..10_000 {
            match self.gate.next() {
                None => return,
                Some(Next::Grant(id)) => {
                    let job = self.jobs[&id.key()].clone();
                    let scope = job.awaited_keys().expect("only who waits gets its turn");
                    self.hold(job, scope);
                }
                Some(Next::Displace(id, displaced)) => {
                    let job = &self.jobs[&id.key()];
                    let hold = job.claim_for(displaced.scope).expect("it has what it is to lose");
                    assert!(hold.claim.shares.iter().any(|share| share.key == displaced.key));
                    assert!(job.awaited_keys().is_none());
                    self.end(id.key());
                }
            }
        }
        panic!("there is no end to it");
    }

    /// The process is killed, and another one begins with what is stored. The clock may be set back meanwhile.
    fn restart(&mut self, back: Duration) {
        self.now = Timestamp::from_micros(self.now.as_micros() - back.as_micros() as i64);
        self.gate = Gate::default();
        for job in self.jobs.values() {
            self.gate.restore(&Stub::of(job).expect("it is open"), self.now);
        }
        self.buckets.values().for_each(|bucket| self.gate.restore_bucket(bucket, self.now));
        if back > Duration::ZERO {
            // What was taken by another clock cannot be reckoned by this one; what is taken from now on can.
            self.taken.clear();
        }
    }

    // ---- What must be true ----

    fn holders(&self, key: &str) -> Vec<&Share> {
        let held = self.jobs.values().flat_map(|job| {
            [KeyScope::Job, KeyScope::Task]
                .into_iter()
                .filter(|scope| job.awaited_keys() != Some(*scope))
                .filter_map(|scope| job.claim_for(scope))
                .flat_map(|hold| &hold.claim.shares)
        });
        held.filter(|share| share.is_slot() && &*share.key == key).collect()
    }

    fn check(&self) {
        for key in ["a", "b", "c"] {
            let holders = self.holders(key);
            let largest = holders.iter().map(|share| match share.limit {
                KeyLimit::Concurrency(limit) => limit as usize,
                KeyLimit::Rate(_) => 0,
            });
            assert!(holders.len() <= largest.max().unwrap_or(0), "key {key} is held by {}", holders.len());
            let line = self.gate.lines.get(&(None, key.into()));
            assert_eq!(line.map_or(0, Line::held), holders.len(), "key {key}");
        }
        for (key, taken) in &self.taken {
            // In no span more than the bucket held plus what came meanwhile.
            for (first, (from, ..)) in taken.iter().enumerate() {
                let mut sum = Duration::ZERO;
                for (at, interval, depth) in &taken[first..] {
                    sum += *interval;
                    assert!(sum <= *depth + at.saturating_since(*from), "too many tokens of {key}");
                }
            }
        }
        let waiting = self.jobs.values().filter(|job| job.awaited_keys().is_some()).count();
        let in_line: usize = self.gate.seats.values().filter(|seat| seat.waits.is_some()).count();
        assert_eq!(waiting, in_line);
    }

    /// Nobody waits whose turn it is in every key.
    fn check_nobody_waits_in_vain(&self) {
        assert!(!self.gate.is_busy(), "{:?} {:?}", self.gate.open, self.gate.pushing);
        let lines = self.gate.lines.iter();
        for (name, line) in lines {
            if let Some(first) = line.first() {
                let seat = &self.gate.seats[&first.2];
                let is_first_everywhere = seat.awaited().is_some_and(|(rank, hold)| {
                    hold.claim
                        .shares
                        .iter()
                        .all(|share| self.gate.lines[&name_of(share)].first() == Some(rank))
                });
                let has_room = seat.awaited().is_some_and(|(_, hold)| {
                    hold.claim.shares.iter().all(|share| {
                        let line = &self.gate.lines[&name_of(share)];
                        match share.limit {
                            KeyLimit::Concurrency(limit) => line.held() < limit as usize,
                            KeyLimit::Rate(rate) => {
                                line.full_at().saturating_since(self.now) + rate.interval() <= rate.depth()
                            }
                        }
                    })
                });
                assert!(!(is_first_everywhere && has_room), "{name:?} has room, and its first waits");
            }
        }
    }

    fn check_empty(&self) {
        let gate = &self.gate;
        assert!(gate.seats.is_empty() && gate.lines.is_empty() && gate.open.is_empty(), "{gate:?}");
        assert!(gate.pushing.is_empty() && gate.alarms.is_empty() && gate.alarm_of.is_empty(), "{gate:?}");
        assert!(gate.depths.is_empty() && gate.spent.is_empty(), "{gate:?}");
    }
}

#[derive(Debug, Clone)]
enum Step {
    Come { priority: i32, scope: KeyScope, shares: Vec<Share> },
    End(usize),
    Undo(usize),
    LoseWorker(usize),
    Pass(u64),
    Restart(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let policy = proptest::sample::select(&KeyPolicy::ALL[..]);
    let key = proptest::sample::select(&["a", "b", "c"][..]);
    let slot = (key.clone(), 1_u32..4, policy).prop_map(|(key, limit, policy)| slot(key, limit, policy));
    let token = (key, 1_u32..4, 1_u32..4).prop_map(|(key, count, burst)| token(key, count, burst));
    let share = prop_oneof![3 => slot, 1 => token];
    let shares = proptest::collection::vec(share, 1..4).prop_map(|shares| {
        let mut once: Vec<Share> = Vec::new();
        for share in shares {
            if !once.iter().any(|known| known.is_of_same_key(&share)) {
                once.push(share);
            }
        }
        once
    });
    let scope = prop_oneof![Just(KeyScope::Job), Just(KeyScope::Task)];
    let come =
        (-1..2, scope, shares).prop_map(|(priority, scope, shares)| Step::Come { priority, scope, shares });
    let step = prop_oneof![
        6 => come,
        4 => any::<usize>().prop_map(Step::End),
        1 => any::<usize>().prop_map(Step::Undo),
        1 => any::<usize>().prop_map(Step::LoseWorker),
        2 => (0_u64..8_000_000).prop_map(Step::Pass),
        1 => prop_oneof![Just(0_u64), 0_u64..100_000_000].prop_map(Step::Restart),
    ];
    proptest::collection::vec(step, 1..60)
}

fn nth(house: &House, number: usize) -> Option<i64> {
    let count = house.jobs.len();
    (count > 0).then(|| *house.jobs.keys().nth(number % count).expect("it is among them"))
}

fn take(house: &mut House, step: Step) {
    match step {
        Step::Come { priority, scope, shares } => drop(house.come(priority, scope, shares)),
        Step::End(number) => {
            if let Some(key) = nth(house, number) {
                house.end(key);
            }
        }
        // The end of a job comes to nothing: it has again what it had.
        Step::Undo(number) => {
            if let Some(key) = nth(house, number) {
                let job = house.jobs[&key].clone();
                let mut ended = job.clone();
                (ended.claim, ended.task_claim, ended.wait) = (None, None, None);
                let before = house.gate.put(&ended, house.now);
                house.gate.put_back(job.id, before, house.now);
            }
        }
        // The attempt is replaced by another one, which has the slots of the first and needs tokens of its own.
        Step::LoseWorker(number) => {
            if let Some(key) = nth(house, number) {
                let job = house.jobs[&key].clone();
                lose_worker(house, job);
            }
        }
        Step::Pass(micros) => house.now = house.now + Duration::from_micros(micros),
        Step::Restart(back) => house.restart(Duration::from_micros(back)),
    }
}

fn lose_worker(house: &mut House, mut job: Job) {
    let (None, Some(hold)) = (job.awaited_keys(), job.task_claim.clone()) else { return };
    let asked = Asked {
        job_id: job.id,
        priority: job.submission.priority,
        now: house.now,
        scope: KeyScope::Task,
        claim: &hold.claim,
        beside: None,
        keeps: true,
    };
    match house.gate.ask(&asked) {
        Passage::Open => {
            let since = hold.since;
            house.made += 1;
            let attempt = job.attempt.as_mut().expect("it has an attempt");
            attempt.task_id = TaskId::from_random(u128::from(house.made));
            for share in &hold.claim.shares {
                if let KeyLimit::Rate(rate) = share.limit {
                    let taken = house.taken.entry(share.key.clone()).or_default();
                    taken.push((house.now, rate.interval(), rate.depth()));
                }
            }
            job.task_claim = Some(Hold { since, ..hold });
            house.put(job);
        }
        Passage::Wait => {
            job.task_claim = Some(Hold { since: house.now, ..hold });
            (job.attempt, job.wait) = (None, Some(Wait::Keys(KeyScope::Task)));
            house.put(job);
        }
        Passage::Refused(_) => house.end(job.id.key()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn no_key_is_exceeded_nobody_waits_in_vain_and_nothing_is_left(steps in steps()) {
        let mut house = House::new();
        for step in steps {
            take(&mut house, step);
            house.check();
            house.tend();
            house.check();
            house.check_nobody_waits_in_vain();
        }
        // Nobody is passed for ever: as the others end, every one of them gets its turn.
        for _ in 0..200 {
            house.now = house.now + LONG;
            house.tend();
            house.check();
            let holder = house.jobs.values().find(|job| job.awaited_keys().is_none()).map(|job| job.id.key());
            match holder {
                Some(key) => house.end(key),
                // Whoever had a token was made to go, and the next one comes with time.
                None if house.gate.next_due().is_some() => {}
                None => break,
            }
        }
        prop_assert!(house.jobs.is_empty(), "somebody still waits: {:?}", house.gate);
        house.now = house.now + LONG;
        house.tend();
        house.check_empty();
    }
}

#[test]
fn those_in_line_go_by_priority_then_age() {
    let mut house = House::new();
    let come = |house: &mut House, priority| {
        house.now = house.now + Duration::from_millis(1);
        house.come(priority, KeyScope::Job, vec![slot("a", 1, KeyPolicy::Queue)]).unwrap()
    };
    let keys = [0, 0, 5, 0, -5].map(|priority| come(&mut house, priority));
    let mut order = Vec::new();
    for _ in 0..keys.len() {
        house.tend();
        let holder = house.jobs.values().find(|job| job.awaited_keys().is_none()).unwrap().id.key();
        order.push(keys.iter().position(|key| *key == holder).unwrap());
        house.end(holder);
    }
    assert_eq!(order, [0, 2, 1, 3, 4]);
    house.tend();
    house.check_empty();
}

#[test]
fn one_that_waits_for_two_keys_is_not_passed_and_does_not_hold_up_those_for_whom_there_is_room() {
    let mut house = House::new();
    let a = |limit| slot("a", limit, KeyPolicy::Queue);
    let of_b = house.come(0, KeyScope::Task, vec![slot("b", 1, KeyPolicy::Queue)]).unwrap();
    let both = house.come(0, KeyScope::Task, vec![a(2), slot("b", 1, KeyPolicy::Queue)]).unwrap();
    let [first, second] = [0; 2].map(|_| house.come(0, KeyScope::Task, vec![a(2)]).unwrap());
    house.tend();
    let waits = |house: &House, key: i64| house.jobs[&key].awaited_keys().is_some();
    assert!(!waits(&house, first), "there is room for it and for the one before it");
    assert!(waits(&house, both) && waits(&house, second), "the last place of `a` is kept");
    house.end(of_b);
    house.tend();
    assert!(!waits(&house, both) && waits(&house, second));
    assert_eq!(house.gate.awaited(house.jobs[&second].id, house.now).unwrap().1[0].ahead, 0);
}

#[test]
fn nobody_is_refused_for_the_sake_of_one_before_it_where_there_is_room_for_both() {
    let mut house = House::new();
    let shares = |own: &str| vec![slot(own, 1, KeyPolicy::Queue), slot("c", 3, KeyPolicy::RefuseNewest)];
    let come = |house: &mut House, own: &str| {
        let key = house.come(0, KeyScope::Job, shares(own));
        house.tend();
        key.map(|key| house.jobs[&key].awaited_keys().is_none())
    };
    assert_eq!(come(&mut house, "a"), Some(true));
    assert_eq!(come(&mut house, "a"), Some(false), "it waits for the one before it");
    assert_eq!(come(&mut house, "b"), Some(true), "it does not");
    assert_eq!(come(&mut house, "d"), None, "the last place is for the one that waits");
}

#[test]
fn the_newest_takes_the_key_from_the_oldest_once_for_each() {
    let mut house = House::new();
    let newest = |house: &mut House| {
        house.now = house.now + Duration::from_millis(1);
        house.come(0, KeyScope::Job, vec![slot("a", 2, KeyPolicy::CancelOldest)]).unwrap()
    };
    let keys = [(); 4].map(|()| newest(&mut house));
    house.tend();
    let left: Vec<i64> = house.jobs.keys().copied().collect();
    assert_eq!(left, keys[2..]);
    // One that cannot have another key costs nobody this one.
    house.come(0, KeyScope::Job, vec![slot("b", 1, KeyPolicy::Queue)]).unwrap();
    let shares = vec![slot("a", 2, KeyPolicy::CancelOldest), slot("b", 1, KeyPolicy::Queue)];
    house.come(0, KeyScope::Job, shares).unwrap();
    house.tend();
    assert!(keys[2..].iter().all(|key| house.jobs.contains_key(key)));
}

#[test]
fn a_bucket_is_as_empty_after_a_restart_and_after_a_clock_that_was_set_back() {
    let mut house = House::new();
    let come = |house: &mut House| house.come(0, KeyScope::Task, vec![token("a", 10, 2)]).unwrap();
    let [first, second, third] = [(); 3].map(|()| come(&mut house));
    let waits = |house: &House, key: i64| house.jobs[&key].awaited_keys().is_some();
    assert!(!waits(&house, first) && !waits(&house, second) && waits(&house, third));
    house.end(first);
    house.tend();
    assert!(waits(&house, third), "an end gives no token back");
    for back in [0, 5] {
        house.restart(Duration::from_secs(back));
        house.tend();
        assert!(waits(&house, third), "nor does a restart");
        let next = house.gate.awaited(house.jobs[&third].id, house.now).unwrap().1[0].next_token_at;
        let latest = house.now + Duration::from_secs(if back == 0 { 1 } else { 2 });
        assert!(next.is_some_and(|at| at <= latest), "{next:?}");
    }
    assert_eq!(house.gate.next_due(), Some(house.now + Duration::from_secs(1)));
    house.now = house.now + Duration::from_secs(1);
    house.tend();
    assert!(!waits(&house, third));
}

#[test]
fn two_versions_with_different_limits_are_each_held_to_their_own() {
    let mut house = House::new();
    let old = |house: &mut House| house.come(0, KeyScope::Job, vec![slot("a", 3, KeyPolicy::Queue)]).unwrap();
    let held = [(); 3].map(|()| old(&mut house));
    let new = house.come(0, KeyScope::Job, vec![slot("a", 1, KeyPolicy::Queue)]).unwrap();
    let behind = old(&mut house);
    let waits = |house: &House, key: i64| house.jobs[&key].awaited_keys().is_some();
    for key in held {
        house.tend();
        assert!(waits(&house, new) && waits(&house, behind), "the one with the smaller limit is not passed");
        house.end(key);
    }
    house.tend();
    assert!(!waits(&house, new), "nobody else has the key");
    assert!(!waits(&house, behind), "one may be, and three may be");
}
