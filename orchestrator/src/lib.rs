//! The Avtomatika orchestrator.

pub mod blueprint;
pub mod conductor;
pub mod engine;
pub mod json;
pub mod metrics;
pub mod store;
pub mod time;
