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
//!
//! # In a program of one's own
//!
//! The binary of this crate is thin; any program can have an orchestrator inside, with the network ([`App::serve`]) or without
//! ([`App::run`]). Its own Rust functions can be the steps of jobs: see [`functions`]. Blueprints come from files
//! ([`blueprint::load_dir`]) or are built in Rust ([`blueprint::builder`]).
//!
//! ```
//! use std::{sync::Arc, time::Duration};
//!
//! use avtomatika_orchestrator::{
//!     Parts, assemble,
//!     blueprint::{Blueprint, builder::{code, finished}},
//!     conductor::SubmitRequest,
//!     functions::{Call, TaskError, Functions},
//!     json::Json,
//!     store::memory::MemoryStore,
//! };
//! use serde_json::{Value, json};
//! use tokio_util::sync::CancellationToken;
//!
//! async fn double(params: Value, _: Call) -> Result<Value, TaskError> {
//!     let n = params["n"].as_i64().ok_or_else(|| TaskError::invalid_input("n is no number"))?;
//!     Ok(json!({ "doubled": 2 * n }))
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let blueprint = Blueprint::builder("doubling")
//!     .start("double", code("double").param("n", "${initial_data.n}").on("success", "done"))
//!     .state("done", finished())
//!     .build()?;
//! // For jobs that outlive the process: store::journal::open.
//! let parts = Parts { definitions: vec![blueprint], ..Parts::new(Arc::new(MemoryStore::default()))? };
//! let app = assemble(parts)?.with_functions(Functions::new().add("double", double))?;
//! let conductor = app.conductor().clone();
//! let stop = CancellationToken::new();
//! let running = tokio::spawn(app.run(stop.clone()));
//!
//! let request = SubmitRequest {
//!     wait: Duration::from_secs(30),
//!     ..SubmitRequest::of("doubling", Json::object(r#"{"n": 21}"#)?)
//! };
//! let submitted = conductor.submit(&Arc::from("me"), request).await.map_err(|error| error.message)?;
//! let job = submitted.job.expect("it was waited for").job;
//! assert_eq!(job.state_history.as_str(), r#"{"doubled":42}"#);
//!
//! stop.cancel();
//! running.await??;
//! # Ok(())
//! # }
//! ```

pub mod api;
mod app;
pub mod audit;
pub mod blueprint;
pub mod chores;
pub mod conductor;
pub mod config;
pub mod dispatch;
pub mod engine;
mod file;
pub mod functions;
#[cfg(test)]
mod fuzz;
pub mod graph;
pub mod hash;
pub mod json;
pub mod live;
pub mod memory;
pub mod metrics;
#[doc(hidden)]
pub mod museum;
pub mod open_files;
pub mod reload;
pub mod schedule;
pub mod spelling;
pub mod store;
pub mod telemetry;
pub mod time;
pub mod tls;
pub mod trust;
pub mod webhook;

pub use app::{App, Parts, StartError, assemble};
