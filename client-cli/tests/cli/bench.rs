//! `avtomatika bench` as people and CI run it: small loads on real processes, every figure in its place, every mishap found.

use std::{
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Command, Stdio},
    sync::mpsc,
};

use avtomatika_cli::orchestrator_process::{self, OrchestratorProcess, Settings};
use avtomatika_worker::{Handler, HandlerFuture, TaskContext, TaskOutcome, Worker};
use serde_json::Value;

use crate::{
    server::{Ran, avtomatika, ran},
    streams::ran_unread,
};

/// A benchmark whose report is JSON.
fn measured(arguments: &str) -> (Ran, Value) {
    let arguments: Vec<&str> = arguments.split_whitespace().collect();
    let answer = ran(avtomatika(&["bench", "--report", "json"]).args(arguments));
    let report = serde_json::from_str(&answer.stdout).unwrap_or(Value::Null);
    (answer, report)
}

fn number(report: &Value, pointer: &str) -> f64 {
    report.pointer(pointer).and_then(Value::as_f64).unwrap_or_else(|| panic!("no {pointer} in {report:#}"))
}

/// Every figure of a report on a closed loop against an own orchestrator.
fn check(report: &Value, api: &str, jobs: u64) {
    assert_eq!(report["settings"]["api"], api);
    assert_eq!(report["settings"]["fsync"], "every commit");
    assert_eq!(report["settings"]["url"], Value::Null);
    assert_eq!(report["store"], "sqlite");
    assert_eq!((&report["ok"], &report["interrupted"]), (&true.into(), &false.into()));
    assert_eq!(report["runs"][0]["jobs"], jobs);
    assert_eq!(report["runs"][0]["faults"], Value::Array(Vec::new()));
    assert_eq!(report["runs"][0]["verified_jobs"], jobs + jobs.div_ceil(20), "with the warm-up");
    let rate = jobs as f64 / number(report, "/runs/0/seconds");
    assert!((number(report, "/jobs_per_s") / rate - 1.0).abs() < 0.001, "{report:#}");

    let distributions = ["submit_to_finished_ms", "ready_to_started_ms"];
    for name in distributions {
        let at = |figure: &str| number(report, &format!("/{name}/{figure}"));
        let figures = ["p50", "p90", "p99", "p99_9", "max"].map(at);
        assert!(figures.is_sorted() && figures[4] < 60_000.0, "{name}: {figures:?}");
        assert_eq!(at("count") as u64, jobs, "{name}");
    }
    assert!(number(report, "/submit_to_finished_ms/p50") > 0.0);

    if cfg!(target_os = "linux") {
        let (peak, now) =
            (number(report, "/orchestrator/memory_peak_mib"), number(report, "/orchestrator/memory_mib"));
        assert!(peak >= now && now > 1.0, "{peak} {now}");
        assert!(number(report, "/orchestrator/cpu_s") > 0.0);
        assert!(report["settings"]["file_system"].is_string());
        assert!(report["machine"]["cpu"].is_string() && report["machine"]["memory_mib"].is_u64());
    }
    assert!(report["machine"]["kernel"].is_string() && report["machine"]["date"].is_string());
}

/// The floor's parts, and that the figures made of them follow from them as the documentation says.
fn check_floor(report: &Value) {
    let part = |pointer| number(report, pointer);
    let cpu_us = part("/floor/submission/cpu_us_per_job")
        + part("/floor/worker_stream/cpu_us_per_job")
        + part("/floor/store/cpu_us_per_job");
    let by_cpu = part("/floor/cores") * 1e6 / cpu_us;
    let by_writer = 1e6 / part("/floor/store/wall_us_per_job");
    let floor = part("/floor/floor_jobs_per_s");
    assert!((floor / by_cpu.min(by_writer) - 1.0).abs() < 1e-6, "{report:#}");
    assert!(part("/floor/submission/jobs_per_s") > 0.0 && part("/floor/worker_stream/jobs_per_s") > 0.0);
    assert!(part("/floor/fdatasync_ms/p50") > 0.0);
}

/// A small run with one of the APIs: everything is there and fits together.
fn check_small_run(api: &str) {
    let (answer, report) = measured(&format!("--api {api} --jobs 200 --in-flight 16 --floor-duration 50ms"));
    assert_eq!((answer.code, answer.stderr.as_str()), (0, ""), "{answer}");
    check(&report, api, 200);
    check_floor(&report);
    let ratio = number(&report, "/jobs_per_s") / number(&report, "/floor_jobs_per_s");
    assert!((number(&report, "/ratio") / ratio - 1.0).abs() < 1e-6);
    assert_eq!(number(&report, "/floor_jobs_per_s"), number(&report, "/floor/floor_jobs_per_s"));
}

#[test]
fn jobs_submitted_by_calls_are_measured_and_accounted_for() {
    check_small_run("grpc");
}

#[test]
fn jobs_submitted_by_a_stream_are_measured_and_accounted_for() {
    check_small_run("grpc-stream");
}

#[test]
fn jobs_submitted_by_rest_are_measured_and_accounted_for() {
    check_small_run("rest");
}

#[test]
fn several_tasks_several_runs_and_large_payloads() {
    let (answer, report) = measured(
        "--jobs 40 --in-flight 4 --connections 2 --tasks-per-job 3 --payload-bytes 20000 --repeat 2 --no-floor",
    );
    assert_eq!(answer.code, 0, "{answer}");
    assert_eq!(report["runs"].as_array().unwrap().len(), 2);
    let [first, second] = [0, 1].map(|run| number(&report, &format!("/runs/{run}/jobs_per_s")));
    assert!((number(&report, "/jobs_per_s") - (first + second) / 2.0).abs() < 0.001, "the median of two");
    // Three tasks of each of forty jobs, in each of two runs.
    assert_eq!(number(&report, "/ready_to_started_ms/count"), 240.0);
    assert_eq!((&report["floor"], &report["ratio"]), (&Value::Null, &Value::Null));
}

#[test]
fn an_open_loop_keeps_its_times_and_says_when_it_could_not() {
    let (answer, report) =
        measured("--api rest --rate 400 --duration 500ms --in-flight 32 --warm-up 20 --floor-duration 20ms");
    assert_eq!(answer.code, 0, "{answer}");
    assert_eq!(report["settings"]["pace"], "open");
    assert_eq!(number(&report, "/runs/0/jobs"), 200.0, "rate times duration");
    assert!(number(&report, "/runs/0/seconds") >= 0.49);
    assert_eq!(report["ratio"], Value::Null, "the rate was given");

    // One in flight cannot keep up with this rate, and the jobs that waited have waited.
    let (answer, report) = measured("--rate 100000 --jobs 100 --in-flight 1 --no-floor --warm-up 0");
    assert_eq!(answer.code, 0, "{answer}");
    assert!(number(&report, "/runs/0/held_back") > 50.0, "{report:#}");
    let all = number(&report, "/runs/0/seconds") * 1000.0;
    assert!(
        number(&report, "/submit_to_finished_ms/max") > all * 0.9,
        "the last one waited for all before it"
    );
}

#[test]
fn people_get_lines() {
    let answer = ran(&mut avtomatika(&["bench", "--jobs", "50", "--floor-duration", "20ms"]));
    assert_eq!(answer.code, 0, "{answer}");
    for line in [
        "Load  ",
        "Jobs  ",
        "Throughput  ",
        "Floor  ",
        "Machine  ",
        "submit to finished  ",
        "task and result  ",
    ] {
        assert!(answer.stdout.lines().any(|shown| shown.starts_with(line)), "{line}: {answer}");
    }
    assert!(answer.stdout.contains("each ended exactly once"), "{answer}");

    let floor = ran(&mut avtomatika(&["bench", "--floor-only", "--api", "rest", "--floor-duration", "20ms"]));
    assert_eq!(floor.code, 0, "{floor}");
    assert!(floor.stdout.starts_with("Floor  ") && !floor.stdout.contains("Throughput"), "{floor}");
}

/// An orchestrator that runs already, as `--url` names it.
fn running(dir: &Path, tasks_per_job: u32) -> OrchestratorProcess {
    let program = env!("CARGO_BIN_EXE_avtomatika").into();
    let settings = Settings { program, tasks_per_job, ..Settings::new(dir).unwrap() };
    OrchestratorProcess::start(settings).unwrap()
}

#[test]
fn another_orchestrator_is_measured_where_it_runs() {
    let dir = tempfile::tempdir().unwrap();
    let running = running(dir.path(), 1);
    let to = format!("--url {} --blueprint bench --task-type bench --jobs 100", running.url());
    let (answer, report) = measured(&to);
    assert_eq!(answer.code, 0, "{answer}");
    assert_eq!(report["settings"]["url"], running.url());
    assert_eq!(report["runs"][0]["verified_jobs"], 105);
    for unknown in ["/orchestrator", "/floor", "/settings/fsync", "/settings/data_dir"] {
        assert_eq!(report.pointer(unknown), Some(&Value::Null), "{unknown}");
    }
    let (answer, report) = measured(&format!("{to} --floor --floor-duration 20ms --api grpc-stream"));
    assert_eq!(answer.code, 0, "{answer}");
    assert!(number(&report, "/ratio") > 0.0);

    let unknown = ran(&mut avtomatika(&["bench", "--url", running.url(), "--blueprint", "nope"]));
    assert_eq!((unknown.code, unknown.stdout.as_str()), (12, ""), "{unknown}");
    let unknown =
        ran(&mut avtomatika(&["bench", "--url", running.url(), "--blueprint", "nope", "--api", "rest"]));
    assert_eq!((unknown.code, unknown.stdout.as_str()), (12, ""), "{unknown}");
    let stranger = ran(&mut avtomatika(&["bench", "--url", running.url(), "--worker-token", "wrong"]));
    assert_eq!(stranger.code, 2, "{stranger}");
    assert!(stranger.stderr.contains("--worker-token"), "{stranger}");
}

#[test]
fn a_task_that_runs_too_often_or_not_at_all_is_told_and_fails_the_benchmark() {
    for (tasks_of_blueprint, tasks_expected, words) in [
        (2, "1", "run more often than once for each task, such as "),
        (1, "2", "finished without every task having run, such as "),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let running = running(dir.path(), tasks_of_blueprint);
        let (answer, report) = measured(&format!(
            "--url {} --blueprint bench --task-type bench --jobs 20 --tasks-per-job {tasks_expected}",
            running.url()
        ));
        assert_eq!(answer.code, 1, "{answer}");
        assert!(
            answer.stderr.starts_with("error: 21 jobs were ") && answer.stderr.contains(words),
            "{answer}"
        );
        assert_eq!(report["ok"], false);
    }
}

#[test]
fn a_ratio_that_is_too_low_fails_the_benchmark() {
    let slow = "--jobs 20 --in-flight 1 --floor-duration 20ms --min-ratio 1";
    let (answer, report) = measured(slow);
    assert_eq!(answer.code, 1, "{answer}");
    assert!(answer.stderr.starts_with("error: measured / floor is 0."), "{answer}");
    assert_eq!(report["ok"], true, "no job is at fault");
    let mut unread = avtomatika(&["bench"]);
    unread.args(slow.split(' '));
    assert_eq!(ran_unread(unread).code, 1, "whether anybody reads the report or not");
}

/// Counts its tasks.
struct Counting(mpsc::Sender<()>);

impl Handler for Counting {
    fn call(&self, _: String, _: TaskContext) -> HandlerFuture {
        let _ = self.0.send(());
        Box::pin(async { Ok(TaskOutcome::success(())) })
    }
}

#[test]
fn somebody_elses_worker_is_waited_for_and_ctrl_c_ends_with_the_report_of_what_was_done() {
    let mut command =
        avtomatika(&["bench", "--worker", "external", "--duration", "1h", "--warm-up", "0", "-o", "json"]);
    let mut bench = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(bench.stderr.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    let url =
        line.split_whitespace().find(|word| word.starts_with("http://")).expect("says where").to_owned();

    let (ran_one, runs) = mpsc::channel();
    let worker = Worker::builder(url)
        .token(orchestrator_process::WORKER_TOKEN)
        .slots(8)
        .handler(orchestrator_process::TASK_TYPE, std::sync::Arc::new(Counting(ran_one)))
        .build()
        .unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.spawn(worker.run_until(std::future::pending()));
    for _ in 0..100 {
        runs.recv().expect("tasks come");
    }
    let kill = format!("kill -s INT {}", bench.id());
    assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    let mut shown = String::new();
    bench.stdout.take().unwrap().read_to_string(&mut shown).unwrap();
    assert_eq!(bench.wait().unwrap().code(), Some(130));
    let report: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!((&report["ok"], &report["interrupted"]), (&true.into(), &true.into()), "{report:#}");
    // As many as are in flight may have been on their way when the hundredth ran.
    assert!(number(&report, "/runs/0/jobs") >= 30.0, "{report:#}");
    assert_eq!(report["ready_to_started_ms"], Value::Null, "the worker is somebody else's");
    assert_eq!(report["floor"], Value::Null, "it was to end");
}

#[test]
fn an_orchestrator_process_is_killed_and_comes_back_with_its_jobs() {
    let dir = tempfile::tempdir().unwrap();
    let mut process = running(dir.path(), 1);
    let pid = process.pid();
    let submit =
        ran(&mut avtomatika(&["--url", process.url(), "submit", "bench", "--data", r#"{"input":""}"#]));
    assert_eq!(submit.code, 0, "{submit}");
    let id = submit.stdout.trim().to_owned();
    if cfg!(target_os = "linux") {
        assert!(process.cpu_time().is_some());
        let memory = process.memory().unwrap();
        assert!(memory.peak_bytes >= memory.resident_bytes && memory.resident_bytes > 1 << 20);
    }
    process.restart().unwrap();
    assert_ne!(process.pid(), pid);
    let get = ran(&mut avtomatika(&["--url", process.url(), "get", &id]));
    assert_eq!(get.code, 0, "{get}");
    process.kill().unwrap();
    let gone = ran(&mut avtomatika(&["--url", process.url(), "get", &id]));
    assert_eq!(gone.code, 10, "{gone}");
    process.restart().unwrap();
    process.stop().unwrap();

    let limited = Settings {
        program: env!("CARGO_BIN_EXE_avtomatika").into(),
        max_open_jobs: 1,
        ..Settings::new(dir.path()).unwrap()
    };
    let limited = OrchestratorProcess::start(limited).unwrap();
    let refused = ran(&mut avtomatika(&["--url", limited.url(), "submit", "bench"]));
    assert_eq!(refused.code, 14, "{refused}");
    limited.stop().unwrap();
}

#[test]
fn an_orchestrator_process_that_cannot_start_is_an_error_and_not_a_wait() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let settings = Settings {
        program: env!("CARGO_BIN_EXE_avtomatika").into(),
        ..Settings::new(file.join("below a file")).unwrap()
    };
    let error = OrchestratorProcess::start(settings).expect_err("there is no such directory");
    assert!(error.to_string().contains("did not start"), "{error}");
}

#[test]
fn an_orchestrator_process_ends_with_whoever_started_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = avtomatika(&["bench-orchestrator", "--data-dir"]);
    let mut child = command.arg(dir.path()).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert!(line.contains("http://127.0.0.1:"), "{line}");
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_benchmark_that_makes_no_sense_ends_with_2_and_says_why() {
    for (line, words) in [
        ("--jobs 0", "0 is not in 1.."),
        ("--jobs 10 --duration 5s", "cannot be used with"),
        ("--rate 0", "expected jobs per second"),
        ("--rate fast", "expected jobs per second"),
        ("--payload-bytes 11", "11 is not in 12.."),
        ("--payload-bytes 2000000", "is not in 12..=1048576"),
        ("--in-flight 10001", "is not in 1..=10000"),
        ("--tasks-per-job 101", "is not in 1..=100"),
        ("--api soap", "possible values: grpc, grpc-stream, rest"),
        ("--worker none", "possible values: in-process, external"),
        ("--min-ratio 2", "expected a number from 0 to 1"),
        ("--min-ratio 0.5 --no-floor", "cannot be used with"),
        ("--min-ratio 0.5 --rate 10", "cannot be used with"),
        ("--duration 5", "such as 500ms"),
        ("--data-dir /does/not/exist", "name a directory that exists"),
        ("--url http://localhost:1 --data-dir /tmp", "--data-dir is for an orchestrator of its own"),
        ("--url http://localhost:1 --repeat 2", "leave one of them out"),
        ("--api rest --connections 2", "set --in-flight instead"),
    ] {
        let (answer, _) = measured(line);
        assert_eq!((answer.code, answer.stdout.as_str()), (2, ""), "{line}: {answer}");
        assert!(answer.stderr.contains(words), "{line}: {answer}");
    }
}

#[test]
fn an_address_in_the_environment_is_not_loaded_unasked() {
    let mut command = avtomatika(&["bench", "--jobs", "5", "--no-floor", "-o", "json"]);
    // Nobody listens there: it would fail.
    let answer = ran(command.env("AVTOMATIKA_URL", "http://127.0.0.1:1"));
    assert_eq!(answer.code, 0, "{answer}");
    assert!(answer.stdout.contains(r#""url":null"#), "{answer}");
}
