//! The settings of a process that runs: the file is read again when a reload is asked for. What can be changed while the process runs is
//! changed, and the rest is named. Flags and environment are those of the start, and go before the file as ever.
//!
//! It refuses to know who asks, and how settings come into force.

use std::sync::Arc;

use super::{Args, Config, ConfigError};
use crate::{
    blueprint::{Finding, Position, Severity},
    chores::pruning::Retention,
    conductor::Limits,
    live::Live,
    telemetry, webhook,
};

/// Settings that were read while the process runs and are not in force yet.
pub struct Adjusted {
    /// How much there may be of what.
    pub limits: Limits,
    /// Which jobs are kept after their end.
    pub retention: Retention,
    /// How webhooks are told. They are not begun or ended while the process runs.
    pub webhooks: Option<webhook::Setup>,
    /// What to log; `None` leaves the log as it is.
    pub log: Option<telemetry::Filter>,
    /// What has changed and needs a restart.
    pub warnings: Vec<Finding>,
}

/// The settings of this process, as it was started and as they were read last.
pub struct RunningConfig {
    args: Args,
    started: Arc<Config>,
    newest: Live<Config>,
}

impl RunningConfig {
    /// Of a process that was started with these arguments and found these settings.
    pub fn new(args: Args, started: Arc<Config>) -> Self {
        Self { args, newest: Live::new(started.clone()), started }
    }

    /// As they were read last: for whatever else is read in the same reload.
    pub fn newest(&self) -> Arc<Config> {
        self.newest.current()
    }

    /// Reads them again.
    ///
    /// # Errors
    /// The first mistake that was found.
    pub fn read_again(&self) -> Result<Adjusted, Vec<Finding>> {
        let read = Config::resolve(self.args.clone()).map_err(|mistake| vec![finding(mistake)])?;
        let log = telemetry::filter(&read.log).map_err(|mistake| vec![finding(mistake)])?;
        let adjusted = Adjusted {
            limits: read.limits(),
            retention: read.retention,
            webhooks: read.webhooks.clone(),
            log: Some(log),
            warnings: self.need_restart(&read),
        };
        self.newest.replace(read);
        Ok(adjusted)
    }

    /// What would have to be different from the start.
    fn need_restart(&self, read: &Config) -> Vec<Finding> {
        let was = &*self.started;
        let changed = [
            ("listen", was.listen != read.listen),
            ("tls_cert, tls_key, tls_client_ca", was.tls != read.tls),
            ("data_dir", was.data_dir != read.data_dir),
            ("audit_log", was.audit_log != read.audit_log),
            ("adoption_window", was.adoption_window != read.adoption_window),
            ("drain_timeout", was.drain_timeout != read.drain_timeout),
            ("webhook_secrets", was.webhooks.is_some() != read.webhooks.is_some()),
            ("log_format", was.log_format != read.log_format),
            ("otlp_endpoint", was.otlp_endpoint != read.otlp_endpoint),
        ];
        let file = self.args.config.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
        let warning = |key: &str| Finding {
            severity: Severity::Warning,
            file: file.clone(),
            at: Position::default(),
            what: format!("{key} has changed, and needs a restart"),
            cure: "until then it stays as it was at the start; a restart re-runs nothing".to_owned(),
        };
        changed.into_iter().filter(|(_, changed)| *changed).map(|(key, _)| warning(key)).collect()
    }
}

fn finding(ConfigError { key, what, hint }: ConfigError) -> Finding {
    Finding { severity: Severity::Error, file: key, at: Position::default(), what, cure: hint }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::{super::FILE_KEYS, *};

    const LEAST: &str = "blueprints = \"b\"\nworker_tokens = [\"w\"]\ndata_dir = \"d\"\n";
    const CLIENTS: &str = "[clients]\ndefault = \"c\"\n";

    /// A process that was started with such a file.
    fn started(file: &Path, text: &str) -> RunningConfig {
        fs::write(file, text).unwrap();
        let args = Args { config: Some(file.to_owned()), ..Args::default() };
        let config = Config::resolve(args.clone()).unwrap();
        RunningConfig::new(args, Arc::new(config))
    }

    /// What a reload would say when this line is there, beside or in the place of one of the start.
    fn with(line: &str) -> (Adjusted, Arc<Config>) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("settings.toml");
        let running = started(&file, &format!("{LEAST}{CLIENTS}"));
        let key = line.split(' ').next().unwrap();
        let rest: String =
            LEAST.lines().filter(|there| !there.starts_with(key)).flat_map(|line| [line, "\n"]).collect();
        let clients = if line.starts_with('[') { "" } else { CLIENTS };
        fs::write(&file, format!("{rest}{line}\n{clients}")).unwrap();
        let adjusted = running.read_again().map_err(|wrong| wrong[0].to_string()).unwrap();
        (adjusted, running.newest())
    }

    #[test]
    fn every_setting_is_adjusted_or_needs_a_restart() {
        let secret = webhook::DEVELOPMENT_SECRET;
        // Each key with another value than at the start, and whether that needs a restart.
        let changes = [
            ("listen = \"127.0.0.1:1\"".to_owned(), true),
            ("tls_cert = \"c\"\ntls_key = \"k\"".to_owned(), true),
            ("tls_key = \"k\"\ntls_cert = \"c\"".to_owned(), true),
            ("tls_client_ca = \"a\"\ntls_cert = \"c\"\ntls_key = \"k\"".to_owned(), true),
            ("data_dir = \"other\"".to_owned(), true),
            ("blueprints = \"other\"".to_owned(), false),
            ("schedules = \"s\"".to_owned(), false),
            ("[clients]\nother = \"o\"".to_owned(), false),
            ("worker_tokens = [\"other\"]".to_owned(), false),
            ("clients_file = \"c\"".to_owned(), false),
            ("workers_file = \"w\"".to_owned(), false),
            ("audit_log = \"a\"".to_owned(), true),
            ("adoption_window = \"7s\"".to_owned(), true),
            ("max_open_jobs = 7".to_owned(), false),
            ("resident_mib = 7".to_owned(), false),
            ("max_workers = 7".to_owned(), false),
            ("retention = \"7d\"".to_owned(), false),
            ("retention_count = 7".to_owned(), false),
            ("drain_timeout = \"7s\"".to_owned(), true),
            (format!("webhook_secrets = [{secret:?}]"), true),
            ("webhooks_allow_private = true".to_owned(), false),
            ("log_format = \"json\"".to_owned(), true),
            ("log = \"debug\"".to_owned(), false),
            ("otlp_endpoint = \"http://localhost:4317\"".to_owned(), true),
            ("allow_plaintext = true".to_owned(), false),
        ];
        let keys: Vec<String> = changes
            .iter()
            .map(|(line, _)| {
                line.trim_start_matches('[').split([' ', ']']).next().unwrap_or_default().to_owned()
            })
            .collect();
        assert_eq!(keys, FILE_KEYS, "a new key is adjusted, or needs a restart");
        for (line, needs_restart) in changes {
            let (adjusted, _) = with(&line);
            let told: Vec<String> = adjusted.warnings.iter().map(ToString::to_string).collect();
            assert_eq!(!told.is_empty(), needs_restart, "{line}: {told:?}");
            let key = line.split(' ').next().unwrap();
            assert!(
                told.iter().all(|told| told.contains(key) && told.contains("needs a restart")),
                "{told:?}"
            );
        }
    }

    #[test]
    fn what_is_adjusted_is_what_the_file_says_now() {
        let (adjusted, newest) =
            with("max_open_jobs = 7\nmax_workers = 8\nresident_mib = 9\nretention = \"7d\"");
        let limits = Limits { max_open_jobs: 7, max_workers: 8, resident_bytes_max: 9 * 1024 * 1024 };
        assert_eq!(adjusted.limits, limits);
        assert_eq!(adjusted.retention, newest.retention);
        let (_, newest) = with("blueprints = \"other\"");
        assert_eq!(newest.blueprints, Path::new("other"));
    }

    #[test]
    fn a_mistake_leaves_what_was_read_before() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("settings.toml");
        let running = started(&file, &format!("{LEAST}{CLIENTS}"));
        for (line, told) in [
            ("max_workers = 0", "max_workers: error: 0 would refuse everything"),
            ("max_wrokers = 1", "settings.toml, line 1: error: unknown key \"max_wrokers\""),
            ("log = \"a=b=c\"", "log: error: "),
            ("listen = \"0.0.0.0:80\"", "listen: error: 0.0.0.0:80 can be reached by other machines"),
        ] {
            fs::write(&file, format!("{line}\n{LEAST}{CLIENTS}")).unwrap();
            let wrong = running.read_again().err().unwrap()[0].to_string();
            assert!(wrong.contains(told), "{line}: {wrong}");
            assert!(Arc::ptr_eq(&running.newest(), &running.started));
        }
        fs::remove_file(&file).unwrap();
        assert!(running.read_again().err().unwrap()[0].to_string().contains("cannot be read"));
    }
}
