//! The engine, told as stories: each `*.txt` file is a blueprint and a script of events, and its snapshot is what the engine
//! decided, step by step. Task ids are shown as t1, t2, … in the order of their making, times as seconds since the start.
//!
//! A script may have a second blueprint before its events: the version to which `migrate` moves the job. `into 2` follows the child
//! with that number, `out` comes back to its parent, and `children` tells the parent how those ended that were followed.

// A test that cannot go on should stop where it is.
#![allow(clippy::unwrap_used)]

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use avtomatika_orchestrator::{
    blueprint::{Blueprint, KeyPolicy, load},
    engine::{
        self, Asked, ChildResult, ChildSpec, Context, Decision, Displaced, Edit, Effect, Entropy, Event,
        Harvest, HistoryEntry, Job, JobError, KeyScope, Migration, Passage, RepairKey, Report, Retry, Ruling,
        Signal, Skip, Submission, Wait, child_result, children_of, decide, plan,
    },
    json::Json,
    time::Timestamp,
};
use avtomatika_proto::{JobId, TaskId};

const START: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);

/// One job on its way through a blueprint.
struct Story {
    blueprint: Blueprint,
    /// What `migrate` moves the job to.
    next: Option<Blueprint>,
    job: Option<Job>,
    now: Timestamp,
    entropy: Entropy,
    tasks: Vec<TaskId>,
    /// The next job id is made of this.
    key: i64,
    /// Parents of the job that is followed, outermost first.
    parents: Vec<Job>,
    /// How the children ended that were followed.
    ends: BTreeMap<u32, ChildResult>,
    told: String,
    keys: Keys,
    /// Jobs for which nobody waits that may still be started.
    room: u32,
}

/// What the story says of keys: `keys open`, `keys taken`; of one that is taken, a policy may refuse.
struct Keys(Option<Passage>);

impl Keys {
    fn named(word: &str) -> Option<Passage> {
        match word {
            "open" => None,
            "taken" => Some(Passage::Wait),
            other => panic!("keys are open or taken, not {other:?}"),
        }
    }
}

impl engine::Keys for Keys {
    fn ask(&self, asked: &Asked<'_>) -> Passage {
        // One that takes the place of an attempt has what that one has.
        let passage = self.0.clone().filter(|_| !asked.keeps).unwrap_or(Passage::Open);
        let refuses = asked.claim.shares.iter().find(|share| share.policy == KeyPolicy::RefuseNewest);
        match (passage, refuses) {
            (Passage::Wait, Some(share)) => Passage::Refused(share.clone()),
            (passage, _) => passage,
        }
    }
}

/// `mend-1/7`: the key, and a fingerprint of what was asked for.
fn key_of(said: &str) -> RepairKey {
    let (id, fingerprint) = said.split_once('/').expect("key/fingerprint");
    RepairKey { id: Arc::from(id), fingerprint: fingerprint.parse().expect("a number") }
}

impl Story {
    fn tell(script: &str) -> String {
        let parts: Vec<&str> = script.split("\n---\n").collect();
        let (first, next, events) = match parts.as_slice() {
            [first, events] => (first, None, events),
            [first, next, events] => (first, Some(next), events),
            _ => panic!("a blueprint, perhaps a second one, and events, with lines of --- between them"),
        };
        let version = |text: &str, number| {
            let loaded = load("story.yaml", text).expect("the story's blueprint is sound");
            loaded.definition.into_blueprint(number)
        };
        let mut story = Story {
            blueprint: version(first, 1),
            next: next.map(|next| version(next, 2)),
            job: None,
            now: START,
            entropy: Entropy::from_seed([7; 32]),
            tasks: Vec::new(),
            key: 1,
            parents: Vec::new(),
            ends: BTreeMap::new(),
            told: String::new(),
            keys: Keys(None),
            room: 1000,
        };
        for line in events.lines().filter(|line| !line.is_empty()) {
            story.step(line);
        }
        story.told
    }

    fn step(&mut self, line: &str) {
        self.told.push_str(&format!("> {line}\n"));
        if line.starts_with('#') {
            return;
        }
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        let event = match words[0] {
            "after" => {
                self.now = self.now + Duration::from_secs_f64(words[1].parse().expect("seconds"));
                return;
            }
            "submit" => {
                self.submit(&line["submit ".len()..]);
                Event::Submitted
            }
            "report" => self.report(&words),
            "lost" => Event::WorkerLost {
                task_id: self.task(words[1]),
                worker_id: Arc::from("w1"),
                checkpoint: None,
            },
            "overdue" => Event::AttemptTimedOut {
                task_id: self.task(words[1]),
                worker_id: Arc::from("w1"),
                checkpoint: None,
            },
            "not_offerable" => Event::NotOfferable { task_id: self.task(words[1]) },
            "due" => Event::Due { task_is_held: words.get(1) == Some(&"held") },
            "cancel" => Event::CancelRequested { reason: words.get(1).map(|reason| Arc::from(*reason)) },
            "into" => match self.follow_child(words[1].parse().expect("a number")) {
                Some(error) => Event::Stillborn(error),
                None => Event::Submitted,
            },
            "out" => return self.leave_child(),
            "room" => return self.room = words[1].parse().unwrap(),
            "keys" => return self.keys.0 = Keys::named(words[1]),
            "granted" => Event::KeysGranted,
            "displaced" => Event::Displaced(Displaced {
                scope: if words[1] == "job" { KeyScope::Job } else { KeyScope::Task },
                key: Arc::from(words[2]),
                by: Some(JobId::of_key(77, 0)),
            }),
            "show" => return self.show(),
            "specs" => {
                return self
                    .show_specs(words[1].parse().expect("a number"), words[2].parse().expect("a number"));
            }
            "children" => self.children_ended(line["children".len()..].trim()),
            "signal" => self.signal(&words),
            "decide" => self.ruling(&line["decide ".len()..]),
            "retry" => self.retry(line["retry".len()..].trim()),
            "skip" => self.skip(&words),
            "migrate" => {
                std::mem::swap(&mut self.blueprint, self.next.as_mut().expect("a second blueprint"));
                let (held, state): (Vec<&str>, Vec<&str>) =
                    words[1..].iter().partition(|word| **word == "held");
                Event::MigrateRequested(Migration {
                    version: self.blueprint.version,
                    state: state.first().map(|state| Arc::from(*state)),
                    task_is_held: !held.is_empty(),
                    by: Arc::from("ops"),
                })
            }
            other => panic!("a story has no word {other:?}"),
        };
        let job = self.job.clone().expect("a story begins with submit");
        let key = &mut self.key;
        let mut reserve = |count: u32| {
            *key += i64::from(count);
            *key - i64::from(count)
        };
        let mut context = Context {
            now: self.now,
            blueprint: &self.blueprint,
            entropy: &mut self.entropy,
            reserve: &mut reserve,
            serves: &|name| name != "nowhere",
            room: &|| self.room,
            keys: &self.keys,
        };
        match decide(&job, &event, &mut context) {
            Ok(decision) => self.decided(decision),
            Err(refusal) => {
                self.told.push_str(&format!("  refused: {refusal}\n"));
                if words[0] == "migrate" {
                    std::mem::swap(&mut self.blueprint, self.next.as_mut().expect("a second blueprint"));
                }
            }
        }
    }

    /// `submit {"a":1} dispatch_timeout=5 result_timeout=9 start_in=60`
    fn submit(&mut self, rest: &str) {
        let mut words = rest.split(' ');
        let initial_data = Json::object(words.next().expect("data")).expect("an object without spaces");
        let mut submission = Submission::of(initial_data);
        for word in words {
            let (key, seconds) = word.split_once('=').expect("key=seconds");
            let timeout = Some(Duration::from_secs(seconds.parse().expect("seconds")));
            match key {
                "start_in" => submission.start_at = timeout.map(|timeout| self.now + timeout),
                "dispatch_timeout" => submission.dispatch_timeout = timeout,
                "result_timeout" => submission.result_timeout = timeout,
                _ => panic!("a submission has no {key}"),
            }
        }
        if self.job.is_none() {
            let id = JobId::compose(self.now.as_unix_ms(), 0, 0);
            let client = Arc::from("acme");
            self.job = Some(Job::accepted(id, client, &self.blueprint, Arc::new(submission), self.now));
        }
    }

    /// `report t1 success {"a":1}`, `report t1 failure CODE: message`, `report t1 foreign`
    fn report(&self, words: &[&str]) -> Event {
        let rest = words.get(3).copied();
        let (data, error) = match words[2] {
            "failure" | "timeout" => (Json::empty(), rest.and_then(|rest| rest.split_once(": "))),
            _ => (rest.map_or(Json::empty(), |data| Json::object(data).expect("an object")), None),
        };
        let error =
            error.map(|(code, message)| JobError { code: Arc::from(code), message: Arc::from(message) });
        Event::Reported(Report {
            task_id: self.task(words[1]),
            worker_id: Arc::from("w1"),
            by_holder: words[2] != "foreign",
            outcome: Arc::from(words[2]),
            data,
            error,
            held_for: Some(Duration::from_millis(10)),
            checkpoint: None,
        })
    }

    // ---- Children ----

    fn specs(&self, from: u32, count: u32) -> Vec<ChildSpec> {
        children_of(self.job.as_ref().expect("a job"), &self.blueprint, from, count)
    }

    /// From now on, the story is that of this child. A blueprint that it runs is the story's own.
    fn follow_child(&mut self, number: u32) -> Option<JobError> {
        let spec = self.specs(number, 1).pop().expect("there is such a child");
        let submission = Arc::new(spec.submission);
        let mut child = Job::accepted(spec.id, Arc::from("acme"), &self.blueprint, submission, self.now);
        if spec.blueprint.is_none() {
            child.state = spec.state;
        }
        self.parents.extend(self.job.replace(child));
        spec.error
    }

    fn leave_child(&mut self) {
        let child = self.job.take().expect("a job");
        let number = child.submission.parent.as_ref().expect("a child").index;
        assert!(child.status.is_terminal(), "a parent hears of the end of its children only");
        self.ends.insert(number, child_result(&child));
        self.job = self.parents.pop();
    }

    /// `children` alone: as they were followed. `children success {"a":1}; failure CODE: why; cancelled`: as is said here.
    /// `children of another state` are not those that the job waits for, `children too large` ended with more than fits.
    fn children_ended(&mut self, said: &str) -> Event {
        let job = self.job.as_ref().expect("a job");
        let stale = said == "of another state";
        let first =
            job.children().filter(|_| !stale).map_or_else(|| JobId::of_key(99, 0), |children| children.first);
        let results = match said {
            "" => Ok(std::mem::take(&mut self.ends).into_values().collect()),
            "too large" => {
                Err(JobError { code: Arc::from("DATA_TOO_LARGE"), message: Arc::from("too many bytes") })
            }
            _ if stale => Ok(Vec::new()),
            said => Ok(said.split("; ").map(child_end).collect()),
        };
        Event::ChildrenEnded(Harvest { first, results })
    }

    /// What children are given, and how many run at once.
    fn show_specs(&mut self, from: u32, count: u32) {
        let plan = plan(self.job.as_ref().expect("a job"), &self.blueprint).expect("it waits for children");
        self.told.push_str(&format!("  at once {}, may fail {}\n", plan.max_parallel, plan.tolerated));
        for spec in self.specs(from, count) {
            let what = spec.blueprint.as_deref().unwrap_or("branch");
            let index = spec.submission.parent.as_ref().expect("a child").index;
            let error = spec
                .error
                .map_or_else(String::new, |error| format!(", error {}: {}", error.code, error.message));
            self.told.push_str(&format!("  {index}: {what} {}{error}\n", spec.submission.initial_data));
        }
    }

    /// What later expressions see.
    fn show(&mut self) {
        let job = self.job.as_ref().expect("a job");
        let none = || "none".to_owned();
        self.told.push_str(&format!(
            "  outcome {}, result {}, results {}, {} signals kept, failed in {}\n",
            job.outcome.as_deref().unwrap_or("none"),
            job.result.as_ref().map_or_else(none, ToString::to_string),
            job.results.as_deref().unwrap_or("none"),
            job.signals.len(),
            job.failed_state.as_deref().unwrap_or("none"),
        ));
    }

    // ---- News from outside ----

    /// `signal paid {"amount":1} id=7`
    fn signal(&self, words: &[&str]) -> Event {
        Event::Signalled(Signal {
            name: Arc::from(words[1]),
            id: words.get(3).and_then(|id| id.strip_prefix("id=")).map(Arc::from),
            data: Json::object(words.get(2).copied().unwrap_or("{}")).expect("an object without spaces"),
            at: self.now,
        })
    }

    /// `decide approved by=eve token=right data={"a":1} comment=why`
    fn ruling(&self, said: &str) -> Event {
        let mut words = said.split(' ');
        let mut ruling = Ruling {
            token: None,
            decision: Arc::from(words.next().expect("a decision")),
            by: Arc::from("acme"),
            comment: None,
            data: Json::empty(),
        };
        for (key, value) in words.map(|word| word.split_once('=').expect("key=value")) {
            match key {
                "by" => ruling.by = Arc::from(value),
                "comment" => ruling.comment = Some(Arc::from(value)),
                "data" => ruling.data = Json::object(value).expect("an object without spaces"),
                "token" if value == "right" => ruling.token = self.token(),
                "token" => ruling.token = Some(Arc::from(value)),
                _ => panic!("a decision has no {key}"),
            }
        }
        Event::Decided(ruling)
    }

    fn token(&self) -> Option<Arc<str>> {
        match &self.job.as_ref()?.wait {
            Some(Wait::Approval { token, .. }) => Some(token.clone()),
            _ => None,
        }
    }

    /// `retry state=a data={"a":1} history={"b":2} key=mend-1/7`
    fn retry(&self, said: &str) -> Event {
        let mut retry = Retry {
            state: None,
            initial_data: None,
            state_history: None,
            by: Arc::from("ops"),
            reason: Some(Arc::from("mended")),
            key: None,
        };
        let object = |value| Some(Json::object(value).expect("an object without spaces"));
        for (key, value) in said.split_whitespace().map(|word| word.split_once('=').expect("key=value")) {
            match key {
                "state" => retry.state = Some(Arc::from(value)),
                "data" => retry.initial_data = object(value).map(Edit::Replace),
                "key" => retry.key = Some(key_of(value)),
                "history" => retry.state_history = object(value).map(Edit::Patch),
                _ => panic!("a retry has no {key}"),
            }
        }
        Event::RetryRequested(retry)
    }

    /// `skip success {"a":1} key=mend-1/7`
    fn skip(&self, words: &[&str]) -> Event {
        Event::SkipRequested(Skip {
            outcome: Arc::from(words[1]),
            data: Json::object(words.get(2).copied().unwrap_or("{}")).expect("an object without spaces"),
            by: Arc::from("ops"),
            reason: None,
            key: words.get(3).and_then(|key| key.strip_prefix("key=")).map(key_of),
        })
    }

    fn decided(&mut self, decision: Decision) {
        for effect in &decision.effects {
            let effect = match effect {
                Effect::Offer(offer) => {
                    self.tasks.push(offer.task_id);
                    let task = self.name(offer.task_id);
                    format!("offer {task}: {} {} attempt {}", offer.task_type, offer.params, offer.attempt)
                }
                Effect::Withdraw { task_id, reason } => {
                    format!("withdraw {}: {reason}", self.name(*task_id))
                }
                Effect::StartChildren => "start children".to_owned(),
                Effect::CancelChildren(children) => format!("cancel {} children", children.total),
                Effect::StartDetached(spec) => {
                    let blueprint = spec.blueprint.as_deref().unwrap_or("none");
                    format!("start {blueprint} on its own with {}", spec.submission.initial_data)
                }
                Effect::Notify(notice) => format!("notify: {notice:?}"),
            };
            self.told.push_str(&format!("  {effect}\n"));
        }
        for entry in &decision.entries {
            self.told.push_str(&self.entry(entry));
        }
        let job = decision.job;
        self.told.push_str(&format!("  = {} in {}", job.status, job.state));
        if !job.state_history.is_empty_object() {
            self.told.push_str(&format!(", history {}", job.state_history));
        }
        if let Some(resumes_at) = job.resumes_at {
            let pause = resumes_at.saturating_since(self.now);
            self.told.push_str(&format!(", resumes in {:.1} s", pause.as_secs_f64()));
        }
        if let Some(waits) = waits_for(&job) {
            self.told.push_str(&format!(", waits for {waits}"));
        }
        if let Some(error) = &job.error {
            self.told.push_str(&format!(", error {}: {}", error.code, error.message));
        }
        self.told.push('\n');
        let sequences = decision.entries.iter().map(|entry| entry.sequence);
        let before = self.job.as_ref().map_or(0, |job| job.history_len);
        assert!(sequences.eq(before..job.history_len), "history is numbered without gaps");
        self.job = Some(job);
    }

    fn entry(&self, entry: &HistoryEntry) -> String {
        let mut line = format!(
            "  [{} at {}s] {} in {}",
            entry.sequence,
            entry.at.saturating_since(START).as_secs_f64(),
            entry.event.as_str(),
            entry.state
        );
        let mut add = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                line.push_str(&format!(" {name}={value}"));
            }
        };
        add("from", entry.from_state.as_ref().map(|state| state.to_string()));
        add("outcome", entry.outcome.as_ref().map(|outcome| outcome.to_string()));
        add("task", entry.task_id.map(|task_id| self.name(task_id)));
        add("attempt", entry.attempt.map(|attempt| attempt.to_string()));
        add("worker", entry.worker_id.as_ref().map(|worker| worker.to_string()));
        add("error", entry.error.as_ref().map(|error| error.code.to_string()));
        add("by", entry.by.as_ref().map(|by| by.to_string()));
        // A job id is another one in every story that is changed.
        add(
            "detail",
            entry.detail.as_ref().map(|detail| format!("{detail:?}")).filter(|text| text.len() != 38),
        );
        line + "\n"
    }

    fn task(&self, name: &str) -> TaskId {
        let number: usize = name.trim_start_matches('t').parse().expect("a task name such as t1");
        match number {
            0 => TaskId::from_bytes([0; 16]),
            number => self.tasks[number - 1],
        }
    }

    fn name(&self, task_id: TaskId) -> String {
        match self.tasks.iter().position(|known| *known == task_id) {
            Some(position) => format!("t{}", position + 1),
            None => "t?".to_owned(),
        }
    }
}

/// `success {"a":1}`, `failure CODE: why`, `cancelled`
fn child_end(said: &str) -> ChildResult {
    let (outcome, rest) = said.split_once(' ').map_or((said, None), |(outcome, rest)| (outcome, Some(rest)));
    let failed = ["failure", "cancelled", "quarantined"].contains(&outcome);
    let (data, error) = match rest {
        Some(rest) if failed => {
            let (code, message) = rest.split_once(": ").expect("CODE: why");
            (None, Some(JobError { code: Arc::from(code), message: Arc::from(message) }))
        }
        rest => (rest.map(|data| Json::object(data).expect("an object without spaces")), None),
    };
    ChildResult { outcome: Arc::from(outcome), failed, data, error }
}

fn waits_for(job: &Job) -> Option<String> {
    Some(match job.wait.as_ref()? {
        Wait::Start => "its start".to_owned(),
        Wait::Timer => "a time".to_owned(),
        Wait::Signal { name, .. } => format!("the signal {name}"),
        Wait::Approval { message, .. } => format!("a human: {}", message.as_deref().unwrap_or("no question")),
        Wait::Children(children) => format!("{} children", children.total),
        Wait::Keys(scope) => {
            let hold = job.claim_for(*scope).expect("who waits for keys has a claim");
            let keys: Vec<&str> = hold.claim.shares.iter().map(|share| &*share.key).collect();
            format!("keys of its {}: {}", scope.as_str(), keys.join(", "))
        }
    })
}

macro_rules! stories {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                let script = include_str!(concat!(stringify!($name), ".txt"));
                insta::assert_snapshot!(Story::tell(script));
            }
        )*
    };
}

stories! {
    a_task_succeeds
    a_failure_is_retried_then_quarantined
    a_failure_follows_its_transition
    error_classes
    late_and_foreign_results_are_refused
    a_lost_worker_is_not_the_tasks_failure
    an_attempt_takes_too_long
    deadlines_of_the_client
    cancelling
    choices_and_passes
    expressions_that_have_no_value
    custom_outcomes
    params_that_no_longer_compute
    too_many_moves
    expressions_of_one_decision_count_together
    those_that_were_called_back_are_not_to_blame
    a_child_that_nobody_waits_for_needs_room
    a_map_over_a_list
    a_map_over_nothing_goes_on
    a_map_over_no_list_fails_by_name
    an_item_that_does_not_compute_fails_its_branch_alone
    too_many_failed_branches_do_not_run_what_follows
    tolerated_failures_run_what_follows
    a_failed_map_without_a_transition_fails_the_job
    fixed_branches_have_names
    a_parent_goes_on_once
    a_branch_tries_again_by_itself
    a_child_is_run_and_waited_for
    the_end_of_a_child_selects_the_transition
    a_child_of_an_unknown_blueprint_is_a_failure_although_nobody_waits
    a_child_that_is_not_waited_for_lives_by_itself
    a_child_without_input_is_a_failure
    the_input_of_a_child_is_checked
    a_child_whose_input_does_not_fit_is_retried_with_one_that_does
    a_child_that_never_began_stays_as_it_is
    jobs_nest_ten_deep
    a_cancelled_job_stays_cancelled
    cancelling_takes_the_branches_along
    a_cancelled_wait_does_not_come_back
    a_human_decides
    a_token_is_good_for_one_approval
    signals_come_early_late_and_twice
    what_came_early_is_there_when_a_failed_job_goes_on
    a_signal_that_makes_no_sense_is_kept_and_told
    deadlines_of_what_is_waited_for
    waits_end_when_they_should
    waits_end_within_a_year
    results_are_checked_mapped_and_caught
    errors_are_caught_by_their_code
    params_of_a_task_can_be_caught
    a_job_is_repaired
    a_state_is_skipped
    a_repeated_repair_is_done_once
    a_job_moves_to_another_version
    a_job_moves_to_another_state_of_another_version
    a_state_of_another_kind_is_entered_anew
    a_job_whose_children_run_does_not_move
    a_moved_task_keeps_its_place_in_the_queue
    a_moved_task_that_a_worker_has_goes_on
    a_moved_task_of_another_type_is_taken_back
    a_moved_retry_waits_for_its_time
    a_moved_retry_of_what_is_no_task_any_more_is_given_up
    a_moved_wait_keeps_its_time
    a_moved_wait_becomes_a_task
    a_moved_job_finds_the_signal_that_came_before
    a_moved_job_waits_for_its_signal_as_long_as_the_other_version_says
    a_moved_job_waits_for_another_signal
    a_moved_approval_keeps_its_token_while_it_asks_the_same
    a_moved_approval_that_asks_something_else_asks_anew
    a_moved_state_that_decides_by_itself_does_so
    a_move_that_would_fail_is_refused
    a_move_beyond_the_limit_of_moves_is_refused
    a_moved_job_that_has_not_begun_begins_at_the_new_start
    a_failed_job_moves_and_is_tried_again
    an_end_has_a_result_of_its_own
    an_end_whose_result_does_not_compute_fails
    results_beyond_their_limit_are_a_failure
    a_map_that_is_skipped_has_no_results
    expressions_of_pauses_can_be_caught
    where_a_retry_begins
    what_was_undone_is_named_at_the_end
    a_branch_does_not_follow_the_map
    a_job_takes_its_keys_from_its_start_to_its_end
    an_attempt_takes_its_keys
    keys_that_refuse
    a_key_is_taken_over
    keys_of_branches_and_children
    keys_without_a_value
    keys_and_repair
}
