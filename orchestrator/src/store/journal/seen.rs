//! How far jobs had come that somebody has just read, so that the commit of what follows need not read them again.
//!
//! A job that has waited for long is read before its turn, and then its end is committed. Whether that is lawful depends on how
//! far the job has come, which the reader knew already. It promises to forget a job as soon as a commit touches it, also when
//! the commit comes between the reading and the note of it.

use avtomatika_proto::JobId;

use crate::{
    hash::{FastMap, FastSet},
    store::{Batch, Standing, Write},
};

/// Jobs that are remembered. The queues of most orchestrators are read ahead by fewer; what is not remembered is read again.
const SEEN_MAX: usize = 64 * 1024;

/// What was read and has not changed since.
#[derive(Debug, Default)]
pub(super) struct Seen {
    standings: FastMap<JobId, Standing>,
    /// Readings under way.
    readings: usize,
    /// What was touched while there were any. Readings that relieve each other without a pause would make it grow for ever: when it is
    /// more than [`SEEN_MAX`], it is not complete, and nothing that was read meanwhile is believed.
    touched: FastSet<JobId>,
}

impl Seen {
    /// A reading begins. Each must [end](Self::end_reading).
    pub(super) fn begin_reading(&mut self) {
        self.readings += 1;
    }

    /// A reading is over, and found this.
    pub(super) fn end_reading(&mut self, found: impl IntoIterator<Item = (JobId, Standing)>) {
        let is_complete = self.touched.len() <= SEEN_MAX;
        for (id, standing) in found {
            if is_complete && self.standings.len() < SEEN_MAX && !self.touched.contains(&id) {
                self.standings.insert(id, standing);
            }
        }
        self.readings -= 1;
        if self.readings == 0 {
            self.touched.clear();
        }
    }

    /// How far the job has come, if that is known.
    pub(super) fn standing(&self, id: JobId) -> Option<Standing> {
        self.standings.get(&id).copied()
    }

    /// These changes have been committed.
    pub(super) fn touch(&mut self, batch: &Batch) {
        if self.standings.is_empty() && self.readings == 0 {
            return;
        }
        for write in &batch.writes {
            let id = match write {
                Write::UpdateJob { job, .. } => job.id,
                Write::RemoveJob(removal) => removal.job_id,
                // A new job was never read; nothing else belongs to one.
                _ => continue,
            };
            self.standings.remove(&id);
            if self.readings > 0 && self.touched.len() <= SEEN_MAX {
                self.touched.insert(id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        engine::JobStatus,
        store::{Removal, conformance::Samples},
    };

    #[test]
    fn a_job_is_known_from_its_reading_until_it_is_touched() {
        let mut samples = Samples::new(1);
        let job = samples.job("acme");
        let standing = Standing::of(&job);
        let mut seen = Seen::default();
        seen.begin_reading();
        seen.end_reading([(job.id, standing)]);
        assert_eq!(seen.standing(job.id), Some(standing));
        let moved = samples.moved(&job, JobStatus::Finished);
        seen.touch(&Batch { writes: vec![samples.update(&moved)] });
        assert_eq!(seen.standing(job.id), None);
    }

    #[test]
    fn what_is_touched_while_it_is_read_is_not_known() {
        let mut samples = Samples::new(1);
        let (job, other) = (samples.job("acme"), samples.job("acme"));
        let standing = Standing::of(&job);
        let moved = samples.moved(&job, JobStatus::Finished);
        let mut seen = Seen::default();
        seen.begin_reading();
        seen.begin_reading();
        seen.end_reading([]);
        seen.touch(&Batch { writes: vec![samples.update(&moved)] });
        seen.end_reading([(job.id, standing), (other.id, standing)]);
        assert_eq!((seen.standing(job.id), seen.standing(other.id)), (None, Some(standing)));
        assert!(seen.touched.is_empty(), "nobody reads any more");
    }

    #[test]
    fn readings_without_a_pause_are_not_believed_rather_than_remembered_for_ever() {
        let mut samples = Samples::new(1);
        let job = samples.job("acme");
        let found = [(job.id, Standing::of(&job))];
        let mut seen = Seen::default();
        seen.begin_reading();
        let removal = |key| Write::RemoveJob(Removal { job_id: JobId::of_key(key, 0), idempotency: None });
        seen.touch(&Batch { writes: (0..2 * SEEN_MAX as i64).map(removal).collect() });
        seen.begin_reading();
        assert_eq!(seen.touched.len(), SEEN_MAX + 1);
        seen.end_reading(found);
        seen.end_reading([]);
        assert_eq!((seen.touched.len(), seen.standing(job.id)), (0, None));
        seen.begin_reading();
        seen.end_reading(found);
        assert_eq!(seen.standing(job.id), Some(found[0].1));
    }
}
