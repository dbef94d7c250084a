//! Jobs that wait for their start, and jobs whose attempts fail, when the orchestrator is killed just then: each job begins once and not too
//! early, each failure counts once, leads once to where it is caught, and leaves to the next attempt how far it came.

use std::collections::BTreeMap;

use avtomatika_proto::v1::{GetJobRequest, HistoryEntry};

use super::{
    waits::{Mortal, every_job, until_all},
    *,
};

/// Jobs of each test.
const JOBS: usize = 40;

/// A code of the worker's own: tried again once, then caught.
const BALKING: &str = "
blueprint: balking
states:
  try:
    start: true
    task:
      type: balk
      params: { number: \"${initial_data.number}\" }
      timeout: 60s
      retry: { max_retries: 1, initial_delay: 20ms, max_delay: 20ms }
    on: { success: refused, failure: refused }
    catch: { OUT_OF_STOCK: amend }
  amend:
    task: { type: note, params: { number: \"${initial_data.number}\" }, timeout: 60s }
    on: { success: done }
  done: { end: finished }
  refused: { end: failed }
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_caught_when_the_orchestrator_is_killed_is_caught_once() {
    catch_and_kill(Run { submitters: 0, slots: 4, resident_mib: 64 }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_caught_with_the_others_in_the_store_alone_is_caught_once_too() {
    catch_and_kill(Run { submitters: 0, slots: 4, resident_mib: 0 }).await;
}

async fn catch_and_kill(how: Run) {
    let mut orchestrator = Mortal::serving(&[("balking", BALKING.into())], how);
    let url = orchestrator.url();
    let (tried, amended) = (Journal::default(), Journal::default());
    let stop = Arc::new(Notify::new());
    let worker = {
        let (tried, amended) = (tried.clone(), amended.clone());
        let balk = move |_: Params, context: TaskContext| {
            let tried = tried.clone();
            async move {
                tried.note(&context).await;
                Err::<Done, _>(TaskError::custom("OUT_OF_STOCK", "none left"))
            }
        };
        let builder = worker(&url, "balking", how.slots).handle("balk", balk);
        tokio::spawn(run(builder.handle("note", amended.handler()), stop.clone()))
    };

    let mut client = connect(&url).await;
    let mut ids = Vec::new();
    for number in 0..JOBS as u64 {
        ids.push(client.submit_job(request("balking", number)).await.unwrap().into_inner().job_id);
    }
    for share in [1, JOBS / 4, JOBS / 2, JOBS] {
        tried.until(share).await;
        orchestrator.kill_and_start("while attempts fail");
    }
    for share in [JOBS / 2, JOBS] {
        amended.until(share).await;
        orchestrator.kill_and_start("while what they were caught into runs");
    }
    until_all(&url, &ids, JobStatus::Finished).await;

    let mut client = connect(&url).await;
    for job_id in &ids {
        assert_eq!(tried.runs_of(job_id), 2, "attempts of {job_id}: the first, and the one after it");
        assert_eq!(amended.runs_of(job_id), 1, "what {job_id} was caught into");
        let entries = history(&mut client, job_id).await;
        let entered: Vec<&str> = entries
            .iter()
            .filter(|entry| entry.event == "state_entered")
            .map(|entry| entry.state.as_str())
            .collect();
        assert_eq!(entered, ["try", "amend", "done"], "the way of {job_id}");
        let counts = counts(&entries);
        for (event, times) in
            [("task_failed", 2), ("retry_scheduled", 1), ("task_succeeded", 1), ("job_finished", 1)]
        {
            assert_eq!(counts.get(event), Some(&times), "{event} in the history of {job_id}");
        }
    }
    stop.notify_waiters();
    worker.await.unwrap();
    orchestrator.kill();
}

/// As many attempts as a job has: each turns a page, and the last one is done.
const PAGES: u64 = 4;

const READING: &str = "
blueprint: reading
states:
  read:
    start: true
    task:
      type: read
      timeout: 60s
      retry: { max_retries: 3, initial_delay: 20ms, max_delay: 20ms }
      result_schema: { type: object, required: [pages], properties: { pages: { type: integer } } }
      output: { read: \"${result.pages}\" }
    on: { success: done }
  done: { end: finished, result: { pages: \"${state_history.read}\" } }
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_attempt_has_saved_is_there_for_the_next_whatever_a_kill_meets() {
    save_and_kill(Run { submitters: 0, slots: 4, resident_mib: 64 }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_attempt_has_saved_is_there_although_its_job_was_in_the_store_alone() {
    save_and_kill(Run { submitters: 0, slots: 4, resident_mib: 0 }).await;
}

async fn save_and_kill(how: Run) {
    let mut orchestrator = Mortal::serving(&[("reading", READING.into())], how);
    let url = orchestrator.url();
    let (journal, stop) = (Journal::default(), Arc::new(Notify::new()));
    let begun = Arc::new(Mutex::new(HashMap::<String, Vec<u64>>::new()));
    let read = {
        let (journal, begun) = (journal.clone(), begun.clone());
        move |_: serde_json::Value, context: TaskContext| {
            let (journal, begun) = (journal.clone(), begun.clone());
            async move {
                let page = context.checkpoint::<Params>()?.map_or(0, |saved| saved.number);
                begun.lock().unwrap().entry(context.job_id().to_owned()).or_default().push(page);
                journal.note(&context).await;
                if page + 1 == PAGES {
                    return Ok(serde_json::json!({ "pages": PAGES }));
                }
                context.save(Params { number: page + 1 })?;
                Err(TaskError::transient("the lamp is out"))
            }
        }
    };
    let worker = tokio::spawn(run(worker(&url, "reading", how.slots).handle("read", read), stop.clone()));

    let mut client = connect(&url).await;
    let mut ids = Vec::new();
    for number in 0..JOBS as u64 {
        ids.push(client.submit_job(request("reading", number)).await.unwrap().into_inner().job_id);
    }
    for share in [JOBS / 2, JOBS * 3 / 2, JOBS * 5 / 2, JOBS * 7 / 2] {
        journal.until_attempts(share).await;
        orchestrator.kill_and_start("while attempts leave how far they came");
    }
    until_all(&url, &ids, JobStatus::Finished).await;

    let mut client = connect(&url).await;
    let all: Vec<u64> = (0..PAGES).collect();
    for job_id in &ids {
        assert_eq!(begun.lock().unwrap()[job_id], all, "where the attempts of {job_id} began");
        let entries = history(&mut client, job_id).await;
        assert_eq!(counts(&entries).get("task_failed"), Some(&(PAGES as usize - 1)), "failures of {job_id}");
        let request = GetJobRequest { job_id: job_id.clone() };
        let job = client.get_job(request).await.unwrap().into_inner().job.unwrap();
        assert_eq!(job.result, format!("{{\"pages\":{PAGES}}}"));
    }
    stop.notify_waiters();
    worker.await.unwrap();
    orchestrator.kill();
}

/// How far ahead the first start is, and each of the others after the one before.
const FIRST_START: Duration = Duration::from_secs(1);
const BETWEEN_STARTS: Duration = Duration::from_millis(50);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_whose_orchestrator_is_killed_before_its_start_begins_once_and_when_it_is_time() {
    start_and_kill(Run { submitters: 0, slots: 4, resident_mib: 64 }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_waits_for_its_start_in_the_store_alone_begins_once_too() {
    start_and_kill(Run { submitters: 0, slots: 4, resident_mib: 0 }).await;
}

async fn start_and_kill(how: Run) {
    let mut orchestrator = Mortal::serving(&[("crash_test", BLUEPRINT.into())], how);
    let url = orchestrator.url();
    let (journal, stop) = (Journal::default(), Arc::new(Notify::new()));
    let worker = tokio::spawn(work(url.clone(), 0, how.slots, journal.clone(), stop.clone()));

    let mut client = connect(&url).await;
    let first = SystemTime::now() + FIRST_START;
    let mut starts = BTreeMap::new();
    for number in 0..JOBS {
        let start_at = prost_types::Timestamp::from(first + BETWEEN_STARTS * number as u32);
        let submission =
            SubmitJobRequest { start_at: Some(start_at), ..request("crash_test", number as u64) };
        starts.insert(client.submit_job(submission).await.unwrap().into_inner().job_id, start_at);
    }
    orchestrator.kill_and_start("before the first start");
    for share in [1, JOBS / 3, JOBS * 2 / 3] {
        journal.until(share).await;
        orchestrator.kill_and_start("while jobs start");
    }
    let ids: Vec<String> = starts.keys().cloned().collect();
    until_all(&url, &ids, JobStatus::Finished).await;

    let mut client = connect(&url).await;
    assert_eq!(every_job(&mut client).await.unwrap().len(), JOBS);
    for (job_id, start_at) in &starts {
        assert_eq!(journal.runs_of(job_id), 1, "job {job_id} must have run once");
        let entries = history(&mut client, job_id).await;
        let began = entries.iter().find(|entry| entry.event == "task_ready").and_then(|entry| entry.at);
        let micros = |at: prost_types::Timestamp| at.seconds * 1_000_000 + i64::from(at.nanos) / 1000;
        assert!(
            began.map(micros) >= Some(micros(*start_at)),
            "{job_id} was to begin at {start_at} and began at {began:?}"
        );
        let counts = counts(&entries);
        for event in ["job_accepted", "task_ready", "task_succeeded", "job_finished"] {
            assert_eq!(counts.get(event), Some(&1), "{event} in the history of {job_id}");
        }
    }
    stop.notify_waiters();
    worker.await.unwrap();
    orchestrator.kill();
}

pub fn request(blueprint: &str, number: u64) -> SubmitJobRequest {
    SubmitJobRequest {
        blueprint: blueprint.into(),
        initial_data: serde_json::to_string(&Params { number }).unwrap(),
        ..Default::default()
    }
}

/// The entries of a job, of which none is missing.
pub async fn history(client: &mut Client, job_id: &str) -> Vec<HistoryEntry> {
    let request = GetJobHistoryRequest { job_id: job_id.to_owned(), ..Default::default() };
    let entries = client.get_job_history(request).await.unwrap().into_inner().entries;
    let sequences: Vec<u64> = entries.iter().map(|entry| entry.sequence).collect();
    assert_eq!(sequences, (0..entries.len() as u64).collect::<Vec<_>>(), "no gaps in {job_id}");
    entries
}

/// How often each thing happened.
pub fn counts(entries: &[HistoryEntry]) -> HashMap<&str, usize> {
    let mut counts = HashMap::new();
    for entry in entries {
        *counts.entry(entry.event.as_str()).or_default() += 1;
    }
    counts
}

impl Journal {
    /// Waits until there have been so many attempts, of all jobs together.
    async fn until_attempts(&self, target: usize) {
        let deadline = Instant::now() + PATIENCE;
        let attempts = || self.runs.lock().unwrap().values().sum::<u32>() as usize;
        while attempts() < target {
            assert!(Instant::now() < deadline, "there were {} of {target} attempts", attempts());
            tokio::task::yield_now().await;
        }
    }

    pub fn runs_of(&self, job_id: &str) -> u32 {
        self.runs.lock().unwrap().get(job_id).copied().unwrap_or(0)
    }
}
