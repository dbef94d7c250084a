//! The encrypted port: how long and how often a stranger may knock. Time is paused where a timeout is waited for: it then passes
//! as soon as nothing else happens.

use std::time::Duration;

use avtomatika_orchestrator::{
    api::limits::TLS_HANDSHAKE_TIMEOUT,
    tls::{Files, Tls},
};
use tokio::time::Instant;

use crate::{
    certificates::{Authority, FAR},
    support::{Server, read_to_end},
};

/// The beginning of a client's first record in TLS, and of its first message.
const HALF_A_HELLO: &[u8] = &[0x16, 3, 1, 2, 0, 1, 0];

async fn start() -> Server {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let (cert, key) = authority.issue(&["localhost"], FAR).save(dir.path(), "server");
    let client_ca = dir.path().join("ca.pem");
    std::fs::write(&client_ca, &authority.cert).unwrap();
    let Ok((tls, _)) = Tls::open(Files { cert, key, client_ca: Some(client_ca) }) else {
        panic!("they are good")
    };
    Server::start_encrypted(tls).await
}

#[tokio::test(start_paused = true)]
async fn s_06_a_peer_that_does_not_finish_its_handshake_is_given_up() {
    let server = start().await;
    for words in [&b""[..], &HALF_A_HELLO[..1], HALF_A_HELLO] {
        let began = Instant::now();
        let mut stream = server.connect(words).await;
        assert_eq!(read_to_end(&mut stream).await, "");
        // To the millisecond, because nothing but the timer happens.
        assert!(
            began.elapsed() <= TLS_HANDSHAKE_TIMEOUT + Duration::from_millis(10),
            "{:?}",
            began.elapsed()
        );
    }
}

#[tokio::test]
async fn nonsense_instead_of_a_handshake_ends_the_connection_and_clear_text_is_told() {
    let server = start().await;
    let mut stream = server.connect(&[0x16, 3, 3, 0, 4, 0xff, 0, 0, 0]).await;
    let alert = read_to_end(&mut stream).await;
    assert!(alert.starts_with('\u{15}'), "an alert of TLS: {alert:?}");
    let mut stream = server.connect(b"GET /api/jobs HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    let answer = read_to_end(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert!(answer.contains("connection: close"), "{answer}");
    assert!(answer.contains("TLS_REQUIRED"), "{answer}");
}
