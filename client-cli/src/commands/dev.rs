//! `avtomatika dev`: an orchestrator, a worker and a sample job in one process, on a durable store.
//!
//! It is the same engine as in production, put together from the same parts; only the tokens are the well-known ones of
//! development, and it listens on this machine alone.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use avtomatika_orchestrator::{
    App, Parts, StartError,
    api::{Auth, Secret},
    assemble,
    blueprint::{Definition, load, load_dir},
    conductor::{DEFAULT_RESIDENT_BYTES, Settings},
    config::{self, LogFormat},
    store::{StoreError, sqlite::SqliteStore},
    telemetry,
    time::SystemClock,
};
use avtomatika_proto::{v1::SubmitJobRequest, wire_time};
use avtomatika_worker::{WorkerHandle, builtin};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::{
    args::{DEFAULT_URL, DEVELOPMENT_TOKEN, Format, Options},
    client::Server,
    console::Console,
    exit::Exit,
    failure::Failure,
    render::{job, json},
    signals::Signals,
    span::Span,
};

/// The worker token of development.
const WORKER_TOKEN: &str = "test-worker-token";

/// The blueprint that is served when no others are named: the one of the first steps.
const SAMPLE_BLUEPRINT: &str = include_str!("../../../examples/blueprints/test_workflow.yaml");

/// How long the sample job may take before something must be wrong.
const SAMPLE_WITHIN: Duration = Duration::from_secs(30);

const HELP: &str = "\
Everything runs in this process until Ctrl+C: the orchestrator (REST and gRPC on one port), and a demo worker of type
test-processor that serves process_data. Jobs are kept from run to run unless --ephemeral is given. Only this machine can
connect; the tokens are test-client-token and test-worker-token. AVTOMATIKA_LOG=info shows what goes on inside.

Examples:
  avtomatika dev
  avtomatika dev --port 9000 --data-dir ./data
  avtomatika dev --blueprints ./blueprints
  avtomatika dev --ephemeral --no-sample";

/// Options of `dev`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = HELP)]
pub struct Args {
    /// Port to listen on, on this machine only; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 8000)]
    port: u16,

    /// Directory that keeps the jobs from run to run [default: avtomatika-dev in the user's data home]
    #[arg(long, value_name = "DIR", conflicts_with = "ephemeral")]
    data_dir: Option<PathBuf>,

    /// Keep jobs until the end of this run only
    #[arg(long)]
    ephemeral: bool,

    /// Serve the blueprints of this directory too
    #[arg(long, value_name = "DIR")]
    blueprints: Option<PathBuf>,

    /// Do not run the sample job
    #[arg(long)]
    no_sample: bool,
}

pub(super) async fn run(args: Args, options: &Options, console: &mut Console) -> Result<Exit, Failure> {
    let mut signals = Signals::install()?;
    let filter = std::env::var("AVTOMATIKA_LOG").unwrap_or_else(|_| "warn".to_owned());
    // A log that somebody else has started in this process serves as well.
    let _ = telemetry::start(LogFormat::Text, &filter);
    let (listener, port) = listen(args.port).await?;
    let data = Data::choose(&args)?;
    let app = orchestrator(data.path(), definitions(args.blueprints.as_deref())?)?;
    let url = format!("http://localhost:{port}");
    let everything = Everything::start(app, listener, &url)?;

    let shown = tokio::select! {
        shown = show(&args, options, console, &url, data.path(), everything.worker.clone()) => shown,
        _ = signals.next() => Ok(()),
    };
    if shown.is_ok() {
        console.note("Stop with Ctrl+C.");
        tokio::select! {
            _ = signals.next() => console.note("Stopping; once more stops at once."),
            () = everything.ended() => {}
        }
    }
    let stopped = tokio::select! {
        stopped = everything.stop() => stopped,
        exit = signals.next() => return Ok(exit),
    };
    shown.and(stopped).map(|()| Exit::Ok)
}

// ---- What a person sees ----

async fn show(
    args: &Args,
    options: &Options,
    console: &mut Console,
    url: &str,
    data_dir: &Path,
    mut worker: WorkerHandle,
) -> Result<(), Failure> {
    let name = worker.registered().await.ok_or_else(|| broken("the demo worker has stopped"))?;
    let kept = if args.ephemeral { " (removed at the end)" } else { "" };
    console.note(&format!(
        "Avtomatika {} is running on {url} (REST and gRPC)\n  jobs are in  {}{kept}\n  worker       {name} serves process_data\n  tokens       client {DEVELOPMENT_TOKEN}, worker {WORKER_TOKEN}\n",
        env!("CARGO_PKG_VERSION"),
        data_dir.display(),
    ));
    if !args.no_sample {
        sample(options, console, url).await?;
    }
    console.note(&format!(
        "Try it:\n  curl -X POST {url}/api/jobs/test \\\n    -H \"X-Avtomatika-Token: {DEVELOPMENT_TOKEN}\" \\\n    -H \"Content-Type: application/json\" \\\n    -d '{{\"input\": \"Test message\"}}'\nand look at the jobs with\n  {}\n",
        list_command(url),
    ));
    Ok(())
}

/// The command line that lists the jobs of this orchestrator, with this program as it was called.
fn list_command(url: &str) -> String {
    let program = std::env::args().next().unwrap_or_else(|| "avtomatika".to_owned());
    match url == DEFAULT_URL {
        true => format!("{program} list"),
        false => format!("{program} --url {url} list"),
    }
}

/// Sends one job through everything, as any client would.
async fn sample(options: &Options, console: &mut Console, url: &str) -> Result<(), Failure> {
    let own = Options {
        url: url.to_owned(),
        token: Some(DEVELOPMENT_TOKEN.to_owned()),
        timeout: Span(2 * SAMPLE_WITHIN),
        ..options.clone()
    };
    let server = Server::connect(&own).await?;
    let request = SubmitJobRequest {
        blueprint: "test_workflow".to_owned(),
        initial_data: r#"{"input": "success test!"}"#.to_owned(),
        wait: Some(wire_time::duration(SAMPLE_WITHIN)),
        ..SubmitJobRequest::default()
    };
    let started = Instant::now();
    let response = server.answer(server.jobs().submit_job(request)).await?;
    let took = started.elapsed();
    let finished = response.job.ok_or_else(|| broken("the sample job was answered without the job"))?;
    console.note(&format!("A sample job went through in {:.1} ms:", took.as_secs_f64() * 1000.0));
    match console.format() {
        Format::Json => console.print_line(&json::line(&json::job(&finished)))?,
        Format::Table => console.print_line(&job::page(&finished))?,
    }
    Ok(())
}

// ---- The parts ----

/// Where the jobs are.
enum Data {
    Kept(PathBuf),
    Temporary(tempfile::TempDir),
}

impl Data {
    fn choose(args: &Args) -> Result<Self, Failure> {
        if args.ephemeral {
            let dir = tempfile::Builder::new().prefix("avtomatika-").tempdir();
            let dir = dir.map_err(|error| Failure::System(format!("no temporary directory: {error}")))?;
            return Ok(Self::Temporary(dir));
        }
        match &args.data_dir {
            Some(dir) => Ok(Self::Kept(dir.clone())),
            None => config::data_home()
                .map(|home| Self::Kept(home.join("avtomatika-dev")))
                .map_err(|error| Failure::usage(error.to_string(), "name a directory with --data-dir")),
        }
    }

    fn path(&self) -> &Path {
        match self {
            Self::Kept(path) => path,
            Self::Temporary(dir) => dir.path(),
        }
    }
}

async fn listen(port: u16) -> Result<(TcpListener, u16), Failure> {
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

/// The sample blueprint, and those of the user. The user's own version of the sample goes before it.
fn definitions(dir: Option<&Path>) -> Result<Vec<Definition>, Failure> {
    let findings = |findings: Vec<_>| {
        let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
        Failure::usage(
            format!("the blueprints cannot be used:\n{}", lines.join("\n")),
            "each line names the place and the cure",
        )
    };
    let mut loaded = match dir {
        Some(dir) => load_dir(dir).map_err(findings)?,
        None => Vec::new(),
    };
    let sample = load("test_workflow.yaml", SAMPLE_BLUEPRINT).map_err(findings)?;
    let theirs = |name: &str| loaded.iter().any(|own| **own.definition.name() == *name);
    if !theirs(sample.definition.name()) {
        loaded.push(sample);
    }
    Ok(loaded.into_iter().map(|loaded| loaded.definition).collect())
}

fn orchestrator(dir: &Path, definitions: Vec<Definition>) -> Result<App, Failure> {
    let (client, worker) = (Secret::new(DEVELOPMENT_TOKEN), Secret::new(WORKER_TOKEN));
    let seed = Settings::fresh_seed();
    let entropy_seed =
        seed.map_err(|error| Failure::System(format!("the system gives no random numbers: {error}")))?;
    let parts = Parts {
        store: Arc::new(SqliteStore::open(dir).map_err(|error| unusable(&error))?),
        clock: Arc::new(SystemClock::new()),
        definitions,
        auth: Auth::new([("default", &client)], [&worker]),
        settings: Settings {
            max_open_jobs: config::DEFAULT_MAX_OPEN_JOBS,
            max_workers: config::DEFAULT_MAX_WORKERS,
            resident_bytes_max: DEFAULT_RESIDENT_BYTES,
            // The only worker runs in this process, so nobody comes back from before.
            adoption_window: Duration::ZERO,
            entropy_seed,
        },
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

fn unusable(error: &StoreError) -> Failure {
    Failure::usage(error.to_string(), error.hint())
}

fn broken(what: &str) -> Failure {
    Failure::System(what.to_owned())
}

/// The orchestrator and the worker, running.
struct Everything {
    stop_orchestrator: CancellationToken,
    stop_worker: CancellationToken,
    /// Cancelled when the orchestrator has ended, asked or not.
    over: CancellationToken,
    served: JoinHandle<Result<(), StoreError>>,
    worked: JoinHandle<()>,
    worker: WorkerHandle,
}

impl Everything {
    fn start(app: App, listener: TcpListener, url: &str) -> Result<Self, Failure> {
        let (stop_orchestrator, stop_worker) = (CancellationToken::new(), CancellationToken::new());
        let over = CancellationToken::new();
        let serving = app.serve(listener, stop_orchestrator.clone());
        let ended = over.clone().drop_guard();
        let served = tokio::spawn(async move {
            let _ended = ended;
            serving.await
        });
        let worker = builtin::demo_worker(url, WORKER_TOKEN)
            .build()
            .map_err(|error| Failure::System(error.to_string()))?;
        let handle = worker.handle();
        let stop = stop_worker.clone();
        let worked = tokio::spawn(async move {
            if let Err(error) = worker.run_until(async move { stop.cancelled().await }).await {
                tracing::error!(%error, "the demo worker has stopped");
            }
        });
        Ok(Self { stop_orchestrator, stop_worker, over, served, worked, worker: handle })
    }

    /// Returns when the orchestrator has ended by itself.
    async fn ended(&self) {
        self.over.cancelled().await;
    }

    /// Lets the worker finish, then the orchestrator.
    async fn stop(self) -> Result<(), Failure> {
        self.stop_worker.cancel();
        let _ = self.worked.await;
        self.stop_orchestrator.cancel();
        match self.served.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(unusable(&error)),
            Err(_) => Err(broken("the orchestrator has panicked")),
        }
    }
}
