//! CRC-32, as in zip and PNG files: tells what was damaged on the disk from what is as written.
//!
//! SQLite protects its log with checksums, but not the pages of the database itself. It promises to notice
//! every flipped bit and every damaged run of up to 32 bits; it is no defence against someone who means harm.

/// A checksum in the making.
#[derive(Debug, Clone)]
pub(super) struct Crc32(crc32fast::Hasher);

impl Crc32 {
    /// Of nothing yet.
    pub(super) fn new() -> Self {
        Self(crc32fast::Hasher::new())
    }

    /// With these bytes behind what was there.
    pub(super) fn with(mut self, bytes: &[u8]) -> Self {
        self.0.update(bytes);
        self
    }

    /// The checksum.
    pub(super) fn value(self) -> u32 {
        self.0.finalize()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_one_that_was_written_before() {
        // The check value of the catalogue of CRCs for CRC-32/ISO-HDLC.
        assert_eq!(Crc32::new().with(b"1234").with(b"56789").value(), 0xcbf4_3926);
        assert_eq!(Crc32::new().value(), 0);
    }
}
