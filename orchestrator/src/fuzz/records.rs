//! What is stored: the records of every kind, as a damaged or a foreign disk might hold them. The first byte of an input tells the kind;
//! the rest is tried as it is, and with a checksum that fits, to come past it.

use super::*;
use crate::store::{bucket, conformance::Samples, notice, schedule, usage};

const OWNER: &str = "acme";
const KEY: i64 = 7;
const KINDS: u8 = 12;

fn id() -> JobId {
    JobId::from_bytes([7; 16])
}

/// Reads a record of this kind, and writes what was read: the bytes of the second time.
fn again(kind: u8, record: &[u8]) -> Result<Vec<u8>, Damaged> {
    let mut buffer = Vec::new();
    let session_id = SessionId::from_random(7);
    match kind % KINDS {
        1 => {
            let origin = decode_submission(id(), record)?;
            let job = Job {
                id: id(),
                client: origin.client,
                submission: origin.submission,
                ..Samples::new(1).job(OWNER)
            };
            let job = Job { blueprint: origin.blueprint, blueprint_version: origin.blueprint_version, ..job };
            let job = Job { created_at: origin.created_at, ..job };
            encode_submission(&job, origin.idempotency_key.as_deref(), &mut buffer);
        }
        2 => {
            let origin = Origin::of(&Samples::new(1).job(OWNER));
            encode_job(&decode_job(id(), origin, record)?, &mut buffer);
        }
        3 => encode_history(id(), &decode_history(id(), record)?, &mut buffer),
        4 => {
            encode_session(&SessionRecord { session_id, ..decode_session(session_id, record)? }, &mut buffer)
        }
        5 => encode_blueprint(&decode_blueprint(OWNER, record)?, &mut buffer),
        6 => {
            let (job_id, fingerprint) = decode_idempotency(OWNER, OWNER, record)?;
            let key = IdempotencyKey { client: OWNER.into(), key: OWNER.into(), fingerprint };
            encode_idempotency(&key, job_id, &mut buffer);
        }
        7 => {
            let stub = decode_stub(KEY, record, &mut |text| text.into())?;
            // Where it stands is taken from the key of its row, which a foreign disk may have at odds with its id.
            encode_stub(&stub, &mut buffer);
            if stub.id.key() != KEY {
                return Ok(Vec::new());
            }
        }
        8 => {
            let read = notice::decode(KEY, 3, record)?;
            notice::encode(&read, &mut buffer);
            if read.id.job_id.key() != KEY {
                return Ok(Vec::new());
            }
        }
        9 => schedule::encode(&schedule::decode(OWNER, record)?, &mut buffer),
        10 => bucket::encode(&bucket::decode(OWNER, 60_000_000, record)?, &mut buffer),
        11 => usage::encode(&usage::decode(OWNER, record)?, &mut buffer),
        _ => {
            decode_end(id(), record)?;
        }
    }
    Ok(buffer)
}

/// The record with this content, for the owner that [`again`] reads it for.
fn sealed(kind: u8, content: &[u8]) -> Vec<u8> {
    let id = id();
    let session_id = SessionId::from_random(7);
    let idempotency = idempotency_owner(OWNER, OWNER);
    let notice = notice::owner(KEY, 3);
    let bucket = bucket::owner(OWNER, 60_000_000);
    let (kind, owner): (Kind, &[u8]) = match kind % KINDS {
        1 => (Kind::Submission, id.as_bytes()),
        2 => (Kind::Job, id.as_bytes()),
        3 => (Kind::History, id.as_bytes()),
        4 => (Kind::Session, session_id.as_bytes()),
        5 => (Kind::Blueprint, OWNER.as_bytes()),
        6 => (Kind::Idempotency, &idempotency),
        7 => (Kind::Stub, &KEY.to_le_bytes()),
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
            Ok(written) if written.is_empty() => {}
            Ok(written) => {
                let second =
                    again(*kind, &written).unwrap_or_else(|damaged| panic!("{damaged}: kind {kind}"));
                assert_eq!(second, written, "kind {kind}");
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
