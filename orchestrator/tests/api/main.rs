//! The way in, through real sockets: a whole orchestrator in this process, on a port of its own, with its store in memory.

// A test that cannot go on may say so by panicking.
#![allow(clippy::unwrap_used)]

mod actions;
mod bad_input;
#[path = "../certificates/mod.rs"]
mod certificates;
mod explain;
// Floods need some of it, and these tests the rest.
#[allow(dead_code)]
#[path = "../floods/frames.rs"]
mod frames;
mod graph;
mod greedy;
mod grpc;
mod hosts;
mod isolation;
mod migrate;
mod put;
mod reload;
mod rest;
mod retention;
mod support;
mod tenants;
mod tls;
mod wire;
