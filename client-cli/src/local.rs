//! An orchestrator on this machine: the one way in which `dev` and `bench` put it together.
//!
//! It is the same engine as in production on the same durable store; only the tokens are the well-known ones of development.
//! It refuses to know in which process it runs, and for whom.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};

use avtomatika_orchestrator::{
    App, Parts, StartError,
    api::{Auth, Secret},
    assemble,
    blueprint::Definition,
    chores::pruning::Retention,
    conductor::{self, DEFAULT_RESIDENT_BYTES, Settings},
    config,
    schedule::Schedules,
    store::{StoreError, journal},
    time::SystemClock,
    webhook,
};
use tokio::net::TcpListener;

use crate::{args::DEVELOPMENT_TOKEN, failure::Failure};

/// The worker token of development.
pub(crate) const WORKER_TOKEN: &str = "test-worker-token";

/// What differs from one orchestrator on this machine to another.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Open jobs at once.
    pub(crate) max_open_jobs: usize,
    /// Connected workers at once.
    pub(crate) max_workers: usize,
    /// How long to wait for the workers of before.
    pub(crate) adoption_window: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_open_jobs: config::DEFAULT_MAX_OPEN_JOBS,
            max_workers: config::DEFAULT_MAX_WORKERS,
            adoption_window: config::DEFAULT_ADOPTION_WINDOW,
        }
    }
}

/// Takes a port of this machine, which others cannot reach; 0 takes a free one. Returns which it was.
pub(crate) async fn listen(port: u16) -> Result<(TcpListener, u16), Failure> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let refused = |error: io::Error| {
        Failure::usage(
            format!("cannot listen on {address}: {error}"),
            "stop the program that has the port, or choose another with --port",
        )
    };
    let listener = TcpListener::bind(address).await.map_err(refused)?;
    let port = listener.local_addr().map_err(refused)?.port();
    Ok((listener, port))
}

/// Opens or creates the store in `dir` and recovers what it holds. Nothing is served yet.
pub(crate) fn orchestrator(dir: &Path, definitions: Vec<Definition>, limits: Limits) -> Result<App, Failure> {
    let (client, worker) = (Secret::new(DEVELOPMENT_TOKEN), Secret::new(WORKER_TOKEN));
    let seed = Settings::fresh_seed();
    let entropy_seed =
        seed.map_err(|error| Failure::System(format!("the system gives no random numbers: {error}")))?;
    let parts = Parts {
        store: Arc::new(journal::open(dir).map_err(|error| unusable(&error))?),
        clock: Arc::new(SystemClock::new()),
        definitions,
        schedules: Schedules::default(),
        auth: Auth::new([("default", &client)], [&worker]),
        settings: Settings {
            limits: conductor::Limits {
                max_open_jobs: limits.max_open_jobs,
                max_workers: limits.max_workers,
                resident_bytes_max: DEFAULT_RESIDENT_BYTES,
            },
            adoption_window: limits.adoption_window,
            webhooks: Some(webhooks()),
            entropy_seed,
        },
        retention: Retention::for_age(config::DEFAULT_RETENTION),
        drain_timeout: config::DEFAULT_DRAIN_TIMEOUT,
    };
    assemble(parts).map_err(|error| match error {
        StartError::Store(error) => unusable(&error),
        other => Failure::usage(
            other.to_string(),
            "start the release that stored it, or choose another --data-dir",
        ),
    })
}

/// Everything is on this machine, the receivers of webhooks too.
fn webhooks() -> webhook::Setup {
    let key = webhook::Key::from_secret(webhook::DEVELOPMENT_SECRET).expect("a test holds that it is one");
    webhook::Setup { keys: vec![key], allow_private: true }
}

/// The store refuses, and says how to mend it.
pub(crate) fn unusable(error: &StoreError) -> Failure {
    Failure::usage(error.to_string(), error.hint())
}
