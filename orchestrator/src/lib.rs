//! The Avtomatika orchestrator: takes jobs, walks them through their blueprints, streams their tasks to workers.
//!
//! The way of a job:
//!
//! 1. [`api`]: a request comes in, by REST or gRPC, and becomes one verb in domain words;
//! 2. [`conductor`]: the verb waits in the mailbox; the conductor loads the job and asks the engine;
//! 3. [`engine`]: decides, purely, what the job becomes and what is to be done, under the law of its [`blueprint`];
//! 4. [`store`]: makes it durable, together with everything else that was decided meanwhile;
//! 5. [`dispatch`]: only then the task goes to a worker with a free slot, down its one stream;
//! 6. and the result comes back the same way: dispatch, conductor, engine, store, and an answer.
//!
//! [`assemble`] puts the parts together; clock, store and listener come from outside.

pub mod api;
mod app;
pub mod blueprint;
pub mod chores;
pub mod conductor;
pub mod config;
pub mod dispatch;
pub mod engine;
pub mod json;
pub mod metrics;
pub mod reload;
pub mod spelling;
pub mod store;
pub mod telemetry;
pub mod time;
pub mod webhook;

pub use app::{App, Parts, StartError, assemble};
