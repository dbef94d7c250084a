//! The file of the journal: a ring of frames, each of them synced before anything rests on it.
//!
//! Frames begin at block boundaries, so that no write touches a block that holds an earlier frame, and carry consecutive
//! sequence numbers. Space is used again once it is released. The file grows in steps of zeros: within a step a frame
//! overwrites blocks that the disk has already, which syncs in less than half the time of an append.
//!
//! It promises that a frame that was appended is found again, that a frame that was being appended when the power went is
//! either found whole or not at all, and that the loss of a synced frame is noticed. It refuses to know what frames hold.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use crate::store::{
    StoreError,
    checksum::Crc32,
    files::{self, Identity, PRIVATE_FILE, io_error},
};

/// What frames are aligned to: the page of the kernel's cache, and the largest sector of a disk.
const BLOCK: u64 = 4096;

/// How much the file grows by.
const STEP: u64 = 1024 * 1024;

/// Marks the file.
const FILE_MAGIC: &[u8; 8] = b"AvtoJrnl";

/// The format of the file.
const FORMAT: u32 = 1;

/// Marks the beginning of a frame.
const FRAME_MAGIC: u32 = 0x4a46_7641;

/// Magic, checksum, sequence number, length of the body.
pub(super) const FRAME_HEADER: usize = 20;

/// Makes the checksums of this file its own: what a client put into a payload is never taken for a frame, because nobody
/// outside knows it.
pub(super) type Salt = [u8; 16];

/// The journal's file.
#[derive(Debug)]
pub(super) struct Ring {
    file: File,
    path: PathBuf,
    identity: Option<Identity>,
    salt: Salt,
    /// Bytes for frames at most.
    capacity: u64,
    /// Bytes for frames that have been written once.
    grown: u64,
    /// Where the next frame goes, counted over all rounds.
    head: u64,
    /// Before here everything is released.
    tail: u64,
    next_sequence: u64,
    buffer: Vec<u8>,
}

/// A frame that is on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Appended {
    /// Its number.
    pub(super) sequence: u64,
    /// What to release when the frame is no longer needed.
    pub(super) end: u64,
}

/// The frames that were found in a file, in their order.
#[derive(Debug)]
pub(super) struct Found {
    /// The number of the first one.
    pub(super) first_sequence: u64,
    /// What they hold.
    pub(super) bodies: Vec<Vec<u8>>,
}

impl Ring {
    /// Opens the ring at `path`, or makes one, and returns the frames that follow `applied`. They are released already:
    /// the caller takes care of them before it appends.
    pub(super) fn open(path: &Path, capacity: u64, applied: u64) -> Result<(Self, Found), StoreError> {
        if files::len(path)?.is_none() {
            if applied > 0 {
                tracing::warn!(path = %path.display(), "the journal was removed; what it held and the database did not is lost");
            }
            create(path)?;
        }
        let file =
            OpenOptions::new().read(true).write(true).open(path).map_err(|error| io_error(path, error))?;
        let bytes = fs::read(path).map_err(|error| io_error(path, error))?;
        let salt = read_header(&bytes).ok_or_else(|| damaged(path, "it does not begin as a journal does"))?;
        let found = find(&bytes, salt, applied).map_err(|reason| damaged(path, &reason))?;
        let next_sequence = found.first_sequence + found.bodies.len() as u64;
        let ring = Self {
            file,
            path: path.to_owned(),
            identity: files::identity(path),
            salt,
            capacity,
            grown: (bytes.len() as u64).saturating_sub(BLOCK) / BLOCK * BLOCK,
            head: 0,
            tail: 0,
            next_sequence,
            buffer: Vec::new(),
        };
        Ok((ring, found))
    }

    /// Whether a frame with a body of this length can ever be appended.
    pub(super) fn is_large_enough_for(&self, body_len: usize) -> bool {
        // Half: at the end of a round the rest may have to be skipped.
        frame_len(body_len) <= self.capacity / 2
    }

    /// Whether a frame with a body of this length can be appended now.
    pub(super) fn has_room_for(&self, body_len: usize) -> bool {
        let len = frame_len(body_len);
        self.start_of_next(len) + len - self.tail <= self.capacity
    }

    /// Everything before `end` may be overwritten.
    pub(super) fn release(&mut self, end: u64) {
        self.tail = self.tail.max(end);
    }

    /// Appends a frame and syncs it. The caller has seen to it that there is room.
    pub(super) fn append(&mut self, body: &[u8]) -> Result<Appended, StoreError> {
        let len = frame_len(body.len());
        let start = self.start_of_next(len);
        let at = start % self.capacity;
        make_frame(&mut self.buffer, self.salt, self.next_sequence, body);
        self.write(at, len).map_err(|error| match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                StoreError::Full { path: self.path.clone() }
            }
            _ => self.failed(&error),
        })?;
        // From here on the frame may be found after a crash: a disk that is full now has not refused it.
        self.file.sync_data().map_err(|error| self.failed(&error))?;
        if self.identity.is_none() || files::identity(&self.path) != self.identity {
            let reason = format!("{} was moved, replaced or removed while in use", self.path.display());
            return Err(StoreError::Failed { reason });
        }
        let appended = Appended { sequence: self.next_sequence, end: start + len };
        self.head = appended.end;
        self.next_sequence += 1;
        Ok(appended)
    }

    /// A frame lies in one piece: one that does not fit the rest of this round begins the next.
    fn start_of_next(&self, len: u64) -> u64 {
        let rest = self.capacity - self.head % self.capacity;
        if len <= rest { self.head } else { self.head + rest }
    }

    /// Writes the frame and does not sync it. Of one that fails, nothing or a part is there, which is no frame.
    fn write(&mut self, at: u64, len: u64) -> io::Result<()> {
        let end = at + len;
        if end > self.grown {
            let grown = end.next_multiple_of(STEP).min(self.capacity);
            let zeros = vec![0; (grown - self.grown) as usize];
            self.file.write_all_at(&zeros, BLOCK + self.grown)?;
            self.file.sync_data()?;
            self.grown = grown;
        }
        self.file.write_all_at(&self.buffer, BLOCK + at)
    }

    fn failed(&self, error: &io::Error) -> StoreError {
        StoreError::Failed { reason: format!("disk I/O error at {}: {error}", self.path.display()) }
    }
}

/// Makes an empty ring, under another name until it is complete.
fn create(path: &Path) -> Result<(), StoreError> {
    let mut salt = Salt::default();
    getrandom::fill(&mut salt).map_err(|error| StoreError::Failed {
        reason: format!("the system gives no random numbers: {error}"),
    })?;
    let mut header = Vec::with_capacity(BLOCK as usize);
    header.extend_from_slice(FILE_MAGIC);
    header.extend_from_slice(&FORMAT.to_le_bytes());
    header.extend_from_slice(&salt);
    header.extend_from_slice(&Crc32::new().with(&header).value().to_le_bytes());
    header.resize(BLOCK as usize, 0);
    let unfinished = files::beside(path, ".new");
    files::remove(&unfinished)?;
    let made = OpenOptions::new().write(true).create_new(true).mode(PRIVATE_FILE).open(&unfinished).and_then(
        |file| {
            file.write_all_at(&header, 0)?;
            file.sync_all()
        },
    );
    made.and_then(|()| fs::rename(&unfinished, path)).map_err(|error| io_error(path, error))?;
    path.parent().map_or(Ok(()), files::sync_dir)
}

fn read_header(bytes: &[u8]) -> Option<Salt> {
    let (header, rest) = bytes.split_at_checked(28)?;
    let sum = Crc32::new().with(header).value().to_le_bytes();
    let is_ours =
        header.starts_with(FILE_MAGIC) && header[8..12] == FORMAT.to_le_bytes() && rest.starts_with(&sum);
    if is_ours { header[12..].try_into().ok() } else { None }
}

/// The frames after `applied`. A missing one with later ones behind it was synced once, and is damage.
fn find(bytes: &[u8], salt: Salt, applied: u64) -> Result<Found, String> {
    let mut frames: Vec<(u64, &[u8])> = (BLOCK as usize..bytes.len())
        .step_by(BLOCK as usize)
        .filter_map(|at| frame_at(&bytes[at..], salt))
        .filter(|(sequence, _)| *sequence > applied)
        .collect();
    frames.sort_unstable_by_key(|(sequence, _)| *sequence);
    for (expected, (sequence, _)) in (applied + 1..).zip(&frames) {
        if *sequence != expected {
            return Err(format!("frame {expected} is missing or damaged, and frame {sequence} follows it"));
        }
    }
    let bodies = frames.into_iter().map(|(_, body)| body.to_vec()).collect();
    Ok(Found { first_sequence: applied + 1, bodies })
}

/// The frame with this body, filled up to the end of its last block, takes the place of what is in the buffer.
pub(super) fn make_frame(buffer: &mut Vec<u8>, salt: Salt, sequence: u64, body: &[u8]) {
    buffer.clear();
    buffer.extend_from_slice(&FRAME_MAGIC.to_le_bytes());
    buffer.extend_from_slice(&frame_sum(salt, sequence, body).to_le_bytes());
    buffer.extend_from_slice(&sequence.to_le_bytes());
    buffer.extend_from_slice(&(body.len() as u32).to_le_bytes());
    buffer.extend_from_slice(body);
    buffer.resize(frame_len(body.len()) as usize, 0);
}

/// The frame that begins here, if one does.
pub(super) fn frame_at(bytes: &[u8], salt: Salt) -> Option<(u64, &[u8])> {
    let (header, rest) = bytes.split_first_chunk::<FRAME_HEADER>()?;
    let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let sequence = u64::from(word(8)) | u64::from(word(12)) << 32;
    let body = rest.get(..word(16) as usize)?;
    (word(0) == FRAME_MAGIC && word(4) == frame_sum(salt, sequence, body)).then_some((sequence, body))
}

fn frame_sum(salt: Salt, sequence: u64, body: &[u8]) -> u32 {
    let len = body.len() as u64;
    Crc32::new().with(&salt).with(&sequence.to_le_bytes()).with(&len.to_le_bytes()).with(body).value()
}

fn frame_len(body_len: usize) -> u64 {
    ((FRAME_HEADER + body_len) as u64).next_multiple_of(BLOCK)
}

fn damaged(path: &Path, reason: &str) -> StoreError {
    StoreError::Corrupt { path: path.to_owned(), reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAPACITY: u64 = 16 * BLOCK;

    fn open(path: &Path, applied: u64) -> (Ring, Vec<Vec<u8>>) {
        let (ring, found) = Ring::open(path, CAPACITY, applied).unwrap();
        (ring, found.bodies)
    }

    #[test]
    fn frames_are_found_again_and_the_applied_ones_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let (mut ring, found) = open(&path, 0);
        assert!(found.is_empty());
        for body in ["a", "b", "c"] {
            ring.append(body.as_bytes()).unwrap();
        }
        assert_eq!(open(&path, 0).1, [b"a", b"b", b"c"]);
        assert_eq!(open(&path, 2).1, [b"c"]);
        let (mut ring, found) = open(&path, 3);
        assert!(found.is_empty());
        assert_eq!(ring.append(b"d").unwrap().sequence, 4);
        assert_eq!(open(&path, 3).1, [b"d"]);
    }

    #[test]
    fn released_space_is_used_again_round_after_round_and_unreleased_space_never() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let (mut ring, _) = open(&path, 0);
        let mut live: Vec<(Appended, Vec<u8>)> = Vec::new();
        for round in 0..200_u64 {
            let body = vec![round as u8; (round * 977 % 12_000) as usize];
            while !ring.has_room_for(body.len()) {
                let (oldest, _) = live.remove(0);
                ring.release(oldest.end);
            }
            live.push((ring.append(&body).unwrap(), body));
            let applied = live[0].0.sequence - 1;
            let bodies: Vec<_> = live.iter().map(|(_, body)| body.clone()).collect();
            assert_eq!(open(&path, applied).1, bodies, "round {round}");
        }
        assert!(fs::metadata(&path).unwrap().len() <= BLOCK + CAPACITY);
    }

    #[test]
    fn a_torn_last_frame_is_not_there_and_a_torn_earlier_one_is_damage() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let (mut ring, _) = open(&path, 0);
        for n in 0..3_u8 {
            ring.append(&[n + 1; 6000]).unwrap();
        }
        let sound = fs::read(&path).unwrap();
        for at in (BLOCK as usize..BLOCK as usize * 7).step_by(61) {
            let mut torn = sound.clone();
            torn[at] ^= 0x20;
            fs::write(&path, &torn).unwrap();
            let (frame, place) =
                ((at - BLOCK as usize) / (2 * BLOCK as usize), (at - BLOCK as usize) % (2 * BLOCK as usize));
            let is_padding = place >= FRAME_HEADER + 6000;
            match Ring::open(&path, CAPACITY, 0) {
                Ok((_, found)) if is_padding => assert_eq!(found.bodies.len(), 3),
                Ok((_, found)) => assert_eq!((frame, found.bodies.len()), (2, 2), "byte {at}"),
                Err(StoreError::Corrupt { .. }) => assert!(frame < 2 && !is_padding, "byte {at}"),
                Err(error) => panic!("byte {at}: {error}"),
            }
        }
    }

    #[test]
    fn a_payload_that_looks_like_a_frame_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let (victim, forge) = (dir.path().join("journal"), dir.path().join("forge"));
        let (mut other, _) = open(&forge, 0);
        for _ in 0..3 {
            other.append(b"forged").unwrap();
        }
        // The frame of another journal, at a block boundary of this one.
        let forged = &fs::read(&forge).unwrap()[3 * BLOCK as usize..][..BLOCK as usize];
        let mut body = vec![0; BLOCK as usize - FRAME_HEADER];
        body.extend_from_slice(forged);
        let (mut ring, _) = open(&victim, 0);
        ring.append(&body).unwrap();
        assert_eq!(open(&victim, 0).1, [body]);
    }

    #[test]
    fn what_is_no_journal_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        for bytes in [&b""[..], b"short", &[0; 8192]] {
            fs::write(&path, bytes).unwrap();
            let error = Ring::open(&path, CAPACITY, 0).unwrap_err();
            assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
        }
    }
}
