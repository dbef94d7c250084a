//! The limits of the port, each with the reason for its value. Those that clients and workers must know, too, are in the
//! contract crate.

use std::time::Duration;

use avtomatika_proto::limits::CONNECTION_WINDOW_BYTES;

/// Connections at once. Each costs a file and some tens of kilobytes; beyond this a new one is closed at once, so that those
/// that are there keep working.
pub const CONNECTIONS_MAX: usize = 16_384;

/// Connections from one address (of IPv6, one /64) over which nobody has shown a good token yet; beyond this a new one is closed at
/// once. Workers and clients show theirs with their first call, in milliseconds, so that thousands behind one address get in; and it takes
/// 64 addresses to fill the port.
pub const STRANGERS_OF_ADDRESS_MAX: usize = 256;

/// Longest that a connection over HTTP/2 may be there before somebody shows a good token over it. (Over HTTP/1 one that is not used
/// ends as soon, whoever it is.) Probes come again.
pub const STRANGER_TIMEOUT: Duration = Duration::from_secs(10);

/// How long what is under way on such a connection may take from then on: it is an answer that is asked for without a token, and those are
/// quick.
pub const STRANGER_FAREWELL: Duration = Duration::from_secs(1);

/// Longest that the head of an HTTP/1 request may take to arrive, counted from the end of the request before: also what an
/// idle connection is kept for.
pub const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(10);

/// Headers of one HTTP/1 request. Real ones have a dozen.
pub const HEADERS_MAX: usize = 64;

/// Read buffer of an HTTP/1 connection, hence the largest head of a request.
pub const HTTP1_BUFFER_BYTES: usize = 64 * 1024;

/// Headers of one HTTP/2 request, counted as the protocol does (32 bytes for each one extra).
pub const HEADER_LIST_BYTES_MAX: u32 = 16 * 1024;

/// Requests under way on one HTTP/2 connection. A worker needs two; a client that submits in parallel may use many.
pub const STREAMS_MAX: u32 = 1024;

/// Streams that a peer opened and reset before we looked at them (rapid reset): beyond this the connection is closed.
pub const PENDING_RESETS_MAX: usize = 20;

/// Streams that we had to reset because the peer broke the protocol on them: beyond this the connection is closed.
pub const LOCAL_RESETS_MAX: usize = 64;

/// Largest HTTP/2 frame that we accept: four fill a stream's usual message, and none blocks the others for long.
pub const FRAME_BYTES_MAX: u32 = 64 * 1024;

/// Silence on an HTTP/2 connection after which we ask whether the peer is there.
pub const PING_INTERVAL: Duration = Duration::from_secs(10);

/// How long the peer may take to say that it is.
pub const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest that a peer may take to show which protocol it speaks.
pub const FIRST_WORDS_TIMEOUT: Duration = Duration::from_secs(10);

/// New connections that are at their first words at once; the next ones wait for a few milliseconds. Enough for both ends to be busy,
/// and few enough for a request of somebody else to wait for them a few milliseconds, too.
pub const NEWCOMERS_MAX: usize = 64;

/// Longest that a TLS handshake may take, from its first words on; and longest that those may take to come. On a slow line it takes one
/// second.
pub const TLS_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// TLS handshakes under way at once; beyond this a new connection is closed. Ten thousand workers that come back at once need
/// no more, because each is through in a few milliseconds, and those that are slow on purpose cannot make us hold more than this.
pub const HANDSHAKES_MAX: usize = 2048;

/// Longest that a peer may take nothing of what we send it.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// Answers that one connection has asked for and not taken yet, together; its next requests wait. The largest one fits several
/// times, so whoever takes what it asks for never notices.
pub const OWED_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Reads of one connection that are answered at a time. Each takes some microseconds, or a look at the disk.
pub const READS_AT_ONCE: usize = 8;

/// Part of an answer that is handed to HTTP/2 at a time, which keeps it until the peer takes it: with [`STREAMS_MAX`] of them,
/// 16 MiB for a connection. As large as a frame.
pub const ANSWER_PART_BYTES: usize = 16 * 1024;

/// What HTTP/2 may buffer for one stream before it asks for the next part.
pub const SEND_BUFFER_BYTES: usize = 64 * 1024;

/// Age at which a connection is asked to come again; what is under way on it ends first, task streams and watches included. So
/// that clients find their way to a new address or certificate, and nothing that was forgotten lives for ever.
pub const CONNECTION_AGE: Duration = Duration::from_secs(3600);

/// Longest that a body may take to arrive: the largest one in half a minute is 280 kbit/s, slower than any line in use.
pub const BODY_READ_TIMEOUT: Duration = Duration::from_secs(30);

/// Bodies up to this size are read at once: they hardly cost more than what a connection may send ahead anyway.
pub const TINY_BODY_BYTES: usize = 4 * 1024;

/// Bodies up to this size do not wait for larger ones. As for payloads that are let in.
pub const SMALL_BODY_BYTES: usize = 64 * 1024;

/// How much of one kind of bodies may be in memory before somebody has looked into them.
#[derive(Debug, Clone, Copy)]
pub struct Lane {
    /// Of all clients together.
    pub bytes_max: usize,
    /// Of each of them.
    pub of_client_max: usize,
}

/// Small bodies: some hundreds on their way at a time.
pub const INTAKE_SMALL: Lane = Lane { bytes_max: 16 * 1024 * 1024, of_client_max: 4 * 1024 * 1024 };

/// Larger ones. One payload of the largest size is let in at a time, so sixteen of a client are more than enough to keep it coming.
pub const INTAKE_LARGE: Lane = Lane { bytes_max: 48 * 1024 * 1024, of_client_max: 16 * 1024 * 1024 };

/// Longest wait for room. Whoever is before one has as long for its body.
pub const INTAKE_WITHIN: Duration = BODY_READ_TIMEOUT;

/// HTTP/2 flow-control window of one request: what of its body, or of a stream's messages, may come before somebody reads it. A body that
/// waits for its turn holds so much of its connection's window, and [`WAITING_BYTES_MAX`] has room for 48 of them; a body that is
/// read comes at this much in a round trip.
pub const BODY_WINDOW_BYTES: u32 = 256 * 1024;

/// What bodies may hold that wait for room on one connection over HTTP/2. They fill the window that it has for all its streams, and
/// what is read meanwhile needs some of it. (Over HTTP/1, what waits is with its sender.)
pub const WAITING_BYTES_MAX: usize = CONNECTION_WINDOW_BYTES as usize / 4 * 3;

/// The same, on all connections of one client.
pub const WAITING_BYTES_OF_CLIENT_MAX: usize = 2 * WAITING_BYTES_MAX;

/// The same, of all clients.
pub const WAITING_BYTES_OF_ALL_MAX: usize = 8 * WAITING_BYTES_MAX;
