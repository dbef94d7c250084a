//! IN.
pub mod auth;
