//! Keys while the orchestrator is killed again and again: as the workers see it, no key is ever in more hands than its limit allows, and
//! by the histories, no bucket gives more than it has. Every job has its turn.

use super::*;

const JOBS: u64 = 120;

const TENANTS: u64 = 5;
const LIMIT_OF_TENANT: u32 = 3;
const LIMIT_OF_NOTE: u32 = 2;

/// A bucket's: so many in a row, and so many more in each second.
const BURST: usize = 8;
const PER_SECOND: usize = 60;

const KEYED: &str = r#"
blueprint: keyed
concurrency: { key: '"tenant:" + string(initial_data.number % 5)', limit: 3 }
states:
  note:
    start: true
    task:
      type: note
      params: { tenant: "${'tenant:' + string(initial_data.number % 5)}", note: "${'note:' + string(initial_data.number % 2)}" }
      timeout: 60s
      concurrency: { key: '"note:" + string(initial_data.number % 2)', limit: 2 }
      rate: { key: "'notes'", limit: 60, per: 1s, burst: 8 }
    on: { success: done }
  done: { end: finished }
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_key_is_exceeded_however_often_the_orchestrator_is_killed() {
    killed_with_keys(Run { submitters: 0, slots: 16, resident_mib: 64 }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_key_is_exceeded_when_all_who_wait_rest_in_the_store() {
    killed_with_keys(Run { submitters: 0, slots: 16, resident_mib: 0 }).await;
}

#[derive(Deserialize)]
struct Keys {
    tenant: String,
    note: String,
}

/// Which keys are in the workers' hands, and how many there were at most.
#[derive(Clone, Default)]
struct Gauge(Arc<Mutex<Counts>>);

#[derive(Default)]
struct Counts {
    now: HashMap<String, u32>,
    most: HashMap<String, u32>,
    runs: HashMap<String, u32>,
}

impl Gauge {
    fn begin(&self, job_id: &str, keys: &Keys) {
        let mut counts = self.0.lock().unwrap();
        *counts.runs.entry(job_id.to_owned()).or_default() += 1;
        for key in [&keys.tenant, &keys.note] {
            let now = counts.now.entry(key.clone()).or_default();
            *now += 1;
            let now = *now;
            let most = counts.most.entry(key.clone()).or_default();
            *most = now.max(*most);
        }
    }

    fn end(&self, keys: &Keys) {
        let mut counts = self.0.lock().unwrap();
        for key in [&keys.tenant, &keys.note] {
            *counts.now.get_mut(key).unwrap() -= 1;
        }
    }

    fn runs(&self) -> usize {
        self.0.lock().unwrap().runs.len()
    }

    async fn until(&self, target: usize) {
        let deadline = Instant::now() + PATIENCE;
        while self.runs() < target {
            assert!(Instant::now() < deadline, "the workers have run {} of {target}", self.runs());
            tokio::task::yield_now().await;
        }
    }
}

async fn killed_with_keys(run: Run) {
    let dir = tempfile::tempdir().unwrap();
    let blueprints = dir.path().join("blueprints");
    std::fs::create_dir_all(&blueprints).unwrap();
    std::fs::write(blueprints.join("keyed.yaml"), KEYED).unwrap();
    let port = free_port();
    let url = format!("http://127.0.0.1:{port}");
    let mut orchestrator = start(dir.path(), port, run);
    let (gauge, stop) = (Gauge::default(), Arc::new(Notify::new()));
    let mut workers = JoinSet::new();
    for number in 0..WORKERS {
        workers.spawn(work_with(url.clone(), number, run.slots, gauge.clone(), stop.clone()));
    }
    let mut client = connect(&url).await;
    for number in 0..JOBS {
        let request = SubmitJobRequest {
            blueprint: "keyed".into(),
            initial_data: serde_json::to_string(&Params { number }).unwrap(),
            ..Default::default()
        };
        client.submit_job(request).await.unwrap();
    }
    for share in [1, 20, 50, 80, 110] {
        gauge.until(share).await;
        orchestrator.kill().unwrap();
        orchestrator.wait().unwrap();
        orchestrator = start(dir.path(), port, run);
    }
    let mut client = connect(&url).await;
    let jobs = until_all_are_terminal(&mut client).await;
    assert_eq!(jobs.len(), JOBS as usize);
    check_gauge(&gauge);
    check_starts(&mut client, &jobs).await;

    stop.notify_waiters();
    while let Some(outcome) = workers.join_next().await {
        outcome.unwrap();
    }
    orchestrator.kill().unwrap();
    orchestrator.wait().unwrap();
}

async fn work_with(url: String, number: usize, slots: u32, gauge: Gauge, stop: Arc<Notify>) {
    let handler = move |keys: Keys, context: TaskContext| {
        let gauge = gauge.clone();
        async move {
            gauge.begin(context.job_id(), &keys);
            tokio::time::sleep(Duration::from_millis(u64::from(context.job_id().as_bytes()[35] % 40))).await;
            gauge.end(&keys);
            Ok::<_, TaskError>(Done {})
        }
    };
    super::run(worker(&url, &format!("gauge-{number}"), slots).handle("note", handler), stop).await;
}

fn check_gauge(gauge: &Gauge) {
    let counts = gauge.0.lock().unwrap();
    assert!(counts.runs.values().all(|runs| *runs == 1), "each ran once: {:?}", counts.runs);
    assert_eq!(counts.most.len(), TENANTS as usize + 2);
    for (key, most) in &counts.most {
        let limit = if key.starts_with("tenant") { LIMIT_OF_TENANT } else { LIMIT_OF_NOTE };
        assert!(*most <= limit, "key {key} was in {most} hands at once");
    }
}

/// Whatever the span, no more attempts became ready in it than the bucket held and those that came meanwhile.
async fn check_starts(client: &mut Client, jobs: &HashMap<String, Found>) {
    let mut starts = Vec::new();
    for job_id in jobs.keys() {
        let request = GetJobHistoryRequest { job_id: job_id.clone(), ..Default::default() };
        let entries = client.get_job_history(request).await.unwrap().into_inner().entries;
        let ready = entries.iter().filter(|entry| entry.event == "task_ready");
        starts.extend(
            ready.map(|entry| entry.at.map(|at| at.seconds as f64 + f64::from(at.nanos) / 1e9).unwrap()),
        );
    }
    starts.sort_by(f64::total_cmp);
    for (first, from) in starts.iter().enumerate() {
        for (count, at) in starts[first..].iter().enumerate() {
            let most = BURST as f64 + (at - from) * PER_SECOND as f64;
            // The last one's own token has come by then; half of one allows for times in microseconds.
            assert!((count + 1) as f64 <= most + 0.5, "{} starts in {:.3} s", count + 1, at - from);
        }
    }
}
