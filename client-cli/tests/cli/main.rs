//! The real binary, run as people and scripts run it, against a server that follows a script, or (`dev`, `together`) a real one.
//!
//! What people see is kept in `snapshots/`; after a change on purpose, renew with `INSTA_UPDATE=always` and read the
//! difference.

// A test that cannot go on should stop where it is.
#![allow(clippy::unwrap_used)]

mod acting;
mod answers;
mod bench;
mod dev;
mod errors;
mod explained;
mod explaining;
mod files;
mod following;
mod help;
mod server;
mod streams;
mod submitting;
mod together;
mod tokens;
mod versions;
mod webhooks;
