//! Whom this orchestrator trusts, and with what: clients and workers as data, read from their files and checked.
//!
//! It promises that a token is kept as nothing but its hash, that two callers never share one, and that what cannot be used is
//! told with its file, its line and the cure, all of it at once. It refuses to know how a token arrives (`api::auth`) and what
//! a call does.

mod access;
mod bucket;
mod clients;
mod glob;
mod standing;
mod table;
mod tenants;
mod terms;
mod throttle;
mod token;
mod workers;

pub use access::{Access, ClientEntry, INLINE_ROLE, WorkerEntry};
pub use bucket::{Allowance, Bucket, Rate};
pub use clients::{CLIENTS_MAX, clients};
pub use glob::{Glob, InvalidGlob};
pub use standing::Standing;
pub use tenants::{Tenancy, Tenants};
pub use terms::{Role, Terms, WorkerTerms};
pub(crate) use throttle::network;
pub use throttle::{Advice, Throttle};
pub use token::{Secret, TokenHash, TokenKind, new_token};
pub use workers::{WORKERS_MAX, workers};

use crate::blueprint::{Finding, Position, Severity};

/// Length of a client's name.
const CLIENT_NAME_BYTES_MAX: usize = 64;

/// Whether a client may be called this.
pub fn is_client_name(name: &str) -> bool {
    (1..=CLIENT_NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

/// What is wrong with a file of tokens.
fn mistake(file: &str, line: usize, what: impl Into<String>, cure: impl Into<String>) -> Finding {
    let at = Position { line, column: usize::from(line > 0) };
    Finding { severity: Severity::Error, file: file.to_owned(), at, what: what.into(), cure: cure.into() }
}
