//! An endless run of batches, the same ones for the same seed, and the means to compare what a store holds
//! with it.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use avtomatika_orchestrator::{
    engine::{Job, JobStatus},
    store::{
        Batch, BlueprintRecord, Removal, Store, Write,
        conformance::{Samples, everything},
        memory::MemoryStore,
        sqlite::FILE_NAME,
    },
};
use avtomatika_proto::JobId;

/// Every batch finishes the jobs of the one before, removes the ones that were finished then and brings new ones, so that half
/// of a batch is never mistaken for a whole.
pub struct Script {
    samples: Samples,
    open: Vec<Job>,
    ended: Vec<Removal>,
    number: u32,
}

impl Script {
    pub fn new(seed: u8) -> Self {
        Self { samples: Samples::new(seed), open: Vec::new(), ended: Vec::new(), number: 0 }
    }
}

impl Iterator for Script {
    type Item = Batch;

    fn next(&mut self) -> Option<Batch> {
        self.number += 1;
        let mut writes = Vec::new();
        writes.extend(std::mem::take(&mut self.ended).into_iter().map(Write::RemoveJob));
        for (n, job) in std::mem::take(&mut self.open).into_iter().enumerate() {
            let name = (job.client.clone(), key(self.number - 1, n));
            self.ended.push(Removal { job_id: job.id, idempotency: Some(name) });
            let finished = self.samples.moved(&job, JobStatus::Finished);
            writes.push(self.samples.update(&finished));
        }
        for n in 0..3 {
            let job = self.samples.job("acme");
            writes.push(self.samples.insert_as(&job, &key(self.number, n)));
            self.open.push(job);
        }
        writes.push(Write::PutSchedule(self.samples.schedule(["a", "b"][self.number as usize % 2])));
        // These are rare, and take another way than jobs.
        if self.number.is_multiple_of(3) {
            writes.push(Write::PutSession(self.samples.session(Duration::from_secs(self.number.into()))));
            let (name, definition) = ("b".into(), "{}".into());
            writes.push(Write::PutBlueprint(BlueprintRecord {
                name,
                version: self.number,
                definition,
                is_put: false,
            }));
        }
        Some(Batch { writes })
    }
}

fn key(batch: u32, n: usize) -> Arc<str> {
    format!("{batch}/{n}").into()
}

fn job_ids(batches: &[Batch]) -> Vec<JobId> {
    let inserted = |write: &Write| match write {
        Write::InsertJob { job, .. } => Some(job.id),
        _ => None,
    };
    batches.iter().flat_map(|batch| batch.writes.iter().filter_map(inserted)).collect()
}

/// Asserts that the store holds the first `acknowledged` batches, or one more, and nothing else.
pub fn assert_holds(store: &dyn Store, seed: u8, acknowledged: usize) {
    let batches: Vec<Batch> = Script::new(seed).take(acknowledged + 1).collect();
    let ids = job_ids(&batches);
    let model = MemoryStore::new();
    batches[..acknowledged].iter().for_each(|batch| model.commit(batch).unwrap());
    let found = everything(store, &ids, &["acme"]);
    if found == everything(&model, &ids, &["acme"]) {
        return;
    }
    model.commit(&batches[acknowledged]).unwrap();
    assert!(
        found == everything(&model, &ids, &["acme"]),
        "seed {seed}: the store holds neither {acknowledged} batches nor one more, but:\n{found}"
    );
}

/// Asserts that the store holds exactly the first `committed` batches.
pub fn assert_holds_exactly(store: &dyn Store, seed: u8, committed: usize) {
    let batches: Vec<Batch> = Script::new(seed).take(committed + 1).collect();
    let model = MemoryStore::new();
    batches[..committed].iter().for_each(|batch| model.commit(batch).unwrap());
    let ids = job_ids(&batches);
    let (found, expected) = (everything(store, &ids, &["acme"]), everything(&model, &ids, &["acme"]));
    assert!(found == expected, "seed {seed}: the store does not hold {committed} batches, but:\n{found}");
}

pub fn database(dir: &Path) -> PathBuf {
    dir.join(FILE_NAME)
}

pub fn log(dir: &Path) -> PathBuf {
    dir.join(format!("{FILE_NAME}-wal"))
}

/// The files as a crash at this instant would leave them.
pub fn copy_as_after_a_crash(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    fs::copy(database(from), database(to)).unwrap();
    fs::copy(log(from), log(to)).unwrap();
}
