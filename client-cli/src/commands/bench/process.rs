//! An orchestrator as a second process: started, watched, killed and started again over the same data directory.
//!
//! It is the program that calls it, run again with a hidden command. A program that is not `avtomatika` itself, such as a
//! benchmark of this repository, calls [`become_orchestrator_if_asked`] first thing in its `main`.

use std::{
    io::{self, BufRead, BufReader},
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use avtomatika_orchestrator::config;

pub use super::{
    blueprint::{NAME as BLUEPRINT, TASK_TYPE},
    procfs::Memory,
};
use super::{
    orchestrator::{self, COMMAND, Serving},
    procfs,
};
use crate::{args, exit::Exit, local};

/// The client token that it knows.
pub const CLIENT_TOKEN: &str = args::DEVELOPMENT_TOKEN;

/// The worker token that it knows.
pub const WORKER_TOKEN: &str = local::WORKER_TOKEN;

/// In the process that [`OrchestratorProcess::start`] has started: runs the orchestrator to its end and returns how it
/// ended. Anywhere else: `None`, at once.
pub fn become_orchestrator_if_asked() -> Option<Exit> {
    let args: Vec<_> = std::env::args_os().collect();
    orchestrator::is_asked_for(&args).then(|| crate::run(args))
}

/// How to start an orchestrator.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The program to run: one whose `main` knows the hidden command.
    pub program: PathBuf,
    /// Directory of the store. The caller removes it.
    pub data_dir: PathBuf,
    /// Tasks in a row of the blueprint [`BLUEPRINT`], all of type [`TASK_TYPE`].
    pub tasks_per_job: u32,
    /// Concurrency keys that its jobs share; 0 for none.
    pub keys: u32,
    /// Open jobs at once.
    pub max_open_jobs: usize,
    /// Connected workers at once.
    pub max_workers: usize,
    /// How long a restarted one waits for the workers of before.
    pub adoption_window: Duration,
}

impl Settings {
    /// This very program, over that directory, with the usual limits.
    ///
    /// # Errors
    /// When the system does not say which program this is.
    pub fn new(data_dir: impl Into<PathBuf>) -> io::Result<Self> {
        Ok(Self {
            program: std::env::current_exe()?,
            data_dir: data_dir.into(),
            tasks_per_job: 1,
            keys: 0,
            max_open_jobs: config::DEFAULT_MAX_OPEN_JOBS,
            max_workers: config::DEFAULT_MAX_WORKERS,
            adoption_window: config::DEFAULT_ADOPTION_WINDOW,
        })
    }
}

/// A running orchestrator. Killed when dropped. Its methods wait for the process: not for the threads of a runtime.
#[derive(Debug)]
pub struct OrchestratorProcess {
    settings: Settings,
    child: Child,
    url: String,
}

impl OrchestratorProcess {
    /// Starts one and waits until it serves.
    ///
    /// # Errors
    /// When the program cannot be started or ends before it serves; it has said why on standard error.
    pub fn start(settings: Settings) -> io::Result<Self> {
        let (child, url) = spawn(&settings)?;
        Ok(Self { settings, child, url })
    }

    /// Where it serves REST and gRPC.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Processor time that it has used, in user and kernel mode, in steps of 10 ms. Absent where there is no `/proc`.
    pub fn cpu_time(&self) -> Option<Duration> {
        procfs::cpu_time(self.pid())
    }

    /// Its memory. Absent where there is no `/proc`.
    pub fn memory(&self) -> Option<Memory> {
        procfs::memory(self.pid())
    }

    /// Kills it (SIGKILL) and waits until it is gone. Once dead, it stays so.
    pub fn kill(&mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }

    /// Kills it and starts it again over the same data directory, at another port. Returns when it serves, hence after it has
    /// recovered its jobs.
    ///
    /// # Errors
    /// As for [`OrchestratorProcess::start`].
    pub fn restart(&mut self) -> io::Result<()> {
        self.kill()?;
        (self.child, self.url) = spawn(&self.settings)?;
        Ok(())
    }

    /// Asks it to end, and waits until it has.
    ///
    /// # Errors
    /// When it did not end in good order.
    pub fn stop(mut self) -> io::Result<()> {
        drop(self.child.stdin.take());
        let status = self.child.wait()?;
        match status.success() {
            true => Ok(()),
            false => Err(io::Error::other(format!("the orchestrator process ended with {status}"))),
        }
    }
}

impl Drop for OrchestratorProcess {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.kill();
    }
}

fn spawn(settings: &Settings) -> io::Result<(Child, String)> {
    let mut child = Command::new(&settings.program)
        .arg(COMMAND)
        .arg("--data-dir")
        .arg(&settings.data_dir)
        .args(["--tasks-per-job", &settings.tasks_per_job.to_string()])
        .args(["--keys", &settings.keys.to_string()])
        .args(["--max-open-jobs", &settings.max_open_jobs.to_string()])
        .args(["--max-workers", &settings.max_workers.to_string()])
        .args(["--adoption-window", &format!("{}ms", settings.adoption_window.as_millis())])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        // Ctrl+C is meant for who started it, and who started it ends it.
        .process_group(0)
        .spawn()?;
    match first_words(&mut child) {
        Ok(serving) => Ok((child, serving.url)),
        Err(error) => {
            let _ = child.kill();
            let status = child.wait()?;
            Err(io::Error::other(format!("the orchestrator process did not start ({status}): {error}")))
        }
    }
}

fn first_words(child: &mut Child) -> io::Result<Serving> {
    let out = child.stdout.as_mut().ok_or_else(|| io::Error::other("it has no standard output"))?;
    let mut line = String::new();
    // It says one line and nothing more, so that what is read ahead here is nothing that anybody misses.
    BufReader::new(out).read_line(&mut line)?;
    if line.is_empty() {
        return Err(io::Error::other("it ended without a word on standard output"));
    }
    serde_json::from_str(&line).map_err(io::Error::other)
}
