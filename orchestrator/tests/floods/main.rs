//! Floods: what hostile peers send in order to wear an orchestrator out, over real sockets against a real process. The number of
//! each is that of the threat it stands for; docs/operating.md names the limits that hold.

// A test that cannot go on may say so by panicking.
#![allow(clippy::unwrap_used)]

mod frames;
mod victim;

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, GET, HEADERS, INITIAL_WINDOW_SIZE, PING, PRIORITY,
    RST_STREAM, SETTINGS, WINDOW_UPDATE, frame, header, hello, stream,
};
use victim::{CLIENT_TOKEN, Victim, connect};

/// Frames of one connection of a flood. Then it comes again.
const FRAMES: u32 = 5_000;

/// Before a flood comes again, so that it does not consist of connecting.
const PAUSE: Duration = Duration::from_millis(5);

/// Sends all of this on one connection, or as much of it as the peer takes; reads nothing before. Whether the peer has ended
/// the connection.
fn pour(address: SocketAddr, bytes: &[u8]) -> bool {
    pour_and_wait(address, bytes, Duration::from_millis(500))
}

/// The same, and waits so long for the end.
fn pour_and_wait(address: SocketAddr, bytes: &[u8], patience: Duration) -> bool {
    thread::sleep(PAUSE);
    let Ok(mut stream) = connect(address) else { return false };
    stream.set_read_timeout(Some(patience)).unwrap();
    if stream.write_all(bytes).is_err() {
        return true;
    }
    ends(&mut stream)
}

/// Whether the peer ends the connection, rather than wait for more.
fn ends(stream: &mut TcpStream) -> bool {
    let mut part = [0; 16 * 1024];
    loop {
        match stream.read(&mut part) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return !matches!(error.kind(), std::io::ErrorKind::WouldBlock),
        }
    }
}

/// A connection's greeting and these frames, one for each number.
fn many(frames: impl Fn(u32) -> Vec<u8>) -> Vec<u8> {
    let mut all = hello(&[]);
    (0..FRAMES).for_each(|number| all.extend(frames(number)));
    all
}

#[test]
fn s_01_rapid_reset() {
    let victim = Victim::start();
    let flood = many(|number| {
        let stream = stream(number);
        [frame(HEADERS, END_HEADERS, stream, GET), frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])].concat()
    });
    assert!(pour(victim.address, &flood), "the connection is ended");
    victim.withstands(&[&|address| {
        pour(address, &flood);
    }]);
}

#[test]
fn s_02_headers_without_an_end() {
    let victim = Victim::start();
    let mut flood = hello(&[]);
    flood.extend(frame(HEADERS, 0, 1, GET));
    let part = header("x-more", &"m".repeat(100));
    (0..FRAMES).for_each(|_| flood.extend(frame(CONTINUATION, 0, 1, &part)));
    assert!(pour(victim.address, &flood), "the connection is ended");
    let mut empty = hello(&[]);
    empty.extend(frame(HEADERS, 0, 1, GET));
    (0..FRAMES).for_each(|_| empty.extend(frame(CONTINUATION, 0, 1, &[])));
    assert!(pour(victim.address, &empty), "the connection is ended");
    victim.withstands(&[
        &|address| {
            pour(address, &flood);
        },
        &|address| {
            pour(address, &empty);
        },
    ]);
}

#[test]
fn s_03_resets_that_we_are_made_to_send() {
    let victim = Victim::start();
    let flood = many(|number| {
        let stream = stream(number);
        let grow = frame(WINDOW_UPDATE, 0, stream, &0x7fff_ffff_u32.to_be_bytes());
        [frame(HEADERS, END_HEADERS, stream, GET), grow].concat()
    });
    assert!(pour(victim.address, &flood), "the connection is ended");
    victim.withstands(&[&|address| {
        pour(address, &flood);
    }]);
}

#[test]
fn s_04_data_frames_with_nothing_in_them() {
    let victim = Victim::start();
    let head = [&[0x83, 0x84, 0x86][..], &header("content-type", "application/grpc")].concat();
    let mut flood = hello(&[]);
    flood.extend(frame(HEADERS, END_HEADERS, 1, &head));
    (0..20 * FRAMES).for_each(|_| flood.extend(frame(DATA, 0, 1, &[])));
    victim.withstands(&[&|address| {
        pour(address, &flood);
    }]);
}

#[test]
fn s_05_settings_pings_and_priorities() {
    let victim = Victim::start();
    let settings = many(|_| frame(SETTINGS, 0, 0, &[0, 1, 0, 0, 0, 0]));
    let pings = many(|number| frame(PING, 0, 0, &u64::from(number).to_be_bytes()));
    let priorities = many(|number| frame(PRIORITY, 0, stream(number), &[0, 0, 0, 0, 1]));
    victim.withstands(&[
        &|address| {
            pour(address, &settings);
        },
        &|address| {
            pour(address, &pings);
        },
        &|address| {
            pour(address, &priorities);
        },
    ]);
}

#[test]
fn s_05_metadata_beyond_its_limit() {
    let victim = Victim::start();
    let block = [GET, &header("x-large", &"l".repeat(20_000))].concat();
    let (first, rest) = block.split_at(16_000);
    let flood = many(|number| {
        let stream = stream(number % 100);
        [frame(HEADERS, END_STREAM, stream, first), frame(CONTINUATION, END_HEADERS, stream, rest)].concat()
    });
    victim.withstands(&[&|address| {
        pour(address, &flood);
    }]);
}

#[test]
fn s_06_slow_first_words_heads_and_bodies() {
    const SOCKETS: usize = 150;
    let victim = Victim::start();
    let body = format!(
        "POST /api/jobs/test HTTP/1.1\r\nhost: localhost\r\nx-avtomatika-token: {CLIENT_TOKEN}\r\ncontent-length: 1000\r\n\r\n{{"
    );
    let slow = |words: &[u8]| {
        let sockets: Vec<TcpStream> = (0..SOCKETS).filter_map(|_| connect(victim.address).ok()).collect();
        for byte in words {
            for mut socket in &sockets {
                // Those that were given up are what is tested.
                let _ = socket.write_all(&[*byte]);
            }
            thread::sleep(PAUSE);
        }
    };
    let (head, first_words) = (&b"GET /healthz HTTP/1.1\r\nhost: localhost"[..], &frames::PREFACE[..20]);
    victim.withstands(&[&|_| slow(first_words), &|_| slow(head), &|_| slow(body.as_bytes())]);
}

#[test]
fn s_07_many_answers_that_nobody_takes() {
    const STREAMS: u32 = 1000;
    let victim = Victim::start();
    let path = format!("/api/jobs/{}", victim.submit(&"x".repeat(60_000)));
    let get =
        [&[0x82, 0x86][..], &header(":path", &path), &header("x-avtomatika-token", CLIENT_TOKEN)].concat();
    // One byte of each answer may be sent, and not one more.
    let mut flood = hello(&[(INITIAL_WINDOW_SIZE, 1)]);
    for number in 0..STREAMS {
        flood.extend(frame(HEADERS, END_HEADERS | END_STREAM, stream(number), &get));
    }
    victim.withstands(&[&|address| {
        pour_and_wait(address, &flood, Duration::from_secs(3));
    }]);
}

/// Submits a job over a connection that is there; whether it is accepted, which is said after its commit.
fn submit_over(stream: &mut TcpStream) -> bool {
    let request = format!(
        "POST /api/jobs/test HTTP/1.1\r\nhost: localhost\r\nx-avtomatika-token: {CLIENT_TOKEN}\r\ncontent-length: 2\r\n\r\n{{}}"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut first = [0; 12];
    stream.read_exact(&mut first).unwrap();
    first == *b"HTTP/1.1 202"
}

#[test]
fn s_08_f35_more_connections_than_there_are_files_and_commits_go_on() {
    const FILES: usize = 160;
    let victim = Victim::with_files(FILES);
    let mut known = victim.connect();
    let mut ask = move || {
        let began = Instant::now();
        known.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
        let mut first = [0; 15];
        known.read_exact(&mut first).unwrap();
        assert_eq!(first, *b"HTTP/1.1 200 OK");
        // The rest of the answer ends with its body.
        while known.read(&mut [0; 4096]).unwrap() == 4096 {}
        began.elapsed()
    };
    ask();
    let mut submitter = victim.connect();
    let join = |_| TcpStream::connect_timeout(&victim.address, Duration::from_secs(1)).ok();
    let crowd: Vec<TcpStream> = (0..2 * FILES).map_while(join).collect();
    assert!(crowd.len() > FILES, "{}", crowd.len());
    // It has no files left from here on, and stays calm.
    assert!(submit_over(&mut submitter), "the store has its files open");
    let (began, used) = (Instant::now(), victim.cpu_time());
    while began.elapsed() < Duration::from_secs(1) {
        ask();
        thread::sleep(PAUSE);
    }
    let used = victim.cpu_time() - used;
    assert!(used < Duration::from_millis(600), "{used:?} of processor time in a second");
    drop(crowd);
    victim.recovers();
}

#[test]
fn s_08_as_many_files_are_open_as_the_system_allows() {
    let victim = Victim::with_files_up_to(160, 320);
    assert_eq!(victim.files_max(), 320);
}
