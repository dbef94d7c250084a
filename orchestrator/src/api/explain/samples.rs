//! One explanation for each reason, with times that never change: what the documentation shows and the tests compare.

use std::{sync::Arc, time::Duration};

use avtomatika_proto::{JobId, TaskId};

use crate::{
    blueprint::{KeyLimit, KeyPolicy, Share, load},
    conductor::{
        AwaitedKey, ChildCounts, Explanation, Failing, JobView, LeaseView, Progress, Reason, Situation,
    },
    dispatch::{Lack, Nearest, Obstacle, Position, Standing, Unmet, Workers},
    engine::{Attempt, Children, Job, JobError, JobStatus, KeyScope, Plan, Signal, Submission, Wait},
    json::Json,
    time::Timestamp,
};

/// 2026-01-31T12:00:00Z.
const ACCEPTED: Timestamp = Timestamp::from_micros(1_769_860_800_000_000);

/// When the job is asked about.
const NOW: Timestamp = Timestamp::from_micros(1_769_860_992_000_000);

fn later(seconds: u64) -> Timestamp {
    NOW + Duration::from_secs(seconds)
}

fn job(state: &str, status: JobStatus) -> Job {
    let text = "blueprint: photos\nstates:\n  resize: { start: true, task: { type: resize }, on: { success: done, failure: failed } }\n  done: { end: finished }\n  failed: { end: failed }\n";
    let blueprint = load("photos.yaml", text).unwrap().definition.into_blueprint(1);
    let id = JobId::compose(ACCEPTED.as_unix_ms(), 0, 7);
    let mut submission = Submission::of(Json::empty());
    submission.dispatch_timeout = Some(Duration::from_secs(600));
    let mut job = Job::accepted(id, Arc::from("acme"), &blueprint, Arc::new(submission), ACCEPTED);
    job.state = Arc::from(state);
    job.status = status;
    if status == JobStatus::WaitingForWorker {
        let (task_id, task_type) = (TaskId::from_random(7), Arc::from("resize"));
        job.attempt = Some(Attempt {
            task_id,
            task_type,
            needs: None,
            number: 2,
            ready_at: ACCEPTED + Duration::from_secs(9),
        });
    }
    job
}

fn explained(job: Job, situation: Situation) -> Explanation {
    let since = ACCEPTED + Duration::from_secs(9);
    Explanation {
        view: JobView { job: Arc::new(job), lease: None, children: None },
        situation,
        since,
        at: NOW,
        attempts_max: Some(4),
        failing: None,
        skips: Vec::new(),
        storage_full: false,
    }
}

fn failing() -> Option<Failing> {
    let error = JobError { code: Arc::from("TRANSIENT_ERROR"), message: Arc::from("connection reset") };
    Some(Failing {
        state: Arc::from("resize"),
        attempt: Some(2),
        worker_id: Some(Arc::from("imaging-1")),
        error,
        at: NOW,
    })
}

fn queued(obstacle: Obstacle, workers: Workers, nearest: Option<Lack>) -> Explanation {
    let nearest = nearest.map(|lacks| Nearest { worker_id: Arc::from("imaging-1"), lacks });
    let position = Position { ahead: 17, at_least: false, length: 40 };
    let standing = Standing { obstacle, position, workers, nearest };
    explained(job("resize", JobStatus::WaitingForWorker), Situation::Worker(Box::new(standing)))
}

fn ended(state: &str, status: JobStatus, error: Option<(&str, &str)>) -> Explanation {
    let mut explanation = explained(job(state, status), Situation::Ended);
    if status.is_repairable() {
        explanation.skips = ["failure", "success"].map(Arc::from).into();
    }
    explanation.failing = error.map(|(code, message)| Failing {
        error: JobError { code: Arc::from(code), message: Arc::from(message) },
        ..failing().unwrap()
    });
    explanation
}

/// An explanation with this reason.
pub(super) fn sample(reason: Reason) -> Explanation {
    let of = |serving, full, paused, draining| Workers {
        connected: 5,
        serving,
        full,
        paused,
        draining,
        ..Workers::default()
    };
    let slot = Lack::FreeSlot { held: 4, slots: 4 };
    let waits = |state, status, wait, seconds: Option<u64>, situation| {
        let mut job = job(state, status);
        job.wait = wait;
        job.resumes_at = seconds.map(later);
        explained(job, situation)
    };
    let since = ACCEPTED + Duration::from_secs(9);
    let children = |total, state, status, started, running, failed| {
        let first = JobId::compose(ACCEPTED.as_unix_ms(), 1, 7);
        let plan = Some(Plan { max_parallel: 10, tolerated: 5 });
        let counts = ChildCounts { total, started, running, failed, plan };
        let wait = Some(Wait::Children(Children { first, total, since }));
        waits(state, status, wait, None, Situation::Children { counts, running: vec![first] })
    };
    match reason {
        Reason::Accepted => explained(job("resize", JobStatus::Pending), Situation::Accepted),
        Reason::Changing => explained(job("resize", JobStatus::WaitingForWorker), Situation::Changing),
        Reason::StartTime => {
            waits("resize", JobStatus::WaitingForTimer, Some(Wait::Start), Some(7200), Situation::Start)
        }
        Reason::NoWorker => {
            let lack =
                Lack::TaskType { serves: vec![Arc::from("reszie")], similar: Some(Arc::from("reszie")) };
            queued(Obstacle::NoWorker, of(0, 0, 0, 0), Some(lack))
        }
        Reason::NoSuitableWorker => {
            let (needs, has) = ("gpu_vram_gb >= 16".to_owned(), Some("12".to_owned()));
            let workers = Workers { unsuited: 2, ..of(2, 0, 0, 0) };
            queued(
                Obstacle::NoneSuits,
                workers,
                Some(Lack::Needs(Unmet { about: "resource", needs, has, shortfall_millionths: 250_000 })),
            )
        }
        Reason::WorkersSetAside => {
            let workers = Workers { set_aside: 1, ..of(1, 0, 0, 0) };
            queued(Obstacle::WorkersSetAside, workers, Some(Lack::Trust(later(30))))
        }
        Reason::WorkersFull => queued(Obstacle::WorkersFull, of(3, 2, 0, 1), Some(slot)),
        Reason::WorkersPaused => queued(Obstacle::WorkersPaused, of(1, 0, 1, 0), Some(Lack::Credits)),
        Reason::WorkersDraining => queued(Obstacle::WorkersDraining, of(2, 0, 0, 2), Some(Lack::Permanence)),
        Reason::WorkersExpected => {
            let workers = Workers { expected: 2, ..of(0, 0, 0, 0) };
            queued(Obstacle::WorkersExpected(later(4)), workers, None)
        }
        Reason::Dispatching => queued(Obstacle::Turn, Workers { free: 1, ..of(1, 0, 0, 0) }, None),
        Reason::Stopping => queued(Obstacle::Stopping, of(1, 1, 0, 0), Some(slot)),
        Reason::Running => {
            let mut explanation = explained(job("resize", JobStatus::WaitingForWorker), Situation::Running);
            let progress = Progress { fraction: 0.4, message: Arc::from("page 2 of 5"), checkpoint: None };
            explanation.view.lease = Some(LeaseView {
                worker_id: Arc::from("imaging-1"),
                dispatched_at: since,
                deadline: later(117),
                progress: Some(progress),
            });
            explanation
        }
        Reason::Retry => {
            let mut explanation =
                waits("resize", JobStatus::WaitingForTimer, None, Some(8), Situation::Retry);
            Arc::make_mut(&mut explanation.view.job).retry_count = 2;
            explanation.failing = failing();
            explanation
        }
        Reason::Branches => children(100, "pages", JobStatus::WaitingForParallel, 40, 10, 1),
        Reason::Child => children(1, "invoice", JobStatus::WaitingForChild, 1, 1, 0),
        Reason::Human => {
            let (token, message) = (Arc::from("secret"), Some(Arc::from("Publish it?")));
            let decisions = vec![Arc::from("approved"), Arc::from("rejected")];
            let wait = Some(Wait::Approval { token, message, since });
            waits("review", JobStatus::WaitingForHuman, wait, Some(86_400), Situation::Approval { decisions })
        }
        Reason::Event => {
            let wait = Some(Wait::Signal { name: Arc::from("paid"), since });
            let mut explanation =
                waits("payment", JobStatus::WaitingForEvent, wait, Some(3600), Situation::Signal);
            let signal = Signal { name: Arc::from("paid"), id: None, data: Json::empty(), at: NOW };
            Arc::make_mut(&mut explanation.view.job).signals.push(signal);
            explanation
        }
        Reason::Timer => {
            waits("cool_down", JobStatus::WaitingForTimer, Some(Wait::Timer), Some(1080), Situation::Timer)
        }
        Reason::Key => {
            let key = AwaitedKey {
                share: Share {
                    key: Arc::from("tenant:acme"),
                    limit: KeyLimit::Concurrency(5),
                    policy: KeyPolicy::Queue,
                },
                has_room: false,
                held: 5,
                holders: vec![JobId::compose(ACCEPTED.as_unix_ms() - 60_000, 0, 7)],
                ahead: 3,
                waiting: 12,
                next_token_at: None,
            };
            let situation = Situation::Keys { scope: KeyScope::Task, keys: vec![key] };
            let wait = Some(Wait::Keys(KeyScope::Task));
            waits("resize", JobStatus::WaitingForKey, wait, None, situation)
        }
        Reason::Finished => ended("done", JobStatus::Finished, None),
        Reason::Failed => ended("failed", JobStatus::Failed, Some(("PERMANENT_ERROR", "not an image"))),
        Reason::Cancelled => ended("resize", JobStatus::Cancelled, Some(("CANCELLED", "ordered twice"))),
        Reason::Quarantined => {
            let message = "Task failed after 4 attempts: connection reset";
            ended("resize", JobStatus::Quarantined, Some(("TRANSIENT_ERROR", message)))
        }
    }
}
