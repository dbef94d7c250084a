//! The tests of the conductor once more, with no memory for jobs that wait: each of them rests in the store and is read again
//! before its turn. Whatever holds for jobs in memory holds for them.

#[path = "conductor.rs"]
mod conductor;
