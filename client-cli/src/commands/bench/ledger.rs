//! The book of every job: how often its tasks ran and how often it ended, so that one lost or doubled job is found.
//!
//! It keeps 16 bytes of id and three small counts for each job, and no text. It refuses to know why something went wrong.

use std::{
    collections::HashMap,
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
};

use avtomatika_proto::JobId;

/// Parts of the book, each with a lock of its own: many more than there are threads.
const SHARDS: usize = 64;

/// What is known of one job.
#[derive(Debug, Clone, Copy, Default)]
struct Entry {
    /// Tasks of it that were run here.
    runs: u32,
    /// Submissions that were answered with it, finished.
    finished: u16,
    /// Submissions that were answered with it, and not finished.
    otherwise: u16,
}

/// Counts, job by job.
#[derive(Debug)]
pub(super) struct Ledger {
    shards: Vec<Mutex<HashMap<[u8; 16], Entry>>>,
}

impl Ledger {
    pub(super) fn new() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect() }
    }

    /// A task of the job begins to run.
    pub(super) fn ran(&self, job: JobId) {
        let mut shard = self.shard(job);
        let entry = shard.entry(*job.as_bytes()).or_default();
        entry.runs = entry.runs.saturating_add(1);
    }

    /// A submission was answered with the job.
    pub(super) fn ended(&self, job: JobId, is_finished: bool) {
        let mut shard = self.shard(job);
        let entry = shard.entry(*job.as_bytes()).or_default();
        let count = if is_finished { &mut entry.finished } else { &mut entry.otherwise };
        *count = count.saturating_add(1);
    }

    /// Goes through the book. `sent` is how many submissions left, `tasks_per_job` how often each job's tasks must have run
    /// (`None`: the worker is somebody else's, and nothing is known of it), `is_alone` that nobody else submits jobs.
    pub(super) fn audit(&self, sent: u64, tasks_per_job: Option<u32>, is_alone: bool) -> Audit {
        let mut audit = Audit { sent, ..Audit::default() };
        for shard in &self.shards {
            for (id, entry) in &*lock(shard) {
                audit.look_at(JobId::from_bytes(*id), *entry, tasks_per_job, is_alone);
            }
        }
        audit
    }

    fn shard(&self, job: JobId) -> MutexGuard<'_, HashMap<[u8; 16], Entry>> {
        // The last byte of an id is random.
        lock(&self.shards[usize::from(job.as_bytes()[15]) % SHARDS])
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Something that is wrong with some jobs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Fault {
    jobs: u64,
    example: Option<JobId>,
}

impl Fault {
    fn found(&mut self, job: JobId) {
        self.jobs += 1;
        self.example.get_or_insert(job);
    }
}

/// What the book says as a whole.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Audit {
    /// Submissions that left.
    pub(super) sent: u64,
    /// Jobs that ended as finished, once, each of their tasks having run once.
    pub(super) sound: u64,
    answered: u64,
    ended_twice: Fault,
    ran_too_often: Fault,
    ran_too_seldom: Fault,
    not_finished: Fault,
    unknown: Fault,
}

impl Audit {
    fn look_at(&mut self, job: JobId, entry: Entry, tasks_per_job: Option<u32>, is_alone: bool) {
        let ends = u64::from(entry.finished) + u64::from(entry.otherwise);
        self.answered += ends;
        if ends == 0 {
            if is_alone {
                self.unknown.found(job);
            }
            return;
        }
        let runs = tasks_per_job.map(|expected| entry.runs.cmp(&expected));
        if ends > 1 {
            self.ended_twice.found(job);
        } else if runs == Some(std::cmp::Ordering::Greater) {
            self.ran_too_often.found(job);
        } else if entry.otherwise > 0 {
            self.not_finished.found(job);
        } else if runs == Some(std::cmp::Ordering::Less) {
            self.ran_too_seldom.found(job);
        } else {
            self.sound += 1;
        }
    }

    /// What is wrong, a sentence for each kind. Empty when every job that was sent ended exactly once.
    pub(super) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let lost = self.sent.saturating_sub(self.answered);
        if lost > 0 {
            faults.push(format!("{} submitted and never answered", Jobs(lost)));
        }
        for (fault, what) in [
            (&self.ended_twice, "the answer to more than one submission"),
            (&self.ran_too_often, "run more often than once for each task"),
            (&self.ran_too_seldom, "finished without every task having run"),
            (&self.not_finished, "answered without being finished"),
            (&self.unknown, "run without being the answer to any submission"),
        ] {
            if let Some(example) = fault.example {
                faults.push(format!("{} {what}, such as {example}", Jobs(fault.jobs)));
            }
        }
        faults
    }
}

/// A number of jobs, as the beginning of a sentence in the past.
struct Jobs(u64);

impl fmt::Display for Jobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            1 => write!(f, "1 job was"),
            jobs => write!(f, "{jobs} jobs were"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(number: u64) -> JobId {
        JobId::compose(number, 0, number)
    }

    /// A hundred jobs of two tasks that went well.
    fn sound() -> Ledger {
        let ledger = Ledger::new();
        for number in 0..100 {
            ledger.ran(job(number));
            ledger.ran(job(number));
            ledger.ended(job(number), true);
        }
        ledger
    }

    #[test]
    fn when_every_job_ended_once_and_every_task_ran_once_there_is_nothing_to_say() {
        let audit = sound().audit(100, Some(2), true);
        assert_eq!((audit.sound, audit.faults()), (100, Vec::new()));
    }

    #[test]
    fn one_lost_doubled_or_failed_job_is_found_among_the_others() {
        type Mishap = fn(&Ledger);
        let mishaps: [(Mishap, u64, &str); 6] = [
            (|_| {}, 101, "1 job was submitted and never answered"),
            (|ledger| ledger.ran(job(7)), 100, "1 job was run more often than once for each task"),
            (|ledger| ledger.ended(job(7), true), 101, "1 job was the answer to more than one submission"),
            (|ledger| ledger.ended(job(100), false), 101, "1 job was answered without being finished"),
            (|ledger| ledger.ended(job(100), true), 101, "1 job was finished without every task having run"),
            (|ledger| ledger.ran(job(100)), 100, "1 job was run without being the answer to any submission"),
        ];
        for (mishap, sent, words) in mishaps {
            let ledger = sound();
            mishap(&ledger);
            let faults = ledger.audit(sent, Some(2), true).faults();
            assert!(faults.len() == 1 && faults[0].starts_with(words), "{words}: {faults:?}");
        }
    }

    #[test]
    fn with_somebody_elses_worker_only_the_ends_are_looked_at() {
        let ledger = Ledger::new();
        ledger.ended(job(1), true);
        ledger.ended(job(2), false);
        let audit = ledger.audit(2, None, true);
        assert_eq!(audit.sound, 1);
        assert!(audit.faults()[0].starts_with("1 job was answered without being finished"));
    }

    #[test]
    fn jobs_of_other_clients_are_their_own_business() {
        let ledger = sound();
        ledger.ran(job(1_000));
        assert!(ledger.audit(100, Some(2), false).faults().is_empty());
    }
}
