//! An orchestrator as a process of its own, a good client beside it, and what a flood does to both.
//!
//! The machine that runs the tests is busy with other things, so a flooded span is compared with a quiet one right before it,
//! several times, and the median counts.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

pub const CLIENT_TOKEN: &str = "token-of-a-client";
pub const WORKER_TOKEN: &str = "token-of-the-workers";

/// Quiet and flooded spans of one test.
const ROUNDS: usize = 3;

/// Requests of a good client in each span. The 99th percentile of so many is the second slowest.
const REQUESTS: usize = 150;

/// Between two of them, so that a span takes about half a second.
const PAUSE: Duration = Duration::from_millis(3);

/// What a good client may wait besides twice its usual time: what two processors that are shared with the flood, and with other
/// tests, add by themselves.
const FLOOR: Duration = Duration::from_millis(500);

/// Memory that a flood may cost. Without optimisation, a request that waits takes several times as much: a thousand of them have been
/// seen to take 81 MB.
const GROWTH_BYTES_MAX: u64 = if cfg!(debug_assertions) { 128 } else { 64 } * 1024 * 1024;

/// Time in which everything is as before.
const RECOVERY: Duration = Duration::from_secs(1);

/// Longest wait for anything that must happen.
const PATIENCE: Duration = Duration::from_secs(30);

pub struct Victim {
    child: Child,
    pub address: SocketAddr,
    _dir: TempDir,
}

impl Victim {
    pub fn start() -> Self {
        Self::start_by(Command::new(env!("CARGO_BIN_EXE_avtomatika-orchestrator")))
    }

    /// With at most so many open files.
    pub fn with_files(most: usize) -> Self {
        Self::limited(&format!("ulimit -n {most}"))
    }

    /// With so many open files, and leave to have up to so many.
    pub fn with_files_up_to(now: usize, most: usize) -> Self {
        Self::limited(&format!("ulimit -n {most}; ulimit -S -n {now}"))
    }

    fn limited(limits: &str) -> Self {
        let mut shell = Command::new("sh");
        let line = format!("{limits}; exec \"$0\" \"$@\"");
        shell.args(["-c", &line, env!("CARGO_BIN_EXE_avtomatika-orchestrator")]);
        Self::start_by(shell)
    }

    fn start_by(mut command: Command) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let blueprints = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/blueprints");
        command.env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command.args([
            "--listen",
            "127.0.0.1:0",
            "--client-token",
            CLIENT_TOKEN,
            "--worker-token",
            WORKER_TOKEN,
        ]);
        command.arg("--blueprints").arg(blueprints).arg("--data-dir").arg(dir.path());
        let mut child = command.spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        let port = loop {
            line.clear();
            assert!(log.read_line(&mut line).unwrap() > 0, "it ended early");
            if let Some((_, rest)) = line.split_once("running on http://localhost:") {
                break rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap();
            }
        };
        // What nobody reads would stop it.
        thread::spawn(move || log.read_to_end(&mut Vec::new()));
        Self { child, address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)), _dir: dir }
    }

    /// Memory that it has in use.
    pub fn resident_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    /// How many files it may have open, as things stand.
    pub fn files_max(&self) -> usize {
        let limits = fs::read_to_string(format!("/proc/{}/limits", self.child.id())).unwrap();
        let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }

    /// Processor time that it has used.
    pub fn cpu_time(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let (_, rest) = stat.rsplit_once(')').unwrap();
        // Fields 14 and 15 of proc(5), in hundredths of a second.
        let ticks: u64 = rest.split_whitespace().skip(11).take(2).map(|n| n.parse::<u64>().unwrap()).sum();
        Duration::from_millis(10 * ticks)
    }

    pub fn connect(&self) -> TcpStream {
        connect(self.address).unwrap()
    }

    /// A job whose data hold this text; returns its id.
    pub fn submit(&self, text: &str) -> String {
        let body = format!("{{\"input\":\"{text}\"}}");
        let mut stream = self.connect();
        let head = format!(
            "POST /api/jobs/test HTTP/1.1\r\nhost: localhost\r\nx-avtomatika-token: {CLIENT_TOKEN}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (_, rest) = answer.split_once("\"job_id\":\"").or(answer.split_once("\"job_id\": \"")).unwrap();
        rest[..36].to_owned()
    }

    /// Lets these floods loose, again and again, each on a thread of its own; a good client and the memory must not suffer,
    /// and soon after the end everything must be as before.
    pub fn withstands(&self, floods: &[&(dyn Fn(SocketAddr) + Sync)]) {
        let mut client = GoodClient::new(self.address);
        client.p99();
        let before = self.resident_bytes();
        let (mut quiet, mut flooded, mut most) = (Vec::new(), Vec::new(), before);
        for _ in 0..ROUNDS {
            quiet.push(client.p99());
            let stop = AtomicBool::new(false);
            thread::scope(|scope| {
                for flood in floods {
                    let stop = &stop;
                    scope.spawn(move || {
                        while !stop.load(Ordering::Relaxed) {
                            flood(self.address);
                        }
                    });
                }
                // Also when the client has had enough.
                let _stop = Stop(&stop);
                flooded.push(client.p99());
                most = most.max(self.resident_bytes());
            });
            self.recovers();
        }
        let (quiet, flooded) = (median(quiet), median(flooded));
        let limit = 2 * quiet + FLOOR;
        assert!(flooded <= limit, "p99 of a good client: {flooded:?} while flooded, {quiet:?} before");
        let growth = most.saturating_sub(before);
        assert!(growth <= GROWTH_BYTES_MAX, "grew by {growth} bytes, from {before}");
    }

    /// A new client is served, soon after whatever was.
    pub fn recovers(&self) {
        let began = Instant::now();
        while !is_served(self.address) {
            assert!(
                began.elapsed() < RECOVERY,
                "a new client is not served {:?} after the flood",
                began.elapsed()
            );
            thread::sleep(PAUSE);
        }
    }
}

/// Ends the floods when it is dropped.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        // It is gone, or it goes now.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn connect(address: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn is_served(address: SocketAddr) -> bool {
    let Ok(mut stream) = connect(address) else { return false };
    let asked = stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n");
    let mut first = [0; 15];
    asked.is_ok() && stream.read_exact(&mut first).is_ok() && first == *b"HTTP/1.1 200 OK"
}

/// A client that asks and waits, on one connection that it keeps.
struct GoodClient {
    stream: TcpStream,
}

impl GoodClient {
    fn new(address: SocketAddr) -> Self {
        let stream = connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream }
    }

    /// The 99th percentile of its next requests.
    fn p99(&mut self) -> Duration {
        let mut times: Vec<Duration> = (0..REQUESTS)
            .map(|_| {
                thread::sleep(PAUSE);
                self.ask()
            })
            .collect();
        times.sort_unstable();
        times[REQUESTS * 99 / 100]
    }

    /// Reads the list of workers, which is empty.
    fn ask(&mut self) -> Duration {
        let began = Instant::now();
        let request = format!(
            "GET /api/workers HTTP/1.1\r\nhost: localhost\r\nx-avtomatika-token: {CLIENT_TOKEN}\r\n\r\n"
        );
        self.stream.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        let mut part = [0; 1024];
        while !answer.ends_with(b"[]") {
            let read = self.stream.read(&mut part).unwrap();
            assert_ne!(read, 0, "a good client was cut off");
            answer.extend(&part[..read]);
        }
        assert!(answer.starts_with(b"HTTP/1.1 200 OK"), "{}", String::from_utf8_lossy(&answer));
        began.elapsed()
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
