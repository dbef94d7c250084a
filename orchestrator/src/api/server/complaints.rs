//! Saying something at most once per interval, so that whoever floods the port does not flood the log.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// The interval.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(5);

/// When it was said last.
#[derive(Default)]
pub(super) struct Complaints {
    last: Mutex<Option<Instant>>,
}

impl Complaints {
    /// Says this, unless something was said a moment ago.
    pub(super) fn say(&self, complaint: impl FnOnce()) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_none_or(|last| last.elapsed() >= COMPLAINT_INTERVAL) {
            *last = Some(Instant::now());
            complaint();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_come_once_per_interval() {
        let (complaints, mut said) = (Complaints::default(), 0);
        for _ in 0..100 {
            complaints.say(|| said += 1);
        }
        assert_eq!(said, 1);
    }
}
