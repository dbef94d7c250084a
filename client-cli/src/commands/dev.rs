//! `avtomatika dev`: an orchestrator, a worker and a sample blueprint in one process.

use std::path::PathBuf;

const HELP: &str = "\
Examples:
  avtomatika dev
  avtomatika dev --port 9000 --data-dir ./data
  avtomatika dev --ephemeral --no-sample";

/// Options of `dev`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = HELP)]
pub struct Args {
    /// Port to listen on, on this machine only
    #[arg(long, value_name = "PORT", default_value_t = 8000)]
    pub port: u16,

    /// Directory that keeps the jobs from run to run
    #[arg(long, value_name = "DIR", conflicts_with = "ephemeral")]
    pub data_dir: Option<PathBuf>,

    /// Keep jobs until the end of this run only
    #[arg(long)]
    pub ephemeral: bool,

    /// Start without the sample blueprint and its worker
    #[arg(long)]
    pub no_sample: bool,
}
