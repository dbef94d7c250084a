//! Looks for damage in the log before SQLite reads it.
//!
//! SQLite takes the first frame of the log whose checksum does not match for its end. That is right for a
//! tail that was being written when the power went, and it would silently drop acknowledged commits if the
//! damage lay further in. The two can be told apart: a frame that continues the checksum of a commit frame
//! was written after that commit had been synced. If such a pair lies behind the first bad frame, the bad
//! frame was sound once.
//!
//! It promises never to take a torn tail for damage, and it changes nothing. Damage within the last
//! transaction looks like a torn tail and is left to SQLite. The layout of the log is described at
//! <https://www.sqlite.org/fileformat2.html#walformat>.

use std::{
    fs::File,
    io::{self, BufReader, ErrorKind, Read},
    path::Path,
};

use super::corrupt;
use crate::store::{
    StoreError,
    files::{beside, io_error},
};

/// The first word of a log; with its lowest bit set, checksums are over big-endian words.
const MAGIC: u32 = 0x377f_0682;

const HEADER_LEN: usize = 32;
const FRAME_HEADER_LEN: usize = 24;

/// Page sizes that SQLite has.
const PAGE_BYTES: std::ops::RangeInclusive<u32> = 512..=65_536;

/// Refuses the log of the database at `path` when a commit in it can be shown to be damaged.
pub(super) fn check(path: &Path) -> Result<(), StoreError> {
    let log = beside(path, "-wal");
    let file = match File::open(&log) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io_error(&log, error)),
    };
    let damage =
        find_damage(BufReader::with_capacity(1 << 20, file)).map_err(|error| io_error(&log, error))?;
    damage.map_or(Ok(()), |damage| Err(corrupt(&log, damage)))
}

/// The running checksum of a log.
type Sum = (u32, u32);

/// What every frame of this log has in common.
struct Log {
    big_endian: bool,
    salts: [u8; 8],
}

fn find_damage(mut file: impl Read) -> io::Result<Option<String>> {
    let mut header = [0; HEADER_LEN];
    if !read_whole(&mut file, &mut header)? || header == [0; HEADER_LEN] {
        // Never written, or not synced: nothing was committed into it.
        return Ok(None);
    }
    let log = Log { big_endian: word(&header, 0) & 1 == 1, salts: bytes_8(&header, 16) };
    let page_bytes = word(&header, 8);
    let sum = log.sum((0, 0), &header[..24]);
    // The header lies within one sector, which disks write as a whole.
    if word(&header, 0) & !1 != MAGIC || !PAGE_BYTES.contains(&page_bytes) || sum != stored_sum(&header, 24) {
        return Ok(Some("the header of the log is damaged".into()));
    }
    let mut frame = vec![0; FRAME_HEADER_LEN + page_bytes as usize];
    let mut last = Link { sum, commits: false };
    let mut first_bad = None;
    for number in 1_u64.. {
        if !read_whole(&mut file, &mut frame)? {
            break;
        }
        let sound = log.continues(last.sum, &frame);
        match first_bad {
            None if !sound => first_bad = Some(number),
            Some(bad) if sound && last.commits => {
                return Ok(Some(format!("frame {bad} of the log is damaged, and commits follow it")));
            }
            _ => {}
        }
        last = Link {
            sum: stored_sum(&frame, 16),
            commits: word(&frame, 4) != 0 && bytes_8(&frame, 8) == log.salts,
        };
    }
    Ok(None)
}

/// What a frame passes on to the next.
struct Link {
    sum: Sum,
    commits: bool,
}

impl Log {
    /// Whether the frame was written to this log right after the one with this checksum.
    fn continues(&self, before: Sum, frame: &[u8]) -> bool {
        bytes_8(frame, 8) == self.salts
            && self.sum(self.sum(before, &frame[..8]), &frame[FRAME_HEADER_LEN..]) == stored_sum(frame, 16)
    }

    fn sum(&self, before: Sum, bytes: &[u8]) -> Sum {
        let word = |bytes: [u8; 4]| {
            if self.big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
        };
        bytes.as_chunks::<8>().0.iter().fold(before, |(a, b), &[p, q, r, s, t, u, v, w]| {
            let a = a.wrapping_add(word([p, q, r, s])).wrapping_add(b);
            (a, b.wrapping_add(word([t, u, v, w])).wrapping_add(a))
        })
    }
}

fn stored_sum(bytes: &[u8], at: usize) -> Sum {
    (word(bytes, at), word(bytes, at + 4))
}

/// Words of the layout are big-endian.
fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn bytes_8(bytes: &[u8], at: usize) -> [u8; 8] {
    std::array::from_fn(|n| bytes[at + n])
}

/// Fills the buffer; `false` when the file ends before.
fn read_whole(file: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match file.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}
