//! What must happen sometimes. A simulation that never meets a case proves nothing about it: the standing run fails when one of
//! these was not met, and says which.

macro_rules! sometimes {
    ($($variant:ident $name:literal;)*) => {
        /// Something that has to happen now and then.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Sometimes { $($variant,)* }

        impl Sometimes {
            pub const ALL: &[(Sometimes, &str)] = &[$((Self::$variant, $name),)*];
        }
    };
}

sometimes! {
    // ---- Crashes ----
    CrashBetweenCommitAndPerform "a crash between commit and perform";
    CrashLosesBatch "a crash loses a batch that was not durable";
    CrashKeepsBatch "a crash keeps a batch that nobody was told of";
    CrashTearsFrame "a crash leaves a part of a batch, which is dropped whole";
    CrashKeepsFrame "a batch that nobody was told of is found again in the journal";
    CrashDuringRecovery "a crash during recovery";
    FailStop "a sync fails and the process stops";
    DrainAndRestart "an orderly stop and a new start";
    ClockBackAtRestart "the wall clock has gone back at a restart";
    ClockSetWhileRunning "the wall clock is set while the process runs";
    Paused "the process stands still for seconds";
    // ---- Disk ----
    FullAndUndone "the disk is full and a batch is undone";
    FullAndTriedAgain "what was noticed on a full disk is decided again later";
    ReadFailed "a read fails";
    Rested "a job rests and is read again";
    RestedAndChanged "a job is changed between being read and being brought back";
    Pruned "an ended job is forgotten";
    // ---- Workers ----
    Adopted "a task is adopted after a restart";
    Dropped "a returning worker has to drop a task";
    LateWhileNewer "a late result comes while a newer attempt is in another worker's hands";
    StaleRefused "a result of an earlier attempt is refused";
    DuplicateRefused "a second copy of a result is refused";
    ForeignRefused "a result from somebody who does not hold the task is refused";
    UnknownRefused "a result for a job that is not there is refused";
    TerminalRefused "a result for a job that has ended is refused";
    RetryLater "a worker is asked to send its result again later";
    WorkerLost "a worker is lost with a task";
    ThreeWorkersLost "a task costs three workers";
    AttemptTimedOut "an attempt takes too long";
    Returned "a worker gives a task back";
    CheckpointSaved "the checkpoint of an attempt is stored while it runs";
    SessionReplaced "a session is replaced by a new registration";
    StreamTaken "a session's stream is replaced";
    OldStreamSpeaks "an old stream speaks after a new one";
    BrokenStream "a stream that is not read is ended";
    // ---- Keys ----
    KeyAwaited "a job waits for a key";
    KeyTakenOver "an attempt loses its key to a newer one";
    // ---- Clients ----
    Deduplicated "a repeated submission is answered with its job";
    KeyConflict "a key is used for another request";
    RepeatedAfterCrash "a submission is repeated after a crash";
    TooManyOpen "too many jobs are open";
    CancelRacesResult "a job is cancelled while its result is on the way";
    RetriedByHuman "a human starts a job again";
    SkippedByHuman "a human skips a state";
    NotRepairable "a job that cannot be repaired is refused";
    WatchedToTheEnd "a watch sees the end of a job";
    EndTold "somebody who waits for a job is told of its end";
    // ---- Webhooks ----
    NoticeDelivered "a message is delivered";
    NoticeRetried "a receiver does not answer, and is tried again";
    NoticeTwice "a receiver gets a message twice";
    NoticeAfterRestart "a message is delivered after a restart";
    NoticeGivenUp "a message is given up";
    NoticeObsolete "there is nothing to tell any more";
    NoticeRedelivered "somebody wants a message again that was delivered, or was of no use any more";
    NoticeRevived "somebody wants a message again that was given up";
    NoticeHurried "somebody wants a message now that waits to be sent again";
    NoticeRedeliveredAfterRestart "a message that somebody wanted again is delivered after a restart";
    // ---- Schedules ----
    ScheduleMade "a schedule makes a job";
    ScheduleMissed "a due time is let go, because it was noticed late";
    ScheduleOverlaps "a due time is let go, because the job before it has not ended";
    ScheduleAfterRestart "a schedule goes on after a restart";
    ScheduleAstray "a schedule begins anew after a clock that was wrong";
    // ---- Versions ----
    BlueprintPut "another version of a blueprint comes into force";
    Migrated "a job is moved to another version";
    NotMigrated "a job that cannot be moved stays where it is";
    GoneOn "a job has gone on before it could be moved";
    // ---- States ----
    RetryScheduled "a failed attempt is followed by another";
    CustomOutcome "an outcome of the blueprint's own";
    Caught "a failure is caught by its code";
    DispatchTimeout "a task finds no worker in time";
    ResultTimeout "a job runs out of time";
    StartedLater "a job starts at a later time";
    SignalEarly "a signal comes before it is waited for, and is taken later";
    SignalRepeated "a repeated signal is refused";
    SignalInTime "a signal comes that is waited for";
    DecidedByToken "an approval is decided with its token";
    DecidedTwice "a second decision is refused";
    WaitTimedOut "what is waited for does not come in time";
    FanIn "a parent goes on with the results of its children";
    TooManyFailed "more branches fail than are tolerated";
    ChildrenCancelled "a child is cancelled because nobody waits for it any more";
    ChildRestarted "a child is started again while its parent waits";
    LetGo "a child is started that nobody waits for";
    DepthLimit "children are nested too deep";
    MovesLimit "a job makes too many moves";
}

/// How often each of them has happened.
#[derive(Debug, Clone)]
pub struct Met(Vec<u64>);

impl Met {
    pub fn none() -> Self {
        Self(vec![0; Sometimes::ALL.len()])
    }

    pub fn mark(&mut self, what: Sometimes) {
        self.0[what as usize] += 1;
    }

    pub fn add(&mut self, other: &Met) {
        self.0.iter_mut().zip(&other.0).for_each(|(sum, count)| *sum += count);
    }

    /// Those that have never happened.
    pub fn missed(&self) -> Vec<&'static str> {
        self.counts().filter(|(_, count)| *count == 0).map(|(name, _)| name).collect()
    }

    /// All of them, with how often.
    pub fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Sometimes::ALL.iter().map(|(what, name)| (*name, self.0[*what as usize]))
    }
}
