//! What `retry` and `skip` share: they do the same to one job, or to every failed or quarantined one that a filter selects.

use avtomatika_proto::{
    JobId,
    v1::{
        Job, JobStatus, RepairFilter, RepairJobsRequest, RepairJobsResponse, RepairRefusal,
        repair_jobs_request::Action,
    },
};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use jiff::Timestamp;

use super::{Label, labels, list::since};
use crate::{
    args::Format,
    client::Server,
    console::Console,
    exit::Exit,
    failure::Failure,
    render::{
        job::{counted, status_from_name, status_name},
        json,
        table::{Overflow, Table},
        time,
    },
};

/// One job, or a filter.
#[derive(Debug, clap::Args)]
pub struct Which {
    /// Id of the job; without one, the options say which jobs
    #[arg(value_name = "JOB_ID", conflicts_with_all = FILTERS)]
    pub id: Option<JobId>,

    /// Only jobs that are failed, or quarantined
    #[arg(short, long, value_name = "STATUS", value_delimiter = ',', value_parser = status_parser())]
    #[arg(help_heading = "Which jobs, instead of one")]
    status: Vec<JobStatus>,

    /// Only jobs of this blueprint
    #[arg(short, long, value_name = "NAME", help_heading = "Which jobs, instead of one")]
    blueprint: Option<String>,

    /// Only jobs with this label; given more than once, only jobs with all of them
    #[arg(short, long = "label", value_name = "KEY=VALUE", help_heading = "Which jobs, instead of one")]
    labels: Vec<Label>,

    /// Only jobs created since: a duration before now such as 1h, or a time
    #[arg(long, value_name = "DURATION|TIME", value_parser = since, help_heading = "Which jobs, instead of one")]
    since: Option<Timestamp>,

    /// Only jobs that failed in this state
    #[arg(long, value_name = "STATE", help_heading = "Which jobs, instead of one")]
    failed_state: Option<String>,

    /// Only jobs that ended with this error code
    #[arg(long, value_name = "CODE", help_heading = "Which jobs, instead of one")]
    error_code: Option<String>,

    /// Every failed and every quarantined job
    #[arg(long, help_heading = "Which jobs, instead of one")]
    all: bool,

    /// Only say how many jobs it would be, and which are the first
    #[arg(long, help_heading = "Which jobs, instead of one")]
    dry_run: bool,
}

/// What says which jobs, instead of one.
pub const FILTERS: [&str; 8] =
    ["status", "blueprint", "labels", "since", "failed_state", "error_code", "all", "dry_run"];

fn status_parser() -> impl TypedValueParser<Value = JobStatus> {
    PossibleValuesParser::new(["failed", "quarantined"])
        .try_map(|name| status_from_name(&name).ok_or("no such status"))
}

impl Which {
    /// What was meant; a filter that selects everything must be asked for.
    pub fn check(&self) -> Result<(), Failure> {
        let filters = !self.status.is_empty()
            || self.blueprint.is_some()
            || !self.labels.is_empty()
            || self.since.is_some()
            || self.failed_state.is_some()
            || self.error_code.is_some();
        match self.id.is_some() || filters || self.all {
            true => Ok(()),
            false => Err(Failure::usage(
                "neither a job nor a filter is given",
                "name a JOB_ID, or say which jobs, for example --status quarantined, or --all",
            )),
        }
    }

    fn filter(self) -> RepairFilter {
        RepairFilter {
            statuses: self.status.iter().map(|&status| status.into()).collect(),
            blueprint: self.blueprint.unwrap_or_default(),
            labels: labels(self.labels),
            created_after: self.since.map(time::to_wire),
            created_before: None,
            failed_state: self.failed_state.unwrap_or_default(),
            error_code: self.error_code.unwrap_or_default(),
        }
    }
}

/// Shows the one job that something was done to.
pub fn show_one(
    done: &str,
    job: Option<Job>,
    repeated: bool,
    console: &mut Console,
) -> Result<Exit, Failure> {
    let job = job.unwrap_or_default();
    if repeated {
        console.note("This was done before under the same key; nothing has changed.");
    }
    match console.format() {
        Format::Json => console.print_line(&json::line(&json::job(&job)))?,
        Format::Table => {
            console.print_line(&format!("Job {} {done}; it is {}.", job.id, status_name(job.status)))?
        }
    }
    Ok(Exit::Ok)
}

/// Does it to all of them, call after call, and shows what became of it.
pub async fn run_many(
    done: &str,
    which: Which,
    action: Action,
    server: &Server,
    console: &mut Console,
) -> Result<Exit, Failure> {
    let dry_run = which.dry_run;
    let mut request = RepairJobsRequest {
        filter: Some(which.filter()),
        action: Some(action),
        dry_run,
        ..RepairJobsRequest::default()
    };
    let mut all = RepairJobsResponse::default();
    loop {
        let next = match server.answer(server.jobs().repair_jobs(request.clone())).await {
            Ok(next) => next,
            // What was done before stays done, and is told. If that fails too, why the run broke off is worth more.
            Err(failure) if all.count + all.refused_count > 0 => {
                let _ = show_many(done, dry_run, &all, console);
                return Err(failure.with_hint("run the command again: what is repaired is not met again"));
            }
            Err(failure) => return Err(failure),
        };
        all.count += next.count;
        all.job_ids.extend(next.job_ids);
        all.refused_count += next.refused_count;
        all.refusals.extend(next.refusals);
        all.stopped_by = next.stopped_by;
        request.cursor = next.next_cursor;
        if request.cursor.is_empty() || all.stopped_by.is_some() {
            break;
        }
    }
    let shown = show_many(done, dry_run, &all, console);
    if let Some(stopped) = all.stopped_by {
        console.note(&format!(
            "Stopped early: {} ({}). Run the command again later.",
            stopped.message, stopped.code
        ));
        return Exit::TryLater.after(shown);
    }
    let exit = if all.refused_count > 0 { Exit::Refused } else { Exit::Ok };
    exit.after(shown)
}

fn show_many(
    done: &str,
    dry_run: bool,
    all: &RepairJobsResponse,
    console: &mut Console,
) -> Result<(), Failure> {
    if console.format() == Format::Json {
        return console.print_line(&json::line(&json::repaired(all, dry_run)));
    }
    let jobs = |count: u32| counted(count.into());
    let said = match dry_run {
        true => format!("{} would be {done}.", jobs(all.count)),
        false => format!("{} {done}.", jobs(all.count)),
    };
    console.print_line(&said)?;
    if dry_run {
        let shown = all.job_ids.iter().map(|id| format!("  {id}\n")).collect::<String>();
        console.print(&shown)?;
        if (all.count as usize) > all.job_ids.len() {
            console.print_line("  …")?;
        }
    }
    if all.refused_count > 0 {
        console.print_line(&format!("\nLeft as they are: {}.", jobs(all.refused_count)))?;
        let mut table = Table::new(&["ID", "CODE", "WHY"], Overflow::Cut);
        let row = |one: &RepairRefusal| vec![(&one.job_id).into(), (&one.code).into(), (&one.message).into()];
        let page = table.page(all.refusals.iter().map(row));
        console.print(&page)?;
    }
    Ok(())
}
