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
    /// The job stands in a state that its blueprint does not have.
    #[error("state_unknown")]
    StateUnknown,
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
            Self::StateUnknown => "state_unknown",
        }
    }
}
