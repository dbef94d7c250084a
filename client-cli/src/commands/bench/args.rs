//! What a benchmark is asked for: the options, their defaults, and the plan that follows from both.

use std::{path::PathBuf, time::Duration};

use avtomatika_proto::limits::{PAYLOAD_BYTES_MAX, WORKER_SLOTS_MAX};

use super::{
    blueprint::{self, INPUT_FRAME},
    tickets::{End, Pace},
};
use crate::{
    args::{Format, Options},
    failure::Failure,
    span::Span,
};

/// Jobs when nobody says how many: a few seconds' worth on a small machine.
const DEFAULT_JOBS: u64 = 50_000;

/// Jobs before the measured part, unless these are more than a twentieth of it.
const DEFAULT_WARM_UP: u64 = 2_000;

/// Calls in flight for which another connection is opened. One carries these as well as two do, for a little less work.
const CALLS_PER_CONNECTION: usize = 512;

/// The same for requests of a stream: the orchestrator works on no more of one stream at once.
const REQUESTS_PER_STREAM: usize = 256;

/// Submissions in flight at most: each is a waiting request here and at the orchestrator.
const IN_FLIGHT_MAX: i64 = 10_000;

/// gRPC connections at most; one is one thread's worth of work at the orchestrator.
const CONNECTIONS_MAX: i64 = 64;

const HELP: &str = "\
Without --url it starts an orchestrator of its own, as a second process on a data directory that is removed afterwards: the
same engine on the same durable store, every commit synced. The load and a worker whose handler returns at once are in this
process. Then it measures on the same machine what no orchestrator on this stack can do without (the floor), and says how near
the measured figure comes to it. docs/performance.md tells what each figure means.

It fails (exit code 1) when a job is lost, runs twice or does not finish, and when the ratio is below --min-ratio.

Examples:
  avtomatika bench
  avtomatika bench --api rest --jobs 20000 --in-flight 32
  avtomatika bench --rate 2000 --duration 30s
  avtomatika bench --api grpc-stream --repeat 5 -o json
  avtomatika bench --data-dir /var/tmp --payload-bytes 4096 --tasks-per-job 3
  avtomatika --url http://10.0.0.5:8000 bench --worker external --blueprint my_workflow
  avtomatika bench --floor-only";

/// Options of `bench`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = HELP)]
pub struct Args {
    /// How jobs are submitted
    #[arg(long, value_enum, default_value_t = Api::Grpc)]
    pub(super) api: Api,

    /// Jobs to measure [default: 50000]
    #[arg(long, value_name = "N", conflicts_with = "duration", value_parser = clap::value_parser!(u64).range(1..))]
    jobs: Option<u64>,

    /// How long to measure, instead of --jobs
    #[arg(long, value_name = "DURATION")]
    duration: Option<Span>,

    /// Submissions that wait for their job's end at once [default: 64; with grpc-stream 512]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=IN_FLIGHT_MAX as u64))]
    in_flight: Option<u64>,

    /// Jobs per second at fixed times, whatever the answers do; latencies count from those times
    #[arg(long, value_name = "PER_SECOND", value_parser = rate)]
    rate: Option<f64>,

    /// Size of a job's initial data
    #[arg(long, value_name = "BYTES", default_value_t = 100)]
    #[arg(value_parser = clap::value_parser!(u64).range(INPUT_FRAME.len() as u64..=PAYLOAD_BYTES_MAX as u64))]
    payload_bytes: u64,

    /// Tasks of a job, one after the other; with --url, those that the blueprint has
    #[arg(long, value_name = "N", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=i64::from(blueprint::TASKS_MAX)))]
    tasks_per_job: u32,

    /// Concurrency keys that the jobs share, one for each job; nobody waits for them, their cost is what is measured
    #[arg(long, value_name = "N", default_value_t = 0)]
    #[arg(value_parser = clap::value_parser!(u32).range(0..=i64::from(blueprint::KEYS_MAX)))]
    keys: u32,

    /// Who runs the tasks
    #[arg(long, value_enum, default_value_t = WorkerKind::InProcess)]
    worker: WorkerKind,

    /// Slots of the worker in this process [default: as many as are in flight]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(WORKER_SLOTS_MAX)))]
    slots: Option<u32>,

    /// gRPC connections to spread the submissions over [default: 1 for each 512 in flight; with grpc-stream, for each 256]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=CONNECTIONS_MAX as u64))]
    connections: Option<u64>,

    /// Jobs before the measured part [default: 2000, at most 5 % of --jobs]
    #[arg(long, value_name = "N")]
    warm_up: Option<u64>,

    /// Measure so many times, each on a fresh data directory, and give the medians
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    repeat: u32,

    /// Where the data directory is made; choose the file system to be measured
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,

    /// With --url: blueprint to submit to; it finds its data under `input`
    #[arg(long, value_name = "NAME", default_value = "test_workflow")]
    blueprint: String,

    /// With --url: task type that the worker in this process serves
    #[arg(long, value_name = "TYPE", default_value = "process_data")]
    task_type: String,

    /// With --url: token of the worker in this process [default towards this machine: test-worker-token]
    #[arg(long, env = "AVTOMATIKA_WORKER_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    worker_token: Option<String>,

    /// Measure the floor although the orchestrator is another one
    #[arg(long, conflicts_with_all = ["no_floor", "floor_only"])]
    floor: bool,

    /// Do not measure the floor
    #[arg(long)]
    no_floor: bool,

    /// Measure the floor and nothing else
    #[arg(long, conflicts_with_all = ["no_floor", "repeat", "rate", "jobs", "duration", "min_ratio"])]
    floor_only: bool,

    /// How long to measure each part of the floor
    #[arg(long, value_name = "DURATION", default_value = "2s")]
    floor_duration: Span,

    /// Fail when measured / floor is below this
    #[arg(long, value_name = "RATIO", conflicts_with_all = ["no_floor", "rate"], value_parser = share)]
    min_ratio: Option<f64>,

    /// Form of the report; the same as --output
    #[arg(long, value_enum)]
    pub(super) report: Option<Format>,
}

/// How jobs are submitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Api {
    /// One SubmitJob call for each job.
    Grpc,
    /// SubmitJobs: requests and answers over one stream for each connection.
    GrpcStream,
    /// POST /api/v1/jobs over HTTP/1.1, a kept-alive connection for each job in flight.
    Rest,
}

impl Api {
    /// As it is written on the command line.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::GrpcStream => "grpc-stream",
            Self::Rest => "rest",
        }
    }

    /// Submissions in flight, unless told otherwise: enough to keep a small machine busy.
    pub(super) fn default_in_flight(self) -> usize {
        match self {
            Self::Grpc | Self::Rest => 64,
            Self::GrpcStream => 512,
        }
    }

    /// Connections for so many in flight, unless told otherwise.
    pub(super) fn default_connections(self, in_flight: usize) -> usize {
        match self {
            Self::Grpc => in_flight.div_ceil(CALLS_PER_CONNECTION),
            Self::GrpcStream => in_flight.div_ceil(REQUESTS_PER_STREAM),
            Self::Rest => in_flight,
        }
    }
}

/// Who runs the tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum WorkerKind {
    /// A worker in this process, whose handler returns at once.
    InProcess,
    /// Workers that are started by someone else.
    External,
}

/// What to measure, with everything decided.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) api: Api,
    pub(super) end: End,
    pub(super) pace: Pace,
    pub(super) in_flight: usize,
    /// gRPC connections; with REST, as many as are in flight.
    pub(super) connections: usize,
    pub(super) payload_bytes: usize,
    pub(super) tasks_per_job: u32,
    pub(super) keys: u32,
    pub(super) worker: WorkerKind,
    pub(super) slots: u32,
    pub(super) warm_up: u64,
    pub(super) repeat: u32,
    pub(super) target: Target,
    pub(super) floor: Option<Duration>,
    pub(super) floor_only: bool,
    pub(super) min_ratio: Option<f64>,
}

/// Which orchestrator is measured.
#[derive(Debug, Clone)]
pub(super) enum Target {
    /// One of its own, below this directory.
    Own { data_dir: PathBuf },
    /// One that runs already.
    Other { blueprint: String, task_type: String, worker_token: Option<String> },
}

impl Args {
    /// Decides what was left open. Errors: options that contradict each other.
    pub(super) fn plan(self, options: &Options) -> Result<Plan, Failure> {
        self.check(options)?;
        let in_flight = self.in_flight.map_or(self.api.default_in_flight(), |given| given as usize);
        let connections = match self.connections {
            Some(given) => (given as usize).min(in_flight),
            None => self.api.default_connections(in_flight),
        };
        let end = match self.duration {
            Some(span) => End::After(span.0),
            None => End::Jobs(self.jobs.unwrap_or(DEFAULT_JOBS)),
        };
        let warm_up = self.warm_up.unwrap_or(match end {
            End::Jobs(jobs) => DEFAULT_WARM_UP.min(jobs.div_ceil(20)),
            End::After(_) => DEFAULT_WARM_UP,
        });
        let target = match options.url_is_given {
            false => Target::Own { data_dir: self.data_dir.unwrap_or_else(std::env::temp_dir) },
            true => Target::Other {
                blueprint: self.blueprint,
                task_type: self.task_type,
                worker_token: self.worker_token,
            },
        };
        let floor = !self.no_floor && (self.floor || self.floor_only || !options.url_is_given);
        Ok(Plan {
            api: self.api,
            end,
            pace: self.rate.map_or(Pace::Closed, |per_second| Pace::Open { per_second }),
            in_flight,
            connections,
            payload_bytes: self.payload_bytes as usize,
            tasks_per_job: self.tasks_per_job,
            keys: self.keys,
            worker: self.worker,
            slots: self.slots.unwrap_or(in_flight.min(WORKER_SLOTS_MAX as usize) as u32),
            warm_up,
            repeat: self.repeat,
            target,
            floor: floor.then_some(self.floor_duration.0),
            floor_only: self.floor_only,
            min_ratio: self.min_ratio,
        })
    }

    fn check(&self, options: &Options) -> Result<(), Failure> {
        let contradiction = if options.url_is_given && self.keys > 0 {
            Some(("--keys is for an orchestrator of its own", "leave --url or --keys out"))
        } else if options.url_is_given && self.data_dir.is_some() {
            Some(("--data-dir is for an orchestrator of its own", "leave --url or --data-dir out"))
        } else if options.url_is_given && self.repeat > 1 {
            Some((
                "--repeat starts a fresh orchestrator each time, and --url names one that runs",
                "leave one of them out, or run the command several times",
            ))
        } else if options.url_is_given && self.min_ratio.is_some() && !self.floor {
            Some(("--min-ratio needs the floor, which is not measured with --url", "add --floor"))
        } else if self.api == Api::Rest && self.connections.is_some() {
            Some((
                "with --api rest there is a connection for each job in flight",
                "set --in-flight instead of --connections",
            ))
        } else if self.worker == WorkerKind::External && self.slots.is_some() {
            Some(("--slots is for the worker in this process", "leave it out with --worker external"))
        } else if self.floor_duration.0.is_zero() {
            Some(("--floor-duration is zero", "leave the floor out with --no-floor"))
        } else if self.duration.is_some_and(|span| span.0.is_zero()) {
            Some(("--duration is zero", "give for example 30s"))
        } else {
            None
        };
        contradiction.map_or(Ok(()), |(what, cure)| Err(Failure::usage(what, cure)))
    }
}

fn rate(text: &str) -> Result<f64, &'static str> {
    match text.parse::<f64>() {
        Ok(rate) if (0.001..=1e7).contains(&rate) => Ok(rate),
        _ => Err("expected jobs per second, from 0.001 to 10000000"),
    }
}

fn share(text: &str) -> Result<f64, &'static str> {
    match text.parse::<f64>() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("expected a number from 0 to 1"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Command};

    fn plan(line: &str) -> Result<Plan, Failure> {
        let words = format!("avtomatika bench {line}");
        let cli = Cli::read(words.split_whitespace()).unwrap();
        let Command::Bench(args) = cli.command else { unreachable!("the line says bench") };
        args.plan(&cli.options)
    }

    #[test]
    fn what_is_not_said_follows_from_what_is() {
        let usual = plan("").unwrap();
        assert_eq!((usual.in_flight, usual.connections, usual.slots), (64, 1, 64));
        assert_eq!((usual.end, usual.warm_up), (End::Jobs(50_000), 2_000));
        assert!(usual.floor.is_some() && matches!(usual.target, Target::Own { .. }));

        assert_eq!(plan("--jobs 200").unwrap().warm_up, 10, "a twentieth");
        assert_eq!(plan("--duration 5s").unwrap().warm_up, 2_000);
        assert_eq!(plan("--in-flight 1500").unwrap().connections, 3);
        assert_eq!(plan("--in-flight 4 --connections 9").unwrap().connections, 4, "none without work");
        let stream = plan("--api grpc-stream").unwrap();
        assert_eq!((stream.in_flight, stream.connections), (512, 2));
        assert_eq!(plan("--api rest --in-flight 9").unwrap().connections, 9);

        let other = plan("--url http://localhost:1").unwrap();
        assert!(other.floor.is_none() && matches!(other.target, Target::Other { .. }));
        assert!(plan("--url http://localhost:1 --floor").unwrap().floor.is_some());
        assert!(plan("--no-floor").unwrap().floor.is_none());
    }

    #[test]
    fn options_that_contradict_each_other_are_refused_by_name() {
        for (line, words) in [
            ("--url http://localhost:1 --data-dir /tmp", "--data-dir"),
            ("--url http://localhost:1 --keys 3", "--keys"),
            ("--url http://localhost:1 --repeat 3", "--repeat"),
            ("--url http://localhost:1 --min-ratio 0.5", "--min-ratio"),
            ("--api rest --connections 2", "connection for each job"),
            ("--worker external --slots 2", "--slots"),
            ("--floor-duration 0s", "--floor-duration"),
            ("--duration 0s", "--duration"),
        ] {
            let failure = plan(line).expect_err(line);
            assert!(failure.to_string().contains(words), "{line}: {failure}");
            assert_eq!(failure.exit().code(), 2);
        }
    }
}
