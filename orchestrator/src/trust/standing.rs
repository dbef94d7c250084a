//! Whether a token is still good, for those who began something with it. It goes once, from good to withdrawn.

use std::sync::Arc;

use avtomatika_proto::{ApiError, ErrorCode};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// The standing of one token. Cheap to clone; every clone sees the same one.
#[derive(Debug, Clone, Default)]
pub struct Standing(Arc<CancellationToken>);

impl Standing {
    /// From now on it is withdrawn.
    pub fn withdraw(&self) {
        self.0.cancel();
    }

    /// Whether it is withdrawn.
    pub fn is_withdrawn(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Whether this is the other one, and not one that looks like it.
    pub fn is_the(&self, other: &Standing) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Ends when it is withdrawn.
    pub fn withdrawn(&self) -> WaitForCancellationFutureOwned {
        CancellationToken::clone(&self.0).cancelled_owned()
    }

    /// What is said to whoever used it.
    pub fn farewell() -> ApiError {
        ApiError::new(ErrorCode::InvalidToken, "The token was withdrawn")
            .with_hint("If it is still good, what it is for has changed: begin again. Otherwise ask the operator for a new one.")
    }
}
