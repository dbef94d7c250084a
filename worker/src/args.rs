//! The command line of the stock worker, and the worker it describes.

use std::{path::PathBuf, str::FromStr, sync::Arc, time::Duration};

use avtomatika_proto::{span, spans::Spans};
use clap::{Parser, ValueEnum};

use crate::{BuildError, Handler, Worker, builtin, exec::Exec, tls::TlsFiles};

/// Several tasks in this variable stand on a line each.
const TASK_VARIABLE: &str = "AVTOMATIKA_TASK";

const HELP: &str = "\
Handlers:
  builtin:process_data  upper-cases the text `payload`; answers `processed_payload`, `worker_id` and `message`
  builtin:echo          answers its params
  builtin:fail          fails with the `code` and `message` that its params name
  exec:COMMAND          runs `sh -c COMMAND` for each task

Commands:
  stdin        the task's params, JSON
  environment  AVTOMATIKA_TASK_ID, AVTOMATIKA_JOB_ID, AVTOMATIKA_TASK_TYPE, AVTOMATIKA_ATTEMPT, AVTOMATIKA_WORKER_ID,
               AVTOMATIKA_DEADLINE (RFC 3339), AVTOMATIKA_CHECKPOINT (JSON: how far earlier attempts came, if they said so);
               other AVTOMATIKA_* variables are removed; TRACEPARENT and TRACESTATE when the job belongs to a trace
  stdout       the result, a JSON object; nothing means {}
  stderr       logged with the task's id; its last lines go into the error message
  descriptor 3 how far it is: a line `progress 40% page 4 of 10` for people, `checkpoint {\"page\": 4}` for the next attempt:
               echo \"progress $((100 * page / pages))%\" >&3
  exit code    0 success, 65 invalid input (never retried), 70 permanent error (never retried), other: retried
  time         when the task times out or is cancelled, the command's process group gets SIGTERM, and SIGKILL 2 s later

Examples:
  avtomatika-worker --token test-worker-token --task process_data=builtin:process_data
  avtomatika-worker --token test-worker-token --max-concurrent-tasks 2 \\
      --task 'count_words=exec:examples/workers/word_count.sh' --task 'resize=exec:python3 resize.py'
  AVTOMATIKA_TOKEN=... AVTOMATIKA_TASK='echo=builtin:echo' avtomatika-worker

Several orchestrators:
  --orchestrator http://a:8000,http://b:8000 tries one address after the other whenever the orchestrator cannot be reached or stops,
  with the same session and with the tasks and results that the worker holds. All of them must serve the same data, one at a time: an
  orchestrator, and others that take over its data directory. For independent orchestrators, start a worker for each.

With OTEL_EXPORTER_OTLP_ENDPOINT, each run of a traced task is told to that collector; other OTEL_* variables are heeded.

The worker stops on SIGTERM or SIGINT, or when an operator runs `avtomatika workers drain`, after its running tasks have ended (at
most the drain timeout; what takes longer goes to other workers); a second signal stops it at once.";

/// Runs tasks for an Avtomatika orchestrator.
#[derive(Parser)]
#[command(name = "avtomatika-worker", version, after_long_help = HELP, after_help = "More, with examples: --help")]
pub struct Args {
    /// Where the orchestrator is. With https:// the connection is encrypted. Several, separated by commas, are the addresses of one
    /// orchestrator and of those that take over its data: see below.
    #[arg(
        long,
        env = "AVTOMATIKA_ORCHESTRATOR",
        default_value = "http://127.0.0.1:8000",
        value_name = "URL",
        value_delimiter = ','
    )]
    pub orchestrator: Vec<String>,

    /// File with the authorities, in PEM, that may vouch for an orchestrator at https://. By default those of this machine.
    #[arg(long, env = "AVTOMATIKA_TLS_CA", value_name = "FILE")]
    pub tls_ca: Option<PathBuf>,

    /// File with the worker's certificate, in PEM, for an orchestrator that asks workers for one. It must name this worker: give
    /// --worker-id, too.
    #[arg(long, env = "AVTOMATIKA_TLS_CERT", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,

    /// File with the certificate's private key, in PEM.
    #[arg(long, env = "AVTOMATIKA_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,

    /// The worker's token. Other users of the machine can read it on the command line, but not in the environment.
    #[arg(long, env = "AVTOMATIKA_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    pub token: String,

    /// The worker's name, unique among workers. By default the orchestrator gives it one: that of the token's entry in its workers
    /// file, or else the worker type and sixteen random hex digits.
    #[arg(long, env = "AVTOMATIKA_WORKER_ID", value_name = "NAME")]
    pub worker_id: Option<String>,

    /// What kind of worker it is, for people.
    #[arg(long, env = "AVTOMATIKA_WORKER_TYPE", default_value = "worker", value_name = "NAME")]
    pub worker_type: String,

    /// How many tasks run at once. By default the number of CPUs.
    #[arg(long, env = "AVTOMATIKA_MAX_CONCURRENT_TASKS", value_name = "COUNT")]
    pub max_concurrent_tasks: Option<u32>,

    /// A task type to serve and how: TYPE=builtin:NAME or TYPE=exec:COMMAND. Repeat it for more. [env: AVTOMATIKA_TASK, one
    /// on each line]
    #[arg(long = "task", value_name = "TYPE=HANDLER")]
    pub tasks: Vec<String>,

    /// A label, KEY=VALUE. Repeat it for more, or separate them by commas.
    #[arg(long = "label", env = "AVTOMATIKA_LABEL", value_name = "KEY=VALUE", value_delimiter = ',')]
    pub labels: Vec<String>,

    /// A quantity that tasks may require, NAME=NUMBER, such as gpu_vram_gb=24. Repeat it for more, or separate them by commas.
    #[arg(long = "resource", env = "AVTOMATIKA_RESOURCE", value_name = "NAME=NUMBER", value_delimiter = ',')]
    pub resources: Vec<String>,

    /// A program that tasks may require, NAME or NAME=VERSION. Repeat it for more, or separate them by commas.
    #[arg(
        long = "software",
        env = "AVTOMATIKA_SOFTWARE",
        value_name = "NAME=VERSION",
        value_delimiter = ','
    )]
    pub software: Vec<String>,

    /// A model that tasks may require, NAME or NAME=VERSION. Repeat it for more, or separate them by commas.
    #[arg(long = "model", env = "AVTOMATIKA_MODEL", value_name = "NAME=VERSION", value_delimiter = ',')]
    pub models: Vec<String>,

    /// How many tasks of one type run at once, beside the total, TYPE=COUNT. Repeat it for more, or separate them by commas.
    #[arg(long = "limit", env = "AVTOMATIKA_LIMIT", value_name = "TYPE=COUNT", value_delimiter = ',')]
    pub limits: Vec<String>,

    /// What one task of a type costs here, TYPE=NUMBER. Repeat it for more, or separate them by commas.
    #[arg(long = "cost", env = "AVTOMATIKA_COST", value_name = "TYPE=NUMBER", value_delimiter = ',')]
    pub costs: Vec<String>,

    /// A task type, or a model, that is warm here. Repeat it for more, or separate them by commas.
    #[arg(long = "hot", env = "AVTOMATIKA_HOT", value_name = "NAME", value_delimiter = ',')]
    pub hot: Vec<String>,

    /// How long running tasks may go on after the worker was asked to stop, such as 30s or 5m. A plain number counts seconds.
    #[arg(
        long,
        env = "AVTOMATIKA_DRAIN_TIMEOUT",
        default_value = "30s",
        value_name = "DURATION",
        value_parser = span::parse_or_seconds
    )]
    pub drain_timeout: Duration,

    /// How the log looks: auto is text on a terminal and JSON otherwise. RUST_LOG chooses what is in it, such as RUST_LOG=debug.
    #[arg(long, env = "AVTOMATIKA_LOG_FORMAT", default_value = "auto", value_name = "FORMAT")]
    pub log_format: LogFormat,
}

/// How the log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    Auto,
    /// Lines for people.
    Text,
    /// One JSON object on each line.
    Json,
}

impl Args {
    /// The tasks of the environment, when the command line names none.
    pub fn or_tasks_from_environment(mut self) -> Self {
        if self.tasks.is_empty()
            && let Ok(tasks) = std::env::var(TASK_VARIABLE)
        {
            self.tasks =
                tasks.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
        }
        self
    }

    /// The worker that the arguments describe.
    ///
    /// # Errors
    ///
    /// Names the argument that is wrong and its cure.
    pub fn into_worker(self, spans: Option<Spans>) -> Result<Worker, BuildError> {
        if self.tasks.is_empty() {
            return Err(BuildError(format!(
                "no task type to serve; give at least one --task TYPE=HANDLER (or {TASK_VARIABLE}), for example \
                 --task process_data=builtin:process_data"
            )));
        }
        let mut addresses = self.orchestrator.into_iter();
        // clap lets no list be empty.
        let mut worker = Worker::builder(addresses.next().unwrap_or_default());
        for another in addresses {
            worker = worker.or_at(another);
        }
        let mut worker = worker
            .tls_files(TlsFiles { ca: self.tls_ca, cert: self.tls_cert, key: self.tls_key })
            .token(self.token)
            .worker_type(self.worker_type)
            .drain_timeout(self.drain_timeout);
        if let Some(worker_id) = self.worker_id {
            worker = worker.worker_id(worker_id);
        }
        if let Some(spans) = spans {
            worker = worker.spans(spans);
        }
        if let Some(slots) = self.max_concurrent_tasks {
            worker = worker.slots(slots);
        }
        for label in &self.labels {
            let (key, value) = pair("label", label, "KEY=VALUE")?;
            worker = worker.label(key, value);
        }
        for resource in &self.resources {
            let (name, number) = numbered("resource", resource, "NAME=NUMBER")?;
            worker = worker.resource(name, number);
        }
        for software in &self.software {
            let (name, version) = software.split_once('=').unwrap_or((software, ""));
            worker = worker.software(name, version);
        }
        for model in &self.models {
            let (name, version) = model.split_once('=').unwrap_or((model, ""));
            worker = worker.model(name, version);
        }
        for limit in &self.limits {
            let (task_type, count) = numbered("limit", limit, "TYPE=COUNT")?;
            worker = worker.limit(task_type, count);
        }
        for cost in &self.costs {
            let (task_type, cost) = numbered("cost", cost, "TYPE=NUMBER")?;
            worker = worker.cost(task_type, cost);
        }
        worker = worker.hot_cache(self.hot);
        for task in &self.tasks {
            let (task_type, handler) = parse_task(task)?;
            worker = worker.handler(task_type, handler);
        }
        worker.build()
    }
}

fn pair<'t>(flag: &str, text: &'t str, form: &str) -> Result<(&'t str, &'t str), BuildError> {
    text.split_once('=').ok_or_else(|| BuildError(format!("--{flag} {text:?} is not {form}")))
}

fn numbered<'t, N: FromStr>(flag: &str, text: &'t str, form: &str) -> Result<(&'t str, N), BuildError> {
    let (name, number) = pair(flag, text, form)?;
    let number = number.parse().map_err(|_| BuildError(format!("--{flag} {text:?} is not {form}")))?;
    Ok((name, number))
}

/// `TYPE=builtin:NAME` or `TYPE=exec:COMMAND`.
fn parse_task(text: &str) -> Result<(String, Arc<dyn Handler>), BuildError> {
    let wrong = |why: String| {
        BuildError(format!("--task {text:?}: {why}; write TYPE=builtin:NAME or TYPE=exec:COMMAND"))
    };
    let (task_type, handler) = text.split_once('=').ok_or_else(|| wrong("it has no `=`".to_owned()))?;
    let (kind, what) =
        handler.split_once(':').ok_or_else(|| wrong(format!("{handler:?} names no kind of handler")))?;
    let handler = match kind {
        "builtin" => builtin::by_name(what).ok_or_else(|| {
            let names: Vec<&str> = builtin::BUILTINS.iter().map(|(name, _)| *name).collect();
            wrong(format!("there is no builtin {what:?}, only {}", names.join(", ")))
        })?,
        "exec" if what.trim().is_empty() => return Err(wrong("the command is empty".to_owned())),
        "exec" => Arc::new(Exec::new(what)),
        other => return Err(wrong(format!("{other:?} is no kind of handler"))),
    };
    Ok((task_type.to_owned(), handler))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn parse(arguments: &str) -> Result<Worker, BuildError> {
        let words = arguments.split_whitespace();
        Args::try_parse_from(["avtomatika-worker"].into_iter().chain(words))
            .expect("clap accepts")
            .into_worker(None)
    }

    #[test]
    fn the_command_line_is_consistent_and_its_help_names_every_builtin() {
        Args::command().debug_assert();
        for (name, _) in builtin::BUILTINS {
            assert!(HELP.contains(&format!("builtin:{name} ")), "{name}");
        }
    }

    #[test]
    fn the_line_of_the_first_steps_makes_a_worker() {
        let line = "--orchestrator http://127.0.0.1:8000 --token test-worker-token --worker-type test-processor \
                    --max-concurrent-tasks 5 --task process_data=builtin:process_data --label a=b,c=d";
        assert!(parse(line).is_ok());
    }

    #[test]
    fn what_tasks_may_require_is_told_on_the_command_line() {
        let line = "--token t --task a=builtin:echo --task b=builtin:echo --resource gpu_vram_gb=24,cpus=8 \
                    --software ffmpeg=6.1 --model sdxl --limit a=2 --cost a=0.5,b=1 --hot a,sdxl";
        assert!(parse(line).is_ok());
    }

    #[test]
    fn the_drain_timeout_is_a_span_or_a_number_of_seconds() {
        let drain_timeout = |words: &[&str]| {
            let line = ["avtomatika-worker", "--token", "t"].iter().chain(words);
            Args::try_parse_from(line).map(|args| args.drain_timeout)
        };
        assert_eq!(drain_timeout(&[]).ok(), Some(crate::DRAIN_TIMEOUT));
        assert_eq!(drain_timeout(&["--drain-timeout", "45"]).ok(), Some(Duration::from_secs(45)));
        assert_eq!(drain_timeout(&["--drain-timeout", "5m"]).ok(), Some(Duration::from_secs(300)));
        let error = drain_timeout(&["--drain-timeout", "soon"]).expect_err("no span").to_string();
        assert!(error.contains("expected a span of time such as 30s"), "{error}");
    }

    #[test]
    fn a_wrong_argument_is_named_with_its_cure() {
        for (line, expected) in [
            ("--token t", "at least one --task"),
            ("--token t --task process_data", "has no `=`"),
            ("--token t --task process_data=process_data", "names no kind"),
            ("--token t --task a=builtin:nope", "only process_data, echo, fail"),
            ("--token t --task a=python:x", "\"python\" is no kind"),
            ("--token t --task a=exec:", "command is empty"),
            ("--token t --task a=builtin:echo --task a=builtin:fail", "two handlers"),
            ("--token t --task a=builtin:echo --label x", "not KEY=VALUE"),
            ("--token t --task a=builtin:echo --max-concurrent-tasks 0", "1 to 10000 slots"),
            ("--token t --task a=builtin:echo --resource gpu=much", "not NAME=NUMBER"),
            ("--token t --task a=builtin:echo --resource gpu=inf", "a quantity is a finite number"),
            ("--token t --task a=builtin:echo --limit a=-1", "not TYPE=COUNT"),
            ("--token t --task a=builtin:echo --limit a=0", "leave the handler out"),
            ("--token t --task a=builtin:echo --limit b=1", "no handler"),
            ("--token t --task a=builtin:echo --cost a=-1", "not negative"),
        ] {
            let text = parse(line).err().expect(line).to_string();
            assert!(text.contains(expected), "{text:?} lacks {expected:?}");
        }
    }

    #[test]
    fn a_command_may_hold_equals_signs_and_colons() {
        let (task_type, _) = parse_task("a=exec:env X=1 y:z").expect("fine");
        assert_eq!(task_type, "a");
    }
}
