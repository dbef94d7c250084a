//! Everything that can arrive at the conductor, as one closed list.

use std::{collections::HashMap, sync::Arc, time::Duration};

use avtomatika_proto::{ApiError, ErrorCode, JobId, SessionId, TaskId};
use tokio::sync::{
    mpsc::{self, error::SendTimeoutError},
    oneshot,
};

use super::{
    MAILBOX_MAX,
    admission::Admission,
    explain::{Facts, Question},
    families::ChildCounts,
    handle::shutting_down,
    mail::DueNotices,
    measures::Measures,
    migration::Move,
    schedules::{ScheduleChange, Scheduled},
    view::{Acted, JobView, LeaseView, Progress, Stats, WorkerView},
};
use crate::{
    blueprint::{Blueprint, Change, Definition},
    dispatch::Outbox,
    engine::{Children, Event, JobError, Submission},
    json::Json,
    store::{NoticeId, NoticeRecord, Removal, ScheduleRecord, WorkerRecord},
    trust::WorkerTerms,
};

/// How long a request may wait for a place in the mailbox. Longer, and its sender does better to come again.
const ADMISSION_MAX: Duration = Duration::from_secs(5);

/// The slot of the mailbox. Cheap to clone; keeps nothing else of the conductor alive.
#[derive(Clone)]
pub(super) struct Mailbox(mpsc::Sender<Request>);

impl Mailbox {
    /// A mailbox, and the end at which it is emptied.
    pub fn new() -> (Self, mpsc::Receiver<Request>) {
        let (sender, requests) = mpsc::channel(MAILBOX_MAX);
        (Self(sender), requests)
    }

    /// Passes on what a worker said, however long that has to wait. Returns whether the conductor still listens.
    pub async fn tell(&self, request: Request) -> bool {
        self.0.send(request).await.is_ok()
    }

    /// Sends a request and waits for the answer.
    pub async fn ask<T>(&self, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, ApiError> {
        let (reply, answer) = oneshot::channel();
        self.send(request(reply)).await?;
        answer.await.map_err(|_| shutting_down())
    }

    /// The same, however long the request has to wait to get in: for what must not get lost, and of which there is never much.
    pub async fn ask_patiently<T>(&self, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, ApiError> {
        let (reply, answer) = oneshot::channel();
        if !self.tell(request(reply)).await {
            return Err(shutting_down());
        }
        answer.await.map_err(|_| shutting_down())
    }

    /// Requests that wait.
    pub fn len(&self) -> usize {
        self.0.max_capacity() - self.0.capacity()
    }

    /// Sends a request whose answer is waited for elsewhere.
    pub async fn send(&self, request: Request) -> Result<(), ApiError> {
        match self.0.send_timeout(request, ADMISSION_MAX).await {
            Ok(()) => Ok(()),
            Err(SendTimeoutError::Closed(_)) => Err(shutting_down()),
            Err(SendTimeoutError::Timeout(_)) => Err(ApiError::new(
                ErrorCode::Overloaded,
                format!("{} requests have been waiting for {} s", MAILBOX_MAX, ADMISSION_MAX.as_secs()),
            )),
        }
    }
}

/// Ends a mailbox. What arrives at this very moment is let go, so that whoever waits for its answer is told: when an end is only
/// dropped, a message that comes while it is emptied stays in the channel, and its answer open, for as long as anybody can send.
pub(super) async fn close(mut requests: mpsc::Receiver<Request>) {
    requests.close();
    while requests.recv().await.is_some() {}
}

/// Where the answer goes. A sender that has lost interest is no error.
pub(super) type Reply<T> = oneshot::Sender<T>;

/// One message in the mailbox.
pub(super) enum Request {
    /// Create a job.
    Submit(Submit, Reply<Result<Accepted, ApiError>>),
    /// Do something to a job: cancel it, signal it, decide, repair.
    Act(Act, Reply<Result<Acted, ApiError>>),
    /// Follow a job.
    Watch {
        client: Arc<str>,
        job_id: JobId,
        sender: mpsc::Sender<JobView>,
        reply: Reply<Result<(), ApiError>>,
    },
    /// Where these attempts are: who holds them, or that they wait for somebody. One that is neither has come to its end, or begins
    /// at this moment.
    Leases(Vec<TaskId>, Reply<HashMap<TaskId, Option<LeaseView>>>),
    /// What only the conductor knows of a job that waits.
    Explain(Question, Reply<Facts>),
    /// How far these children are, by the first ones.
    Families(Vec<Children>, Reply<HashMap<JobId, ChildCounts>>),
    /// Who is connected.
    Workers(Reply<Vec<WorkerView>>),
    /// Nothing more is held against this worker. Answered with the worker, if it is connected.
    RestoreWorker(Arc<str>, Reply<Option<WorkerView>>),
    /// This worker shall stop in order. Answered with the worker, if it is connected.
    DrainWorker(Arc<str>, Reply<Option<WorkerView>>),
    /// How much there is of everything.
    Stats(Reply<Stats>),
    /// The same, in more detail.
    Measures(Reply<Measures>),
    /// Open a session.
    Register { worker: WorkerRecord, credential: [u8; 32], reply: Reply<Result<Registered, ApiError>> },
    /// Open a session's stream. The answer is the number of the stream.
    Open {
        session_id: SessionId,
        credential: [u8; 32],
        /// What must allow the session; `None` where nothing limits it.
        terms: Option<Arc<WorkerTerms>>,
        held: Vec<TaskId>,
        outbox: Outbox,
        reply: Reply<Result<u64, ApiError>>,
    },
    /// A worker says something on its stream.
    FromWorker {
        session_id: SessionId,
        stream: u64,
        message: FromWorker,
        /// Kept until what follows is durable.
        admission: Admission,
    },
    /// Forget jobs that have ended. The answer is how many were forgotten.
    Prune(Vec<Removal>, Reply<Result<usize, ApiError>>),
    /// Which messages to webhooks are due.
    TakeNotices(Reply<DueNotices>),
    /// What came of one that was taken.
    SettleNotice { id: NoticeId, record: Option<Arc<NoticeRecord>>, reply: Reply<Result<(), ApiError>> },
    /// Deliver messages about a job again: this one, or all that were given up.
    Redeliver {
        client: Arc<str>,
        job_id: JobId,
        id: Option<NoticeId>,
        reply: Reply<Result<Vec<NoticeRecord>, ApiError>>,
    },
    /// Serve these definitions from now on, and no others. The answer is what changed for new jobs.
    Enact(Served, Reply<Result<Vec<Change>, ApiError>>),
    /// Move these jobs of a client to this version of their blueprint. The answer has what was refused.
    Migrate { client: Arc<str>, moves: Vec<Move>, version: u32, reply: Reply<Result<Vec<Move>, ApiError>> },
    /// A due time of a schedule has come. The answer is how far the schedule has come with it.
    RunScheduled(Scheduled, Reply<Result<ScheduleRecord, ApiError>>),
    /// Remember this of schedules.
    KeepSchedules(Vec<ScheduleChange>, Reply<Result<(), ApiError>>),
    /// Hand out nothing more, commit what is in flight, say goodbye.
    Drain(Reply<()>),
}

/// What is to be served to new jobs.
pub(super) enum Served {
    /// These, in place of those before.
    These(Vec<Definition>),
    /// This one as well.
    Also(Definition),
}

/// A submission that was looked at.
pub(super) struct Submit {
    pub client: Arc<str>,
    /// What its job follows, or why no job is made of it now. A repetition gets the one that it has made before.
    pub blueprint: Result<Arc<Blueprint>, ApiError>,
    pub submission: Arc<Submission>,
    /// The key and the fingerprint of the request.
    pub idempotency: Option<(Arc<str>, [u8; 32])>,
    pub follow: Follow,
    /// Kept until the job is durable.
    pub admission: Admission,
}

/// Something that somebody does to a job.
pub(super) struct Act {
    /// Who. Without a client, what the event brings must prove its right.
    pub client: Option<Arc<str>>,
    pub job_id: JobId,
    pub event: Box<Event>,
    /// Only if the job's history still has so many entries: nothing has happened to it since it was looked at.
    pub seen: Option<u64>,
    /// Kept until what follows is durable.
    pub admission: Admission,
}

impl Act {
    /// What a client does to a job, as it is now.
    pub fn by(client: &Arc<str>, job_id: JobId, event: Event, admission: Admission) -> Self {
        Self { client: Some(client.clone()), job_id, event: Box::new(event), seen: None, admission }
    }
}

/// Whether the submitter wants to know how the job ends.
pub(super) enum Follow {
    Not,
    End(oneshot::Sender<JobView>),
}

/// The job is durable.
#[derive(Debug, Clone, Copy)]
pub struct Accepted {
    /// Its name.
    pub job_id: JobId,
    /// Whether an earlier request with the same key made it.
    pub deduplicated: bool,
}

/// A session is durable, and waits for its stream.
#[derive(Debug, Clone)]
pub struct Registered {
    /// The session.
    pub session_id: SessionId,
    /// The name under which the worker is known.
    pub worker_id: Arc<str>,
}

/// What a worker says on its stream.
#[derive(Debug)]
pub enum FromWorker {
    /// How many tasks it is willing to hold.
    Credits(u32),
    /// How attempts ended.
    Results(Vec<WorkerResult>),
    /// How far an attempt is.
    Progress(TaskId, Progress),
    /// What it has warm, and how loaded it is.
    State {
        /// Task types that it has warm.
        hot_cache: Vec<Arc<str>>,
        /// 0.0 to 1.0.
        load: f64,
    },
    /// It takes no more tasks.
    Drain,
    /// Nothing has come from it for longer than a heartbeat takes.
    Silent,
    /// It is heard again.
    Heard,
    /// The stream is over because this process stood still. It may come back with what it holds, until the stream has ended.
    Away,
    /// The stream is over.
    Ended,
}

/// How one attempt ended, as the worker says.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerResult {
    /// The attempt.
    pub task_id: TaskId,
    /// The job that it was for, as the worker says; `None` when what it says is no id.
    pub job_id: Option<JobId>,
    /// What the attempt ended with.
    pub outcome: Arc<str>,
    /// What to merge into the state history.
    pub data: Json,
    /// Why it failed.
    pub error: Option<JobError>,
    /// How far it came, for the next attempt; `None` when it does not say, and what it said while it ran holds.
    pub checkpoint: Option<Json>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whoever_asks_while_the_mailbox_is_being_closed_is_told() {
        let (mailbox, requests) = Mailbox::new();
        // Half way in.
        let place = mailbox.0.reserve().await.unwrap();
        let (reply, answer) = oneshot::channel();
        tokio::join!(biased; close(requests), async { place.send(Request::Stats(reply)) });
        assert!(answer.await.is_err());
        assert!(mailbox.ask(Request::Stats).await.is_err());
    }
}
