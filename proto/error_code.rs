//! The closed list of what can go wrong at a process boundary.
//!
//! One code answers every reader: gRPC status for machines that speak gRPC, HTTP status for the rest, retryable or not
//! for clients, a hint for people. Adding a code makes the compiler ask for all of them, and a test asks for its
//! paragraph in `docs/errors.md`.

use tonic::Code;

macro_rules! error_codes {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $grpc:ident, $http:literal, $retry:literal, $hint:literal;)*) => {
        /// What went wrong, for machines. The text form is stable.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum ErrorCode { $($(#[$doc])* $variant,)* }

        impl ErrorCode {
            /// Every code there is.
            pub const ALL: &[ErrorCode] = &[$(ErrorCode::$variant),*];

            /// The stable text form, such as `JOB_NOT_FOUND`.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The gRPC status that carries it.
            pub fn grpc(self) -> Code {
                match self { $(Self::$variant => Code::$grpc,)* }
            }

            /// The HTTP status that carries it.
            pub fn http(self) -> u16 {
                match self { $(Self::$variant => $http,)* }
            }

            /// Whether the same request may succeed later, unchanged.
            pub fn is_retryable(self) -> bool {
                match self { $(Self::$variant => $retry,)* }
            }

            /// How to mend it, when the place where it happened knows nothing better.
            pub fn hint(self) -> &'static str {
                match self { $(Self::$variant => $hint,)* }
            }

            /// The code with this text form.
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($name => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

error_codes! {
    /// No credential was sent.
    MissingToken = "MISSING_TOKEN", Unauthenticated, 401, false,
        "Send the token in the X-Avtomatika-Token header, or as Authorization: Bearer TOKEN.";
    /// The credential is not one that this orchestrator knows for this kind of caller.
    InvalidToken = "INVALID_TOKEN", Unauthenticated, 401, false,
        "Check the token; client tokens and worker tokens are different things.";
    /// Workers must show a certificate here, and this one shows none that names a worker.
    WorkerCertificateRequired = "WORKER_CERTIFICATE_REQUIRED", Unauthenticated, 401, false,
        "Give the worker a certificate that names it: --tls-cert and --tls-key.";
    /// The worker's certificate is that of another worker.
    WorkerCertificateMismatch = "WORKER_CERTIFICATE_MISMATCH", PermissionDenied, 403, false,
        "Give every worker the name that its certificate has, or another certificate.";
    /// The request came in clear text to a port that speaks TLS.
    TlsRequired = "TLS_REQUIRED", FailedPrecondition, 400, false,
        "Write https:// instead of http://, and replace the token: it has crossed the network in clear text.";
    /// The request is for another machine than the one that alone is served here.
    HostForbidden = "HOST_FORBIDDEN", PermissionDenied, 403, false,
        "Call the port by 127.0.0.1 or localhost, or have the orchestrator listen on another address.";
    /// The caller is known, and may not do this.
    PermissionDenied = "PERMISSION_DENIED", PermissionDenied, 403, false,
        "Ask an operator: rights are given in the clients file and the workers file.";
    /// The client calls more often than it may.
    RateLimited = "RATE_LIMITED", ResourceExhausted, 429, true,
        "Wait as long as Retry-After says, and call less often.";
    /// The client has submitted as many jobs this month as it may.
    QuotaExceeded = "QUOTA_EXCEEDED", ResourceExhausted, 429, false,
        "Wait for the next month, or have an operator raise the client's quota.";
    /// The body or field is not acceptable JSON.
    InvalidJson = "INVALID_JSON", InvalidArgument, 400, false,
        "Send a JSON object in UTF-8, with every key once in each object and at most 127 levels deep.";
    /// A field has a value that it may not have.
    InvalidArgument = "INVALID_ARGUMENT", InvalidArgument, 400, false,
        "Correct the field that the message names.";
    /// The initial data of a job is not what its blueprint wants.
    InputInvalid = "INPUT_INVALID", InvalidArgument, 400, false,
        "Correct the data at the place that the message names: GET /api/blueprints/NAME shows the input_schema.";
    /// No job of this client has that id.
    JobNotFound = "JOB_NOT_FOUND", NotFound, 404, false,
        "Check the id and the token: a client sees its own jobs only.";
    /// No blueprint has that name (or that version).
    BlueprintNotFound = "BLUEPRINT_NOT_FOUND", NotFound, 404, false,
        "List what is served with GET /api/blueprints.";
    /// No worker of that name is connected.
    WorkerNotFound = "WORKER_NOT_FOUND", NotFound, 404, false,
        "List who is connected with GET /api/workers.";
    /// A blueprint, or a directory of them, cannot be loaded.
    BlueprintsInvalid = "BLUEPRINTS_INVALID", InvalidArgument, 422, false,
        "Mend what the findings name; each has its place and its cure.";
    /// Nothing is served at that path.
    EndpointNotFound = "ENDPOINT_NOT_FOUND", NotFound, 404, false,
        "Choose one of the served paths.";
    /// The path exists, the method does not.
    MethodNotAllowed = "METHOD_NOT_ALLOWED", Unimplemented, 405, false,
        "Use a method that the Allow header names.";
    /// The idempotency key belongs to another request.
    IdempotencyConflict = "IDEMPOTENCY_CONFLICT", AlreadyExists, 409, false,
        "Use a new key for a new request; repeat a request with its own key and unchanged.";
    /// The job has ended, so it cannot be changed.
    JobTerminal = "JOB_TERMINAL", FailedPrecondition, 409, false,
        "Look at the job; it reached its end before this request.";
    /// The job does not ask anybody to decide.
    ApprovalNotFound = "APPROVAL_NOT_FOUND", FailedPrecondition, 409, false,
        "Look at the job: somebody has decided already, or it has not come that far.";
    /// The state in which the job stands has no transition of that name.
    OutcomeUnknown = "OUTCOME_UNKNOWN", InvalidArgument, 400, false,
        "Choose one of the transitions of the job's state: GET /api/blueprints/NAME shows them.";
    /// The blueprint has no state of that name.
    StateNotFound = "STATE_NOT_FOUND", InvalidArgument, 400, false,
        "Choose one of the states of the job's blueprint: GET /api/blueprints/NAME shows them.";
    /// Only a job that failed or was quarantined can be repaired.
    NotRepairable = "NOT_REPAIRABLE", FailedPrecondition, 409, false,
        "Submit a new job, or wait until this one has ended.";
    /// The job keeps as many signals as a job may.
    TooManySignals = "TOO_MANY_SIGNALS", ResourceExhausted, 429, true,
        "Wait until the job has taken some of its signals, or send fewer.";
    /// A body or message is over its limit.
    PayloadTooLarge = "PAYLOAD_TOO_LARGE", ResourceExhausted, 413, false,
        "Keep the data under the limit; put large data elsewhere and submit a reference to it.";
    /// The body is written in a way that is not understood here.
    UnsupportedMediaType = "UNSUPPORTED_MEDIA_TYPE", Unimplemented, 415, false,
        "Send the body as it is, without compression; calls of gRPC have the content-type application/grpc.";
    /// The request took too long to arrive.
    RequestTimeout = "REQUEST_TIMEOUT", DeadlineExceeded, 408, true,
        "Send the body without long pauses.";
    /// The caller has stopped waiting.
    DeadlineExceeded = "DEADLINE_EXCEEDED", DeadlineExceeded, 504, true,
        "Allow the call more time; a submission may have been accepted, so repeat it under its idempotency key.";
    /// As many jobs are open as the orchestrator is set to hold.
    TooManyOpenJobs = "TOO_MANY_OPEN_JOBS", ResourceExhausted, 429, true,
        "Wait for jobs to end, add workers, or raise max_open_jobs.";
    /// As many jobs of the client are open as it may have.
    OpenJobsLimitReached = "OPEN_JOBS_LIMIT_REACHED", ResourceExhausted, 429, true,
        "Wait for some of them to end, or have an operator raise the client's max_open_jobs.";
    /// A key of the blueprint has no room, and its policy is to refuse the newest.
    KeyLimitReached = "KEY_LIMIT_REACHED", ResourceExhausted, 429, true,
        "Try again when a job with the same key has ended, or when its rate allows another.";
    /// As many workers are connected as the orchestrator is set to serve.
    TooManyWorkers = "TOO_MANY_WORKERS", ResourceExhausted, 429, true,
        "Raise max_workers, or run fewer workers with more slots.";
    /// The work queue of the orchestrator is full at this moment.
    Overloaded = "OVERLOADED", Unavailable, 503, true,
        "Try again after a short pause.";
    /// The orchestrator is stopping.
    ShuttingDown = "SHUTTING_DOWN", Unavailable, 503, true,
        "Try again in a moment; the orchestrator is being restarted.";
    /// The disk is full. What was acknowledged is safe and can be read.
    StorageFull = "STORAGE_FULL", ResourceExhausted, 507, true,
        "Free space in the data directory; the orchestrator resumes by itself.";
    /// The store answered with an error.
    StorageFailed = "STORAGE_FAILED", Internal, 500, true,
        "Look at the orchestrator's log for the cause.";
    /// The session is not known, or is another worker's.
    SessionUnknown = "SESSION_UNKNOWN", FailedPrecondition, 409, false,
        "Call RegisterWorker and open the stream with the session it returns.";
    /// A rule of the task stream was broken.
    ProtocolViolation = "PROTOCOL_VIOLATION", FailedPrecondition, 400, false,
        "Follow docs/protocol.md: the first message of a stream is Hello.";
    /// A watcher read more slowly than its job changed.
    WatchLagged = "WATCH_LAGGED", ResourceExhausted, 429, true,
        "Call again; the first message is always the present state.";
    /// Messages must not go to this webhook.
    WebhookUrlForbidden = "WEBHOOK_URL_FORBIDDEN", InvalidArgument, 422, false,
        "Name a host on the public Internet, and port 80, 443 or one from 1024 on; an operator can set webhooks_allow_private.";
    /// This orchestrator has no secret to sign messages with.
    WebhooksOff = "WEBHOOKS_OFF", FailedPrecondition, 409, false,
        "Leave webhook_url out, or have an operator set webhook_secrets.";
    /// As many messages of this client wait for webhooks as may.
    TooManyNotices = "TOO_MANY_NOTICES", ResourceExhausted, 429, true,
        "Let the receivers take what waits for them, or leave webhook_url out.";
    /// No message about this job has that id.
    WebhookNotFound = "WEBHOOK_NOT_FOUND", NotFound, 404, false,
        "List the messages about the job with GET /api/jobs/ID/webhooks.";
    /// The contract reserves it, this version does not do it.
    Unsupported = "UNSUPPORTED", Unimplemented, 501, false,
        "Leave the field out, or use a version that supports it.";
    /// A fault of the orchestrator.
    Internal = "INTERNAL", Internal, 500, false,
        "This is a fault of the orchestrator: report it with its log.";
}

impl std::fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_one_name_that_reads_back() {
        for &code in ErrorCode::ALL {
            assert_eq!(ErrorCode::from_name(code.as_str()), Some(code));
        }
    }

    #[test]
    fn every_code_has_its_paragraph_in_the_documentation() {
        let page = include_str!("../docs/errors.md");
        for &code in ErrorCode::ALL {
            let heading = format!("\n## {code}\n");
            assert!(page.contains(&heading), "docs/errors.md lacks {code}");
        }
    }
}
