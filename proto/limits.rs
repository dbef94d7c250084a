//! Every limit that both ends rely on, each with the reason for its value.

use std::time::Duration;

/// Largest `initial_data` and largest result of a task, in bytes. Larger data belongs in a file store, by reference.
pub const PAYLOAD_BYTES_MAX: usize = 1024 * 1024;

/// Largest gRPC message either side accepts: a payload with room for its envelope and for a batch of smaller ones.
pub const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Where a sender closes a batch: a quarter of [`MESSAGE_BYTES_MAX`], so that one more payload of the largest size fits.
pub const BATCH_BYTES_TARGET: usize = MESSAGE_BYTES_MAX / 4;

/// Items in one batch message of the task stream; keeps a batch decodable within a millisecond.
pub const BATCH_ITEMS_MAX: usize = 1024;

/// Largest checkpoint of an attempt, in bytes: a place in the work and not the work, and there is one in memory for each attempt
/// that runs.
pub const CHECKPOINT_BYTES_MAX: usize = 64 * 1024;

/// Nesting of JSON accepted from outside. Far above real data, far below what overflows a 2 MiB stack.
pub const JSON_DEPTH_MAX: usize = 127;

/// Slots of one worker.
pub const WORKER_SLOTS_MAX: u32 = 10_000;

/// Task types that one worker may announce.
pub const WORKER_TASK_TYPES_MAX: usize = 256;

/// Length of a name: worker id, task type, blueprint, state.
pub const NAME_BYTES_MAX: usize = 128;

/// Length of an outcome.
pub const OUTCOME_BYTES_MAX: usize = 64;

/// Labels of a job or of a worker.
pub const LABELS_MAX: usize = 32;

/// Length of a label's key.
pub const LABEL_KEY_BYTES_MAX: usize = 63;

/// Length of a label's value.
pub const LABEL_VALUE_BYTES_MAX: usize = 255;

/// Length of an idempotency key.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;

/// Length of the name that a sender gives a signal, to send it again safely.
pub const SIGNAL_ID_BYTES_MAX: usize = 255;

/// Largest data of a signal, in bytes: as much as all the signals that a job keeps may have together.
pub const SIGNAL_DATA_BYTES_MAX: usize = 256 * 1024;

/// Length of the name of whoever decides an approval.
pub const APPROVER_BYTES_MAX: usize = 128;

/// Jobs that one call repairs at most. They share a few commits, so that it takes well under a second.
pub const REPAIR_JOBS_MAX: u32 = 1000;

/// Jobs that the answer to a repair names.
pub const REPAIR_IDS_MAX: usize = 100;

/// Length of a reason or of a comment.
pub const REASON_CHARS_MAX: usize = 1000;

/// Length at which an error message from a worker is cut.
pub const ERROR_MESSAGE_BYTES_MAX: usize = 4096;

/// Length at which a progress message is cut.
pub const PROGRESS_MESSAGE_BYTES_MAX: usize = 1024;

/// Priorities reach from minus this to plus this.
pub const PRIORITY_MAX: i32 = 100;

/// Longest wait that a submission may ask for. Proxies on the way rarely hold a request longer.
pub const WAIT_MAX: Duration = Duration::from_secs(300);

/// Longest timeout that a job or a state may ask for: a year, beyond which a plain typo is more likely than a plan.
pub const TIMEOUT_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

/// How far ahead the start of a job may lie: a year, beyond which a plain typo is more likely than a plan.
pub const START_AHEAD_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

/// Largest page of a listing.
pub const PAGE_SIZE_MAX: u32 = 1000;

/// Page of a listing when the caller names no size.
pub const PAGE_SIZE_DEFAULT: u32 = 100;

/// Both sides of a task stream say something at least this often. A process that stands still for 2 s just before its heartbeat is
/// silent for 2.75 s, and not taken for lost.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_millis(750);

/// Silence after which the other side of a task stream is taken for lost.
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(3);

/// Silence after which a worker is suspected, and gets no tasks: a heartbeat is missing altogether.
pub const SUSPECTED_AFTER: Duration = KEEPALIVE_INTERVAL.saturating_mul(2);

/// Longest leave of a worker that holds no tasks to say nothing.
pub const QUIET_FOR_MAX: Duration = Duration::from_secs(3);

/// How many times as long as it is quiet by leave the other side of a task stream may be silent before it is taken for lost: the same
/// as of [`KEEPALIVE_TIMEOUT`] and [`KEEPALIVE_INTERVAL`].
pub const SILENT_TIMES_MAX: u32 = 4;

/// How long a worker may take to stop a task that is no longer wanted.
pub const CANCEL_GRACE: Duration = Duration::from_secs(5);

/// HTTP/2 flow-control window of a connection, on both ends. It also sets how many small unread frames h2 tolerates before it
/// closes the connection (`too_many_data_frames`, since h2 0.4.16): half of it, at 256 bytes a frame.
pub const CONNECTION_WINDOW_BYTES: u32 = 16 * 1024 * 1024;

/// HTTP/2 flow-control window of a stream, for those who talk to an orchestrator: the largest message in one go. (What comes to it
/// comes in smaller pieces, so that what waits there holds little.)
pub const STREAM_WINDOW_BYTES: u32 = MESSAGE_BYTES_MAX as u32;
