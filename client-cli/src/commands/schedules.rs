//! `avtomatika schedules`: which jobs are made by themselves, when next, and what became of the last ones.

use std::collections::BTreeMap;

use avtomatika_proto::v1::{ListSchedulesRequest, ScheduleInfo};
use jiff::{Timestamp, tz::TimeZone};
use serde::Serialize;

use crate::{
    args::{Format, Options},
    client::Server,
    console::Console,
    exit::Exit,
    failure::Failure,
    render::{
        json,
        table::{Cell, Overflow, Table, Tone},
        text::clean,
        time::{rfc3339, timestamp},
    },
};

const HELP: &str = "\
Times are shown in each schedule's own time zone. LAST JOB was made for the due time beside it; SKIPPED is the last due time
without a job, and why: it was missed, or the job before it had not ended (overlap). What keeps a job that is due from being
made is told below the table.

Examples:
  avtomatika schedules
  avtomatika schedules -o json | jq -r '.[] | [.name, .next[0]] | @tsv'
  avtomatika list --label schedule=nightly-report";

/// Options of `schedules`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = HELP)]
pub struct Args {}

pub(super) async fn run(_: Args, options: &Options, console: &mut Console) -> Result<Exit, Failure> {
    let server = Server::connect(options).await?;
    let schedules = server.answer(server.admin().list_schedules(ListSchedulesRequest {})).await?.schedules;
    match console.format() {
        Format::Json => {
            let forms: Vec<_> = schedules.iter().map(form).collect();
            console.print_line(&json::line(&forms))?;
        }
        Format::Table if schedules.is_empty() => console.note("No schedule makes jobs of yours."),
        Format::Table => {
            let mut table = Table::new(
                &["SCHEDULE", "BLUEPRINT", "WHEN", "LAST RUN", "LAST JOB", "SKIPPED", "NEXT"],
                Overflow::Wrap,
            );
            console.print(&table.page(schedules.iter().map(row)))?;
            for schedule in schedules.iter().filter(|schedule| !schedule.trouble.is_empty()) {
                let (name, trouble) = (clean(&schedule.name), clean(&schedule.trouble));
                console.note(&format!("{name} is due, and its job cannot be made: {trouble}"));
            }
        }
    }
    Ok(Exit::Ok)
}

fn row(schedule: &ScheduleInfo) -> Vec<Cell> {
    let zone = TimeZone::get(&schedule.time_zone).unwrap_or(TimeZone::UTC);
    let local = |time: Option<&prost_types::Timestamp>| {
        let time = time.and_then(timestamp).map(|time| in_zone(time, &zone));
        time.unwrap_or_default()
    };
    let (run, skip) = (schedule.last_run.as_ref(), schedule.last_skip.as_ref());
    let skipped = skip.map(|skip| format!("{} {}", local(skip.due_at.as_ref()), skip.reason));
    let next = match schedule.enabled {
        true => {
            let times: Vec<String> = schedule.next.iter().map(|time| local(Some(time))).collect();
            let tone = (!schedule.trouble.is_empty()).then_some(Tone::Warning);
            Cell::toned(times.join(", "), tone)
        }
        false => Cell::toned("not enabled", Some(Tone::Quiet)),
    };
    vec![
        Cell::from(&schedule.name),
        Cell::from(&schedule.blueprint),
        Cell::from(&schedule.timing),
        local(run.and_then(|run| run.due_at.as_ref())).into(),
        Cell::from(run.map_or("", |run| &run.job_id)),
        skipped.unwrap_or_default().into(),
        next,
    ]
}

/// To the second, with the offset that it has there then.
fn in_zone(time: Timestamp, zone: &TimeZone) -> String {
    time.to_zoned(zone.clone()).strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()
}

#[derive(Serialize)]
struct Form<'a> {
    name: &'a str,
    blueprint: &'a str,
    timing: &'a str,
    time_zone: &'a str,
    enabled: bool,
    on_missed: &'a str,
    overlap: &'a str,
    labels: BTreeMap<&'a str, &'a str>,
    priority: i32,
    next: Vec<Option<String>>,
    last_run: Option<Run<'a>>,
    last_skip: Option<Skip<'a>>,
    trouble: Option<&'a str>,
}

#[derive(Serialize)]
struct Run<'a> {
    due_at: Option<String>,
    job_id: &'a str,
}

#[derive(Serialize)]
struct Skip<'a> {
    due_at: Option<String>,
    reason: &'a str,
}

fn form(schedule: &ScheduleInfo) -> Form<'_> {
    let run = schedule.last_run.as_ref();
    let skip = schedule.last_skip.as_ref();
    Form {
        name: &schedule.name,
        blueprint: &schedule.blueprint,
        timing: &schedule.timing,
        time_zone: &schedule.time_zone,
        enabled: schedule.enabled,
        on_missed: &schedule.on_missed,
        overlap: &schedule.overlap,
        labels: schedule.labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect(),
        priority: schedule.priority,
        next: schedule.next.iter().map(|time| rfc3339(Some(time))).collect(),
        last_run: run.map(|run| Run { due_at: rfc3339(run.due_at.as_ref()), job_id: &run.job_id }),
        last_skip: skip.map(|skip| Skip { due_at: rfc3339(skip.due_at.as_ref()), reason: &skip.reason }),
        trouble: Some(schedule.trouble.as_str()).filter(|trouble| !trouble.is_empty()),
    }
}
