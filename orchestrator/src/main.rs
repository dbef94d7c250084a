//! The orchestrator as a process: arguments, settings, log, parts, and then it runs until it is told to stop.
//!
//! Every failure ends with one sentence that says what and why, and one that says how to mend it: see `--help` for what the exit
//! status means.

use std::{
    fmt::Display,
    io,
    net::SocketAddr,
    path::PathBuf,
    process::{self, ExitCode},
    sync::Arc,
    time::Duration,
};

use avtomatika_orchestrator::{
    App, Parts, StartError,
    api::Auth,
    assemble,
    audit::Audit,
    blueprint::{Definition, load_filled_dir},
    conductor::Settings,
    config::{Args, Config, ConfigError, RunningConfig},
    memory, open_files,
    reload::Reload,
    schedule::{self, Known, Schedule, ScheduleError, Schedules},
    store::{StoreError, journal},
    telemetry,
    time::SystemClock,
    tls::{self, Tls},
    trust,
};
use avtomatika_proto::spans::Spans;
use clap::Parser as _;
use tokio::{
    net::{TcpListener, TcpSocket},
    runtime::Runtime,
    signal::unix::{Signal, SignalKind, signal},
};
use tokio_util::sync::CancellationToken;

/// Measured against the system's: see docs/performance.md.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A mistake in flags, settings or blueprints. What clap ends with, too.
const EXIT_USAGE: u8 = 2;

/// Running ended in a failure.
const EXIT_FAILED: u8 = 1;

/// The address cannot be listened on (EX_UNAVAILABLE).
const EXIT_ADDRESS: u8 = 69;

/// Connections that the system holds for us until we take them: as many workers as come back at once after a restart. The system
/// may hold fewer (net.core.somaxconn).
const BACKLOG_MAX: u32 = 4096;

/// How long the threads of the runtime may take to end after everything else: they read files, draw pictures and read jobs, which
/// takes milliseconds, and nobody waits for that any more.
const THREADS_WITHIN: Duration = Duration::from_secs(1);

/// The data directory cannot be used (EX_CANTCREAT).
const EXIT_DATA_DIR: u8 = 73;

/// Why the process ends: what and why, how to mend it, and its status.
struct Failure {
    status: u8,
    what: String,
    hint: String,
}

impl Failure {
    fn new(status: u8, what: impl Display, hint: impl Into<String>) -> Self {
        Self { status, what: what.to_string(), hint: hint.into() }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::new(EXIT_USAGE, &error, &error.hint)
    }
}

fn main() -> ExitCode {
    match run(Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure { status, what, hint }) => {
            telemetry::last_words(&format!("error: {what}\nhint: {hint}\n"));
            ExitCode::from(status)
        }
    }
}

fn run(args: Args) -> Result<(), Failure> {
    let config = Arc::new(Config::resolve(args.clone())?);
    let _log = telemetry::start(config.log_format, telemetry::filter(&config.log)?).map_err(|reason| {
        Failure::new(
            EXIT_FAILED,
            format_args!("cannot start the log: {reason}"),
            "check the limits of this process",
        )
    })?;
    memory::do_without_huge_pages();
    open_files::as_many_as_allowed();
    let definitions = blueprints(&config)?;
    let access = config.access().map_err(|findings| {
        let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
        Failure::new(
            EXIT_USAGE,
            format_args!("nobody is let in, because of:\n{}", lines.join("\n")),
            "each line names the place and the cure; docs/security.md shows how tokens are made",
        )
    })?;
    let audit = audit(&config)?;
    let schedules = schedules(&config, &definitions)?;
    let runtime = Runtime::new().map_err(|error| {
        Failure::new(
            EXIT_FAILED,
            format_args!("cannot start threads: {error}"),
            "free memory, or raise the limit on threads",
        )
    })?;
    let tls = config.tls.clone().map(encryption).transpose()?;
    // First the address: whoever cannot have it has not touched the data.
    let (listener, address) = runtime.block_on(listen(config.listen))?;
    let store = journal::open(&config.data_dir).map_err(|error| store_failure(EXIT_DATA_DIR, &error))?;
    let parts = Parts {
        store: Arc::new(store),
        clock: Arc::new(SystemClock::new()),
        definitions,
        schedules,
        auth: Auth::of(access),
        settings: settings(&config)?,
        retention: config.retention,
        drain_timeout: config.drain_timeout,
    };
    let spans = spans(&runtime, config.otlp_endpoint.as_deref())?;
    let mut app = assemble(parts).map_err(start_failure)?;
    let written = audit.clone();
    if let Some(audit) = audit {
        app = app.with_audit(audit);
    }
    if let Some(spans) = spans {
        app = app.with_spans(spans);
    }
    app = with_reload(app, RunningConfig::new(args, config));
    let scheme = if tls.is_some() { "https" } else { "http" };
    if let Some(tls) = tls {
        app = app.encrypted(tls);
    }
    // Before anybody is told that we run: who knows it may want to stop us.
    let signals = runtime.block_on(async { Signals::install() }).map_err(|error| {
        Failure::new(
            EXIT_FAILED,
            format_args!("cannot wait for signals: {error}"),
            "check the limits of this process",
        )
    })?;
    announce(&app, scheme, address);
    let served = runtime.block_on(serve(app, listener, signals));
    end(runtime);
    if let Some(audit) = written {
        audit.flush();
    }
    served
}

/// Ends the threads of the runtime, but waits for none that hangs in a file, as one of a dead network drive. What was acknowledged
/// is on the disk by now: the conductor has ended after its last commit, and no thread of the runtime commits anything.
fn end(runtime: Runtime) {
    runtime.shutdown_timeout(THREADS_WITHIN);
}

/// Everything that is read again: first the settings, which say where the rest is.
fn with_reload(app: App, running: RunningConfig) -> App {
    let running = Arc::new(running);
    let [settings, access, blueprints, schedules] = [(); 4].map(|()| running.clone());
    app.reload_settings_from(move || settings.read_again())
        .reload_access_from(move || access.newest().access())
        .reload_from(move || load_filled_dir(&blueprints.newest().blueprints))
        .reload_schedules_from(move |names| read_schedules(&schedules.newest(), names))
}

/// Where spans go, if anybody has named a collector.
fn spans(runtime: &Runtime, endpoint: Option<&str>) -> Result<Option<Spans>, Failure> {
    let _inside = runtime.enter();
    Spans::from_environment("avtomatika-orchestrator", endpoint).map_err(|reason| {
        Failure::new(
            EXIT_USAGE,
            format_args!("otlp_endpoint: {reason}"),
            "name a collector such as http://localhost:4317",
        )
    })
}

fn blueprints(config: &Config) -> Result<Vec<Definition>, Failure> {
    let loaded = load_filled_dir(&config.blueprints).map_err(|findings| {
        let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
        Failure::new(
            EXIT_USAGE,
            format_args!("the blueprints cannot be used:\n{}", lines.join("\n")),
            "each line names the place and the cure",
        )
    })?;
    for warning in loaded.iter().flat_map(|loaded| &loaded.warnings) {
        tracing::warn!("{warning}");
    }
    Ok(loaded.into_iter().map(|loaded| loaded.definition).collect())
}

/// The file that operators' calls and security events are written to, if there is to be one.
fn audit(config: &Config) -> Result<Option<Audit>, Failure> {
    let open = |path: &PathBuf| {
        Audit::to_file(path).map_err(|error| {
            Failure::new(
                EXIT_USAGE,
                format_args!("audit_log: {} cannot be written: {error}", path.display()),
                "name a file in a directory that this user may write to",
            )
        })
    };
    config.audit_log.as_ref().map(open).transpose()
}

/// The schedules that there are to be, and whose jobs they may make.
fn read_schedules(config: &Config, blueprints: &[&str]) -> Result<Vec<Schedule>, Vec<ScheduleError>> {
    let Some(path) = &config.schedules else { return Ok(Vec::new()) };
    // What is wrong with that file is told by whoever reads it for its tokens.
    let named = config
        .clients_file
        .as_deref()
        .map(trust::clients)
        .transpose()
        .unwrap_or_default()
        .unwrap_or_default();
    let inline = config.clients.keys().map(String::as_str);
    let clients: Vec<&str> = inline.chain(named.iter().map(|client| &*client.name)).collect();
    schedule::load(path, Known { blueprints, clients: &clients })
}

fn schedules(config: &Config, definitions: &[Definition]) -> Result<Schedules, Failure> {
    let blueprints: Vec<&str> = definitions.iter().map(|definition| &**definition.name()).collect();
    let schedules = read_schedules(config, &blueprints).map_err(|errors| {
        let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
        Failure::new(
            EXIT_USAGE,
            format_args!("the schedules cannot be used:\n{}", lines.join("\n")),
            "each line names the schedule, its key, and the cure; docs/schedules.md shows every key",
        )
    })?;
    Ok(Schedules::new(schedules))
}

fn encryption(files: tls::Files) -> Result<Tls, Failure> {
    let (tls, warnings) = Tls::open(files).map_err(|findings| {
        let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
        Failure::new(
            EXIT_USAGE,
            format_args!("the files of TLS cannot be used:\n{}", lines.join("\n")),
            "each line names the file and the cure; docs/tls.md shows how to make certificates",
        )
    })?;
    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    Ok(tls)
}

async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), Failure> {
    let failure = |error| {
        Failure::new(
            EXIT_ADDRESS,
            format_args!("cannot listen on {address}: {error}"),
            "stop the program that has the port, or choose another address with --listen",
        )
    };
    let listener = bind(address).map_err(failure)?;
    let address = listener.local_addr().map_err(failure)?;
    Ok((listener, address))
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // What ended a moment ago must not keep the address.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG_MAX)
}

fn settings(config: &Config) -> Result<Settings, Failure> {
    let entropy_seed = Settings::fresh_seed().map_err(|error| {
        Failure::new(
            EXIT_FAILED,
            format_args!("the system gives no random numbers: {error}"),
            "check /dev/urandom",
        )
    })?;
    Ok(Settings {
        limits: config.limits(),
        adoption_window: config.adoption_window,
        webhooks: config.webhooks.clone(),
        entropy_seed,
    })
}

/// The store ends the process. Whoever runs on waits for room on a full disk; whoever has ended does not.
fn store_failure(status: u8, error: &StoreError) -> Failure {
    let hint = match error {
        StoreError::Full { .. } => "free space on that disk, and start it again",
        other => other.hint(),
    };
    Failure::new(status, error, hint)
}

fn start_failure(error: StartError) -> Failure {
    match error {
        StartError::Store(error) => store_failure(EXIT_DATA_DIR, &error),
        other => Failure::new(EXIT_FAILED, other, "start the release that stored it, or a later one"),
    }
}

/// Says what is served and where. Tokens are not said: what stands in a log is read by many.
fn announce(app: &App, scheme: &str, address: SocketAddr) {
    let host = match address.ip() {
        ip if ip.is_loopback() => "localhost".to_owned(),
        ip if ip.is_ipv6() => format!("[{ip}]"),
        ip => ip.to_string(),
    };
    tracing::info!("Orchestrator is running on {scheme}://{host}:{port}", port = address.port());
    tracing::info!("Registered blueprints:");
    for blueprint in app.conductor().blueprints().served() {
        let endpoint = blueprint.endpoint.as_deref().map(|path| format!(", POST /api{path}"));
        tracing::info!(
            "  - {} (version {}{})",
            blueprint.name,
            blueprint.version,
            endpoint.unwrap_or_default()
        );
    }
    for view in app.schedules().list(app.conductor().wall_time()) {
        let next =
            view.next.first().map_or("never".to_owned(), |next| format!("next at {}", next.to_rfc3339()));
        tracing::info!("  - schedule {}: {}, {next}", view.schedule.name, view.schedule.timing);
    }
}

async fn serve(app: App, listener: TcpListener, signals: Signals) -> Result<(), Failure> {
    let shutdown = CancellationToken::new();
    let Signals { stop, hangup } = signals;
    tokio::spawn(obey(stop, shutdown.clone()));
    tokio::spawn(reload_when_told(hangup, app.reload().clone()));
    app.serve(listener, shutdown).await.map_err(|error| store_failure(EXIT_FAILED, &error))?;
    tracing::info!("Stopped: every acknowledged job is on disk");
    Ok(())
}

struct Signals {
    stop: StopSignals,
    hangup: Signal,
}

struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Takes them over: from now on they do what is written here.
    fn install() -> std::io::Result<Self> {
        let stop = StopSignals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        };
        Ok(Self { stop, hangup: signal(SignalKind::hangup())? })
    }
}

impl StopSignals {
    /// The next signal, by number.
    async fn next(&mut self) -> i32 {
        tokio::select! {
            _ = self.terminate.recv() => 15,
            _ = self.interrupt.recv() => 2,
        }
    }
}

/// The first signal asks for a stop in order; the second one is somebody who will not wait.
async fn obey(mut signals: StopSignals, shutdown: CancellationToken) {
    signals.next().await;
    tracing::info!("Stopping; a second signal stops at once");
    shutdown.cancel();
    let signal = signals.next().await;
    telemetry::hurry();
    process::exit(128 + signal);
}

/// SIGHUP asks for everything that is in files to be read again.
async fn reload_when_told(mut hangup: Signal, reload: Reload) {
    while hangup.recv().await.is_some() {
        reload.reload_and_log().await;
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread};

    use super::*;

    #[test]
    #[allow(clippy::unwrap_used)]
    fn a_thread_that_hangs_in_a_file_does_not_keep_the_process_alive() {
        let runtime = Runtime::new().unwrap();
        let (hangs, is_hanging) = mpsc::channel();
        let (_never_said, never) = mpsc::channel::<()>();
        runtime.spawn_blocking(move || {
            hangs.send(()).unwrap();
            let _ = never.recv();
        });
        is_hanging.recv().unwrap();
        let (ended, has_ended) = mpsc::channel();
        thread::spawn(move || {
            end(runtime);
            let _ = ended.send(());
        });
        assert!(has_ended.recv_timeout(THREADS_WITHIN * 30).is_ok(), "it waits for the thread that hangs");
    }

    #[test]
    fn whoever_cannot_start_on_a_full_disk_is_told_to_start_again() {
        let full = || StoreError::Full { path: PathBuf::from("/data") };
        for failure in [store_failure(EXIT_DATA_DIR, &full()), start_failure(StartError::Store(full()))] {
            assert_eq!(failure.status, EXIT_DATA_DIR);
            assert_eq!(failure.hint, "free space on that disk, and start it again");
        }
    }
}
