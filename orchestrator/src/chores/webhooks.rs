//! Delivers what webhooks are owed.
//!
//! A tick takes from the conductor what is due and begins to deliver it, a bounded number of messages at a time; each delivery
//! goes on by itself and ends with the conductor storing what came of it. So a receiver that hangs holds up nothing but its own
//! messages. A delivery that a stop or a crash cuts short leaves no trace, and is made again: receivers get every message at
//! least once, always under the same id.
//!
//! It refuses to know what a message says: that is told to it.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use avtomatika_proto::{ApiError, ErrorCode};
use bytes::Bytes;
use futures_util::FutureExt;
use tokio::task::JoinSet;

use super::Chore;
use crate::{
    blueprint::Blueprint,
    conductor::{Conductor, DueNotices},
    engine::{Entropy, Job},
    live::Live,
    metrics::Metrics,
    store::{NoticeId, NoticeRecord, NoticeStatus},
    time::{Clock, SystemClock},
    webhook::{self, Answer, Message, Poster},
};

/// How often it is looked for due messages when nothing else says so.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// How long it rests when the conductor does not answer.
const CROWDED_REST: Duration = Duration::from_secs(1);

/// What a notice says, given the job as it is now and its blueprint; `None` when there is nothing to say any more.
pub type Compose = fn(&NoticeRecord, &Job, Option<&Blueprint>) -> Option<Bytes>;

/// The chore.
pub struct Webhooks {
    courier: Arc<Courier>,
    entropy: Entropy,
    under_way: JoinSet<()>,
}

/// What a delivery needs.
struct Courier {
    conductor: Conductor,
    clock: Arc<dyn Clock>,
    poster: Live<Poster>,
    compose: Compose,
    metrics: Arc<Metrics>,
}

impl Webhooks {
    /// Delivers by this poster. The seed is secret, so that nobody foresees when a message is sent again.
    pub fn new(
        conductor: Conductor,
        clock: Arc<dyn Clock>,
        poster: impl Into<Arc<Poster>>,
        compose: Compose,
        metrics: Arc<Metrics>,
        entropy_seed: [u8; 32],
    ) -> Self {
        let poster = Live::new(poster);
        let courier = Arc::new(Courier { conductor, clock, poster, compose, metrics });
        Self { courier, entropy: Entropy::from_seed(entropy_seed), under_way: JoinSet::new() }
    }

    /// Who delivers, and may be replaced while it does.
    pub fn poster(&self) -> &Live<Poster> {
        &self.courier.poster
    }

    /// Waits until every delivery that is under way has ended and what came of it is stored.
    pub async fn settled(&mut self) {
        while self.under_way.join_next().await.is_some() {}
    }
}

impl Chore for Webhooks {
    /// Begins to deliver what is due.
    async fn tick(&mut self) -> Option<Duration> {
        while self.under_way.try_join_next().is_some() {}
        let DueNotices { ids, next_due } = match self.courier.conductor.take_notices().await {
            Ok(due) => due,
            Err(error) if error.code == ErrorCode::ShuttingDown => return None,
            Err(_) => return Some(CROWDED_REST),
        };
        for id in ids {
            let chance = self.entropy.next_fraction();
            self.under_way.spawn(deliver(self.courier.clone(), id, chance));
        }
        let until_due = next_due.map(|due| due.saturating_since(self.courier.clock.now()));
        Some(until_due.unwrap_or(LOOK_EVERY).min(LOOK_EVERY))
    }

    /// Something has become due, or there is room for another delivery.
    async fn woken(&mut self) {
        self.courier.conductor.notice_news().await;
    }
}

async fn deliver(courier: Arc<Courier>, id: NoticeId, chance: f64) {
    let outcome = courier.attempt(id, chance).await.unwrap_or_else(|error| {
        tracing::error!(%error, "Webhook message {id} cannot be read");
        None
    });
    // Whatever cannot be stored is delivered again.
    let _ = courier.conductor.settle_notice(id, outcome).await;
}

impl Courier {
    /// The notice after an attempt; `None` when there is none to make.
    async fn attempt(&self, id: NoticeId, chance: f64) -> Result<Option<NoticeRecord>, ApiError> {
        let Some((notice, job)) = self.conductor.notice(id).await? else { return Ok(None) };
        if notice.status != NoticeStatus::Pending {
            return Ok(None);
        }
        // With a panic nothing would be said of the message any more, and it would count as under way until the next start. Nothing that
        // others see is half changed by one.
        let told = AssertUnwindSafe(self.tell(&notice, &job)).catch_unwind().await;
        let panicked = |_| {
            let problem = Arc::from("the delivery panicked");
            Some(Answer::Not { status: None, problem, is_final: false, retry_after: None })
        };
        let Some(answer) = told.unwrap_or_else(panicked) else {
            self.metrics.webhook_attempt("obsolete");
            return Ok(Some(webhook::obsolete(&notice)));
        };
        Ok(Some(self.judge(&notice, answer, chance)))
    }

    /// Sends the message; `None` when there is nothing to say any more.
    async fn tell(&self, notice: &NoticeRecord, job: &Job) -> Option<Answer> {
        let blueprints = self.conductor.blueprints();
        let blueprint = blueprints.version(&job.blueprint, job.blueprint_version);
        let body = (self.compose)(notice, job, blueprint.map(|blueprint| &**blueprint))?;
        // Receivers compare it with their own clocks: the machine's clock as it is at this moment, not as it was at the start.
        let at = SystemClock::new().now();
        let message = Message { url: notice.url.clone(), id: notice.id.to_string(), at, body };
        Some(self.poster.current().post(message).await)
    }

    fn judge(&self, notice: &NoticeRecord, answer: Answer, chance: f64) -> NoticeRecord {
        let now = self.clock.now();
        let after = match answer {
            Answer::Taken(status) => webhook::delivered(notice, now, status),
            Answer::Not { status, problem, is_final, retry_after } => {
                webhook::failed(notice, now, status, problem, is_final, retry_after, chance)
            }
        };
        self.metrics.webhook_attempt(match after.status {
            NoticeStatus::Pending => "retried",
            other => other.as_str(),
        });
        if after.status == NoticeStatus::Failed {
            let problem = after.problem.as_deref().unwrap_or_default();
            tracing::warn!(
                "Webhook message {} was given up after {} attempts: {problem}",
                after.id,
                after.attempts
            );
        }
        after
    }
}
