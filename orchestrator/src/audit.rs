//! The audit log: what operators did, and who was turned away. Each note says who, from where, what, and how it ended.
//!
//! It promises that a note costs its caller no more than a place in a queue, that queue and file are bounded, that notes which
//! were lost to a bound are counted in the next one, and that no note holds a token, a payload or the query of a URL. It refuses
//! to know what is worth noting.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    net::IpAddr,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use serde::Serialize;

use crate::time::{Clock as _, SystemClock};

/// Notes that may wait for the disk. A flood of them is a flood of calls, whose last notes say as much as all of them.
const QUEUE_MAX: usize = 4096;

/// Size at which the file is put aside as `.1`, in place of the one before: twice this is what the log takes.
const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Length of a text in a note.
const TEXT_BYTES_MAX: usize = 256;

/// How often a disk that takes no notes is complained of.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(60);

/// How long a stop waits for notes that are on their way to the disk.
const FLUSH_WITHIN: Duration = Duration::from_secs(2);

/// Something worth noting.
#[derive(Debug, Clone, Copy)]
pub struct Note<'a> {
    /// What kind of thing: `operator_call`, `token_refused`, `role_refused`, `quota_refused`, `tokens_withdrawn`.
    pub event: &'a str,
    /// Who, by name; empty when nobody knows.
    pub who: &'a str,
    /// In whose name, when it is not the caller's own.
    pub client: &'a str,
    /// From where.
    pub from: Option<IpAddr>,
    /// What was called.
    pub what: &'a str,
    /// `ok`, or the code of the error.
    pub outcome: &'a str,
    /// Notes of the same kind, from the same place, that were left out before this one.
    pub left_out: u64,
}

impl Default for Note<'_> {
    fn default() -> Self {
        Self { event: "", who: "", client: "", from: None, what: "", outcome: "ok", left_out: 0 }
    }
}

/// A note as it stands in the file.
#[derive(Serialize)]
struct Line<'a> {
    at: String,
    event: &'a str,
    who: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    client: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<IpAddr>,
    what: &'a str,
    outcome: &'a str,
    #[serde(skip_serializing_if = "is_zero")]
    left_out: u64,
    /// Notes that found the queue full since the last one.
    #[serde(skip_serializing_if = "is_zero")]
    lost: u64,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// Where notes go. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Audit(Option<Arc<Queue>>);

#[derive(Debug)]
struct Queue {
    sender: SyncSender<Message>,
    lost: AtomicU64,
}

enum Message {
    Line(String),
    Flushed(SyncSender<()>),
}

impl Audit {
    /// Notes go to the log, under the target `avtomatika_audit`.
    pub fn to_log() -> Self {
        Self(None)
    }

    /// Notes go to this file, behind what it holds. It is made for its owner alone when it is not there.
    ///
    /// # Errors
    /// What the system says when the file cannot be written.
    pub fn to_file(path: &Path) -> io::Result<Self> {
        Self::to_file_of(path, FILE_BYTES_MAX)
    }

    fn to_file_of(path: &Path, bytes_max: u64) -> io::Result<Self> {
        let book = Book::open(path, bytes_max)?;
        let (sender, messages) = sync_channel(QUEUE_MAX);
        thread::Builder::new().name("audit".into()).spawn(move || book.keep(&messages))?;
        Ok(Self(Some(Arc::new(Queue { sender, lost: AtomicU64::new(0) }))))
    }

    /// Notes this.
    pub fn note(&self, note: Note<'_>) {
        let Note { event, who, client, from, what, outcome, left_out } = note;
        let what = &what[..what.floor_char_boundary(TEXT_BYTES_MAX)];
        let Some(queue) = &self.0 else {
            let from = from.map(|from| from.to_string()).unwrap_or_default();
            return tracing::info!(
                target: "avtomatika_audit",
                event, who, client, from, what, outcome, left_out,
                "audit"
            );
        };
        let lost = queue.lost.swap(0, Ordering::Relaxed);
        let at = SystemClock::new().wall().to_rfc3339();
        let line = Line { at, event, who, client, from, what, outcome, left_out, lost };
        let mut line = serde_json::to_string(&line).expect("texts and numbers always serialise");
        line.push('\n');
        if let Err(TrySendError::Full(_)) = queue.sender.try_send(Message::Line(line)) {
            queue.lost.fetch_add(lost + 1, Ordering::Relaxed);
        }
    }

    /// Waits until what was noted is in the file, or the disk has had its time.
    pub fn flush(&self) {
        let Some(queue) = &self.0 else { return };
        let (done, flushed) = sync_channel(1);
        if queue.sender.send(Message::Flushed(done)).is_ok() {
            let _ = flushed.recv_timeout(FLUSH_WITHIN);
        }
    }
}

/// The file, on its own thread.
struct Book {
    path: PathBuf,
    file: File,
    bytes: u64,
    bytes_max: u64,
    complained: Option<Instant>,
}

impl Book {
    fn open(path: &Path, bytes_max: u64) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
        let bytes = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), file, bytes, bytes_max, complained: None })
    }

    /// Writes until nobody notes anything any more.
    fn keep(mut self, messages: &Receiver<Message>) {
        for message in messages {
            match message {
                Message::Line(line) => {
                    if let Err(error) = self.write(line.as_bytes()) {
                        self.complain(&error);
                    }
                }
                Message::Flushed(done) => drop(done.send(())),
            }
        }
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        if self.bytes > 0 && self.bytes + line.len() as u64 > self.bytes_max {
            let mut aside = self.path.clone().into_os_string();
            aside.push(".1");
            // It is not there when somebody moved it, or when the new one could not be opened the last time.
            fs::rename(&self.path, aside).or_else(|error| match error.kind() {
                io::ErrorKind::NotFound => Ok(()),
                _ => Err(error),
            })?;
            let complained = self.complained;
            *self = Self { complained, ..Self::open(&self.path, self.bytes_max)? };
        }
        self.file.write_all(line)?;
        self.bytes += line.len() as u64;
        Ok(())
    }

    fn complain(&mut self, error: &io::Error) {
        if self.complained.is_none_or(|last| last.elapsed() >= COMPLAINT_INTERVAL) {
            self.complained = Some(Instant::now());
            tracing::error!(%error, path = %self.path.display(), "the audit log cannot be written; notes are lost");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_note_is_one_line_of_json_whatever_it_says_and_the_file_is_its_owners() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.jsonl");
        let audit = Audit::to_file(&path).unwrap();
        audit.note(Note {
            event: "operator_call",
            who: "root",
            client: "acme",
            from: Some([192, 0, 2, 7].into()),
            what: "POST /api/reload\n\u{1b}[31m",
            ..Note::default()
        });
        audit.note(Note { event: "token_refused", what: &"ü".repeat(1000), left_out: 3, ..Note::default() });
        audit.flush();
        let text = fs::read_to_string(&path).unwrap();
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!((&lines[0]["who"], &lines[0]["from"]), (&"root".into(), &"192.0.2.7".into()));
        assert_eq!(lines[0]["client"], "acme");
        assert!(lines[0].get("lost").is_none() && lines[1].get("client").is_none());
        assert_eq!(lines[1]["left_out"], 3);
        assert_eq!(lines[1]["what"].as_str().unwrap().len(), TEXT_BYTES_MAX);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_file_that_somebody_has_taken_away_is_made_anew_when_it_is_full() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.jsonl");
        let audit = Audit::to_file_of(&path, 100).unwrap();
        let note = |what| {
            audit.note(Note { event: "operator_call", what, ..Note::default() });
            audit.flush();
        };
        note("before");
        fs::remove_file(&path).unwrap();
        note("one that does not fit any more, however short it is");
        note("after");
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains("after"), "{text}");
    }

    #[test]
    fn the_file_is_put_aside_when_it_is_full_and_continued_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.jsonl");
        for _ in 0..3 {
            let audit = Audit::to_file_of(&path, 1000).unwrap();
            for _ in 0..20 {
                audit.note(Note { event: "operator_call", what: "GET /api/workers", ..Note::default() });
            }
            audit.flush();
        }
        let (now, before) = (
            fs::metadata(&path).unwrap().len(),
            fs::metadata(dir.path().join("audit.jsonl.1")).unwrap().len(),
        );
        assert!(now > 0 && now <= 1000 && before > 500 && before <= 1000, "{now} {before}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_file_that_cannot_be_is_an_error_at_once() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Audit::to_file(dir.path()).is_err());
        assert!(Audit::to_file(&dir.path().join("none/audit.jsonl")).is_err());
    }
}
