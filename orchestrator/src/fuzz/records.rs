//! What is stored: the records of every kind, as a damaged or a foreign disk might hold them. The first byte of an input tells the kind;
//! the rest is tried as it is, and with a checksum that fits, to come past it.

use std::sync::LazyLock;

use super::*;
use crate::store::{bucket, conformance::Samples, notice, schedule, usage};

const OWNER: &str = "acme";
const KINDS: u8 = 12;

/// The job that everything here is about: the first of the samples.
fn id() -> JobId {
    static ID: LazyLock<JobId> = LazyLock::new(|| Samples::new(1).job(OWNER).id);
    *ID
}

/// Reads a record of this kind, and writes what was read: what that is, and the record. `None` where there is nothing to write again.
fn again(kind: u8, record: &[u8]) -> Result<Option<(String, Vec<u8>)>, Damaged> {
    let mut buffer = Vec::new();
    let session_id = SessionId::from_random(7);
    let read = match kind % KINDS {
        1 => {
            let origin = decode_submission(id(), record)?;
            let name = decode_name(id(), record)?;
            let read = format!("{origin:?}, {name:?}");
            let job = Job { id: id(), client: origin.client, ..Samples::new(1).job(OWNER) };
            let job = Job { blueprint: origin.blueprint, blueprint_version: origin.blueprint_version, ..job };
            let job = Job { submission: origin.submission, created_at: origin.created_at, ..job };
            encode_submission(&job, name.as_ref().map(|(_, key)| &**key), &mut buffer);
            read
        }
        2 => {
            let job = decode_job(id(), Origin::of(&Samples::new(1).job(OWNER)), record)?;
            encode_job(&job, &mut buffer);
            format!("{job:?}")
        }
        3 => {
            let entries = decode_history(id(), record)?;
            encode_history(id(), &entries, &mut buffer);
            format!("{entries:?}")
        }
        4 => {
            let session = decode_session(session_id, record)?;
            encode_session(&session, &mut buffer);
            format!("{session:?}")
        }
        5 => {
            let blueprint = decode_blueprint(OWNER, record)?;
            encode_blueprint(&blueprint, &mut buffer);
            format!("{blueprint:?}")
        }
        6 => {
            let (job_id, fingerprint) = decode_idempotency(OWNER, OWNER, record)?;
            let key = IdempotencyKey { client: OWNER.into(), key: OWNER.into(), fingerprint };
            encode_idempotency(&key, job_id, &mut buffer);
            format!("{job_id} {fingerprint:?}")
        }
        7 => {
            let stub = decode_stub(id().key(), record, &mut |text| text.into())?;
            // A foreign disk may have a row whose key is at odds with the id in it: it is written elsewhere.
            if stub.id.key() != id().key() {
                return Ok(None);
            }
            encode_stub(&stub, &mut buffer);
            format!("{stub:?}")
        }
        8 => {
            let notice = notice::decode(id().key(), 3, record)?;
            if notice.id.job_id.key() != id().key() {
                return Ok(None);
            }
            notice::encode(&notice, &mut buffer);
            format!("{notice:?}")
        }
        9 => {
            let schedule = schedule::decode(OWNER, record)?;
            schedule::encode(&schedule, &mut buffer);
            format!("{schedule:?}")
        }
        10 => {
            let bucket = bucket::decode(OWNER, 60_000_000, record)?;
            bucket::encode(&bucket, &mut buffer);
            format!("{bucket:?}")
        }
        11 => {
            let usage = usage::decode(OWNER, record)?;
            usage::encode(&usage, &mut buffer);
            format!("{usage:?}")
        }
        _ => return decode_end(id(), record).map(|_| None),
    };
    Ok(Some((read, buffer)))
}

/// The record with this content, for the owner that [`again`] reads it for.
fn sealed(kind: u8, content: &[u8]) -> Vec<u8> {
    let id = id();
    let session_id = SessionId::from_random(7);
    let idempotency = idempotency_owner(OWNER, OWNER);
    let notice = notice::owner(id.key(), 3);
    let bucket = bucket::owner(OWNER, 60_000_000);
    let (kind, owner): (Kind, &[u8]) = match kind % KINDS {
        1 => (Kind::Submission, id.as_bytes()),
        2 => (Kind::Job, id.as_bytes()),
        3 => (Kind::History, id.as_bytes()),
        4 => (Kind::Session, session_id.as_bytes()),
        5 => (Kind::Blueprint, OWNER.as_bytes()),
        6 => (Kind::Idempotency, &idempotency),
        7 => (Kind::Stub, &id.key().to_le_bytes()),
        8 => (Kind::Notice, &notice),
        9 => (Kind::Schedule, OWNER.as_bytes()),
        10 => (Kind::Bucket, &bucket),
        11 => (Kind::Usage, OWNER.as_bytes()),
        _ => (Kind::Job, id.as_bytes()),
    };
    let mut record = [&[FORMAT], content].concat();
    let sum = checksum(kind, owner, &record);
    record.extend(sum.to_le_bytes());
    record
}

/// What is read once is written so that it is read the same.
fn check(bytes: &[u8]) {
    let [kind, rest @ ..] = bytes else { return };
    for record in [rest.to_vec(), sealed(*kind, rest)] {
        match again(*kind, &record) {
            Ok(None) => {}
            Ok(Some((read, written))) => {
                let second =
                    again(*kind, &written).unwrap_or_else(|damaged| panic!("{damaged}: kind {kind}"));
                assert_eq!(second, Some((read, written)), "kind {kind}");
            }
            Err(damaged) => assert!(damaged.to_string().len() < 500, "{damaged}"),
        }
    }
}

/// The content of one record of each kind, behind its kind.
fn made() -> Vec<Vec<u8>> {
    let mut samples = Samples::new(1);
    let job = samples.job(OWNER);
    let moved = samples.moved(&job, JobStatus::WaitingForTimer);
    let mut buffer = Vec::new();
    let mut made = Vec::new();
    let mut take =
        |kind: u8, buffer: &[u8]| made.push([&[kind], &buffer[1..buffer.len() - CHECKSUM_LEN]].concat());
    encode_submission(&job, Some("order-7"), &mut buffer);
    take(1, &buffer);
    for job in [&job, &moved] {
        encode_job(job, &mut buffer);
        take(2, &buffer);
        take(0, &buffer);
        encode_stub(&Stub::of(job).unwrap(), &mut buffer);
        take(7, &buffer);
    }
    encode_history(job.id, &samples.entries(&job, 0..5), &mut buffer);
    take(3, &buffer);
    encode_session(&samples.session(Duration::ZERO), &mut buffer);
    take(4, &buffer);
    let definition = "{\"blueprint\":\"b\"}".into();
    encode_blueprint(
        &BlueprintRecord { name: OWNER.into(), version: 3, definition, is_put: true },
        &mut buffer,
    );
    take(5, &buffer);
    let key = IdempotencyKey { client: OWNER.into(), key: OWNER.into(), fingerprint: [7; 32] };
    encode_idempotency(&key, job.id, &mut buffer);
    take(6, &buffer);
    notice::encode(&samples.notice(&job), &mut buffer);
    take(8, &buffer);
    schedule::encode(&samples.schedule(OWNER), &mut buffer);
    take(9, &buffer);
    bucket::encode(&samples.bucket(OWNER), &mut buffer);
    take(10, &buffer);
    usage::encode(&samples.usage(OWNER), &mut buffer);
    take(11, &buffer);
    made
}

#[test]
fn fuzz_records() {
    let read = |input: &Vec<u8>| again(input[0], &sealed(input[0], &input[1..]));
    for input in made() {
        let read = read(&input);
        assert!(read.is_ok(), "kind {} does not come past its checksum: {read:?}", input[0]);
    }
    crate::fuzz::fuzz("records", made(), &[], check);
}
