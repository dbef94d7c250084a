//! The orchestrator that is measured: a process of its own for this run, or one that runs already.

use std::{path::Path, time::Duration};

use avtomatika_proto::v1::{GetStatsRequest, ListWorkersRequest};
use serde::Serialize;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::{
    args::{Plan, Target},
    blueprint,
    process::{CLIENT_TOKEN, Memory, OrchestratorProcess, Settings, WORKER_TOKEN},
};
use crate::{
    args::{Options, Tls},
    client::{self, Server},
    failure::Failure,
};

/// How often to look whether somebody else's worker has come.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// What an orchestrator used up while it was measured.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Usage {
    pub(super) cpu_s: f64,
    pub(super) cpu_us_per_job: f64,
    pub(super) memory_peak_mib: f64,
    pub(super) memory_mib: f64,
}

/// The orchestrator, and what is needed to load it.
pub(super) struct Subject {
    pub(super) options: Options,
    pub(super) blueprint: String,
    pub(super) task_type: String,
    pub(super) worker_token: String,
    own: Option<Own>,
}

/// In the order in which they must go: the process, then its directory.
struct Own {
    process: OrchestratorProcess,
    _dir: TempDir,
}

impl Subject {
    /// Starts one, or takes the one that the command line names.
    pub(super) async fn start(plan: &Plan, options: &Options) -> Result<Self, Failure> {
        match &plan.target {
            Target::Own { data_dir } => Self::own(plan, options, data_dir).await,
            Target::Other { blueprint, task_type, worker_token } => Ok(Self {
                worker_token: token(worker_token.as_deref(), options)?,
                options: options.clone(),
                blueprint: blueprint.clone(),
                task_type: task_type.clone(),
                own: None,
            }),
        }
    }

    async fn own(plan: &Plan, options: &Options, data_dir: &Path) -> Result<Self, Failure> {
        let dir = temporary_dir(data_dir)?;
        let broken = |error: std::io::Error| Failure::System(format!("no orchestrator to measure: {error}"));
        let mut settings = Settings::new(dir.path()).map_err(broken)?;
        settings.tasks_per_job = plan.tasks_per_job;
        settings.keys = plan.keys;
        let starting = tokio::task::spawn_blocking(move || OrchestratorProcess::start(settings));
        let started = starting.await.map_err(|error| broken(error.into()))?;
        let process = started.map_err(broken)?;
        Ok(Self {
            options: Options {
                url: process.url().to_owned(),
                token: Some(CLIENT_TOKEN.to_owned()),
                tls: Tls::default(),
                ..options.clone()
            },
            blueprint: blueprint::NAME.to_owned(),
            task_type: blueprint::TASK_TYPE.to_owned(),
            worker_token: WORKER_TOKEN.to_owned(),
            own: Some(Own { process, _dir: dir }),
        })
    }

    /// Whether nobody else uses it.
    pub(super) fn is_own(&self) -> bool {
        self.own.is_some()
    }

    /// Processor time that it has used. Known of an own one only.
    pub(super) fn cpu_time(&self) -> Option<Duration> {
        self.own.as_ref()?.process.cpu_time()
    }

    /// What it used up for so many jobs, from a reading of [`Subject::cpu_time`] on.
    pub(super) fn usage_since(&self, before: Option<Duration>, jobs: u64) -> Option<Usage> {
        let cpu_s = self.cpu_time()?.saturating_sub(before?).as_secs_f64();
        let Memory { peak_bytes, resident_bytes } = self.own.as_ref()?.process.memory()?;
        let mib = |bytes| bytes as f64 / f64::from(1 << 20);
        Some(Usage {
            cpu_s,
            cpu_us_per_job: cpu_s * 1e6 / jobs.max(1) as f64,
            memory_peak_mib: mib(peak_bytes),
            memory_mib: mib(resident_bytes),
        })
    }

    /// Ends an own one, in good order, and removes its directory.
    pub(super) async fn stop(self) -> Result<(), Failure> {
        let Some(Own { process, _dir }) = self.own else { return Ok(()) };
        let stopped = tokio::task::spawn_blocking(|| process.stop()).await;
        stopped
            .map_err(std::io::Error::from)
            .and_then(|stopped| stopped)
            .map_err(|error| Failure::System(format!("after the measurement, {error}")))
    }
}

/// A directory that is removed at the end.
pub(super) fn temporary_dir(parent: &Path) -> Result<TempDir, Failure> {
    tempfile::Builder::new().prefix("avtomatika-bench-").tempdir_in(parent).map_err(|error| {
        Failure::usage(
            format!("no temporary directory in {}: {error}", parent.display()),
            "name a directory that exists and can be written to with --data-dir",
        )
    })
}

/// The name of the orchestrator's store, such as `sqlite`.
pub(super) async fn store_name(server: &Server) -> Result<String, Failure> {
    Ok(server.answer(server.admin().get_stats(GetStatsRequest {})).await?.store)
}

/// Waits until a worker for the task type is connected, or until the stop.
pub(super) async fn somebody_serves(
    server: &Server,
    task_type: &str,
    stop: &CancellationToken,
) -> Result<(), Failure> {
    while !stop.is_cancelled() {
        let listed = server.answer(server.admin().list_workers(ListWorkersRequest {})).await?;
        if listed.workers.iter().any(|worker| worker.supported_tasks.iter().any(|served| served == task_type))
        {
            break;
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_INTERVAL) => {}
            () = stop.cancelled() => {}
        }
    }
    Ok(())
}

fn token(given: Option<&str>, options: &Options) -> Result<String, Failure> {
    match given.filter(|token| !token.is_empty()) {
        Some(token) => Ok(token.to_owned()),
        None if client::is_loopback(&client::checked_uri(&options.url)?) => Ok(WORKER_TOKEN.to_owned()),
        None => Err(Failure::usage(
            format!("the worker in this process has no token for {}", options.url),
            "give it with --worker-token or AVTOMATIKA_WORKER_TOKEN, or start workers yourself and say --worker external",
        )),
    }
}
