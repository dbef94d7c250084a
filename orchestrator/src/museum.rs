//! The museum of mistakes: faults that systems like this one really had, each two lines long, to be planted on purpose.
//!
//! They show that the simulation would find them: a test that catches nothing proves nothing. Planted they are only in a build
//! with the feature `museum`, and there only in a thread that asks for one of them; in every other build what stands here is
//! the constant `false`, and the compiler leaves the mistakes out.

macro_rules! mistakes {
    ($($(#[$doc:meta])* $variant:ident $name:literal;)*) => {
        /// A mistake that can be planted.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Mistake { $($(#[$doc])* $variant,)* }

        impl Mistake {
            /// Every mistake, with what it is called.
            pub const ALL: &[(Mistake, &str)] = &[$((Self::$variant, $name),)*];
        }
    };
}

mistakes! {
    /// A commit is spoken of as soon as it is handed over.
    AckBeforeSync "ack before fsync";
    /// A task is given to a worker when it is decided, and not when it is durable.
    OfferBeforeCommit "offer before commit";
    /// A result is applied because the job waits for one: of which attempt, nobody asks.
    StateOnlyGuard "state-only guard";
    /// Every life of the process draws the same ids.
    AttemptIdsAgain "attempt ids used again after a restart";
    /// The job and its idempotency key are written separately, and the second write is the one that a crash forestalls.
    TwoTransactions "job and idempotency key in two transactions";
    /// Timers follow the wall clock, which somebody sets back.
    WallClock "timers by the wall clock";
    /// A fan-in counts how often a child has ended, and not which.
    FanInByArrivals "fan-in counted by arrivals";
    /// News that the children have ended is believed whenever it comes.
    ParentResumedTwice "parent resumed twice";
    /// A result is applied to a job that was cancelled meanwhile.
    CancelledRevived "cancelled job revived by a result";
    /// Whoever knows an attempt's id may report it.
    AnyoneReports "anyone may report a task";
    /// After a full disk, memory stays as it was decided.
    UndoForgotten "memory ahead of a store that did not follow";
    /// What is read from the store is taken for the job's present state, however old.
    OldVersionBroughtBack "a stale read brought back";
    /// A message to a webhook is kept in memory, and what it tells of is stored without it.
    NoticeAside "a webhook's message beside the commit";
    /// A schedule's job is stored, and how far the schedule has come is not.
    DueTimeAside "a due time's job beside the commit of its schedule";
    /// The lease of a lost worker's task stays.
    LostWorkerForgotten "a lost worker's tasks are forgotten";
}

/// Plants a mistake in this thread, or none.
#[cfg(feature = "museum")]
pub fn plant(mistake: Option<Mistake>) {
    PLANTED.set(mistake);
}

#[cfg(feature = "museum")]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Mistake>> = const { std::cell::Cell::new(None) };
}

/// Whether this mistake is to be made.
#[cfg(feature = "museum")]
pub(crate) fn plants(mistake: Mistake) -> bool {
    PLANTED.get() == Some(mistake)
}

/// No mistake is to be made.
#[cfg(not(feature = "museum"))]
#[inline(always)]
pub(crate) const fn plants(_: Mistake) -> bool {
    false
}
