//! The pair, end to end: an orchestrator, workers and clients over real sockets, each test with its own.

mod jobs;
mod stack;
mod workers;
