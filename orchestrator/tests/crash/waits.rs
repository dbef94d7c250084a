//! Jobs that stand still, for time, a signal, a human, a child, branches, when the orchestrator is killed at that point: each goes
//! on, and once. What was acknowledged is not lost, and what is repeated because its answer was lost counts once.

use avtomatika_proto::{
    ApiError, ErrorCode,
    v1::{DecideApprovalRequest, GetJobRequest, Job, SignalJobRequest, waiting_for::What},
    wire_error,
};
use tokio::{sync::watch, task::JoinHandle};

use super::*;

/// Jobs that go the whole way.
const JOBS: usize = 12;

/// Branches of each.
const BRANCHES: usize = 3;

const LONG_WAY: &str = "
blueprint: long_way
states:
  pause: { start: true, wait: 200ms, next: listen }
  listen: { event: { name: go, when: \"signal.number == initial_data.number\" }, on: { received: ask } }
  ask: { approval: { message: \"go on with ${initial_data.number}?\" }, on: { approved: nobody_speaks, rejected: refused } }
  nobody_speaks: { event: { name: never, deadline: 100ms }, on: { received: refused, timeout: nobody_decides } }
  nobody_decides: { approval: { message: \"quick?\", deadline: 100ms }, on: { approved: refused, timeout: child } }
  child:
    run: { blueprint: leaf, input: { number: \"${initial_data.number}\" } }
    on: { success: sort, failure: refused }
  sort:
    choice: [ { when: \"size(initial_data.items) > 1 && job.priority == 0\", next: stamp } ]
    else: refused
  stamp: { pass: { stamped: \"${initial_data.number}\" }, next: fan }
  fan:
    map: { over: \"initial_data.items\", max_parallel: 2, task: { type: note, params: { number: \"${item}\" }, timeout: 60s } }
    on: { success: done, failure: refused }
  done: { end: finished, result: { branches: \"${results.size()}\", stamped: \"${state_history.stamped}\" } }
  refused: { end: failed }
";

pub const LEAF: &str = "
blueprint: leaf
states:
  note:
    start: true
    task: { type: note, params: { number: \"${initial_data.number}\" }, timeout: 60s }
    on: { success: done }
  done: { end: finished }
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_stands_still_when_the_orchestrator_is_killed_goes_on_once() {
    stand_still_and_go_on(Run { submitters: 0, slots: 4, resident_mib: 64 }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_stands_still_in_the_store_alone_goes_on_once_too() {
    stand_still_and_go_on(Run { submitters: 0, slots: 4, resident_mib: 0 }).await;
}

/// An orchestrator that is killed and started again at one address.
pub struct Mortal {
    dir: tempfile::TempDir,
    port: u16,
    run: Run,
    process: Child,
}

impl Mortal {
    /// With these blueprints, by the names of their files.
    pub fn serving(blueprints: &[(&str, String)], run: Run) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let directory = dir.path().join("blueprints");
        std::fs::create_dir_all(&directory).unwrap();
        for (name, text) in blueprints {
            std::fs::write(directory.join(format!("{name}.yaml")), text).unwrap();
        }
        let port = free_port();
        let process = start(dir.path(), port, run);
        Self { dir, port, run, process }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    pub fn kill_and_start(&mut self, when: &str) {
        self.kill();
        eprintln!("killed {when}");
        self.process = start(self.dir.path(), self.port, self.run);
    }
}

async fn stand_still_and_go_on(run: Run) {
    let mut orchestrator = Mortal::serving(&[("long_way", LONG_WAY.into()), ("leaf", LEAF.into())], run);
    let url = orchestrator.url();
    let journal = Journal::default();
    let stop = Arc::new(Notify::new());
    let worker = tokio::spawn(work(url.clone(), 0, run.slots, journal.clone(), stop.clone()));

    let ids = submit_all(&url).await;
    orchestrator.kill_and_start("while they wait for a point in time");
    until_all(&url, &ids, JobStatus::WaitingForEvent).await;
    orchestrator.kill_and_start("while they wait for a signal");

    let (told, mut heard) = telling();
    let signals = tokio::spawn(signal_all(url.clone(), ids.clone(), told));
    heard.until(JOBS / 2).await;
    orchestrator.kill_and_start("while signals come");
    signals.await.unwrap();
    until_all(&url, &ids, JobStatus::WaitingForHuman).await;
    orchestrator.kill_and_start("while they wait for a human");

    let (told, mut heard) = telling();
    let decisions = decide_all(&url, &ids, told);
    heard.until(JOBS / 2).await;
    orchestrator.kill_and_start("while humans decide");
    decisions.await.unwrap();
    for share in [JOBS / 2, JOBS + 2, JOBS * 2, JOBS * 3] {
        journal.until(share).await;
        orchestrator.kill_and_start("while children run");
    }
    until_all(&url, &ids, JobStatus::Finished).await;
    check_families(&url, &ids, &journal).await;

    stop.notify_waiters();
    worker.await.unwrap();
    orchestrator.kill();
}

/// Says how many have been answered, to whoever [hears](Heard) it.
pub struct Told(watch::Sender<usize>);

/// How many have been answered.
pub struct Heard(watch::Receiver<usize>);

pub fn telling() -> (Told, Heard) {
    let (told, heard) = watch::channel(0);
    (Told(told), Heard(heard))
}

impl Told {
    pub fn add(&self) {
        self.0.send_modify(|count| *count += 1);
    }
}

impl Heard {
    /// Until so many have been answered, or nobody asks any more: whoever has asked says then why.
    pub async fn until(&mut self, target: usize) {
        let reached = self.0.wait_for(|count| *count >= target);
        let _ = tokio::time::timeout(PATIENCE, reached).await.expect("nobody answers");
    }
}

impl Journal {
    pub async fn until(&self, target: usize) {
        let deadline = Instant::now() + PATIENCE;
        while self.len() < target {
            assert!(Instant::now() < deadline, "the workers have run {} of {target}", self.len());
            tokio::task::yield_now().await;
        }
    }
}

/// Whether the orchestrator has answered, be it with no. Otherwise nobody knows what became of the call.
pub fn code(status: &Status) -> Option<ErrorCode> {
    let answered = status.metadata().contains_key(wire_error::CODE_KEY);
    let code = answered.then(|| ApiError::from_status(status).code)?;
    (!code.is_retryable()).then_some(code)
}

async fn submit_all(url: &str) -> Vec<String> {
    let mut client = connect(url).await;
    let mut ids = Vec::new();
    for number in 0..JOBS {
        let request = SubmitJobRequest {
            blueprint: "long_way".into(),
            initial_data: format!(
                "{{\"number\": {number}, \"items\": {:?}}}",
                (0..BRANCHES).collect::<Vec<_>>()
            ),
            ..Default::default()
        };
        ids.push(client.submit_job(request).await.unwrap().into_inner().job_id);
    }
    ids
}

/// Sends every job its signal, again and again until it is answered. One that nobody waits for comes before each.
async fn signal_all(url: String, ids: Vec<String>, told: Told) {
    let mut client = connect(&url).await;
    for (number, job_id) in ids.into_iter().enumerate() {
        for (number, id) in [(JOBS, "misfit"), (number, "fit")] {
            let (job_id, data) = (job_id.clone(), format!("{{\"number\": {number}}}"));
            let request = SignalJobRequest { job_id, name: "go".into(), id: id.into(), data };
            while let Err(status) = client.signal_job(request.clone()).await {
                assert_eq!(code(&status), None, "{status:?}");
                client = connect(&url).await;
            }
        }
        told.add();
    }
}

/// Decides every job, again and again until it is answered. An answer that was lost reads as decided when it is asked for again.
fn decide_all(url: &str, ids: &[String], told: Told) -> JoinHandle<()> {
    let (url, ids) = (url.to_owned(), ids.to_vec());
    tokio::spawn(async move {
        let mut client = connect(&url).await;
        for job_id in ids {
            let token = loop {
                match client.get_job(GetJobRequest { job_id: job_id.clone() }).await {
                    Ok(job) => break token_of(job.into_inner().job.unwrap()),
                    Err(_) => client = connect(&url).await,
                }
            };
            let decision = "approved".into();
            let request = DecideApprovalRequest { job_id, decision, token, ..Default::default() };
            let mut repeated = false;
            while let Err(status) = client.decide_approval(request.clone()).await {
                if let Some(code) = code(&status) {
                    assert!(repeated && code == ErrorCode::ApprovalNotFound, "{status:?}");
                    break;
                }
                repeated = true;
                client = connect(&url).await;
            }
            told.add();
        }
    })
}

fn token_of(job: Job) -> String {
    match job.waiting_for.unwrap().what {
        Some(What::Approval(approval)) => approval.token,
        other => panic!("it waits for {other:?}"),
    }
}

pub async fn every_job(client: &mut Client) -> Result<Vec<Job>, Status> {
    let (mut jobs, mut cursor) = (Vec::new(), String::new());
    loop {
        let request = ListJobsRequest { page_size: 1000, cursor, ..Default::default() };
        let page = client.list_jobs(request).await?.into_inner();
        jobs.extend(page.jobs);
        cursor = page.next_cursor;
        if cursor.is_empty() {
            return Ok(jobs);
        }
    }
}

pub async fn until_all(url: &str, ids: &[String], status: JobStatus) {
    let deadline = Instant::now() + PATIENCE;
    let mut client = connect(url).await;
    loop {
        let jobs = every_job(&mut client).await.unwrap();
        let standing = jobs.iter().filter(|job| ids.contains(&job.id) && job.status() == status).count();
        if standing == ids.len() {
            return;
        }
        let states: Vec<&str> = jobs.iter().map(|job| job.status().as_str_name()).collect();
        assert!(Instant::now() < deadline, "{standing} of {} jobs are {status:?}: {states:?}", ids.len());
    }
}

async fn check_families(url: &str, ids: &[String], journal: &Journal) {
    let mut client = connect(url).await;
    let jobs = every_job(&mut client).await.unwrap();
    let mut children: HashMap<&str, (usize, usize)> = HashMap::new();
    for job in &jobs {
        assert_eq!(job.status(), JobStatus::Finished, "{job:?}");
        if !job.parent_job_id.is_empty() {
            let (leaves, branches) = children.entry(&job.parent_job_id).or_default();
            *(if job.blueprint_name == "leaf" { leaves } else { branches }) += 1;
            let runs = journal.runs.lock().unwrap().get(&job.id).copied();
            assert_eq!(runs, Some(1), "child {} must have run once", job.id);
        }
    }
    assert_eq!(jobs.len(), JOBS * (2 + BRANCHES), "no child was started twice");
    for (number, job_id) in ids.iter().enumerate() {
        assert_eq!(children.get(job_id.as_str()), Some(&(1, BRANCHES)), "children of {job_id}");
        let request = GetJobHistoryRequest { job_id: job_id.clone(), ..Default::default() };
        let entries = client.get_job_history(request).await.unwrap().into_inner().entries;
        let sequences: Vec<u64> = entries.iter().map(|entry| entry.sequence).collect();
        assert_eq!(sequences, (0..entries.len() as u64).collect::<Vec<_>>(), "no gaps in {job_id}");
        let count = |event: &str| entries.iter().filter(|entry| entry.event == event).count();
        for (event, times) in [
            ("wait_ended", 3),
            ("signal_kept", 1),
            ("signal_received", 1),
            ("approval_requested", 2),
            ("approval_decided", 1),
            ("children_started", 2),
            ("children_ended", 2),
            ("job_finished", 1),
        ] {
            assert_eq!(count(event), times, "{event} in the history of {job_id}");
        }
        let job =
            client.get_job(GetJobRequest { job_id: job_id.clone() }).await.unwrap().into_inner().job.unwrap();
        assert_eq!(job.result, format!("{{\"branches\":{BRANCHES},\"stamped\":{number}}}"));
    }
}
