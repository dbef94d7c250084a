//! What a caller may do, as its file says it.

use std::{fmt, sync::Arc};

use super::{Glob, Rate};

/// How far a client's rights go. Each has those of the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub enum Role {
    /// Its own jobs, one at a time.
    #[default]
    Client,
    /// What concerns the orchestrator as a whole: workers, counts, reloads; and its own jobs by the set.
    Operator,
    /// Everything, in the name of any client that it names.
    Admin,
}

impl Role {
    /// Every role there is.
    pub const ALL: [Role; 3] = [Self::Client, Self::Operator, Self::Admin];

    /// Its name in files and messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }

    /// The role of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == name)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What holds for a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// Its plan: a word for people and for expressions, nothing more.
    pub plan: Arc<str>,
    /// Its rights.
    pub role: Role,
    /// Submissions that are accepted in a calendar month of UTC; `None` for any number.
    pub quota: Option<u64>,
    /// Jobs of it that may be open at once; `None` for any number.
    pub max_open_jobs: Option<usize>,
    /// How often it may call; `None` for any rate.
    pub rate_limit: Option<Rate>,
    /// Blueprints that it may submit to; `None` for all.
    pub allowed_blueprints: Option<Vec<Glob>>,
    /// Its share beside others, relative to theirs: 1 to [`Terms::WEIGHT_MAX`].
    pub weight: u32,
}

impl Terms {
    /// The largest weight.
    pub const WEIGHT_MAX: u32 = 1000;

    /// Whether it may submit to this blueprint.
    pub fn may_use(&self, blueprint: &str) -> bool {
        self.allowed_blueprints.as_ref().is_none_or(|globs| globs.iter().any(|glob| glob.matches(blueprint)))
    }
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            plan: Arc::from("default"),
            role: Role::Client,
            quota: None,
            max_open_jobs: None,
            rate_limit: None,
            allowed_blueprints: None,
            weight: 1,
        }
    }
}

/// What holds for workers with one token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerTerms {
    /// Names that they may register under.
    pub names: Glob,
    /// Task types that they may serve; `None` for all.
    pub allowed_tasks: Option<Vec<Glob>>,
}

impl WorkerTerms {
    /// Whether a worker of this name may have the token.
    pub fn may_be_called(&self, worker_id: &str) -> bool {
        self.names.matches(worker_id)
    }

    /// Whether it may serve this type.
    pub fn may_serve(&self, task_type: &str) -> bool {
        self.allowed_tasks.as_ref().is_none_or(|globs| globs.iter().any(|glob| glob.matches(task_type)))
    }

    /// Whether a worker of this name may serve all of these types.
    pub fn allow(&self, worker_id: &str, task_types: &[Arc<str>]) -> bool {
        self.may_be_called(worker_id)
            && (self.allowed_tasks.is_none() || task_types.iter().all(|task_type| self.may_serve(task_type)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_grow() {
        assert!(Role::Admin > Role::Operator && Role::Operator > Role::Client);
        for role in Role::ALL {
            assert_eq!(Role::from_name(role.as_str()), Some(role));
        }
        assert_eq!(Role::from_name("root"), None);
    }
}
