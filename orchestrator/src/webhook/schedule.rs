//! When a message is sent, sent again, and given up: what becomes of a notice, as data. No clock and no network in here.

use std::{sync::Arc, time::Duration};

use crate::{
    engine::{Job, Notice},
    store::{NoticeRecord, NoticeStatus},
    time::Timestamp,
};

/// The pause after the first attempt that failed. Each further one is twice as long.
pub const RETRY_FIRST: Duration = Duration::from_secs(5);

/// The longest pause.
pub const RETRY_MAX: Duration = Duration::from_secs(4 * 3600);

/// How long a message is tried, from the moment when it was first due.
pub const GIVE_UP_AFTER: Duration = Duration::from_secs(86_400);

/// By how much a pause may be longer or shorter, so that messages which failed together do not come together again. Less than a
/// third, or a pause could be shorter than the one before it.
const JITTER: f64 = 0.2;

/// The notice that is owed to a job's webhook, if it has one.
pub fn owed(job: &Job, notice: Notice) -> Option<NoticeRecord> {
    NoticeRecord::of(job, notice, job.updated_at + GIVE_UP_AFTER)
}

/// The notice after the receiver has taken it.
pub fn delivered(notice: &NoticeRecord, now: Timestamp, answer: u16) -> NoticeRecord {
    NoticeRecord { status: NoticeStatus::Delivered, ..attempted(notice, now, Some(answer), None) }
}

/// The notice after an attempt in vain. It is tried again unless `is_final`, or its day is over. `retry_after` is what the
/// receiver asks for; `chance` is a number in `0.0..1.0` that nobody can foresee.
pub fn failed(
    notice: &NoticeRecord,
    now: Timestamp,
    answer: Option<u16>,
    problem: Arc<str>,
    is_final: bool,
    retry_after: Option<Duration>,
    chance: f64,
) -> NoticeRecord {
    let tried = attempted(notice, now, answer, Some(problem));
    if is_final || now >= notice.give_up_at {
        return NoticeRecord { status: NoticeStatus::Failed, ..tried };
    }
    let pause = pause_after(tried.tries, chance).max(retry_after.unwrap_or_default().min(RETRY_MAX));
    // The last attempt is made when the day is over.
    NoticeRecord { due_at: (now + pause).min(notice.give_up_at), ..tried }
}

/// The notice when there is nothing to tell any more.
pub fn obsolete(notice: &NoticeRecord) -> NoticeRecord {
    NoticeRecord { status: NoticeStatus::Obsolete, revision: notice.revision + 1, ..notice.clone() }
}

/// The notice when somebody asks for it again: due at once, and with a day of its own.
pub fn redelivered(notice: &NoticeRecord, now: Timestamp) -> NoticeRecord {
    NoticeRecord {
        status: NoticeStatus::Pending,
        due_at: now,
        give_up_at: now + GIVE_UP_AFTER,
        tries: 0,
        revision: notice.revision + 1,
        ..notice.clone()
    }
}

fn attempted(
    notice: &NoticeRecord,
    now: Timestamp,
    answer: Option<u16>,
    problem: Option<Arc<str>>,
) -> NoticeRecord {
    NoticeRecord {
        attempts: notice.attempts.saturating_add(1),
        tries: notice.tries.saturating_add(1),
        attempted_at: Some(now),
        answer,
        problem,
        revision: notice.revision + 1,
        ..notice.clone()
    }
}

fn pause_after(tries: u32, chance: f64) -> Duration {
    let doublings = tries.saturating_sub(1).min(20);
    let pause = RETRY_FIRST.saturating_mul(1 << doublings).min(RETRY_MAX);
    pause.mul_f64(1.0 - JITTER + 2.0 * JITTER * chance)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::conformance::Samples;

    fn notice() -> NoticeRecord {
        let mut samples = Samples::new(1);
        let job = samples.job("acme");
        let notice = samples.notice(&job);
        let give_up_at = notice.at + GIVE_UP_AFTER;
        NoticeRecord { due_at: notice.at, give_up_at, attempts: 0, tries: 0, problem: None, ..notice }
    }

    /// What becomes of a notice that nobody ever takes.
    fn life(chance: impl Fn(u32) -> f64) -> (Vec<Duration>, NoticeRecord) {
        let mut notice = notice();
        let mut pauses = Vec::new();
        while notice.status == NoticeStatus::Pending {
            let now = notice.due_at;
            notice = failed(&notice, now, Some(500), "500".into(), false, None, chance(notice.tries));
            pauses.push(notice.due_at.saturating_since(now));
        }
        (pauses, notice)
    }

    #[test]
    fn pauses_grow_from_seconds_to_hours_and_end_with_the_day() {
        for chance in [|_| 0.0, |_| 0.999, |tries: u32| f64::from(tries % 2) * 0.999] {
            let (pauses, last) = life(chance);
            assert!(pauses[0] >= Duration::from_secs(4) && pauses[0] < Duration::from_secs(6));
            let growing =
                pauses.iter().take_while(|pause| **pause < RETRY_MAX.mul_f64(0.7)).collect::<Vec<_>>();
            assert!(growing.is_sorted() && growing.len() > 8, "{pauses:?}");
            assert!(pauses.iter().all(|pause| *pause < RETRY_MAX.mul_f64(1.2)));
            assert_eq!(last.status, NoticeStatus::Failed);
            assert_eq!(
                last.attempted_at,
                Some(last.give_up_at),
                "the last attempt is made at the end of the day"
            );
            assert!((15..30).contains(&last.attempts), "{}", last.attempts);
            assert_eq!(last.revision, last.attempts);
        }
    }

    #[test]
    fn a_receiver_may_ask_for_a_longer_pause_and_for_none_that_is_shorter() {
        let notice = notice();
        let pause = |seconds| {
            let asked = Some(Duration::from_secs(seconds));
            failed(&notice, notice.at, Some(503), "503".into(), false, asked, 0.5)
                .due_at
                .saturating_since(notice.at)
        };
        assert_eq!(pause(0), RETRY_FIRST);
        assert_eq!(pause(60), Duration::from_secs(60));
        assert_eq!(pause(u64::MAX), RETRY_MAX);
    }

    #[test]
    fn whoever_wants_no_more_is_left_alone_until_somebody_asks() {
        let notice = notice();
        let gone = failed(&notice, notice.at, Some(410), "410 Gone".into(), true, None, 0.5);
        assert_eq!((gone.status, gone.attempts), (NoticeStatus::Failed, 1));
        let later = notice.at + Duration::from_secs(7 * 86_400);
        let again = redelivered(&gone, later);
        assert_eq!((again.status, again.due_at, again.tries), (NoticeStatus::Pending, later, 0));
        assert_eq!((again.id, again.attempts, again.revision), (notice.id, 1, 2));
        let taken = delivered(&again, later, 204);
        assert_eq!((taken.status, taken.attempts, taken.answer), (NoticeStatus::Delivered, 2, Some(204)));
        assert_eq!(taken.problem, None);
    }
}
