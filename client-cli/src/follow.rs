//! Following a job to its end: through lost connections, up to a time limit, until a signal.
//!
//! It only ever watches: whatever ends the following, the job goes on.

use std::time::Duration;

use avtomatika_proto::v1::{Job, JobStatus, WatchJobRequest};
use tokio::time::{Instant, sleep, timeout};

use crate::{client::Server, exit::Exit, failure::Failure, signals::Signals};

/// How long the orchestrator may be away before following is given up: a restart takes less.
const PATIENCE: Duration = Duration::from_secs(30);

/// Pause before the first new try; doubles up to the longest.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_LONGEST: Duration = Duration::from_secs(2);

/// What there is to tell while a job is followed.
pub enum News<'a> {
    /// The job as it is now.
    Job(&'a Job),
    /// The connection was lost and will be tried again.
    Lost(&'a Failure),
}

/// How following ended.
pub struct Followed {
    /// The last that was heard of the job.
    pub job: Option<Job>,
    /// What that means for the caller.
    pub exit: Exit,
}

/// Whether nothing more will happen to a job of this status.
pub fn is_terminal(status: JobStatus) -> bool {
    exit_of(status) != Exit::StillOpen
}

/// The exit code that tells how a job of this status stands.
pub fn exit_of(status: JobStatus) -> Exit {
    match status {
        JobStatus::Finished => Exit::Ok,
        JobStatus::Failed => Exit::Failed,
        JobStatus::Cancelled => Exit::JobCancelled,
        JobStatus::Quarantined => Exit::JobQuarantined,
        _ => Exit::StillOpen,
    }
}

/// Tells every change of the job to `tell` until the job ends, `limit` has passed, a signal arrives, or nobody reads any more what
/// `tell` writes.
///
/// Errors: what `tell` returns, refusals by the orchestrator, and a connection that stays away longer than 30 s.
pub async fn follow(
    server: &Server,
    job_id: &str,
    limit: Option<Duration>,
    tell: impl FnMut(News<'_>) -> Result<(), Failure>,
) -> Result<Followed, Failure> {
    let mut signals = Signals::install()?;
    let mut job = None;
    let exit = tokio::select! {
        result = watch_to_the_end(server, job_id, &mut job, tell) => {
            let exit = job.as_ref().map_or(Exit::StillOpen, |job| exit_of(job.status()));
            exit.after(result).map_err(|failure| goes_on(failure, job_id))?
        }
        exit = signals.next() => exit,
        () = passed(limit) => Exit::StillOpen,
    };
    Ok(Followed { job, exit })
}

/// A lost connection says nothing about the job.
fn goes_on(failure: Failure, job_id: &str) -> Failure {
    if failure.is_passing() {
        failure.with_hint(format!("the job goes on; follow it again with `avtomatika watch {job_id}`"))
    } else {
        failure
    }
}

async fn passed(limit: Option<Duration>) {
    match limit {
        Some(limit) => sleep(limit).await,
        None => std::future::pending().await,
    }
}

async fn watch_to_the_end(
    server: &Server,
    job_id: &str,
    job: &mut Option<Job>,
    mut tell: impl FnMut(News<'_>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut last_heard = Instant::now();
    let mut pause = PAUSE_FIRST;
    loop {
        let mut heard = false;
        let outcome = watch(server, job_id, |news| {
            heard = true;
            let told = tell(News::Job(&news));
            let ended = is_terminal(news.status());
            // Known, whether it could be told or not.
            *job = Some(news);
            told.map(|()| ended)
        })
        .await;
        if heard {
            (last_heard, pause) = (Instant::now(), PAUSE_FIRST);
        }
        match outcome {
            Ok(true) => return Ok(()),
            // The orchestrator closed the stream in good order before the job ended, as it does when it stops.
            Ok(false) => tell(News::Lost(&lost(server, "the stream ended before the job did")))?,
            Err(failure) if failure.is_passing() && last_heard.elapsed() < PATIENCE => {
                tell(News::Lost(&failure))?
            }
            Err(failure) => return Err(failure),
        }
        if last_heard.elapsed() >= PATIENCE {
            return Err(lost(server, "the stream keeps ending before the job does"));
        }
        sleep(pause).await;
        pause = (pause * 2).min(PAUSE_LONGEST);
    }
}

fn lost(server: &Server, why: &str) -> Failure {
    Failure::Unreachable { url: server.url().to_owned(), why: why.to_owned() }
}

/// One `WatchJob` call. True when `hear` said that the job has ended, false when the stream ended first.
async fn watch(
    server: &Server,
    job_id: &str,
    mut hear: impl FnMut(Job) -> Result<bool, Failure>,
) -> Result<bool, Failure> {
    let request = WatchJobRequest { job_id: job_id.to_owned() };
    let mut stream = server.answer(server.jobs().watch_job(request)).await?;
    // The first message is the present state and due at once; later ones come when something happens.
    let mut next = match timeout(server.timeout(), stream.message()).await {
        Ok(first) => first,
        Err(_) => return Err(Failure::NoAnswer { url: server.url().to_owned(), waited: server.timeout() }),
    };
    loop {
        match next.map_err(|status| server.failure(&status))? {
            Some(response) => {
                if let Some(job) = response.job
                    && hear(job)?
                {
                    return Ok(true);
                }
            }
            None => return Ok(false),
        }
        next = stream.message().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_four_ends_of_a_job_have_four_codes_and_everything_else_is_still_open() {
        let ends: Vec<_> = (0..=12)
            .filter_map(|n| JobStatus::try_from(n).ok())
            .filter(|&status| is_terminal(status))
            .collect();
        assert_eq!(
            ends,
            [JobStatus::Finished, JobStatus::Failed, JobStatus::Cancelled, JobStatus::Quarantined]
        );
        assert_eq!(ends.iter().map(|&status| exit_of(status).code()).collect::<Vec<_>>(), [0, 1, 3, 4]);
    }
}
