//! The contract of Avtomatika: what the orchestrator, its workers and its clients must agree on.
//!
//! It holds the generated protocol types, the ids, the closed list of error codes with their translation to gRPC and
//! HTTP, every limit and every rule for names that both ends rely on, time as people write it and as the protocol
//! carries it, and the ways in which their logs and
//! traces leave them. It refuses to know how either end works.

pub mod codec;
pub mod error_code;
pub mod ids;
pub mod limits;
pub mod log_queue;
pub mod names;
pub mod span;
#[cfg(feature = "otlp")]
pub mod spans;
pub mod task_error;
pub mod trace;
pub mod wire_error;
pub mod wire_time;

pub use error_code::ErrorCode;
pub use ids::{JobId, SessionId, TaskId};
pub use task_error::TaskError;
pub use wire_error::ApiError;

/// Package `avtomatika.v1`: messages, clients and servers, generated from `proto/avtomatika/v1/*.proto`.
#[allow(missing_docs, clippy::all, clippy::unwrap_used)]
pub mod v1 {
    tonic::include_proto!("avtomatika.v1");
}

/// The compiled protocol files, for server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// Names of the metadata and header keys in which credentials travel.
pub mod headers {
    /// The seed's client header.
    pub const AVTOMATIKA_TOKEN: &str = "x-avtomatika-token";
    /// The client header of later Python versions.
    pub const CLIENT_TOKEN: &str = "x-client-token";
    /// The token of one approval, where a human decides without any other credential.
    pub const APPROVAL_TOKEN: &str = "x-approval-token";
    /// In whose name an admin calls.
    pub const ON_BEHALF_OF: &str = "x-avtomatika-client";
    /// The worker header of the Python system.
    pub const WORKER_TOKEN: &str = "x-worker-token";
}

/// The outcomes that every worker and every blueprint know; others are the blueprint's own.
pub mod outcome {
    /// The task did what it was asked for.
    pub const SUCCESS: &str = "success";
    /// The task did not; its error says why.
    pub const FAILURE: &str = "failure";
    /// The attempt took longer than it was given.
    pub const TIMEOUT: &str = "timeout";
    /// The attempt was stopped on request.
    pub const CANCELLED: &str = "cancelled";
}
