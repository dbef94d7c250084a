//! A batch as the body of a frame, and back.
//!
//! Changes of jobs go through the journal, the notices about them, how far schedules have come and how much clients have used,
//! which are stored together with their jobs, and how far buckets are emptied; what is rarer goes to the store directly. An entry
//! is a kind, the job's id or the schedule's or client's name, and records as the store keeps them, each behind its length.
//! Decoding answers with what was encoded or with [`Damaged`].

use std::sync::Arc;

use avtomatika_proto::JobId;

use crate::{
    engine::Job,
    store::{
        Batch, IdempotencyKey, NoticeRecord, Removal, ScheduleRecord, StoreError, UsageRecord, Write, bucket,
        notice,
        record::{self, Damaged, Origin},
        schedule, usage,
    },
    time::Timestamp,
};

// The kinds of entries. The numbers are for ever.
const INSERT: u8 = 1;
const INSERT_KEYED: u8 = 2;
const UPDATE: u8 = 3;
const REMOVE: u8 = 4;
const REMOVE_KEYED: u8 = 5;
const NOTICE: u8 = 6;
const SCHEDULE: u8 = 7;
const BUCKET: u8 = 8;
const BUCKETS_FULL: u8 = 9;
const USAGE: u8 = 10;

/// Whether the batch can go through the journal.
pub(super) fn is_for_journal(batch: &Batch) -> bool {
    let is_frequent = |write: &Write| {
        matches!(
            write,
            Write::InsertJob { .. }
                | Write::UpdateJob { .. }
                | Write::RemoveJob(_)
                | Write::PutNotice(_)
                | Write::PutSchedule(_)
                | Write::PutBucket(_)
                | Write::ForgetBuckets(_)
                | Write::PutUsage(_)
        )
    };
    batch.writes.iter().all(is_frequent)
}

/// Writes batches as bodies. Keeps its memory from one to the next.
#[derive(Debug, Default)]
pub(super) struct Encoder {
    body: Vec<u8>,
    record: Vec<u8>,
}

impl Encoder {
    /// The body of a frame that holds this batch.
    pub(super) fn encode(&mut self, batch: &Batch) -> &[u8] {
        self.body.clear();
        for write in &batch.writes {
            match write {
                Write::InsertJob { job, entries, idempotency } => {
                    let kind = if idempotency.is_some() { INSERT_KEYED } else { INSERT };
                    self.begin(kind, job.id);
                    self.record(|buffer| record::encode_submission(job, key_of(idempotency), buffer));
                    self.record(|buffer| record::encode_job(job, buffer));
                    self.record(|buffer| record::encode_history(job.id, entries, buffer));
                    if let Some(key) = idempotency {
                        put(&mut self.body, key.key.as_bytes());
                        self.record(|buffer| record::encode_idempotency(key, job.id, buffer));
                    }
                }
                Write::UpdateJob { job, entries } => {
                    self.begin(UPDATE, job.id);
                    self.record(|buffer| record::encode_job(job, buffer));
                    self.record(|buffer| record::encode_history(job.id, entries, buffer));
                }
                Write::RemoveJob(Removal { job_id, idempotency }) => {
                    let kind = if idempotency.is_some() { REMOVE_KEYED } else { REMOVE };
                    self.begin(kind, *job_id);
                    if let Some((client, key)) = idempotency {
                        put(&mut self.body, client.as_bytes());
                        put(&mut self.body, key.as_bytes());
                    }
                }
                Write::PutSchedule(schedule) => {
                    self.body.push(SCHEDULE);
                    put(&mut self.body, schedule.name.as_bytes());
                    self.record(|buffer| schedule::encode(schedule, buffer));
                }
                Write::PutBucket(bucket) => {
                    self.body.push(BUCKET);
                    put(&mut self.body, bucket.key.as_bytes());
                    self.body.extend_from_slice(&bucket::micros(bucket.per).to_le_bytes());
                    self.record(|buffer| bucket::encode(bucket, buffer));
                }
                Write::ForgetBuckets(full_by) => {
                    self.body.push(BUCKETS_FULL);
                    self.body.extend_from_slice(&full_by.as_micros().to_le_bytes());
                }
                Write::PutUsage(usage) => {
                    self.body.push(USAGE);
                    put(&mut self.body, usage.client.as_bytes());
                    self.record(|buffer| usage::encode(usage, buffer));
                }
                Write::PutNotice(notice) => {
                    self.begin(NOTICE, notice.id.job_id);
                    self.body.extend_from_slice(&notice.id.sequence.to_le_bytes());
                    self.record(|buffer| notice::encode(notice, buffer));
                }
                Write::PutSession(_)
                | Write::RemoveSession(_)
                | Write::PutBlueprint(_)
                | Write::RemoveSchedule(_)
                | Write::JournalApplied(_) => {
                    debug_assert!(false, "only what is frequent goes through the journal");
                }
            }
        }
        &self.body
    }

    fn begin(&mut self, kind: u8, id: JobId) {
        self.body.push(kind);
        self.body.extend_from_slice(id.as_bytes());
    }

    fn record(&mut self, encode: impl FnOnce(&mut Vec<u8>)) {
        encode(&mut self.record);
        put(&mut self.body, &self.record);
    }
}

fn key_of(idempotency: &Option<IdempotencyKey>) -> Option<&str> {
    idempotency.as_ref().map(|key| &*key.key)
}

fn put(body: &mut Vec<u8>, bytes: &[u8]) {
    body.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    body.extend_from_slice(bytes);
}

/// Reads the batch in a body. `known` gives a job as it was before this batch, for the parts that an update does not repeat.
pub(super) fn decode(
    body: &[u8],
    mut known: impl FnMut(JobId) -> Result<Option<Arc<Job>>, StoreError>,
) -> Result<Result<Batch, Damaged>, StoreError> {
    let mut batch = Batch::default();
    let mut reader = Reader(body);
    while !reader.0.is_empty() {
        let entry = match reader.entry() {
            Ok(Entry::Change(change)) => change,
            Ok(Entry::Schedule(schedule)) => {
                batch.writes.push(Write::PutSchedule(schedule));
                continue;
            }
            Ok(Entry::Bucket(write)) => {
                batch.writes.push(write);
                continue;
            }
            Ok(Entry::Usage(usage)) => {
                batch.writes.push(Write::PutUsage(usage));
                continue;
            }
            Ok(Entry::Removal(removal)) => {
                batch.writes.push(Write::RemoveJob(removal));
                continue;
            }
            Ok(Entry::Notice(notice)) => {
                batch.writes.push(Write::PutNotice(Arc::new(notice)));
                continue;
            }
            Err(damaged) => return Ok(Err(damaged)),
        };
        let before = match entry.origin {
            Some(_) => None,
            None => batch.writes.iter().rev().find_map(|write| job_of(write, entry.id)),
        };
        let before = match (&entry.origin, before) {
            (None, None) => known(entry.id)?,
            (_, before) => before,
        };
        match entry.into_write(before) {
            Ok(write) => batch.writes.push(write),
            Err(damaged) => return Ok(Err(damaged)),
        }
    }
    Ok(Ok(batch))
}

fn job_of(write: &Write, id: JobId) -> Option<Arc<Job>> {
    match write {
        Write::InsertJob { job, .. } | Write::UpdateJob { job, .. } if job.id == id => Some(job.clone()),
        _ => None,
    }
}

/// One entry, taken apart.
enum Entry<'b> {
    Change(Change<'b>),
    Removal(Removal),
    Schedule(ScheduleRecord),
    Bucket(Write),
    Usage(UsageRecord),
    Notice(NoticeRecord),
}

/// A job as it is now.
struct Change<'b> {
    id: JobId,
    /// There when the job was inserted.
    origin: Option<Origin>,
    job: &'b [u8],
    history: &'b [u8],
    key: Option<(&'b str, &'b [u8])>,
}

impl Change<'_> {
    fn into_write(self, before: Option<Arc<Job>>) -> Result<Write, Damaged> {
        let entries = record::decode_history(self.id, self.history)?;
        let Some(origin) = self.origin else {
            let before =
                before.ok_or_else(|| Damaged::new(format!("job {} changes before it is there", self.id)))?;
            let job = Arc::new(record::decode_job(self.id, Origin::of(&before), self.job)?);
            return Ok(Write::UpdateJob { job, entries });
        };
        let job = Arc::new(record::decode_job(self.id, origin, self.job)?);
        let idempotency = match self.key {
            None => None,
            Some((key, record)) => {
                let (_, fingerprint) = record::decode_idempotency(&job.client, key, record)?;
                Some(IdempotencyKey { client: job.client.clone(), key: key.into(), fingerprint })
            }
        };
        Ok(Write::InsertJob { job, entries, idempotency })
    }
}

/// What is left of a body.
struct Reader<'b>(&'b [u8]);

impl<'b> Reader<'b> {
    fn entry(&mut self) -> Result<Entry<'b>, Damaged> {
        let [kind] = *self.chunk::<1>()?;
        if kind == SCHEDULE {
            return Ok(Entry::Schedule(schedule::decode(self.text()?, self.bytes()?)?));
        }
        if kind == BUCKET {
            let (key, per) = (self.text()?, i64::from_le_bytes(*self.chunk::<8>()?));
            return Ok(Entry::Bucket(Write::PutBucket(bucket::decode(key, per, self.bytes()?)?)));
        }
        if kind == BUCKETS_FULL {
            let full_by = Timestamp::from_micros(i64::from_le_bytes(*self.chunk::<8>()?));
            return Ok(Entry::Bucket(Write::ForgetBuckets(full_by)));
        }
        if kind == USAGE {
            return Ok(Entry::Usage(usage::decode(self.text()?, self.bytes()?)?));
        }
        let id = JobId::from_bytes(*self.chunk::<16>()?);
        let origin = match kind {
            REMOVE => return Ok(Entry::Removal(Removal { job_id: id, idempotency: None })),
            REMOVE_KEYED => {
                let name = (self.text()?.into(), self.text()?.into());
                return Ok(Entry::Removal(Removal { job_id: id, idempotency: Some(name) }));
            }
            NOTICE => {
                let sequence = u64::from_le_bytes(*self.chunk::<8>()?);
                return Ok(Entry::Notice(notice::decode(id.key(), sequence, self.bytes()?)?));
            }
            INSERT | INSERT_KEYED => Some(record::decode_submission(id, self.bytes()?)?),
            UPDATE => None,
            other => {
                return Err(Damaged::new(format!("an entry of the journal has the unknown kind {other}")));
            }
        };
        let (job, history) = (self.bytes()?, self.bytes()?);
        let key = match kind {
            INSERT_KEYED => Some((self.text()?, self.bytes()?)),
            _ => None,
        };
        Ok(Entry::Change(Change { id, origin, job, history, key }))
    }

    fn text(&mut self) -> Result<&'b str, Damaged> {
        std::str::from_utf8(self.bytes()?)
            .map_err(|_| Damaged::new("a text in the journal is none".to_owned()))
    }

    fn bytes(&mut self) -> Result<&'b [u8], Damaged> {
        let len = u32::from_le_bytes(*self.chunk::<4>()?) as usize;
        let (bytes, rest) = self.0.split_at_checked(len).ok_or_else(too_short)?;
        self.0 = rest;
        Ok(bytes)
    }

    fn chunk<const N: usize>(&mut self) -> Result<&'b [u8; N], Damaged> {
        let (chunk, rest) = self.0.split_first_chunk::<N>().ok_or_else(too_short)?;
        self.0 = rest;
        Ok(chunk)
    }
}

fn too_short() -> Damaged {
    Damaged::new("an entry of the journal is cut off".to_owned())
}

#[cfg(test)]
#[path = "../../fuzz/frames.rs"]
mod fuzz;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{engine::JobStatus, store::conformance::Samples};

    #[test]
    fn a_batch_is_read_as_it_was_written() {
        let mut samples = Samples::new(1);
        let (old, new, last) = (samples.job("acme"), samples.job("umbrella"), samples.job("acme"));
        let (moved, finished) =
            (samples.moved(&old, JobStatus::WaitingForTimer), samples.moved(&new, JobStatus::Finished));
        let key = IdempotencyKey { client: new.client.clone(), key: "k/1".into(), fingerprint: [7; 32] };
        let writes = vec![
            samples.update(&moved),
            Write::InsertJob {
                entries: samples.entries(&new, 0..2),
                job: Arc::new(new.clone()),
                idempotency: Some(key),
            },
            samples.update(&finished),
            samples.insert(&last),
            Write::PutSchedule(samples.schedule("nightly")),
            Write::PutBucket(samples.bucket("mail")),
            Write::PutUsage(samples.usage("acme")),
            Write::PutNotice(Arc::new(samples.notice(&finished))),
            Write::ForgetBuckets(last.created_at),
            Write::RemoveJob(Removal { job_id: old.id, idempotency: None }),
            Write::RemoveJob(Removal {
                job_id: new.id,
                idempotency: Some((new.client.clone(), "k/1".into())),
            }),
        ];
        let batch = Batch { writes };
        let mut encoder = Encoder::default();
        let body = encoder.encode(&batch).to_vec();
        let known = |id| Ok((id == old.id).then(|| Arc::new(old.clone())));
        let read = decode(&body, known).unwrap().unwrap();
        assert_eq!(format!("{read:?}"), format!("{batch:?}"));
        assert!(decode(&body, |_| Ok(None)).unwrap().is_err(), "an update of a job that is not there");
        for len in 1..body.len() {
            // A cut between two entries is a shorter batch; the frame's own checksum tells.
            let _ = decode(&body[..len], |_| Ok(Some(Arc::new(old.clone()))));
        }
        // Removals hold nothing but ids: for them, the frame's checksum alone tells.
        let changes = Batch { writes: batch.writes[..6].to_vec() };
        let body = encoder.encode(&changes).to_vec();
        for at in 0..body.len() {
            let mut damaged = body.clone();
            damaged[at] ^= 4;
            if let Ok(Ok(read)) = decode(&damaged, |_| Ok(Some(Arc::new(old.clone())))) {
                assert_eq!(format!("{read:?}"), format!("{changes:?}"), "byte {at}");
            }
        }
    }
}
