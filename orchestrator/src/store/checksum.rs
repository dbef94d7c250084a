//! CRC-32, as in zip and PNG files: tells a record that was damaged on the disk from one that is as written.
//!
//! SQLite protects its log with checksums, but not the pages of the database itself. It promises to notice
//! every flipped bit and every damaged run of up to 32 bits; it is no defence against someone who means harm.

/// The generator polynomial, bits reversed.
const POLYNOMIAL: u32 = 0xedb8_8320;

/// `TABLES[k][byte]` is the effect of `byte` with `k` more bytes behind it, so that eight bytes are taken in
/// one step.
static TABLES: [[u32; 256]; 8] = tables();

const fn tables() -> [[u32; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut remainder = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            let carry = remainder & 1;
            remainder >>= 1;
            if carry == 1 {
                remainder ^= POLYNOMIAL;
            }
            bit += 1;
        }
        tables[0][byte] = remainder;
        byte += 1;
    }
    let mut behind = 1;
    while behind < 8 {
        let mut byte = 0;
        while byte < 256 {
            let before = tables[behind - 1][byte];
            tables[behind][byte] = (before >> 8) ^ tables[0][(before & 0xff) as usize];
            byte += 1;
        }
        behind += 1;
    }
    tables
}

/// A checksum in the making.
#[derive(Debug, Clone, Copy)]
pub(super) struct Crc32(u32);

impl Crc32 {
    /// Of nothing yet.
    pub(super) fn new() -> Self {
        Self(u32::MAX)
    }

    /// With these bytes behind what was there.
    pub(super) fn with(self, bytes: &[u8]) -> Self {
        let (chunks, rest) = bytes.as_chunks::<8>();
        let mut state = self.0;
        for chunk in chunks {
            let [a, b, c, d] =
                (state ^ u32::from_le_bytes([chunk[0], chunk[1], chunk[2], chunk[3]])).to_le_bytes();
            state = TABLES[7][usize::from(a)]
                ^ TABLES[6][usize::from(b)]
                ^ TABLES[5][usize::from(c)]
                ^ TABLES[4][usize::from(d)]
                ^ TABLES[3][usize::from(chunk[4])]
                ^ TABLES[2][usize::from(chunk[5])]
                ^ TABLES[1][usize::from(chunk[6])]
                ^ TABLES[0][usize::from(chunk[7])];
        }
        for byte in rest {
            state = (state >> 8) ^ TABLES[0][usize::from(state as u8 ^ byte)];
        }
        Self(state)
    }

    /// The checksum.
    pub(super) fn value(self) -> u32 {
        !self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_well_known_crc_32() {
        assert_eq!(Crc32::new().with(b"123456789").value(), 0xcbf4_3926);
        assert_eq!(Crc32::new().with(b"The quick brown fox jumps over the lazy dog").value(), 0x414f_a339);
    }

    #[test]
    fn how_the_bytes_are_cut_makes_no_difference() {
        let bytes: Vec<u8> = (0..100).collect();
        let whole = Crc32::new().with(&bytes).value();
        for cut in 0..bytes.len() {
            assert_eq!(Crc32::new().with(&bytes[..cut]).with(&bytes[cut..]).value(), whole);
        }
    }
}
