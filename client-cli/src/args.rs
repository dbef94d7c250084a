//! The command line as a whole: options that every command takes, and the commands.
//!
//! The options of one command live beside what it does, in `commands/`.

use clap::{Parser, Subcommand, ValueEnum};

use crate::{commands, exit::Exit, span::Span};

/// Where an orchestrator is looked for when nothing else is said.
pub const DEFAULT_URL: &str = "http://localhost:8000";

/// The token of `avtomatika dev`; used only towards this machine, and only when no other is given.
pub const DEVELOPMENT_TOKEN: &str = "test-client-token";

const EXAMPLES: &str = "\
Examples:
  avtomatika dev
  avtomatika submit test_workflow --data '{\"input\": 42}' --wait
  avtomatika list --status running,waiting_for_worker
  avtomatika history 01890a5d-ac96-774b-bcce-b302099a8057
  avtomatika -o json list --all | jq -r '.[] | select(.retry_count > 0) | .id'";

/// Submit jobs to an Avtomatika orchestrator and see what becomes of them.
#[derive(Debug, Parser)]
#[command(
    name = "avtomatika",
    version,
    arg_required_else_help = true,
    subcommand_required = true,
    infer_long_args = false,
    max_term_width = 100,
    after_help = "Use --help for examples and exit codes.",
    after_long_help = format!("{EXAMPLES}\n\n{}", Exit::help())
)]
pub struct Cli {
    /// What every command takes.
    #[command(flatten)]
    pub options: Options,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What every command takes.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Address of the orchestrator
    #[arg(long, global = true, env = "AVTOMATIKA_URL", value_name = "URL", default_value = DEFAULT_URL)]
    #[arg(help_heading = "Global options")]
    pub url: String,

    /// Client token; towards this machine, the development token is used when none is given
    #[arg(
        long_help = "Client token. Without one, and only if the URL is of this machine (localhost, 127.0.0.1, ::1), the \
                     development token `test-client-token` of `avtomatika dev` is used"
    )]
    #[arg(long, global = true, env = "AVTOMATIKA_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    #[arg(help_heading = "Global options")]
    pub token: Option<String>,

    /// Form of the answer: tables for people, JSON for pipes
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Table)]
    #[arg(help_heading = "Global options")]
    pub output: Format,

    /// Longest to wait for the orchestrator to connect or to answer
    #[arg(long, global = true, value_name = "DURATION", default_value = "10s")]
    #[arg(help_heading = "Global options")]
    pub timeout: Span,
}

/// Form of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Tables and words, for people.
    Table,
    /// JSON on standard output, for programs.
    Json,
}

/// Every command there is.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create a job; with --wait, see it through to its end
    Submit(commands::submit::Args),
    /// Show a job as it is now
    Get(commands::get::Args),
    /// List jobs, newest first
    List(commands::list::Args),
    /// Print every change of a job until it ends
    Watch(commands::watch::Args),
    /// Show what happened to a job, step by step
    History(commands::history::Args),
    /// Cancel a job
    Cancel(commands::cancel::Args),
    /// List the connected workers
    Workers(commands::workers::Args),
    /// List the blueprints that jobs can be submitted to
    Blueprints(commands::blueprints::Args),
    /// Look at one blueprint
    #[command(subcommand)]
    Blueprint(commands::blueprint::Command),
    /// Count jobs, tasks and workers
    Stats(commands::stats::Args),
    /// Run an orchestrator, a worker and a sample job in this process
    Dev(commands::dev::Args),
    /// Print the completion script for a shell
    Completions(commands::completions::Args),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_free_of_contradictions() {
        super::Cli::command().debug_assert();
    }
}
