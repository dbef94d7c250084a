//! `avtomatika reject`: decide what a job asks, with no.

use super::decide::{self, Ruling};
use crate::{args::Options, console::Console, exit::Exit, failure::Failure};

const HELP: &str = "\
The decision is `rejected`; for a blueprint that has other words, see `avtomatika approve --decision`.

Examples:
  avtomatika reject 01890a5d-ac96-774b-bcce-b302099a8057
  avtomatika reject 01890a5d-ac96-774b-bcce-b302099a8057 --comment 'too expensive'";

/// Options of `reject`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = HELP)]
pub struct Args {
    #[command(flatten)]
    ruling: Ruling,
}

pub(super) async fn run(args: Args, options: &Options, console: &mut Console) -> Result<Exit, Failure> {
    decide::run("rejected".to_owned(), args.ruling, options, console).await
}
