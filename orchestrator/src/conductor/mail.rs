//! What waits for webhooks: names of notices, by client and by host, and which of them are under way.
//!
//! Receivers do not share a fate: of each client and of each host only so many messages are under way, so that those who do not
//! answer do not hold up those who do. Whatever is due is found without looking at what is not. It refuses to know what the
//! messages say and how they are delivered.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    ops::Bound,
    sync::Arc,
};

use tokio::sync::Notify;

use crate::{
    store::{NoticeId, NoticeRecord, NoticeStatus},
    time::Timestamp,
};

/// Messages that are under way at once.
pub const UNDER_WAY_MAX: usize = 256;

/// Those of one client among them.
pub const UNDER_WAY_OF_CLIENT_MAX: usize = 64;

/// Those of one client to one host among them.
pub const UNDER_WAY_TO_HOST_MAX: usize = 16;

/// Messages of one client that may wait for their delivery: some fifty megabytes of memory, and receivers that are down for an
/// hour at some 250 jobs a second. Beyond it no job with a webhook is accepted, and what running jobs owe is kept as failed.
pub const UNDELIVERED_OF_CLIENT_MAX: usize = 1_000_000;

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
pub(super) struct Mail {
    clients: BTreeMap<Arc<str>, ClientMail>,
    under_way: HashMap<NoticeId, (Arc<str>, Arc<str>)>,
    /// Notices of which a change is decided and not durable: they do not leave, and do not change again.
    changing: HashSet<NoticeId>,
    /// The client who was served last: the next one is served next.
    last: Option<Arc<str>>,
    waiting: usize,
    /// Told when something new is due.
    news: Arc<Notify>,
}

/// What one client's webhooks are owed.
#[derive(Debug, Default)]
struct ClientMail {
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

impl ClientMail {
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

impl Mail {
    /// A notice waits for its time.
    pub fn put(&mut self, notice: &NoticeRecord) {
        // One that is under way is put back when it is settled, and one that is changing when that is durable: it may have been
        // found in the store and changed before it came here.
        if notice.status != NoticeStatus::Pending || self.is_busy(notice.id) {
            return;
        }
        let owed = self.clients.entry(notice.client.clone()).or_default();
        let place = (notice.due_at, notice.id);
        if owed.change(&host_of(&notice.url), |queue| queue.waiting.insert(place)) {
            owed.waiting += 1;
            self.waiting += 1;
        }
        self.news.notify_one();
    }

    /// Takes the notice out, wherever it waits.
    pub fn withdraw(&mut self, notice: &NoticeRecord) {
        let Some(owed) = self.clients.get_mut(&notice.client) else { return };
        let place = (notice.due_at, notice.id);
        if owed.change(&host_of(&notice.url), |queue| queue.waiting.remove(&place)) {
            owed.waiting -= 1;
            self.waiting -= 1;
        }
        self.forget_idle(&notice.client.clone());
    }

    /// This notice is decided to become another one: it does not leave before that is durable.
    pub fn begin_change(&mut self, before: &NoticeRecord) {
        self.withdraw(before);
        self.changing.insert(before.id);
    }

    /// What was decided is durable, or is not: the notice is this one.
    pub fn end_change(&mut self, notice: &NoticeRecord) {
        self.changing.remove(&notice.id);
        self.put(notice);
    }

    /// Takes what is due, one of each client in turn.
    pub fn take(&mut self, now: Timestamp) -> DueNotices {
        let mut ids = Vec::new();
        while self.under_way.len() < UNDER_WAY_MAX
            && let Some(client) = self.next_client(now)
        {
            let Some(owed) = self.clients.get_mut(&client) else { break };
            let Some((_, host)) = owed.ready.first().cloned() else { break };
            let Some((_, id)) = owed.change(&host, |queue| {
                queue.under_way += 1;
                queue.waiting.pop_first()
            }) else {
                break;
            };
            (owed.waiting, owed.under_way) = (owed.waiting - 1, owed.under_way + 1);
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
            true => self.clients.values().filter_map(ClientMail::ready_at).min(),
            // The end of one of those that are under way comes first.
            false => None,
        };
        DueNotices { ids, next_due }
    }

    /// The next client after the last one to whom something is due. There are as many clients as the operator has named.
    fn next_client(&self, now: Timestamp) -> Option<Arc<str>> {
        let is_due = |(_, owed): &(&Arc<str>, &ClientMail)| owed.ready_at().is_some_and(|due| due <= now);
        let after = self.last.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let later = self.clients.range::<Arc<str>, _>((after, Bound::Unbounded));
        let found = later.chain(&self.clients).find(is_due);
        found.map(|(client, _)| client.clone())
    }

    /// The notice is no longer under way.
    pub fn settled(&mut self, id: NoticeId) {
        if let Some((client, host)) = self.under_way.remove(&id) {
            self.leave(&client, &host);
            self.news.notify_one();
        }
    }

    fn leave(&mut self, client: &Arc<str>, host: &Arc<str>) {
        if let Some(owed) = self.clients.get_mut(client) {
            owed.change(host, |queue| queue.under_way -= 1);
            owed.under_way -= 1;
        }
        self.forget_idle(client);
    }

    fn forget_idle(&mut self, client: &Arc<str>) {
        if self.clients.get(client).is_some_and(|owed| owed.hosts.is_empty()) {
            self.clients.remove(client);
        }
    }

    /// Whether this client's webhooks are owed as much as may be.
    pub fn is_full(&self, client: &str) -> bool {
        self.clients.get(client).is_some_and(|owed| owed.waiting >= UNDELIVERED_OF_CLIENT_MAX)
    }

    /// Whether the notice is being delivered at this moment, or a change of it is not durable yet.
    pub fn is_busy(&self, id: NoticeId) -> bool {
        self.under_way.contains_key(&id) || self.changing.contains(&id)
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::store::conformance::Samples;

    struct Sender {
        samples: Samples,
        mail: Mail,
        now: Timestamp,
    }

    impl Sender {
        fn new() -> Self {
            let now = Timestamp::from_micros(1_800_000_000_000_000);
            Self { samples: Samples::new(1), mail: Mail::default(), now }
        }

        fn owe(&mut self, client: &str, url: &str, due_in_s: u64) -> NoticeRecord {
            let job = self.samples.job(client);
            let due_at = self.now + Duration::from_secs(due_in_s);
            let notice = NoticeRecord { url: url.into(), due_at, ..self.samples.notice(&job) };
            self.mail.put(&notice);
            notice
        }

        fn take(&mut self) -> Vec<NoticeId> {
            self.mail.take(self.now).ids
        }
    }

    #[test]
    fn what_is_due_is_taken_once_and_what_is_not_is_announced() {
        let mut sender = Sender::new();
        let (now, later) = (sender.owe("acme", "https://a/", 0), sender.owe("acme", "https://a/", 60));
        let due = sender.mail.take(sender.now);
        assert_eq!((due.ids, due.next_due), (vec![now.id], Some(later.due_at)));
        assert_eq!(sender.take(), []);
        assert_eq!(sender.mail.undelivered(), 2);
        sender.mail.settled(now.id);
        sender.now = later.due_at;
        assert_eq!(sender.take(), [later.id]);
        sender.mail.settled(later.id);
        assert_eq!(sender.mail.undelivered(), 0);
        assert!(sender.mail.clients.is_empty(), "nothing is remembered of those who are owed nothing");
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
        sender.mail.settled(slow[0]);
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
        let due = sender.mail.take(sender.now);
        assert_eq!((due.ids.len(), due.next_due), (0, None), "the end of a delivery comes first");
    }

    #[test]
    fn whoever_asks_for_it_gets_it_at_once_and_once() {
        let mut sender = Sender::new();
        let later = sender.owe("acme", "https://a/", 3600);
        let now = NoticeRecord { due_at: sender.now, ..later.clone() };
        // As the conductor does it, and as it would be if the record that it read had been older.
        sender.mail.withdraw(&later);
        sender.mail.put(&now);
        sender.mail.put(&now);
        assert_eq!(sender.take(), [now.id]);
        sender.mail.put(&now);
        assert_eq!(sender.take(), []);
        assert_eq!(sender.mail.undelivered(), 1);
        sender.mail.settled(now.id);
        assert!(sender.mail.clients.is_empty());
    }

    #[test]
    fn what_is_wanted_again_before_it_has_come_leaves_once_and_as_it_is_wanted() {
        let mut sender = Sender::new();
        let later = sender.owe("acme", "https://a/", 3600);
        sender.mail.withdraw(&later);
        // It is in the store, and whoever wants it again is quicker than the news of that.
        sender.mail.begin_change(&later);
        sender.now = later.due_at;
        sender.mail.put(&later);
        assert_eq!(sender.take(), [], "the change is not durable");
        sender.mail.end_change(&NoticeRecord { due_at: sender.now, ..later.clone() });
        assert_eq!(sender.take(), [later.id]);
        sender.mail.settled(later.id);
        assert!(sender.mail.clients.is_empty());
    }

    #[test]
    fn only_so_many_messages_of_one_client_wait() {
        let mut sender = Sender::new();
        sender.owe("acme", "https://a/", 0);
        assert!(!sender.mail.is_full("acme"));
        // As if so many had come before.
        sender.mail.clients.get_mut("acme").unwrap().waiting = UNDELIVERED_OF_CLIENT_MAX;
        assert!(sender.mail.is_full("acme") && !sender.mail.is_full("umbrella"));
        sender.take();
        assert!(!sender.mail.is_full("acme"));
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
