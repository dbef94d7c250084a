//! Families of jobs when the orchestrator is killed just then: a parent gives up once when too many of its branches have failed, a
//! child that nobody waits for is made once, and whoever is cancelled takes everybody below along for good.

use avtomatika_proto::{
    ErrorCode,
    v1::{CancelJobRequest, Job},
};
use serde_json::Value;

use super::{
    attempts::{counts, history, request},
    waits::{LEAF, Mortal, Told, code, every_job, telling, until_all},
    *,
};

/// Jobs at the top, in each test.
const FAMILIES: usize = 8;

/// Of six branches two fail, and one may.
const FRAIL: &str = "
blueprint: frail
states:
  scan:
    start: true
    map: { over: '[0, 1, 2, 3, 4, 5]', max_parallel: 2, tolerate: 1, task: { type: scan, params: { number: '${item}' }, timeout: 60s } }
    on: { success: gathered, failure: give_up }
  give_up: { task: { type: note, params: { number: 0 }, timeout: 60s }, on: { success: gave_up } }
  gathered: { end: finished }
  gave_up: { end: failed }
";

const TORN: [u64; 2] = [1, 2];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parent_of_too_many_failed_branches_gives_up_once_whatever_a_kill_meets() {
    fail_and_kill(64).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parent_in_the_store_alone_gives_up_once_too() {
    fail_and_kill(0).await;
}

async fn fail_and_kill(resident_mib: u32) {
    let how = Run { submitters: 0, slots: 4, resident_mib };
    let mut orchestrator = Mortal::serving(&[("frail", FRAIL.into())], how);
    let url = orchestrator.url();
    let (scanned, noted, stop) = (Journal::default(), Journal::default(), Arc::new(Notify::new()));
    let scan = {
        let scanned = scanned.clone();
        move |params: Params, context: TaskContext| {
            let scanned = scanned.clone();
            async move {
                scanned.note(&context).await;
                match TORN.contains(&params.number) {
                    true => Err(TaskError::permanent("torn")),
                    false => Ok(Done {}),
                }
            }
        }
    };
    let builder = worker(&url, "scanner", how.slots).handle("scan", scan).handle("note", noted.handler());
    let worker = tokio::spawn(run(builder, stop.clone()));

    let ids = submit_all(&url, "frail").await;
    for share in [1, FAMILIES, FAMILIES * 2] {
        scanned.until(share).await;
        orchestrator.kill_and_start("while branches fail");
    }
    for share in [1, FAMILIES / 2] {
        noted.until(share).await;
        orchestrator.kill_and_start("while parents give up");
    }
    until_all(&url, &ids, JobStatus::Failed).await;

    let mut client = connect(&url).await;
    let jobs = until_everybody_has_ended(&mut client).await;
    for job_id in &ids {
        assert_eq!(noted.runs_of(job_id), 1, "what {job_id} did when it gave up");
        let entries = history(&mut client, job_id).await;
        let counts = counts(&entries);
        for event in ["children_started", "children_ended", "job_failed"] {
            assert_eq!(counts.get(event), Some(&1), "{event} in the history of {job_id}");
        }
        let branches: Vec<&Job> = jobs.iter().filter(|job| job.parent_job_id == *job_id).collect();
        for branch in &branches {
            assert!(scanned.runs_of(&branch.id) <= 1, "branch {} ran twice", branch.id);
        }
        let with = |status: JobStatus| branches.iter().filter(|branch| branch.status() == status).count();
        assert_eq!(with(JobStatus::Failed), TORN.len(), "branches of {job_id} that failed");
        // When the second fails, one other is under way: the first before it, or one of those after it.
        assert!(branches.len() <= 5, "{job_id} began {} branches", branches.len());
    }
    stop.notify_waiters();
    worker.await.unwrap();
    orchestrator.kill();
}

const HERALD: &str = "
blueprint: herald
states:
  tell:
    start: true
    run: { blueprint: leaf, input: { number: \"${initial_data.number}\" }, wait: false }
    on: { success: note, failure: refused }
  note: { task: { type: note, params: { number: \"${initial_data.number}\" }, timeout: 60s }, on: { success: done } }
  done: { end: finished }
  refused: { end: failed }
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_child_that_nobody_waits_for_is_made_once_whatever_a_kill_meets() {
    make_and_kill(64).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_child_that_nobody_waits_for_is_made_once_with_nothing_in_memory_too() {
    make_and_kill(0).await;
}

async fn make_and_kill(resident_mib: u32) {
    let how = Run { submitters: 0, slots: 2, resident_mib };
    let mut orchestrator = Mortal::serving(&[("herald", HERALD.into()), ("leaf", LEAF.into())], how);
    let url = orchestrator.url();
    let (journal, stop) = (Journal::default(), Arc::new(Notify::new()));
    let ids = submit_all(&url, "herald").await;
    orchestrator.kill_and_start("after children were made");
    let worker = tokio::spawn(work(url.clone(), 0, how.slots, journal.clone(), stop.clone()));
    for share in [1, FAMILIES / 2, FAMILIES] {
        journal.until(share).await;
        orchestrator.kill_and_start("while children and parents run side by side");
    }
    until_all(&url, &ids, JobStatus::Finished).await;

    let mut client = connect(&url).await;
    let jobs = until_everybody_has_ended(&mut client).await;
    assert_eq!(jobs.len(), FAMILIES * 2, "each has one child");
    let mut numbers: Vec<(&str, u64)> =
        jobs.iter().map(|job| (job.blueprint_name.as_str(), number_of(job))).collect();
    numbers.sort_unstable();
    let expected =
        ["herald", "leaf"].into_iter().flat_map(|name| (0..FAMILIES as u64).map(move |n| (name, n)));
    assert_eq!(numbers, expected.collect::<Vec<_>>());
    for job in &jobs {
        assert_eq!((job.status(), journal.runs_of(&job.id)), (JobStatus::Finished, 1), "{job:?}");
    }
    stop.notify_waiters();
    worker.await.unwrap();
    orchestrator.kill();
}

const CLAN: [(&str, &str); 2] = [
    (
        "clan",
        "
blueprint: clan
states:
  below: { start: true, run: { blueprint: hall }, on: { success: done, cancelled: done } }
  done: { end: finished }
",
    ),
    (
        "hall",
        "
blueprint: hall
states:
  fan: { start: true, map: { over: '[0, 1, 2]', max_parallel: 2, task: { type: hold, timeout: 60s } }, on: { success: done, failure: done } }
  done: { end: finished }
",
    ),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_family_that_is_cancelled_is_gone_for_good_whatever_a_kill_meets() {
    cancel_and_kill(64).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_family_in_the_store_alone_is_cancelled_for_good_too() {
    cancel_and_kill(0).await;
}

async fn cancel_and_kill(resident_mib: u32) {
    // Half of the branches that may run do; the others wait for a slot.
    let how = Run { submitters: 0, slots: FAMILIES as u32, resident_mib };
    let mut blueprints: Vec<(&str, String)> = CLAN.map(|(name, text)| (name, text.to_owned())).into();
    blueprints.push(("leaf", LEAF.into()));
    let mut orchestrator = Mortal::serving(&blueprints, how);
    let url = orchestrator.url();
    let (held, noted, stop) = (Journal::default(), Journal::default(), Arc::new(Notify::new()));
    let hold = {
        let held = held.clone();
        move |_: Value, context: TaskContext| {
            let held = held.clone();
            async move {
                held.note(&context).await;
                context.cancellation().cancelled().await;
                // Whoever is told to stop may answer all the same, and it changes nothing.
                Ok::<_, TaskError>(Done {})
            }
        }
    };
    let builder = worker(&url, "holder", how.slots).handle("hold", hold).handle("note", noted.handler());
    let worker = tokio::spawn(run(builder, stop.clone()));

    let ids = submit_all(&url, "clan").await;
    held.until(FAMILIES).await;
    let (told, mut heard) = telling();
    let cancels = tokio::spawn(cancel_all(url.clone(), ids.clone(), told));
    for share in [1, FAMILIES / 2, FAMILIES] {
        heard.until(share).await;
        orchestrator.kill_and_start("while families are cancelled");
    }
    cancels.await.unwrap();

    let mut client = connect(&url).await;
    for job in until_everybody_has_ended(&mut client).await {
        assert_eq!(job.status(), JobStatus::Cancelled, "{job:?}");
        assert!(held.runs_of(&job.id) <= 1, "{} ran twice", job.id);
        let entries = history(&mut client, &job.id).await;
        assert_eq!(counts(&entries).get("job_cancelled"), Some(&1), "history of {}", job.id);
    }
    // Every slot is free again: as many jobs as there are slots, and one more.
    let mut after = submit_all(&url, "leaf").await;
    after.extend(submit_all(&url, "leaf").await.into_iter().take(1));
    until_all(&url, &after, JobStatus::Finished).await;
    stop.notify_waiters();
    worker.await.unwrap();
    orchestrator.kill();
}

async fn submit_all(url: &str, blueprint: &str) -> Vec<String> {
    let mut client = connect(url).await;
    let mut ids = Vec::new();
    for number in 0..FAMILIES as u64 {
        ids.push(client.submit_job(request(blueprint, number)).await.unwrap().into_inner().job_id);
    }
    ids
}

/// Cancels each, again and again until it is answered. An answer that was lost reads as ended when it is asked for again.
async fn cancel_all(url: String, ids: Vec<String>, told: Told) {
    let mut client = connect(&url).await;
    for job_id in ids {
        let request = CancelJobRequest { job_id, reason: "the order was withdrawn".into() };
        let mut repeated = false;
        while let Err(status) = client.cancel_job(request.clone()).await {
            if let Some(code) = code(&status) {
                assert!(repeated && code == ErrorCode::JobTerminal, "{status:?}");
                break;
            }
            repeated = true;
            client = connect(&url).await;
        }
        told.add();
    }
}

/// All jobs there are, as soon as none of them is open.
async fn until_everybody_has_ended(client: &mut Client) -> Vec<Job> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let jobs = every_job(client).await.unwrap();
        let open = jobs.iter().filter(|job| job.finished_at.is_none()).count();
        if open == 0 {
            return jobs;
        }
        assert!(Instant::now() < deadline, "{open} of {} jobs have not ended", jobs.len());
    }
}

fn number_of(job: &Job) -> u64 {
    serde_json::from_str::<Params>(&job.initial_data).unwrap().number
}
