//! `avtomatika blueprint schema`: the form of a blueprint file, for editors.

use avtomatika_orchestrator::blueprint::EDITOR_SCHEMA;

use crate::{console::Console, exit::Exit, failure::Failure};

const HELP: &str = "\
It is JSON Schema, draft 2020-12. Editors with a YAML language server complete and check by it a file that begins with
  # yaml-language-server: $schema=blueprint.schema.json
It knows the form of a file; `avtomatika blueprint check` finds what the states mean together.

Example:
  avtomatika blueprint schema > blueprint.schema.json";

/// Options of `blueprint schema`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = HELP)]
pub struct Args {}

pub(super) fn run(_args: &Args, console: &mut Console) -> Result<Exit, Failure> {
    console.print(EDITOR_SCHEMA)?;
    Ok(Exit::Ok)
}
