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
mod local;
pub mod render;
mod signals;
pub mod span;

use std::{ffi::OsString, io::Write};

use tokio::runtime::Builder;

pub use crate::{args::Cli, console::Console, exit::Exit, failure::Failure};
use crate::{args::Format, commands::bench::orchestrator};
#[doc(hidden)]
pub use commands::bench::process as orchestrator_process;

/// Runs one command line against the process's own standard streams. `args` includes the program's name.
pub fn run(args: impl IntoIterator<Item = OsString>) -> Exit {
    let args: Vec<OsString> = args.into_iter().collect();
    if orchestrator::is_asked_for(&args) {
        // For programs, hence not among the commands.
        return match orchestrator::Args::read(args) {
            Ok(args) => {
                on_runtime(Builder::new_multi_thread(), Console::of_this_process(Format::Table), async |_| {
                    orchestrator::run(args).await
                })
            }
            Err(error) => printed(&error),
        };
    }
    let cli = match Cli::read(args) {
        Ok(cli) => cli,
        Err(error) => return printed(&error),
    };
    let runtime = match cli.command {
        // An orchestrator, or what loads one, runs in there.
        args::Command::Dev(_) | args::Command::Bench(_) => Builder::new_multi_thread(),
        _ => Builder::new_current_thread(),
    };
    let console = Console::of_this_process(cli.options.output);
    on_runtime(runtime, console, async |console| commands::dispatch(cli, console).await)
}

/// Runs a command on a runtime of its own and tells what failed.
fn on_runtime(
    mut runtime: Builder,
    mut console: Console,
    command: impl AsyncFnOnce(&mut Console) -> Result<Exit, Failure>,
) -> Exit {
    match runtime.enable_all().build() {
        Ok(runtime) => {
            let done = runtime.block_on(command(&mut console));
            told(done, &mut console)
        }
        Err(error) => {
            let why = format!("the system refused to start the runtime: {error}");
            told(Err(Failure::System(why)), &mut console)
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
    match Cli::read(args) {
        Ok(cli) => {
            let mut console = Console::new(cli.options.output, out, err);
            let done = commands::dispatch(cli, &mut console).await;
            told(done, &mut console)
        }
        Err(told) => {
            // As with `run`: nobody listening changes nothing.
            let _ = write!(err, "{}", told.render());
            exit_of_parsing(&told)
        }
    }
}

/// Prints help and errors alike; a reader that has left is no reason to fail differently.
fn printed(told: &clap::Error) -> Exit {
    let _ = told.print();
    exit_of_parsing(told)
}

/// Asking for help is parsed as an error of clap's, and is none.
fn exit_of_parsing(told: &clap::Error) -> Exit {
    if told.use_stderr() { Exit::Usage } else { Exit::Ok }
}

/// How a command has ended, after telling what failed.
fn told(done: Result<Exit, Failure>, console: &mut Console) -> Exit {
    done.unwrap_or_else(|failure| {
        console.tell(&failure);
        failure.exit()
    })
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
