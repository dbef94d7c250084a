//! The Avtomatika orchestrator.

pub mod api;
pub mod blueprint;
pub mod conductor;
pub mod config;
pub mod dispatch;
pub mod engine;
pub mod json;
pub mod metrics;
pub mod span;
pub mod spelling;
pub mod store;
pub mod telemetry;
pub mod time;
