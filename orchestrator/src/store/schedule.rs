//! How far a schedule has come: what is stored of it, and the bytes of its row.
//!
//! It is written in the transaction that inserts the job of a due time, so that each due time is either decided, with its job, or
//! not decided at all, whatever happens in between. It refuses to know what due times follow from.

use std::sync::Arc;

use avtomatika_proto::JobId;
use prost::Message;

use super::record::{Damaged, Kind, exactly, seal, unseal};
use crate::time::Timestamp;

/// How far a schedule has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduleRecord {
    /// Its name.
    pub name: Arc<str>,
    /// What its due times follow from. With another one it begins anew.
    pub timing: Arc<str>,
    /// Every due time up to this one is decided.
    pub decided: Timestamp,
    /// The last job that it made.
    pub last_run: Option<ScheduledRun>,
    /// The last due time that it let go by without a job.
    pub last_skip: Option<ScheduledSkip>,
}

/// A job that a schedule made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScheduledRun {
    /// For which due time.
    pub due_at: Timestamp,
    /// The job.
    pub job_id: JobId,
}

/// A due time without a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScheduledSkip {
    /// Which.
    pub due_at: Timestamp,
    /// Why.
    pub reason: SkipReason,
}

/// Why a due time got no job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum SkipReason {
    /// It was noticed too late: the orchestrator was down, or could not accept a job.
    Missed = 1,
    /// The job before it had not ended.
    Overlap = 2,
}

impl SkipReason {
    /// Its name on every surface.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missed => "missed",
            Self::Overlap => "overlap",
        }
    }

    fn from_number(number: u32) -> Option<Self> {
        [Self::Missed, Self::Overlap].into_iter().find(|reason| u32::from(*reason as u8) == number)
    }
}

// Tags are for ever: a tag that goes out of use is never given away again.
#[derive(Message)]
struct StoredSchedule {
    #[prost(string, tag = "1")]
    timing: String,
    #[prost(int64, tag = "2")]
    decided_us: i64,
    #[prost(message, optional, tag = "3")]
    last_run: Option<StoredRun>,
    #[prost(message, optional, tag = "4")]
    last_skip: Option<StoredSkip>,
}

#[derive(Message)]
struct StoredRun {
    #[prost(int64, tag = "1")]
    due_at_us: i64,
    #[prost(bytes = "vec", tag = "2")]
    job_id: Vec<u8>,
}

#[derive(Message)]
struct StoredSkip {
    #[prost(int64, tag = "1")]
    due_at_us: i64,
    #[prost(uint32, tag = "2")]
    reason: u32,
}

/// The row of a schedule.
pub(super) fn encode(record: &ScheduleRecord, buffer: &mut Vec<u8>) {
    let message = StoredSchedule {
        timing: record.timing.to_string(),
        decided_us: record.decided.as_micros(),
        last_run: record.last_run.map(|run| StoredRun {
            due_at_us: run.due_at.as_micros(),
            job_id: run.job_id.as_bytes().to_vec(),
        }),
        last_skip: record
            .last_skip
            .map(|skip| StoredSkip { due_at_us: skip.due_at.as_micros(), reason: skip.reason as u32 }),
    };
    seal(Kind::Schedule, record.name.as_bytes(), &message, buffer);
}

/// The row of the schedule with this name.
pub(super) fn decode(name: &str, record: &[u8]) -> Result<ScheduleRecord, Damaged> {
    let message: StoredSchedule = unseal(Kind::Schedule, name.as_bytes(), record)?;
    let run = |run: StoredRun| {
        let job_id = JobId::from_bytes(exactly(&run.job_id)?);
        Ok::<_, Damaged>(ScheduledRun { due_at: Timestamp::from_micros(run.due_at_us), job_id })
    };
    let skip = |skip: StoredSkip| {
        let unknown = || Damaged::new(format!("{} is not the number of a reason", skip.reason));
        let reason = SkipReason::from_number(skip.reason).ok_or_else(unknown)?;
        Ok::<_, Damaged>(ScheduledSkip { due_at: Timestamp::from_micros(skip.due_at_us), reason })
    };
    Ok(ScheduleRecord {
        name: name.into(),
        timing: message.timing.into(),
        decided: Timestamp::from_micros(message.decided_us),
        last_run: message.last_run.map(run).transpose()?,
        last_skip: message.last_skip.map(skip).transpose()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::conformance::Samples;

    fn record(samples: &mut Samples) -> ScheduleRecord {
        let due_at = Timestamp::from_micros(1_700_000_000_000_000);
        ScheduleRecord {
            name: "nightly".into(),
            timing: "daily 03:00 UTC".into(),
            decided: due_at,
            last_run: Some(ScheduledRun { due_at, job_id: samples.job("acme").id }),
            last_skip: Some(ScheduledSkip { due_at, reason: SkipReason::Overlap }),
        }
    }

    #[test]
    fn what_is_written_is_read_and_every_damaged_byte_is_noticed() {
        let full = record(&mut Samples::new(1));
        let empty = ScheduleRecord { last_run: None, last_skip: None, ..full.clone() };
        let mut bytes = Vec::new();
        for record in [empty, full] {
            encode(&record, &mut bytes);
            assert_eq!(decode("nightly", &bytes), Ok(record));
            assert!(decode("hourly", &bytes).is_err(), "another one's row");
        }
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 4;
            assert!(decode("nightly", &damaged).is_err(), "byte {at}");
        }
    }

    /// These bytes are on people's disks: if this test fails, the change breaks every store there is.
    #[test]
    fn the_bytes_are_those_of_every_release() {
        let mut bytes = Vec::new();
        encode(&record(&mut Samples::new(1)), &mut bytes);
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, RELEASED);
    }

    const RELEASED: &str = concat!(
        "010a0f6461696c792030333a303020555443108080f9c0c1c482031a1b088080f9c0c1c482031210018bcfe568017000",
        "bdf89c91819e5573220b088080f9c0c1c482031002e822891b",
    );
}
