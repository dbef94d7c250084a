//! The engine, told as stories: each `*.txt` file is a blueprint and a script of events, and its snapshot is what the engine
//! decided, step by step. Task ids are shown as t1, t2, … in the order of their making, times as seconds since the start.

// A test that cannot go on should stop where it is.
#![allow(clippy::unwrap_used)]

use std::{sync::Arc, time::Duration};

use avtomatika_orchestrator::{
    blueprint::{Blueprint, load},
    engine::{
        Context, Decision, Effect, Entropy, Event, HistoryEntry, Job, JobError, Report, Submission, decide,
    },
    json::Json,
    time::Timestamp,
};
use avtomatika_proto::{JobId, TaskId};

const START: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);

/// One job on its way through a blueprint.
struct Story {
    blueprint: Blueprint,
    job: Option<Job>,
    now: Timestamp,
    entropy: Entropy,
    tasks: Vec<TaskId>,
    told: String,
}

impl Story {
    fn tell(script: &str) -> String {
        let (blueprint, events) = script.split_once("\n---\n").expect("a blueprint, a line of ---, events");
        let loaded = load("story.yaml", blueprint).expect("the story's blueprint is sound");
        let mut story = Story {
            blueprint: loaded.definition.into_blueprint(1),
            job: None,
            now: START,
            entropy: Entropy::from_seed([7; 32]),
            tasks: Vec::new(),
            told: String::new(),
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
            other => panic!("a story has no word {other:?}"),
        };
        let job = self.job.clone().expect("a story begins with submit");
        let mut reserve = |_| 1;
        let mut context = Context {
            now: self.now,
            blueprint: &self.blueprint,
            entropy: &mut self.entropy,
            reserve: &mut reserve,
        };
        match decide(&job, &event, &mut context) {
            Ok(decision) => self.decided(decision),
            Err(refusal) => self.told.push_str(&format!("  refused: {refusal}\n")),
        }
    }

    /// `submit {"a":1} dispatch_timeout=5 result_timeout=9`
    fn submit(&mut self, rest: &str) {
        let mut words = rest.split(' ');
        let initial_data = Json::object(words.next().expect("data")).expect("an object without spaces");
        let mut submission = Submission::of(initial_data);
        for word in words {
            let (key, seconds) = word.split_once('=').expect("key=seconds");
            let timeout = Some(Duration::from_secs(seconds.parse().expect("seconds")));
            match key {
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
}
