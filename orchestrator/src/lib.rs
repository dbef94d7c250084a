//! The Avtomatika orchestrator.

pub mod blueprint;
pub mod json;
pub mod time;
