//! Memory: how much is taken for what is sent, and what happens when there is no more.

use std::{
    fs,
    process::{Command, Stdio},
    thread,
};

use serde_json::json;

use crate::{
    house::{Client, House},
    running::Running,
};

/// What the process may take. Without optimisation, a request that is under way takes more.
const MEMORY_BYTES_MAX: u64 = if cfg!(debug_assertions) { 384 } else { 256 } << 20;

/// A payload of the largest size.
fn megabyte() -> String {
    json!({"text": "x".repeat((1 << 20) - 16)}).to_string()
}

/// The most memory that the process ever had in use.
fn peak_bytes(client: &Client) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", client.running.child.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

#[test]
fn f33_fifty_payloads_of_a_megabyte_at_a_time_fit_into_256_mib() {
    const AT_ONCE: usize = 50;
    const ROUNDS: usize = 4;
    let house = House::new();
    let mut command = house.command();
    // Jobs that wait rest in the store: what is measured is what is under way.
    command.args(["--resident-mib", "16"]);
    let client = Client::of(Running::start(command));
    let payload = megabyte();
    for _ in 0..ROUNDS {
        let accepted = thread::scope(|scope| {
            let submit = || client.send("POST", "/api/work", &payload).unwrap().0;
            let submitting: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(submit)).collect();
            submitting.into_iter().map(|one| one.join().unwrap()).collect::<Vec<_>>()
        });
        // Slowed down, not refused: memory is what they wait for.
        assert_eq!(accepted, [202; AT_ONCE]);
    }
    let peak = peak_bytes(&client);
    assert!(peak < MEMORY_BYTES_MAX, "{} MiB", peak >> 20);
    assert_eq!(client.jobs().len(), AT_ONCE * ROUNDS);
}

#[test]
fn f49_a_process_that_gets_no_more_memory_ends_and_what_it_acknowledged_is_kept() {
    const LIMIT_KIB: u64 = 48 * 1024;
    let house = House::new();
    let mut shell = Command::new("sh");
    shell.env_clear().args(["-c", &format!("ulimit -d {LIMIT_KIB}; exec \"$0\" \"$@\"")]);
    shell.arg(env!("CARGO_BIN_EXE_avtomatika-orchestrator"));
    shell.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut client = Client::of(Running::start(house.dressed(shell)));
    let payload = megabyte();
    let acknowledged: Vec<String> = thread::scope(|scope| {
        let submit = || {
            let mut ids = Vec::new();
            while let Some((202, answer)) = client.send("POST", "/api/work", &payload) {
                ids.push(answer["job_id"].as_str().unwrap().to_owned());
            }
            ids
        };
        let submitting: Vec<_> = (0..50).map(|_| scope.spawn(submit)).collect();
        submitting.into_iter().flat_map(|one| one.join().unwrap()).collect()
    });
    let status = client.ended();
    assert!(!status.success(), "{status}");
    let client = house.start();
    let jobs = client.jobs();
    for job in &acknowledged {
        assert!(jobs.contains(job), "{job} was acknowledged");
    }
    assert_eq!(client.submit("instant").0, 202);
}
