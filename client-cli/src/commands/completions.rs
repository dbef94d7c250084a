//! `avtomatika completions`: the script that teaches a shell to complete this program's commands and options.

use clap::CommandFactory;
use clap_complete::Shell;

use crate::{args::Cli, console::Console, exit::Exit, failure::Failure};

const HELP: &str = "\
Examples:
  avtomatika completions bash > ~/.local/share/bash-completion/completions/avtomatika
  avtomatika completions zsh > ~/.zfunc/_avtomatika
  avtomatika completions fish > ~/.config/fish/completions/avtomatika.fish";

/// Options of `completions`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = HELP)]
pub struct Args {
    /// The shell to write for
    shell: Shell,
}

pub(super) fn run(args: Args, console: &mut Console) -> Result<Exit, Failure> {
    let mut command = Cli::command();
    let mut script = Vec::new();
    // Into memory first: the generator panics when it cannot write, and memory always takes it.
    clap_complete::generate(args.shell, &mut command, "avtomatika", &mut script);
    console.print(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Ok)
}
