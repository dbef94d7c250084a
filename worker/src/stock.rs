//! The life of the stock worker's process: log, signals, exit code. In the library, so that tests can be such a process.

use std::{
    io::{self, IsTerminal as _},
    time::Duration,
};

use avtomatika_proto::log_queue::{LAST_LINES_WITHIN, LogQueue, gap_in_json, gap_in_text};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{error, warn};
use tracing_subscriber::EnvFilter;

use crate::{
    Spans, Worker,
    args::{Args, LogFormat},
};

/// For handlers to be dropped, and with them their commands to be killed, when the worker leaves at once.
const ABANDON_TIMEOUT: Duration = Duration::from_secs(1);

/// Exit codes: 0 after a stop in order, 2 for a wrong command line (as clap's), 1 for everything else.
const EXIT_OK: u8 = 0;
const EXIT_FAILED: u8 = 1;
const EXIT_USAGE: u8 = 2;

/// Runs the worker until a signal or an operator stops it. Starts the process's log, hence once in a process. Returns its exit code.
pub fn run(args: Args) -> u8 {
    let log = match start_log(args.log_format) {
        Ok(log) => log,
        Err(error) => {
            eprintln!("error: cannot start the log: {error}");
            return EXIT_FAILED;
        }
    };
    let code = start(args);
    log.flush(LAST_LINES_WITHIN);
    code
}

fn start(args: Args) -> u8 {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            error!("cannot start: {error}");
            return EXIT_FAILED;
        }
    };
    let code = runtime.block_on(describe_and_work(args));
    runtime.shutdown_timeout(ABANDON_TIMEOUT);
    code
}

async fn describe_and_work(args: Args) -> u8 {
    let spans = Spans::from_environment("avtomatika-worker", None);
    let described = spans.and_then(|spans| {
        let worker = args.into_worker(spans.clone()).map_err(|error| error.to_string())?;
        Ok((worker, spans))
    });
    let (worker, spans) = match described {
        Ok(described) => described,
        Err(error) => {
            eprintln!("error: {error}");
            return EXIT_USAGE;
        }
    };
    let code = work(worker).await;
    if let Some(spans) = spans {
        spans.shutdown().await;
    }
    code
}

async fn work(worker: Worker) -> u8 {
    let (mut terminate, mut interrupt) =
        match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
            (Ok(terminate), Ok(interrupt)) => (terminate, interrupt),
            (Err(error), _) | (_, Err(error)) => {
                error!("cannot listen for signals: {error}");
                return EXIT_FAILED;
            }
        };
    let (drain, draining) = tokio::sync::oneshot::channel();
    let running = worker.run_until(async {
        // An error means that nobody will ask any more, which cannot happen while `drain` lives below.
        let _ = draining.await;
    });
    let insist = async {
        first_of(&mut terminate, &mut interrupt).await;
        let _ = drain.send(());
        first_of(&mut terminate, &mut interrupt).await;
    };
    tokio::select! {
        result = running => match result {
            Ok(()) => EXIT_OK,
            Err(error) => {
                error!("{error}");
                EXIT_FAILED
            }
        },
        () = insist => {
            warn!("Second signal: stopping at once");
            EXIT_FAILED
        }
    }
}

async fn first_of(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// Starts the log. Tasks do not wait for whoever reads it.
fn start_log(format: LogFormat) -> io::Result<LogQueue> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let is_terminal = io::stderr().is_terminal();
    let is_text = format == LogFormat::Text || (format == LogFormat::Auto && is_terminal);
    let queue = LogQueue::to(io::stderr(), if is_text { gap_in_text } else { gap_in_json })?;
    let lines = queue.clone();
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(move || lines.clone());
    let log = log.with_target(false);
    match is_text {
        true => log.with_ansi(is_terminal).init(),
        false => log.json().flatten_event(true).with_span_list(false).init(),
    }
    Ok(queue)
}
