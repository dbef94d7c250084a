//! Building a worker and running it.

use std::{collections::HashMap, path::PathBuf, sync::Arc, time::Duration};

use avtomatika_proto::{
    limits, names,
    spans::Spans,
    v1::{RegisterWorkerRequest, SupportedTask, WorkerState},
};
use serde::de::DeserializeOwned;
use tokio::{
    runtime::Handle,
    sync::{oneshot, watch},
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::metadata::{Ascii, MetadataValue};

use crate::{
    BuildError, Handler, IntoOutcome, TaskContext, TaskError, WorkerError,
    connect::{Connection, Status},
    dial::{self, Address, Dialer},
    handler::Typed,
    runner::Handlers,
    tls::{Route, TlsFiles},
};

/// How long running tasks may go on after the worker was asked to stop, unless told otherwise.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// What the worker says of its own version, for people.
const SDK_VERSION: &str = concat!("avtomatika-worker/", env!("CARGO_PKG_VERSION"));

/// A worker that is ready to run. Made by [`Worker::builder`].
pub struct Worker {
    dialer: Dialer,
    handlers: Arc<Handlers>,
    slots: u32,
    drain_timeout: Duration,
    spans: Option<Spans>,
    status: Arc<watch::Sender<Status>>,
    state: Arc<watch::Sender<WorkerState>>,
}

/// Watches a worker from outside while it runs, and says things about it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct WorkerHandle {
    status: watch::Receiver<Status>,
    state: Arc<watch::Sender<WorkerState>>,
}

/// Addresses of one orchestrator. Trying them all, when each is silent, takes this many connection timeouts.
const ADDRESSES_MAX: usize = 16;

/// Task types that a worker may call warm; the orchestrator looks at no more.
const HOT_CACHE_MAX: usize = 64;

impl WorkerHandle {
    /// Waits until the worker is registered and its stream is open: from then on it gets tasks. Returns the name under which
    /// it is known, or `None` when it stopped before.
    pub async fn registered(&mut self) -> Option<Arc<str>> {
        let status = self.status.wait_for(|status| *status != Status::Apart).await.ok()?;
        match &*status {
            Status::Connected(worker_id) => Some(Arc::clone(worker_id)),
            _ => None,
        }
    }

    /// Whether the worker has a stream at this moment.
    pub fn is_connected(&self) -> bool {
        matches!(*self.status.borrow(), Status::Connected(_))
    }

    /// Tells the orchestrator for which task types this worker has its resources warm, such as a loaded model. Placement
    /// prefers it for those. The first 64 count.
    pub fn set_hot_cache<T: Into<String>>(&self, task_types: impl IntoIterator<Item = T>) {
        let hot_cache: Vec<String> = task_types.into_iter().take(HOT_CACHE_MAX).map(Into::into).collect();
        self.state.send_modify(|state| state.hot_cache = hot_cache);
    }

    /// Tells the orchestrator how loaded this worker is as it sees itself, from 0.0 (idle) to 1.0 (full).
    pub fn set_load(&self, load: f64) {
        let load = if load.is_nan() { 0.0 } else { load.clamp(0.0, 1.0) };
        self.state.send_modify(|state| state.load = load);
    }
}

impl Worker {
    /// Begins a worker for the orchestrator at `url`, such as `http://127.0.0.1:8000`, or `https://jobs.example:8000` for one that
    /// speaks TLS.
    pub fn builder(url: impl Into<String>) -> WorkerBuilder {
        WorkerBuilder {
            urls: vec![url.into()],
            tls: TlsFiles::default(),
            token: String::new(),
            worker_id: None,
            worker_type: "worker".to_owned(),
            slots: std::thread::available_parallelism()
                .map_or(1, |cpus| u32::try_from(cpus.get()).unwrap_or(1)),
            labels: HashMap::new(),
            resources: HashMap::new(),
            software: HashMap::new(),
            models: HashMap::new(),
            limits: Vec::new(),
            costs: Vec::new(),
            hot_cache: Vec::new(),
            handlers: Vec::new(),
            drain_timeout: DRAIN_TIMEOUT,
            spans: None,
        }
    }

    /// To learn when the worker is registered.
    pub fn handle(&self) -> WorkerHandle {
        WorkerHandle { status: self.status.subscribe(), state: Arc::clone(&self.state) }
    }

    /// Runs until `shutdown` resolves and the tasks that run then have ended (at most the drain timeout), then returns `Ok`.
    /// Must be called on a tokio runtime; handlers run there. The conversation with the orchestrator has a thread of its own,
    /// so handlers that block do not silence the worker. Dropping the future drops the running handlers and ends the stream.
    ///
    /// # Errors
    ///
    /// When the orchestrator refuses the worker on its first registration, or another worker takes its name. A lost
    /// connection is not an error: the worker keeps its tasks and results and comes back.
    pub async fn run_until(self, shutdown: impl Future<Output = ()>) -> Result<(), WorkerError> {
        let requested = CancellationToken::new();
        let (mut ended, _abandon) = self.start(requested.clone())?;
        let died = |_| Err(WorkerError::SessionThread("it panicked; its message is on stderr".to_owned()));
        tokio::select! {
            result = &mut ended => return result.unwrap_or_else(died),
            () = shutdown => requested.cancel(),
        }
        ended.await.unwrap_or_else(died)
    }

    /// Starts the thread. It ends by itself, or when the guard is dropped.
    fn start(
        self,
        shutdown: CancellationToken,
    ) -> Result<(oneshot::Receiver<Result<(), WorkerError>>, DropGuard), WorkerError> {
        let failed = |error: std::io::Error| WorkerError::SessionThread(error.to_string());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let connection = Connection {
            dialer: self.dialer,
            handlers: self.handlers,
            handlers_run_on: Handle::current(),
            slots: self.slots,
            shutdown,
            drain_timeout: self.drain_timeout,
            spans: self.spans,
            status: self.status,
            state: self.state,
        };
        let abandoned = CancellationToken::new();
        let guard = abandoned.clone().drop_guard();
        let (end, ended) = oneshot::channel();
        let live = move || {
            let status = Stopped(Arc::clone(&connection.status));
            let result = runtime.block_on(abandoned.run_until_cancelled(connection.run()));
            // Drops what still runs, and does not wait for a name look-up that hangs.
            runtime.shutdown_background();
            drop(status);
            // The receiver is gone exactly when the worker was abandoned.
            let _ = end.send(result.unwrap_or(Ok(())));
        };
        std::thread::Builder::new().name("avtomatika-io".to_owned()).spawn(live).map_err(failed)?;
        Ok((ended, guard))
    }
}

/// Says that the worker has stopped, even when its thread panics.
struct Stopped(Arc<watch::Sender<Status>>);

impl Drop for Stopped {
    fn drop(&mut self) {
        self.0.send_replace(Status::Stopped);
    }
}

/// Describes a worker. Mistakes are collected and reported by [`build`](Self::build).
pub struct WorkerBuilder {
    urls: Vec<String>,
    tls: TlsFiles,
    token: String,
    worker_id: Option<String>,
    worker_type: String,
    slots: u32,
    labels: HashMap<String, String>,
    resources: HashMap<String, f64>,
    software: HashMap<String, String>,
    models: HashMap<String, String>,
    limits: Vec<(String, u32)>,
    costs: Vec<(String, f64)>,
    hot_cache: Vec<String>,
    handlers: Vec<(String, Arc<dyn Handler>)>,
    drain_timeout: Duration,
    spans: Option<Spans>,
}

impl WorkerBuilder {
    /// The token that the orchestrator knows for this worker. Required; never logged.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = token.into();
        self
    }

    /// Another address of the same orchestrator: of one that takes over its data directory when it is gone. When the orchestrator
    /// cannot be reached, or stops, the worker tries one address after the other, with the same session and the tasks and results that it
    /// holds. It is not for a second, independent orchestrator, which would have it drop what it holds: start a second worker for that.
    pub fn or_at(mut self, url: impl Into<String>) -> Self {
        self.urls.push(url.into());
        self
    }

    /// The file, in PEM, with the authorities that may vouch for an orchestrator at `https://`. By default those that this machine
    /// trusts.
    pub fn tls_ca(mut self, ca: impl Into<PathBuf>) -> Self {
        self.tls.ca = Some(ca.into());
        self
    }

    /// The files, in PEM, with the worker's certificate and its private key, for an orchestrator that asks for one: it must name
    /// this worker's id. They are read again for each connection, so that they can be renewed while the worker runs.
    pub fn tls_certificate(mut self, cert: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.tls.cert = Some(cert.into());
        self.tls.key = Some(key.into());
        self
    }

    /// All files for TLS at once.
    pub fn tls_files(mut self, files: TlsFiles) -> Self {
        self.tls = files;
        self
    }

    /// The worker's name, unique among workers: 1 to 128 characters of `[a-zA-Z0-9._:-]`. By default the orchestrator gives it one,
    /// which it keeps for as long as it runs: that of the token's entry in the workers file, or else the worker's type with sixteen
    /// random hex digits, such as `test-processor-b0c70b758e21d94f`.
    pub fn worker_id(mut self, worker_id: impl Into<String>) -> Self {
        self.worker_id = Some(worker_id.into());
        self
    }

    /// What kind of worker it is, for people. By default `worker`.
    pub fn worker_type(mut self, worker_type: impl Into<String>) -> Self {
        self.worker_type = worker_type.into();
        self
    }

    /// How many tasks run at once, over all types. By default the number of CPUs.
    pub fn slots(mut self, slots: u32) -> Self {
        self.slots = slots;
        self
    }

    /// Tells of each run of a task there, if the task belongs to a trace. By default nobody is told; handlers get the trace all the
    /// same: see [`TaskContext::trace`](crate::TaskContext::trace).
    pub fn spans(mut self, spans: Spans) -> Self {
        self.spans = Some(spans);
        self
    }

    /// A label, for people and for placement.
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(key.into(), value.into());
        self
    }

    /// A named quantity for placement, such as `gpu_vram_gb`.
    pub fn resource(mut self, name: impl Into<String>, quantity: f64) -> Self {
        self.resources.insert(name.into(), quantity);
        self
    }

    /// A program that tasks may require, with its version; empty when there is none to speak of.
    pub fn software(mut self, name: impl Into<String>, version: impl Into<String>) -> Self {
        self.software.insert(name.into(), version.into());
        self
    }

    /// A model that tasks may require, with its version; empty when there is none to speak of.
    pub fn model(mut self, name: impl Into<String>, version: impl Into<String>) -> Self {
        self.models.insert(name.into(), version.into());
        self
    }

    /// How many tasks of this type run at once, beside the slots over all types.
    pub fn limit(mut self, task_type: impl Into<String>, tasks: u32) -> Self {
        self.limits.push((task_type.into(), tasks));
        self
    }

    /// What one task of this type costs here, in whatever unit the workers of an installation agree on. A worker without a cost
    /// gets no tasks that have a `max_cost`.
    pub fn cost(mut self, task_type: impl Into<String>, cost: f64) -> Self {
        self.costs.push((task_type.into(), cost));
        self
    }

    /// What is warm from the start: see [`WorkerHandle::set_hot_cache`].
    pub fn hot_cache<T: Into<String>>(mut self, task_types: impl IntoIterator<Item = T>) -> Self {
        self.hot_cache = task_types.into_iter().take(HOT_CACHE_MAX).map(Into::into).collect();
        self
    }

    /// Serves a task type with a function. Params that do not deserialise into `P` are the job's fault
    /// (`INVALID_INPUT_ERROR`); the result is anything that serialises to a JSON object, or a
    /// [`TaskOutcome`](crate::TaskOutcome).
    pub fn handle<P, R, F, Fut>(self, task_type: impl Into<String>, function: F) -> Self
    where
        P: DeserializeOwned + 'static,
        R: IntoOutcome + 'static,
        F: Fn(P, TaskContext) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<R, TaskError>> + Send + 'static,
    {
        self.handler(task_type, Arc::new(Typed::new(function)))
    }

    /// Serves a task type with a [`Handler`], which sees the raw JSON.
    pub fn handler(mut self, task_type: impl Into<String>, handler: Arc<dyn Handler>) -> Self {
        self.handlers.push((task_type.into(), handler));
        self
    }

    /// How long running tasks may go on after the worker was asked to stop. By default [`DRAIN_TIMEOUT`], at most a year.
    pub fn drain_timeout(mut self, drain_timeout: Duration) -> Self {
        self.drain_timeout = drain_timeout.min(limits::TIMEOUT_MAX);
        self
    }

    /// Checks everything that can be checked without the orchestrator.
    ///
    /// # Errors
    ///
    /// Names the first mistake and its cure.
    pub fn build(self) -> Result<Worker, BuildError> {
        let addresses = addresses(self.urls, &self.tls)?;
        let authorization = bearer(&self.token)?;
        if let Some(worker_id) = &self.worker_id {
            check_name("worker id", worker_id)?;
        }
        if self.slots == 0 || self.slots > limits::WORKER_SLOTS_MAX {
            let max = limits::WORKER_SLOTS_MAX;
            return Err(BuildError(format!("a worker has 1 to {max} slots, not {}", self.slots)));
        }
        let handlers = check_handlers(self.handlers)?;
        for (what, texts) in [("label", &self.labels), ("program", &self.software), ("model", &self.models)] {
            check_texts(what, texts)?;
        }
        check_resources(&self.resources)?;
        let supported_tasks = terms(&handlers, &self.limits, &self.costs)?;
        let request = RegisterWorkerRequest {
            worker_id: self.worker_id.unwrap_or_default(),
            worker_type: self.worker_type,
            supported_tasks,
            max_concurrent_tasks: self.slots,
            labels: self.labels,
            resources: self.resources,
            hostname: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            sdk_version: SDK_VERSION.to_owned(),
            installed_software: self.software,
            installed_models: self.models,
        };
        Ok(Worker {
            dialer: Dialer::new(addresses, authorization, request),
            handlers: Arc::new(handlers),
            slots: self.slots,
            drain_timeout: self.drain_timeout,
            spans: self.spans,
            status: Arc::new(watch::Sender::new(Status::Apart)),
            state: Arc::new(watch::Sender::new(WorkerState { hot_cache: self.hot_cache, load: 0.0 })),
        })
    }
}

fn addresses(urls: Vec<String>, tls: &TlsFiles) -> Result<Vec<Address>, BuildError> {
    if urls.is_empty() || urls.len() > ADDRESSES_MAX {
        return Err(BuildError(format!(
            "an orchestrator has 1 to {ADDRESSES_MAX} addresses, not {}",
            urls.len()
        )));
    }
    let address = |url: String| {
        let endpoint = check_url(&url)?;
        let route = Route::to(&url, tls.clone()).map_err(|fault| BuildError(fault.to_string()))?;
        Ok(Address { url, endpoint, route })
    };
    urls.into_iter().map(address).collect()
}

fn check_url(url: &str) -> Result<tonic::transport::Endpoint, BuildError> {
    let wrong = || {
        BuildError(format!(
            "{url:?} is not an orchestrator's address; write it like http://127.0.0.1:8000, or https:// for one that speaks TLS"
        ))
    };
    let host = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    host.filter(|host| !host.is_empty() && !host.starts_with('/')).ok_or_else(wrong)?;
    dial::endpoint(url).map_err(|_| wrong())
}

fn bearer(token: &str) -> Result<MetadataValue<Ascii>, BuildError> {
    if token.is_empty() {
        return Err(BuildError(
            "the worker has no token; give the one that the orchestrator knows for it".to_owned(),
        ));
    }
    let mut value = MetadataValue::try_from(format!("Bearer {token}")).map_err(|_| {
        BuildError("the worker's token has characters that no header can carry; use visible ASCII".to_owned())
    })?;
    value.set_sensitive(true);
    Ok(value)
}

fn check_name(what: &str, name: &str) -> Result<(), BuildError> {
    if !names::is_name(name) {
        let max = limits::NAME_BYTES_MAX;
        return Err(BuildError(format!(
            "{name:?} is no {what}: use 1 to {max} characters of [a-zA-Z0-9._:-]"
        )));
    }
    Ok(())
}

fn check_handlers(list: Vec<(String, Arc<dyn Handler>)>) -> Result<Handlers, BuildError> {
    if list.is_empty() {
        return Err(BuildError("the worker serves no task type; add at least one handler".to_owned()));
    }
    if list.len() > limits::WORKER_TASK_TYPES_MAX {
        let max = limits::WORKER_TASK_TYPES_MAX;
        return Err(BuildError(format!(
            "the worker serves {} task types and the limit is {max}",
            list.len()
        )));
    }
    let mut handlers = Handlers::new();
    for (task_type, handler) in list {
        check_name("task type", &task_type)?;
        if handlers.insert(task_type.clone(), handler).is_some() {
            return Err(BuildError(format!("the task type {task_type:?} has two handlers; keep one")));
        }
    }
    Ok(handlers)
}

fn check_texts(what: &str, texts: &HashMap<String, String>) -> Result<(), BuildError> {
    if texts.len() > limits::LABELS_MAX {
        let max = limits::LABELS_MAX;
        return Err(BuildError(format!("the worker has {} {what}s and the limit is {max}", texts.len())));
    }
    for (key, value) in texts {
        let (key_max, value_max) = (limits::LABEL_KEY_BYTES_MAX, limits::LABEL_VALUE_BYTES_MAX);
        if key.is_empty() || key.len() > key_max || value.len() > value_max {
            return Err(BuildError(format!(
                "the {what} {key:?} is not usable: a key has 1 to {key_max} bytes, a value at most {value_max}"
            )));
        }
    }
    Ok(())
}

fn check_resources(resources: &HashMap<String, f64>) -> Result<(), BuildError> {
    let max = limits::LABEL_KEY_BYTES_MAX;
    let usable = |(name, quantity): (&String, &f64)| (1..=max).contains(&name.len()) && quantity.is_finite();
    match resources.iter().find(|resource| !usable(*resource)) {
        Some((name, quantity)) => Err(BuildError(format!(
            "the resource {name:?} cannot be {quantity}: a name has 1 to {max} bytes, a quantity is a finite number"
        ))),
        None => Ok(()),
    }
}

/// The types that are served, on these terms.
fn terms(
    handlers: &Handlers,
    own_limits: &[(String, u32)],
    costs: &[(String, f64)],
) -> Result<Vec<SupportedTask>, BuildError> {
    let named = own_limits.iter().map(|(name, _)| name).chain(costs.iter().map(|(name, _)| name));
    if let Some(unknown) = named.into_iter().find(|name| !handlers.contains_key(*name)) {
        return Err(BuildError(format!("{unknown:?} has a limit or a cost and no handler; is it misspelt?")));
    }
    if let Some((name, _)) = own_limits.iter().find(|(_, limit)| *limit == 0) {
        return Err(BuildError(format!("the limit of {name:?} is 0; leave the handler out instead")));
    }
    if let Some((name, cost)) = costs.iter().find(|(_, cost)| !cost.is_finite() || *cost < 0.0) {
        return Err(BuildError(format!("{name:?} cannot cost {cost}; give a number that is not negative")));
    }
    let task = |name: &String| SupportedTask {
        r#type: name.clone(),
        max_concurrent_tasks: own_limits.iter().find(|(of, _)| of == name).map_or(0, |(_, limit)| *limit),
        cost: costs.iter().find(|(of, _)| of == name).map(|(_, cost)| *cost),
    };
    Ok(handlers.keys().map(task).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(url: &str) -> WorkerBuilder {
        Worker::builder(url).token("secret").handler("echo", crate::builtin::echo())
    }

    fn refusal(builder: WorkerBuilder) -> String {
        builder.build().err().expect("must be refused").to_string()
    }

    #[test]
    fn a_complete_worker_builds_without_a_name() {
        let built = worker("http://127.0.0.1:8000").worker_type("test-processor").build();
        assert!(built.is_ok());
    }

    #[test]
    fn every_mistake_is_named_with_its_cure() {
        let url = "http://127.0.0.1:8000";
        for (builder, expected) in [
            (worker("127.0.0.1:8000"), "write it like http://127.0.0.1:8000"),
            (worker("http://"), "write it like"),
            (worker("https://"), "write it like"),
            (worker(url).or_at("127.0.0.1:8001"), "\"127.0.0.1:8001\" is not an orchestrator's address"),
            ((0..16).fold(worker(url), |worker, _| worker.or_at(url)), "1 to 16 addresses, not 17"),
            (worker("https://host").tls_ca("/nowhere/ca.pem"), "/nowhere/ca.pem cannot be read"),
            (worker(url).tls_ca("/nowhere/ca.pem"), "write https://"),
            (worker(url).token(""), "no token"),
            (worker(url).token("a\nb"), "visible ASCII"),
            (worker(url).worker_id("two words"), "[a-zA-Z0-9._:-]"),
            (worker(url).slots(0), "1 to 10000 slots"),
            (worker(url).slots(10_001), "1 to 10000 slots"),
            (Worker::builder(url).token("t"), "at least one handler"),
            (worker(url).handler("echo", crate::builtin::echo()), "two handlers"),
            (worker(url).handler("", crate::builtin::echo()), "task type"),
            (worker(url).label("", "x"), "a key has 1 to"),
        ] {
            let text = refusal(builder);
            assert!(text.contains(expected), "{text:?} lacks {expected:?}");
        }
    }

    #[test]
    fn no_error_repeats_the_token() {
        assert!(!refusal(worker("http://127.0.0.1:8000").token("sec\u{7}ret")).contains("ret\""));
    }
}
