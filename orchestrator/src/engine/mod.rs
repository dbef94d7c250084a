//! The engine decides. It is pure: no async, no clock, no randomness of its own, no store, no wire types.
//!
//! [`decide`] is a total function: a job, an event, the blueprint and the present time in; the next job, its history and
//! the effects out, or a [`Refusal`] by name. Whatever it is told, in whatever order and however often, it answers with a
//! value and never with a panic. It refuses to know who holds a task, what is durable, and what time it really is.

mod decision;
mod effect;
mod entropy;
mod event;
mod history;
mod job;
mod refusal;
mod retry;
mod transition;

pub use decision::{Context, Decision};
pub use effect::{Effect, Offer};
pub use entropy::Entropy;
pub use event::{Event, Report};
pub use history::{HistoryEntry, HistoryEvent};
pub use job::{Attempt, Job, JobError, JobStatus, Submission};
pub use refusal::Refusal;
pub use transition::{decide, offer_again};

/// Workers that one task may cost before the job is quarantined: the first loss is an accident, the third is the task's doing.
pub const WORKERS_LOST_MAX: u32 = 3;

/// Largest `state_history`, in bytes: with the largest input and the largest result a job still fits one gRPC message.
pub const STATE_HISTORY_BYTES_MAX: usize = 3 * avtomatika_proto::limits::PAYLOAD_BYTES_MAX / 2;
