//! What a client may ask for, checked in one place for every way in: REST and gRPC call the same functions, so that the same
//! mistake gets the same answer. It refuses to know how the request was spelled on the wire.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use avtomatika_proto::{
    ApiError, ErrorCode,
    limits::{
        IDEMPOTENCY_KEY_BYTES_MAX, LABEL_KEY_BYTES_MAX, LABEL_VALUE_BYTES_MAX, LABELS_MAX, PAGE_SIZE_DEFAULT,
        PAGE_SIZE_MAX, PAYLOAD_BYTES_MAX, PRIORITY_MAX, REASON_CHARS_MAX, START_AHEAD_MAX, TIMEOUT_MAX,
        WAIT_MAX,
    },
};

use super::limits::BODY_READ_TIMEOUT;
use crate::{conductor::SubmitRequest, engine::Submission, json::Json, time::Timestamp};

/// A submission as it was read, not yet checked. `initial_data` has passed its own gate: see [`initial_data`].
#[derive(Debug)]
pub struct Draft<'a> {
    /// Name of the blueprint.
    pub blueprint: Arc<str>,
    /// What the job starts with.
    pub initial_data: Json,
    /// The client's own marks.
    pub labels: BTreeMap<String, String>,
    /// Higher goes first.
    pub priority: i64,
    /// Longest that one task may wait for a worker.
    pub dispatch_timeout: Option<Duration>,
    /// Longest that the job may take.
    pub result_timeout: Option<Duration>,
    /// Not before this time.
    pub start_at: Option<Timestamp>,
    /// Not before this much later.
    pub delay: Option<Duration>,
    /// Where to send news of the job.
    pub webhook_url: Option<Arc<str>>,
    /// Makes the request safe to repeat.
    pub idempotency_key: Option<&'a str>,
    /// How long to hold the answer.
    pub wait: Duration,
}

impl Draft<'_> {
    /// A submission of this data and nothing else.
    pub fn new(blueprint: Arc<str>, initial_data: Json) -> Self {
        Self {
            blueprint,
            initial_data,
            labels: BTreeMap::new(),
            priority: 0,
            dispatch_timeout: None,
            result_timeout: None,
            start_at: None,
            delay: None,
            webhook_url: None,
            idempotency_key: None,
            wait: Duration::ZERO,
        }
    }

    /// The request for the conductor, when everything in the draft is as it may be.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` that names the field, its limit and what was found.
    pub fn check(self) -> Result<SubmitRequest, ApiError> {
        if self.blueprint.is_empty() {
            return Err(invalid("blueprint is missing".to_owned())
                .with_hint("Name the blueprint; GET /api/blueprints lists what is served."));
        }
        let submission = Submission {
            initial_data: self.initial_data,
            labels: labels(self.labels)?,
            priority: priority(self.priority)?,
            dispatch_timeout: timeout("dispatch_timeout", self.dispatch_timeout)?,
            result_timeout: timeout("result_timeout", self.result_timeout)?,
            start_at: self.start_at,
            // Where messages may go is for the operator to say: the conductor checks it.
            webhook_url: self.webhook_url.filter(|url| !url.is_empty()),
            parent: None,
            // It stands beside the request, and not in it.
            trace: None,
        };
        let idempotency_key = self.idempotency_key.map(idempotency_key).transpose()?;
        let delay = delay(self.delay, self.start_at)?;
        let wait = wait(self.wait)?;
        Ok(SubmitRequest { blueprint: self.blueprint, submission, idempotency_key, delay, wait })
    }
}

/// The text of a job's input, through the JSON gate.
///
/// # Errors
/// `INVALID_JSON`, `PAYLOAD_TOO_LARGE`.
pub fn initial_data(bytes: &[u8]) -> Result<Json, ApiError> {
    if bytes.len() > PAYLOAD_BYTES_MAX {
        return Err(too_large(PAYLOAD_BYTES_MAX));
    }
    Json::object_from_bytes(bytes).map_err(invalid_json)
}

/// The documented text for JSON that cannot be taken, with what was found in the hint.
pub fn invalid_json(reason: impl std::fmt::Display) -> ApiError {
    let hint = format!("Found: {reason}. {}", ErrorCode::InvalidJson.hint());
    ApiError::new(ErrorCode::InvalidJson, "Invalid JSON body").with_hint(hint)
}

/// The answer to a body over its limit.
pub fn too_large(limit_bytes: usize) -> ApiError {
    ApiError::new(
        ErrorCode::PayloadTooLarge,
        format!("The request body is larger than the limit of {limit_bytes} bytes"),
    )
}

/// The answer to a body that does not come.
pub fn body_timeout() -> ApiError {
    ApiError::new(
        ErrorCode::RequestTimeout,
        format!("The request body did not arrive within {} seconds", BODY_READ_TIMEOUT.as_secs()),
    )
}

/// The page size that is meant, 0 and absent being the default.
///
/// # Errors
/// `INVALID_ARGUMENT` beyond the largest page.
pub fn page_size(asked: u64, default: u32) -> Result<usize, ApiError> {
    match asked {
        0 => Ok(default as usize),
        1..=PAGE_LARGEST => Ok(asked as usize),
        _ => Err(invalid(format!("a page holds at most {PAGE_SIZE_MAX} entries, {asked} were asked for"))),
    }
}

const PAGE_LARGEST: u64 = PAGE_SIZE_MAX as u64;

/// The page of a job listing when the caller names no size.
pub const JOBS_PAGE_DEFAULT: u32 = PAGE_SIZE_DEFAULT;

/// The page of a history when the caller names no size: entries are small, and most histories fit.
pub const HISTORY_PAGE_DEFAULT: u32 = PAGE_SIZE_MAX;

/// The reason for a cancellation or a repair; an empty one is none.
///
/// # Errors
/// `INVALID_ARGUMENT` when it is too long.
pub fn reason(text: &str) -> Result<Option<Arc<str>>, ApiError> {
    remark("reason", text)
}

/// The comment on a decision; an empty one is none.
///
/// # Errors
/// `INVALID_ARGUMENT` when it is too long.
pub fn comment(text: &str) -> Result<Option<Arc<str>>, ApiError> {
    remark("comment", text)
}

fn remark(field: &str, text: &str) -> Result<Option<Arc<str>>, ApiError> {
    let chars = text.chars().count();
    match chars {
        0 => Ok(None),
        1..=REASON_CHARS_MAX => Ok(Some(Arc::from(text))),
        _ => Err(invalid(format!("{field} has {chars} characters, the limit is {REASON_CHARS_MAX}"))),
    }
}

/// Labels within their limits.
///
/// # Errors
/// `INVALID_ARGUMENT` that names the label.
pub fn labels(labels: BTreeMap<String, String>) -> Result<BTreeMap<String, String>, ApiError> {
    if labels.len() > LABELS_MAX {
        return Err(invalid(format!("there are {} labels, the limit is {LABELS_MAX}", labels.len())));
    }
    for (key, value) in &labels {
        let fits = (1..=LABEL_KEY_BYTES_MAX).contains(&key.len());
        if !fits || !key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._/-".contains(&byte)) {
            return Err(invalid(format!(
                "the label key {} is not 1 to {LABEL_KEY_BYTES_MAX} characters of a-z A-Z 0-9 . _ / -",
                quote(key)
            )));
        }
        if value.len() > LABEL_VALUE_BYTES_MAX || value.chars().any(char::is_control) {
            return Err(invalid(format!(
                "the value of the label {key} has more than {LABEL_VALUE_BYTES_MAX} bytes or a control character"
            )));
        }
    }
    Ok(labels)
}

/// `INVALID_ARGUMENT` with this text.
pub fn invalid(message: String) -> ApiError {
    ApiError::new(ErrorCode::InvalidArgument, message)
}

/// Input in an error text: escaped, and cut so that nobody can make us echo a book.
pub fn quote(input: &str) -> String {
    let cut = input.floor_char_boundary(QUOTE_BYTES_MAX);
    let ellipsis = if cut < input.len() { "…" } else { "" };
    format!("{:?}{ellipsis}", &input[..cut])
}

/// Length at which input is cut in an error text.
const QUOTE_BYTES_MAX: usize = 64;

fn priority(asked: i64) -> Result<i32, ApiError> {
    i32::try_from(asked)
        .ok()
        .filter(|priority| (-PRIORITY_MAX..=PRIORITY_MAX).contains(priority))
        .ok_or_else(|| invalid(format!("priority is {asked}; it may be -{PRIORITY_MAX} to {PRIORITY_MAX}")))
}

fn timeout(field: &str, asked: Option<Duration>) -> Result<Option<Duration>, ApiError> {
    match asked {
        Some(Duration::ZERO) => {
            Err(invalid(format!("{field} is 0; it must be more")).with_hint("Leave it out for no limit."))
        }
        Some(asked) if asked > TIMEOUT_MAX => Err(invalid(format!(
            "{field} is longer than the limit of {} days",
            TIMEOUT_MAX.as_secs() / 86_400
        ))),
        other => Ok(other),
    }
}

/// How far ahead `start_at` lies is known to whoever has the time: the conductor checks it.
fn delay(asked: Option<Duration>, start_at: Option<Timestamp>) -> Result<Option<Duration>, ApiError> {
    match asked {
        Some(_) if start_at.is_some() => {
            Err(invalid("start_at and delay say the same thing twice".to_owned())
                .with_hint("Give the time or the delay, not both."))
        }
        Some(asked) if asked > START_AHEAD_MAX => Err(invalid(format!(
            "delay is longer than the limit of {} days",
            START_AHEAD_MAX.as_secs() / 86_400
        ))),
        other => Ok(other),
    }
}

fn wait(asked: Duration) -> Result<Duration, ApiError> {
    match asked <= WAIT_MAX {
        true => Ok(asked),
        false => Err(invalid(format!("wait is longer than the limit of {} seconds", WAIT_MAX.as_secs()))
            .with_hint("Wait for less, and look at the job again afterwards.")),
    }
}

pub(super) fn idempotency_key(key: &str) -> Result<Arc<str>, ApiError> {
    let fits = (1..=IDEMPOTENCY_KEY_BYTES_MAX).contains(&key.len());
    match fits && key.bytes().all(|byte| (0x20..=0x7e).contains(&byte)) {
        true => Ok(Arc::from(key)),
        false => Err(invalid(format!(
            "the idempotency key is not 1 to {IDEMPOTENCY_KEY_BYTES_MAX} printable ASCII characters"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft() -> Draft<'static> {
        Draft::new(Arc::from("test_workflow"), Json::empty())
    }

    fn refused(change: impl FnOnce(&mut Draft<'static>)) -> String {
        let mut draft = draft();
        change(&mut draft);
        let error = draft.check().unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidArgument);
        error.message.into_owned()
    }

    fn label(key: &str, value: &str) -> BTreeMap<String, String> {
        BTreeMap::from([(key.to_owned(), value.to_owned())])
    }

    #[test]
    fn what_is_within_every_limit_is_accepted() {
        let mut draft = draft();
        draft.labels = label(&"k".repeat(63), &"v".repeat(255));
        draft.priority = -100;
        draft.dispatch_timeout = Some(TIMEOUT_MAX);
        draft.idempotency_key = Some("order 4711~");
        draft.wait = WAIT_MAX;
        draft.webhook_url = Some(Arc::from(""));
        let request = draft.check().unwrap();
        assert_eq!(request.submission.priority, -100);
        assert_eq!(request.idempotency_key.as_deref(), Some("order 4711~"));
    }

    #[test]
    fn what_is_beyond_a_limit_is_refused_by_name() {
        type Change = fn(&mut Draft<'static>);
        let rows: [(Change, &str); 14] = [
            (|draft| draft.blueprint = Arc::from(""), "blueprint is missing"),
            (|draft| draft.priority = 101, "priority is 101; it may be -100 to 100"),
            (|draft| draft.priority = i64::MIN, "priority is -9223372036854775808; it may be -100 to 100"),
            (|draft| draft.labels = label("", "v"), "the label key \"\" is not 1 to 63"),
            (|draft| draft.labels = label("a b", "v"), "the label key \"a b\" is not 1 to 63"),
            (|draft| draft.labels = label(&"k".repeat(64), "v"), "the label key \"kkkk"),
            (|draft| draft.labels = label("k", "a\nb"), "the value of the label k has"),
            (|draft| draft.result_timeout = Some(Duration::ZERO), "result_timeout is 0"),
            (|draft| draft.dispatch_timeout = Some(Duration::MAX), "dispatch_timeout is longer than"),
            (
                |draft| draft.wait = WAIT_MAX + Duration::from_secs(1),
                "wait is longer than the limit of 300 seconds",
            ),
            (|draft| draft.idempotency_key = Some(""), "the idempotency key is not"),
            (|draft| draft.idempotency_key = Some("schlüssel"), "the idempotency key is not"),
            (|draft| draft.delay = Some(Duration::MAX), "delay is longer than the limit of 366 days"),
            (
                |draft| (draft.delay, draft.start_at) = (Some(Duration::ZERO), Some(Timestamp::default())),
                "start_at and delay say the same thing twice",
            ),
        ];
        for (change, text) in rows {
            let found = refused(change);
            assert!(found.starts_with(text), "{found:?} does not start with {text:?}");
        }
        let many = (0..33).map(|n| (format!("k{n}"), String::new())).collect();
        assert_eq!(labels(many).unwrap_err().message, "there are 33 labels, the limit is 32");
    }

    #[test]
    fn pages_and_reasons_have_their_limits() {
        assert_eq!(page_size(0, JOBS_PAGE_DEFAULT), Ok(100));
        assert_eq!(page_size(1000, 100), Ok(1000));
        assert!(page_size(1001, 100).is_err());
        assert!(page_size(u64::MAX, 100).is_err());
        assert_eq!(reason(""), Ok(None));
        assert!(reason(&"ü".repeat(1000)).is_ok());
        assert!(reason(&"ü".repeat(1001)).is_err());
    }

    #[test]
    fn quoted_input_is_escaped_and_cut() {
        assert_eq!(quote("a\u{1b}[31m"), "\"a\\u{1b}[31m\"");
        assert_eq!(quote(&"ü".repeat(100)).chars().filter(|letter| *letter == 'ü').count(), 32);
    }
}
