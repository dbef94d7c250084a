//! A job in words: its status, a line for a change, a page for the whole.

use avtomatika_proto::v1::{CurrentTask, Job, JobStatus, WorkerStatus, waiting_for::What};

use super::{
    json,
    table::{Cell, Tone, fields},
    text::{self, clean},
    time::{between, exact},
};

/// Lines of one piece of data that are shown to people; the rest is in the JSON form.
const DATA_LINES_MAX: usize = 40;

/// The statuses that a job can have, by name.
pub const STATUS_NAMES: [&str; 13] = [
    "pending",
    "running",
    "waiting_for_worker",
    "waiting_for_parallel",
    "waiting_for_child",
    "waiting_for_human",
    "waiting_for_event",
    "waiting_for_timer",
    "finished",
    "failed",
    "cancelled",
    "quarantined",
    "waiting_for_key",
];

/// So many jobs, in words.
pub fn counted(jobs: u64) -> String {
    text::counted(jobs, "job", "jobs")
}

/// The name of a status, such as `waiting_for_worker`; of one that is newer than this program, `unknown_99`.
pub fn status_name(status: i32) -> String {
    match JobStatus::try_from(status) {
        Ok(status) => status.as_str_name().trim_start_matches("JOB_STATUS_").to_ascii_lowercase(),
        Err(_) => format!("unknown_{status}"),
    }
}

/// The status with this name.
pub fn status_from_name(name: &str) -> Option<JobStatus> {
    JobStatus::from_str_name(&format!("JOB_STATUS_{}", name.to_ascii_uppercase()))
}

/// The name of a worker's status, such as `idle`.
pub fn worker_status_name(status: i32) -> String {
    match WorkerStatus::try_from(status) {
        Ok(status) => status.as_str_name().trim_start_matches("WORKER_STATUS_").to_ascii_lowercase(),
        Err(_) => format!("unknown_{status}"),
    }
}

/// The status of a job, in its colour.
pub fn status_cell(status: i32) -> Cell {
    let tone = match JobStatus::try_from(status) {
        Ok(JobStatus::Finished) => Some(Tone::Good),
        Ok(JobStatus::Failed) => Some(Tone::Bad),
        Ok(JobStatus::Quarantined) => Some(Tone::Warning),
        Ok(JobStatus::Running) => Some(Tone::Busy),
        Ok(JobStatus::Cancelled) => Some(Tone::Quiet),
        _ => None,
    };
    Cell::toned(status_name(status), tone)
}

/// What a job is busy with, or why it is not, in one line.
pub fn detail(job: &Job) -> String {
    let mut parts = Vec::new();
    if let Some(task) = &job.current_task {
        parts.push(task_line(task));
    }
    if let Some(waiting) = waiting(job) {
        parts.push(waiting);
    } else if job.current_task.is_none()
        && let Some(resumes) = &job.resumes_at
    {
        parts.push(format!("goes on at {}", exact(Some(resumes))));
    }
    if let Some(error) = error_line(job) {
        parts.push(error);
    }
    clean(&parts.join("; ")).into_owned()
}

/// What the job waits for, when that is neither a task nor a point in time.
fn waiting(job: &Job) -> Option<String> {
    match job.waiting_for.as_ref()?.what.as_ref()? {
        What::Approval(approval) if approval.message.is_empty() => Some("asks somebody to decide".to_owned()),
        What::Approval(approval) => Some(format!("asks: {}", approval.message)),
        What::Signal(signal) => Some(format!("waits for the signal {}", signal.name)),
        What::Children(children) => {
            let failed =
                if children.failed > 0 { format!(", {} failed", children.failed) } else { String::new() };
            Some(format!("{} of {} children ended{failed}", children.ended, children.total))
        }
        What::Keys(keys) => Some(format!("waits for the key {}", keys.keys.join(", "))),
        What::Timer(_) => None,
    }
}

/// Since when it waits for that, and until when at most.
fn waiting_times(job: &Job) -> (String, String) {
    let what = job.waiting_for.as_ref().and_then(|waiting| waiting.what.as_ref());
    let (since, deadline) = match what {
        Some(What::Approval(approval)) => (approval.since.as_ref(), approval.deadline.as_ref()),
        Some(What::Signal(signal)) => (signal.since.as_ref(), signal.deadline.as_ref()),
        Some(What::Children(children)) => (children.since.as_ref(), None),
        Some(What::Keys(keys)) => (keys.since.as_ref(), None),
        Some(What::Timer(_)) | None => (None, None),
    };
    (exact(since), exact(deadline))
}

/// The token with which somebody may decide, if the job asks.
fn approval_token(job: &Job) -> &str {
    match job.waiting_for.as_ref().and_then(|waiting| waiting.what.as_ref()) {
        Some(What::Approval(approval)) => &approval.token,
        _ => "",
    }
}

/// The commands that let the job go on, where somebody has to.
fn ways_on(job: &Job) -> Vec<String> {
    let id = clean(&job.id);
    match job.waiting_for.as_ref().and_then(|waiting| waiting.what.as_ref()) {
        Some(What::Approval(approval)) => {
            let command = |decision: &String| match decision.as_str() {
                "approved" => format!("avtomatika approve {id}"),
                "rejected" => format!("avtomatika reject {id}"),
                other => format!("avtomatika approve {id} --decision {}", quoted(other)),
            };
            approval.decisions.iter().map(command).collect()
        }
        Some(What::Signal(signal)) => vec![format!("avtomatika signal {id} {}", quoted(&signal.name))],
        _ if job.status == i32::from(JobStatus::Quarantined) => {
            vec![format!("avtomatika retry {id}"), format!("avtomatika skip {id} --outcome WORD")]
        }
        _ => Vec::new(),
    }
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let word = clean(word);
    let plain = |c: char| c.is_ascii_alphanumeric() || "._:/-".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.into_owned(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}

fn task_line(task: &CurrentTask) -> String {
    let mut line = task.r#type.clone();
    if task.attempt > 1 {
        line += &format!(" (attempt {})", task.attempt);
    }
    if !task.worker_id.is_empty() {
        line += &format!(" on {}", task.worker_id);
    }
    if let Some(progress) = progress_line(task) {
        line += &format!(" {progress}");
    }
    line
}

/// How far the worker says it is, such as `42% resizing`.
pub fn progress_line(task: &CurrentTask) -> Option<String> {
    let progress = task.progress.as_ref()?;
    let percent = (progress.fraction.clamp(0.0, 1.0) * 100.0).round();
    Some(format!("{percent}% {}", progress.message).trim_end().to_owned())
}

fn error_line(job: &Job) -> Option<String> {
    match (job.error_code.as_str(), job.error_message.as_str()) {
        ("", "") => None,
        ("", message) => Some(message.to_owned()),
        (code, "") => Some(code.to_owned()),
        (code, message) => Some(format!("{code}: {message}")),
    }
}

/// One change of a job as one line: when, status, state, what it is busy with.
pub fn change_line(job: &Job) -> String {
    let (at, status, state) =
        (exact(job.updated_at.as_ref()), status_name(job.status), clean(&job.current_state));
    // As wide as the longest status, so that the lines of a watch line up.
    format!("{at}  {status:<20}  {state}  {}", detail(job)).trim_end().to_owned()
}

/// Everything about a job, for people.
pub fn page(job: &Job) -> String {
    let mut labels: Vec<_> = job.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    labels.sort_unstable();
    let ended = between(job.created_at.as_ref(), job.finished_at.as_ref())
        .map_or(String::new(), |span| format!(" (after {span})"));
    let task = job.current_task.as_ref();
    let (since, until) = waiting_times(job);
    let goes_on = if until.is_empty() { exact(job.resumes_at.as_ref()) } else { String::new() };
    let mut page = fields([
        ("Job", Cell::from(&job.id)),
        ("Blueprint", format!("{} (version {})", job.blueprint_name, job.blueprint_version).into()),
        ("Status", status_cell(job.status)),
        ("State", Cell::from(&job.current_state)),
        (
            "Task",
            task.map_or(String::new(), |task| format!("{}, attempt {}", task.r#type, task.attempt)).into(),
        ),
        ("Worker", task.map_or("", |task| &task.worker_id).into()),
        ("Progress", task.and_then(progress_line).unwrap_or_default().into()),
        ("Started", exact(task.and_then(|task| task.dispatched_at.as_ref())).into()),
        ("Deadline", exact(task.and_then(|task| task.deadline.as_ref())).into()),
        ("Waits for", waiting(job).unwrap_or_default().into()),
        ("Since", since.into()),
        ("At most until", until.into()),
        ("Token", approval_token(job).into()),
        ("Goes on", goes_on.into()),
        ("Outcome", Cell::from(&job.outcome)),
        ("Failed in", Cell::from(failed_in(job))),
        ("Error", Cell::toned(error_line(job).unwrap_or_default(), Some(Tone::Bad))),
        ("Retries", job.retry_count.to_string().into()),
        ("Priority", job.priority.to_string().into()),
        ("Made by", Cell::from(&job.parent_job_id)),
        ("Webhook", Cell::from(&job.webhook_url)),
        ("Labels", labels.join(" ").into()),
        ("Created", exact(job.created_at.as_ref()).into()),
        ("Updated", exact(job.updated_at.as_ref()).into()),
        ("Finished", job.finished_at.as_ref().map_or(String::new(), |at| exact(Some(at)) + &ended).into()),
    ]);
    for (name, data) in [
        ("Initial data", &job.initial_data),
        ("State history", &job.state_history),
        ("Result", &job.result),
        ("Results", &job.results),
    ] {
        page += &block(name, data);
    }
    let ways = ways_on(job);
    if !ways.is_empty() {
        page += "\nTo let it go on\n";
        page.extend(ways.iter().map(|way| format!("  {way}\n")));
    }
    page
}

/// Where a retry would begin. A job that finished has none, even if something failed on its way.
fn failed_in(job: &Job) -> &str {
    if job.status() == JobStatus::Finished { "" } else { &job.failed_state }
}

/// A piece of data under its name, indented and cut to a readable length. Empty data has no block.
pub fn block(name: &str, data: &str) -> String {
    let pretty = json::pretty(data);
    if pretty.is_empty() || pretty == "{}" {
        return String::new();
    }
    let mut block = format!("\n{name}\n");
    for line in pretty.lines().take(DATA_LINES_MAX) {
        block += &format!("  {line}\n");
    }
    let hidden = pretty.lines().count().saturating_sub(DATA_LINES_MAX);
    if hidden > 0 {
        block += &format!("  … {hidden} more lines; see all with --output json\n");
    }
    block
}

#[cfg(test)]
mod tests {
    use avtomatika_proto::v1::TaskProgressReport;

    use super::*;

    #[test]
    fn every_status_has_a_name_that_reads_back() {
        let of_the_contract = (1..).map_while(|number| JobStatus::try_from(number).ok());
        assert_eq!(
            of_the_contract.map(|status| status_name(status.into())).collect::<Vec<_>>(),
            STATUS_NAMES
        );
        for name in STATUS_NAMES {
            assert_eq!(
                status_from_name(name).map(|status| status_name(status.into())).as_deref(),
                Some(name)
            );
        }
        assert_eq!(status_name(99), "unknown_99");
    }

    #[test]
    fn a_change_says_who_does_what_and_how_far() {
        let job = Job {
            status: JobStatus::Running.into(),
            current_state: "init".into(),
            updated_at: Some(prost_types::Timestamp { seconds: 1_700_000_000, nanos: 0 }),
            current_task: Some(CurrentTask {
                r#type: "resize".into(),
                attempt: 2,
                worker_id: "w1".into(),
                progress: Some(TaskProgressReport { fraction: 0.416, message: "page\n3".into() }),
                ..CurrentTask::default()
            }),
            ..Job::default()
        };
        assert_eq!(
            change_line(&job),
            "2023-11-14T22:13:20.000Z  running               init  resize (attempt 2) on w1 42% page 3"
        );
    }

    #[test]
    fn long_data_is_cut_and_says_so() {
        let data = format!("[{}]", vec!["1"; 100].join(","));
        let block = block("Result", &data);
        assert_eq!(block.lines().count(), 2 + DATA_LINES_MAX + 1);
        assert!(block.ends_with("… 62 more lines; see all with --output json\n"), "{block}");
    }

    #[test]
    fn a_fraction_out_of_range_stays_a_percentage() {
        let task = |fraction| CurrentTask {
            progress: Some(TaskProgressReport { fraction, message: String::new() }),
            ..CurrentTask::default()
        };
        assert_eq!(progress_line(&task(7.0)).as_deref(), Some("100%"));
        assert_eq!(progress_line(&task(-1.0)).as_deref(), Some("0%"));
    }
}
