//! Handlers that the stock worker brings along: small, and useful for trying things out.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tracing::info;

use crate::{
    Handler, HandlerFuture, TaskContext, TaskError, TaskOutcome, Worker, WorkerBuilder, error::cut,
    handler::Typed,
};

/// The names that [`by_name`] knows, each with what it does.
pub const BUILTINS: [(&str, &str); 3] = [
    (
        "process_data",
        "upper-cases the text `payload`; answers `processed_payload`, `worker_id` and `message`",
    ),
    ("echo", "answers its params"),
    ("fail", "fails with the `code` (default PERMANENT_ERROR) and the `message` that its params name"),
];

/// Bytes of a payload that are logged.
const LOGGED_PAYLOAD_BYTES_MAX: usize = 200;

/// The builtin handler with this name.
pub fn by_name(name: &str) -> Option<Arc<dyn Handler>> {
    match name {
        "process_data" => Some(process_data()),
        "echo" => Some(echo()),
        "fail" => Some(fail()),
        _ => None,
    }
}

/// The worker of the first steps: type `test-processor`, five slots, serving `process_data` with the builtin of that name.
pub fn demo_worker(url: impl Into<String>, token: impl Into<String>) -> WorkerBuilder {
    let worker = Worker::builder(url).token(token).worker_type("test-processor").slots(5);
    worker.handler("process_data", process_data())
}

#[derive(Deserialize)]
struct ProcessData {
    payload: String,
}

#[derive(Serialize)]
struct ProcessedData {
    processed_payload: String,
    worker_id: String,
    message: &'static str,
}

/// Upper-cases `payload`.
pub fn process_data() -> Arc<dyn Handler> {
    Arc::new(Typed::new(|params: ProcessData, context: TaskContext| async move {
        info!("Processing data for job {}", context.job_id());
        let mut shown = params.payload.clone();
        cut(&mut shown, LOGGED_PAYLOAD_BYTES_MAX);
        info!("Payload: {shown}");
        let result = ProcessedData {
            processed_payload: params.payload.to_uppercase(),
            worker_id: context.worker_id().to_owned(),
            message: "Data processed successfully!",
        };
        info!("Completed processing for job {}", context.job_id());
        Ok(result)
    }))
}

/// Answers its params, byte for byte.
pub fn echo() -> Arc<dyn Handler> {
    Arc::new(Echo)
}

struct Echo;

impl Handler for Echo {
    fn call(&self, params: String, _: TaskContext) -> HandlerFuture {
        Box::pin(std::future::ready(Ok(TaskOutcome::raw(avtomatika_proto::outcome::SUCCESS, params))))
    }
}

#[derive(Deserialize)]
struct Fail {
    #[serde(default = "permanent")]
    code: String,
    #[serde(default = "as_asked")]
    message: String,
}

fn permanent() -> String {
    avtomatika_proto::task_error::PERMANENT.to_owned()
}

fn as_asked() -> String {
    "failed as asked".to_owned()
}

/// Fails as its params say.
pub fn fail() -> Arc<dyn Handler> {
    Arc::new(Typed::new(|params: Fail, _: TaskContext| async move {
        Err::<(), _>(TaskError::custom(params.code, params.message))
    }))
}

#[cfg(test)]
mod tests {
    use avtomatika_proto::{task_error, v1};

    use super::*;
    use crate::context::context_for_test;

    async fn run(name: &str, params: &str) -> Result<(String, String), TaskError> {
        let handler = by_name(name).expect("a builtin");
        handler.call(params.to_owned(), context_for_test(&v1::Task::default())).await?.into_wire()
    }

    #[tokio::test]
    async fn process_data_answers_as_the_first_steps_show() {
        let (outcome, data) = run("process_data", r#"{"job_id": "x", "payload": "straße"}"#).await.unwrap();
        assert_eq!(outcome, "success");
        assert_eq!(
            data,
            r#"{"processed_payload":"STRASSE","worker_id":"test-worker","message":"Data processed successfully!"}"#
        );
        let error = run("process_data", r#"{"payload": 7}"#).await.unwrap_err();
        assert_eq!(error.code(), task_error::INVALID_INPUT);
    }

    #[tokio::test]
    async fn echo_answers_its_params_and_fail_fails() {
        assert_eq!(run("echo", r#"{"n": 1e400}"#).await.unwrap().1, r#"{"n": 1e400}"#);
        let error = run("fail", r#"{"message": "no"}"#).await.unwrap_err();
        assert_eq!(error.to_string(), "PERMANENT_ERROR: no");
        assert_eq!(run("fail", r#"{"code": "OUT_OF_PAPER"}"#).await.unwrap_err().code(), "OUT_OF_PAPER");
    }

    #[test]
    fn every_builtin_that_the_help_names_exists() {
        assert!(BUILTINS.iter().all(|(name, _)| by_name(name).is_some()));
        assert!(by_name("no_such").is_none());
    }
}
