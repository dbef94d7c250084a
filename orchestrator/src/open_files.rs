//! How many files and sockets an orchestrator's process may have open.
//!
//! It refuses to know who opens them.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the limit as far as this process may by itself: from the soft one to the hard one.
///
/// Each connection takes a file, and many systems begin with 1024 of them, for the sake of programs that can do with no more. Of those the
/// orchestrator is none, and it starts no other program that would inherit the limit.
pub fn as_many_as_allowed() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => tracing::debug!(before = current, now = maximum, "Files that may be open"),
        // Whoever runs out of files is told so then.
        Err(error) => tracing::debug!(now = current, %error, "The limit of open files stays"),
    }
}
