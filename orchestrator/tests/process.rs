//! The real program: what it says, what it ends with, and how it stops.

#![allow(clippy::unwrap_used)]

use std::{
    io::{BufRead as _, BufReader, Read as _},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, ChildStderr, Command, Output, Stdio},
};

use avtomatika_orchestrator::store::sqlite::SqliteStore;

const TOKENS: [&str; 4] = ["--client-token", "secret-client-token", "--worker-token", "secret-worker-token"];

fn blueprints() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/blueprints")
}

/// The program, without the settings of whoever runs the tests.
fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_avtomatika-orchestrator"));
    command.env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The program with everything it needs, on a free port.
fn complete(data_dir: &Path) -> Command {
    let mut command = program();
    command.args(TOKENS).args(["--listen", "127.0.0.1:0"]);
    command.arg("--blueprints").arg(blueprints()).arg("--data-dir").arg(data_dir);
    command
}

/// Status, and what stands on stderr.
fn ended(output: Output) -> (Option<i32>, String) {
    assert!(output.stdout.is_empty(), "everything is said on stderr");
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

/// A program that says it is running; it ends with the test.
struct Running {
    child: Child,
    stderr: BufReader<ChildStderr>,
    said: String,
    port: u16,
}

impl Running {
    fn start(mut command: Command) -> Self {
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

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    }

    /// Status, and all that it said.
    fn wait(mut self) -> (Option<i32>, String) {
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

#[test]
fn it_says_where_it_runs_and_what_it_serves_and_stops_when_asked() {
    for signal in ["-TERM", "-INT"] {
        let dir = tempfile::tempdir().unwrap();
        let running = Running::start(complete(&dir.path().join("data")));
        running.signal(signal);
        let (status, said) = running.wait();
        assert_eq!(status, Some(0), "{said}");
        assert!(said.contains("  - test_workflow (version 1, POST /api/jobs/test)"), "{said}");
        assert!(said.contains("Stopped: every acknowledged job is on disk"), "{said}");
        assert!(!said.contains("secret"), "no token reaches the log: {said}");
    }
}

#[test]
fn settings_come_from_the_environment_and_from_a_file_too() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("settings.toml");
    std::fs::write(
        &file,
        format!(
            "listen = \"127.0.0.1:0\"\nblueprints = {:?}\nworker_tokens = [\"w\"]\nlog_format = \"json\"\n",
            blueprints()
        ),
    )
    .unwrap();
    let mut command = program();
    command.arg("--config").arg(&file);
    command.env("AVTOMATIKA_CLIENT_TOKEN", "a:secret-1,b:secret-2").env("XDG_DATA_HOME", dir.path());
    let running = Running::start(command);
    assert!(running.said.starts_with("{\"timestamp\":"), "{}", running.said);
    running.signal("-TERM");
    assert_eq!(running.wait().0, Some(0));
    assert!(dir.path().join("avtomatika").is_dir(), "the default data directory");
}

#[test]
fn what_keeps_it_from_starting_is_said_in_two_lines_and_by_its_status() {
    let dir = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken_port = taken.local_addr().unwrap().to_string();
    let file = dir.path().join("a file");
    std::fs::write(&file, "").unwrap();
    let empty = dir.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let first = Running::start(complete(&dir.path().join("in use")));
    let garbage = dir.path().join("garbage");
    std::fs::create_dir(&garbage).unwrap();
    std::fs::write(garbage.join("avtomatika.db"), "this is no database").unwrap();
    let newer = dir.path().join("newer");
    drop(SqliteStore::open(&newer).unwrap());
    let database = rusqlite::Connection::open(newer.join("avtomatika.db")).unwrap();
    database.execute_batch("PRAGMA user_version = 999").unwrap();
    drop(database);

    let with = |flags: &[&str], data_dir: &str| {
        let mut command = program();
        command.args(TOKENS).arg("--data-dir").arg(dir.path().join(data_dir)).args(flags);
        command
    };
    let examples = blueprints();
    let examples = ["--blueprints", examples.to_str().unwrap()];
    let free = [examples.as_slice(), &["--listen", "127.0.0.1:0"]].concat();
    for (mut command, status, text) in [
        (
            with(&[], "d"),
            2,
            "error: blueprints: no directory with blueprints is named\nhint: name one with --blueprints",
        ),
        (with(&["--blueprints", empty.to_str().unwrap()], "d"), 2, "error: blueprints: "),
        (with(&["--blueprints", "/nowhere"], "d"), 2, "error: the blueprints cannot be used:\n/nowhere: "),
        (with(&["--config", "/nowhere.toml"], "d"), 2, "error: /nowhere.toml: cannot be read: "),
        (with(&[&free[..], &["--log", "a=b=c"]].concat(), "d"), 2, "error: log: \"a=b=c\" is not a filter"),
        (with(&[&free[..], &["--listen", "0.0.0.0:0"]].concat(), "d"), 2, "error: the argument '--listen"),
        (
            with(&[&examples[..], &["--listen", "0.0.0.0:0"]].concat(), "d"),
            2,
            "error: listen: 0.0.0.0:0 can be reached",
        ),
        (
            with(&[&examples[..], &["--listen", &taken_port]].concat(), "d"),
            69,
            "error: cannot listen on 127.0.0.1:",
        ),
        (with(&free, "a file"), 73, "error: cannot use "),
        (with(&free, "in use"), 73, "error: "),
        (
            with(&free, "garbage"),
            73,
            &*format!("error: {} is damaged: ", garbage.join("avtomatika.db").display()),
        ),
        (
            with(&free, "newer"),
            73,
            &*format!("error: {} has format 999", newer.join("avtomatika.db").display()),
        ),
    ] {
        let (found, said) = ended(command.output().unwrap());
        assert_eq!(found, Some(status), "{said}");
        assert!(said.starts_with(text), "{said}");
        assert!(said.contains("\nhint: ") || said.contains("--help"), "{said}");
        assert!(!said.contains("secret") && !said.contains("panicked"), "{said}");
    }
    first.signal("-TERM");
    assert_eq!(first.wait().0, Some(0));
}

#[test]
fn help_teaches_and_shows_no_token_of_the_environment() {
    let output = program().arg("--help").env("AVTOMATIKA_CLIENT_TOKEN", "secret").output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    for text in [
        "Example:",
        "--blueprints examples/blueprints",
        "AVTOMATIKA_LISTEN",
        "Exit status:",
        "127.0.0.1:8000",
    ] {
        assert!(help.contains(text), "{text} is not in\n{help}");
    }
    assert!(!help.contains("secret"), "{help}");
}
