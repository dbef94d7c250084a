//! Why an event changes nothing. Late, repeated and foreign news are ordinary; each has a name.

/// The event does not apply to the job as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// The attempt is not the job's current one.
    #[error("stale_task")]
    StaleTask,
    /// The result of this attempt was applied before.
    #[error("duplicate")]
    Duplicate,
    /// The job has ended.
    #[error("job_terminal")]
    JobTerminal,
    /// The reporter does not hold the attempt.
    #[error("foreign_session")]
    ForeignSession,
    /// There is no such job.
    #[error("unknown_job")]
    UnknownJob,
    /// The job has taken its first step already.
    #[error("already_started")]
    AlreadyStarted,
    /// Nothing that the job waits for is due.
    #[error("nothing_due")]
    NothingDue,
    /// The children are not those that the job waits for.
    #[error("stale_children")]
    StaleChildren,
    /// Nobody is asked to decide, or the token is not the one of this approval.
    #[error("no_such_approval")]
    NoSuchApproval,
    /// The state has no transition for this outcome or decision.
    #[error("no_such_transition")]
    NoSuchTransition,
    /// This signal came before.
    #[error("signal_repeated")]
    SignalRepeated,
    /// This repair was asked for before.
    #[error("repair_repeated")]
    RepairRepeated,
    /// Another repair came under the same key.
    #[error("repair_key_taken")]
    RepairKeyTaken,
    /// As many signals are kept as a job may keep.
    #[error("signals_full")]
    SignalsFull,
    /// Only a job that failed or was quarantined can be tried again.
    #[error("not_retryable")]
    NotRetryable,
    /// The job failed before it began: it lacks what its parent could not give it.
    #[error("never_began")]
    NeverBegan,
    /// The blueprint has no state with this name.
    #[error("no_such_state")]
    NoSuchState,
    /// The input is not what the blueprint wants.
    #[error("input_invalid")]
    InputInvalid,
    /// The edited data is larger than data may be.
    #[error("data_too_large")]
    DataTooLarge,
    /// The job stands in a state that its blueprint does not have.
    #[error("state_unknown")]
    StateUnknown,
    /// The job has that version already.
    #[error("same_version")]
    SameVersion,
    /// A branch has the version that its parent has.
    #[error("branch_of_parent")]
    BranchOfParent,
    /// The job waits for children that were started by the version that it has.
    #[error("children_run")]
    ChildrenRun,
    /// The job has made as many moves already as the other version allows.
    #[error("too_many_moves")]
    TooManyMoves,
    /// The job has gone on since somebody looked where it stands.
    #[error("has_gone_on")]
    HasGoneOn,
    /// In the other version the job would fail at once.
    #[error("would_fail")]
    WouldFail,
}

impl Refusal {
    /// Its name on every surface.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::StaleTask => "stale_task",
            Self::Duplicate => "duplicate",
            Self::JobTerminal => "job_terminal",
            Self::ForeignSession => "foreign_session",
            Self::UnknownJob => "unknown_job",
            Self::AlreadyStarted => "already_started",
            Self::NothingDue => "nothing_due",
            Self::StaleChildren => "stale_children",
            Self::NoSuchApproval => "no_such_approval",
            Self::NoSuchTransition => "no_such_transition",
            Self::SignalRepeated => "signal_repeated",
            Self::RepairRepeated => "repair_repeated",
            Self::RepairKeyTaken => "repair_key_taken",
            Self::SignalsFull => "signals_full",
            Self::NotRetryable => "not_retryable",
            Self::NeverBegan => "never_began",
            Self::NoSuchState => "no_such_state",
            Self::InputInvalid => "input_invalid",
            Self::DataTooLarge => "data_too_large",
            Self::StateUnknown => "state_unknown",
            Self::SameVersion => "same_version",
            Self::BranchOfParent => "branch_of_parent",
            Self::ChildrenRun => "children_run",
            Self::TooManyMoves => "too_many_moves",
            Self::HasGoneOn => "has_gone_on",
            Self::WouldFail => "would_fail",
        }
    }
}
