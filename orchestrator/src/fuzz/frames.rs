//! The journal: bodies of its frames, each a batch of entries.

use super::*;
use crate::{engine::JobStatus, store::conformance::Samples};

/// Whatever stands there is read as a batch, or named as damage; and a batch is written as it was read.
fn check(bytes: &[u8]) {
    let known = |id: JobId| Ok(Some(Arc::new(Job { id, ..Samples::new(1).job("acme") })));
    let Ok(batch) = decode(bytes, known).unwrap() else { return };
    let mut encoder = Encoder::default();
    let written = encoder.encode(&batch).to_vec();
    let again = decode(&written, known).unwrap().unwrap();
    assert_eq!(encoder.encode(&again), written);
}

fn made() -> Vec<Vec<u8>> {
    let mut samples = Samples::new(1);
    let job = samples.job("acme");
    let moved = samples.moved(&job, JobStatus::Finished);
    let writes = vec![
        samples.insert_as(&job, "k"),
        samples.update(&moved),
        Write::PutNotice(Arc::new(samples.notice(&job))),
        Write::PutSchedule(samples.schedule("nightly")),
        Write::PutBucket(samples.bucket("b")),
        Write::ForgetBuckets(job.created_at),
        Write::PutUsage(samples.usage("acme")),
        Write::RemoveJob(Removal { job_id: job.id, idempotency: Some(("acme".into(), "k".into())) }),
    ];
    let mut encoder = Encoder::default();
    let mut bodies: Vec<Vec<u8>> =
        writes.iter().map(|write| encoder.encode(&Batch { writes: vec![write.clone()] }).to_vec()).collect();
    bodies.push(encoder.encode(&Batch { writes }).to_vec());
    bodies
}

#[test]
fn fuzz_frames() {
    crate::fuzz::fuzz("frames", made(), &[], check);
}
