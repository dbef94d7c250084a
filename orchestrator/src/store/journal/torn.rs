//! What a power cut leaves of a batch that was being appended: for simulations.
//!
//! The frame is made as the journal makes it, some of its sectors reach the disk and the others stay as they were, and what is
//! then there is read as the journal reads it. It promises nothing about what is left: that is what simulations look at.

use std::sync::Arc;

use avtomatika_proto::JobId;

use super::{
    frame::{Encoder, decode, is_for_journal},
    ring,
};
use crate::{
    engine::Job,
    store::{Batch, StoreError},
};

/// What a disk writes as a whole, or not at all.
const SECTOR: usize = 512;

/// The place on the disk to which the next frame goes, with what is left there of earlier ones.
#[derive(Debug, Default)]
pub struct Place {
    bytes: Vec<u8>,
    /// Of the last frame that was written here.
    sequence: u64,
    encoder: Encoder,
}

impl Place {
    /// The power goes off while this batch is being appended. `reaches` says of one sector after the other whether it was written,
    /// and `known` what a job was before. Returns the batch that is found afterwards, if one is.
    ///
    /// # Errors
    /// Those of `known`; what is whole by its checksum and makes no sense is damage.
    pub fn tear(
        &mut self,
        batch: &Batch,
        mut reaches: impl FnMut() -> bool,
        known: impl FnMut(JobId) -> Result<Option<Arc<Job>>, StoreError>,
    ) -> Result<Option<Batch>, StoreError> {
        if !is_for_journal(batch) {
            // It takes the direct way, to a database whose transactions are whole.
            return Ok(None);
        }
        self.sequence += 1;
        let mut frame = Vec::new();
        ring::make_frame(&mut frame, ring::Salt::default(), self.sequence, self.encoder.encode(batch));
        if self.bytes.len() < frame.len() {
            self.bytes.resize(frame.len(), 0);
        }
        for (old, new) in self.bytes.chunks_mut(SECTOR).zip(frame.chunks(SECTOR)) {
            if reaches() {
                old.copy_from_slice(new);
            }
        }
        match ring::frame_at(&self.bytes, ring::Salt::default()) {
            Some((sequence, body)) if sequence == self.sequence => match decode(body, known)? {
                Ok(found) => Ok(Some(found)),
                Err(damaged) => Err(StoreError::Failed { reason: damaged.to_string() }),
            },
            _ => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::conformance::Samples;

    #[test]
    fn a_frame_of_which_a_sector_is_missing_is_not_there_and_a_whole_one_is() {
        let mut samples = Samples::new(1);
        let mut place = Place::default();
        for missing in 0..40 {
            let jobs: Vec<Job> = (0..4).map(|_| samples.job("acme")).collect();
            let batch = Batch { writes: jobs.iter().map(|job| samples.insert(job)).collect() };
            let mut sector = 0;
            let reaches = || {
                sector += 1;
                sector != missing
            };
            let found = place.tear(&batch, reaches, |_| Ok(None)).unwrap();
            // What fills the frame up to its last block is not looked at.
            let needed = (ring::FRAME_HEADER + place.encoder.encode(&batch).len()).div_ceil(SECTOR);
            match found {
                Some(found) => {
                    assert!(missing == 0 || missing > needed, "sector {missing} of {needed}");
                    assert_eq!(format!("{found:?}"), format!("{batch:?}"));
                }
                None => assert!((1..=needed).contains(&missing), "sector {missing} of {needed}"),
            }
        }
    }
}
