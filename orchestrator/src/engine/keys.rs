//! Keys that a job and its attempts take: claiming them, getting them after a wait, losing them to somebody newer.
//!
//! A job holds what its blueprint says from its start to its end; an attempt what its task says from its offer to its end. What is
//! claimed together is got together or not at all. Who holds what follows from the stored jobs: a claim that the job carries is held,
//! unless the job waits for it. Whether a key has room is asked of [`Keys`]; the engine refuses to know who else holds it.

use std::sync::Arc;

use avtomatika_proto::{JobId, outcome};
use serde_json::Value;

use super::{
    ChildKind, HistoryEvent, Job, JobError, JobStatus, Refusal, Wait, code,
    draft::{Draft, Step, error, no_value},
};
use crate::{
    blueprint::{Data, KEY_BYTES_MAX, KeyLimit, KeyRule, Share},
    time::Timestamp,
};

/// What is taken together, or not at all. Empty where no rule applies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Claim {
    /// Of each key, once.
    pub shares: Vec<Share>,
}

/// A claim, and since when it has been held, or waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// What.
    pub claim: Arc<Claim>,
    /// Since when.
    pub since: Timestamp,
}

/// For what a claim is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum KeyScope {
    /// The whole of a job.
    Job = 1,
    /// One attempt.
    Task = 2,
}

impl KeyScope {
    /// Its name on every surface.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Job => "job",
            Self::Task => "task",
        }
    }

    /// The scope with this number, as stored.
    pub fn from_number(number: u8) -> Option<Self> {
        [Self::Job, Self::Task].into_iter().find(|scope| *scope as u8 == number)
    }
}

/// A question to [`Keys`].
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// Who asks.
    pub job_id: JobId,
    /// Higher goes first.
    pub priority: i32,
    /// The present time.
    pub now: Timestamp,
    /// For what.
    pub scope: KeyScope,
    /// What is asked for.
    pub claim: &'a Claim,
    /// What the same decision has taken already.
    pub beside: Option<&'a Claim>,
    /// Whether the job asks for what its attempt before this one has, whose place the new one takes.
    pub keeps: bool,
}

/// What [`Keys`] answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Passage {
    /// There is room in every key.
    Open,
    /// There is not: wait.
    Wait,
    /// There is not, and nobody waits for this one.
    Refused(Share),
}

/// Whoever knows which keys have room, as far as decided.
pub trait Keys {
    /// Whether there is room. Nothing is taken by asking: what was taken is seen from the job that was decided.
    fn ask(&self, asked: &Asked<'_>) -> Passage;
}

/// Keys that always have room: for jobs that are decided by themselves.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unlimited;

impl Keys for Unlimited {
    fn ask(&self, _: &Asked<'_>) -> Passage {
        Passage::Open
    }
}

/// Somebody newer takes a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Displaced {
    /// What the job loses by it: itself, or its attempt.
    pub scope: KeyScope,
    /// The key.
    pub key: Arc<str>,
    /// Who takes it, if that is a job of the same client.
    pub by: Option<JobId>,
}

/// What became of a claim that a draft has made.
enum Claimed {
    Held,
    Waits,
    Fails(JobError),
}

/// What these rules come to. Of two that give the same key, the stricter one counts.
pub(super) fn claim_of(rules: &[KeyRule], data: &Data<'_>, state: &str) -> Result<Claim, JobError> {
    let mut shares: Vec<Share> = Vec::new();
    for rule in rules {
        let key = match rule.key.eval_over(data).map_err(|cause| no_value(state, &cause))?.to_value() {
            Value::Null => continue,
            Value::String(key) if !key.is_empty() && key.len() <= KEY_BYTES_MAX => key,
            other => return Err(no_key(rule, &other, state)),
        };
        let share = Share { key: key.into(), limit: rule.limit, policy: rule.policy };
        match shares.iter_mut().find(|known| known.is_of_same_key(&share)) {
            Some(known) if is_stricter(&share, known) => *known = share,
            Some(_) => {}
            None => shares.push(share),
        }
    }
    Ok(Claim { shares })
}

fn is_stricter(one: &Share, other: &Share) -> bool {
    match (one.limit, other.limit) {
        (KeyLimit::Concurrency(one), KeyLimit::Concurrency(other)) => one < other,
        (KeyLimit::Rate(one), KeyLimit::Rate(other)) => one.interval() > other.interval(),
        _ => false,
    }
}

fn no_key(rule: &KeyRule, value: &Value, state: &str) -> JobError {
    let what = match value {
        Value::String(key) if key.is_empty() => "an empty string".to_owned(),
        Value::String(key) => format!("a string of {} bytes", key.len()),
        Value::Bool(_) => "a boolean".to_owned(),
        Value::Number(_) => "a number".to_owned(),
        _ => "no string".to_owned(),
    };
    let message = format!(
        "State {state:?}: the key `{}` must be a string of 1 to {KEY_BYTES_MAX} bytes, or null; it is {what}",
        rule.key.source()
    );
    error(code::EXPRESSION, message)
}

impl Job {
    /// Whether it takes anything of keys, or waits for it.
    pub fn has_claims(&self) -> bool {
        self.claim.is_some() || self.task_claim.is_some()
    }

    /// For what it waits for a key, if it does.
    pub fn awaited_keys(&self) -> Option<KeyScope> {
        match self.wait {
            Some(Wait::Keys(scope)) => Some(scope),
            _ => None,
        }
    }

    /// The claim of this scope, be it held or waited for.
    pub fn claim_for(&self, scope: KeyScope) -> Option<&Hold> {
        match scope {
            KeyScope::Job => self.claim.as_ref(),
            KeyScope::Task => self.task_claim.as_ref(),
        }
    }

    /// The keys of which it has one at once, or those above it have that wait for it. Whoever it waits for need not take them again.
    pub fn slots_above(&self) -> Vec<Arc<str>> {
        let own = self.claim.iter().flat_map(|hold| &hold.claim.shares);
        let mut keys: Vec<Arc<str>> = self.slots_lent().to_vec();
        keys.extend(own.filter(|share| share.is_slot()).map(|share| share.key.clone()));
        keys
    }

    /// The keys that those above it hold.
    fn slots_lent(&self) -> &[Arc<str>] {
        self.waiting_parent().map_or(&[], |parent| &parent.slots)
    }
}

impl Draft<'_, '_> {
    // ---- The keys of a job ----

    /// Takes the job's own keys before it does anything; `None` when it has them, or is to have none.
    pub fn claim_job(&mut self) -> Option<Step> {
        if self.context.blueprint.keys.is_empty() || self.job.claim.is_some() || self.job.is_branch() {
            return None;
        }
        let scope = self.scope(self.context.now);
        let claim = claim_of(&self.context.blueprint.keys, &Data::new(&scope), &self.job.state);
        let lent = self.job.slots_lent();
        let claim = claim.map(|claim| without(claim, lent));
        let claimed = match claim {
            Ok(claim) => self.take(KeyScope::Job, claim, false),
            Err(error) => Claimed::Fails(error),
        };
        match claimed {
            Claimed::Held => None,
            Claimed::Waits => Some(Step::Stay),
            Claimed::Fails(error) => Some(self.end(JobStatus::Failed, Some(error))),
        }
    }

    // ---- The keys of an attempt ----

    /// Takes the keys of the next attempt; `Ok` says whether it has them, or waits.
    pub fn claim_attempt(&mut self, rules: &[KeyRule], keeps: bool) -> Result<bool, JobError> {
        let of_branch = self.job.submission.parent.as_ref().filter(|parent| parent.kind == ChildKind::Branch);
        let claim = match of_branch {
            Some(parent) => parent.claim.as_deref().cloned().unwrap_or_default(),
            None if rules.is_empty() => Claim::default(),
            None => {
                let scope = self.scope(self.context.now);
                claim_of(rules, &Data::new(&scope), &self.job.state)?
            }
        };
        if claim.shares.is_empty() {
            self.job.task_claim = None;
            return Ok(true);
        }
        let claim = without(claim, &self.job.slots_above());
        match self.take(KeyScope::Task, claim, keeps) {
            Claimed::Held => Ok(true),
            Claimed::Waits => Ok(false),
            Claimed::Fails(error) => Err(error),
        }
    }

    fn take(&mut self, scope: KeyScope, claim: Claim, keeps: bool) -> Claimed {
        let now = self.context.now;
        let beside = self.job.claim.as_ref().filter(|_| self.has_claimed_job && scope == KeyScope::Task);
        let passage = match claim.shares.is_empty() {
            true => Passage::Open,
            false => self.context.keys.ask(&Asked {
                job_id: self.job.id,
                priority: self.job.submission.priority,
                now,
                scope,
                claim: &claim,
                beside: beside.map(|hold| &*hold.claim),
                keeps,
            }),
        };
        if let Passage::Refused(share) = passage {
            return Claimed::Fails(refused(&share));
        }
        let since = self.job.claim_for(scope).filter(|_| keeps).map_or(now, |hold| hold.since);
        let hold = Hold { claim: Arc::new(claim), since };
        if passage == Passage::Open {
            self.put_claim(scope, hold);
            return Claimed::Held;
        }
        self.note(HistoryEvent::WaitStarted).detail = Some(Arc::from(names_of(&hold.claim)));
        self.put_claim(scope, Hold { since: now, ..hold });
        self.job.attempt = None;
        self.job.resumes_at = None;
        self.job.status = JobStatus::WaitingForKey;
        self.job.wait = Some(Wait::Keys(scope));
        Claimed::Waits
    }

    fn put_claim(&mut self, scope: KeyScope, hold: Hold) {
        match scope {
            KeyScope::Job => {
                self.job.claim = Some(hold);
                self.has_claimed_job = true;
            }
            KeyScope::Task => self.job.task_claim = Some(hold),
        }
    }

    // ---- After a wait ----

    /// The keys that the job waited for are its own.
    pub fn keys_granted(&mut self) -> Result<Step, Refusal> {
        let scope = self.job.awaited_keys().ok_or(Refusal::NothingDue)?;
        let now = self.context.now;
        let hold = self.job.claim_for(scope).cloned().ok_or(Refusal::NothingDue)?;
        self.job.wait = None;
        self.note(HistoryEvent::WaitEnded).duration = Some(now.saturating_since(hold.since));
        self.put_claim(scope, Hold { since: now, ..hold });
        Ok(match scope {
            KeyScope::Job => self.visit(),
            KeyScope::Task => self.offer_attempt(self.job.retry_count + 1, now),
        })
    }

    /// Somebody newer takes a key that the job or its attempt holds.
    pub fn displaced(&mut self, displaced: &Displaced) -> Result<Step, Refusal> {
        let Displaced { scope, key, by } = displaced;
        let waits = self.job.awaited_keys() == Some(*scope);
        let holds = self.job.claim_for(*scope).filter(|_| !waits);
        if !holds.is_some_and(|hold| hold.claim.shares.iter().any(|share| share.key == *key)) {
            return Err(Refusal::NothingDue);
        }
        let by = by.map_or_else(|| "Another job".to_owned(), |by| format!("Job {by}"));
        let cause = error(code::KEY_TAKEN_OVER, format!("{by} has taken the key {key:?}"));
        self.withdraw("a newer one has taken its key");
        if *scope == KeyScope::Job {
            return Ok(self.end(JobStatus::Cancelled, Some(cause)));
        }
        let entry = self.note(HistoryEvent::TaskCancelled);
        entry.outcome = Some(Arc::from(outcome::CANCELLED));
        entry.error = Some(cause.clone());
        self.job.attempt = None;
        self.job.outcome = Some(Arc::from(outcome::CANCELLED));
        let caught = self.caught(&cause).or_else(|| self.transition(outcome::CANCELLED));
        let Some(next) = caught else { return Ok(self.end(JobStatus::Cancelled, Some(cause))) };
        self.job.failed_state = Some(self.job.state.clone());
        self.job.error = Some(cause);
        Ok(Step::Go { outcome: Some(Arc::from(outcome::CANCELLED)), next })
    }

    /// What follows for claims from the rest of the job: they end with the attempt, and with the job.
    pub fn settle_claims(&mut self) {
        let awaited = self.job.awaited_keys();
        if self.job.attempt.is_none() && awaited != Some(KeyScope::Task) {
            self.job.task_claim = None;
        }
        if self.job.status.is_terminal() {
            self.job.claim = None;
            self.job.task_claim = None;
        }
    }
}

/// The claim without these keys, of which one is held already.
fn without(mut claim: Claim, slots: &[Arc<str>]) -> Claim {
    claim.shares.retain(|share| !share.is_slot() || !slots.contains(&share.key));
    claim
}

fn names_of(claim: &Claim) -> String {
    let names: Vec<String> = claim.shares.iter().map(|share| format!("key {:?}", share.key)).collect();
    names.join(", ")
}

fn refused(share: &Share) -> JobError {
    let message = match share.limit {
        KeyLimit::Concurrency(limit) => {
            format!("{limit} with the key {:?} are under way, as many as there may be", share.key)
        }
        KeyLimit::Rate(rate) => format!(
            "With the key {:?}, {} may start in {} s, and none more now",
            share.key,
            rate.count,
            rate.per.as_secs_f64()
        ),
    };
    error(code::KEY_LIMIT_REACHED, message)
}
