//! The real program, started as whoever runs it starts it, and ways to talk to it.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, ChildStderr, Command, Output, Stdio},
    time::Duration,
};

/// Longest wait for anything that must happen; far beyond what it takes, so that only a hang meets it.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub const TOKENS: [&str; 4] =
    ["--client-token", "secret-client-token", "--worker-token", "secret-worker-token"];

pub fn blueprints() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/blueprints")
}

/// The program, without the settings of whoever runs the tests.
pub fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_avtomatika-orchestrator"));
    command.env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The program with everything it needs, on a free port.
pub fn complete(data_dir: &Path) -> Command {
    complete_on(0, data_dir)
}

/// The same on this port.
pub fn complete_on(port: u16, data_dir: &Path) -> Command {
    let mut command = program();
    command.args(TOKENS).args(["--listen", &format!("127.0.0.1:{port}")]);
    command.arg("--blueprints").arg(blueprints()).arg("--data-dir").arg(data_dir);
    command
}

/// Status, and what stands on stderr.
pub fn ended(output: Output) -> (Option<i32>, String) {
    assert!(output.stdout.is_empty(), "everything is said on stderr");
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

/// A program that says it is running; it ends with the test.
pub struct Running {
    pub child: Child,
    stderr: BufReader<ChildStderr>,
    pub said: String,
    pub port: u16,
}

impl Running {
    pub fn start(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let mut running = Self { child, stderr, said: String::new(), port: 0 };
        while running.port == 0 {
            let begin = running.said.len();
            assert!(
                running.stderr.read_line(&mut running.said).unwrap() > 0,
                "ended early: {}",
                running.said
            );
            let line = &running.said[begin..];
            if let Some((_, rest)) = line.split_once("Orchestrator is running on http://localhost:") {
                let port: String = rest.chars().take_while(char::is_ascii_digit).collect();
                running.port = port.parse().unwrap();
            }
        }
        running
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    }

    /// SIGKILL: no handler runs, nothing is flushed.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Stops it in order; all that it has said.
    pub fn stop(self) -> String {
        self.signal("-TERM");
        let (status, said) = self.wait();
        assert_eq!(status, Some(0), "{said}");
        said
    }

    /// Status, and all that it said.
    pub fn wait(mut self) -> (Option<i32>, String) {
        let mut said = std::mem::take(&mut self.said);
        self.stderr.read_to_string(&mut said).unwrap();
        (self.child.wait().unwrap().code(), said)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Status and body of the answer; `None` when there was none.
pub fn post(port: u16, path: &str) -> Option<(u16, serde_json::Value)> {
    send(port, "POST", path)
}

pub fn get(port: u16, path: &str) -> serde_json::Value {
    send(port, "GET", path).unwrap().1
}

pub fn send(port: u16, method: &str, path: &str) -> Option<(u16, serde_json::Value)> {
    send_text(port, method, path, "{}")
}

pub fn send_text(port: u16, method: &str, path: &str, body: &str) -> Option<(u16, serde_json::Value)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\nx-avtomatika-token: {}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        TOKENS[1],
        body.len()
    );
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, serde_json::from_str(body).ok()?))
}

impl Running {
    /// Reads on until a line has these words.
    pub fn until(&mut self, words: &str) -> String {
        loop {
            let begin = self.said.len();
            assert!(self.stderr.read_line(&mut self.said).unwrap() > 0, "ended early: {}", self.said);
            if self.said[begin..].contains(words) {
                return self.said[begin..].to_owned();
            }
        }
    }
}

/// Fails the test instead of hanging it.
pub async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it did not happen in time")
}
