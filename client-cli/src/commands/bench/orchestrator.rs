//! `avtomatika bench-orchestrator`: the orchestrator that `bench` measures, in a process of its own. Hidden: for programs.
//!
//! It says where it listens in one line of JSON on standard output, and ends in good order when its standard input is closed:
//! whoever started it cannot leave it behind.

use std::{
    ffi::OsString,
    io::{self, Read, Write},
    path::PathBuf,
    thread,
};

use avtomatika_orchestrator::{
    blueprint::load,
    config::{self, LogFormat},
    memory, telemetry,
};
use clap::Parser;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::blueprint;
use crate::{
    exit::Exit,
    failure::Failure,
    local::{self, Limits},
    span::Span,
};

/// The word after the program's name that asks for it. It is not among the commands that people see.
pub(super) const COMMAND: &str = "bench-orchestrator";

/// Options of `bench-orchestrator`.
#[derive(Debug, clap::Parser)]
#[command(name = COMMAND)]
pub(crate) struct Args {
    /// Directory of the store
    #[arg(long)]
    data_dir: PathBuf,

    /// Tasks in a row of the blueprint `bench`
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=i64::from(blueprint::TASKS_MAX)))]
    tasks_per_job: u32,

    /// Concurrency keys that its jobs share
    #[arg(long, default_value_t = 0)]
    keys: u32,

    #[arg(long, default_value_t = config::DEFAULT_MAX_OPEN_JOBS)]
    max_open_jobs: usize,

    #[arg(long, default_value_t = config::DEFAULT_MAX_WORKERS)]
    max_workers: usize,

    #[arg(long, default_value = "5s")]
    adoption_window: Span,
}

/// Whether a command line, which begins with the program's name, asks for an orchestrator.
pub(crate) fn is_asked_for(args: &[OsString]) -> bool {
    args.get(1).is_some_and(|first| first == COMMAND)
}

impl Args {
    /// Reads a command line that asks for one.
    pub(crate) fn read(args: Vec<OsString>) -> Result<Self, clap::Error> {
        Self::try_parse_from(args.into_iter().skip(1))
    }
}

/// What it says once it serves.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Serving {
    pub(super) url: String,
}

pub(crate) async fn run(args: Args) -> Result<Exit, Failure> {
    // A log that somebody else has started in this process serves as well.
    let _log = telemetry::filter("warn").map(|filter| telemetry::start(LogFormat::Text, filter));
    memory::do_without_huge_pages();
    let limits = Limits {
        max_open_jobs: args.max_open_jobs,
        max_workers: args.max_workers,
        adoption_window: args.adoption_window.0,
    };
    let loaded = load("bench.yaml", &blueprint::text(args.tasks_per_job, args.keys)).map_err(|findings| {
        Failure::System(format!("the blueprint of the benchmark is not sound: {}", findings[0]))
    })?;
    let (listener, port) = local::listen(0).await?;
    let app = local::orchestrator(&args.data_dir, vec![loaded.definition], limits)?;
    say(&Serving { url: format!("http://127.0.0.1:{port}") })?;
    app.serve(listener, until_input_ends()).await.map_err(|error| local::unusable(&error))?;
    Ok(Exit::Ok)
}

fn say(serving: &Serving) -> Result<(), Failure> {
    // Text and nothing that could fail to be JSON.
    let line = serde_json::to_string(serving).unwrap_or_default();
    let mut out = io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).map_err(Failure::Output)
}

/// Cancelled when standard input is closed.
fn until_input_ends() -> CancellationToken {
    let ended = CancellationToken::new();
    let token = ended.clone();
    thread::spawn(move || {
        let mut input = io::stdin().lock();
        let mut ignored = [0; 64];
        // What comes is of no interest; its end is.
        while !matches!(input.read(&mut ignored), Ok(0) | Err(_)) {}
        token.cancel();
    });
    ended
}
