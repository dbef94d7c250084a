//! The chore that delivers messages to webhooks, and the receivers: some take what they get, some do not answer, some answer and
//! are not heard.
//!
//! The chore is played, as the network is: it takes from the conductor what is due, reads it, lets it leave, and brings back what
//! came of it. What becomes of a notice is decided by the orchestrator's own code.

use std::{sync::Arc, time::Duration};

use avtomatika_orchestrator::{
    conductor::DueNotices,
    engine::{Notice, Wait},
    store::{NoticeId, NoticeRecord, NoticeStatus, Store},
    webhook,
};

use crate::{
    faults::{MS, SECOND},
    invariants::Checked,
    process::Asked,
    world::{Happening, Wish, World},
};

/// How often the chore looks when nothing else says so.
const LOOK_EVERY: i64 = 60 * SECOND;

impl World {
    /// The chore takes what is due. Whether it asked.
    pub fn look_for_notices(&mut self, life: u32) -> Checked {
        let now = self.now;
        let Some(up) = self.process.up.as_mut() else { return Ok(()) };
        if life != self.model.life || up.looks_at > now {
            return Ok(());
        }
        up.looks_at = now + LOOK_EVERY;
        let answer = up.conductor.take_notices();
        up.asked.push(Asked::Notices { answer });
        self.after(LOOK_EVERY, Happening::Look { life });
        self.take_in()
    }

    /// Something may have become due: the chore looks soon.
    pub fn look_soon(&mut self, at: i64) {
        let life = self.model.life;
        let Some(up) = self.process.up.as_mut().filter(|up| up.looks_at > at) else { return };
        up.looks_at = at;
        self.after(at - self.now, Happening::Look { life });
    }

    /// These are due.
    pub fn begin_to_deliver(&mut self, due: DueNotices) {
        let life = self.model.life;
        for id in due.ids {
            let way = self.way();
            self.after(way, Happening::Post { life, id });
        }
        if let Some(next_due) = due.next_due {
            let pause = next_due.saturating_since(self.now_of_the_process()).as_micros() as i64;
            self.look_soon(self.now + pause);
        }
    }

    /// A message is read, and leaves.
    pub fn post(&mut self, life: u32, id: NoticeId) -> Checked {
        if life != self.model.life || self.process.up.is_none() {
            return Ok(());
        }
        let after = match self.disk.notices(id.job_id) {
            Err(_) => None,
            Ok(notices) => {
                let found = notices.into_iter().find(|notice| notice.id == id);
                match found.filter(|notice| notice.status == NoticeStatus::Pending) {
                    None => None,
                    Some(notice) if self.is_over(&notice) => Some(webhook::obsolete(&notice)),
                    Some(notice) => {
                        self.model.owed.posted(&notice)?;
                        Some(self.attempt(&notice))
                    }
                }
            }
        };
        let way = self.way();
        self.after(way, Happening::Posted { life, id, after: after.map(Box::new) });
        Ok(())
    }

    /// Whether what a human was asked has been decided.
    fn is_over(&self, notice: &NoticeRecord) -> bool {
        let waits = |id| {
            let wait = self.model.job(id).and_then(|job| job.wait.as_ref());
            matches!(wait, Some(Wait::Approval { .. }))
        };
        notice.notice == Notice::ApprovalRequested && !waits(notice.id.job_id)
    }

    fn attempt(&mut self, notice: &NoticeRecord) -> NoticeRecord {
        let now = self.now_of_the_process();
        let arrives = !self.random.chance(self.faults.deaf);
        let is_heard = arrives && !self.random.chance(self.faults.deaf / 4);
        if arrives {
            self.model.owed.received(notice.id, &mut self.model.met);
        }
        if is_heard {
            return webhook::delivered(notice, now, 200);
        }
        let is_final = !arrives && self.random.chance(50);
        let retry_after = self.random.chance(100).then(|| Duration::from_secs(20));
        let chance = self.random.below(1000) as f64 / 1000.0;
        webhook::failed(notice, now, None, Arc::from("no answer"), is_final, retry_after, chance)
    }

    /// The chore brings back what came of it.
    pub fn posted(&mut self, life: u32, id: NoticeId, after: Option<NoticeRecord>) -> Checked {
        let Some(up) = self.process.up.as_mut().filter(|_| life == self.model.life) else { return Ok(()) };
        let answer = up.conductor.settle_notice(id, after);
        up.asked.push(Asked::Settle { answer });
        self.take_in()
    }

    /// Somebody wants a message again: mostly one that did not arrive.
    pub fn wants_again(&mut self) {
        let missing = self.model.owed.not_taken();
        let (job_id, id) = if missing.is_empty() || self.random.chance(300) {
            let Some(job_id) = self.some_job() else { return };
            (job_id, self.model.owed.about(job_id))
        } else {
            let id = *self.random.pick(&missing);
            (id.job_id, Some(id))
        };
        let Some(client) = self.model.job(job_id).map(|job| job.client.clone()) else { return };
        // Without an id, all of the job that were given up.
        let id = id.filter(|_| self.random.chance(600));
        self.request(Wish::Redeliver { client, job_id, id });
    }

    /// The first look after a start.
    pub fn begin_to_look(&mut self) {
        let pause = self.random.between(1, 10 * MS);
        self.look_soon(self.now + pause);
    }
}
