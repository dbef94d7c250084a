//! What goes wrong in one run. Each seed draws its own mixture: a run in which everything is broken at once gets nowhere, and
//! finds less than many runs that are each broken in their own way.

use crate::{random::Random, worker::Kind};

/// One millisecond, in the microseconds of the world.
pub const MS: i64 = 1000;
/// One second.
pub const SECOND: i64 = 1_000_000;

/// Which faults are on, and how often they come. Chances are per mille of the occasions.
#[derive(Debug, Clone)]
pub struct Faults {
    // ---- The orchestrator's process ----
    /// Longest time between two kills; 0 for none.
    pub kill_every: i64,
    /// Kills come right after a commit became durable, and right before.
    pub kill_at_commit: u64,
    /// Longest time between two orderly stops; 0 for none.
    pub stop_every: i64,
    /// The process stands still for seconds (SIGSTOP, a suspended machine).
    pub pauses: bool,
    // ---- Its clock ----
    /// Somebody sets the wall clock.
    pub clock_is_set: bool,
    // ---- Its disk ----
    /// Longest sync.
    pub sync_max: i64,
    /// The disk is full now and then.
    pub full_disk: bool,
    /// A sync fails for good.
    pub failing_sync: u64,
    /// A read fails.
    pub failing_read: u64,
    // ---- The network ----
    /// Longest way of a message.
    pub delay_max: i64,
    /// A connection is cut when a message is sent on it.
    pub cut: u64,
    /// A message of a worker comes twice.
    pub twice: u64,
    /// A message of a worker is lost, and the connection goes on.
    pub lost: u64,
    /// A client's request or its answer is lost.
    pub unanswered: u64,
    // ---- Webhooks ----
    /// So many of a thousand jobs have one.
    pub webhooks: u64,
    /// A message does not reach its receiver.
    pub deaf: u64,
    // ---- Schedules ----
    /// So many of them.
    pub schedules: usize,
    /// A blueprint changes while its jobs run, and jobs are moved from version to version.
    pub editions: bool,
    // ---- The workers ----
    /// What each of them is like.
    pub workers: Vec<Kind>,
    // ---- Limits, drawn so that they are met ----
    pub max_open_jobs: usize,
    pub max_workers: usize,
    pub resident_bytes: usize,
    /// Ended jobs are forgotten now and then.
    pub prunes: bool,
}

impl Faults {
    pub fn draw(random: &mut Random) -> Self {
        let some = |random: &mut Random, per_mille: u64| if random.chance(500) { per_mille } else { 0 };
        let count = random.between(1, 6);
        let quiet = random.chance(150);
        let workers = (0..count)
            .map(|_| if quiet || random.chance(300) { Kind::Honest } else { *random.pick(Kind::ALL) })
            .collect();
        let faults = Self {
            kill_every: if random.chance(600) { random.between(1, 20) * SECOND } else { 0 },
            kill_at_commit: some(random, 15),
            stop_every: if random.chance(250) { random.between(2, 20) * SECOND } else { 0 },
            pauses: random.chance(250),
            clock_is_set: random.chance(500),
            sync_max: *random.pick(&[200, 2 * MS, 2 * MS, 30 * MS, 800 * MS]),
            full_disk: random.chance(350),
            failing_sync: some(random, 2),
            failing_read: some(random, 10),
            delay_max: *random.pick(&[300, 2 * MS, 20 * MS, 500 * MS]),
            cut: some(random, 15),
            twice: some(random, 50),
            lost: some(random, 30),
            unanswered: some(random, 100),
            webhooks: *random.pick(&[0, 50, 400]),
            deaf: *random.pick(&[0, 100, 600]),
            workers,
            max_open_jobs: *random.pick(&[8, 40, 1000, 1000]),
            max_workers: *random.pick(&[2, 100, 100, 100]),
            resident_bytes: *random.pick(&[0, 4000, 64 << 20, 64 << 20]),
            prunes: random.chance(400),
            schedules: *random.pick(&[0, 0, 1, 3]),
            editions: random.chance(400),
        };
        if quiet { Self { kill_every: 0, stop_every: 0, cut: 0, lost: 0, ..faults } } else { faults }
    }

    /// Nothing goes wrong any more. What was drawn as a limit stays.
    pub fn end(&mut self) {
        *self = Self {
            kill_every: 0,
            kill_at_commit: 0,
            stop_every: 0,
            pauses: false,
            clock_is_set: false,
            sync_max: 2 * MS,
            full_disk: false,
            failing_sync: 0,
            failing_read: 0,
            delay_max: 2 * MS,
            cut: 0,
            twice: 0,
            lost: 0,
            unanswered: 0,
            webhooks: 0,
            deaf: 0,
            schedules: 0,
            editions: false,
            workers: self.workers.clone(),
            max_open_jobs: self.max_open_jobs,
            max_workers: self.max_workers,
            resident_bytes: self.resident_bytes,
            prunes: false,
        };
    }
}
