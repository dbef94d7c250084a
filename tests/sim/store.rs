//! The disk: what is in it has been synced, and nothing else is. A memory store whose reads may fail.
//!
//! A batch goes into it as a whole, at the moment that the world chooses. What the conductor has handed over before that moment
//! is lost when the process dies: all of it, as the journal discards a frame that is torn. (Now and then the frame is really made, torn,
//! and read again: see `World::tear`.)

use std::{
    ops::Range,
    sync::atomic::{AtomicU64, Ordering},
};

use avtomatika_orchestrator::{
    engine::{HistoryEntry, Job},
    store::{
        Batch, BlueprintRecord, BucketRecord, EachLoaded, ListPage, ListQuery, NoticeRecord, PruneQuery,
        PruneSlice, ScheduleRecord, SessionRecord, Standing, Store, StoreError, Stub, UsageRecord,
        memory::MemoryStore,
    },
};
use avtomatika_proto::JobId;

/// The disk.
#[derive(Debug, Default)]
pub struct Disk {
    synced: MemoryStore,
    /// A read fails so many times of a thousand.
    failing_read: AtomicU64,
    reads: AtomicU64,
    failed: AtomicU64,
}

impl Disk {
    /// From now on, so many reads of a thousand fail.
    pub fn let_reads_fail(&self, per_mille: u64) {
        self.failing_read.store(per_mille, Ordering::Relaxed);
    }

    /// Reads that have failed.
    pub fn failed_reads(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// What is really there, for those who check.
    pub fn synced(&self) -> &MemoryStore {
        &self.synced
    }

    fn read(&self) -> Result<&MemoryStore, StoreError> {
        let per_mille = self.failing_read.load(Ordering::Relaxed);
        if per_mille > 0 {
            let read = self.reads.fetch_add(1, Ordering::Relaxed);
            // Scattered, and the same in every run of the seed.
            if (read.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) % 1000 < per_mille {
                self.failed.fetch_add(1, Ordering::Relaxed);
                return Err(StoreError::Failed { reason: "a read failed".into() });
            }
        }
        Ok(&self.synced)
    }
}

impl Store for Disk {
    fn name(&self) -> &'static str {
        "disk"
    }

    fn commit(&self, batch: &Batch) -> Result<(), StoreError> {
        self.synced.commit(batch)
    }

    fn load(&self, id: JobId) -> Result<Option<Job>, StoreError> {
        self.read()?.load(id)
    }

    fn load_many(&self, ids: &[JobId], each: EachLoaded<'_>) -> Result<(), StoreError> {
        self.read()?.load_many(ids, each)
    }

    fn open_jobs(&self, each: &mut dyn FnMut(Stub)) -> Result<(), StoreError> {
        self.read()?.open_jobs(each)
    }

    fn last_job_key(&self) -> Result<Option<i64>, StoreError> {
        self.read()?.last_job_key()
    }

    fn last_key_between(&self, keys: Range<i64>) -> Result<Option<i64>, StoreError> {
        self.read()?.last_key_between(keys)
    }

    fn prunable(&self, query: &PruneQuery) -> Result<PruneSlice, StoreError> {
        self.read()?.prunable(query)
    }

    fn list(&self, query: &ListQuery) -> Result<ListPage, StoreError> {
        self.read()?.list(query)
    }

    fn history(&self, id: JobId, from: u64, limit: usize) -> Result<Vec<HistoryEntry>, StoreError> {
        self.read()?.history(id, from, limit)
    }

    fn standing(&self, id: JobId) -> Result<Option<Standing>, StoreError> {
        self.read()?.standing(id)
    }

    fn find_idempotent(&self, client: &str, key: &str) -> Result<Option<(JobId, [u8; 32])>, StoreError> {
        self.read()?.find_idempotent(client, key)
    }

    fn sessions(&self) -> Result<Vec<SessionRecord>, StoreError> {
        self.read()?.sessions()
    }

    fn blueprints(&self) -> Result<Vec<BlueprintRecord>, StoreError> {
        self.read()?.blueprints()
    }

    fn notices(&self, id: JobId) -> Result<Vec<NoticeRecord>, StoreError> {
        self.read()?.notices(id)
    }

    fn pending_notices(&self, each: &mut dyn FnMut(NoticeRecord)) -> Result<(), StoreError> {
        self.read()?.pending_notices(each)
    }

    fn schedules(&self) -> Result<Vec<ScheduleRecord>, StoreError> {
        self.read()?.schedules()
    }

    fn buckets(&self) -> Result<Vec<BucketRecord>, StoreError> {
        self.read()?.buckets()
    }

    fn usage(&self) -> Result<Vec<UsageRecord>, StoreError> {
        self.read()?.usage()
    }

    fn journal_applied(&self) -> Result<u64, StoreError> {
        self.read()?.journal_applied()
    }
}
