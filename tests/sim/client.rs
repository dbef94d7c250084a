//! Clients: they submit, repeat what was not answered, change their minds, and do to jobs whatever can be done to jobs.

use std::sync::Arc;

use avtomatika_orchestrator::{
    engine::{Event, Retry, Ruling, Signal, Skip, Submission, Wait},
    json::Json,
    store::{PruneQuery, Store},
    time::{Hands, Timestamp},
};
use avtomatika_proto::JobId;
use std::time::Duration;

use crate::{
    blueprints::SIGNAL,
    faults::{MS, SECOND},
    model::Intent,
    world::{Happening, Wish, World},
};

/// Open jobs at which clients hold back: a run is about what goes wrong, and not about how much there is of it.
const OPEN_MAX: usize = 60;

impl World {
    /// One of the clients does something, and another one soon.
    pub fn client_acts(&mut self) {
        if self.is_calm {
            return;
        }
        match self.random.below(100) {
            0..45 if self.model.open.len() < OPEN_MAX => self.submits(),
            45..55 => self.repeats(),
            55..59 => self.watches(),
            59 if self.faults.webhooks > 0 => self.wants_again(),
            _ => self.does_something_to_a_job(),
        }
        let pause = self.random.between(MS, self.client_pause);
        self.after(pause, Happening::Client);
    }

    fn submits(&mut self) {
        let number = self.model.intents.len();
        let client = self.random.pick(&self.clients).clone();
        let mut blueprint = self.random.pick(&self.blueprints).clone();
        if &*blueprint == "deep" && !self.random.chance(100) {
            blueprint = self.blueprints[0].clone();
        }
        let key = match self.random.below(10) {
            0..6 => Some(Arc::from(format!("key-{number}"))),
            // A key that was used before, for something else.
            6 if number > 0 => Some(Arc::from(format!("key-{}", self.random.below(number as u64)))),
            _ => None,
        };
        let items: Vec<String> = (0..self.random.below(5)).map(|item| item.to_string()).collect();
        let payload = format!("{{\"n\":{number},\"items\":[{}]}}", items.join(","));
        let payload = Json::from_stored(&payload);
        self.model.intents.push(Intent::new(client, blueprint, key, payload));
        let submission = self.draw_submission(number);
        self.submissions.push(submission);
        self.request(Wish::Submit { number });
    }

    fn draw_submission(&mut self, number: usize) -> Submission {
        let mut submission = Submission::of(self.model.intents[number].payload.clone());
        if self.random.chance(300) {
            submission.priority = self.random.between(-5, 5) as i32;
        }
        if self.random.chance(100) {
            submission.dispatch_timeout = Some(Duration::from_millis(self.random.between(50, 5000) as u64));
        }
        if self.random.chance(80) {
            submission.result_timeout = Some(Duration::from_millis(self.random.between(50, 20_000) as u64));
        }
        if self.random.chance(50) {
            let start_at = self.now_of_the_process().as_micros() + self.random.between(-SECOND, 5 * SECOND);
            submission.start_at = Some(Timestamp::from_micros(start_at));
        }
        if self.random.chance(self.faults.webhooks) {
            submission.webhook_url = Some(Arc::from("https://example.com/hook"));
        }
        submission
    }

    /// What was not answered is asked again, if it has a key; now and then also what was.
    fn repeats(&mut self) {
        if self.model.intents.is_empty() {
            return;
        }
        let number = self.random.below(self.model.intents.len() as u64) as usize;
        let intent = &self.model.intents[number];
        if intent.key.is_some() && (intent.told.is_none() || self.random.chance(500)) {
            self.request(Wish::Submit { number });
        }
    }

    pub fn some_job(&mut self) -> Option<JobId> {
        let count = self.model.ids.len() as u64;
        if count == 0 {
            return None;
        }
        // Most that is done is done to young jobs.
        let back =
            if self.random.chance(800) { self.random.below(count.min(24)) } else { self.random.below(count) };
        Some(self.model.ids[(count - 1 - back) as usize])
    }

    fn watches(&mut self) {
        if let Some(job_id) = self.some_job() {
            let Some(job) = self.model.job(job_id) else { return };
            self.request(Wish::Watch { client: job.client.clone(), job_id });
        }
    }

    fn does_something_to_a_job(&mut self) {
        let Some(job_id) = self.some_job() else { return };
        let Some(job) = self.model.job(job_id) else { return };
        let (job, by) = (job.clone(), Arc::from("somebody"));
        let mut client = Some(job.client.clone());
        let waits_for_signal = matches!(job.wait, Some(Wait::Signal { .. }));
        let event = match (&job.wait, self.random.below(100)) {
            (Some(Wait::Approval { token, .. }), 0..60) => {
                let by_token = self.random.chance(500);
                if by_token {
                    client = None;
                }
                let token = if self.random.chance(100) { Arc::from("guessed") } else { token.clone() };
                let token = by_token.then_some(token);
                let decision = Arc::from(*self.random.pick(&["yes", "yes", "no", "timeout"]));
                Event::Decided(Ruling { token, decision, by, comment: None, data: Json::empty() })
            }
            (_, 60..68) if job.status.is_repairable() || self.random.chance(100) => {
                let outcome = Arc::from(*self.random.pick(&["success", "received", "failure", "yes"]));
                Event::SkipRequested(Skip { outcome, data: Json::empty(), by, reason: None, key: None })
            }
            (_, 0..60) if job.status.is_repairable() || self.random.chance(50) => {
                let state = self.random.chance(100).then(|| Arc::from("s0"));
                Event::RetryRequested(Retry {
                    state,
                    initial_data: None,
                    state_history: None,
                    by,
                    reason: None,
                    key: None,
                })
            }
            (_, 68..78) => Event::CancelRequested { reason: None },
            (_, 0..60) if waits_for_signal || self.random.chance(400) => Event::Signalled(self.draw_signal()),
            _ => return,
        };
        self.request(Wish::Act { client, job_id, event: Box::new(event) });
    }

    fn draw_signal(&mut self) -> Signal {
        let name = if self.random.chance(850) { SIGNAL } else { "stop" };
        let id = self.random.chance(600).then(|| Arc::from(format!("signal-{}", self.random.below(6))));
        let at = self.clock.wall();
        Signal { name: Arc::from(name), id, data: Json::empty(), at }
    }

    /// Jobs that have ended may be forgotten: what is read now goes when the conductor gets to it.
    pub fn prune(&mut self) {
        if self.is_calm || !self.faults.prunes {
            return;
        }
        let (above_key, limit) = (PruneQuery::FROM_THE_OLDEST, 16);
        let ended_by = self.clock.wall() - Duration::from_secs(5);
        // The memory store reads without fail.
        let slice =
            self.disk.synced().prunable(&PruneQuery { above_key, ended_by, limit }).unwrap_or_default();
        self.request(Wish::Prune { removals: slice.removals });
        let pause = self.random.between(SECOND, 4 * SECOND);
        self.after(pause, Happening::Prune);
    }
}
