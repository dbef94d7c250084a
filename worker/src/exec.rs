//! Runs a command for each task, so that any program can be a worker's handler.
//!
//! | | |
//! |---|---|
//! | stdin | the task's params, JSON |
//! | environment | `AVTOMATIKA_TASK_ID`, `AVTOMATIKA_JOB_ID`, `AVTOMATIKA_TASK_TYPE`, `AVTOMATIKA_ATTEMPT`, `AVTOMATIKA_WORKER_ID`, `AVTOMATIKA_DEADLINE` (RFC 3339, absent without one), `AVTOMATIKA_CHECKPOINT` (how far the attempts before this one came, a JSON object as the last of them left it; absent when none did); no other `AVTOMATIKA_*` variable, hence no token; `TRACEPARENT` and `TRACESTATE` when the job belongs to a trace |
//! | stdout | the result: a JSON object; nothing means `{}`, and anything else is `INVALID_RESULT_ERROR` |
//! | stderr | logged line by line with the task's id; the last lines go into the error message |
//! | descriptor 3 | how far it is: a line `progress 40% page 4 of 10` is for people, a line `checkpoint {"page": 4}` for the next attempt |
//! | exit code 0 | success |
//! | exit code 65 | the job's data is at fault: `INVALID_INPUT_ERROR` |
//! | exit code 70 | `PERMANENT_ERROR`, not tried again |
//! | any other, or a signal | `TRANSIENT_ERROR`, tried again by the state's policy |
//!
//! The command has its own process group. When the attempt is to stop the group gets SIGTERM, and SIGKILL when it is still
//! there after a grace. Whatever the command leaves running in its group is killed when it ends.

mod reports;

use std::{
    collections::{HashMap, VecDeque},
    io,
    os::unix::process::ExitStatusExt as _,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use avtomatika_proto::{limits, outcome, task_error};
use command_fds::{CommandFdExt as _, FdMapping};
use rustix::process::{Pid, Signal, kill_process_group};
use serde::de::IgnoredAny;
use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    process::{Child, ChildStdin, Command},
    time::timeout,
};
use tracing::info;

use self::reports::Reports;
use crate::{Handler, HandlerFuture, TaskContext, TaskError, TaskOutcome, error::cut, handler::too_large};

/// Exit code by which a command says that the job's data is at fault (`EX_DATAERR`).
pub const EXIT_INVALID_INPUT: i32 = 65;

/// Exit code by which a command says that trying again is useless (`EX_SOFTWARE`).
pub const EXIT_PERMANENT: i32 = 70;

/// Between SIGTERM and SIGKILL.
pub const KILL_GRACE: Duration = Duration::from_secs(2);

/// For the pipes to close after the command has ended, and for the session to see the end before it drops the handler.
const PIPE_GRACE: Duration = Duration::from_millis(500);

/// A line of stderr is cut here, so that a command cannot make one log line of any size.
const STDERR_LINE_BYTES_MAX: usize = 4096;

/// Lines of stderr that go into the error message: the last ones usually say why.
const STDERR_LINES_KEPT: usize = 5;

/// A [`Handler`] that runs a shell command for each task. See the [module](self).
#[derive(Debug, Clone)]
pub struct Exec {
    command: String,
    kill_grace: Duration,
}

impl Exec {
    /// Runs `sh -c command`.
    pub fn new(command: impl Into<String>) -> Self {
        Self { command: command.into(), kill_grace: KILL_GRACE }
    }

    /// The same with another time between SIGTERM and SIGKILL.
    pub fn kill_grace(mut self, kill_grace: Duration) -> Self {
        self.kill_grace = kill_grace;
        self
    }
}

impl Handler for Exec {
    fn call(&self, params: String, context: TaskContext) -> HandlerFuture {
        let exec = self.clone();
        Box::pin(async move { exec.run(params, context).await })
    }

    fn stop_grace(&self) -> Duration {
        self.kill_grace.saturating_add(PIPE_GRACE)
    }
}

impl Exec {
    async fn run(self, params: String, context: TaskContext) -> Result<TaskOutcome, TaskError> {
        let (mut child, mut reports) = spawn(&self.command, &context).map_err(|error| {
            TaskError::transient(format!("cannot start sh for {:?}: {error}", self.command))
        })?;
        let mut group = Group::of(&child);
        let pipes = serve_pipes(&mut child, params)?;
        let mut pipes = std::pin::pin!(pipes);
        let mut served = None;

        let exited = tokio::select! {
            exited = exit(&mut child, pipes.as_mut(), &mut served, &mut reports) => exited,
            () = context.cancellation().cancelled() => {
                group.terminate();
                // The pipes are read on, or a command that says goodbye at length could not end.
                let leave = exit(&mut child, pipes.as_mut(), &mut served, &mut reports);
                if timeout(self.kill_grace, leave).await.is_err() {
                    let message = format!("the command was still there {:?} after SIGTERM and was killed", self.kill_grace);
                    return Err(TaskError::custom(task_error::NOT_STOPPED, message));
                }
                reports.finish()?;
                return Err(TaskError::transient("the command was stopped"));
            }
        };
        let status = exited?;
        group.kill();
        reports.finish()?;
        let (stdout, stderr) = match served {
            Some(served) => served,
            None => timeout(PIPE_GRACE, pipes).await.map_err(|_| {
                TaskError::transient(
                    "the command ended, but a process that it started outside its process group holds its stdout or \
                     stderr open",
                )
            })??,
        };
        conclude(status, stdout, &stderr)
    }
}

/// What a command wrote: its stdout, and the last lines of its stderr.
type Written = (Vec<u8>, VecDeque<String>);

/// Feeds the params and reads both outputs. Fails as soon as stdout is more than a result may be.
fn serve_pipes(
    child: &mut Child,
    params: String,
) -> Result<impl Future<Output = Result<Written, TaskError>> + use<>, TaskError> {
    let (Some(stdin), Some(stdout), Some(stderr)) =
        (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err(TaskError::transient("the command has no pipes"));
    };
    Ok(async move {
        let stderr = async { Ok(log_stderr(stderr).await) };
        let feed = async {
            feed(stdin, params).await;
            Ok(())
        };
        let (stdout, stderr, ()) = tokio::try_join!(read_stdout(stdout), stderr, feed)?;
        Ok((stdout, stderr))
    })
}

/// Waits for the command's end while its pipes are served and its reports are passed on. What it wrote is in `served` if the pipes
/// closed before the end.
async fn exit(
    child: &mut Child,
    mut pipes: std::pin::Pin<&mut impl Future<Output = Result<Written, TaskError>>>,
    served: &mut Option<Written>,
    reports: &mut Reports,
) -> Result<ExitStatus, TaskError> {
    let mut reporting = true;
    loop {
        tokio::select! {
            status = child.wait() => {
                return status.map_err(|error| TaskError::transient(format!("cannot wait for the command: {error}")));
            }
            written = pipes.as_mut(), if served.is_none() => *served = Some(written?),
            silent = reports.follow(), if reporting => {
                silent?;
                reporting = false;
            }
        }
    }
}

fn spawn(command: &str, context: &TaskContext) -> io::Result<(Child, Reports)> {
    let mut sh = Command::new("sh");
    sh.arg("-c").arg(command);
    sh.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    sh.process_group(0).kill_on_drop(true);
    // The worker's own settings are not the command's business, least of all its token.
    for (key, _) in std::env::vars_os() {
        if key.to_string_lossy().starts_with("AVTOMATIKA_") {
            sh.env_remove(key);
        }
    }
    sh.env("AVTOMATIKA_TASK_ID", context.task_id());
    sh.env("AVTOMATIKA_JOB_ID", context.job_id());
    sh.env("AVTOMATIKA_TASK_TYPE", context.task_type());
    sh.env("AVTOMATIKA_ATTEMPT", context.attempt().to_string());
    sh.env("AVTOMATIKA_WORKER_ID", context.worker_id());
    // What this process was itself started with is another trace.
    sh.env_remove("TRACEPARENT").env_remove("TRACESTATE");
    if let Some(trace) = context.trace() {
        sh.env("TRACEPARENT", trace.traceparent());
        sh.envs(trace.state.as_deref().map(|state| ("TRACESTATE", state)));
    }
    if let Some(deadline) = context.deadline_text() {
        sh.env("AVTOMATIKA_DEADLINE", deadline);
    }
    if let Some(checkpoint) = context.checkpoint_text() {
        sh.env("AVTOMATIKA_CHECKPOINT", checkpoint);
    }
    let (reports, end) = Reports::of(context)?;
    let mapping = FdMapping { parent_fd: end, child_fd: reports::DESCRIPTOR };
    sh.as_std_mut().fd_mappings(vec![mapping]).map_err(io::Error::other)?;
    // The command's end of the pipe closes here with `sh`, so that the pipe ends with the last process that holds it.
    Ok((sh.spawn()?, reports))
}

/// The command's process group. Killed when this is dropped, so that no way out of the handler leaves it running.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        Self(child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw))
    }

    fn terminate(&self) {
        if let Some(group) = self.0 {
            // The only failure is that nobody is left.
            let _ = kill_process_group(group, Signal::TERM);
        }
    }

    /// At most once: later the number may belong to somebody else.
    fn kill(&mut self) {
        if let Some(group) = self.0.take() {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A command need not read its params: a closed pipe is no error.
async fn feed(mut stdin: ChildStdin, params: String) {
    if let Err(error) = stdin.write_all(params.as_bytes()).await
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        info!("Cannot write the params to the command: {error}");
    }
}

async fn read_stdout(stdout: impl AsyncRead + Unpin) -> Result<Vec<u8>, TaskError> {
    let mut bytes = Vec::new();
    // One byte more than allowed tells a full result from one that is too large.
    let mut limited = stdout.take(limits::PAYLOAD_BYTES_MAX as u64 + 1);
    match limited.read_to_end(&mut bytes).await {
        Err(error) => Err(TaskError::transient(format!("cannot read the command's stdout: {error}"))),
        // Nobody has read how much there is.
        Ok(_) if bytes.len() > limits::PAYLOAD_BYTES_MAX => {
            Err(too_large(&format!("more than {}", limits::PAYLOAD_BYTES_MAX)))
        }
        Ok(_) => Ok(bytes),
    }
}

/// Logs each line; returns the last ones.
async fn log_stderr(stderr: impl AsyncRead + Unpin) -> VecDeque<String> {
    let mut reader = BufReader::new(stderr);
    let mut last = VecDeque::with_capacity(STDERR_LINES_KEPT);
    // A pipe that cannot be read any more has said what it had to say.
    while let Ok(Some(line)) = next_line(&mut reader).await {
        info!("{line}");
        if last.len() == STDERR_LINES_KEPT {
            last.pop_front();
        }
        last.push_back(line);
    }
    last
}

/// The next line without its end; a line over the limit comes in pieces. `None` at the end.
async fn next_line(reader: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    let mut limited = reader.take(STDERR_LINE_BYTES_MAX as u64);
    if limited.read_until(b'\n', &mut line).await? == 0 {
        return Ok(None);
    }
    let line = String::from_utf8_lossy(&line);
    Ok(Some(line.trim_end_matches(['\n', '\r']).to_owned()))
}

fn conclude(
    status: ExitStatus,
    stdout: Vec<u8>,
    stderr: &VecDeque<String>,
) -> Result<TaskOutcome, TaskError> {
    let message = match (status.code(), status.signal()) {
        (Some(0), _) => return result_of(stdout),
        (Some(127), _) => "the command was not found (exit code 127)".to_owned(),
        (Some(code), _) => format!("the command ended with exit code {code}"),
        (None, Some(signal)) => format!("the command was killed by {}", signal_name(signal)),
        (None, None) => format!("the command ended with {status}"),
    };
    let message = with_last_lines(message, stderr);
    Err(match status.code() {
        Some(EXIT_INVALID_INPUT) => TaskError::invalid_input(message),
        Some(EXIT_PERMANENT) => TaskError::permanent(message),
        _ => TaskError::transient(message),
    })
}

fn signal_name(signal: i32) -> String {
    match signal {
        6 => "SIGABRT".to_owned(),
        9 => "SIGKILL (the system does that when memory runs out)".to_owned(),
        11 => "SIGSEGV".to_owned(),
        15 => "SIGTERM".to_owned(),
        other => format!("signal {other}"),
    }
}

fn with_last_lines(mut message: String, stderr: &VecDeque<String>) -> String {
    if !stderr.is_empty() {
        message.push_str(": ");
        message.push_str(&stderr.iter().map(String::as_str).collect::<Vec<_>>().join("\n"));
    }
    cut(&mut message, limits::ERROR_MESSAGE_BYTES_MAX);
    message
}

/// The result as the command wrote it: parsed to be checked, passed on unchanged.
fn result_of(stdout: Vec<u8>) -> Result<TaskOutcome, TaskError> {
    let unusable = |message: String| TaskError::custom(task_error::INVALID_RESULT, message);
    let text = String::from_utf8(stdout).map_err(|_| {
        unusable("the command's stdout is not UTF-8; write a JSON object, and log to stderr".to_owned())
    })?;
    let text = text.trim();
    if !text.is_empty() {
        serde_json::from_str::<HashMap<String, IgnoredAny>>(text).map_err(|error| {
            let start: String = text.chars().take(80).collect();
            unusable(format!(
                "the command's stdout is not a JSON object ({error}); it starts with {start:?}. Write the result to stdout \
                 and everything else to stderr"
            ))
        })?;
    }
    Ok(TaskOutcome::raw(outcome::SUCCESS, text.to_owned()))
}
