//! The Avtomatika worker: run tasks for an orchestrator with functions of your own.
//!
//! ```no_run
//! use avtomatika_worker::{TaskContext, TaskError, Worker};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Deserialize)]
//! struct Resize {
//!     image: String,
//!     width: u32,
//! }
//!
//! #[derive(Serialize)]
//! struct Resized {
//!     thumbnail: String,
//! }
//!
//! async fn resize(params: Resize, context: TaskContext) -> Result<Resized, TaskError> {
//!     if params.width == 0 {
//!         return Err(TaskError::invalid_input("width must not be 0"));
//!     }
//!     context.progress(0.5, "decoded");
//!     Ok(Resized { thumbnail: format!("{}@{}", params.image, params.width) })
//! }
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let worker = Worker::builder("http://127.0.0.1:8000")
//!     .token("test-worker-token")
//!     .worker_type("imaging")
//!     .slots(5)
//!     .handle("resize", resize)
//!     .build()?;
//! worker.run_until(async { tokio::signal::ctrl_c().await.unwrap_or_default() }).await?;
//! # Ok(())
//! # }
//! ```
//!
//! The worker opens one stream to its orchestrator and keeps it. It promises:
//!
//! * A task that it was given ends with exactly one result, which it keeps and sends again until it is acknowledged.
//! * A lost connection does not stop handlers; it comes back by itself, with jittered back-off, and keeps its tasks when the
//!   orchestrator still wants them.
//! * A panic in a handler is a failed attempt, not a dead worker. A handler that blocks its thread does not silence the
//!   worker, which talks on a thread of its own.
//! * A handler is told ([`TaskContext::cancellation`]) when its time is up or its job was cancelled, and dropped after a grace.
//!
//! A task may run more than once: when a worker or its connection dies, another worker gets the task. Handlers whose effects
//! must not be repeated should use [`TaskContext::job_id`] as a key.
//!
//! Inside: `connect` (the life of the thread) dials with `dial`, over TLS if asked to ([`tls`]), runs a stream with `session`, and stops with `drain`; `runner`
//! takes tasks on, has each `attempt` end in time (`attempts`), and keeps what is held in `tasks`, which is pure. Workers in other languages follow
//! `docs/protocol.md`.

// A test that panics has failed, which is what tests are for.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod args;
mod attempt;
mod attempts;
mod backoff;
mod builder;
pub mod builtin;
mod connect;
mod context;
mod dial;
mod drain;
mod error;
pub mod exec;
mod handler;
mod runner;
mod session;
pub mod stock;
mod tasks;
pub mod tls;
mod traced;

pub use avtomatika_proto::{
    TaskError,
    spans::{Sampler, Spans},
    trace::TraceContext,
};
pub use builder::{DRAIN_TIMEOUT, Worker, WorkerBuilder, WorkerHandle};
pub use context::TaskContext;
pub use error::{BuildError, WorkerError};
pub use handler::{Handler, HandlerFuture, IntoOutcome, STOP_GRACE, TaskOutcome};
