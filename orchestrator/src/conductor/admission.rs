//! Large payloads come in a few at a time, so that small ones do not wait behind many of them.
//!
//! Whoever brings a large payload takes its admission before anybody looks into it, and lets go of it when it is durable.
//! A small one needs none and passes by. It refuses to know what a payload is for.

use std::sync::Arc;

use avtomatika_proto::limits::PAYLOAD_BYTES_MAX;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// From here on a payload is large: below it, looking into it costs about as much as everything else about its job.
const LARGE_BYTES: usize = 64 * 1024;

/// Large payloads under way at once, in bytes: one of the largest. With two, small jobs beside them took twice as long, and no more
/// of the large ones went through.
const UNDER_WAY_BYTES: usize = PAYLOAD_BYTES_MAX;

/// What permits count.
const UNIT_BYTES: usize = 1024;

/// Lets large payloads in. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Admissions(Arc<Semaphore>);

/// Held by what is under way. What is small holds none.
#[derive(Debug, Default)]
pub struct Admission(Option<OwnedSemaphorePermit>);

impl Admissions {
    /// Nothing is under way.
    pub fn new() -> Self {
        Self(Arc::new(Semaphore::new(UNDER_WAY_BYTES / UNIT_BYTES)))
    }

    /// Waits until a payload of this size may come in; those before it come first.
    pub async fn admit(&self, bytes: usize) -> Admission {
        if bytes < LARGE_BYTES {
            return Admission(None);
        }
        let units = (bytes.min(UNDER_WAY_BYTES) / UNIT_BYTES) as u32;
        // Nobody closes the semaphore; if somebody did, there would be nothing to wait for.
        Admission(self.0.clone().acquire_many_owned(units).await.ok())
    }
}

impl Admission {
    /// Whether there is anything to let go of.
    pub fn is_held(&self) -> bool {
        self.0.is_some()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn large_ones_wait_for_each_other_and_small_ones_for_nobody() {
        let admissions = Admissions::new();
        let (first, second) = (admissions.admit(400_000).await, admissions.admit(400_000).await);
        assert!(first.is_held() && second.is_held());
        let mut third = Box::pin(admissions.admit(400_000));
        assert!(third.as_mut().now_or_never().is_none());
        assert!(!admissions.admit(LARGE_BYTES - 1).await.is_held());
        drop(first);
        assert!(third.await.is_held());
        // One that is larger than everything that may be under way comes in alone.
        drop(second);
        assert!(admissions.admit(usize::MAX).await.is_held());
    }
}
