//! `avtomatika blueprint migrate`: jobs move to another version of their blueprint.

use std::{collections::BTreeMap, str::FromStr};

use avtomatika_proto::v1::{JobMove, MigrateJobsRequest};
use indicatif::ProgressBar;
use serde::Serialize;

use crate::{
    args::{Format, Options},
    client::Server,
    console::Console,
    exit::Exit,
    failure::Failure,
    render::{
        job::counted,
        json,
        table::{Cell, Overflow, Table, Tone},
        text,
    },
};

const HELP: &str = "\
Your jobs that have another version than the one to move to are moved, page by page, and each leaves an entry in its history.
A job whose state is in the version stays where it is: a worker goes on with its task, a wait keeps its time, an approval its
token. A job whose state is not there, or is called otherwise, needs --map. Jobs that cannot move stay as they were: because
they wait for children, or would fail at once. The exit code is 0 when every job moves, and 1 when some stay. It is safe to
stop and to repeat.

Examples:
  avtomatika blueprint migrate order --dry-run
  avtomatika blueprint migrate order
  avtomatika blueprint migrate order --from 3 --to 5 --map pack=prepare --map ship=hand_over
  avtomatika blueprint migrate order --failed
  avtomatika blueprint migrate order -o json | jq -r '.refused[].job_id'";

/// Options of `blueprint migrate`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = HELP)]
pub struct Args {
    /// Name of the blueprint
    name: String,

    /// Version to move to; the one that new jobs take when not given
    #[arg(long, value_name = "VERSION", value_parser = clap::value_parser!(u32).range(1..))]
    to: Option<u32>,

    /// Move only jobs of this version
    #[arg(long, value_name = "VERSION", value_parser = clap::value_parser!(u32).range(1..))]
    from: Option<u32>,

    /// State in which a job of state OLD is to stand; may be repeated
    #[arg(long = "map", value_name = "OLD=NEW")]
    states: Vec<Renaming>,

    /// Also jobs that have failed or were quarantined, so that they can be retried by the version
    #[arg(long)]
    failed: bool,

    /// Only show what would become of the jobs
    #[arg(long)]
    dry_run: bool,
}

/// A state's old and new name.
#[derive(Debug, Clone)]
struct Renaming(String, String);

impl FromStr for Renaming {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('=') {
            Some((old, new)) if !old.is_empty() && !new.is_empty() => Ok(Self(old.into(), new.into())),
            _ => Err("expected OLD=NEW, such as pack=prepare"),
        }
    }
}

pub(super) async fn run(args: Args, options: &Options, console: &mut Console) -> Result<Exit, Failure> {
    let server = Server::connect(options).await?;
    let mut request = MigrateJobsRequest {
        blueprint: args.name,
        to_version: args.to.unwrap_or(0),
        from_version: args.from.unwrap_or(0),
        states: args.states.into_iter().map(|Renaming(old, new)| (old, new)).collect(),
        include_failed: args.failed,
        dry_run: args.dry_run,
        cursor: String::new(),
    };
    let mut summary = Summary::default();
    let bar = if console.is_live() { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
    loop {
        let page = server.answer(server.jobs().migrate_jobs(request.clone())).await?;
        // From here on to the same version, also when another one comes into force meanwhile.
        request.to_version = page.to_version;
        page.moves.into_iter().for_each(|done| summary.add(done));
        bar.set_message(format!("{} moved, {} stay", summary.moved, summary.refused.len()));
        bar.tick();
        request.cursor = page.next_cursor;
        if request.cursor.is_empty() {
            break;
        }
    }
    bar.finish_and_clear();
    let exit = if summary.refused.is_empty() { Exit::Ok } else { Exit::Failed };
    exit.after(match console.format() {
        Format::Json => console.print_line(&json::line(&summary.shown(&request))),
        Format::Table => summary.show(&request, console),
    })
}

/// What became of all jobs.
#[derive(Default)]
struct Summary {
    groups: BTreeMap<Group, u64>,
    moved: u64,
    refused: Vec<JobMove>,
}

/// Jobs that fare alike.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Group {
    version: u32,
    state: String,
    to_state: String,
    refused: String,
    why: String,
}

impl Summary {
    fn add(&mut self, done: JobMove) {
        let group = Group {
            version: done.version,
            state: done.state.clone(),
            to_state: done.to_state.clone(),
            refused: done.refused.clone(),
            why: done.why.clone(),
        };
        *self.groups.entry(group).or_default() += 1;
        match done.refused.is_empty() {
            true => self.moved += 1,
            false => self.refused.push(done),
        }
    }

    fn show(&self, request: &MigrateJobsRequest, console: &mut Console) -> Result<(), Failure> {
        let version = request.to_version;
        if self.groups.is_empty() {
            console.note(&format!("No open job has another version than {version}."));
            return Ok(());
        }
        let mut table = Table::new(&["VERSION", "STATE", "JOBS", "TO", ""], Overflow::Wrap);
        console.print(&table.page(self.groups.iter().map(|(group, count)| row(group, *count))))?;
        let (moved, one_stays, others_stay) = match request.dry_run {
            true => (
                "would move",
                "would stay as it is: -o json names it",
                "would stay as they are: -o json names them",
            ),
            false => ("moved", "stays as it is: -o json names it", "stay as they are: -o json names them"),
        };
        let mut words = format!("{} {moved} to version {version}", counted(self.moved));
        if !self.refused.is_empty() {
            words += &format!("; {}", text::counted(self.refused.len() as u64, one_stays, others_stay));
        }
        console.note(&(words + "."));
        Ok(())
    }

    fn shown<'a>(&'a self, request: &MigrateJobsRequest) -> Shown<'a> {
        let group = |(group, jobs): (&'a Group, &'a u64)| ShownGroup {
            version: group.version,
            state: &group.state,
            to_state: &group.to_state,
            jobs: *jobs,
            refused: given(&group.refused),
            why: given(&group.why),
        };
        let refused = |done: &'a JobMove| ShownJob {
            job_id: &done.job_id,
            version: done.version,
            state: &done.state,
            refused: &done.refused,
            why: &done.why,
        };
        Shown {
            to_version: request.to_version,
            dry_run: request.dry_run,
            moved: self.moved,
            groups: self.groups.iter().map(group).collect(),
            refused: self.refused.iter().map(refused).collect(),
        }
    }
}

fn row(group: &Group, jobs: u64) -> Vec<Cell> {
    let (to, why) = match group.refused.is_empty() {
        true => (group.to_state.as_str(), Cell::from("")),
        false => ("stays", Cell::toned(format!("{}: {}", group.refused, group.why), Some(Tone::Warning))),
    };
    vec![group.version.to_string().into(), Cell::from(&group.state), jobs.to_string().into(), to.into(), why]
}

fn given(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

// ---- As programs read it ----

#[derive(Serialize)]
struct Shown<'a> {
    to_version: u32,
    dry_run: bool,
    moved: u64,
    groups: Vec<ShownGroup<'a>>,
    refused: Vec<ShownJob<'a>>,
}

#[derive(Serialize)]
struct ShownGroup<'a> {
    version: u32,
    state: &'a str,
    to_state: &'a str,
    jobs: u64,
    refused: Option<&'a str>,
    why: Option<&'a str>,
}

#[derive(Serialize)]
struct ShownJob<'a> {
    job_id: &'a str,
    version: u32,
    state: &'a str,
    refused: &'a str,
    why: &'a str,
}
