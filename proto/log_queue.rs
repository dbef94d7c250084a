//! The way of log lines out of a process: through a bounded queue, written by a thread of its own.
//!
//! It promises that whoever logs never waits for whoever reads the log: a pipe that nobody empties, a terminal that was stopped or
//! a slow disk cost lines and no work. Lines are dropped whole, counted, and their number is said as soon as there is room. It
//! refuses to know what the lines say.

use std::{
    io::{self, Write},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

/// Bytes of lines that may wait for their reader. Beyond it, lines are dropped.
pub const LOG_BYTES_MAX: usize = 4 * 1024 * 1024;

/// How long the end of a process waits for its last lines to be read.
pub const LAST_LINES_WITHIN: Duration = Duration::from_secs(1);

/// Says how many lines were dropped, in the form that the log has; a whole line.
pub type Gap = fn(u64) -> String;

/// The [`Gap`] of a log of text.
pub fn gap_in_text(dropped: u64) -> String {
    format!("{}  WARN {dropped} {DROPPED}\n", now())
}

/// The [`Gap`] of a log of JSON objects.
pub fn gap_in_json(dropped: u64) -> String {
    format!(
        "{{\"timestamp\":\"{}\",\"level\":\"WARN\",\"message\":\"{dropped} {DROPPED}\",\"dropped\":{dropped}}}\n",
        now()
    )
}

const DROPPED: &str = "log lines were dropped: whoever reads the log did not keep up";

fn now() -> prost_types::Timestamp {
    prost_types::Timestamp::from(SystemTime::now())
}

/// A queue of log lines. Cheap to clone; as a writer it takes one whole line with each call.
#[derive(Debug, Clone)]
pub struct LogQueue {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// There is something to write, or everything is written.
    changed: Condvar,
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    waiting: Vec<u8>,
    /// Dropped since that was last said.
    unsaid: u64,
    is_writing: bool,
}

impl LogQueue {
    /// A queue to this end. Its thread lives as long as the process.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn to(out: impl Write + Send + 'static, gap: Gap) -> io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let writer = shared.clone();
        thread::Builder::new().name("log".to_owned()).spawn(move || writer.write_all(out, gap))?;
        Ok(Self { shared })
    }

    /// Lines that were dropped since the start.
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }

    /// Waits until everything so far is written, or until the time is over. Returns whether it is.
    pub fn flush(&self, within: Duration) -> bool {
        let until = Instant::now() + within;
        let mut state = self.shared.state();
        while state.is_writing || !state.waiting.is_empty() || state.unsaid > 0 {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.shared.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

impl Write for LogQueue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut state = self.shared.state();
        if state.waiting.len() + line.len() > LOG_BYTES_MAX {
            state.unsaid += 1;
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
            return Ok(line.len());
        }
        let is_first = state.waiting.is_empty();
        state.waiting.extend_from_slice(line);
        drop(state);
        if is_first {
            self.shared.changed.notify_all();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        // Whoever logs does not wait.
        Ok(())
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics between two changes that belong together.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything that waits goes out with one write.
    fn write_all(&self, mut out: impl Write, gap: Gap) {
        let mut lines = Vec::new();
        loop {
            let mut state = self.state();
            state.is_writing = false;
            self.changed.notify_all();
            while state.waiting.is_empty() && state.unsaid == 0 {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            std::mem::swap(&mut state.waiting, &mut lines);
            let unsaid = std::mem::take(&mut state.unsaid);
            state.is_writing = true;
            drop(state);
            if unsaid > 0 {
                lines.extend_from_slice(gap(unsaid).as_bytes());
            }
            // Nobody is left who could be told that the log is gone.
            let _ = out.write_all(&lines).and_then(|()| out.flush());
            lines.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Takes what is written only when the test lets it.
    struct Gate {
        reached: mpsc::Sender<()>,
        written: mpsc::Sender<String>,
        open: mpsc::Receiver<()>,
    }

    /// The test's side of a [`Gate`].
    struct Keeper {
        /// Says that the writer stands before the gate.
        reached: mpsc::Receiver<()>,
        open: mpsc::Sender<()>,
        read: mpsc::Receiver<String>,
    }

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.reached.send(()).map_err(io::Error::other)?;
            self.open.recv().map_err(io::Error::other)?;
            self.written.send(String::from_utf8_lossy(bytes).into_owned()).map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn gate() -> (Gate, Keeper) {
        let (has_reached, reached) = mpsc::channel();
        let (let_through, open) = mpsc::channel();
        let (written, read) = mpsc::channel();
        (Gate { reached: has_reached, written, open }, Keeper { reached, open: let_through, read })
    }

    fn gap(dropped: u64) -> String {
        format!("{dropped} dropped\n")
    }

    #[test]
    fn a_gap_is_a_line_of_its_form() {
        assert!(
            gap_in_text(7)
                .ends_with(" WARN 7 log lines were dropped: whoever reads the log did not keep up\n")
        );
        let json: serde_json::Value = serde_json::from_str(&gap_in_json(7)).unwrap();
        assert_eq!((json["level"].as_str(), json["dropped"].as_u64()), (Some("WARN"), Some(7)));
    }

    #[test]
    fn lines_come_out_whole_and_in_order() {
        let (gate, keeper) = gate();
        let mut queue = LogQueue::to(gate, gap).unwrap();
        let mut expected = String::new();
        for n in 0..100 {
            let line = format!("line {n}\n");
            queue.write_all(line.as_bytes()).unwrap();
            expected += &line;
        }
        let mut found = String::new();
        while found.len() < expected.len() {
            keeper.open.send(()).unwrap();
            found += &keeper.read.recv().unwrap();
        }
        assert_eq!(found, expected);
        assert!(queue.flush(Duration::from_secs(30)));
        assert_eq!(queue.dropped(), 0);
    }

    #[test]
    fn when_nobody_reads_lines_are_dropped_and_counted_and_nobody_waits() {
        let (gate, keeper) = gate();
        let mut queue = LogQueue::to(gate, gap).unwrap();
        let line = [b'x'; 64 * 1024];
        // One line is being written, so that what follows has the queue to itself.
        queue.write_all(&line).unwrap();
        keeper.reached.recv().unwrap();
        for _ in 0..1_000 {
            queue.write_all(&line).unwrap();
        }
        let dropped = queue.dropped();
        assert_eq!(dropped, 1_000 - (LOG_BYTES_MAX / line.len()) as u64);
        assert!(!queue.flush(Duration::from_millis(1)), "nobody reads yet");
        // They are said when somebody does.
        let mut found = String::new();
        while !found.ends_with("dropped\n") {
            keeper.open.send(()).unwrap();
            found += &keeper.read.recv().unwrap();
        }
        assert!(found.ends_with(&format!("{dropped} dropped\n")), "{}", &found[found.len() - 40..]);
        assert!(queue.flush(Duration::from_secs(30)));
    }
}
