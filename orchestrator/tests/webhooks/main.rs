//! Webhooks with real receivers: by the chore itself, and by the program as a whole.

// A test that cannot go on should stop where it is.
#![allow(clippy::unwrap_used)]

mod delivery;
mod process;
mod receiver;
