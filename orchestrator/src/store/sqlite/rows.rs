//! Which rows a batch writes.
//!
//! The statements that nearly every job needs are prepared once for each transaction. It promises nothing by itself: the transaction around
//! it makes a whole of the rows.

use avtomatika_proto::JobId;
use rusqlite::{CachedStatement, Connection};

use super::PARTITION;
use crate::{
    engine::{HistoryEntry, Job},
    store::{
        IdempotencyKey, NoticeRecord, NoticeStatus, Removal, Stub, Write, bucket, notice, record, schedule,
        usage,
    },
};

/// Why a batch could not be stored.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    /// The batch contradicts what is stored.
    #[error("{0}")]
    Ours(String),
}

/// Runs a statement that yields no rows.
pub(super) fn execute(
    connection: &Connection,
    sql: &str,
    params: impl rusqlite::Params,
) -> Result<(), Fault> {
    connection.prepare_cached(sql)?.execute(params)?;
    Ok(())
}

/// Writes rows within a transaction.
pub(super) struct Rows<'c> {
    connection: &'c Connection,
    /// Where records are encoded.
    buffer: &'c mut Vec<u8>,
    insert_job: CachedStatement<'c>,
    insert_submission: CachedStatement<'c>,
    update_job: CachedStatement<'c>,
    append_history: CachedStatement<'c>,
    put_stub: CachedStatement<'c>,
    remove_stub: CachedStatement<'c>,
}

impl<'c> Rows<'c> {
    /// For the transaction that this connection has begun.
    pub(super) fn new(connection: &'c Connection, buffer: &'c mut Vec<u8>) -> Result<Self, Fault> {
        let statement = |sql| connection.prepare_cached(sql);
        Ok(Self {
            connection,
            buffer,
            insert_job: statement(
                "INSERT INTO jobs (key, id, partition, client, blueprint, status, record)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?,
            insert_submission: statement("INSERT INTO submissions (key, record) VALUES (?1, ?2)")?,
            update_job: statement("UPDATE jobs SET status = ?3, record = ?4 WHERE key = ?1 AND id = ?2")?,
            append_history: statement("INSERT INTO history (key, sequence, record) VALUES (?1, ?2, ?3)")?,
            put_stub: statement("INSERT OR REPLACE INTO open_jobs (key, record) VALUES (?1, ?2)")?,
            remove_stub: statement("DELETE FROM open_jobs WHERE key = ?1")?,
        })
    }

    /// Writes all of these, in their order.
    pub(super) fn write(&mut self, writes: &[Write]) -> Result<(), Fault> {
        let removal = |write: &Write| matches!(write, Write::RemoveJob(_));
        writes.chunk_by(|one, next| removal(one) && removal(next)).try_for_each(|run| self.apply(run))
    }

    /// One write, or removals that follow each other.
    fn apply(&mut self, run: &[Write]) -> Result<(), Fault> {
        let [write, ..] = run else { return Ok(()) };
        match write {
            Write::InsertJob { job, entries, idempotency } => {
                self.insert_job(job, idempotency.as_ref())?;
                self.append_history(job.id, entries)?;
                idempotency.as_ref().map_or(Ok(()), |key| self.put_idempotency(job.id, key))
            }
            Write::UpdateJob { job, entries } => {
                self.update_job(job)?;
                self.append_history(job.id, entries)
            }
            Write::RemoveJob(_) => self.remove_jobs(run),
            Write::PutNotice(notice) => self.put_notice(notice),
            Write::PutSession(session) => {
                record::encode_session(session, self.buffer);
                let sql = "INSERT OR REPLACE INTO sessions (id, record) VALUES (?1, ?2)";
                execute(self.connection, sql, (session.session_id.as_bytes(), &*self.buffer))
            }
            Write::RemoveSession(id) => {
                execute(self.connection, "DELETE FROM sessions WHERE id = ?1", [id.as_bytes()])
            }
            Write::PutBlueprint(blueprint) => {
                record::encode_blueprint(blueprint, self.buffer);
                let sql = "INSERT INTO blueprints (name, version, record) VALUES (?1, ?2, ?3)";
                execute(self.connection, sql, (&*blueprint.name, blueprint.version, &*self.buffer))
            }
            Write::PutSchedule(record) => {
                schedule::encode(record, self.buffer);
                let sql = "INSERT OR REPLACE INTO schedules (name, record) VALUES (?1, ?2)";
                execute(self.connection, sql, (&*record.name, &*self.buffer))
            }
            Write::RemoveSchedule(name) => {
                execute(self.connection, "DELETE FROM schedules WHERE name = ?1", [&**name])
            }
            Write::PutBucket(bucket) => {
                bucket::encode(bucket, self.buffer);
                let sql =
                    "INSERT OR REPLACE INTO buckets (key, per, full_at, record) VALUES (?1, ?2, ?3, ?4)";
                let (per, full_at) = (bucket::micros(bucket.per), bucket.full_at.as_micros());
                execute(self.connection, sql, (&*bucket.key, per, full_at, &*self.buffer))
            }
            Write::ForgetBuckets(full_by) => {
                execute(self.connection, "DELETE FROM buckets WHERE full_at <= ?1", [full_by.as_micros()])
            }
            Write::PutUsage(record) => {
                usage::encode(record, self.buffer);
                let sql = "INSERT OR REPLACE INTO usage (client, record) VALUES (?1, ?2)";
                execute(self.connection, sql, (&*record.client, &*self.buffer))
            }
            Write::JournalApplied(sequence) => {
                let sql = "INSERT OR REPLACE INTO journal (id, applied) VALUES (1, ?1)";
                let sequence = i64::try_from(*sequence)
                    .map_err(|_| Fault::Ours("the journal has no number left for another frame".into()))?;
                execute(self.connection, sql, [sequence])
            }
        }
    }

    fn insert_job(&mut self, job: &Job, idempotency: Option<&IdempotencyKey>) -> Result<(), Fault> {
        let key = job.id.key();
        record::encode_job(job, self.buffer);
        self.insert_job.execute((
            key,
            job.id.as_bytes(),
            PARTITION,
            &*job.client,
            &*job.blueprint,
            job.status as u8,
            &*self.buffer,
        ))?;
        record::encode_submission(job, idempotency.map(|key| &*key.key), self.buffer);
        self.insert_submission.execute((key, &*self.buffer))?;
        match Stub::of(job) {
            Some(stub) => self.put_stub(&stub),
            None => Ok(()),
        }
    }

    fn update_job(&mut self, job: &Job) -> Result<(), Fault> {
        record::encode_job(job, self.buffer);
        let rows =
            self.update_job.execute((job.id.key(), job.id.as_bytes(), job.status as u8, &*self.buffer))?;
        if rows != 1 {
            return Err(Fault::Ours(format!("job {} is not there", job.id)));
        }
        let Some(stub) = Stub::of(job) else {
            self.remove_stub.execute([job.id.key()])?;
            return Ok(());
        };
        self.put_stub(&stub)
    }

    fn put_stub(&mut self, stub: &Stub) -> Result<(), Fault> {
        record::encode_stub(stub, self.buffer);
        self.put_stub.execute((stub.id.key(), &*self.buffer))?;
        Ok(())
    }

    fn append_history(&mut self, id: JobId, entries: &[HistoryEntry]) -> Result<(), Fault> {
        let Some(first) = entries.first() else { return Ok(()) };
        let sequence = i64::try_from(first.sequence)
            .map_err(|_| Fault::Ours(format!("job {id} has no room for another history entry")))?;
        record::encode_history(id, entries, self.buffer);
        self.append_history.execute((id.key(), sequence, &*self.buffer))?;
        Ok(())
    }

    fn put_idempotency(&mut self, id: JobId, key: &IdempotencyKey) -> Result<(), Fault> {
        record::encode_idempotency(key, id, self.buffer);
        let sql = "INSERT INTO idempotency (client, key, record) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING";
        let rows = self.connection.prepare_cached(sql)?.execute((&*key.client, &*key.key, &*self.buffer))?;
        if rows == 1 { Ok(()) } else { self.take_over_idempotency(key) }
    }

    /// The key has been used. If the job that used it was removed, the key is free: the records of early jobs do not hold
    /// their keys, so that they could not be removed together.
    fn take_over_idempotency(&mut self, key: &IdempotencyKey) -> Result<(), Fault> {
        let name = (&*key.client, &*key.key);
        let select = "SELECT record FROM idempotency WHERE client = ?1 AND key = ?2";
        let record: Vec<u8> = self.connection.prepare_cached(select)?.query_row(name, |row| row.get(0))?;
        let (owner, _) = record::decode_idempotency(name.0, name.1, &record)
            .map_err(|damaged| Fault::Ours(damaged.to_string()))?;
        let is_there = "SELECT 1 FROM jobs WHERE key = ?1 AND id = ?2";
        if self.connection.prepare_cached(is_there)?.exists((owner.key(), owner.as_bytes()))? {
            return Err(Fault::Ours(format!("the idempotency key of job {owner} is there already")));
        }
        let update = "UPDATE idempotency SET record = ?3 WHERE client = ?1 AND key = ?2";
        execute(self.connection, update, (name.0, name.1, &*self.buffer))
    }

    fn put_notice(&mut self, notice: &NoticeRecord) -> Result<(), Fault> {
        let (key, sequence) = notice.place();
        let sequence = i64::try_from(sequence)
            .map_err(|_| Fault::Ours(format!("job {} has no room for a notice", notice.id.job_id)))?;
        let pending = notice.status == NoticeStatus::Pending;
        notice::encode(notice, self.buffer);
        execute(
            self.connection,
            "INSERT OR REPLACE INTO notices (key, sequence, pending, record)
             SELECT ?1, ?3, ?4, ?5 WHERE EXISTS (SELECT 1 FROM jobs WHERE key = ?1 AND id = ?2)",
            (key, notice.id.job_id.as_bytes(), sequence, pending, &*self.buffer),
        )
    }

    /// Removes those of the jobs that are there and have ended. They come in the order of their keys, so that whole pages become free one
    /// after the other; and neighbours go together, by one statement for each table.
    fn remove_jobs<'w>(&self, run: &'w [Write]) -> Result<(), Fault> {
        let removal = |write: &'w Write| match write {
            Write::RemoveJob(removal) => Some(removal),
            _ => None,
        };
        let removals: Vec<&Removal> = run.iter().filter_map(removal).collect();
        let mut rest = &removals[..];
        while let [first, after @ ..] = rest {
            let (gone, others) = rest.split_at(self.neighbours(rest)?);
            rest = match gone.last() {
                Some(last) => {
                    self.remove_between(first.job_id.key(), last.job_id.key())?;
                    gone.iter().try_for_each(|removal| self.remove_name(removal))?;
                    others
                }
                // The first one stays.
                None => after,
            };
        }
        Ok(())
    }

    /// How many of these jobs, from the first on, are there, have ended, and have no other job between them.
    fn neighbours(&self, removals: &[&Removal]) -> Result<usize, Fault> {
        let sql = "SELECT id, status BETWEEN 9 AND 12 FROM jobs WHERE key >= ?1 ORDER BY key";
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query([removals[0].job_id.key()])?;
        for (count, removal) in removals.iter().enumerate() {
            let is_next = match rows.next()? {
                Some(row) => row.get_ref(0)?.as_blob() == Ok(removal.job_id.as_bytes()) && row.get(1)?,
                None => false,
            };
            if !is_next {
                return Ok(count);
            }
        }
        Ok(removals.len())
    }

    /// Removes the jobs with these keys, with all that is kept beside them.
    fn remove_between(&self, first: i64, last: i64) -> Result<(), Fault> {
        let keys = (first, last);
        execute(self.connection, "DELETE FROM jobs WHERE key BETWEEN ?1 AND ?2", keys)?;
        execute(self.connection, "DELETE FROM submissions WHERE key BETWEEN ?1 AND ?2", keys)?;
        execute(self.connection, "DELETE FROM history WHERE key BETWEEN ?1 AND ?2", keys)?;
        execute(self.connection, "DELETE FROM notices WHERE key BETWEEN ?1 AND ?2", keys)
    }

    fn remove_name(&self, removal: &Removal) -> Result<(), Fault> {
        let Some((client, name)) = &removal.idempotency else { return Ok(()) };
        let sql = "DELETE FROM idempotency WHERE client = ?1 AND key = ?2";
        execute(self.connection, sql, (&**client, &**name))
    }
}
