//! What is said of jobs that stand still, before the orchestrator is killed and afterwards: the same, for everything that a job can
//! wait for.

use avtomatika_proto::v1::{
    ExplainJobRequest, Explanation, ExplanationReason as Reason, explanation::Detail,
};

use super::{waits::Mortal, *};

/// One blueprint for each thing to wait for. Nobody serves the tasks of type `nobody`.
const BLUEPRINTS: [(&str, &str); 7] = [
    ("until", "states:\n  stand: { start: true, wait: 1h, next: done }\n  done: { end: finished }\n"),
    (
        "news",
        "states:\n  stand: { start: true, event: { name: go, deadline: 1h }, on: { received: done, timeout: done } }\n  done: { end: finished }\n",
    ),
    (
        "human",
        "states:\n  stand: { start: true, approval: { message: 'go on?', deadline: 1h }, on: { approved: done, timeout: done } }\n  done: { end: finished }\n",
    ),
    (
        "worker",
        "states:\n  stand: { start: true, task: { type: nobody }, on: { success: done } }\n  done: { end: finished }\n",
    ),
    (
        "child",
        "states:\n  stand: { start: true, run: { blueprint: worker }, on: { success: done } }\n  done: { end: finished }\n",
    ),
    (
        "branches",
        "states:\n  stand: { start: true, map: { over: '[1, 2, 3]', max_parallel: 2, task: { type: nobody } }, on: { success: done } }\n  done: { end: finished }\n",
    ),
    (
        "again",
        "states:\n  stand: { start: true, task: { type: flaky, retry: { max_retries: 3, initial_delay: 1h, max_delay: 1h } }, on: { success: done } }\n  done: { end: finished }\n",
    ),
];

const REASONS: [Reason; 7] = [
    Reason::Timer,
    Reason::Event,
    Reason::Human,
    Reason::NoWorker,
    Reason::Child,
    Reason::Branches,
    Reason::Retry,
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_said_of_a_job_is_the_same_after_a_kill() {
    say_the_same(64).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_said_of_a_job_that_waits_in_the_store_alone_is_the_same_after_a_kill() {
    say_the_same(0).await;
}

async fn say_the_same(resident_mib: u32) {
    let files = BLUEPRINTS.map(|(name, states)| (name, format!("blueprint: {name}\n{states}")));
    let mut orchestrator = Mortal::serving(&files, Run { submitters: 0, slots: 1, resident_mib });
    let mut client = connect(&orchestrator.url()).await;
    let mut ids = Vec::new();
    for (name, _) in &files {
        let request = SubmitJobRequest { blueprint: (*name).into(), ..Default::default() };
        ids.push(client.submit_job(request).await.unwrap().into_inner().job_id);
    }
    fail_once(&orchestrator.url(), &mut client, &ids).await;

    let before = told(&mut client, &ids).await;
    assert_eq!(before.iter().map(Explanation::reason).collect::<Vec<_>>(), REASONS);
    check_details(&before);
    orchestrator.kill_and_start("while jobs stand still");
    let mut client = connect(&orchestrator.url()).await;
    let deadline = Instant::now() + PATIENCE;
    // What is told of children is found out anew, a moment after the start.
    while told(&mut client, &ids).await != before {
        assert!(Instant::now() < deadline, "{before:#?} became {:#?}", told(&mut client, &ids).await);
    }
    orchestrator.kill();
}

/// A worker comes, fails the task that is to be tried again, and goes.
async fn fail_once(url: &str, client: &mut Client, ids: &[String]) {
    let stop = Arc::new(Notify::new());
    let handler = async |_: serde_json::Value, _: TaskContext| {
        Err::<serde_json::Value, _>(TaskError::transient("the kiln is cold"))
    };
    let worker = tokio::spawn(super::run(worker(url, "w1", 1).handle("flaky", handler), stop.clone()));
    let deadline = Instant::now() + PATIENCE;
    while explain(client, &ids[6]).await.reason() != Reason::Retry {
        assert!(Instant::now() < deadline, "the task was not tried");
    }
    stop.notify_one();
    worker.await.unwrap();
    // Its last word has been heard: nobody is connected.
    while queue_of(&explain(client, &ids[3]).await).is_none_or(|connected| connected > 0) {
        assert!(Instant::now() < deadline, "the worker has not gone");
    }
}

/// Workers that are connected while a task waits.
fn queue_of(explanation: &Explanation) -> Option<u32> {
    match &explanation.detail {
        Some(Detail::Queue(queue)) => Some(queue.connected_workers),
        _ => None,
    }
}

async fn explain(client: &mut Client, job_id: &str) -> Explanation {
    let request = ExplainJobRequest { job_id: job_id.to_owned() };
    client.explain_job(request).await.unwrap().into_inner().explanation.unwrap()
}

/// What is said of each, without the sentences: they tell how long it has been so.
async fn told(client: &mut Client, ids: &[String]) -> Vec<Explanation> {
    let mut all = Vec::new();
    for job_id in ids {
        all.push(Explanation { summary: String::new(), ..explain(client, job_id).await });
    }
    all
}

fn check_details(told: &[Explanation]) {
    let [timer, event, human, worker, child, branches, retry] = told else { panic!("{told:?}") };
    for with_an_end in [timer, event, human, retry] {
        assert!(with_an_end.until.is_some() && with_an_end.since.is_some(), "{with_an_end:?}");
    }
    assert!(matches!(&event.detail, Some(Detail::Event(event)) if event.name == "go"));
    assert!(
        matches!(&human.detail, Some(Detail::Approval(asked)) if asked.message == "go on?" && asked.decisions == ["approved"])
    );
    // The tasks of the branches and of the child wait in the same queue.
    assert!(matches!(&worker.detail, Some(Detail::Queue(queue)) if queue.queue_length == 4));
    let running = |explanation: &Explanation| match &explanation.detail {
        Some(Detail::Children(children)) => {
            (children.total, children.started, children.running_job_ids.len())
        }
        other => panic!("{other:?}"),
    };
    assert_eq!((running(child), running(branches)), ((1, 1, 1), (3, 2, 2)));
    let failure = retry.last_failure.as_ref().unwrap();
    assert_eq!(
        (failure.state.as_str(), failure.attempt, failure.worker_id.as_str(), retry.attempts_max),
        ("stand", 1, "w1", 4)
    );
}
