//! One stream, from Welcome to its end.
//!
//! A loop over everything that can happen, and a list of what is left to say. Messages are built only when the connection
//! can take one, so that what is ready at that moment travels together; nothing waits for a batch to fill.

use std::{collections::VecDeque, time::Duration};

use avtomatika_proto::{
    limits::{QUIET_FOR_MAX, SILENT_TIMES_MAX},
    v1::{
        Credits, Drain as DrainMessage, Goodbye, GoodbyeReason, Heartbeat, OrchestratorMessage, TaskResults,
        TasksAccepted, Welcome, WorkerMessage, WorkerState, orchestrator_message, worker_message::Message,
    },
};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout},
};
use tonic::Status;
use tracing::{debug, info};

use crate::{
    backoff::Backoff,
    dial::{Keepalive, Link},
    drain::Drain,
    runner::Runner,
};

/// Between two rounds of progress reports: people do not read faster.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// For the orchestrator to end its side of a stream that the worker has ended.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// How a stream ended.
#[derive(Debug)]
pub(crate) enum StreamEnd {
    /// The worker has stopped as it was asked to.
    Drained,
    /// It broke, or fell silent.
    Lost(String),
    /// The orchestrator stopped, as it had said.
    Stopped(String),
    /// The orchestrator says that this worker broke a rule.
    ProtocolError(String),
    /// Another worker has this one's name.
    Replaced,
}

/// One stream's state. Gone with the stream.
pub(crate) struct Session<'a> {
    link: Link,
    runner: &'a mut Runner,
    drain: &'a mut Drain,
    backoff: &'a mut Backoff,
    slots: u32,
    /// What the worker says of itself; see [`WorkerHandle::set_hot_cache`](crate::WorkerHandle::set_hot_cache).
    state: watch::Receiver<WorkerState>,
    said: Said,
    last_sent: Instant,
    last_heard: Instant,
    /// How long the orchestrator may be silent from then on.
    patience: Duration,
    /// For how long the orchestrator lets a worker that holds no tasks say nothing.
    leave: Duration,
    tasks_received: u64,
    /// The orchestrator has said that it is about to stop.
    stops: bool,
}

/// What has been said on this stream, and what waits to be.
#[derive(Default)]
struct Said {
    credits: Option<u32>,
    drain: bool,
    /// The orchestrator begins with an empty state, so that one need not be said.
    state: WorkerState,
    accepted: Vec<String>,
    /// Tasks whose progress is to be told.
    progress: VecDeque<String>,
    progress_at: Option<Instant>,
    /// For how long nothing is said, as was said last and holds until something else is.
    quiet_for: Option<Duration>,
}

impl<'a> Session<'a> {
    pub(crate) fn new(
        link: Link,
        runner: &'a mut Runner,
        drain: &'a mut Drain,
        backoff: &'a mut Backoff,
        slots: u32,
        state: watch::Receiver<WorkerState>,
    ) -> Self {
        let now = Instant::now();
        let (said, patience) = (Said::default(), link.keepalive.timeout);
        Self {
            link,
            runner,
            drain,
            backoff,
            slots,
            state,
            said,
            last_sent: now,
            last_heard: now,
            patience,
            leave: Duration::ZERO,
            tasks_received: 0,
            stops: false,
        }
    }

    /// Runs the stream to its end.
    pub(crate) async fn run(mut self) -> StreamEnd {
        let outgoing = self.link.outgoing.clone();
        let progress = std::sync::Arc::clone(&self.runner.progress);
        loop {
            let now = Instant::now();
            self.runner.advance(now);
            if self.drain.advance(self.runner, now) {
                if !self.said.drain {
                    // Without room for it the end of the stream says the same.
                    let drain = Message::Drain(DrainMessage {});
                    let _ = outgoing.try_send(WorkerMessage { message: Some(drain) });
                }
                drop(outgoing);
                return self.close().await;
            }
            let wake_at = self.wake_at();
            tokio::select! {
                message = self.link.incoming.message() => {
                    if let Some(end) = self.hear(message) {
                        return end;
                    }
                }
                () = self.runner.collect() => {}
                permit = outgoing.reserve(), if self.has_something_to_say(now) => {
                    let Ok(permit) = permit else { return lost("the connection was closed") };
                    if let Some(message) = self.next_message(Instant::now()) {
                        permit.send(WorkerMessage { message: Some(message) });
                    }
                }
                () = progress.changed() => {}
                Ok(()) = self.state.changed() => {}
                () = self.drain.begins() => {}
                () = sleep_until(wake_at) => {
                    if let Some(end) = self.listen_to_silence(wake_at) {
                        return end;
                    }
                }
            }
        }
    }

    /// When the loop must turn even if nothing happens.
    fn wake_at(&self) -> Instant {
        let progress = self.said.progress_at.filter(|_| self.runner.progress.has_news());
        // A heartbeat that is due but finds no room is no reason to wake up: the room is.
        let heartbeat = Some(self.heartbeat_at()).filter(|&at| at > Instant::now());
        let others = [heartbeat, progress, self.runner.deadline(), self.drain.deadline()];
        others.into_iter().flatten().fold(self.last_heard + self.patience, Instant::min)
    }

    /// Ends the stream when the orchestrator has been silent for too long.
    fn listen_to_silence(&mut self, woken_for: Instant) -> Option<StreamEnd> {
        let now = Instant::now();
        let keepalive = Keepalive { timeout: self.patience, ..self.link.keepalive };
        match silence(keepalive, self.last_heard, woken_for, now) {
            Silence::Short => None,
            Silence::OurOwn => {
                self.last_heard = now;
                None
            }
            Silence::Theirs => {
                Some(lost(format!("the orchestrator has been silent for {:?}", self.patience)))
            }
        }
    }

    fn has_something_to_say(&self, now: Instant) -> bool {
        self.are_credits_due()
            || !self.said.accepted.is_empty()
            || self.runner.held.has_ready()
            || !self.said.progress.is_empty()
            || self.is_progress_due(now)
            || (self.drain.is_on() && !self.said.drain)
            || *self.state.borrow() != self.said.state
            || self.is_heartbeat_due(now)
    }

    fn next_message(&mut self, now: Instant) -> Option<Message> {
        let message = self.next_news(now)?;
        self.last_sent = now;
        self.said.quiet_for = match &message {
            Message::Heartbeat(_) => self.quiet_for(),
            _ => None,
        };
        Some(message)
    }

    fn next_news(&mut self, now: Instant) -> Option<Message> {
        if self.drain.is_on() && !self.said.drain {
            self.said.drain = true;
            return Some(Message::Drain(DrainMessage {}));
        }
        if self.are_credits_due() {
            let slots = self.credits();
            self.said.credits = Some(slots);
            return Some(Message::Credits(Credits { slots }));
        }
        if !self.said.accepted.is_empty() {
            let task_ids = std::mem::take(&mut self.said.accepted);
            return Some(Message::TasksAccepted(TasksAccepted { task_ids }));
        }
        if let Some(results) = self.runner.held.next_batch() {
            return Some(Message::TaskResults(TaskResults { results }));
        }
        if self.said.progress.is_empty() && self.is_progress_due(now) {
            self.said.progress = self.runner.progress.take_news().into();
            self.said.progress_at = Some(now + PROGRESS_INTERVAL);
        }
        while let Some(task_id) = self.said.progress.pop_front() {
            // The task may have ended since, and its result says more.
            if let Some(report) = self.runner.progress.report(&task_id) {
                return Some(Message::TaskProgress(report));
            }
        }
        let state = self.state.borrow_and_update().clone();
        if state != self.said.state {
            self.said.state = state.clone();
            return Some(Message::WorkerState(state));
        }
        self.is_heartbeat_due(now).then(|| Message::Heartbeat(self.heartbeat()))
    }

    fn credits(&self) -> u32 {
        if self.runner.held.is_outbox_full() { 0 } else { self.slots }
    }

    fn are_credits_due(&self) -> bool {
        // Drain has ended all credit.
        !self.drain.is_on() && self.said.credits != Some(self.credits())
    }

    fn is_progress_due(&self, now: Instant) -> bool {
        self.runner.progress.has_news() && self.said.progress_at.is_none_or(|at| at <= now)
    }

    fn is_heartbeat_due(&self, now: Instant) -> bool {
        self.heartbeat_at() <= now
    }

    fn heartbeat_at(&self) -> Instant {
        self.last_sent + self.said.quiet_for.unwrap_or(self.link.keepalive.interval)
    }

    fn heartbeat(&self) -> Heartbeat {
        let quiet_for = self.quiet_for().and_then(|quiet_for| quiet_for.try_into().ok());
        Heartbeat { quiet_for, tasks_received: self.tasks_received, reconnect_within: None }
    }

    /// For how long a worker that has nothing to do need say nothing more.
    fn quiet_for(&self) -> Option<Duration> {
        let is_idle = self.runner.held.is_empty() && !self.drain.is_on();
        Some(self.leave).filter(|&leave| is_idle && leave > self.link.keepalive.interval)
    }

    fn hear(&mut self, message: Result<Option<OrchestratorMessage>, Status>) -> Option<StreamEnd> {
        self.last_heard = Instant::now();
        let end = match message {
            Ok(Some(message)) => message.message.and_then(|message| self.obey(message)),
            Ok(None) => Some(self.over("the orchestrator ended the stream")),
            Err(status) => Some(self.over(status.message())),
        };
        // It says as little as it is told.
        let quiet = self.said.quiet_for.map(|quiet_for| quiet_for * SILENT_TIMES_MAX);
        self.patience = quiet.unwrap_or_default().max(self.link.keepalive.timeout);
        end
    }

    fn obey(&mut self, message: orchestrator_message::Message) -> Option<StreamEnd> {
        use orchestrator_message::Message;
        match message {
            Message::Tasks(tasks) => {
                self.tasks_received += tasks.tasks.len() as u64;
                self.said.quiet_for = None;
                for task in tasks.tasks {
                    let task_id = task.task_id.clone();
                    if self.runner.accept(task) {
                        self.said.accepted.push(task_id);
                    }
                }
            }
            Message::ResultsAck(acks) => acks.acks.iter().for_each(|ack| self.runner.acknowledge(ack)),
            Message::CancelTasks(orders) => {
                orders.tasks.into_iter().for_each(|order| self.runner.cancel(order));
            }
            Message::Draining(_) => {
                info!("The orchestrator is about to stop; keeping tasks and results");
                self.stops = true;
            }
            Message::Drain(_) => {
                info!("An operator wants this worker to stop");
                self.drain.request();
            }
            Message::Goodbye(goodbye) => return Some(farewell(goodbye)),
            Message::Heartbeat(Heartbeat { reconnect_within, quiet_for, .. }) => {
                if let Some(within) = reconnect_within.and_then(|span| Duration::try_from(span).ok()) {
                    self.backoff.spread_over(within);
                }
                if let Some(quiet_for) = quiet_for.and_then(|span| Duration::try_from(span).ok()) {
                    self.leave = quiet_for.min(QUIET_FOR_MAX);
                }
            }
            Message::Welcome(Welcome { .. }) => debug!("A second Welcome on one stream is ignored"),
        }
        None
    }

    fn over(&self, why: &str) -> StreamEnd {
        if self.stops { StreamEnd::Stopped(why.to_owned()) } else { lost(why) }
    }

    /// Ends the worker's side and gives the last messages the time to arrive.
    async fn close(self) -> StreamEnd {
        let Link { outgoing, mut incoming, .. } = self.link;
        drop(outgoing);
        let end_of_stream = async { while let Ok(Some(_)) = incoming.message().await {} };
        if timeout(CLOSE_TIMEOUT, end_of_stream).await.is_err() {
            debug!("The orchestrator did not end its side of the stream in time");
        }
        StreamEnd::Drained
    }
}

fn farewell(goodbye: Goodbye) -> StreamEnd {
    match goodbye.reason() {
        GoodbyeReason::Replaced => StreamEnd::Replaced,
        GoodbyeReason::ProtocolError => StreamEnd::ProtocolError(goodbye.message),
        GoodbyeReason::Shutdown | GoodbyeReason::Unspecified => {
            StreamEnd::Stopped(format!("the orchestrator said goodbye: {}", goodbye.message))
        }
    }
}

/// Whose a silence is.
#[derive(Debug, PartialEq)]
enum Silence {
    /// Nobody's: it has not lasted.
    Short,
    /// This process stood still. What the orchestrator said meanwhile has yet to be read.
    OurOwn,
    /// The orchestrator's.
    Theirs,
}

/// Judges the silence since `last_heard` by a loop that meant to wake at `woken_for` and did so `now`.
fn silence(keepalive: Keepalive, last_heard: Instant, woken_for: Instant, now: Instant) -> Silence {
    if now < last_heard + keepalive.timeout {
        Silence::Short
    } else if now > woken_for + keepalive.interval {
        Silence::OurOwn
    } else {
        Silence::Theirs
    }
}

fn lost(why: impl Into<String>) -> StreamEnd {
    StreamEnd::Lost(why.into())
}

#[cfg(test)]
mod tests {
    use avtomatika_proto::v1::{Task, Tasks};
    use tokio::{runtime::Handle, sync::mpsc, time::advance};
    use tokio_util::sync::CancellationToken;
    use tonic::{
        Streaming,
        body::Body,
        codec::{DecodeBuf, Decoder},
    };

    use super::*;

    /// Of a stream on which nothing comes.
    struct Nothing;

    impl Decoder for Nothing {
        type Item = OrchestratorMessage;
        type Error = Status;

        fn decode(&mut self, _: &mut DecodeBuf<'_>) -> Result<Option<OrchestratorMessage>, Status> {
            Ok(None)
        }
    }

    /// What a session is made of.
    struct Parts {
        runner: Runner,
        drain: Drain,
        backoff: Backoff,
        state: watch::Sender<WorkerState>,
    }

    impl Parts {
        fn new() -> Self {
            Self {
                runner: Runner::new(std::sync::Arc::default(), Handle::current(), None),
                drain: Drain::new(CancellationToken::new(), Duration::ZERO),
                backoff: Backoff::new(Duration::from_millis(50), Duration::from_secs(2)),
                state: watch::Sender::new(WorkerState::default()),
            }
        }

        fn session(&mut self) -> Session<'_> {
            let link = Link {
                worker_id: "w1".into(),
                keepalive: Keepalive { interval: Duration::from_secs(1), timeout: Duration::from_secs(3) },
                welcome: Welcome::default(),
                outgoing: mpsc::channel(1).0,
                incoming: Streaming::new_empty(Nothing, Body::empty()),
            };
            let state = self.state.subscribe();
            Session::new(link, &mut self.runner, &mut self.drain, &mut self.backoff, 1, state)
        }
    }

    impl Session<'_> {
        fn is_told(&mut self, message: orchestrator_message::Message) {
            let end = self.hear(Ok(Some(OrchestratorMessage { message: Some(message) })));
            assert!(end.is_none(), "{end:?}");
        }
    }

    fn seconds(seconds: i64) -> Option<prost_types::Duration> {
        Some(prost_types::Duration { seconds, nanos: 0 })
    }

    #[tokio::test]
    async fn the_worker_comes_back_over_the_time_that_it_was_told_last() {
        let mut parts = Parts::new();
        let mut session = parts.session();
        for reconnect_within in [seconds(7), seconds(3), None] {
            let heartbeat = Heartbeat { reconnect_within, ..Heartbeat::default() };
            session.is_told(orchestrator_message::Message::Heartbeat(heartbeat));
        }
        drop(session);
        assert_eq!(parts.backoff.next(u64::MAX), Duration::from_secs(3));
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_that_holds_nothing_says_as_little_as_it_may_until_it_is_given_a_task() {
        let mut parts = Parts::new();
        let mut session = parts.session();
        let heartbeat = |quiet_for| {
            orchestrator_message::Message::Heartbeat(Heartbeat { quiet_for, ..Heartbeat::default() })
        };
        session.is_told(heartbeat(seconds(2)));
        assert_eq!(session.patience, Duration::from_secs(3), "it has not made use of it yet");
        assert!(matches!(session.next_message(Instant::now()), Some(Message::Credits(_))));

        advance(Duration::from_secs(1)).await;
        let quiet = Heartbeat { quiet_for: seconds(2), ..Heartbeat::default() };
        assert_eq!(session.next_message(Instant::now()), Some(Message::Heartbeat(quiet)));
        session.is_told(heartbeat(None));
        assert_eq!(session.patience, Duration::from_secs(8));
        advance(Duration::from_millis(1900)).await;
        assert!(!session.has_something_to_say(Instant::now()));

        let task = Task { task_id: "t1".into(), r#type: "unknown".into(), ..Task::default() };
        session.is_told(orchestrator_message::Message::Tasks(Tasks { tasks: vec![task] }));
        assert_eq!(session.patience, Duration::from_secs(3));
        // It is accepted, and refused.
        while let Some(message) = session.next_message(Instant::now()) {
            assert!(!matches!(message, Message::Heartbeat(_)), "{message:?}");
        }
        advance(Duration::from_secs(1)).await;
        let usual = Heartbeat { tasks_received: 1, ..Heartbeat::default() };
        assert_eq!(
            session.next_message(Instant::now()),
            Some(Message::Heartbeat(usual)),
            "until that is durable"
        );
    }

    #[test]
    fn a_worker_that_stood_still_does_not_blame_the_orchestrator() {
        let keepalive = Keepalive { interval: Duration::from_secs(1), timeout: Duration::from_secs(3) };
        let heard = Instant::now();
        let at = |seconds: u64| heard + Duration::from_secs(seconds);
        assert_eq!(silence(keepalive, heard, at(1), at(1)), Silence::Short);
        assert_eq!(silence(keepalive, heard, at(3), at(3)), Silence::Theirs);
        assert_eq!(silence(keepalive, heard, at(1), at(30)), Silence::OurOwn, "woken 29 seconds late");
    }
}
