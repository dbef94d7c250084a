//! When the next job is submitted: as soon as a caller is free (closed loop), or at times that were fixed before (open loop).
//!
//! In the open loop a latency counts from the fixed time and not from when somebody came round to submitting: a stall of the
//! orchestrator then shows in every job that fell into it, and not in a few only (coordinated omission).

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use tokio::sync::Semaphore;

/// How long the pacing thread sleeps at most before it looks whether it was stopped.
const NAP_MAX: Duration = Duration::from_millis(50);

/// What sets the pace.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Pace {
    /// Who has an answer submits the next job.
    Closed,
    /// The clock.
    Open { per_second: f64 },
}

/// When it is enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Jobs(u64),
    After(Duration),
}

/// The right to submit one job.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ticket {
    /// From when its latency counts.
    pub(super) since: Instant,
}

/// Hands out tickets, in order, to any number of callers.
#[derive(Debug)]
pub(super) struct Tickets {
    start: Instant,
    jobs_max: u64,
    until: Option<Instant>,
    taken: AtomicU64,
    stopped: AtomicBool,
    open: Option<Schedule>,
}

/// The open loop's part.
#[derive(Debug)]
struct Schedule {
    per_second: f64,
    /// Tickets whose time has come and that nobody has taken yet.
    due: Semaphore,
    held_back: AtomicU64,
}

impl Tickets {
    /// Tickets from now on. In the open loop a thread hands them out; it ends with the tickets, or when nobody has them.
    pub(super) fn start(pace: Pace, end: End, callers: usize) -> Arc<Self> {
        let start = Instant::now();
        let per_second = match pace {
            Pace::Closed => None,
            Pace::Open { per_second } => Some(per_second),
        };
        let jobs_max = match (end, per_second) {
            (End::Jobs(jobs), _) => jobs,
            (End::After(_), None) => u64::MAX,
            // A float becomes an integer by saturation.
            (End::After(span), Some(per_second)) => (span.as_secs_f64() * per_second).ceil().max(1.0) as u64,
        };
        let until = match (end, per_second) {
            (End::After(span), None) => start.checked_add(span),
            _ => None,
        };
        let schedule =
            |per_second| Schedule { per_second, due: Semaphore::new(0), held_back: AtomicU64::new(0) };
        let tickets = Arc::new(Self {
            start,
            jobs_max,
            until,
            taken: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
            open: per_second.map(schedule),
        });
        if tickets.open.is_some() {
            let paced = Arc::clone(&tickets);
            thread::spawn(move || paced.pace(callers));
        }
        tickets
    }

    /// The next ticket; in the open loop, when its time has come. `None` when there are no more.
    pub(super) async fn take(&self) -> Option<Ticket> {
        let Some(schedule) = &self.open else {
            let since = Instant::now();
            let is_over = self.until.is_some_and(|until| since >= until);
            return if is_over { None } else { self.number().map(|_| Ticket { since }) };
        };
        let was_due = match schedule.due.try_acquire() {
            Ok(permit) => {
                permit.forget();
                true
            }
            Err(_) => {
                schedule.due.acquire().await.ok()?.forget();
                false
            }
        };
        let number = self.number()?;
        if was_due {
            // Nobody was free when its time came.
            schedule.held_back.fetch_add(1, Ordering::Relaxed);
        }
        Some(Ticket { since: self.start + after(number, schedule.per_second) })
    }

    /// No more tickets; those that were taken stay valid.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        if let Some(schedule) = &self.open {
            schedule.due.close();
        }
    }

    /// Jobs that were not submitted at their time, because as many as allowed were in flight. Absent in the closed loop.
    pub(super) fn held_back(&self) -> Option<u64> {
        self.open.as_ref().map(|schedule| schedule.held_back.load(Ordering::Relaxed))
    }

    /// How far the run is, from 0 to 1.
    pub(super) fn progress(&self) -> f64 {
        match self.until {
            Some(until) => self.start.elapsed().as_secs_f64() / (until - self.start).as_secs_f64(),
            None => self.taken.load(Ordering::Relaxed) as f64 / self.jobs_max as f64,
        }
        .min(1.0)
    }

    fn number(&self) -> Option<u64> {
        if self.stopped.load(Ordering::Relaxed) {
            return None;
        }
        let number = self.taken.fetch_add(1, Ordering::Relaxed);
        (number < self.jobs_max).then_some(number)
    }

    /// Makes tickets available at their times. A thread and not a task: timers of the runtime are a millisecond coarse.
    fn pace(&self, callers: usize) {
        let Some(Schedule { per_second, due, .. }) = &self.open else { return };
        let mut issued = 0;
        while issued < self.jobs_max && !self.stopped.load(Ordering::Relaxed) {
            let now_due = due_by(self.start.elapsed(), *per_second).min(self.jobs_max);
            if now_due > issued {
                due.add_permits((now_due - issued) as usize);
                issued = now_due;
            }
            let next = self.start + after(issued, *per_second);
            thread::sleep(next.saturating_duration_since(Instant::now()).min(NAP_MAX));
        }
        // Whoever waits now finds that there is no ticket left.
        due.add_permits(callers);
    }
}

/// When the ticket with this number is due, from the start on.
fn after(number: u64, per_second: f64) -> Duration {
    Duration::try_from_secs_f64(number as f64 / per_second).unwrap_or(Duration::MAX / 4)
}

/// How many tickets are due after this time.
fn due_by(elapsed: Duration, per_second: f64) -> u64 {
    (elapsed.as_secs_f64() * per_second).floor() as u64 + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schedule_is_fixed_and_even() {
        for (number, per_second, ms) in [(0, 10.0, 0), (1, 10.0, 100), (25, 10.0, 2_500), (3, 0.5, 6_000)] {
            assert_eq!(after(number, per_second), Duration::from_millis(ms));
        }
        for (elapsed_ms, due) in [(0, 1), (99, 1), (100, 2), (2_450, 25)] {
            assert_eq!(due_by(Duration::from_millis(elapsed_ms), 10.0), due, "after {elapsed_ms} ms");
        }
    }

    #[tokio::test]
    async fn in_the_closed_loop_there_are_as_many_tickets_as_jobs() {
        let tickets = Tickets::start(Pace::Closed, End::Jobs(3), 1);
        for _ in 0..3 {
            assert!(tickets.take().await.is_some());
        }
        assert!(tickets.take().await.is_none());
        assert_eq!((tickets.held_back(), tickets.progress()), (None, 1.0));
        let stopped = Tickets::start(Pace::Closed, End::After(Duration::from_secs(3600)), 1);
        assert!(stopped.take().await.is_some());
        stopped.stop();
        assert!(stopped.take().await.is_none());
    }

    #[tokio::test]
    async fn in_the_open_loop_latency_counts_from_the_time_that_was_fixed() {
        let tickets = Tickets::start(Pace::Open { per_second: 1_000.0 }, End::Jobs(20), 1);
        let mut times = Vec::new();
        while let Some(ticket) = tickets.take().await {
            assert!(ticket.since <= Instant::now(), "nobody submits before the time");
            times.push(ticket.since - tickets.start);
        }
        let fixed: Vec<_> = (0..20).map(Duration::from_millis).collect();
        assert_eq!(times, fixed);
    }

    #[tokio::test]
    async fn a_caller_that_comes_late_is_counted_and_its_wait_is_not_forgiven() {
        let tickets = Tickets::start(Pace::Open { per_second: 1_000.0 }, End::Jobs(10), 1);
        // All ten are due and nobody has come.
        while tickets.open.as_ref().unwrap().due.available_permits() < 10 {
            tokio::task::yield_now().await;
        }
        let came = Instant::now();
        let mut taken = 0;
        while let Some(ticket) = tickets.take().await {
            taken += 1;
            assert!(ticket.since < came);
        }
        assert_eq!((taken, tickets.held_back()), (10, Some(10)));
    }

    #[tokio::test]
    async fn whoever_waits_for_a_ticket_is_woken_by_the_stop() {
        let tickets = Tickets::start(Pace::Open { per_second: 0.001 }, End::Jobs(2), 1);
        assert!(tickets.take().await.is_some(), "the first one is due at once");
        let waiting = tokio::spawn({
            let tickets = Arc::clone(&tickets);
            async move { tickets.take().await.is_none() }
        });
        tickets.stop();
        assert!(waiting.await.unwrap());
    }
}
