//! Names under which a port that only this machine can reach is called. A page in a browser can have a name of its own lead here, so
//! only names count that nobody else can give away.

use avtomatika_proto::v1::{ListJobsRequest, job_service_client::JobServiceClient};
use tonic::{Code, Request, transport::Endpoint};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::support::{ALICE, Server, read_to_end};

/// What begins the answer to a request that is for this host, or for nobody by name.
async fn status(server: &Server, path: &str, version: &str, hosts: &[&str]) -> (String, String) {
    let hosts: String = hosts.iter().map(|host| format!("host: {host}\r\n")).collect();
    let request = format!(
        "GET {path} HTTP/{version}\r\n{hosts}x-avtomatika-token: {ALICE}\r\nconnection: close\r\n\r\n"
    );
    let answer = read_to_end(&mut server.connect(request.as_bytes()).await).await;
    (answer.get(9..12).unwrap_or_default().to_owned(), answer)
}

#[tokio::test]
async fn this_machine_is_called_by_its_address_or_as_localhost() {
    let server = Server::start().await;
    for host in [
        "127.0.0.1",
        "127.0.0.1:8000",
        "127.0.0.1.",
        "192.0.2.7:80",
        "[::1]",
        "[::1]:8000",
        "localhost",
        "localhost:8000",
        "localhost:",
        "LocalHost.:8000",
        "jobs.localhost",
        "jobs.LOCALHOST.:8000",
    ] {
        let (status, answer) = status(&server, "/api/jobs", "1.1", &[host]).await;
        assert_eq!(status, "200", "{host:?}: {answer}");
    }
    assert_eq!(status(&server, "/api/jobs", "1.0", &[]).await.0, "200", "no browser leaves it out");
}

#[tokio::test]
async fn a_name_that_somebody_has_lead_here_is_refused_whatever_it_asks_for() {
    let server = Server::start().await;
    for host in [
        "evil.example",
        "evil.example:8000",
        "EVIL.EXAMPLE.",
        "localhost.evil.example",
        "evillocalhost",
        "127.0.0.1.evil.example",
        "127.0.0.1@evil.example",
        "evil.example:localhost",
        "[::1].evil.example",
        "[evil.example]",
        "x",
        "",
    ] {
        for path in ["/api/jobs", "/healthz", "/_public/metrics", "/nowhere"] {
            let (status, answer) = status(&server, path, "1.1", &[host]).await;
            assert_eq!(status, "403", "{host:?} {path}: {answer}");
            assert!(answer.contains("\"code\":\"HOST_FORBIDDEN\""), "{answer}");
            assert!(answer.contains("127.0.0.1 or localhost"), "{answer}");
        }
    }
    for hosts in [["localhost", "evil.example"], ["evil.example", "localhost"]] {
        assert_ne!(status(&server, "/api/jobs", "1.1", &hosts).await.0, "200", "{hosts:?}");
    }
    let (status, answer) = status(&server, "http://evil.example/api/jobs", "1.1", &["localhost"]).await;
    assert_eq!(status, "403", "{answer}");
}

#[tokio::test]
async fn the_same_holds_for_calls_of_grpc() {
    let server = Server::start().await;
    let listed = async |name: &str| {
        let origin = format!("http://{name}").parse().unwrap();
        let channel = Endpoint::try_from(server.url("")).unwrap().origin(origin).connect().await.unwrap();
        let mut request = Request::new(ListJobsRequest::default());
        request.metadata_mut().insert("x-avtomatika-token", ALICE.parse().unwrap());
        let health = HealthClient::new(channel.clone()).check(HealthCheckRequest::default()).await;
        let jobs = JobServiceClient::new(channel).list_jobs(request).await;
        (jobs.map(|_| ()), health.map(|_| ()))
    };
    for name in ["localhost:8000", "127.0.0.1", "[::1]:8000", "jobs.localhost"] {
        let (jobs, health) = listed(name).await;
        assert!(jobs.is_ok() && health.is_ok(), "{name}: {jobs:?} {health:?}");
    }
    for name in ["evil.example", "localhost.evil.example:8000"] {
        let (jobs, health) = listed(name).await;
        for status in [jobs.unwrap_err(), health.unwrap_err()] {
            assert_eq!(status.code(), Code::PermissionDenied, "{name}: {status:?}");
            assert_eq!(status.metadata().get("avtomatika-error-code").unwrap(), "HOST_FORBIDDEN");
        }
    }
}

#[tokio::test]
async fn a_port_that_other_machines_reach_is_called_by_any_name() {
    let server = Server::start_at("0.0.0.0:0").await;
    assert_eq!(status(&server, "/api/jobs", "1.1", &["jobs.example"]).await.0, "200");
}
