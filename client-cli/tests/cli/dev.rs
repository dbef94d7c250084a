//! `avtomatika dev` as a new user runs it: it starts, shows a job, takes others, stops on Ctrl+C, and keeps its jobs.

use std::{
    io::{BufRead, BufReader, Read as _},
    process::{Child, Command, Stdio},
};

use crate::server::{avtomatika, ran};

/// A running `avtomatika dev`, and the lines that it says to people.
pub struct Dev {
    process: Child,
    said: BufReader<std::process::ChildStderr>,
    pub url: String,
}

impl Drop for Dev {
    /// A test that fails leaves nothing running.
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Dev {
    pub fn start(arguments: &[&str]) -> Self {
        let mut command = avtomatika(&["dev", "--port", "0"]);
        let mut process =
            command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(process.stderr.take().unwrap());
        let first = line_with(&mut said, "is running on ");
        let url = first.split_whitespace().find(|word| word.starts_with("http://")).unwrap().to_owned();
        Self { process, said, url }
    }

    pub fn until(&mut self, words: &str) -> String {
        line_with(&mut self.said, words)
    }

    /// Sends Ctrl+C and waits for the end; returns the exit code and what was on standard output.
    fn interrupt(mut self) -> (Option<i32>, String) {
        let kill = format!("kill -s INT {}", self.process.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
        let (mut shown, mut last_words) = (String::new(), String::new());
        self.process.stdout.take().unwrap().read_to_string(&mut shown).unwrap();
        self.said.read_to_string(&mut last_words).unwrap();
        (self.process.wait().unwrap().code(), shown)
    }
}

fn line_with(said: &mut impl BufRead, words: &str) -> String {
    let mut heard = String::new();
    loop {
        let mut line = String::new();
        assert_ne!(said.read_line(&mut line).unwrap(), 0, "it ended without {words:?}; it said:\n{heard}");
        if line.contains(words) {
            return line;
        }
        heard.push_str(&line);
    }
}

fn jobs(url: &str) -> usize {
    let answer = ran(&mut avtomatika(&["--url", url, "-o", "json", "list", "--all"]));
    assert_eq!(answer.code, 0, "{answer}");
    serde_json::from_str::<Vec<serde_json::Value>>(&answer.stdout).unwrap().len()
}

#[test]
fn it_starts_runs_a_sample_takes_jobs_and_stops_cleanly() {
    let mut dev = Dev::start(&["--ephemeral"]);
    dev.until("Stop with Ctrl+C");
    let job = ran(&mut avtomatika(&[
        "--url",
        &dev.url,
        "submit",
        "test_workflow",
        "--data",
        r#"{"input":"mine"}"#,
        "--wait",
    ]));
    assert_eq!(job.code, 0, "{job}");
    assert!(job.stdout.contains("MINE"), "{job}");
    assert_eq!(jobs(&dev.url), 2);
    let (code, shown) = dev.interrupt();
    assert_eq!(code, Some(0));
    assert!(shown.contains("SUCCESS TEST!"), "{shown}");
}

#[test]
fn it_keeps_its_jobs_from_run_to_run_and_shows_the_curl_line() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = dir.path().join("data").display().to_string();
    let dev = Dev::start(&["--data-dir", &data_dir]);
    let (code, _) = {
        let mut dev = dev;
        let curl = dev.until("curl -X POST ");
        assert!(curl.contains("/api/jobs/test"), "{curl}");
        dev.until("Stop with Ctrl+C");
        dev.interrupt()
    };
    assert_eq!(code, Some(0));
    let mut again = Dev::start(&["--data-dir", &data_dir, "--no-sample"]);
    again.until("Stop with Ctrl+C");
    assert_eq!(jobs(&again.url), 1);

    let second = ran(&mut avtomatika(&["dev", "--port", "0", "--data-dir", &data_dir]));
    assert_eq!(second.code, 2, "{second}");
    assert!(second.stderr.contains("in use by another orchestrator"), "{second}");
    let port = again.url.rsplit(':').next().unwrap().to_owned();
    let taken = ran(&mut avtomatika(&["dev", "--ephemeral", "--port", &port]));
    assert_eq!(taken.code, 2, "{taken}");
    assert!(taken.stderr.contains("--port"), "{taken}");
    assert_eq!(again.interrupt().0, Some(0));
}

#[test]
fn a_blueprint_that_is_saved_is_served_and_one_with_a_mistake_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("greeting.yaml");
    let greeting =
        |end: &str| format!("blueprint: greeting\nstates:\n  only: {{ start: true, end: {end} }}\n");
    std::fs::write(&file, greeting("finished")).unwrap();
    let mut dev =
        Dev::start(&["--ephemeral", "--no-sample", "--blueprints", &dir.path().display().to_string()]);
    dev.until("Stop with Ctrl+C");
    std::fs::write(&file, greeting("failed")).unwrap();
    dev.until("Reloaded greeting: version 2 instead of 1");
    std::fs::write(&file, greeting("nowhere")).unwrap();
    dev.until("The blueprints stay as they are, because of:");
    let finding = dev.until("greeting.yaml:3:");
    assert!(finding.contains("error: "), "{finding}");
    std::fs::write(&file, greeting("failed")).unwrap();
    dev.until("The blueprints can be used again");
    std::fs::remove_file(&file).unwrap();
    dev.until("Reloaded greeting: served no more");
    assert_eq!(dev.interrupt().0, Some(0));
}
