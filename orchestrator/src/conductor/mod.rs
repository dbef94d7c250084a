//! The conductor: load, decide, commit, reply, perform.

mod handle;
mod mailbox;
mod view;

pub use handle::{Conductor, JobsPage, Watch};
pub use view::{JobView, LeaseView, Progress, Stats, SubmitRequest, Submitted, WorkerStatus, WorkerView};

/// Updates that a watcher may leave unread before it is cut off.
pub const WATCH_BACKLOG_MAX: usize = 256;
