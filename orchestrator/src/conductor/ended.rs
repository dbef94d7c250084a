//! Who is told when a traced job has ended: nobody, unless somebody has asked for it.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicU64, Ordering},
};

use tokio::sync::mpsc;

use super::Conductor;
use crate::engine::Job;

/// Ended jobs that may wait to be told of. Beyond it they are left out, and counted.
pub const UNTOLD_MAX: usize = 4096;

/// Where ended jobs go.
#[derive(Debug, Clone, Default)]
pub(super) struct Ended(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    listener: OnceLock<mpsc::Sender<Arc<Job>>>,
    left_out: AtomicU64,
}

impl Ended {
    /// A job has ended. Without a trace that is a look at one field.
    pub fn tell(&self, job: &Arc<Job>) {
        if job.submission.trace.is_some()
            && let Some(listener) = self.0.listener.get()
            && listener.try_send(job.clone()).is_err()
        {
            self.0.left_out.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Conductor {
    /// From now on, the jobs that have a trace and end. `None` when somebody gets them already.
    pub(crate) fn traced_ends(&self) -> Option<mpsc::Receiver<Arc<Job>>> {
        let (sender, receiver) = mpsc::channel(UNTOLD_MAX);
        self.ended.0.listener.set(sender).ok().map(|()| receiver)
    }

    /// Traced jobs that ended and were not told of, because too many did at once.
    pub(crate) fn untold_ends(&self) -> u64 {
        self.ended.0.left_out.load(Ordering::Relaxed)
    }
}
