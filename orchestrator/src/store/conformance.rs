//! What every store must do, as tests that any store can be put through.
//!
//! Each case is given a way to open one store, new at first and the same one whenever it is opened again. The
//! expectations are those of the trait's documentation. It refuses to know which store it is.

use std::{collections::BTreeMap, ops::ControlFlow, sync::Arc, time::Duration};

use avtomatika_proto::{JobId, SessionId, TaskId};

use super::{
    Batch, BlueprintRecord, BucketRecord, IdempotencyKey, LIST_BYTES_MAX, LIST_SCAN_MAX, ListQuery, NoticeId,
    NoticeRecord, NoticeStatus, PRUNE_BYTES_MAX, PRUNE_JOBS_MAX, PRUNE_SCAN_MAX, PruneQuery, PruneSlice,
    Removal, Reproach, ScheduleRecord, ScheduledRun, ScheduledSkip, SessionRecord, SkipReason, Store,
    StoreError, Stub, UsageRecord, WorkerRecord, Write,
};
use crate::{
    engine::{
        Attempt, ChildKind, Children, Entropy, HistoryEntry, HistoryEvent, Job, JobError, JobStatus, Notice,
        Parent, RepairKey, Signal, Submission, Wait,
    },
    json::Json,
    time::{Month, Timestamp},
};

/// Opens the store of a case. What it returned before is dropped by then.
pub type Open<'a> = &'a dyn Fn() -> Arc<dyn Store>;

/// One thing that every store must do. Panics when the store does not.
pub type Case = fn(Open<'_>);

/// Every case, by name.
pub const CASES: &[(&str, Case)] = &[
    ("an empty store answers", an_empty_store_answers),
    ("a job is as it was last committed", a_job_is_as_it_was_last_committed),
    ("ids that share a key are told apart", ids_that_share_a_key_are_told_apart),
    ("history is read from any entry on", history_is_read_from_any_entry_on),
    ("open jobs are the unfinished ones", open_jobs_are_the_unfinished_ones),
    ("stubs say what was last committed", stubs_say_what_was_last_committed),
    ("the newest of a family is found", the_newest_of_a_family_is_found),
    ("a job that ended can be opened again", a_job_that_ended_can_be_opened_again),
    ("many jobs are loaded in one go", many_jobs_are_loaded_in_one_go),
    ("idempotency keys belong to their client", idempotency_keys_belong_to_their_client),
    ("a removed job leaves nothing", a_removed_job_leaves_nothing),
    ("what stays between removed jobs stays whole", what_stays_between_removed_jobs_stays_whole),
    ("only jobs that have ended are removed", only_jobs_that_have_ended_are_removed),
    ("jobs may be forgotten by the time of their end", jobs_may_be_forgotten_by_the_time_of_their_end),
    ("a slice to forget is bounded", a_slice_to_forget_is_bounded),
    ("notices stay with their job", notices_stay_with_their_job),
    ("pending notices are found", pending_notices_are_found),
    ("sessions come and go", sessions_come_and_go),
    ("schedules come as far as was last committed", schedules_come_as_far_as_was_last_committed),
    ("buckets are as empty as was last committed", buckets_are_as_empty_as_was_last_committed),
    ("what clients have used is what was last committed", what_clients_have_used_is_what_was_last_committed),
    ("blueprints keep every version", blueprints_keep_every_version),
    ("a batch that cannot be stored leaves nothing", a_batch_that_cannot_be_stored_leaves_nothing),
    ("listing filters", listing_filters),
    ("listing pages meet without gap or overlap", listing_pages_meet),
    ("a page looks at a bounded number of jobs", a_page_looks_at_a_bounded_number_of_jobs),
    ("a page holds a bounded number of bytes", a_page_holds_a_bounded_number_of_bytes),
    ("reads run beside commits and see whole batches", reads_see_whole_batches),
];

/// Makes jobs, each different from the others, the same ones for the same seed.
#[derive(Debug)]
pub struct Samples {
    entropy: Entropy,
    made: u64,
}

/// Kinds of history entries in the samples: a later kind must not change the samples, whose bytes are known.
const EVENTS_SAMPLED: usize = 13;

/// When the first sample was created.
const START_MS: u64 = 1_700_000_000_000;

impl Samples {
    /// The samples of this seed.
    pub fn new(seed: u8) -> Self {
        Self { entropy: Entropy::from_seed([seed; 32]), made: 0 }
    }

    /// How far a schedule has come; further each time.
    pub fn schedule(&mut self, name: &str) -> ScheduleRecord {
        let job = self.job("acme");
        let skip = ScheduledSkip { due_at: job.created_at, reason: SkipReason::Missed };
        ScheduleRecord {
            name: name.into(),
            timing: "daily 03:00 UTC".into(),
            decided: job.created_at,
            last_run: Some(ScheduledRun { due_at: job.created_at, job_id: job.id }),
            last_skip: self.made.is_multiple_of(2).then_some(skip),
        }
    }

    /// A bucket, emptier each time.
    pub fn bucket(&mut self, key: &str) -> BucketRecord {
        self.made += 1;
        BucketRecord {
            key: key.into(),
            per: Duration::from_secs(60),
            full_at: Timestamp::from_micros((1000 + self.made) as i64),
            depth: Duration::from_secs(self.made),
        }
    }

    /// What a client has used.
    pub fn usage(&mut self, client: &str) -> UsageRecord {
        self.made += 1;
        let month = Month::of(Timestamp::from_micros(1_700_000_000_000_000));
        UsageRecord { client: client.into(), month, accepted: self.made }
    }

    /// A notice about this job, as it stands.
    pub fn notice(&mut self, job: &Job) -> NoticeRecord {
        self.made += 1;
        NoticeRecord {
            id: NoticeId { job_id: job.id, sequence: job.history_len },
            client: job.client.clone(),
            url: format!("https://example.com/{}", self.made).into(),
            notice: [Notice::JobEnded, Notice::ApprovalRequested][(self.made % 2) as usize],
            at: job.updated_at,
            job_status: job.status,
            state: job.state.clone(),
            error: job.error.clone(),
            status: NoticeStatus::Pending,
            due_at: job.updated_at + Duration::from_millis(self.made),
            give_up_at: job.updated_at + Duration::from_secs(self.made),
            attempts: self.made as u32,
            tries: self.made as u32 / 2,
            attempted_at: None,
            answer: None,
            problem: Some("no answer".into()),
            revision: 0,
        }
    }

    /// A job that waits for a worker. Each is created a millisecond after the one before.
    pub fn job(&mut self, client: &str) -> Job {
        self.made += 1;
        let unix_ms = START_MS + self.made;
        let created_at = Timestamp::from_micros((unix_ms * 1000 + self.made % 1000) as i64);
        let submission = Submission {
            initial_data: self.json("input"),
            labels: BTreeMap::from([(
                "parity".to_owned(),
                ["even", "odd"][(self.made % 2) as usize].to_owned(),
            )]),
            priority: (self.made % 5) as i32 - 2,
            dispatch_timeout: self.made.is_multiple_of(3).then_some(Duration::new(30, 1)),
            result_timeout: self.made.is_multiple_of(4).then_some(Duration::from_micros(7)),
            start_at: self.made.is_multiple_of(6).then_some(created_at),
            webhook_url: self.made.is_multiple_of(5).then(|| "https://example.com/hook".into()),
            parent: self.made.is_multiple_of(7).then(|| self.parent(unix_ms)),
            trace: None,
        };
        Job {
            id: JobId::compose(unix_ms, 0, self.entropy.next_u64()),
            client: client.into(),
            blueprint: ["resize", "thumbnail"][(self.made / 2 % 2) as usize].into(),
            blueprint_version: 1 + (self.made % 2) as u32,
            submission: Arc::new(submission),
            state: "init".into(),
            status: JobStatus::WaitingForWorker,
            state_history: Json::empty(),
            result: None,
            results: None,
            outcome: None,
            error: None,
            failed_state: None,
            migrated: false,
            checkpoint: None,
            signals: Vec::new(),
            signal_ids: Vec::new(),
            repair_keys: Vec::new(),
            edited_data: None,
            restarted_at: None,
            retry_count: 0,
            transitions: 0,
            workers_lost: 0,
            claim: None,
            task_claim: None,
            attempt: Some(Attempt {
                task_id: self.task_id(),
                task_type: "process_data".into(),
                needs: None,
                number: 1,
                ready_at: created_at,
            }),
            wait: None,
            resumes_at: None,
            settled_task: None,
            history_len: 2,
            created_at,
            updated_at: created_at,
            finished_at: None,
        }
    }

    /// The job after some work, in this status.
    pub fn moved(&mut self, job: &Job, status: JobStatus) -> Job {
        let now = job.updated_at + Duration::from_millis(5);
        Job {
            status,
            state: "later".into(),
            state_history: self.json("gathered"),
            result: Some(self.json("result")),
            error: Some(JobError { code: "TRANSIENT_ERROR".into(), message: "потом \u{0}".into() }),
            retry_count: job.retry_count + 1,
            transitions: job.transitions + 1,
            workers_lost: 2,
            settled_task: job.attempt.as_ref().map(|attempt| attempt.task_id),
            attempt: None,
            results: Some(r#"[{"outcome":"success"}]"#.into()),
            outcome: Some("success".into()),
            failed_state: Some("init".into()),
            migrated: true,
            checkpoint: Some(Json::from_stored(r#"{"page":7}"#)),
            signals: vec![signal(now)],
            signal_ids: vec!["one".into(), "".into()],
            repair_keys: vec![RepairKey { id: "mend-1".into(), fingerprint: u64::MAX }],
            edited_data: Some(Json::from_stored(r#"{"input":"edited"}"#)),
            restarted_at: Some(now),
            wait: self.wait(job, status, now),
            resumes_at: (status == JobStatus::WaitingForTimer).then_some(now + Duration::from_secs(1)),
            history_len: job.history_len + 1,
            updated_at: now,
            finished_at: status.is_terminal().then_some(now),
            ..job.clone()
        }
    }

    fn parent(&mut self, unix_ms: u64) -> Parent {
        let kinds = [ChildKind::Branch, ChildKind::Run, ChildKind::Detached];
        Parent {
            job_id: JobId::compose(unix_ms - 1, 7, self.entropy.next_u64()),
            index: self.made as u32,
            depth: 3,
            kind: kinds[(self.made % 3) as usize],
            claim: None,
            slots: Vec::new(),
        }
    }

    /// What a job of this status waits for.
    fn wait(&mut self, job: &Job, status: JobStatus, since: Timestamp) -> Option<Wait> {
        match status {
            JobStatus::WaitingForTimer => Some(Wait::Timer),
            JobStatus::WaitingForEvent => Some(Wait::Signal { name: "payment".into(), since }),
            JobStatus::WaitingForHuman => {
                Some(Wait::Approval {
                    token: "0123456789abcdef".into(), message: Some("Да?".into()), since
                })
            }
            JobStatus::WaitingForParallel | JobStatus::WaitingForChild => {
                Some(Wait::Children(Children { first: job.id.sibling(1), total: 3, since }))
            }
            _ => None,
        }
    }

    /// Entries of the job's history with these sequence numbers.
    pub fn entries(&mut self, job: &Job, sequences: std::ops::Range<u64>) -> Vec<HistoryEntry> {
        sequences
            .map(|sequence| HistoryEntry {
                sequence,
                at: job.updated_at,
                event: HistoryEvent::ALL[sequence as usize % EVENTS_SAMPLED],
                state: job.state.clone(),
                from_state: sequence.is_multiple_of(2).then(|| "before".into()),
                outcome: sequence.is_multiple_of(3).then(|| "success".into()),
                task_id: (sequence % 2 == 1).then(|| self.task_id()),
                attempt: (sequence % 2 == 1).then_some(1),
                worker_id: sequence.is_multiple_of(5).then(|| "w-1".into()),
                error: job.error.clone(),
                duration: (sequence % 2 == 1).then_some(Duration::new(1, 999)),
                by: sequence.is_multiple_of(4).then(|| "anna".into()),
                detail: sequence.is_multiple_of(3).then(|| "because".into()),
            })
            .collect()
    }

    /// The write that inserts the job with two entries of history.
    pub fn insert(&mut self, job: &Job) -> Write {
        let entries = self.entries(job, 0..2);
        Write::InsertJob { job: Arc::new(job.clone()), entries, idempotency: None }
    }

    /// The write that inserts the job with two entries of history, submitted under this key.
    pub fn insert_as(&mut self, job: &Job, key: &str) -> Write {
        let idempotency =
            IdempotencyKey { client: job.client.clone(), key: key.into(), fingerprint: [7; 32] };
        let entries = self.entries(job, 0..2);
        Write::InsertJob { job: Arc::new(job.clone()), entries, idempotency: Some(idempotency) }
    }

    /// The write that updates the job, with one entry of history.
    pub fn update(&mut self, job: &Job) -> Write {
        let entries = self.entries(job, job.history_len - 1..job.history_len);
        Write::UpdateJob { job: Arc::new(job.clone()), entries }
    }

    /// A session that was opened this long after the first sample.
    pub fn session(&mut self, opened_after: Duration) -> SessionRecord {
        let worker = WorkerRecord {
            worker_id: "w-1".into(),
            worker_type: "gpu".into(),
            task_types: vec!["process_data".into(), "resize".into()],
            slots: 8,
            labels: BTreeMap::from([("zone".to_owned(), "a".to_owned())]),
            resources: BTreeMap::from([("vram_gb".to_owned(), 23.5)]),
            hostname: "host".into(),
            sdk_version: "0.1.0".into(),
            ..WorkerRecord::default()
        };
        SessionRecord {
            session_id: SessionId::from_random(self.entropy.next_u128()),
            worker: Arc::new(worker),
            credential: [3; 32],
            opened_at: Timestamp::from_micros((START_MS * 1000) as i64) + opened_after,
            reproach: None,
        }
    }

    fn task_id(&mut self) -> TaskId {
        TaskId::from_random(self.entropy.next_u128())
    }

    fn json(&mut self, name: &str) -> Json {
        Json::from_stored(&format!("{{ \"{name}\": {} }}", self.entropy.next_u64()))
    }
}

fn signal(at: Timestamp) -> Signal {
    let data = Json::from_stored(r#"{"amount":3}"#);
    Signal { name: "payment".into(), id: Some("evt-1".into()), data, at }
}

/// What the store answered, or the end of the test.
fn ok<T>(answer: Result<T, StoreError>) -> T {
    match answer {
        Ok(value) => value,
        Err(error) => panic!("the store answered: {error}"),
    }
}

fn commit(store: &dyn Store, writes: impl IntoIterator<Item = Write>) {
    ok(store.commit(&Batch { writes: writes.into_iter().collect() }));
}

/// Everything that a store can be asked about these jobs and this client. Two stores with the same content
/// give the same.
pub fn everything(store: &dyn Store, jobs: &[JobId], clients: &[&str]) -> String {
    let open = stubs(store);
    let loaded: Vec<_> = jobs.iter().map(|&id| ok(store.load(id))).collect();
    let histories: Vec<_> = jobs.iter().map(|&id| ok(store.history(id, 0, usize::MAX))).collect();
    let lists: Vec<_> = clients.iter().map(|client| ok(store.list(&of_client(client)))).collect();
    let (sessions, blueprints) = (ok(store.sessions()), ok(store.blueprints()));
    let (schedules, last) = (ok(store.schedules()), ok(store.last_job_key()));
    let usage = ok(store.usage());
    let notices: Vec<_> = jobs.iter().map(|&id| ok(store.notices(id))).collect();
    format!(
        "{notices:#?}\n{open:#?}\n{loaded:#?}\n{histories:#?}\n{lists:#?}\n{sessions:#?}\n{blueprints:#?}\n{schedules:#?}\n{usage:#?}\n{last:?}"
    )
}

fn of_client(client: &str) -> ListQuery {
    ListQuery { client: client.into(), limit: 1000, ..ListQuery::default() }
}

fn stubs(store: &dyn Store) -> Vec<Stub> {
    let mut stubs = Vec::new();
    ok(store.open_jobs(&mut |stub| stubs.push(stub)));
    stubs
}

fn open_ids(store: &dyn Store) -> Vec<JobId> {
    stubs(store).into_iter().map(|stub| stub.id).collect()
}

fn listed(store: &dyn Store, query: &ListQuery) -> Vec<JobId> {
    ok(store.list(query)).jobs.iter().map(|job| job.id).collect()
}

fn the_newest_of_a_family_is_found(open: Open<'_>) {
    let mut samples = Samples::new(11);
    let store = open();
    let parent = samples.job("acme");
    commit(&*store, [samples.insert(&parent)]);
    let first = parent.id.sibling(10);
    let keys = first.key()..first.key() + 4;
    assert_eq!(ok(store.last_key_between(keys.clone())), None);
    // A later job does not keep earlier keys from being used.
    let later = samples.job("acme");
    commit(&*store, [samples.insert(&later)]);
    for index in 0..2 {
        let child = Job { id: first.sibling(index), ..samples.job("acme") };
        commit(&*store, [samples.insert(&child)]);
        assert_eq!(ok(store.load(child.id)), Some(child.clone()));
        assert_eq!(ok(store.last_key_between(keys.clone())), Some(child.id.key()));
    }
    drop(store);
    assert_eq!(ok(open().last_key_between(keys.clone())), Some(first.sibling(1).key()));
    assert_eq!(ok(open().last_key_between(keys.end..keys.end + 1)), None);
}

fn a_job_that_ended_can_be_opened_again(open: Open<'_>) {
    let mut samples = Samples::new(12);
    let store = open();
    let job = samples.job("acme");
    let ended = samples.moved(&job, JobStatus::Failed);
    let again = samples.moved(&ended, JobStatus::WaitingForHuman);
    commit(&*store, [samples.insert(&job)]);
    commit(&*store, [samples.update(&ended)]);
    assert_eq!(open_ids(&*store), []);
    commit(&*store, [samples.update(&again)]);
    assert_eq!(open_ids(&*store), [job.id]);
    drop(store);
    let store = open();
    assert_eq!(open_ids(&*store), [job.id]);
    assert_eq!(ok(store.load(job.id)), Some(again));
}

fn an_empty_store_answers(open: Open<'_>) {
    let store = open();
    let id = Samples::new(1).job("acme").id;
    assert_eq!(ok(store.load(id)), None);
    assert_eq!(open_ids(&*store), []);
    assert_eq!(ok(store.last_job_key()), None);
    assert_eq!(listed(&*store, &of_client("acme")), []);
    assert_eq!(ok(store.history(id, 0, 10)), []);
    assert_eq!(ok(store.find_idempotent("acme", "k")), None);
    assert_eq!(ok(store.sessions()), []);
    assert_eq!(ok(store.blueprints()), []);
    commit(&*store, []);
}

fn a_job_is_as_it_was_last_committed(open: Open<'_>) {
    let mut samples = Samples::new(2);
    let jobs: Vec<Job> = (0..20).map(|_| samples.job("acme")).collect();
    let store = open();
    commit(&*store, jobs.iter().map(|job| samples.insert(job)));
    for job in &jobs {
        assert_eq!(ok(store.load(job.id)).as_ref(), Some(job));
    }
    let moved: Vec<Job> = jobs
        .iter()
        .zip(JobStatus::ALL.iter().cycle())
        .map(|(job, &status)| samples.moved(job, status))
        .collect();
    commit(&*store, moved.iter().map(|job| samples.update(job)));
    // Inserted and updated at once.
    let late = samples.job("acme");
    let late_moved = samples.moved(&late, JobStatus::Finished);
    let writes = [samples.insert(&late), samples.update(&late_moved)];
    commit(&*store, writes);
    drop(store);
    let store = open();
    for job in moved.iter().chain([&late_moved]) {
        assert_eq!(ok(store.load(job.id)).as_ref(), Some(job));
    }
    assert_eq!(ok(store.last_job_key()), Some(late.id.key()));
}

fn ids_that_share_a_key_are_told_apart(open: Open<'_>) {
    let mut samples = Samples::new(3);
    let job = samples.job("acme");
    let stranger = JobId::compose(START_MS + 1, 0, 0);
    assert_eq!(stranger.key(), job.id.key());
    let store = open();
    commit(&*store, [samples.insert(&job)]);
    assert_eq!(ok(store.load(stranger)), None);
    assert_eq!(ok(store.history(stranger, 0, 10)), []);
    let imposter = Job { id: stranger, ..samples.moved(&job, JobStatus::Finished) };
    let update = samples.update(&imposter);
    assert!(matches!(store.commit(&Batch { writes: vec![update] }), Err(StoreError::Failed { .. })));
    assert_eq!(ok(store.load(job.id)), Some(job));
}

fn history_is_read_from_any_entry_on(open: Open<'_>) {
    let mut samples = Samples::new(4);
    let (job, other) = (samples.job("acme"), samples.job("acme"));
    let entries = samples.entries(&job, 0..10);
    let store = open();
    let job = Arc::new(job);
    let first = Write::InsertJob { job: job.clone(), entries: entries[..3].to_vec(), idempotency: None };
    commit(&*store, [first, samples.insert(&other)]);
    for part in [3..4, 4..4, 4..9, 9..10] {
        commit(&*store, [Write::UpdateJob { job: job.clone(), entries: entries[part].to_vec() }]);
    }
    drop(store);
    let store = open();
    for from in 0..=11 {
        for limit in [0, 1, 2, 5, 100] {
            let expected: Vec<_> = entries.iter().skip(from).take(limit).cloned().collect();
            assert_eq!(ok(store.history(job.id, from as u64, limit)), expected, "{limit} from {from}");
        }
    }
    assert_eq!(ok(store.history(job.id, u64::MAX, 1)), []);
    assert_eq!(ok(store.history(other.id, 0, 100)).len(), 2);
}

fn open_jobs_are_the_unfinished_ones(open: Open<'_>) {
    let mut samples = Samples::new(5);
    let store = open();
    let mut expected = Vec::new();
    for &status in JobStatus::ALL {
        let before = samples.job("acme");
        let after = samples.moved(&before, status);
        let writes = [samples.insert(&before), samples.update(&after)];
        commit(&*store, writes);
        if !status.is_terminal() {
            expected.push(after.id);
        }
    }
    assert_eq!(open_ids(&*store), expected, "oldest first");

    // A finished job may be opened again.
    let finished = &listed(&*store, &ListQuery { statuses: vec![JobStatus::Finished], ..of_client("acme") });
    let finished = ok(store.load(finished[0])).expect("it was listed");
    let reopened = samples.moved(&finished, JobStatus::WaitingForWorker);
    commit(&*store, [samples.update(&reopened)]);
    drop(store);
    assert!(open_ids(&*open()).contains(&finished.id));
}

fn stubs_say_what_was_last_committed(open: Open<'_>) {
    let mut samples = Samples::new(14);
    let store = open();
    let mut jobs: Vec<Job> = (0..24).map(|_| samples.job("acme")).collect();
    let inserted: Vec<_> = jobs.iter().map(|job| samples.insert(job)).collect();
    commit(&*store, inserted);
    let expected = |jobs: &[Job]| jobs.iter().filter_map(Stub::of).collect::<Vec<_>>();
    assert_eq!(stubs(&*store), expected(&jobs));
    // Some move once, some several times within a batch, some end, and one of those is opened again.
    for round in 2..5 {
        let mut writes = Vec::new();
        for (number, job) in jobs.iter_mut().enumerate().filter(|(number, _)| number % round == 0) {
            *job = samples.moved(job, JobStatus::ALL[number % JobStatus::ALL.len()]);
            writes.push(samples.update(job));
        }
        commit(&*store, writes);
        assert_eq!(stubs(&*store), expected(&jobs));
    }
    let again = Attempt {
        task_id: samples.task_id(),
        task_type: "again".into(),
        needs: Some(r#"{"strategy":"cheapest"}"#.into()),
        number: 2,
        ready_at: jobs[0].updated_at,
    };
    let reopened = samples.moved(&jobs[0], JobStatus::Finished);
    let end = samples.update(&reopened);
    jobs[0] = Job { attempt: Some(again), ..samples.moved(&reopened, JobStatus::WaitingForWorker) };
    let reopening = samples.update(&jobs[0]);
    commit(&*store, [end, reopening]);
    drop(store);
    assert_eq!(stubs(&*open()), expected(&jobs));
}

fn many_jobs_are_loaded_in_one_go(open: Open<'_>) {
    let mut samples = Samples::new(15);
    let store = open();
    let jobs: Vec<Job> = (0..10).map(|_| samples.job("acme")).collect();
    commit(&*store, jobs.iter().map(|job| samples.insert(job)));
    let stranger = JobId::compose(START_MS + 1, 0, 0);
    let wanted = [jobs[3].id, stranger, jobs[1].id, samples.job("acme").id, jobs[1].id];
    let mut found = Vec::new();
    ok(store.load_many(&wanted, &mut |id, job| {
        found.push((id, job));
        ControlFlow::Continue(())
    }));
    let expected = [Some(&jobs[3]), None, Some(&jobs[1]), None, Some(&jobs[1])].map(Option::<&Job>::cloned);
    assert_eq!(found, wanted.into_iter().zip(expected).collect::<Vec<_>>());
    let mut calls = 0;
    ok(store.load_many(&wanted, &mut |_, _| {
        calls += 1;
        if calls == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }));
    assert_eq!(calls, 2);
    // Nothing is left open that would keep later commits from being seen.
    let moved = samples.moved(&jobs[3], JobStatus::Finished);
    commit(&*store, [samples.update(&moved)]);
    assert_eq!(ok(store.load(jobs[3].id)), Some(moved));
}

fn idempotency_keys_belong_to_their_client(open: Open<'_>) {
    let mut samples = Samples::new(6);
    let store = open();
    let mut insert_with_key = |client: &str, fingerprint: u8| {
        let job = samples.job(client);
        let key =
            IdempotencyKey { client: client.into(), key: "order-7".into(), fingerprint: [fingerprint; 32] };
        let write = Write::InsertJob {
            job: Arc::new(job.clone()),
            entries: samples.entries(&job, 0..2),
            idempotency: Some(key),
        };
        (job.id, write)
    };
    let (acme, first) = insert_with_key("acme", 1);
    let (umbrella, second) = insert_with_key("umbrella", 2);
    commit(&*store, [first, second]);
    let (again, third) = insert_with_key("acme", 3);
    assert!(matches!(store.commit(&Batch { writes: vec![third] }), Err(StoreError::Failed { .. })));
    assert_eq!(ok(store.load(again)), None);
    drop(store);
    let store = open();
    assert_eq!(ok(store.find_idempotent("acme", "order-7")), Some((acme, [1; 32])));
    assert_eq!(ok(store.find_idempotent("umbrella", "order-7")), Some((umbrella, [2; 32])));
    assert_eq!(ok(store.find_idempotent("acme", "order-8")), None);
}

fn removal(job: &Job, key: Option<&str>) -> Removal {
    Removal { job_id: job.id, idempotency: key.map(|key| (job.client.clone(), key.into())) }
}

fn a_removed_job_leaves_nothing(open: Open<'_>) {
    let mut samples = Samples::new(14);
    let store = open();
    let (ended, keyed, other) = (samples.job("acme"), samples.job("acme"), samples.job("acme"));
    let moved = [&ended, &keyed].map(|job| samples.moved(job, JobStatus::Finished));
    let inserts =
        [samples.insert(&ended), samples.insert_as(&keyed, "order-7"), samples.insert_as(&other, "order-8")];
    commit(&*store, inserts);
    assert_eq!(ok(store.ended_total()), 0);
    commit(&*store, moved.iter().map(|job| samples.update(job)));
    assert_eq!(ok(store.ended_total()), 2);
    let both = [removal(&ended, None), removal(&keyed, Some("order-7"))];
    // Twice, as after a restart in between.
    commit(&*store, both.iter().cloned().map(Write::RemoveJob));
    commit(&*store, both.iter().cloned().map(Write::RemoveJob));
    drop(store);
    let store = open();
    assert_eq!(ok(store.ended_total()), 0);
    for job in [&ended, &keyed] {
        assert_eq!(ok(store.load(job.id)), None);
        assert_eq!(ok(store.history(job.id, 0, 10)), []);
    }
    assert_eq!(ok(store.find_idempotent("acme", "order-7")), None);
    assert_eq!(listed(&*store, &of_client("acme")), [other.id]);
    assert_eq!(ok(store.load(other.id)).as_ref(), Some(&other));
    assert_eq!(ok(store.find_idempotent("acme", "order-8")), Some((other.id, [7; 32])));
    assert_eq!(ok(store.last_job_key()), Some(other.id.key()));
    // The key is free, and so is the place.
    let again = Job { id: JobId::compose(START_MS + 1, 0, 0), ..samples.job("acme") };
    assert_eq!(again.id.key(), ended.id.key());
    let insert = samples.insert_as(&again, "order-7");
    commit(&*store, [insert]);
    assert_eq!(ok(store.find_idempotent("acme", "order-7")), Some((again.id, [7; 32])));
    assert_eq!(ok(store.history(again.id, 0, 10)).len(), 2);
}

fn what_stays_between_removed_jobs_stays_whole(open: Open<'_>) {
    let mut samples = Samples::new(22);
    let store = open();
    let jobs: Vec<Job> = (0..6).map(|_| samples.job("acme")).collect();
    let standing = |n| [JobStatus::Finished, JobStatus::WaitingForTimer][usize::from(n == 4)];
    let moved = |(n, job)| samples.moved(job, standing(n));
    let ended: Vec<Job> = jobs.iter().enumerate().map(moved).collect();
    let notices: Vec<NoticeRecord> = ended.iter().map(|job| samples.notice(job)).collect();
    for ((job, moved), notice) in jobs.iter().zip(&ended).zip(&notices) {
        let writes = [samples.insert(job), samples.update(moved), put(notice)];
        commit(&*store, writes);
    }
    drop(store);
    let store = open();
    // One that nobody asked to remove, one that is open, and one that is not there although another job has its key.
    let unknown = Job { id: JobId::of_key(jobs[2].id.key(), 1), ..ended[2].clone() };
    let asked = [&ended[0], &ended[1], &unknown, &ended[3], &ended[4], &ended[5]];
    commit(&*store, asked.map(|job| Write::RemoveJob(removal(job, None))));
    drop(store);
    let store = open();
    for job in [0, 1, 3, 5].map(|gone: usize| &ended[gone]) {
        assert_eq!((ok(store.load(job.id)), ok(store.history(job.id, 0, 10))), (None, Vec::new()));
        assert_eq!(ok(store.notices(job.id)), []);
    }
    for (job, notice) in [2, 4].map(|stays: usize| (&ended[stays], &notices[stays])) {
        assert_eq!(ok(store.load(job.id)).as_ref(), Some(job));
        assert_eq!(ok(store.history(job.id, 0, 10)).len(), 3);
        assert_eq!(ok(store.notices(job.id)), std::slice::from_ref(notice));
    }
}

fn notices_stay_with_their_job(open: Open<'_>) {
    let mut samples = Samples::new(18);
    let store = open();
    let (job, other, unknown) = (samples.job("acme"), samples.job("acme"), samples.job("acme"));
    let ended = samples.moved(&job, JobStatus::Finished);
    let (asked, told) = (samples.notice(&job), samples.notice(&ended));
    let writes = [samples.insert(&job), put(&asked), samples.update(&ended), put(&told)];
    commit(&*store, writes);
    commit(&*store, [samples.insert(&other), put(&samples.notice(&unknown))]);
    assert_eq!(ok(store.notices(job.id)), [asked.clone(), told.clone()]);
    assert_eq!(ok(store.notices(other.id)), []);
    assert_eq!(ok(store.notices(unknown.id)), [], "nothing is kept of a job that is not there");
    let twin = JobId::of_key(job.id.key(), 1);
    assert_eq!(ok(store.notices(twin)), [], "an id that shares the key");

    let delivered = NoticeRecord {
        status: NoticeStatus::Delivered,
        attempts: 1,
        revision: 1,
        answer: Some(204),
        problem: None,
        ..told
    };
    commit(&*store, [put(&delivered)]);
    drop(store);
    let store = open();
    assert_eq!(ok(store.notices(job.id)), [asked.clone(), delivered]);
    commit(&*store, [Write::RemoveJob(removal(&ended, None))]);
    assert_eq!(ok(store.notices(job.id)), []);
    // Whoever settles it now comes too late.
    commit(&*store, [put(&asked)]);
    drop(store);
    assert_eq!(ok(open().notices(job.id)), []);
}

fn pending_notices_are_found(open: Open<'_>) {
    let mut samples = Samples::new(19);
    let store = open();
    let jobs: Vec<Job> = (0..3).map(|_| samples.job("acme")).collect();
    let mut notices: Vec<NoticeRecord> = jobs.iter().map(|job| samples.notice(job)).collect();
    commit(&*store, jobs.iter().map(|job| samples.insert(job)).collect::<Vec<_>>());
    commit(&*store, notices.iter().map(put));
    assert_eq!(pending(&*store), [notices[0].id, notices[1].id, notices[2].id]);
    notices[0].status = NoticeStatus::Delivered;
    notices[1].status = NoticeStatus::Failed;
    commit(&*store, notices.iter().map(put));
    drop(store);
    let store = open();
    assert_eq!(pending(&*store), [notices[2].id]);
    // By command.
    (notices[1].status, notices[1].revision) = (NoticeStatus::Pending, 1);
    commit(&*store, [put(&notices[1])]);
    assert_eq!(pending(&*store), [notices[1].id, notices[2].id]);
    let ended = samples.moved(&jobs[2], JobStatus::Finished);
    let write = samples.update(&ended);
    commit(&*store, [write, Write::RemoveJob(removal(&ended, None))]);
    assert_eq!(pending(&*store), [notices[1].id]);
}

fn put(notice: &NoticeRecord) -> Write {
    Write::PutNotice(Arc::new(notice.clone()))
}

fn pending(store: &dyn Store) -> Vec<NoticeId> {
    let mut pending = Vec::new();
    ok(store.pending_notices(&mut |notice| {
        assert_eq!(notice.status, NoticeStatus::Pending);
        pending.push(notice.id);
    }));
    pending.sort();
    pending
}

fn only_jobs_that_have_ended_are_removed(open: Open<'_>) {
    let mut samples = Samples::new(15);
    let store = open();
    for &status in JobStatus::ALL {
        let job = samples.job("acme");
        let moved = samples.moved(&job, status);
        let writes = [samples.insert(&job), samples.update(&moved)];
        commit(&*store, writes);
        let stranger = Removal { job_id: JobId::compose(job.id.key() as u64 >> 12, 0, 0), idempotency: None };
        commit(&*store, [Write::RemoveJob(stranger)]);
        assert_eq!(ok(store.load(job.id)).as_ref(), Some(&moved), "another job has this key");
        commit(&*store, [Write::RemoveJob(removal(&job, None))]);
        let (kept, history) = (ok(store.load(job.id)), ok(store.history(job.id, 0, 10)));
        assert_eq!(kept.is_some(), !status.is_terminal(), "{status}");
        assert_eq!(history.len(), if status.is_terminal() { 0 } else { 3 }, "{status}");
    }

    // Ended, removed and inserted within one batch; and a batch that fails removes nothing.
    let job = samples.job("acme");
    let ended = samples.moved(&job, JobStatus::Failed);
    let one = || Write::RemoveJob(removal(&job, Some("once")));
    let insert = samples.insert_as(&job, "once");
    let writes = [insert.clone(), samples.update(&ended), one(), insert, samples.update(&ended)];
    commit(&*store, writes);
    let unknown = samples.job("acme");
    let impossible = samples.update(&unknown);
    assert!(matches!(
        store.commit(&Batch { writes: vec![one(), impossible] }),
        Err(StoreError::Failed { .. })
    ));
    assert_eq!(ok(store.load(job.id)).as_ref(), Some(&ended));
    assert_eq!(ok(store.history(job.id, 0, 10)).len(), 3);
    let too_late = samples.update(&ended);
    assert!(matches!(store.commit(&Batch { writes: vec![one(), too_late] }), Err(StoreError::Failed { .. })));
    assert_eq!(ok(store.find_idempotent("acme", "once")), Some((job.id, [7; 32])));
}

fn from_the_oldest(ended_by: Timestamp) -> PruneQuery {
    PruneQuery { above_key: PruneQuery::FROM_THE_OLDEST, ended_by, limit: usize::MAX }
}

fn jobs_may_be_forgotten_by_the_time_of_their_end(open: Open<'_>) {
    let mut samples = Samples::new(16);
    let store = open();
    let mut jobs = Vec::new();
    for (n, &status) in JobStatus::ALL.iter().enumerate().flat_map(|one| [one, one]) {
        let job = samples.job(["acme", "umbrella"][n % 2]);
        let key = (n % 3 == 0).then(|| format!("order-{}", jobs.len()));
        let insert = key.as_ref().map(|key| samples.insert_as(&job, key));
        let insert = insert.unwrap_or_else(|| samples.insert(&job));
        let moved = samples.moved(&job, status);
        let update = samples.update(&moved);
        commit(&*store, [insert, update]);
        jobs.push((moved, key));
    }
    drop(store);
    let store = open();
    let mut ends: Vec<Timestamp> = jobs.iter().filter_map(|(job, _)| job.finished_at).collect();
    ends.extend([jobs[0].0.created_at, Timestamp::from_micros(i64::MAX), Timestamp::from_micros(-5)]);
    for ended_by in ends.into_iter().flat_map(|end| [end, end - Duration::from_micros(1)]) {
        let expected: Vec<Removal> = jobs
            .iter()
            .filter(|(job, _)| job.finished_at.is_some_and(|at| at <= ended_by))
            .map(|(job, key)| removal(job, key.as_deref()))
            .collect();
        let slice = ok(store.prunable(&from_the_oldest(ended_by)));
        assert_eq!((&slice.removals, slice.next_above_key), (&expected, None), "{ended_by}");
        let Some(middle) = expected.get(expected.len() / 2) else { continue };
        let above_key = middle.job_id.key();
        let slice = ok(store.prunable(&PruneQuery { above_key, ..from_the_oldest(ended_by) }));
        assert_eq!(slice.removals, expected[expected.len() / 2 + 1..], "{ended_by}");
    }
    let slice = ok(store.prunable(&from_the_oldest(jobs[3].0.created_at)));
    assert_eq!(slice.looked_at, 4, "a job that was created later cannot have ended before");
    let beyond = PruneQuery { above_key: i64::MAX, ..from_the_oldest(Timestamp::from_micros(i64::MAX)) };
    assert_eq!(ok(store.prunable(&beyond)), PruneSlice::default());
}

/// Every slice of what has ended, whenever that was.
fn slices(store: &dyn Store, limit: usize) -> Vec<PruneSlice> {
    let mut query = PruneQuery { limit, ..from_the_oldest(Timestamp::from_micros(i64::MAX)) };
    let mut slices = Vec::new();
    loop {
        let slice = ok(store.prunable(&query));
        slices.push(slice.clone());
        let Some(next) = slice.next_above_key else { return slices };
        assert!(next > query.above_key, "every slice must come nearer to the end");
        query.above_key = next;
    }
}

fn a_slice_to_forget_is_bounded(open: Open<'_>) {
    let mut samples = Samples::new(17);
    let store = open();
    let open_for_long: Vec<Job> = (0..PRUNE_SCAN_MAX + 1).map(|_| samples.job("acme")).collect();
    commit(&*store, open_for_long.iter().map(|job| samples.insert(job)));
    let large = Json::from_stored(&format!("{{\"a\":\"{}\"}}", "x".repeat(PRUNE_BYTES_MAX)));
    let (mut ended, mut writes) = (Vec::new(), Vec::new());
    for n in 0..PRUNE_JOBS_MAX + 2 {
        let job = samples.job("acme");
        let mut moved = samples.moved(&job, JobStatus::Finished);
        if n == 0 {
            moved.state_history = large.clone();
        }
        writes.extend([samples.insert(&job), samples.update(&moved)]);
        ended.push(moved);
    }
    commit(&*store, writes);
    let found = slices(&*store, usize::MAX);
    let sizes: Vec<_> = found.iter().map(|slice| (slice.looked_at, slice.removals.len())).collect();
    assert_eq!(sizes, [(PRUNE_SCAN_MAX, 0), (2, 1), (PRUNE_JOBS_MAX, PRUNE_JOBS_MAX), (1, 1)]);
    let expected: Vec<Removal> = ended.iter().map(|job| removal(job, None)).collect();
    let together = |slices: &[PruneSlice]| -> Vec<Removal> {
        slices.iter().flat_map(|slice| slice.removals.clone()).collect()
    };
    assert_eq!(together(&found), expected);
    let found = slices(&*store, 100);
    assert!(found.iter().all(|slice| slice.removals.len() <= 100));
    assert_eq!(together(&found), expected);
}

fn sessions_come_and_go(open: Open<'_>) {
    let mut samples = Samples::new(7);
    let late = samples.session(Duration::from_secs(2));
    let early = samples.session(Duration::from_secs(1));
    let gone = samples.session(Duration::ZERO);
    let store = open();
    // The first commit of all changes nothing.
    commit(&*store, [Write::RemoveSession(gone.session_id)]);
    commit(&*store, [&late, &gone, &early].map(|session| Write::PutSession(session.clone())));
    commit(&*store, [Write::RemoveSession(gone.session_id)]);
    commit(&*store, [Write::RemoveSession(gone.session_id)]);
    drop(store);
    let store = open();
    assert_eq!(ok(store.sessions()), [early, late.clone()]);
    let reproach = Reproach {
        reputation: 0.3,
        at: Timestamp::from_micros(2),
        aside_until: Some(Timestamp::from_micros(3)),
        times_aside: 4,
    };
    let replaced =
        SessionRecord { opened_at: Timestamp::from_micros(1), reproach: Some(reproach), ..late.clone() };
    commit(&*store, [Write::PutSession(replaced.clone())]);
    assert_eq!(ok(store.sessions()).first(), Some(&replaced));
}

fn schedules_come_as_far_as_was_last_committed(open: Open<'_>) {
    let mut samples = Samples::new(11);
    let store = open();
    let (daily, gone) = (samples.schedule("daily"), samples.schedule("gone"));
    commit(&*store, [Write::RemoveSchedule("gone".into())]);
    commit(&*store, [&gone, &daily].map(|schedule| Write::PutSchedule(schedule.clone())));
    assert_eq!(ok(store.schedules()), [daily, gone]);
    // With the job that was made, in one batch; the last word counts.
    let job = samples.job("acme");
    let (between, further) = (samples.schedule("daily"), samples.schedule("daily"));
    let puts = [between, further.clone()].map(Write::PutSchedule);
    commit(&*store, [samples.insert(&job)].into_iter().chain(puts));
    commit(&*store, [Write::RemoveSchedule("gone".into())]);
    let further = [further];
    assert_eq!(ok(store.schedules()), further);
    let refused = Batch { writes: vec![Write::PutSchedule(samples.schedule("daily")), samples.insert(&job)] };
    assert!(matches!(store.commit(&refused), Err(StoreError::Failed { .. })));
    assert_eq!(ok(store.schedules()), further, "nothing of a batch that cannot be stored");
    drop(store);
    let store = open();
    assert_eq!(ok(store.schedules()), further);
    assert_eq!(ok(store.load(job.id)), Some(job));
}

fn buckets_are_as_empty_as_was_last_committed(open: Open<'_>) {
    let mut samples = Samples::new(12);
    let store = open();
    let (first, other) = (samples.bucket("mail"), samples.bucket("sms"));
    let of_another_period = BucketRecord { per: Duration::from_secs(1), ..samples.bucket("mail") };
    let last = samples.bucket("mail");
    commit(&*store, [&first, &other, &of_another_period].map(|bucket| Write::PutBucket(bucket.clone())));
    let job = samples.job("acme");
    commit(&*store, [samples.insert(&job), Write::PutBucket(last.clone())]);
    assert_eq!(ok(store.buckets()), [of_another_period.clone(), last.clone(), other.clone()]);
    // Only what is full is forgotten, be it on its way to the disk or there.
    commit(&*store, [Write::ForgetBuckets(first.full_at)]);
    assert_eq!(ok(store.buckets()).len(), 3, "the one that was full by then is emptier by now");
    commit(&*store, [Write::ForgetBuckets(other.full_at)]);
    assert_eq!(ok(store.buckets()), [of_another_period, last.clone()]);
    drop(store);
    let store = open();
    commit(&*store, [Write::ForgetBuckets(Timestamp::from_micros(last.full_at.as_micros() - 1))]);
    assert_eq!(ok(store.buckets()), std::slice::from_ref(&last));
    commit(&*store, [Write::ForgetBuckets(last.full_at)]);
    drop(store);
    assert_eq!(ok(open().buckets()), []);
}

fn what_clients_have_used_is_what_was_last_committed(open: Open<'_>) {
    let mut samples = Samples::new(12);
    let store = open();
    assert_eq!(ok(store.usage()), []);
    let (job, first, other) = (samples.job("acme"), samples.usage("acme"), samples.usage("umbrella"));
    commit(&*store, [samples.insert(&job), Write::PutUsage(first), Write::PutUsage(other.clone())]);
    let (between, last) = (samples.usage("acme"), samples.usage("acme"));
    commit(&*store, [between, last.clone()].map(Write::PutUsage));
    let expected = [last, other];
    assert_eq!(ok(store.usage()), expected);
    let refused = Batch { writes: vec![Write::PutUsage(samples.usage("acme")), samples.insert(&job)] };
    assert!(matches!(store.commit(&refused), Err(StoreError::Failed { .. })));
    assert_eq!(ok(store.usage()), expected, "nothing of a batch that cannot be stored");
    drop(store);
    assert_eq!(ok(open().usage()), expected);
}

fn blueprints_keep_every_version(open: Open<'_>) {
    let version = |name: &str, version| BlueprintRecord {
        name: name.into(),
        version,
        definition: format!("{{\"blueprint\":\"{name}\",\"n\":{version}}}").into(),
        is_put: version == 2,
    };
    let all = [version("a", 1), version("a", 2), version("a", 10), version("b", 1)];
    let store = open();
    commit(&*store, all.iter().rev().cloned().map(Write::PutBlueprint));
    let changed = BlueprintRecord { definition: "{}".into(), ..version("a", 2) };
    let overwrite = Batch { writes: vec![Write::PutBlueprint(changed)] };
    assert!(matches!(store.commit(&overwrite), Err(StoreError::Failed { .. })), "a version is for ever");
    drop(store);
    assert_eq!(ok(open().blueprints()), all);
}

fn a_batch_that_cannot_be_stored_leaves_nothing(open: Open<'_>) {
    let mut samples = Samples::new(8);
    let (known, unknown) = (samples.job("acme"), samples.job("acme"));
    let finished = samples.moved(&known, JobStatus::Finished);
    let store = open();
    commit(&*store, [samples.insert(&known)]);
    let before = everything(&*store, &[known.id, unknown.id], &["acme"]);
    let fresh = samples.job("acme");
    for impossible in [
        samples.update(&unknown),
        samples.insert(&known),
        Write::UpdateJob { entries: samples.entries(&known, 0..1), job: Arc::new(known.clone()) },
    ] {
        let writes = vec![
            Write::PutSession(samples.session(Duration::ZERO)),
            samples.insert(&fresh),
            samples.update(&finished),
            impossible,
        ];
        assert!(matches!(store.commit(&Batch { writes }), Err(StoreError::Failed { .. })));
        assert_eq!(everything(&*store, &[known.id, unknown.id], &["acme"]), before);
    }
    commit(&*store, [samples.update(&finished)]);
    assert_eq!(ok(store.load(known.id)), Some(finished));
}

fn listing_filters(open: Open<'_>) {
    let mut samples = Samples::new(9);
    let store = open();
    let mut jobs: Vec<Job> = Vec::new();
    for n in 0..40 {
        let job = samples.job(["acme", "umbrella"][n % 2]);
        commit(&*store, [samples.insert(&job)]);
        let moved = samples.moved(&job, JobStatus::ALL[n / 2 % JobStatus::ALL.len()]);
        commit(&*store, [samples.update(&moved)]);
        jobs.push(moved);
    }
    let check = |query: ListQuery, wanted: &dyn Fn(&Job) -> bool| {
        let expected: Vec<_> =
            jobs.iter().rev().filter(|job| job.client == query.client && wanted(job)).cloned().collect();
        let page = ok(store.list(&query));
        assert_eq!(page.jobs, expected, "{query:?}");
        assert_eq!(page.next_below_key, None, "{query:?}");
        assert!(query.client.is_empty() || !expected.is_empty(), "the query tests nothing: {query:?}");
    };
    let acme = || of_client("acme");
    check(acme(), &|_| true);
    check(of_client(""), &|_| true);
    let statuses = vec![JobStatus::Finished, JobStatus::Pending];
    check(ListQuery { statuses: statuses.clone(), ..acme() }, &|job| statuses.contains(&job.status));
    check(ListQuery { blueprint: Some("resize".into()), ..acme() }, &|job| &*job.blueprint == "resize");
    let odd = BTreeMap::from([("parity".to_owned(), "odd".to_owned())]);
    check(ListQuery { labels: odd.clone(), ..acme() }, &|job| job.submission.labels == odd);
    // To the microsecond, although keys know milliseconds only; but for children, whose keys are older than they are.
    let (from, before) = (jobs[10].created_at, jobs[20].created_at);
    for offset in [0, 1] {
        let (from, before) = (from + Duration::from_micros(offset), before + Duration::from_micros(offset));
        check(ListQuery { created_from: Some(from), created_before: Some(before), ..acme() }, &|job| {
            let keys = JobId::first_key_of(from.as_unix_ms())..JobId::first_key_of(before.as_unix_ms() + 1);
            match &job.submission.parent {
                Some(_) => keys.contains(&job.id.key()),
                None => job.created_at >= from && job.created_at < before,
            }
        });
    }
    check(ListQuery { created_before: Some(Timestamp::from_micros(i64::MAX)), ..acme() }, &|_| true);
    check(ListQuery { created_from: Some(Timestamp::from_micros(-5)), ..acme() }, &|_| true);
    let below = jobs[20].id.key();
    check(ListQuery { below_key: Some(below), ..acme() }, &|job| job.id.key() < below);
    let never = ListQuery { created_from: Some(before), created_before: Some(from), ..acme() };
    assert_eq!(listed(&*store, &never), []);
}

/// Every page of the query, and that none is empty without need.
fn pages(store: &dyn Store, query: &ListQuery) -> Vec<Vec<JobId>> {
    let mut query = query.clone();
    let mut pages = Vec::new();
    loop {
        let page = ok(store.list(&query));
        assert!(page.jobs.len() <= query.limit);
        pages.push(page.jobs.iter().map(|job| job.id).collect());
        let Some(next) = page.next_below_key else { return pages };
        assert!(query.below_key.is_none_or(|below| next < below), "every page must come nearer to the end");
        query.below_key = Some(next);
    }
}

fn listing_pages_meet(open: Open<'_>) {
    let mut samples = Samples::new(10);
    let store = open();
    let jobs: Vec<Job> = (0..12).map(|n| samples.job(["acme", "umbrella"][usize::from(n == 6)])).collect();
    commit(&*store, jobs.iter().map(|job| samples.insert(job)));
    let newest_first: Vec<JobId> =
        jobs.iter().rev().filter(|job| &*job.client == "acme").map(|job| job.id).collect();
    for limit in 1..=12 {
        let pages = pages(&*store, &ListQuery { limit, ..of_client("acme") });
        assert_eq!(pages.concat(), newest_first);
        assert_eq!(pages.len(), newest_first.len().div_ceil(limit), "no empty page at the end");
    }
}

fn a_page_looks_at_a_bounded_number_of_jobs(open: Open<'_>) {
    let mut samples = Samples::new(11);
    let store = open();
    let jobs: Vec<Job> = (0..LIST_SCAN_MAX + 2).map(|_| samples.job("acme")).collect();
    let oldest = samples.moved(&jobs[0], JobStatus::Finished);
    commit(&*store, jobs.iter().map(|job| samples.insert(job)));
    commit(&*store, [samples.update(&oldest)]);
    let finished = ListQuery { statuses: vec![JobStatus::Finished], ..of_client("acme") };
    assert_eq!(pages(&*store, &finished), [vec![], vec![oldest.id]]);
}

fn a_page_holds_a_bounded_number_of_bytes(open: Open<'_>) {
    let mut samples = Samples::new(12);
    let store = open();
    let jobs: Vec<Job> = [LIST_BYTES_MAX / 2, 10, LIST_BYTES_MAX / 2, 2 * LIST_BYTES_MAX, 10]
        .into_iter()
        .map(|bytes| {
            let state_history = Json::from_stored(&format!("{{\"a\":\"{}\"}}", "x".repeat(bytes)));
            Job { state_history, ..samples.job("acme") }
        })
        .collect();
    commit(&*store, jobs.iter().map(|job| samples.insert(job)));
    let ids: Vec<JobId> = jobs.iter().map(|job| job.id).collect();
    let expected = [vec![ids[4]], vec![ids[3]], vec![ids[2], ids[1]], vec![ids[0]]];
    assert_eq!(pages(&*store, &of_client("acme")), expected);
}

/// Each batch moves both of two jobs: no reader may see one moved and the other not.
fn reads_see_whole_batches(open: Open<'_>) {
    const BATCHES: usize = 200;
    let mut samples = Samples::new(13);
    let store = open();
    let mut pair = [samples.job("acme"), samples.job("acme")];
    commit(&*store, pair.iter().map(|job| samples.insert(job)));
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                let mut moves = 0;
                while moves < BATCHES as u32 {
                    let page = ok(store.list(&of_client("acme")));
                    let seen: Vec<u32> = page.jobs.iter().map(|job| job.transitions).collect();
                    assert!(seen[0] == seen[1] && seen[0] >= moves, "{seen:?} after {moves}");
                    moves = seen[0];
                }
            });
        }
        for _ in 0..BATCHES {
            pair = pair.map(|job| samples.moved(&job, JobStatus::WaitingForTimer));
            commit(&*store, pair.iter().map(|job| samples.update(job)));
            assert_eq!(ok(store.load(pair[0].id)).as_ref(), Some(&pair[0]), "a commit is seen at once");
        }
    });
}
