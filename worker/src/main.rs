//! The stock worker: its arguments. Everything else is the library's.

use std::process::ExitCode;

use avtomatika_worker::{args::Args, stock};
use clap::Parser as _;

fn main() -> ExitCode {
    ExitCode::from(stock::run(Args::parse().or_tasks_from_environment()))
}
