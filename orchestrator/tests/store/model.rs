//! Random lives of many jobs: the store on the disk answers as the one in memory does.

use avtomatika_orchestrator::{
    engine::{Entropy, Job, JobStatus},
    store::{
        Batch, ListQuery, Store,
        conformance::{Samples, everything},
        memory::MemoryStore,
        sqlite::SqliteStore,
    },
};

const CLIENTS: [&str; 3] = ["acme", "umbrella", "яблоко"];

fn random_batch(entropy: &mut Entropy, samples: &mut Samples, jobs: &mut Vec<Job>) -> Batch {
    let mut writes = Vec::new();
    for _ in 0..1 + entropy.next_u64() % 8 {
        if jobs.is_empty() || entropy.next_u64().is_multiple_of(3) {
            let job = samples.job(CLIENTS[(entropy.next_u64() % 3) as usize]);
            writes.push(samples.insert(&job));
            jobs.push(job);
        } else {
            let which = (entropy.next_u64() % jobs.len() as u64) as usize;
            let status = JobStatus::ALL[(entropy.next_u64() % JobStatus::ALL.len() as u64) as usize];
            jobs[which] = samples.moved(&jobs[which], status);
            writes.push(samples.update(&jobs[which]));
        }
    }
    Batch { writes }
}

fn random_query(entropy: &mut Entropy, jobs: &[Job]) -> ListQuery {
    let mut pick = |n: usize| (entropy.next_u64() % n as u64) as usize;
    let some_job = &jobs[pick(jobs.len())];
    ListQuery {
        client: CLIENTS[pick(3)].into(),
        statuses: JobStatus::ALL[..pick(4)].to_vec(),
        blueprint: (pick(3) == 0).then(|| some_job.blueprint.clone()),
        labels: if pick(3) == 0 { some_job.submission.labels.clone() } else { Default::default() },
        created_from: (pick(4) == 0).then_some(some_job.created_at),
        created_before: (pick(4) == 0).then_some(some_job.created_at),
        below_key: (pick(4) == 0).then(|| some_job.id.key()),
        limit: 1 + pick(20),
    }
}

#[test]
fn the_disk_answers_as_memory_does() {
    for seed in 0..4 {
        println!("seed {seed}");
        let dir = tempfile::tempdir().unwrap();
        let (mut entropy, mut samples) = (Entropy::from_seed([seed; 32]), Samples::new(seed));
        let model = MemoryStore::new();
        let mut store = SqliteStore::open(dir.path()).unwrap();
        let mut jobs = Vec::new();
        for _ in 0..60 {
            let batch = random_batch(&mut entropy, &mut samples, &mut jobs);
            store.commit(&batch).unwrap();
            model.commit(&batch).unwrap();
            if entropy.next_u64().is_multiple_of(10) {
                drop(store);
                store = SqliteStore::open(dir.path()).unwrap();
            }
            let query = random_query(&mut entropy, &jobs);
            let (page, expected) = (store.list(&query).unwrap(), model.list(&query).unwrap());
            assert_eq!(page.jobs, expected.jobs, "{query:?}");
            assert_eq!(page.next_below_key, expected.next_below_key, "{query:?}");
        }
        let ids: Vec<_> = jobs.iter().map(|job| job.id).collect();
        assert!(everything(&store, &ids, &CLIENTS) == everything(&model, &ids, &CLIENTS));
    }
}
