//! `avtomatika dev`: an orchestrator, a worker and a sample job in one process, on a durable store.
//!
//! It is the same engine as in production, put together from the same parts; only the tokens are the well-known ones of
//! development, and it listens on this machine alone.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use avtomatika_orchestrator::{
    App,
    blueprint::{Definition, Finding, Loaded, load, load_dir},
    config::{self, LogFormat},
    reload::{Reload, Reloaded},
    store::StoreError,
    telemetry,
};
use avtomatika_proto::{v1::SubmitJobRequest, wire_time};
use avtomatika_worker::{WorkerHandle, builtin};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

mod watch;

use self::watch::DirWatch;
use crate::{
    args::{DEFAULT_URL, DEVELOPMENT_TOKEN, Format, Options, Tls},
    client::Server,
    console::Console,
    exit::Exit,
    failure::Failure,
    local::{self, Limits, WORKER_TOKEN},
    render::{job, json},
    signals::Signals,
    span::Span,
};

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

    /// Serve the blueprints of this directory too, and again whenever its files change
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
    let _log = telemetry::filter(&filter).map(|filter| telemetry::start(LogFormat::Text, filter));
    let (listener, port) = local::listen(args.port).await?;
    let data = Data::choose(&args)?;
    // The only worker runs in this process, so nobody comes back from before.
    let limits = Limits { adoption_window: Duration::ZERO, ..Limits::default() };
    let app = local::orchestrator(data.path(), definitions(args.blueprints.as_deref())?, limits)?;
    let dir = args.blueprints.clone();
    let app = app.reload_from(move || blueprints(dir.as_deref()));
    let reload = app.reload().clone();
    let url = format!("http://localhost:{port}");
    let everything = Everything::start(app, listener, &url)?;

    let shown = tokio::select! {
        shown = show(&args, options, console, &url, data.path(), everything.worker.clone()) => shown,
        _ = signals.next() => Ok(()),
    };
    if shown.is_ok() {
        console.note("Stop with Ctrl+C.");
        let stopping = tokio::select! {
            _ = signals.next() => true,
            () = everything.ended() => false,
            () = follow(args.blueprints.as_deref(), &reload, console) => false,
        };
        if stopping {
            console.note("Stopping; once more stops at once.");
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
        // It is in this process.
        tls: Tls::default(),
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

/// The sample blueprint, and those of the user. The user's own version of the sample goes before it.
fn blueprints(dir: Option<&Path>) -> Result<Vec<Loaded>, Vec<Finding>> {
    let mut loaded = match dir {
        Some(dir) => load_dir(dir)?,
        None => Vec::new(),
    };
    let sample = load("test_workflow.yaml", SAMPLE_BLUEPRINT)?;
    let theirs = |name: &str| loaded.iter().any(|own| **own.definition.name() == *name);
    if !theirs(sample.definition.name()) {
        loaded.push(sample);
    }
    Ok(loaded)
}

fn definitions(dir: Option<&Path>) -> Result<Vec<Definition>, Failure> {
    let loaded = blueprints(dir).map_err(|findings| {
        Failure::usage(
            format!("the blueprints cannot be used:\n{}", lines(&findings)),
            "each line names the place and the cure",
        )
    })?;
    Ok(loaded.into_iter().map(|loaded| loaded.definition).collect())
}

fn lines(findings: &[Finding]) -> String {
    let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

/// Serves what the user's directory holds whenever that has changed, and says so. Never returns.
async fn follow(dir: Option<&Path>, reload: &Reload, console: &mut Console) {
    let Some(dir) = dir else { return std::future::pending().await };
    let mut watch = DirWatch::new(dir);
    let mut was_refused = false;
    // What has changed since the start and before this is noticed, too.
    loop {
        let reloaded = reload.reload(false).await;
        let is_refused = !matches!(reloaded, Ok(Reloaded::Applied { .. }));
        match reloaded {
            // Somebody who has taken a mistake back waits for a word.
            Ok(Reloaded::Applied { changes, .. }) if changes.is_empty() && was_refused => {
                console.note("The blueprints can be used again; they are as they were before.");
            }
            Ok(Reloaded::Applied { changes, warnings, .. }) => {
                if !changes.is_empty() && !warnings.is_empty() {
                    console.note(&lines(&warnings));
                }
                changes.iter().for_each(|change| console.note(&format!("Reloaded {change}")));
            }
            Ok(Reloaded::Refused(findings)) => {
                console.note(&format!("The blueprints stay as they are, because of:\n{}", lines(&findings)));
            }
            Err(error) => console.note(&format!("The blueprints stay as they are: {error}")),
        }
        was_refused = is_refused;
        watch.changed().await;
    }
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
        match self.over.is_cancelled() {
            // Nobody is there any more to take its results, for which it would wait.
            true => self.worked.abort(),
            false => self.stop_worker.cancel(),
        }
        let _ = self.worked.await;
        self.stop_orchestrator.cancel();
        match self.served.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(local::unusable(&error)),
            Err(_) => Err(broken("the orchestrator has panicked")),
        }
    }
}
