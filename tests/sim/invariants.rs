//! What must be true at every moment, each by its name.
//!
//! The numbers in brackets are those of the invariants in ARCHITECTURE.md that a name is a part of.

use std::fmt;

macro_rules! invariants {
    ($($(#[$doc:meta])* $variant:ident $name:literal;)*) => {
        /// Something that must be true.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Invariant { $($(#[$doc])* $variant,)* }

        impl Invariant {
            fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

invariants! {
    /// [2, 7] A job is acknowledged when it is durable, and whatever happens then, it is there, as it was submitted.
    AcknowledgedIsDurable "an acknowledged job is durable";
    /// [2] No client sees a change of a job that is not durable.
    SeenIsDurable "what a client sees is durable";
    /// [2] A task is offered when its attempt is durable, and only while it is the job's current one.
    OfferedIsDurable "an offered attempt is durable and current";
    /// [2] A worker is told that its result is applied when that is durable: it forgets it then.
    AppliedIsDurable "a result acknowledged as applied is durable";
    /// [2] A worker is told that its result changes nothing only when what makes it so is durable.
    RefusedForGood "a result refused for good changes nothing for good reason";
    /// [5] At most one result of an attempt is applied.
    AppliedOnce "a result is applied at most once";
    /// [5] Only news of the current attempt changes a job.
    CurrentAttemptOnly "only the current attempt moves a job";
    /// [5] Only the session that was given an attempt may report it.
    HolderOnly "only the holder of an attempt reports it";
    /// [5] No attempt has the id of another, before a restart or after.
    AttemptIdsAreUnique "attempt ids are unique for ever";
    /// [5] Within the life of one process, an attempt is given to one session.
    OneHolder "no attempt is in two hands";
    /// [6] A job that has ended stays as it is, unless a human starts it again.
    TerminalIsTerminal "what has ended stays ended";
    /// [6] A job's changes are moves that its blueprint has.
    LawfulMoves "a job moves as its blueprint says";
    /// [6] The entries of a history are numbered without gaps, and tell of everything that happened.
    HistoryIsTheJob "a job is what its history tells";
    /// [6] No more tries than the blueprint allows, no more lost workers than a task may cost.
    TriesAreBounded "tries are bounded";
    /// [6] Every open job has something that will move it on, and only one thing that does.
    EverythingHasAMover "every open job has something that moves it on";
    /// [6] When the faults end, everything ends, within a bound of virtual time.
    EverythingEnds "without faults everything ends";
    /// Every stored job comes from one submission or one parent.
    NoGhosts "every job was asked for, once";
    /// One idempotency key makes one job, before a crash and after.
    OneKeyOneJob "one idempotency key makes one job";
    /// A parent goes on once, when all of its children have ended, and knows how.
    ChildrenFirst "a parent goes on once, after all its children";
    /// No more children run than the blueprint allows.
    MaxParallel "no more children run than may";
    /// No key is in more hands than its limit allows.
    KeysAreRespected "no key is in more hands than it allows";
    /// Nobody waits for keys that have room, unless somebody before it does.
    NobodyWaitsInVain "nobody waits for a key that has room";
    /// [7] What is durable is what was committed, after every crash.
    StoreIsAsCommitted "the store has what was committed and nothing else";
    /// [7] Memory is a cache of the store.
    MemoryFollowsStore "what the conductor knows is in the store";
    /// [8] No worker is given more tasks than it has slots.
    SlotsAreRespected "a worker is given no more than it has slots";
    /// [8] No more jobs are accepted than may be open.
    OpenJobsAreBounded "no more jobs are accepted than may be open";
    /// [11] Time does not go back within the life of one process.
    TimeGoesForward "time goes forward";
    /// A due time of a schedule has one job, or is let go for a reason that its schedule has; decided once, whatever crashes.
    DueOnce "each due time has exactly one job";
    /// [12] A stored version never changes, and a job keeps the one it has until it is moved.
    VersionsStay "a version stays as it is, and a job stays with it";
    /// A job stands in a state that its version has, also when it was moved to another.
    StandsInItsVersion "a job stands in a state that its version has";
    /// What has happened to a job and concerns its webhook is owed to it, once, and is written with it.
    OwedExactly "a job owes its webhook exactly its messages";
    /// A message counts as delivered when its receiver has it: at least once, whatever crashes.
    DeliveredIsReceived "what counts as delivered was received";
    /// A watcher sees every change in its order, and the end last.
    WatchesAreInOrder "a watch goes forward and ends with the job";
    /// The process does not turn in circles.
    TimeGoesOn "time goes on";
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Something that must be true is not.
#[derive(Debug)]
pub struct Violation {
    pub invariant: Invariant,
    pub what: String,
}

/// Nothing, if it is true.
pub type Checked = Result<(), Violation>;

/// Requires something; what is wrong is put into words only if something is.
pub fn require(holds: bool, invariant: Invariant, what: impl FnOnce() -> String) -> Checked {
    if holds { Ok(()) } else { Err(Violation { invariant, what: what() }) }
}
