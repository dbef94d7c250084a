//! Everything that can arrive at the conductor, as one closed list.

use std::{collections::HashMap, sync::Arc};

use avtomatika_proto::{ApiError, JobId, TaskId};
use tokio::sync::{mpsc, oneshot};

use super::view::{JobView, LeaseView, Stats, WorkerView};
use crate::{blueprint::Blueprint, engine::Submission};

/// Where the answer goes.
pub(super) type Reply<T> = oneshot::Sender<T>;

/// One message in the mailbox.
pub(super) enum Request {
    /// Create a job.
    Submit(Submit, Reply<Result<Accepted, ApiError>>),
    /// End a job.
    Cancel {
        client: Arc<str>,
        job_id: JobId,
        reason: Option<Arc<str>>,
        reply: Reply<Result<JobView, ApiError>>,
    },
    /// Follow a job.
    Watch {
        client: Arc<str>,
        job_id: JobId,
        sender: mpsc::Sender<JobView>,
        reply: Reply<Result<(), ApiError>>,
    },
    /// Who holds these attempts.
    Leases(Vec<TaskId>, Reply<HashMap<TaskId, LeaseView>>),
    /// Who is connected.
    Workers(Reply<Vec<WorkerView>>),
    /// How much there is of everything.
    Stats(Reply<Stats>),
}

/// A submission that was found to be in order.
pub(super) struct Submit {
    pub client: Arc<str>,
    pub blueprint: Arc<Blueprint>,
    pub submission: Arc<Submission>,
    /// The key and the fingerprint of the request.
    pub idempotency: Option<(Arc<str>, [u8; 32])>,
    pub follow: Follow,
}

/// Whether the submitter wants to know how the job ends.
pub(super) enum Follow {
    Not,
    End(oneshot::Sender<JobView>),
}

/// The job is durable.
#[derive(Debug, Clone, Copy)]
pub(super) struct Accepted {
    pub job_id: JobId,
    pub deduplicated: bool,
}
