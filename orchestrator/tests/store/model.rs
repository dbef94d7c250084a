//! Random lives of many jobs: the store on the disk answers as the one in memory does.

use std::{collections::BTreeSet, sync::Arc};

use avtomatika_orchestrator::{
    engine::{Entropy, Job, JobStatus},
    store::{
        Batch, ListQuery, PruneQuery, PruneSlice, Store, Write,
        conformance::{Samples, everything},
        memory::MemoryStore,
        sqlite::SqliteStore,
    },
};

pub const CLIENTS: [&str; 3] = ["acme", "umbrella", "яблоко"];

pub fn random_batch(
    entropy: &mut Entropy,
    samples: &mut Samples,
    jobs: &mut Vec<Job>,
    prunable: &PruneSlice,
) -> Batch {
    let mut writes = Vec::new();
    // Whoever is removed here must not be moved below.
    for removal in prunable.removals.iter().filter(|_| entropy.next_u64().is_multiple_of(4)) {
        jobs.retain(|job| job.id != removal.job_id);
        writes.push(Write::RemoveJob(removal.clone()));
    }
    for _ in 0..1 + entropy.next_u64() % 8 {
        if jobs.is_empty() || entropy.next_u64().is_multiple_of(3) {
            let job = samples.job(CLIENTS[(entropy.next_u64() % 3) as usize]);
            writes.push(match entropy.next_u64().is_multiple_of(2) {
                true => samples.insert_as(&job, &job.id.to_string()),
                false => samples.insert(&job),
            });
            jobs.push(job);
        } else {
            let which = (entropy.next_u64() % jobs.len() as u64) as usize;
            let status = JobStatus::ALL[(entropy.next_u64() % JobStatus::ALL.len() as u64) as usize];
            jobs[which] = samples.moved(&jobs[which], status);
            writes.push(samples.update(&jobs[which]));
            if entropy.next_u64().is_multiple_of(3) {
                writes.push(Write::PutNotice(Arc::new(samples.notice(&jobs[which]))));
            }
        }
    }
    Batch { writes }
}

pub fn random_query(entropy: &mut Entropy, jobs: &[Job]) -> ListQuery {
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

fn random_prune_query(entropy: &mut Entropy, jobs: &[Job]) -> PruneQuery {
    let mut some_job = || &jobs[(entropy.next_u64() % jobs.len() as u64) as usize];
    let (from, until) = (some_job(), some_job());
    let limit = 1 + (entropy.next_u64() % 20) as usize;
    PruneQuery { above_key: from.id.key(), ended_by: until.updated_at, limit }
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
        let mut ids = BTreeSet::new();
        let mut prunable = PruneSlice::default();
        for _ in 0..60 {
            let batch = random_batch(&mut entropy, &mut samples, &mut jobs, &prunable);
            ids.extend(jobs.iter().map(|job| job.id));
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
            let query = random_prune_query(&mut entropy, &jobs);
            prunable = model.prunable(&query).unwrap();
            assert_eq!(store.prunable(&query).unwrap(), prunable, "{query:?}");
        }
        assert!(ids.len() > jobs.len(), "some were removed");
        let ids: Vec<_> = ids.into_iter().collect();
        for (id, client) in ids.iter().flat_map(|id| CLIENTS.map(|client| (id, client))) {
            let key = id.to_string();
            let found = store.find_idempotent(client, &key).unwrap();
            assert_eq!(found, model.find_idempotent(client, &key).unwrap());
        }
        assert!(everything(&store, &ids, &CLIENTS) == everything(&model, &ids, &CLIENTS));
    }
}
