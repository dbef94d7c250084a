//! Memory: how much is taken for what is sent, and what happens when there is no more.

use std::{
    fs,
    process::{Command, Stdio},
    thread,
};

use avtomatika_proto::{
    ApiError, ErrorCode,
    limits::MESSAGE_BYTES_MAX,
    v1::{SubmitJobRequest, job_service_client::JobServiceClient},
};
use serde_json::json;
use tokio::{runtime::Runtime, task::JoinSet};
use tonic::transport::Endpoint;

use crate::{
    house::{Client, House},
    running::{Running, TOKENS},
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

/// Many who send as much as a message may have, over one connection: each is refused for it when it has come, or for now when too much
/// comes at a time.
async fn messages_that_are_too_large(port: u16, count: usize) {
    let channel = Endpoint::from_shared(format!("http://127.0.0.1:{port}")).unwrap().connect().await.unwrap();
    let client = JobServiceClient::new(channel).max_encoding_message_size(MESSAGE_BYTES_MAX);
    let initial_data = json!({"text": "x".repeat(MESSAGE_BYTES_MAX - 100)}).to_string();
    let mut sending = JoinSet::new();
    for _ in 0..count {
        let (mut client, initial_data) = (client.clone(), initial_data.clone());
        sending.spawn(async move {
            let request = SubmitJobRequest { blueprint: "work".into(), initial_data, ..Default::default() };
            let mut request = tonic::Request::new(request);
            request.metadata_mut().insert("x-avtomatika-token", TOKENS[1].parse().unwrap());
            client.submit_job(request).await.unwrap_err()
        });
    }
    while let Some(status) = sending.join_next().await {
        let status = status.unwrap();
        let code = ApiError::from_status(&status).code;
        assert!(matches!(code, ErrorCode::PayloadTooLarge | ErrorCode::Overloaded), "{status:?}");
    }
}

#[test]
fn f33_s07_many_bodies_of_the_largest_size_at_a_time_fit_into_256_mib() {
    const AT_ONCE: usize = 100;
    const MESSAGES: usize = 40;
    let house = House::new();
    let mut command = house.command();
    // Jobs that wait rest in the store: what is measured is what is under way.
    command.args(["--resident-mib", "16"]);
    let client = Client::of(Running::start(command));
    let port = client.running.port;
    let payload = megabyte();
    let accepted = thread::scope(|scope| {
        scope.spawn(|| Runtime::new().unwrap().block_on(messages_that_are_too_large(port, MESSAGES)));
        let submit = || client.send("POST", "/api/work", &payload).unwrap().0;
        let submitting: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(submit)).collect();
        submitting.into_iter().map(|one| one.join().unwrap()).collect::<Vec<_>>()
    });
    // Slowed down, not refused: memory is what they wait for.
    assert_eq!(accepted, [202; AT_ONCE]);
    let peak = peak_bytes(&client);
    eprintln!("{} MiB at most", peak >> 20);
    assert!(peak < MEMORY_BYTES_MAX, "{} MiB", peak >> 20);
    assert_eq!(client.jobs().len(), AT_ONCE);
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
