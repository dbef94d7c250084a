//! The engine decides. It is pure: no async, no clock, no randomness of its own, no store, no wire types.
//!
//! [`decide`] is a total function: a job, an event, the blueprint and the present time in; the next job, its history and
//! the effects out, or a [`Refusal`] by name. Whatever it is told, in whatever order and however often, it answers with a
//! value and never with a panic. It refuses to know who holds a task, what is durable, and what time it really is.

mod children;
pub mod code;
mod decision;
mod draft;
mod effect;
mod entropy;
mod event;
mod history;
mod job;
mod keys;
mod migrate;
pub mod outlook;
mod pause;
mod refusal;
mod repair;
mod retry;
mod task;
mod transition;

pub use children::{ChildSpec, Plan, child_result, children_of, plan, unknown};
pub use decision::{Context, Decision};
pub use effect::{Effect, Notice, Offer};
pub use entropy::Entropy;
pub use event::{ChildResult, Edit, Event, Harvest, Migration, RepairKey, Report, Retry, Ruling, Skip};
pub use history::{HistoryEntry, HistoryEvent};
pub use job::{Attempt, ChildKind, Children, Job, JobError, JobStatus, Parent, Signal, Submission, Wait};
pub use keys::{Asked, Claim, Displaced, Hold, KeyScope, Keys, Passage, Unlimited};
pub use refusal::Refusal;
pub use task::offer_again;
pub use transition::decide;

/// Workers that one task may cost before the job is quarantined: the first loss is an accident, the third is the task's doing.
pub const WORKERS_LOST_MAX: u32 = 3;

/// Largest `state_history`, in bytes: with the largest input and the largest result a job still fits one gRPC message.
pub const STATE_HISTORY_BYTES_MAX: usize = 3 * avtomatika_proto::limits::PAYLOAD_BYTES_MAX / 2;

/// Branches of one map. Each is a job, and their results must fit into their parent.
pub const MAP_BRANCHES_MAX: u32 = 10_000;

/// Bytes that the results of a map's branches may have together: as much as a state history.
pub const RESULTS_BYTES_MAX: usize = STATE_HISTORY_BYTES_MAX;

/// Jobs may nest so deep: beyond it a blueprint that runs itself is more likely than a plan.
pub const CHILD_DEPTH_MAX: u32 = 10;

/// Signals that a job keeps until it waits for them.
pub const SIGNALS_MAX: usize = 32;

/// Bytes of data that those may have together.
pub const SIGNAL_BYTES_MAX: usize = avtomatika_proto::limits::SIGNAL_DATA_BYTES_MAX;

/// Names of signals that a job remembers, to notice one that is repeated.
pub const SIGNAL_IDS_MAX: usize = 64;

/// Keys of repairs that a job remembers, to notice one that is repeated: a repetition comes soon, and repairs are few.
pub const REPAIR_KEYS_MAX: usize = 16;
