//! `avtomatika approve`: decide what a job asks, with yes or with another of its decisions.

use super::decide::{self, Ruling};
use crate::{args::Options, console::Console, exit::Exit, failure::Failure};

const HELP: &str = "\
`avtomatika get` shows what a job asks and what can be decided. A job that asks nobody refuses (exit code 13).

Examples:
  avtomatika approve 01890a5d-ac96-774b-bcce-b302099a8057
  avtomatika approve 01890a5d-ac96-774b-bcce-b302099a8057 --comment 'in the budget' --by anna
  avtomatika approve 01890a5d-ac96-774b-bcce-b302099a8057 --decision escalated";

/// Options of `approve`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = HELP)]
pub struct Args {
    #[command(flatten)]
    ruling: Ruling,

    /// What is decided: one of the transitions of the job's state
    #[arg(long, value_name = "WORD", default_value = "approved")]
    decision: String,
}

pub(super) async fn run(args: Args, options: &Options, console: &mut Console) -> Result<Exit, Failure> {
    decide::run(args.decision, args.ruling, options, console).await
}
