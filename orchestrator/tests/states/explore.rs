//! Every job that small blueprints can come to, and what everything that can happen makes of it.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use avtomatika_orchestrator::{
    blueprint::{Blueprint, Definition, KeyPolicy, StateKind, load},
    engine::{
        Asked, ChildKind, ChildResult, Context, Decision, Displaced, Entropy, Event, Harvest, HistoryEvent,
        Job, JobError, JobStatus, KeyScope, Keys, Migration, Parent, Passage, Report, Retry, Ruling, Signal,
        Skip, Submission, Wait, decide,
    },
    json::Json,
    time::Timestamp,
};
use avtomatika_proto::{JobId, TaskId};

const START: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);

/// More jobs than the blueprints below come to; a bound, should a change make them endless.
const JOBS_MAX: usize = 20_000;

/// The present, and what a job may wait for: the end of its wait, of its dispatch timeout and of its result timeout.
const DUES_MAX: usize = 4;

/// Where an arrow begins or ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    Status(JobStatus),
    /// Between two states: what the next one is decides what becomes of the job.
    NextState,
}

impl Place {
    pub fn status(self) -> Option<JobStatus> {
        match self {
            Self::Status(status) => Some(status),
            Self::NextState => None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Arrow {
    pub from: Place,
    pub to: Place,
}

/// How an attempt ended, and what followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ending {
    pub end: &'static str,
    pub then: &'static str,
}

/// Whether keys have no room.
struct Taken(bool);

impl Keys for Taken {
    fn ask(&self, asked: &Asked<'_>) -> Passage {
        let refuses = asked.claim.shares.iter().find(|share| share.policy == KeyPolicy::RefuseNewest);
        match refuses {
            _ if !self.0 => Passage::Open,
            Some(share) => Passage::Refused(share.clone()),
            None => Passage::Wait,
        }
    }
}

/// What was found out.
#[derive(Default)]
pub struct Explored {
    /// Each with what happened, or with the kind of the state that was entered.
    pub arrows: BTreeMap<Arrow, BTreeSet<String>>,
    /// Each with what happened.
    pub endings: BTreeMap<Ending, BTreeSet<String>>,
    /// Why what happened changed nothing.
    pub refusals: BTreeMap<&'static str, BTreeSet<String>>,
    pub jobs: usize,
}

/// A job in one of the blueprints, and the time there.
struct Standing {
    job: Job,
    now: Timestamp,
}

impl Explored {
    pub fn all() -> Self {
        let mut explored = Self::default();
        for blueprint in blueprints() {
            for submission in submissions(&blueprint) {
                explored.explore(&blueprint, submission);
            }
        }
        explored
    }

    pub fn labels(&self, from: Place, to: Place) -> Vec<String> {
        let labels = self.arrows.get(&Arrow { from, to });
        labels.into_iter().flatten().cloned().collect()
    }

    fn explore(&mut self, blueprint: &Blueprint, submission: Submission) {
        let id = JobId::compose(START.as_unix_ms(), 0, 0);
        let mut job = Job::accepted(id, Arc::from("acme"), blueprint, Arc::new(submission), START);
        if job.is_branch() {
            job.state = Arc::from("it");
        }
        // The same once more, for jobs to move there and back.
        let twin = Definition::from_canonical(&blueprint.definition).unwrap().into_blueprint(2);
        let mut entropy = Entropy::from_seed([7; 32]);
        let mut seen = HashSet::new();
        let mut open = VecDeque::from([Standing { job, now: START }]);
        while let Some(Standing { job, now }) = open.pop_front() {
            self.jobs += 1;
            assert!(self.jobs < JOBS_MAX, "the blueprints are endless");
            for (label, now, event) in events(&job, now) {
                let mut reserve = |_| 1;
                let blueprint = match &event {
                    Event::MigrateRequested(migration) if migration.version == twin.version => &twin,
                    _ => blueprint,
                };
                // Keys have room, or have none.
                for keys in [Taken(false), Taken(true)] {
                    let (entropy, reserve, serves) = (&mut entropy, &mut reserve, &|_: &str| true);
                    let mut context =
                        Context { now, blueprint, entropy, reserve, serves, room: &|| 1000, keys: &keys };
                    match decide(&job, &event, &mut context) {
                        Ok(decision) => {
                            self.note(blueprint, &job, label, &decision);
                            if seen.insert(key(&decision.job)) {
                                open.push_back(Standing { job: decision.job, now });
                            }
                        }
                        Err(refusal) => {
                            self.refusals.entry(refusal.as_str()).or_default().insert(label.to_owned());
                        }
                    }
                }
            }
        }
    }

    fn note(&mut self, blueprint: &Blueprint, before: &Job, label: &str, decision: &Decision) {
        let after = &decision.job;
        let entered = decision.entries.iter().any(|entry| entry.event == HistoryEvent::StateEntered);
        let (from, to) = (Place::Status(before.status), Place::Status(after.status));
        if entered {
            self.add(from, Place::NextState, label.to_owned());
            let kind = blueprint.state(&after.state).map_or("none", |state| kind_of(&state.kind));
            self.add(Place::NextState, to, kind.to_owned());
        } else if from != to || before.attempt != after.attempt || after.signals != before.signals {
            self.add(from, to, label.to_owned());
        }
        if let Some(ending) = ending(before, decision) {
            self.endings.entry(ending).or_default().insert(label.to_owned());
        }
    }

    fn add(&mut self, from: Place, to: Place, label: String) {
        self.arrows.entry(Arrow { from, to }).or_default().insert(label);
    }
}

/// What the attempt ended with that the job had before, if it has it no more.
fn ending(before: &Job, decision: &Decision) -> Option<Ending> {
    let attempt = before.attempt.as_ref()?;
    let after = &decision.job;
    if after.attempt.as_ref() == Some(attempt) {
        return None;
    }
    let of_attempt = decision.entries.iter().filter(|entry| entry.task_id == Some(attempt.task_id));
    let end = of_attempt
        .filter_map(|entry| match entry.event {
            HistoryEvent::TaskSucceeded => Some("succeeded"),
            HistoryEvent::TaskFailed => Some("failed"),
            HistoryEvent::TaskTimedOut => Some("timed_out"),
            HistoryEvent::TaskCancelled => Some("cancelled"),
            HistoryEvent::TaskReturned => Some("returned"),
            HistoryEvent::WorkerLost => Some("lost"),
            _ => None,
        })
        .next()
        .unwrap_or("withdrawn");
    let entered = decision.entries.iter().any(|entry| entry.event == HistoryEvent::StateEntered);
    let then = match () {
        () if entered => "next_state",
        () if after.status.is_terminal() => "job_ended",
        () if after.status == JobStatus::WaitingForTimer => "retry_later",
        () => "next_attempt",
    };
    Some(Ending { end, then })
}

/// What makes a difference to what can happen to a job.
fn key(job: &Job) -> String {
    let wait = match &job.wait {
        None => "nothing",
        Some(Wait::Start) => "start",
        Some(Wait::Timer) => "timer",
        Some(Wait::Signal { .. }) => "signal",
        Some(Wait::Approval { .. }) => "approval",
        Some(Wait::Children(_)) => "children",
        Some(Wait::Keys(scope)) => scope.as_str(),
    };
    format!(
        "{} {} {wait} attempt {} retries {} lost {} moves {} signals {} restarted {} holds {} {}",
        job.state,
        job.status,
        job.attempt.is_some(),
        job.retry_count,
        job.workers_lost,
        job.transitions,
        job.signals.len().min(1),
        job.restarted_at.is_some(),
        job.claim.is_some(),
        job.task_claim.is_some(),
    )
}

fn kind_of(kind: &StateKind) -> &'static str {
    match kind {
        StateKind::Task(_) => "task, code",
        StateKind::Choice(_) => "choice",
        StateKind::Pass(_) => "pass",
        StateKind::Wait(_) => "wait",
        StateKind::Event(_) => "event",
        StateKind::Approval(_) => "approval",
        StateKind::Run(_) => "run",
        StateKind::Map(_) => "map",
        StateKind::End(_) => "end",
    }
}

/// One state `it` of each kind, once with a way for what goes wrong and once without, and what leads to every other end.
fn blueprints() -> Vec<Blueprint> {
    let retry = "retry: { max_retries: 1 }";
    let kinds = [
        (format!("task: {{ type: work, {retry} }}"), "success", "failure"),
        ("event: { name: go, deadline: 1h }".to_owned(), "received", "timeout"),
        ("approval: { deadline: 1h }".to_owned(), "approved", "timeout"),
        ("run: { blueprint: child }".to_owned(), "success", "failure"),
        (
            format!("map: {{ branches: {{ a: {{ task: {{ type: work, {retry} }} }} }} }}"),
            "success",
            "failure",
        ),
    ];
    let mut texts: Vec<String> = kinds
        .iter()
        .flat_map(|(it, well, ill)| {
            let caught = format!("{{ start: true, {it}, on: {{ {well}: done, {ill}: failed }} }}");
            let uncaught = format!("{{ start: true, {it}, on: {{ {well}: done }} }}");
            [caught + "\n  failed: { end: failed }", uncaught]
        })
        .collect();
    texts.extend([
        "{ start: true, task: { type: work }, on: { success: done, odd: done, cancelled: done, timeout: done } }".to_owned(),
        "{ start: true, task: { type: work }, on: { success: done }, catch: { PERMANENT_ERROR: done } }".to_owned(),
        "{ start: true, run: { blueprint: child, wait: false }, on: { success: done } }".to_owned(),
        "{ start: true, wait: 1h, next: done }".to_owned(),
        "{ start: true, wait: \"${initial_data.nothing}\", next: done }".to_owned(),
        "{ start: true, pass: {}, next: done }".to_owned(),
        "{ start: true, pass: { a: \"${initial_data.nothing}\" }, next: done }".to_owned(),
        "{ start: true, choice: [ { when: true, next: done } ], else: done }".to_owned(),
        "{ start: true, choice: [ { when: initial_data.nothing, next: done } ], else: done }".to_owned(),
        "{ start: true, task: { type: work, params: { a: \"${initial_data.nothing}\" } }, on: { success: done } }".to_owned(),
        "{ start: true, map: { over: initial_data.nothing, task: { type: work } }, on: { success: done } }".to_owned(),
        "{ start: true, map: { over: \"[]\", task: { type: work } }, on: { success: done } }".to_owned(),
        // One that goes round until it has made as many moves as it may.
        "{ start: true, task: { type: work }, on: { success: again, failure: done } }\n  \
         again: { wait: 1s, next: it }"
            .to_owned(),
    ]);
    let task = "{ start: true, task: { type: work, KEY }, on: { success: done, failure: done } }";
    for policy in ["queue", "refuse_newest"] {
        let key = format!("concurrency: {{ key: \"'one'\", limit: 1, policy: {policy} }}");
        texts.push(task.replace("KEY", &key));
        let whole = task.replace(", KEY", "");
        texts.push(format!("{whole}\nKEYS{key}"));
    }
    let blueprint = |text: &String| {
        let (text, keys) = text.split_once("\nKEYS").unwrap_or((text, ""));
        let text = format!(
            "blueprint: explored\nmax_transitions: 3\n{keys}\nstates:\n  it: {text}\n  done: {{ end: finished }}\n"
        );
        load("explored.yaml", &text)
            .unwrap_or_else(|found| panic!("{text}{found:?}"))
            .definition
            .into_blueprint(1)
    };
    texts.iter().map(blueprint).collect()
}

/// In what ways a job is made of the blueprint.
fn submissions(blueprint: &Blueprint) -> Vec<Submission> {
    let plain = || Submission::of(Json::empty());
    let mut submissions = vec![
        plain(),
        Submission { start_at: Some(START + Duration::from_secs(60)), ..plain() },
        Submission {
            dispatch_timeout: Some(Duration::from_secs(5)),
            result_timeout: Some(Duration::from_secs(600)),
            ..plain()
        },
    ];
    let job_id = JobId::compose(START.as_unix_ms(), 0, 1);
    let parent = |kind| Parent { job_id, index: 0, depth: 1, kind, claim: None, slots: Vec::new() };
    submissions.push(Submission { parent: Some(parent(ChildKind::Run)), ..plain() });
    if let Some(StateKind::Map(map)) = blueprint.state("it").map(|state| &state.kind)
        && map.over.branches().count() == 1
    {
        submissions.push(Submission { parent: Some(parent(ChildKind::Branch)), ..plain() });
    }
    submissions
}

/// Everything that can happen to a job, with the time at which it does.
fn events(job: &Job, now: Timestamp) -> Vec<(&'static str, Timestamp, Event)> {
    let mut events = vec![
        ("submitted", Event::Submitted),
        ("cannot be started", Event::Stillborn(error("DEPTH_LIMIT_ERROR"))),
        ("cancel", Event::CancelRequested { reason: None }),
        (
            "signal",
            Event::Signalled(Signal { name: Arc::from("go"), id: None, data: Json::empty(), at: now }),
        ),
        ("retry", Event::RetryRequested(retry())),
        ("key granted", Event::KeysGranted),
    ];
    events.extend([KeyScope::Job, KeyScope::Task].map(|scope| {
        let displaced = Displaced { scope, key: Arc::from("one"), by: None };
        ("key taken over", Event::Displaced(displaced))
    }));
    events.extend(attempt_events(job));
    events.extend(["approved", "success", "received"].map(|outcome| {
        let skip = Skip {
            outcome: Arc::from(outcome),
            data: Json::empty(),
            by: Arc::from("ops"),
            reason: None,
            key: None,
        };
        ("skip", Event::SkipRequested(skip))
    }));
    let token = match &job.wait {
        Some(Wait::Approval { token, .. }) => Some(token.clone()),
        _ => None,
    };
    events.push(("decision", Event::Decided(ruling(token))));
    events.push(("decision with a wrong token", Event::Decided(ruling(Some(Arc::from("guessed"))))));
    let first = job.children().map_or(JobId::compose(0, 0, 0), |children| children.first);
    let harvest = |results| Event::ChildrenEnded(Harvest { first, results });
    events.push(("children ended well", harvest(Ok(vec![child("success", false)]))));
    events.push(("children failed", harvest(Ok(vec![child("failure", true)]))));
    events.push(("children's results are too large", harvest(Err(error("DATA_TOO_LARGE")))));
    for state in [None, Some(Arc::from("done")), Some(Arc::from("it"))] {
        let version = if job.blueprint_version == 1 { 2 } else { 1 };
        let migration = Migration { version, state, task_is_held: false, by: Arc::from("ops") };
        events.push(("migrate", Event::MigrateRequested(migration)));
    }
    let mut events: Vec<_> = events.into_iter().map(|(label, event)| (label, now, event)).collect();
    // Every point in time that the job waits for, and the present one.
    let dues = std::iter::successors(Some(now), |due| job.next_due(*due));
    for due in dues.take(DUES_MAX) {
        events.push(("due", due, Event::Due { task_is_held: false }));
        if job.attempt.is_some() {
            events.push(("due while a worker holds the task", due, Event::Due { task_is_held: true }));
        }
    }
    events
}

/// What workers and time do to attempts.
fn attempt_events(job: &Job) -> Vec<(&'static str, Event)> {
    let nobody = TaskId::from_bytes([0; 16]);
    let task_id = job.attempt.as_ref().map(|attempt| attempt.task_id).or(job.settled_task).unwrap_or(nobody);
    let worker_id: Arc<str> = Arc::from("w1");
    let report = |outcome: &str, code: Option<&str>| Report {
        task_id,
        worker_id: worker_id.clone(),
        by_holder: true,
        outcome: Arc::from(outcome),
        data: Json::empty(),
        error: code.map(error),
        held_for: None,
        checkpoint: None,
    };
    vec![
        ("reported success", Event::Reported(report("success", None))),
        ("reported a word of its own", Event::Reported(report("odd", None))),
        ("reported failure", Event::Reported(report("failure", Some("TRANSIENT_ERROR")))),
        ("reported permanent failure", Event::Reported(report("failure", Some("PERMANENT_ERROR")))),
        ("reported invalid input", Event::Reported(report("failure", Some("INVALID_INPUT_ERROR")))),
        ("reported timeout", Event::Reported(report("timeout", None))),
        ("reported cancelled", Event::Reported(report("cancelled", None))),
        ("given back by a worker that stops", Event::Reported(report("failure", Some("WORKER_STOPPED")))),
        (
            "reported by another than the holder",
            Event::Reported(Report { by_holder: false, ..report("success", None) }),
        ),
        ("reported late", Event::Reported(Report { task_id: nobody, ..report("success", None) })),
        ("worker lost", Event::WorkerLost { task_id, worker_id: worker_id.clone(), checkpoint: None }),
        (
            "attempt overdue",
            Event::AttemptTimedOut { task_id, worker_id: worker_id.clone(), checkpoint: None },
        ),
        (
            "checkpoint",
            Event::Checkpointed { task_id, worker_id: worker_id.clone(), checkpoint: Json::empty() },
        ),
        ("params no longer compute", Event::NotOfferable { task_id }),
    ]
}

fn error(code: &str) -> JobError {
    JobError { code: Arc::from(code), message: Arc::from("") }
}

fn retry() -> Retry {
    Retry {
        state: None,
        initial_data: None,
        state_history: None,
        by: Arc::from("ops"),
        reason: None,
        key: None,
    }
}

fn ruling(token: Option<Arc<str>>) -> Ruling {
    Ruling {
        token,
        decision: Arc::from("approved"),
        by: Arc::from("ops"),
        comment: None,
        data: Json::empty(),
    }
}

fn child(outcome: &str, failed: bool) -> ChildResult {
    ChildResult { outcome: Arc::from(outcome), failed, data: None, error: None }
}
