//! Disks that are full, read-only, slow, or fail to sync.

use std::{
    fs,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use avtomatika_worker::{TaskContext, TaskError, Worker};
use serde_json::{Value, json};

use crate::{
    house::{Client, House},
    running::{Running, TOKENS, ended},
};

/// What everybody may ask for whatever the disk does.
fn reads_go_on(client: &Client, job: &str) {
    for path in
        [&*format!("/api/jobs/{job}"), &format!("/api/jobs/{job}/history"), "/api/jobs", "/api/workers"]
    {
        client.get(path);
    }
    let explained = client.get(&format!("/api/jobs/{job}/explain"));
    assert_eq!(explained["job_id"], job);
}

fn readiness(client: &Client) -> u16 {
    client.send("GET", "/readyz", "").unwrap().0
}

/// Fills it up, looks at it, makes room and looks again.
fn fills_up_and_resumes(house: &House, client: Client, fill: impl Fn(&Client), make_room: impl Fn(&Client)) {
    let first = client.job("work");
    fill(&client);
    let full = (507, "STORAGE_FULL".to_owned());
    client.until("a full disk", |client| client.submit("work") == full);
    let known = client.jobs();
    reads_go_on(&client, &first);
    assert_eq!(client.send("POST", &format!("/api/jobs/{first}/cancel"), "").unwrap().0, 507);
    assert_eq!(client.status_of(&first), "waiting_for_worker", "what was refused has changed nothing");
    assert_eq!(readiness(&client), 503);
    assert_eq!(client.submit("work"), full);
    make_room(&client);
    let took = client.until("a submission", |client| client.submit("work").0 == 202);
    assert!(took < Duration::from_secs(1), "{took:?}");
    client.until("readiness", |client| readiness(client) == 200);
    let jobs = client.jobs();
    assert_eq!(jobs[1..], known, "those that were refused are not there");
    client.kill();
    house.suffers("");
    assert_eq!(house.start().jobs(), jobs, "after a kill as before");
}

#[test]
fn f08_on_a_full_disk_writes_are_refused_by_name_and_reads_go_on_until_there_is_room() {
    let house = House::new();
    fills_up_and_resumes(&house, house.start(), |_| house.suffers("write-errno 28"), |_| house.suffers(""));
}

/// A shell that has mounts of its own, and becomes the orchestrator after it has run these lines. `None` where this machine does not
/// let anybody have any.
fn with_mounts(house: &House, lines: &str) -> Option<Command> {
    let allowed = |flags: &[&str]| {
        let tried = Command::new("unshare")
            .args(flags)
            .args(["mount", "-t", "tmpfs", "tmpfs", "/tmp"])
            .stderr(Stdio::null())
            .status();
        tried.is_ok_and(|status| status.success())
    };
    let flags = [&["--mount"][..], &["--user", "--map-root-user", "--mount"]]
        .into_iter()
        .find(|flags| allowed(flags));
    let Some(flags) = flags else {
        eprintln!("skipped: this machine allows no mounts");
        return None;
    };
    let mut command = Command::new("unshare");
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.args(flags).args(["sh", "-euc", &format!("data=$0; {lines}\nexec \"$@\"")]).arg(house.data());
    command.arg(env!("CARGO_BIN_EXE_avtomatika-orchestrator"));
    Some(house.dressed(command))
}

#[test]
fn f08_the_same_on_a_real_disk_of_a_few_megabytes() {
    let house = House::new();
    let mount = "mkdir -p $data; mount -t tmpfs -o size=6m tmpfs $data";
    let Some(command) = with_mounts(&house, mount) else { return };
    let client = Client::of(Running::start(command));
    // The way to its files leads through its own view of the file system.
    let ballast = format!("/proc/{}/root{}/ballast", client.running.child.id(), house.data().display());
    let large = json!({"text": "x".repeat(200_000)}).to_string();
    fs::write(&ballast, vec![1; 1 << 20]).unwrap();
    let first = client.job("work");
    let full = |client: &Client| client.send("POST", "/api/work", &large).unwrap().0 == 507;
    client.until("a full disk", full);
    reads_go_on(&client, &first);
    assert_eq!(readiness(&client), 503);
    let known = client.jobs();
    fs::remove_file(&ballast).unwrap();
    let took =
        client.until("a submission", |client| client.send("POST", "/api/work", &large).unwrap().0 == 202);
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert_eq!(client.jobs()[1..], known);
}

/// Whatever the sync fails with, also with the words of a full disk: what was to be synced may be there after all.
#[test]
fn f09_after_a_failed_fsync_nothing_is_acknowledged_and_the_process_ends() {
    for (errno, words) in
        [(5, "Input/output error"), (28, "No space left on device"), (122, "Disk quota exceeded")]
    {
        println!("{words}");
        after_a_failed_fsync(errno, words);
    }
}

fn after_a_failed_fsync(errno: i32, words: &str) {
    let house = House::new();
    let mut client = house.start();
    let acknowledged = [client.job("work"), client.job("instant")];
    house.suffers(&format!("sync-errno {errno}"));
    let began = Instant::now();
    // It may be gone before the answer is written.
    let answer = client.send("POST", "/api/work", "{}");
    if let Some((status, answer)) = answer {
        assert!(status >= 500 && answer["code"] != "STORAGE_FULL", "{answer}");
    }
    let status = client.ended();
    let took = began.elapsed();
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert!(status.code().is_some_and(|code| code != 0), "{status}");
    let (_, said) = client.running.wait();
    assert!(said.contains(words) && !said.contains("panicked"), "{said}");

    house.suffers("");
    let client = house.start();
    let jobs = client.jobs();
    for job in acknowledged {
        assert!(jobs.contains(&job), "{job} was acknowledged");
    }
    // What was not acknowledged is not there, or whole.
    assert!(jobs.len() <= 3, "{jobs:?}");
    jobs.iter().for_each(|job| reads_go_on(&client, job));
    assert_eq!(client.submit("instant").0, 202);
}

/// With three syncs for each job one after the other, this would take two minutes.
#[test]
fn f10_on_a_disk_that_syncs_for_a_second_many_share_each_sync_and_nobody_else_waits() {
    const JOBS: usize = 40;
    let house = House::new();
    let client = house.start();
    let first = client.job("work");
    let worker = Worker::builder(format!("http://127.0.0.1:{}", client.running.port));
    let worker =
        worker.token(TOKENS[3]).worker_id("w").slots(4).handle("work", answer_at_once).build().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let stop = tokio_util::sync::CancellationToken::new();
    let working = runtime.spawn(worker.run_until(stop.clone().cancelled_owned()));
    client.until("the first job", |client| client.status_of(&first) == "finished");

    house.suffers("sync-ms 1000");
    let (began, mut slowest) = (Instant::now(), Duration::ZERO);
    let accepted = thread::scope(|scope| {
        let submitting: Vec<_> = (0..JOBS).map(|_| scope.spawn(|| client.submit("work").0)).collect();
        while submitting.iter().any(|one| !one.is_finished()) {
            let asked = Instant::now();
            assert_eq!(client.status_of(&first), "finished");
            slowest = slowest.max(asked.elapsed());
            thread::sleep(Duration::from_millis(20));
        }
        submitting.into_iter().map(|one| one.join().unwrap()).filter(|status| *status == 202).count()
    });
    let took = began.elapsed();
    assert_eq!(accepted, JOBS);
    assert!(took > Duration::from_secs(1), "the disk was not slow: {took:?}");
    assert!(took < Duration::from_secs(8), "{JOBS} submissions share their syncs: {took:?}");
    assert!(slowest < Duration::from_millis(500), "a read waited for {slowest:?}");
    client.until("the end of all", |client| {
        let page = client.get("/api/jobs?limit=1000&status=finished");
        page["jobs"].as_array().unwrap().len() == JOBS + 1
    });
    // Its stream says something every second, whatever the disk does: it was never lost, and no task ran twice.
    let page = client.get("/api/jobs?limit=1000");
    for job in page["jobs"].as_array().unwrap() {
        assert_eq!(job["retry_count"], 0, "{job}");
    }
    let connected = client.get("/api/workers");
    assert_eq!(connected[0]["worker_id"], "w");
    stop.cancel();
    runtime.block_on(working).unwrap().unwrap();
}

async fn answer_at_once(_: Value, _: TaskContext) -> Result<Value, TaskError> {
    Ok(json!({}))
}

#[test]
fn f11_a_disk_that_becomes_read_only_ends_the_process_and_what_it_holds_is_kept() {
    const EROFS: i32 = 30;
    let house = House::new();
    let mut client = house.start();
    let acknowledged = client.job("work");
    house.suffers(&format!("write-errno {EROFS}"));
    if let Some((status, answer)) = client.send("POST", "/api/work", "{}") {
        assert!(status >= 500, "{answer}");
    }
    assert!(!client.ended().success());
    let (_, said) = client.running.wait();
    assert!(said.contains("Read-only file system"), "{said}");
    house.suffers("");
    assert_eq!(house.start().jobs(), [acknowledged]);
}

#[test]
fn f11_a_read_only_disk_at_the_start_is_told_with_its_path() {
    let house = House::new();
    drop(house.start());
    let mount = "mount --bind $data $data; mount -o remount,bind,ro $data";
    let Some(mut command) = with_mounts(&house, mount) else { return };
    let (status, said) = ended(command.output().unwrap());
    assert_eq!(status, Some(73), "{said}");
    assert!(said.starts_with("error: ") && said.contains("\nhint: "), "{said}");
    assert!(said.contains(&house.data().display().to_string()), "{said}");
    assert!(said.contains("ead-only"), "{said}");
}
