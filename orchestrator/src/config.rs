//! Every knob: what it means, its default, its limits. A flag goes before the environment, the environment before the file
//! given by `--config`, the file before the default.
//!
//! A mistake is answered with the key, what is wrong with it and how to mend it, before anything is started. It refuses to
//! know what is done with the values.

mod running;

use std::{
    collections::BTreeMap,
    env, fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use avtomatika_proto::span;
use clap::{Parser, ValueEnum};
use serde::Deserialize;

use crate::{
    api::Secret,
    blueprint::{Finding, Position, Severity},
    chores::pruning::{KEPT_AT_LEAST, Retention},
    conductor::{DEFAULT_RESIDENT_BYTES, Limits},
    file::{self, Unreadable},
    spelling::did_you_mean,
    telemetry, tls,
    trust::{self, Access, is_client_name},
    webhook,
};

pub use self::running::{Adjusted, RunningConfig};

/// What the command line and the environment say.
#[derive(Debug, Clone, Default, Parser)]
#[command(
    name = "avtomatika-orchestrator",
    version,
    about = "Takes jobs, walks them through their blueprints, and streams tasks to workers.",
    after_long_help = AFTER_HELP
)]
pub struct Args {
    /// File with settings in TOML; examples/orchestrator.toml names every key
    #[arg(long, value_name = "FILE", env = "AVTOMATIKA_CONFIG")]
    pub config: Option<PathBuf>,

    /// Address and port for clients and workers alike: REST and gRPC share it [default: 127.0.0.1:8000]
    #[arg(long, value_name = "ADDRESS", env = "AVTOMATIKA_LISTEN")]
    pub listen: Option<String>,

    /// File with the certificate of this port in PEM, followed by those that lead to its authority. With it, the port speaks TLS
    #[arg(long, value_name = "FILE", env = "AVTOMATIKA_TLS_CERT")]
    pub tls_cert: Option<PathBuf>,

    /// File with the certificate's private key in PEM
    #[arg(long, value_name = "FILE", env = "AVTOMATIKA_TLS_KEY")]
    pub tls_key: Option<PathBuf>,

    /// File with the authorities, in PEM, that sign the certificates of workers. With it, a worker must show one that names it
    #[arg(long, value_name = "FILE", env = "AVTOMATIKA_TLS_CLIENT_CA")]
    pub tls_client_ca: Option<PathBuf>,

    /// Directory that holds the jobs; it is created when it is not there [default: $XDG_DATA_HOME/avtomatika, or
    /// ~/.local/share/avtomatika]
    #[arg(long, value_name = "DIR", env = "AVTOMATIKA_DATA_DIR")]
    pub data_dir: Option<PathBuf>,

    /// Directory with the blueprints that jobs may follow. Required, here or in the file
    #[arg(long, value_name = "DIR", env = "AVTOMATIKA_BLUEPRINTS")]
    pub blueprints: Option<PathBuf>,

    /// File with schedules in TOML: which jobs to make at which times. Without it, none are made
    #[arg(long, value_name = "FILE", env = "AVTOMATIKA_SCHEDULES")]
    pub schedules: Option<PathBuf>,

    /// Token of a client, as NAME:TOKEN; TOKEN alone belongs to the client "default". May be repeated
    #[arg(
        long = "client-token",
        value_name = "[NAME:]TOKEN",
        env = "AVTOMATIKA_CLIENT_TOKEN",
        hide_env_values = true,
        value_delimiter = ','
    )]
    pub client_tokens: Vec<String>,

    /// Token that workers show. May be repeated
    #[arg(
        long = "worker-token",
        value_name = "TOKEN",
        env = "AVTOMATIKA_WORKER_TOKEN",
        hide_env_values = true,
        value_delimiter = ','
    )]
    pub worker_tokens: Vec<String>,

    /// File with clients in TOML: hashes of their tokens, their roles, quotas and limits. It is read again on a reload
    #[arg(long, value_name = "FILE", env = "AVTOMATIKA_CLIENTS_FILE")]
    pub clients_file: Option<PathBuf>,

    /// File with workers in TOML: hashes of tokens for each worker or each pattern of names. It is read again on a reload
    #[arg(long, value_name = "FILE", env = "AVTOMATIKA_WORKERS_FILE")]
    pub workers_file: Option<PathBuf>,

    /// File to which operators' calls and security events are written, a line of JSON for each. Without it they go to the log
    #[arg(long, value_name = "FILE", env = "AVTOMATIKA_AUDIT_LOG")]
    pub audit_log: Option<PathBuf>,

    /// How long after a restart the workers of before are waited for, so that they keep their tasks [default: 5s]
    #[arg(long, value_name = "SPAN", env = "AVTOMATIKA_ADOPTION_WINDOW")]
    pub adoption_window: Option<String>,

    /// Jobs that may be open at once; more are refused until some end [default: 1000000]
    #[arg(long, value_name = "COUNT", env = "AVTOMATIKA_MAX_OPEN_JOBS")]
    pub max_open_jobs: Option<usize>,

    /// Memory for jobs that wait, in MiB. Jobs beyond it wait on the disk and are read when their turn comes [default: 64]
    #[arg(long, value_name = "MIB", env = "AVTOMATIKA_RESIDENT_MIB")]
    pub resident_mib: Option<usize>,

    /// Workers that may be connected at once [default: 10000]
    #[arg(long, value_name = "COUNT", env = "AVTOMATIKA_MAX_WORKERS")]
    pub max_workers: Option<usize>,

    /// How long jobs are kept after their end, such as 12h or 90d; "forever" or 0 removes none [default: 30d]
    #[arg(long, value_name = "SPAN", env = "AVTOMATIKA_RETENTION")]
    pub retention: Option<String>,

    /// Jobs that are kept after their end at most; the oldest go first. 0 sets no such limit [default: 0]
    #[arg(long, value_name = "COUNT", env = "AVTOMATIKA_RETENTION_COUNT")]
    pub retention_count: Option<u64>,

    /// How long a stop may take: requests that are still under way then are cut off [default: 10s]
    #[arg(long, value_name = "SPAN", env = "AVTOMATIKA_DRAIN_TIMEOUT")]
    pub drain_timeout: Option<String>,

    /// Secret with which messages to webhooks are signed: whsec_ and 24 to 64 bytes in base64. May be repeated: messages are then
    /// signed with each. Without one, jobs with a webhook are refused
    #[arg(
        long = "webhook-secret",
        value_name = "SECRET",
        env = "AVTOMATIKA_WEBHOOK_SECRET",
        hide_env_values = true,
        value_delimiter = ','
    )]
    pub webhook_secrets: Vec<String>,

    /// Let webhooks be on this machine and in private networks, and on any port
    #[arg(
        long,
        env = "AVTOMATIKA_WEBHOOKS_ALLOW_PRIVATE",
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    pub webhooks_allow_private: Option<bool>,

    /// Form of the log, which goes to stderr: auto is text on a terminal and JSON otherwise [default: auto]
    #[arg(long, value_enum, value_name = "FORMAT", env = "AVTOMATIKA_LOG_FORMAT")]
    pub log_format: Option<LogFormat>,

    /// What to log: error, warn, info, debug, trace, or a filter such as info,avtomatika_orchestrator=debug [default: info]
    #[arg(long, value_name = "FILTER", env = "AVTOMATIKA_LOG")]
    pub log: Option<String>,

    /// Collector of traces, such as http://localhost:4317, which speaks OTLP over gRPC. Without one, no spans are made; the other
    /// OTEL_* variables are heeded as well
    #[arg(long, value_name = "URL", env = "OTEL_EXPORTER_OTLP_ENDPOINT")]
    pub otlp_endpoint: Option<String>,

    /// Serve without encryption on an address that other machines can reach
    #[arg(
        long,
        env = "AVTOMATIKA_ALLOW_PLAINTEXT",
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    pub allow_plaintext: Option<bool>,
}

const AFTER_HELP: &str = "\
Example:
  avtomatika-orchestrator --blueprints examples/blueprints \\
      --client-token test-client-token --worker-token test-worker-token

  curl -X POST http://localhost:8000/api/jobs/test \\
      -H 'X-Avtomatika-Token: test-client-token' -d '{\"input\": \"Test message\"}'

A flag goes before its environment variable, that before the file, that before the default. Tokens are better kept out of
command lines, where other users of the machine can see them: put them into the environment, separated by commas, or into
the file.

Exit status: 0 stopped as asked; 1 failed while running, for example because the disk failed; 2 a mistake in flags, settings
or blueprints; 69 the address cannot be listened on; 73 the data directory cannot be used.";

/// Form of the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    #[default]
    Auto,
    /// A line for people.
    Text,
    /// A JSON object per line.
    Json,
}

/// What the file says. Its keys are those of the flags, except that the tables of tokens are nicer to write than lists.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    listen: Option<String>,
    tls_cert: Option<PathBuf>,
    tls_key: Option<PathBuf>,
    tls_client_ca: Option<PathBuf>,
    data_dir: Option<PathBuf>,
    blueprints: Option<PathBuf>,
    schedules: Option<PathBuf>,
    clients: Option<BTreeMap<String, String>>,
    worker_tokens: Option<Vec<String>>,
    clients_file: Option<PathBuf>,
    workers_file: Option<PathBuf>,
    audit_log: Option<PathBuf>,
    adoption_window: Option<String>,
    max_open_jobs: Option<usize>,
    resident_mib: Option<usize>,
    max_workers: Option<usize>,
    retention: Option<String>,
    retention_count: Option<u64>,
    drain_timeout: Option<String>,
    webhook_secrets: Option<Vec<String>>,
    webhooks_allow_private: Option<bool>,
    log_format: Option<LogFormat>,
    log: Option<String>,
    otlp_endpoint: Option<String>,
    allow_plaintext: Option<bool>,
}

const FILE_KEYS: [&str; 25] = [
    "listen",
    "tls_cert",
    "tls_key",
    "tls_client_ca",
    "data_dir",
    "blueprints",
    "schedules",
    "clients",
    "worker_tokens",
    "clients_file",
    "workers_file",
    "audit_log",
    "adoption_window",
    "max_open_jobs",
    "resident_mib",
    "max_workers",
    "retention",
    "retention_count",
    "drain_timeout",
    "webhook_secrets",
    "webhooks_allow_private",
    "log_format",
    "log",
    "otlp_endpoint",
    "allow_plaintext",
];

/// Every setting, checked.
#[derive(Debug)]
pub struct Config {
    /// Where clients and workers connect.
    pub listen: SocketAddr,
    /// How the port is encrypted; `None` where it is not.
    pub tls: Option<tls::Files>,
    /// Where the store is.
    pub data_dir: PathBuf,
    /// Where the blueprints are.
    pub blueprints: PathBuf,
    /// Where the schedules are, if there are any.
    pub schedules: Option<PathBuf>,
    /// The clients' tokens, by name.
    pub clients: BTreeMap<String, Secret>,
    /// The workers' tokens.
    pub worker_tokens: Vec<Secret>,
    /// Where more clients are named, if anywhere.
    pub clients_file: Option<PathBuf>,
    /// Where more workers are named, if anywhere.
    pub workers_file: Option<PathBuf>,
    /// Where operators' calls and security events are written down; without it, in the log.
    pub audit_log: Option<PathBuf>,
    /// How long after a restart the workers of before are waited for.
    pub adoption_window: Duration,
    /// Jobs that may be open at once.
    pub max_open_jobs: usize,
    /// Memory for jobs that wait, in MiB.
    pub resident_mib: usize,
    /// Workers that may be connected at once.
    pub max_workers: usize,
    /// Which jobs are kept after their end.
    pub retention: Retention,
    /// How long a stop may take in all.
    pub drain_timeout: Duration,
    /// How webhooks are told; `None` where there is no secret.
    pub webhooks: Option<webhook::Setup>,
    /// Form of the log.
    pub log_format: LogFormat,
    /// What to log.
    pub log: String,
    /// Where spans go, if the settings name a collector.
    pub otlp_endpoint: Option<String>,
}

/// A mistake in the settings: which key, what is wrong, how to mend it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The key, or the file.
    pub key: String,
    /// What is wrong with it.
    pub what: String,
    /// How to mend it.
    pub hint: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.what)
    }
}

impl std::error::Error for ConfigError {}

fn mistake(key: &str, what: impl Into<String>, hint: impl Into<String>) -> ConfigError {
    ConfigError { key: key.to_owned(), what: what.into(), hint: hint.into() }
}

/// Where clients and workers connect when nobody says.
pub const DEFAULT_LISTEN: &str = "127.0.0.1:8000";

/// How long after a restart the workers of before are waited for when nobody says.
pub const DEFAULT_ADOPTION_WINDOW: Duration = Duration::from_secs(5);

/// Jobs that may be open at once when nobody says: some 300 MB of memory, whatever their size.
pub const DEFAULT_MAX_OPEN_JOBS: usize = 1_000_000;

/// Memory for jobs that wait, in MiB, when nobody says.
pub const DEFAULT_RESIDENT_MIB: usize = DEFAULT_RESIDENT_BYTES / (1024 * 1024);

/// Workers that may be connected at once when nobody says.
pub const DEFAULT_MAX_WORKERS: usize = 10_000;

/// How long jobs are kept after their end when nobody says.
pub const DEFAULT_RETENTION: Duration = Duration::from_secs(30 * 86_400);

/// How long a stop waits when nobody says.
pub const DEFAULT_DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest span that the start or the stop of a process may be told to wait.
const WAIT_MAX: Duration = Duration::from_secs(600);

/// Secrets for webhooks at once: every message is signed with each.
const WEBHOOK_SECRETS_MAX: usize = 8;

/// Size of the file of settings: far more than every key takes, with thousands of tokens among them.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Length of a token.
const TOKEN_BYTES_MAX: usize = 1024;

impl Config {
    /// The settings of this process: its arguments and environment, and the file that they name.
    ///
    /// # Errors
    /// The first mistake that was found.
    pub fn resolve(args: Args) -> Result<Self, ConfigError> {
        let file = match &args.config {
            Some(path) => read(path)?,
            None => File::default(),
        };
        Self::merge(args, file)
    }

    /// The settings in the text of a file alone.
    ///
    /// # Errors
    /// The first mistake that was found.
    pub fn from_toml(name: &str, text: &str) -> Result<Self, ConfigError> {
        Self::merge(Args::default(), parse(name, text)?)
    }

    /// How much there may be of what.
    pub fn limits(&self) -> Limits {
        let resident_bytes_max = self.resident_mib.saturating_mul(1024 * 1024);
        Limits { max_open_jobs: self.max_open_jobs, max_workers: self.max_workers, resident_bytes_max }
    }

    /// Everybody who may call: those among the settings, and those in the files, which are read now.
    ///
    /// # Errors
    /// All that is wrong with the files and with both together; the address asks for more than the tokens give.
    pub fn access(&self) -> Result<Access, Vec<Finding>> {
        let inline = self.clients.iter().map(|(name, token)| (name.as_str(), token));
        let mut access = Access::inline(inline, &self.worker_tokens);
        let mut wrong = Vec::new();
        match self.clients_file.as_deref().map(trust::clients).transpose() {
            Ok(clients) => access.clients.extend(clients.into_iter().flatten()),
            Err(findings) => wrong.extend(findings),
        }
        match self.workers_file.as_deref().map(trust::workers).transpose() {
            Ok(workers) => access.workers.extend(workers.into_iter().flatten()),
            Err(findings) => wrong.extend(findings),
        }
        if !wrong.is_empty() {
            return Err(wrong);
        }
        access.check()?;
        self.check_somebody(&access)?;
        self.check_tokens(&access)?;
        Ok(access)
    }

    fn merge(args: Args, file: File) -> Result<Self, ConfigError> {
        let config = Self {
            listen: listen(args.listen.or(file.listen).as_deref().unwrap_or(DEFAULT_LISTEN))?,
            tls: tls_files(
                args.tls_cert.or(file.tls_cert),
                args.tls_key.or(file.tls_key),
                args.tls_client_ca.or(file.tls_client_ca),
            )?,
            data_dir: args.data_dir.or(file.data_dir).map_or_else(default_data_dir, Ok)?,
            blueprints: args.blueprints.or(file.blueprints).ok_or_else(no_blueprints)?,
            schedules: args.schedules.or(file.schedules),
            clients: clients(args.client_tokens, file.clients)?,
            worker_tokens: workers(args.worker_tokens, file.worker_tokens)?,
            clients_file: args.clients_file.or(file.clients_file),
            workers_file: args.workers_file.or(file.workers_file),
            audit_log: args.audit_log.or(file.audit_log),
            adoption_window: wait(
                "adoption_window",
                args.adoption_window.or(file.adoption_window),
                DEFAULT_ADOPTION_WINDOW,
            )?,
            max_open_jobs: count(
                "max_open_jobs",
                args.max_open_jobs.or(file.max_open_jobs),
                DEFAULT_MAX_OPEN_JOBS,
            )?,
            // 0 is lawful: every job that waits then does so on the disk.
            resident_mib: args.resident_mib.or(file.resident_mib).unwrap_or(DEFAULT_RESIDENT_MIB),
            max_workers: count("max_workers", args.max_workers.or(file.max_workers), DEFAULT_MAX_WORKERS)?,
            retention: Retention {
                age: retention(args.retention.or(file.retention).as_deref())?,
                // 0 would remove every job a minute after its end, which nobody means.
                count: args.retention_count.or(file.retention_count).filter(|count| *count > 0),
            },
            drain_timeout: wait(
                "drain_timeout",
                args.drain_timeout.or(file.drain_timeout),
                DEFAULT_DRAIN_TIMEOUT,
            )?,
            webhooks: webhooks(
                args.webhook_secrets,
                file.webhook_secrets,
                args.webhooks_allow_private.or(file.webhooks_allow_private).unwrap_or(false),
            )?,
            log_format: args.log_format.or(file.log_format).unwrap_or_default(),
            otlp_endpoint: args.otlp_endpoint.or(file.otlp_endpoint).filter(|url| !url.is_empty()),
            log: args.log.or(file.log).unwrap_or_else(|| telemetry::DEFAULT_FILTER.to_owned()),
        };
        config.check_exposure(args.allow_plaintext.or(file.allow_plaintext).unwrap_or(false))?;
        Ok(config)
    }

    /// An orchestrator that nobody may use was not meant.
    fn check_somebody(&self, access: &Access) -> Result<(), Vec<Finding>> {
        let nobody = |key: &str, what: &str, cure: &str| {
            let (what, cure) = (what.to_owned(), cure.to_owned());
            vec![Finding {
                severity: Severity::Error,
                file: key.to_owned(),
                at: Position::default(),
                what,
                cure,
            }]
        };
        if access.clients.is_empty() {
            return Err(nobody(
                "client_tokens",
                "no client may submit jobs, because no client has a token",
                "give one with --client-token NAME:TOKEN, AVTOMATIKA_CLIENT_TOKEN, [clients] in the file, or a clients_file",
            ));
        }
        if access.workers.is_empty() {
            return Err(nobody(
                "worker_tokens",
                "no worker may connect, because there is no worker token",
                "give one with --worker-token, AVTOMATIKA_WORKER_TOKEN, worker_tokens in the file, or a workers_file",
            ));
        }
        Ok(())
    }

    /// What other machines can reach is not guarded by tokens that everybody knows.
    fn check_tokens(&self, access: &Access) -> Result<(), Vec<Finding>> {
        if self.listen.ip().is_loopback() {
            return Ok(());
        }
        let known = |owner: String| Finding {
            severity: Severity::Error,
            file: "client_tokens, worker_tokens".to_owned(),
            at: Position::default(),
            what: format!(
                "a token of the examples, that of {owner}, cannot guard {}, which other machines can reach",
                self.listen
            ),
            cure: "make tokens that nobody can guess with `avtomatika token new`".to_owned(),
        };
        let known: Vec<Finding> = access.well_known().into_iter().map(known).collect();
        if known.is_empty() { Ok(()) } else { Err(known) }
    }

    /// Tokens do not cross a network where anybody can read them, unless the operator says that something else guards it.
    fn check_exposure(&self, allow_plaintext: bool) -> Result<(), ConfigError> {
        if self.listen.ip().is_loopback() {
            return Ok(());
        }
        match allow_plaintext || self.tls.is_some() {
            true => Ok(()),
            false => Err(mistake(
                "listen",
                format!(
                    "{} can be reached by other machines, and tokens would cross the network unencrypted",
                    self.listen
                ),
                "give the port a certificate with --tls-cert and --tls-key, or say --allow-plaintext when the network itself is safe",
            )),
        }
    }
}

/// A certificate needs its key, and whoever asks workers for certificates must have one.
fn tls_files(
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
    client_ca: Option<PathBuf>,
) -> Result<Option<tls::Files>, ConfigError> {
    const HINT: &str = "docs/tls.md shows how to make certificates, and what each file is for";
    match (cert, key, client_ca) {
        (Some(cert), Some(key), client_ca) => Ok(Some(tls::Files { cert, key, client_ca })),
        (None, None, None) => Ok(None),
        (Some(_), None, _) => Err(mistake("tls_key", "the certificate of tls_cert has no key", HINT)),
        (None, Some(_), _) => Err(mistake("tls_cert", "there is a tls_key, and no certificate", HINT)),
        (None, None, Some(_)) => {
            Err(mistake("tls_cert", "workers can show certificates only where the port speaks TLS", HINT))
        }
    }
}

/// Secrets of flags and environment take the place of those in the file, as tokens do.
fn webhooks(
    given: Vec<String>,
    file: Option<Vec<String>>,
    allow_private: bool,
) -> Result<Option<webhook::Setup>, ConfigError> {
    let secrets = if given.is_empty() { file.unwrap_or_default() } else { given };
    if secrets.len() > WEBHOOK_SECRETS_MAX {
        return Err(mistake(
            "webhook_secrets",
            format!("{} secrets are more than {WEBHOOK_SECRETS_MAX}", secrets.len()),
            "strike those that no receiver uses any more",
        ));
    }
    let key = |secret: &String| {
        webhook::Key::from_secret(secret).map_err(|invalid| {
            mistake(
                "webhook_secrets",
                invalid.to_string(),
                "make one with: echo whsec_$(openssl rand -base64 32)",
            )
        })
    };
    let keys: Vec<webhook::Key> = secrets.iter().map(key).collect::<Result<_, _>>()?;
    Ok((!keys.is_empty()).then_some(webhook::Setup { keys, allow_private }))
}

fn read(path: &Path) -> Result<File, ConfigError> {
    let name = path.display().to_string();
    let text = file::text(path, FILE_BYTES_MAX).map_err(|error| {
        let hint = match error {
            Unreadable::Unusable(_) => "check the path after --config, and its permissions",
            Unreadable::TooLarge { .. } => "it holds settings only; many clients go into a clients_file",
        };
        mistake(&name, error.to_string(), hint)
    })?;
    parse(&name, &text)
}

fn parse(name: &str, text: &str) -> Result<File, ConfigError> {
    // A byte order mark is what some editors leave; it means nothing.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    toml::from_str(text).map_err(|error| {
        let span = error.span().unwrap_or_default();
        let line = text[..text.floor_char_boundary(span.start)].matches('\n').count() + 1;
        let place = format!("{name}, line {line}");
        if error.message().starts_with("unknown field") {
            let key = text.get(span).unwrap_or_default().trim();
            let meant = did_you_mean(key, FILE_KEYS);
            return mistake(
                &place,
                format!("unknown key {key:?}{meant}"),
                format!("keys: {}", FILE_KEYS.join(", ")),
            );
        }
        mistake(&place, error.message().trim(), "examples/orchestrator.toml shows every key with its form")
    })
}

fn listen(text: &str) -> Result<SocketAddr, ConfigError> {
    let with_address = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
    with_address.as_deref().unwrap_or(text).parse().map_err(|_| {
        mistake(
            "listen",
            format!("{text:?} is not an address with a port"),
            "write it as 127.0.0.1:8000, or [::1]:8000; 0.0.0.0:8000 means every address",
        )
    })
}

fn default_data_dir() -> Result<PathBuf, ConfigError> {
    Ok(data_home()?.join("avtomatika"))
}

/// Where this user's programs keep their data: `$XDG_DATA_HOME`, or `~/.local/share`.
///
/// # Errors
/// When there is no home directory.
pub fn data_home() -> Result<PathBuf, ConfigError> {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    // A relative XDG_DATA_HOME is to be ignored, says its specification.
    let base = set("XDG_DATA_HOME").filter(|path| path.is_absolute());
    let base = base.or_else(|| set("HOME").map(|home| home.join(".local/share")));
    base.ok_or_else(|| {
        mistake("data_dir", "there is no home directory to put it in", "name a directory with --data-dir")
    })
}

fn no_blueprints() -> ConfigError {
    mistake(
        "blueprints",
        "no directory with blueprints is named",
        "name one with --blueprints, such as examples/blueprints",
    )
}

/// Tokens of flags and environment take the place of those in the file, all of them: a token that was struck from one list
/// must not live on in the other.
fn clients(
    given: Vec<String>,
    file: Option<BTreeMap<String, String>>,
) -> Result<BTreeMap<String, Secret>, ConfigError> {
    let mut pairs: Vec<(String, String)> = Vec::new();
    for text in given {
        pairs.push(match text.split_once(':') {
            Some((name, token)) => (name.to_owned(), token.to_owned()),
            None => ("default".to_owned(), text),
        });
    }
    if pairs.is_empty() {
        pairs.extend(file.unwrap_or_default());
    }
    let mut clients = BTreeMap::new();
    for (name, token) in pairs {
        if !is_client_name(&name) {
            return Err(mistake(
                "client_tokens",
                format!("{:?} is not a client's name", telemetry::printable(&name)),
                "write NAME:TOKEN; a name is 1 to 64 characters of a-z A-Z 0-9 . _ -",
            ));
        }
        let token = secret("client_tokens", token)?;
        if clients.insert(name.clone(), token).is_some() {
            return Err(mistake("client_tokens", format!("client {name:?} has two tokens"), "give it one"));
        }
    }
    Ok(clients)
}

fn workers(given: Vec<String>, file: Option<Vec<String>>) -> Result<Vec<Secret>, ConfigError> {
    let tokens = if given.is_empty() { file.unwrap_or_default() } else { given };
    tokens.into_iter().map(|token| secret("worker_tokens", token)).collect()
}

/// A token that a header can carry. The error does not show it.
fn secret(key: &str, token: String) -> Result<Secret, ConfigError> {
    let fits = (1..=TOKEN_BYTES_MAX).contains(&token.len());
    match fits && token.bytes().all(|byte| byte.is_ascii_graphic()) {
        true => Ok(Secret::new(token)),
        false => Err(mistake(
            key,
            "a token is not 1 to 1024 visible ASCII characters",
            "make tokens without spaces, for example with `avtomatika token new`",
        )),
    }
}

fn wait(key: &str, text: Option<String>, default: Duration) -> Result<Duration, ConfigError> {
    let Some(text) = text else { return Ok(default) };
    match span::parse_or_seconds(&text) {
        Ok(span) if span <= WAIT_MAX => Ok(span),
        Ok(_) => Err(mistake(key, format!("{text:?} is longer than 10m"), "choose less")),
        Err(error) => Err(mistake(key, format!("{text:?}: {error}"), format!("write it as {key} = \"5s\""))),
    }
}

/// A number needs its unit here: a mistake would cost jobs.
fn retention(text: Option<&str>) -> Result<Option<Duration>, ConfigError> {
    let (key, hint) = ("retention", "write it as retention = \"30d\", or \"forever\" to remove none");
    match text {
        None => Ok(Some(DEFAULT_RETENTION)),
        Some("forever" | "0") => Ok(None),
        Some(text) => match span::parse(text) {
            Ok(span) if span >= KEPT_AT_LEAST => Ok(Some(span)),
            Ok(_) => Err(mistake(key, format!("{text:?} is shorter than 1m"), hint)),
            Err(error) => Err(mistake(key, format!("{text:?}: {error}"), hint)),
        },
    }
}

fn count(key: &str, given: Option<usize>, default: usize) -> Result<usize, ConfigError> {
    match given.unwrap_or(default) {
        0 => Err(mistake(key, "0 would refuse everything", "choose 1 or more, or leave it out")),
        count => Ok(count),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    const LEAST: &str =
        "blueprints = \"b\"\nworker_tokens = [\"w\"]\ndata_dir = \"d\"\n[clients]\ndefault = \"c\"\n";

    fn args(flags: &[&str]) -> Args {
        Args::try_parse_from([&["avtomatika-orchestrator"], flags].concat()).unwrap()
    }

    fn refused(settings: &str) -> String {
        match Config::from_toml("test.toml", settings) {
            Err(error) => {
                assert!(!error.hint.is_empty());
                error.to_string()
            }
            Ok(config) => {
                let findings = config.access().unwrap_err();
                assert!(!findings[0].cure.is_empty());
                format!("{}: {}", findings[0].file, findings[0].what)
            }
        }
    }

    #[test]
    fn the_command_line_is_sound_and_hides_tokens() {
        Args::command().debug_assert();
    }

    #[test]
    fn the_example_names_every_key_and_is_accepted() {
        let text = include_str!("../../examples/orchestrator.toml");
        let config = Config::from_toml("orchestrator.toml", text).unwrap();
        assert_eq!(config.webhooks, None);
        assert!(config.clients.contains_key("default"));
        for key in FILE_KEYS {
            let named = text.lines().any(|line| {
                let line = line.trim_start_matches("#= ").trim_start_matches("#+ ");
                line.starts_with(&format!("{key} =")) || line == format!("[{key}]")
            });
            assert!(named, "examples/orchestrator.toml lacks {key}");
        }
        // What is commented out is the default, and is accepted as well.
        let uncommented: String = text
            .lines()
            .map(|line| line.strip_prefix("#= ").unwrap_or(line))
            .flat_map(|line| [line, "\n"])
            .collect();
        let defaults = Config::from_toml("orchestrator.toml", &uncommented).unwrap();
        assert_eq!((defaults.listen, defaults.tls), (config.listen, config.tls));
        assert_eq!(defaults.adoption_window, config.adoption_window);
        assert_eq!(defaults.max_open_jobs, config.max_open_jobs);
        assert_eq!(defaults.max_workers, config.max_workers);
        assert_eq!(defaults.retention, config.retention);
        assert_eq!(defaults.drain_timeout, config.drain_timeout);
        assert_eq!(defaults.webhooks, config.webhooks);
        assert_eq!((defaults.log_format, defaults.log), (config.log_format, config.log));
    }

    #[test]
    fn a_flag_goes_before_the_file_and_the_file_before_the_default() {
        let file =
            || parse("test.toml", &format!("listen = \"127.0.0.1:1\"\nmax_workers = 7\n{LEAST}")).unwrap();
        let config =
            Config::merge(args(&["--listen", "localhost:2", "--client-token", "alice:a"]), file()).unwrap();
        assert_eq!(config.listen, "127.0.0.1:2".parse().unwrap());
        assert_eq!(config.max_workers, 7);
        assert_eq!(config.max_open_jobs, DEFAULT_MAX_OPEN_JOBS);
        assert_eq!(config.clients.keys().collect::<Vec<_>>(), ["alice"], "the file's clients do not live on");
    }

    #[test]
    fn a_mistake_is_answered_with_its_key() {
        for (settings, text) in [
            ("listne = \"x\"", "test.toml, line 1: unknown key \"listne\"; did you mean \"listen\"?"),
            ("\nlisten = 8000", "test.toml, line 2: invalid type: integer `8000`, expected a string"),
            ("listen = \"x\"\nlisten = \"y\"", "test.toml, line 2: duplicate key"),
            ("blueprints =", "test.toml, line 1: string values must be quoted"),
            ("listen = \"8000\"", "listen: \"8000\" is not an address with a port"),
            ("listen = \"127.0.0.1:70000\"", "listen: \"127.0.0.1:70000\" is not an address with a port"),
            ("data_dir = \"d\"", "blueprints: no directory with blueprints is named"),
            ("data_dir = \"d\"\nblueprints = \"b\"", "client_tokens: no client may submit jobs"),
            (
                "data_dir = \"d\"\nblueprints = \"b\"\nclients_file = \"/nothing/clients.toml\"",
                "/nothing/clients.toml: cannot be read: ",
            ),
        ] {
            let found = refused(settings);
            assert!(found.starts_with(text), "{settings:?}: {found}");
        }
        for (line, text) in [
            ("max_workers = 0", "max_workers: 0 would refuse everything"),
            ("max_open_jobs = -1", "test.toml, line 1: invalid value: integer `-1`"),
            ("drain_timeout = \"soon\"", "drain_timeout: \"soon\": expected a span of time"),
            ("adoption_window = \"1h\"", "adoption_window: \"1h\" is longer than 10m"),
            ("retention = \"90\"", "retention: \"90\": expected a span of time such as"),
            ("retention = \"59s\"", "retention: \"59s\" is shorter than 1m"),
            ("retention = \"0s\"", "retention: \"0s\" is shorter than 1m"),
            ("retention = \"never\"", "retention: \"never\": expected a span of time such as"),
            ("tls_cert = \"c\"", "tls_key: the certificate of tls_cert has no key"),
            ("tls_key = \"k\"", "tls_cert: there is a tls_key, and no certificate"),
            (
                "tls_client_ca = \"a\"",
                "tls_cert: workers can show certificates only where the port speaks TLS",
            ),
            ("log_format = \"xml\"", "test.toml, line 1: unknown variant `xml`"),
        ] {
            let found = refused(&format!("{line}\n{LEAST}"));
            assert!(found.starts_with(text), "{line:?}: {found}");
        }
    }

    #[test]
    fn jobs_are_kept_for_a_month_for_a_span_or_for_ever() {
        let kept =
            |line: &str| Config::from_toml("test.toml", &format!("{line}\n{LEAST}")).unwrap().retention.age;
        for (line, days) in [
            ("", Some(30)),
            ("retention = \"90d\"", Some(90)),
            ("retention = \"48h\"", Some(2)),
            ("retention = \"forever\"", None),
            ("retention = \"0\"", None),
        ] {
            assert_eq!(kept(line), days.map(|days| Duration::from_secs(days * 86_400)), "{line}");
        }
        let most =
            |line: &str| Config::from_toml("test.toml", &format!("{line}\n{LEAST}")).unwrap().retention.count;
        assert_eq!(most(""), None);
        assert_eq!(most("retention_count = 0"), None);
        assert_eq!(most("retention_count = 5000"), Some(5000));
    }

    #[test]
    fn tokens_are_checked_and_never_shown() {
        let with = |clients: &str, workers: &str| {
            format!(
                "data_dir = \"d\"\nblueprints = \"b\"\nworker_tokens = [{workers}]\n[clients]\n{clients}\n"
            )
        };
        for (clients, workers, text) in [
            ("a = \"t\"", "", "worker_tokens: no worker may connect"),
            ("a = \"t\"", "\"t\"", "worker_tokens: one token is given to client \"a\" and to workers"),
            ("a = \"t\"\nb = \"t\"", "\"w\"", "client_tokens: one token is given to client \"a\" and"),
            ("a = \"secret two\"", "\"w\"", "client_tokens: a token is not 1 to 1024 visible"),
            ("a = \"\"", "\"w\"", "client_tokens: a token is not 1 to 1024 visible"),
            ("\"a b\" = \"t\"", "\"w\"", "client_tokens: \"a b\" is not a client's name"),
        ] {
            let found = refused(&with(clients, workers));
            assert!(found.starts_with(text), "{found}");
            assert!(!found.contains("secret"), "{found}");
        }
        let config = Config::from_toml("test.toml", &with("a = \"secret\"", "\"w\"")).unwrap();
        assert!(!format!("{config:?}").contains("secret"));
    }

    #[test]
    fn webhook_secrets_are_checked_and_never_shown() {
        let secret = webhook::DEVELOPMENT_SECRET;
        let with = |line: &str| Config::from_toml("test.toml", &format!("{line}\n{LEAST}"));
        let config =
            with(&format!("webhook_secrets = [{secret:?}, {secret:?}]\nwebhooks_allow_private = true"))
                .unwrap();
        let setup = config.webhooks.as_ref().unwrap();
        assert_eq!((setup.keys.len(), setup.allow_private), (2, true));
        assert!(!format!("{config:?}").contains(&secret[6..]));
        let found = with("webhook_secrets = [\"whsec_c2VjcmV0\"]").unwrap_err();
        assert_eq!(
            found.to_string(),
            "webhook_secrets: a webhook secret is whsec_ and the base64 form of 24 to 64 bytes"
        );
        assert!(found.hint.contains("openssl rand -base64 32"));
        let many = vec![format!("{secret:?}"); 9].join(", ");
        let found = with(&format!("webhook_secrets = [{many}]")).unwrap_err();
        assert!(found.to_string().starts_with("webhook_secrets: 9 secrets are more than 8"));
    }

    #[test]
    fn what_other_machines_can_reach_needs_real_tokens_and_a_word_about_encryption() {
        let with = |listen: &str, token: &str, more: &str| {
            Config::from_toml(
                "test.toml",
                &format!(
                    "listen = \"{listen}\"\n{more}\ndata_dir = \"d\"\nblueprints = \"b\"\nworker_tokens = [\"w\"]\n[clients]\na = \"{token}\"\n"
                ),
            )
            .map_err(|error| error.to_string())
            .and_then(|config| config.access().map_err(|findings| findings[0].to_string()))
        };
        assert!(with("127.0.0.1:8000", "test-client-token", "").is_ok());
        assert!(with("[::1]:8000", "test-client-token", "").is_ok());
        assert!(with("0.0.0.0:8000", "t", "allow_plaintext = true").is_ok());
        assert!(with("0.0.0.0:8000", "t", "tls_cert = \"c\"\ntls_key = \"k\"").is_ok());
        let found =
            with("0.0.0.0:8000", "test-client-token", "tls_cert = \"c\"\ntls_key = \"k\"").unwrap_err();
        assert!(found.contains("a token of the examples, that of client"), "{found}");
        let found = with("0.0.0.0:8000", "t", "").unwrap_err();
        assert!(found.starts_with("listen: 0.0.0.0:8000 can be reached by other machines"), "{found}");
        let found = with("[::]:8000", "test-client-token", "allow_plaintext = true").unwrap_err();
        assert!(
            found.contains("a token of the examples, that of client \"a\", cannot guard [::]:8000"),
            "{found}"
        );
    }
}
