//! `avtomatika blueprint diff`: what changes from one version of a blueprint to another, and for which jobs that matters.

use std::path::Path;

use avtomatika_orchestrator::blueprint::{Blueprint, Definition, Diff, Difference, Fate};
use avtomatika_proto::v1::GetBlueprintRequest;
use serde::Serialize;
use serde_json::Value;

use super::local;
use crate::{
    args::{Format, Options},
    client::Server,
    console::Console,
    exit::Exit,
    failure::Failure,
    render::{
        json,
        table::{Cell, Overflow, Table, Tone},
    },
};

const HELP: &str = "\
OLD and NEW are each a file, or the name of a blueprint that the orchestrator serves, with @VERSION for an older one. What
does not change the meaning, such as remarks and spacing, is no difference. The exit code is 0 when every job that is on its
way by OLD could move to NEW as it is, and 1 when some would need `blueprint migrate --map`.

Examples:
  avtomatika blueprint diff order blueprints/order.yaml
  avtomatika blueprint diff order@3 order
  avtomatika blueprint diff old.yaml new.yaml -o json";

/// Longest value that a table shows whole.
const SHOWN_CHARS_MAX: usize = 60;

/// Options of `blueprint diff`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = HELP)]
pub struct Args {
    /// File, or NAME[@VERSION] of a served blueprint
    #[arg(value_name = "OLD")]
    old: String,

    /// File, or NAME[@VERSION] of a served blueprint
    #[arg(value_name = "NEW")]
    new: String,
}

pub(super) async fn run(args: Args, options: &Options, console: &mut Console) -> Result<Exit, Failure> {
    let (old, new) = (blueprint(&args.old, options).await?, blueprint(&args.new, options).await?);
    let diff = Diff::between(&old, &new);
    let exit = if diff.is_compatible() { Exit::Ok } else { Exit::Failed };
    exit.after(match console.format() {
        Format::Json => console.print_line(&json::line(&Shown::of(&diff))),
        Format::Table => show(&diff, console),
    })
}

async fn blueprint(place: &str, options: &Options) -> Result<Blueprint, Failure> {
    let path = Path::new(place);
    let is_file = path.exists() || place.contains('/') || path.extension().is_some();
    if is_file {
        let loaded = local(path).map_err(|findings| {
            let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
            Failure::usage(lines.join("\n"), "each line names the place and the cure")
        })?;
        return Ok(loaded.definition.into_blueprint(1));
    }
    let (name, version) = match place.split_once('@') {
        None => (place, 0),
        Some((name, version)) => match version.parse() {
            Ok(version) if version > 0 => (name, version),
            _ => {
                return Err(Failure::usage(
                    format!("{place:?} names no version"),
                    "write NAME@VERSION, such as order@3, or the path of a file",
                ));
            }
        },
    };
    let server = Server::connect(options).await?;
    let request = GetBlueprintRequest { name: name.to_owned(), version, ..Default::default() };
    let response = server.answer(server.admin().get_blueprint(request)).await?;
    let version = response.blueprint.map_or(0, |info| info.version);
    match Definition::from_canonical(&response.definition) {
        Ok(definition) => Ok(definition.into_blueprint(version)),
        Err(_) => Err(Failure::System(format!(
            "the orchestrator's blueprint {place:?} is not one that this release understands"
        ))),
    }
}

fn show(diff: &Diff, console: &mut Console) -> Result<(), Failure> {
    if diff.differences.is_empty() {
        console.note("The two mean the same.");
        return Ok(());
    }
    let mut table = Table::new(&["", "WHERE", "BEFORE", "AFTER"], Overflow::Wrap);
    console.print(&table.page(diff.differences.iter().map(row)))?;
    if !diff.concerns.is_empty() {
        let mut table = Table::new(&["STATE", "JOBS THAT STAND THERE, IF THEY ARE MOVED"], Overflow::Wrap);
        let row = |(state, fate): (&str, Fate)| {
            let tone = (fate == Fate::Stay).then_some(Tone::Warning);
            vec![Cell::from(state), Cell::toned(meaning(fate), tone)]
        };
        let rows = diff.concerns.iter().map(|concern| row((&concern.state, concern.fate)));
        console.print(&format!("\n{}", table.page(rows)))?;
    }
    console.note(match diff.is_compatible() {
        true => "Jobs that are on their way can be moved as they are.",
        false => "To move jobs that are on their way, say where: avtomatika blueprint migrate --map OLD=NEW.",
    });
    Ok(())
}

fn row(one: &Difference) -> Vec<Cell> {
    let (sign, tone) = match (&one.before, &one.after) {
        (None, _) => ("added", Tone::Good),
        (_, None) => ("removed", Tone::Bad),
        _ => ("changed", Tone::Warning),
    };
    let side = |value: &Option<Value>| Cell::from(value.as_ref().map(short).unwrap_or_default());
    vec![Cell::toned(sign, Some(tone)), Cell::from(&one.path), side(&one.before), side(&one.after)]
}

fn short(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        None => text,
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

fn meaning(fate: Fate) -> &'static str {
    match fate {
        Fate::Stay => "stay, unless --map says where they are to stand",
        Fate::EnterAnew => "enter it anew; what they waited for is given up",
        Fate::WaitForChildren => "stay until their children have ended",
    }
}

// ---- As programs read it ----

#[derive(Serialize)]
struct Shown<'a> {
    compatible: bool,
    differences: Vec<ShownDifference<'a>>,
    concerns: Vec<ShownConcern<'a>>,
}

#[derive(Serialize)]
struct ShownDifference<'a> {
    path: &'a str,
    before: &'a Option<Value>,
    after: &'a Option<Value>,
}

#[derive(Serialize)]
struct ShownConcern<'a> {
    state: &'a str,
    jobs: &'static str,
}

impl<'a> Shown<'a> {
    fn of(diff: &'a Diff) -> Self {
        let difference =
            |one: &'a Difference| ShownDifference { path: &one.path, before: &one.before, after: &one.after };
        Self {
            compatible: diff.is_compatible(),
            differences: diff.differences.iter().map(difference).collect(),
            concerns: diff
                .concerns
                .iter()
                .map(|concern| ShownConcern { state: &concern.state, jobs: concern.fate.as_str() })
                .collect(),
        }
    }
}
