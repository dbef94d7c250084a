//! The command line as a whole: options that every command takes, and the commands.
//!
//! The options of one command live beside what it does, in `commands/`.

use std::{ffi::OsString, path::PathBuf};

use avtomatika_worker::tls::TlsFiles;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum, parser::ValueSource};

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
  avtomatika explain 01890a5d-ac96-774b-bcce-b302099a8057
  avtomatika history 01890a5d-ac96-774b-bcce-b302099a8057
  avtomatika list --status quarantined
  avtomatika retry --status quarantined --since 1d --dry-run
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

impl Cli {
    /// Reads a command line that begins with the program's name. Asking for help is an error of clap's, too.
    pub fn read<A: Into<OsString> + Clone>(args: impl IntoIterator<Item = A>) -> Result<Self, clap::Error> {
        let mut command = Self::command();
        let matches = command.try_get_matches_from_mut(args)?;
        let mut cli = Self::from_arg_matches(&matches).map_err(|error| error.format(&mut command))?;
        cli.options.url_is_given = matches.value_source("url") == Some(ValueSource::CommandLine);
        Ok(cli)
    }
}

/// What every command takes.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Address of the orchestrator
    #[arg(long, global = true, env = "AVTOMATIKA_URL", value_name = "URL", default_value = DEFAULT_URL)]
    #[arg(help_heading = "Global options")]
    pub url: String,

    /// Whether the address was given on the command line, and not by the environment or by default
    #[arg(skip)]
    pub url_is_given: bool,

    /// Client token; towards this machine, the development token is used when none is given
    #[arg(
        long_help = "Client token. Without one, and only if the URL is of this machine (localhost, 127.0.0.1, ::1), the \
                     development token `test-client-token` of `avtomatika dev` is used"
    )]
    #[arg(long, global = true, env = "AVTOMATIKA_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    #[arg(help_heading = "Global options")]
    pub token: Option<String>,

    /// Files for an orchestrator at https://
    #[command(flatten)]
    pub tls: Tls,

    /// Form of the answer: tables for people, JSON for pipes
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Table)]
    #[arg(help_heading = "Global options")]
    pub output: Format,

    /// Longest to wait for the orchestrator to connect or to answer
    #[arg(long, global = true, value_name = "DURATION", default_value = "10s")]
    #[arg(help_heading = "Global options")]
    pub timeout: Span,
}

/// Files for an orchestrator at `https://`, each in PEM.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Tls {
    /// File with the authorities that may vouch for an orchestrator at https://; by default those of this machine
    #[arg(long, global = true, env = "AVTOMATIKA_TLS_CA", value_name = "FILE", hide_short_help = true)]
    #[arg(help_heading = "Global options")]
    pub tls_ca: Option<PathBuf>,

    /// File with a certificate of one's own, for whoever asks for one on the way
    #[arg(long, global = true, env = "AVTOMATIKA_TLS_CERT", value_name = "FILE", hide_short_help = true)]
    #[arg(help_heading = "Global options")]
    pub tls_cert: Option<PathBuf>,

    /// File with its private key
    #[arg(long, global = true, env = "AVTOMATIKA_TLS_KEY", value_name = "FILE", hide_short_help = true)]
    #[arg(help_heading = "Global options")]
    pub tls_key: Option<PathBuf>,
}

impl Tls {
    /// The same in the words of the library.
    pub fn files(&self) -> TlsFiles {
        TlsFiles { ca: self.tls_ca.clone(), cert: self.tls_cert.clone(), key: self.tls_key.clone() }
    }
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
    /// Say why a job is where it is, and what can be done
    Explain(commands::explain::Args),
    /// Show what a job's webhook was told, or tell it again
    Webhooks(commands::webhooks::Args),
    /// Draw the path that a job has taken, and where it stands
    Graph(commands::graph::Args),
    /// Cancel a job
    Cancel(commands::cancel::Args),
    /// Give a job the news that it waits for
    Signal(commands::signal::Args),
    /// Decide what a job asks: yes, or another of its decisions
    Approve(commands::approve::Args),
    /// Decide what a job asks: no
    Reject(commands::reject::Args),
    /// Start a failed or quarantined job again, or all that a filter selects
    Retry(commands::retry::Args),
    /// Let a job go on as if its state had ended, or all that a filter selects
    Skip(commands::skip::Args),
    /// List the connected workers
    Workers(commands::workers::Args),
    /// List the schedules that make jobs of yours, and when they are due
    Schedules(commands::schedules::Args),
    /// List the blueprints that jobs can be submitted to
    Blueprints(commands::blueprints::Args),
    /// Look at one blueprint
    #[command(subcommand)]
    Blueprint(commands::blueprint::Command),
    /// Have the orchestrator read its settings, blueprints and other files again
    Reload(commands::reload::Args),
    /// Make tokens, and the hashes that the orchestrator's files hold
    #[command(subcommand)]
    Token(commands::token::Command),
    /// Count jobs, tasks and workers
    Stats(commands::stats::Args),
    /// Run an orchestrator, a worker and a sample job in this process
    Dev(commands::dev::Args),
    /// Measure how fast an orchestrator is on this machine, and verify that it loses nothing
    Bench(commands::bench::Args),
    /// Print the completion script for a shell
    Completions(commands::completions::Args),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_free_of_contradictions() {
        Cli::command().debug_assert();
    }

    #[test]
    fn an_address_on_the_command_line_is_told_from_one_by_default() {
        for (line, is_given) in [
            (&["avtomatika", "stats"][..], false),
            (&["avtomatika", "--url", "http://localhost:8000", "stats"], true),
            (&["avtomatika", "stats", "--url", "http://other:1"], true),
        ] {
            let cli = Cli::read(line).unwrap();
            assert_eq!(cli.options.url_is_given, is_given, "{line:?}");
        }
    }
}
