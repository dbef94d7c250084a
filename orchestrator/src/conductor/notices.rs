//! Messages that webhooks are owed: what waits, for whom, and what is under way.
//!
//! A notice is written in the batch that decides what it tells of; when that is durable, its name waits here. A chore takes
//! names that are due, delivers, and brings back what came of it, which is written as everything else is: the conductor stays
//! the only writer, and it never waits for a receiver. After a start the names are read from the store.
//!
//! Receivers do not share a fate: of each client and of each host only so many messages are under way, so that those who do not
//! answer do not hold up those who do. It refuses to know how messages are delivered.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::Bound,
    sync::Arc,
    time::Duration,
};

use avtomatika_proto::{ApiError, ErrorCode, JobId};
use tokio::sync::Notify;

use super::{
    batch::Afterwards,
    core::{AGAIN_AFTER, Core},
    handle::{Conductor, job_not_found, shutting_down, storage_error},
    mailbox::{Reply, Request},
};
use crate::{
    engine::{Effect, Job},
    store::{NoticeId, NoticeRecord, NoticeStatus, Write},
    time::Timestamp,
    webhook,
};

/// Messages that are under way at once.
pub const UNDER_WAY_MAX: usize = 256;

/// Those of one client among them.
pub const UNDER_WAY_OF_CLIENT_MAX: usize = 64;

/// Those of one client to one host among them.
pub const UNDER_WAY_TO_HOST_MAX: usize = 16;

/// Messages of one client that may wait for their delivery: some five megabytes of memory, and receivers that are down for an
/// hour at a hundred jobs a second. Beyond it no job with a webhook is accepted, and what running jobs owe is kept as failed.
pub const UNDELIVERED_OF_CLIENT_MAX: usize = 100_000;

/// Messages of one job that are listed, so that they fit one gRPC message.
pub const LISTED_MAX: usize = 500;

/// How long a message rests of which could not be stored what came of it: its receiver may have it already.
const NOT_STORED_PAUSE: Duration = Duration::from_secs(30);

/// What the chore takes at once: these are due.
#[derive(Debug, Default)]
pub struct DueNotices {
    /// Their names. They are under way until they are settled.
    pub ids: Vec<NoticeId>,
    /// When the next one is due that could be taken then.
    pub next_due: Option<Timestamp>,
}

/// Everything that waits.
#[derive(Debug, Default)]
pub(super) struct Notices {
    clients: BTreeMap<Arc<str>, Mail>,
    under_way: HashMap<NoticeId, (Arc<str>, Arc<str>)>,
    /// The client who was served last: the next one is served next.
    last: Option<Arc<str>>,
    waiting: usize,
    /// Told when something new is due.
    news: Arc<Notify>,
}

/// What one client's webhooks are owed.
#[derive(Debug, Default)]
struct Mail {
    hosts: HashMap<Arc<str>, Queue>,
    /// The hosts to which another message may go, by when the first one is due.
    ready: BTreeSet<(Timestamp, Arc<str>)>,
    under_way: usize,
    waiting: usize,
}

/// What one host is owed.
#[derive(Debug, Default)]
struct Queue {
    waiting: BTreeSet<(Timestamp, NoticeId)>,
    under_way: usize,
}

impl Queue {
    /// When the next message may go.
    fn ready_at(&self) -> Option<Timestamp> {
        let is_free = self.under_way < UNDER_WAY_TO_HOST_MAX;
        self.waiting.first().filter(|_| is_free).map(|(due, _)| *due)
    }
}

impl Mail {
    /// Changes one host's queue, and keeps in mind whether its turn can come.
    fn change<T>(&mut self, host: &Arc<str>, change: impl FnOnce(&mut Queue) -> T) -> T {
        let queue = self.hosts.entry(host.clone()).or_default();
        let (before, outcome, after) = (queue.ready_at(), change(queue), queue.ready_at());
        let is_idle = queue.waiting.is_empty() && queue.under_way == 0;
        if before != after {
            before.map(|due| self.ready.remove(&(due, host.clone())));
            after.map(|due| self.ready.insert((due, host.clone())));
        }
        if is_idle {
            self.hosts.remove(host);
        }
        outcome
    }

    /// When the next message may go.
    fn ready_at(&self) -> Option<Timestamp> {
        let is_free = self.under_way < UNDER_WAY_OF_CLIENT_MAX;
        self.ready.first().filter(|_| is_free).map(|(due, _)| *due)
    }
}

impl Notices {
    /// A notice waits for its time.
    pub fn put(&mut self, notice: &NoticeRecord) {
        // One that is under way is put back when it is settled.
        if notice.status != NoticeStatus::Pending || self.under_way.contains_key(&notice.id) {
            return;
        }
        let mail = self.clients.entry(notice.client.clone()).or_default();
        let place = (notice.due_at, notice.id);
        if mail.change(&host_of(&notice.url), |queue| queue.waiting.insert(place)) {
            mail.waiting += 1;
            self.waiting += 1;
        }
        self.news.notify_one();
    }

    /// Takes the notice out, wherever it waits.
    fn withdraw(&mut self, notice: &NoticeRecord) {
        let Some(mail) = self.clients.get_mut(&notice.client) else { return };
        let place = (notice.due_at, notice.id);
        if mail.change(&host_of(&notice.url), |queue| queue.waiting.remove(&place)) {
            mail.waiting -= 1;
            self.waiting -= 1;
        }
        self.forget_idle(&notice.client.clone());
    }

    /// Takes what is due, one of each client in turn.
    fn take(&mut self, now: Timestamp) -> DueNotices {
        let mut ids = Vec::new();
        while self.under_way.len() < UNDER_WAY_MAX
            && let Some(client) = self.next_client(now)
        {
            let Some(mail) = self.clients.get_mut(&client) else { break };
            let Some((_, host)) = mail.ready.first().cloned() else { break };
            let Some((_, id)) = mail.change(&host, |queue| {
                queue.under_way += 1;
                queue.waiting.pop_first()
            }) else {
                break;
            };
            (mail.waiting, mail.under_way) = (mail.waiting - 1, mail.under_way + 1);
            self.waiting -= 1;
            self.last = Some(client.clone());
            // Twice in the queue: somebody has asked for it while it waited.
            if let Some((client, host)) = self.under_way.insert(id, (client, host)) {
                self.leave(&client, &host);
                continue;
            }
            ids.push(id);
        }
        let next_due = match self.under_way.len() < UNDER_WAY_MAX {
            true => self.clients.values().filter_map(Mail::ready_at).min(),
            // The end of one of those that are under way comes first.
            false => None,
        };
        DueNotices { ids, next_due }
    }

    /// The next client after the last one to whom something is due. There are as many clients as the operator has named.
    fn next_client(&self, now: Timestamp) -> Option<Arc<str>> {
        let is_due = |(_, mail): &(&Arc<str>, &Mail)| mail.ready_at().is_some_and(|due| due <= now);
        let after = self.last.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let later = self.clients.range::<Arc<str>, _>((after, Bound::Unbounded));
        let found = later.chain(&self.clients).find(is_due);
        found.map(|(client, _)| client.clone())
    }

    /// The notice is no longer under way.
    fn settled(&mut self, id: NoticeId) {
        if let Some((client, host)) = self.under_way.remove(&id) {
            self.leave(&client, &host);
            self.news.notify_one();
        }
    }

    fn leave(&mut self, client: &Arc<str>, host: &Arc<str>) {
        if let Some(mail) = self.clients.get_mut(client) {
            mail.change(host, |queue| queue.under_way -= 1);
            mail.under_way -= 1;
        }
        self.forget_idle(client);
    }

    fn forget_idle(&mut self, client: &Arc<str>) {
        if self.clients.get(client).is_some_and(|mail| mail.hosts.is_empty()) {
            self.clients.remove(client);
        }
    }

    /// Whether this client's webhooks are owed as much as may be.
    fn is_full(&self, client: &str) -> bool {
        self.clients.get(client).is_some_and(|mail| mail.waiting >= UNDELIVERED_OF_CLIENT_MAX)
    }

    /// How many messages are not delivered yet.
    pub fn undelivered(&self) -> usize {
        self.waiting + self.under_way.len()
    }

    /// Who wants to know that something is due.
    pub fn news(&self) -> Arc<Notify> {
        self.news.clone()
    }
}

/// The part of a URL that says who receives it, port and all.
fn host_of(url: &str) -> Arc<str> {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    Arc::from(rest.split(['/', '?', '#']).next().unwrap_or_default().to_ascii_lowercase())
}

impl Conductor {
    /// The notices about a job, in the order in which they arose; the newest [`LISTED_MAX`] of them.
    ///
    /// # Errors
    /// `JOB_NOT_FOUND`, `STORAGE_FAILED`.
    pub async fn notices(&self, client: &Arc<str>, job_id: JobId) -> Result<Vec<NoticeRecord>, ApiError> {
        self.load_own(client, job_id).await?;
        let mut notices = self.read(move |store| store.notices(job_id)).await?;
        notices.drain(..notices.len().saturating_sub(LISTED_MAX));
        Ok(notices)
    }

    /// This notice, and its job as it is now. `None` when they are not there (any more).
    ///
    /// # Errors
    /// `STORAGE_FAILED`.
    pub async fn notice(&self, id: NoticeId) -> Result<Option<(NoticeRecord, Job)>, ApiError> {
        self.read(move |store| {
            let found = store.notices(id.job_id)?.into_iter().find(|notice| notice.id == id);
            Ok(found.zip(store.load(id.job_id)?))
        })
        .await
    }

    /// Delivers a notice again, whatever came of it before; without a name, all about the job that were given up. Answers with
    /// those that are now to be delivered.
    ///
    /// # Errors
    /// `JOB_NOT_FOUND`, `WEBHOOK_NOT_FOUND`, `WEBHOOKS_OFF`, `STORAGE_FULL`, `STORAGE_FAILED`, `OVERLOADED`, `SHUTTING_DOWN`.
    pub async fn redeliver(
        &self,
        client: &Arc<str>,
        job_id: JobId,
        id: Option<NoticeId>,
    ) -> Result<Vec<NoticeRecord>, ApiError> {
        if self.webhooks.is_none() {
            return Err(webhooks_off());
        }
        let client = client.clone();
        self.mailbox.ask(|reply| Request::Redeliver { client, job_id, id, reply }).await?
    }

    /// Takes what is due. What was taken and is not settled comes again after the next start.
    ///
    /// # Errors
    /// `OVERLOADED`, `SHUTTING_DOWN`.
    pub async fn take_notices(&self) -> Result<DueNotices, ApiError> {
        self.mailbox.ask(Request::TakeNotices).await
    }

    /// Says what came of a notice that was taken; `None` when nothing did, and it is to be looked at again later.
    ///
    /// # Errors
    /// `STORAGE_FULL`, `OVERLOADED`, `SHUTTING_DOWN`: nothing was stored, and the notice comes again.
    pub async fn settle_notice(&self, id: NoticeId, record: Option<NoticeRecord>) -> Result<(), ApiError> {
        let record = record.map(Arc::new);
        self.mailbox.ask(|reply| Request::SettleNotice { id, record, reply }).await?
    }

    /// Resolves when something may have become due since it last did.
    pub async fn notice_news(&self) {
        self.notice_news.notified().await;
    }

    /// Whether a webhook may be told of this client's job.
    pub(super) fn check_webhook(&self, url: Option<&str>) -> Result<(), ApiError> {
        match (url, &self.webhooks) {
            (None, _) => Ok(()),
            (Some(_), None) => Err(webhooks_off()),
            (Some(url), Some(setup)) => webhook::check_url(url, setup.allow_private),
        }
    }
}

fn webhooks_off() -> ApiError {
    ApiError::new(ErrorCode::WebhooksOff, "This orchestrator has no secret to sign webhooks with")
}

impl Core {
    /// What was decided owes this to the job's webhook: it is written with the decision.
    pub(super) fn owe(&mut self, job: &Job, effects: &[Effect]) {
        for effect in effects {
            let Effect::Notify(notice) = effect else { continue };
            let Some(mut record) = webhook::owed(job, *notice) else { continue };
            if self.notices.is_full(&job.client) {
                record.status = NoticeStatus::Failed;
                record.problem = Some(Arc::from(TOO_MANY));
            }
            self.batch.writes.writes.push(Write::PutNotice(Arc::new(record.clone())));
            self.batch.afterwards.push(Afterwards::Owed(Box::new(record)));
        }
    }

    /// Refuses a job that would owe its webhook something when there is no room for it.
    pub(super) fn check_notices(&self, client: &str, has_webhook: bool) -> Result<(), ApiError> {
        if has_webhook && self.notices.is_full(client) {
            return Err(ApiError::new(ErrorCode::TooManyNotices, TOO_MANY));
        }
        Ok(())
    }

    pub(super) fn take_notices(&mut self, reply: Reply<DueNotices>) {
        let now = self.clock.now();
        let due = if self.draining.is_some() {
            // Nothing leaves a process that is stopping.
            DueNotices::default()
        } else if *self.storage_full.borrow() {
            // What came of a delivery could not be stored.
            DueNotices { ids: Vec::new(), next_due: Some(now + AGAIN_AFTER) }
        } else {
            self.notices.take(now)
        };
        // Whoever asked is gone: what it was given waits again.
        if let Err(due) = reply.send(due) {
            due.ids.into_iter().for_each(|id| self.notice_again(id));
        }
    }

    pub(super) fn settle_notice(
        &mut self,
        id: NoticeId,
        record: Option<Arc<NoticeRecord>>,
        reply: Reply<Result<(), ApiError>>,
    ) {
        match record {
            // Its lease ends with this process, and it is found again by the next one.
            _ if self.draining.is_some() => drop(reply.send(Err(shutting_down()))),
            Some(record) => {
                self.batch.writes.writes.push(Write::PutNotice(record.clone()));
                self.batch.afterwards.push(Afterwards::NoticeSettled { record, reply });
            }
            None => {
                self.notice_again(id);
                let _ = reply.send(Ok(()));
            }
        }
    }

    /// What came of it is durable.
    pub(super) fn notice_settled(&mut self, record: &NoticeRecord) {
        self.notices.settled(record.id);
        self.notices.put(record);
    }

    /// Nothing that could be stored came of it. If it is still to be delivered, it is tried again after a while; should it have
    /// been delivered, the receiver gets it twice.
    pub(super) fn notice_again(&mut self, id: NoticeId) {
        self.notices.settled(id);
        match self.store.notices(id.job_id) {
            Ok(notices) => {
                if let Some(notice) = notices.into_iter().find(|notice| notice.id == id) {
                    let due_at = self.clock.now() + NOT_STORED_PAUSE;
                    self.notices.put(&NoticeRecord { due_at, ..notice });
                }
            }
            Err(error) => tracing::error!(%error, hint = error.hint(), "webhook message {id} cannot be read"),
        }
    }

    pub(super) fn redeliver(
        &mut self,
        client: &Arc<str>,
        job_id: JobId,
        id: Option<NoticeId>,
        reply: Reply<Result<Vec<NoticeRecord>, ApiError>>,
    ) {
        match self.find_notices(client, job_id, id) {
            Err(error) => drop(reply.send(Err(error))),
            Ok(found) => {
                let now = self.clock.now();
                let again = |notice: &NoticeRecord| match self.notices.under_way.contains_key(&notice.id) {
                    // It is being delivered at this moment.
                    true => notice.clone(),
                    false => webhook::redelivered(notice, now),
                };
                let records: Vec<NoticeRecord> = found.iter().map(again).collect();
                for (before, record) in found.iter().zip(&records) {
                    if before != record {
                        self.batch.writes.writes.push(Write::PutNotice(Arc::new(record.clone())));
                    }
                }
                self.batch.afterwards.push(Afterwards::Redelivered { before: found, records, reply });
            }
        }
    }

    fn find_notices(
        &self,
        client: &Arc<str>,
        job_id: JobId,
        id: Option<NoticeId>,
    ) -> Result<Vec<NoticeRecord>, ApiError> {
        self.check_serving()?;
        self.load(job_id)?.filter(|job| job.client == *client).ok_or_else(job_not_found)?;
        self.check_notices(client, true)?;
        let mut found = self.store.notices(job_id).map_err(storage_error)?;
        match id {
            None => found.retain(|notice| notice.status == NoticeStatus::Failed),
            Some(id) => {
                found.retain(|notice| notice.id == id);
                if found.is_empty() {
                    let text = "The job has no such webhook message";
                    return Err(ApiError::new(ErrorCode::WebhookNotFound, text));
                }
            }
        }
        Ok(found)
    }

    /// They are durable: they are due now, and not when they were before.
    pub(super) fn redelivered(&mut self, before: &[NoticeRecord], records: &[NoticeRecord]) {
        for (before, record) in before.iter().zip(records) {
            self.notices.withdraw(before);
            self.notices.put(record);
        }
    }
}

const TOO_MANY: &str = "As many messages wait for this client's webhooks as may";

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::store::conformance::Samples;

    struct Sender {
        samples: Samples,
        notices: Notices,
        now: Timestamp,
    }

    impl Sender {
        fn new() -> Self {
            let now = Timestamp::from_micros(1_800_000_000_000_000);
            Self { samples: Samples::new(1), notices: Notices::default(), now }
        }

        fn owe(&mut self, client: &str, url: &str, due_in_s: u64) -> NoticeRecord {
            let job = self.samples.job(client);
            let due_at = self.now + Duration::from_secs(due_in_s);
            let notice = NoticeRecord { url: url.into(), due_at, ..self.samples.notice(&job) };
            self.notices.put(&notice);
            notice
        }

        fn take(&mut self) -> Vec<NoticeId> {
            self.notices.take(self.now).ids
        }
    }

    #[test]
    fn what_is_due_is_taken_once_and_what_is_not_is_announced() {
        let mut sender = Sender::new();
        let (now, later) = (sender.owe("acme", "https://a/", 0), sender.owe("acme", "https://a/", 60));
        let due = sender.notices.take(sender.now);
        assert_eq!((due.ids, due.next_due), (vec![now.id], Some(later.due_at)));
        assert_eq!(sender.take(), []);
        assert_eq!(sender.notices.undelivered(), 2);
        sender.notices.settled(now.id);
        sender.now = later.due_at;
        assert_eq!(sender.take(), [later.id]);
        sender.notices.settled(later.id);
        assert_eq!(sender.notices.undelivered(), 0);
        assert!(sender.notices.clients.is_empty(), "nothing is remembered of those who are owed nothing");
    }

    #[test]
    fn a_host_that_does_not_answer_holds_up_nobody_else() {
        let mut sender = Sender::new();
        for _ in 0..1000 {
            sender.owe("acme", "https://slow.example/a", 0);
        }
        let other = sender.owe("acme", "https://quick.example/", 5);
        let slow = sender.take();
        assert_eq!(slow.len(), UNDER_WAY_TO_HOST_MAX);
        sender.now = other.due_at;
        assert_eq!(sender.take(), [other.id]);
        sender.notices.settled(slow[0]);
        assert_eq!(sender.take().len(), 1, "one place is free again");
    }

    #[test]
    fn a_client_whose_hosts_do_not_answer_holds_up_no_other_client() {
        let mut sender = Sender::new();
        for n in 0..1000 {
            sender.owe("acme", &format!("https://{n}.example/"), 0);
        }
        let other = sender.owe("umbrella", "https://quick.example/", 0);
        let taken = sender.take();
        assert_eq!(taken.len(), UNDER_WAY_OF_CLIENT_MAX + 1);
        assert_eq!(taken[1], other.id, "each client in turn");
        for client in 0..8 {
            for n in 0..1000 {
                sender.owe(&format!("client-{client}"), &format!("https://{n}.example/"), 0);
            }
        }
        assert_eq!(taken.len() + sender.take().len(), UNDER_WAY_MAX);
        let due = sender.notices.take(sender.now);
        assert_eq!((due.ids.len(), due.next_due), (0, None), "the end of a delivery comes first");
    }

    #[test]
    fn whoever_asks_for_it_gets_it_at_once_and_once() {
        let mut sender = Sender::new();
        let later = sender.owe("acme", "https://a/", 3600);
        let now = NoticeRecord { due_at: sender.now, ..later.clone() };
        // As the conductor does it, and as it would be if the record that it read had been older.
        sender.notices.withdraw(&later);
        sender.notices.put(&now);
        sender.notices.put(&now);
        assert_eq!(sender.take(), [now.id]);
        sender.notices.put(&now);
        assert_eq!(sender.take(), []);
        assert_eq!(sender.notices.undelivered(), 1);
        sender.notices.settled(now.id);
        assert!(sender.notices.clients.is_empty());
    }

    #[test]
    fn only_so_many_messages_of_one_client_wait() {
        let mut sender = Sender::new();
        let job = sender.samples.job("acme");
        let notice = sender.samples.notice(&job);
        for sequence in 0..UNDELIVERED_OF_CLIENT_MAX as u64 {
            assert!(!sender.notices.is_full("acme"));
            sender.notices.put(&NoticeRecord { id: NoticeId { sequence, ..notice.id }, ..notice.clone() });
        }
        assert!(sender.notices.is_full("acme") && !sender.notices.is_full("umbrella"));
        // One that is under way takes no room: its place is another's by then.
        sender.now = notice.due_at;
        assert!(!sender.take().is_empty());
        assert!(!sender.notices.is_full("acme"));
    }

    #[test]
    fn a_url_says_who_receives_it() {
        for (url, host) in [
            ("https://Example.com/a?b", "example.com"),
            ("http://example.com:8080", "example.com:8080"),
            ("http://[::1]:9/x", "[::1]:9"),
            ("http://a?b/c", "a"),
        ] {
            assert_eq!(&*host_of(url), host);
        }
    }
}
