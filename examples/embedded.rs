//! An orchestrator inside a program of one's own: a blueprint built in Rust, whose steps are functions of this program.
//!
//! ```sh
//! cargo run --example embedded
//! # With jobs that outlive the program: kill it in the middle, start it again, and the job goes on.
//! AVTOMATIKA_DATA_DIR=./embedded-data cargo run --example embedded
//! ```

use std::{error::Error, path::Path, sync::Arc, time::Duration};

use avtomatika_orchestrator::{
    Parts, assemble,
    blueprint::{
        Blueprint, Definition,
        builder::{Unsound, choice, code, finished, pass},
    },
    conductor::{JobView, SubmitRequest},
    functions::{Call, Functions, TaskError},
    json::Json,
    store::{Store, journal, memory::MemoryStore},
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio_util::sync::CancellationToken;

/// The params of `count_words`, as the blueprint puts them together.
#[derive(Deserialize)]
struct Text {
    text: String,
}

/// What is merged into the job's `state_history`.
#[derive(Serialize)]
struct Counted {
    words: usize,
}

async fn count_words(params: Text, _: Call) -> Result<Counted, TaskError> {
    if params.text.is_empty() {
        // The job's own data is at fault, so nobody tries again.
        return Err(TaskError::invalid_input("there is no text"));
    }
    Ok(Counted { words: params.text.split_whitespace().count() })
}

/// The sum of all bytes. It computes without a pause, so it gets a thread of its own, and looks now and then whether it is still
/// wanted.
fn checksum(params: Text, call: Call) -> Result<serde_json::Value, TaskError> {
    let mut sum = 0_u64;
    for part in params.text.as_bytes().chunks(4096) {
        if call.is_cancelled() {
            return Err(TaskError::transient("stopped half way"));
        }
        sum = part.iter().fold(sum, |sum, byte| sum.wrapping_add(u64::from(*byte)));
    }
    Ok(json!({ "checksum": sum }))
}

/// The same as a file in `examples/blueprints` would say.
fn blueprint() -> Result<Definition, Unsound> {
    Blueprint::builder("text")
        .start(
            "count",
            code("count_words")
                .param("text", "${initial_data.text}")
                .timeout(Duration::from_secs(10))
                .on("success", "is_long"),
        )
        .state("is_long", choice().when("state_history.words > 1000", "note").otherwise("sum"))
        .state("note", pass().set("note", "a long text of ${state_history.words} words").then("sum"))
        .state("sum", code("checksum").param("text", "${initial_data.text}").on("success", "completed"))
        .state("completed", finished())
        .build()
}

/// Runs one job to its end.
pub async fn run(store: Arc<dyn Store>, text: &str) -> Result<JobView, Box<dyn Error>> {
    let parts = Parts { definitions: vec![blueprint()?], ..Parts::new(store)? };
    let functions = Functions::new().add("count_words", count_words).add_blocking("checksum", checksum);
    let app = assemble(parts)?.with_functions(functions)?;

    // The verbs of clients. To be called over the network as well, use `serve` with a listener instead of `run`.
    let conductor = app.conductor().clone();
    let stop = CancellationToken::new();
    let running = tokio::spawn(app.run(stop.clone()));

    let input = Json::object(&json!({ "text": text }).to_string())?;
    let request = SubmitRequest { wait: Duration::from_secs(30), ..SubmitRequest::of("text", input) };
    let client = Arc::from("embedded");
    let submitted = conductor.submit(&client, request).await.map_err(|error| error.message)?;
    let job = submitted.job.ok_or("the job was not waited for")?;

    // In order: calls that run may end, and what is decided is made durable.
    stop.cancel();
    running.await??;
    Ok(job)
}

/// One job, in memory or in the directory that the environment names.
#[tokio::main]
pub async fn main() -> Result<(), Box<dyn Error>> {
    let store: Arc<dyn Store> = match std::env::var_os("AVTOMATIKA_DATA_DIR") {
        Some(dir) => Arc::new(journal::open(Path::new(&dir))?),
        None => Arc::new(MemoryStore::default()),
    };
    let job = run(store, "the quick brown fox jumps over the lazy dog").await?;
    println!("{} is {}: {}", job.job.id, job.status(), job.job.state_history);
    Ok(())
}
