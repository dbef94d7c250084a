//! A worker of one's own: thumbnails, or at least their sizes.
//!
//! Run it beside an orchestrator that serves `examples/blueprints`:
//!
//! ```sh
//! AVTOMATIKA_TOKEN=test-worker-token cargo run --example worker
//! ```

use avtomatika_worker::{TaskContext, TaskError, Worker};
use serde::{Deserialize, Serialize};

/// The params, as the blueprint puts them together.
#[derive(Deserialize)]
struct Picture {
    width: u32,
    height: u32,
    longest_side: u32,
}

/// What is merged into the job's `state_history`.
#[derive(Serialize)]
struct Thumbnail {
    thumbnail_width: u32,
    thumbnail_height: u32,
}

async fn scale(picture: Picture, context: TaskContext) -> Result<Thumbnail, TaskError> {
    let side = picture.width.max(picture.height);
    if side == 0 || picture.longest_side == 0 {
        // The job's own data is at fault, so nobody tries again.
        return Err(TaskError::invalid_input("a side of 0 cannot be scaled"));
    }
    context.progress(0.5, "measured");
    let scaled = |length: u32| (u64::from(length) * u64::from(picture.longest_side) / u64::from(side)) as u32;
    Ok(Thumbnail { thumbnail_width: scaled(picture.width), thumbnail_height: scaled(picture.height) })
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let worker = Worker::builder("http://127.0.0.1:8000")
        .token(std::env::var("AVTOMATIKA_TOKEN")?)
        .worker_type("imaging")
        .slots(4)
        .handle("scale_picture", scale)
        .build()?;
    worker.run_until(async { tokio::signal::ctrl_c().await.unwrap_or_default() }).await?;
    Ok(())
}
