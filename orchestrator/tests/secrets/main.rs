//! Secrets stay where they belong. An orchestrator and workers, as processes, go through everything that has to do with a secret, at the
//! most talkative log level that operators use: good and bad tokens in every place where one can stand, approvals, webhooks, failures,
//! reloads, a drain, a kill, a restart. Then all that they have said, answered and written down is searched.
//!
//! Where a secret has to be is named in [`story`]: the approval's token in the job as its owner sees it, in the message to the webhook,
//! and in the store, which compares it. Nothing else is anywhere.

// A test that cannot go on may say so by panicking.
#![allow(clippy::unwrap_used)]

mod house;
#[allow(dead_code)] // Webhooks have tests of their own, which need the rest.
#[path = "../webhooks/receiver.rs"]
mod receiver;
mod story;
