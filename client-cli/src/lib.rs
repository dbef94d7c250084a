//! The Avtomatika command line: a client for people and for scripts.
//!
//! A command reads its arguments ([`args`]), calls the orchestrator ([`client`]), shows the answer as a table or as JSON
//! ([`render`]) and ends with a code that says what became of it ([`exit`]). Each file in [`commands`] holds the whole of
//! one command. Standard output carries the answer and nothing else; words for people go to standard error.
//!
//! It refuses to know what a job means: it reads the same API as any other client.

pub mod args;
pub mod client;
pub mod commands;
pub mod console;
pub mod data;
pub mod exit;
pub mod failure;
pub mod follow;
pub mod render;
mod signals;
pub mod span;

use std::{ffi::OsString, io::Write};

use clap::Parser;

pub use crate::{args::Cli, console::Console, exit::Exit, failure::Failure};

/// Runs one command line against the process's own standard streams. `args` includes the program's name.
pub fn run(args: impl IntoIterator<Item = OsString>) -> Exit {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(told) => {
            // Help and errors alike; a reader that has left is no reason to fail differently.
            let _ = told.print();
            return exit_of_parsing(&told);
        }
    };
    let mut console = Console::of_this_process(cli.options.output);
    let mut runtime = match cli.command {
        // A whole orchestrator and its worker run in there.
        args::Command::Dev(_) => tokio::runtime::Builder::new_multi_thread(),
        _ => tokio::runtime::Builder::new_current_thread(),
    };
    match runtime.enable_all().build() {
        Ok(runtime) => runtime.block_on(execute(cli, &mut console)),
        Err(error) => {
            let failure = Failure::System(format!("the system refused to start the runtime: {error}"));
            console.tell(&failure);
            failure.exit()
        }
    }
}

/// Runs one command line inside another program: `out` gets the answer and `err` the words beside it, without colours.
/// `args` includes the program's name. Defaults still come from the process's environment.
pub async fn run_into<A: Into<OsString> + Clone>(
    args: impl IntoIterator<Item = A>,
    out: impl Write + Send + 'static,
    mut err: impl Write + Send + 'static,
) -> Exit {
    match Cli::try_parse_from(args) {
        Ok(cli) => {
            let mut console = Console::new(cli.options.output, out, err);
            execute(cli, &mut console).await
        }
        Err(told) => {
            // As with `run`: nobody listening changes nothing.
            let _ = write!(err, "{}", told.render());
            exit_of_parsing(&told)
        }
    }
}

/// Asking for help is parsed as an error of clap's, and is none.
fn exit_of_parsing(told: &clap::Error) -> Exit {
    if told.use_stderr() { Exit::Usage } else { Exit::Ok }
}

async fn execute(cli: Cli, console: &mut Console) -> Exit {
    match commands::dispatch(cli, console).await {
        Ok(exit) => exit,
        Err(failure) => {
            console.tell(&failure);
            failure.exit()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_command_line_runs_inside_another_program() {
        let line = |text: &'static str| text.split(' ').collect::<Vec<_>>();
        let quiet = || (Vec::new(), Vec::new());
        let (out, err) = quiet();
        // Spawned, because programs that embed it will want to.
        let exit = tokio::spawn(run_into(line("avtomatika completions bash"), out, err)).await;
        assert_eq!(exit.expect("does not panic"), Exit::Ok);
        let (out, err) = quiet();
        assert_eq!(run_into(line("avtomatika get nothing"), out, err).await, Exit::Usage);
        let (out, err) = quiet();
        assert_eq!(run_into(line("avtomatika --help"), out, err).await, Exit::Ok);
    }
}
