//! Keys, as the durable jobs have them: who holds which, and who stands in line. A plain account that knows nothing of the gate.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use avtomatika_orchestrator::{
    blueprint::{KeyLimit, Share},
    engine::{Hold, Job, KeyScope},
    time::Timestamp,
};

use crate::invariants::{Checked, Invariant, require};

type Rank = (Reverse<i32>, Timestamp, i64);

/// Of each concurrency key.
#[derive(Debug, Default)]
pub struct KeyBook {
    held: BTreeMap<Arc<str>, BTreeSet<(i64, u8)>>,
    lines: BTreeMap<Arc<str>, BTreeSet<Rank>>,
}

impl KeyBook {
    /// A job is durable as it is after.
    pub fn changed(&mut self, before: Option<&Job>, after: &Job) -> Checked {
        if let Some(job) = before {
            self.each(job, |held, key, holder| {
                held.get_mut(key).map(|holders| holders.remove(&holder));
            });
            if let Some((rank, hold)) = awaited(job) {
                for share in slots(hold) {
                    self.lines.get_mut(&share.key).map(|line| line.remove(&rank));
                }
            }
        }
        self.each(after, |held, key, holder| {
            held.entry(key.clone()).or_default().insert(holder);
        });
        if let Some((rank, hold)) = awaited(after) {
            for share in slots(hold) {
                self.lines.entry(share.key.clone()).or_default().insert(rank);
            }
        }
        for share in holds(after).flat_map(|(_, hold)| slots(hold)) {
            let holders = self.held.get(&share.key).map_or(0, BTreeSet::len);
            require(holders <= limit_of(share), Invariant::KeysAreRespected, || {
                format!("{holders} hold {share:?}, {} among them", after.id)
            })?;
        }
        Ok(())
    }

    /// Whether something is in the way of this job, which waits for keys: one of them has no room for it and all before it. Says so
    /// only while nothing is decided that is not durable: whoever has come meanwhile is not in this book.
    pub fn is_in_the_way_of(&self, job: &Job) -> bool {
        let Some((rank, hold)) = awaited(job) else { return false };
        let has_rates = hold.claim.shares.iter().any(|share| !share.is_slot());
        has_rates
            || slots(hold).any(|share| {
                let holders = self.held.get(&share.key).map_or(0, BTreeSet::len);
                let ahead = self.lines.get(&share.key).map_or(0, |line| line.range(..rank).count());
                holders + ahead >= limit_of(share)
            })
    }

    fn each(
        &mut self,
        job: &Job,
        mut does: impl FnMut(&mut BTreeMap<Arc<str>, BTreeSet<(i64, u8)>>, &Arc<str>, (i64, u8)),
    ) {
        for (scope, hold) in holds(job) {
            for share in slots(hold) {
                does(&mut self.held, &share.key, (job.id.key(), scope as u8));
            }
        }
    }
}

fn holds(job: &Job) -> impl Iterator<Item = (KeyScope, &Hold)> {
    let held = |scope: &KeyScope| job.awaited_keys() != Some(*scope);
    [KeyScope::Job, KeyScope::Task]
        .into_iter()
        .filter(held)
        .filter_map(|scope| Some((scope, job.claim_for(scope)?)))
}

fn awaited(job: &Job) -> Option<(Rank, &Hold)> {
    let hold = job.claim_for(job.awaited_keys()?)?;
    Some(((Reverse(job.submission.priority), hold.since, job.id.key()), hold))
}

fn slots(hold: &Hold) -> impl Iterator<Item = &Share> {
    hold.claim.shares.iter().filter(|share| share.is_slot())
}

fn limit_of(share: &Share) -> usize {
    match share.limit {
        KeyLimit::Concurrency(limit) => limit as usize,
        KeyLimit::Rate(_) => usize::MAX,
    }
}
