//! Which endpoint a request means: a total function of method, path and the blueprints that are served.
//!
//! The table is written out here instead of being registered with a router, because blueprints bring endpoints of their
//! own, among the fixed ones (`/api/jobs/test` beside `/api/jobs/{id}`), and because the answer to what is not served must say
//! what is.

use std::sync::Arc;

use avtomatika_proto::{ApiError, ErrorCode, JobId};
use http::Method;

use crate::{
    blueprint::{Blueprint, Registry},
    trust::Role,
};

/// An endpoint, with what its path says.
#[derive(Debug, Clone)]
pub(super) enum Route<'p> {
    /// Create a job of this blueprint.
    Submit {
        blueprint: Arc<Blueprint>,
        body: BodyForm,
    },
    /// Create a job of the blueprint that the body names.
    SubmitByName,
    ListJobs,
    Job(&'p str),
    JobHistory(&'p str),
    JobEvents(&'p str),
    ExplainJob(&'p str),
    JobWebhooks(&'p str),
    /// Send a message to the job's webhook again; without a name, those that failed.
    Redeliver {
        id: &'p str,
        webhook_id: Option<&'p str>,
    },
    JobGraph(&'p str),
    CancelJob(&'p str),
    SignalJob(&'p str),
    /// Decide what the job asks a human: as the body says, or with this decision unless it says another.
    Decide(&'p str, Option<&'static str>),
    RetryJob(&'p str),
    SkipJob(&'p str),
    RepairJobs,
    Workers,
    RestoreWorker(&'p str),
    DrainWorker(&'p str),
    Schedules,
    Blueprints,
    BlueprintByName(&'p str),
    BlueprintGraph(&'p str),
    MigrateBlueprint(&'p str),
    PutBlueprint(&'p str),
    Dashboard,
    Reload,
}

impl Route<'_> {
    /// What it asks of its caller: the same as the gRPC call that means it.
    pub(super) fn role(&self) -> Role {
        match self {
            Self::Submit { .. }
            | Self::SubmitByName
            | Self::ListJobs
            | Self::Job(_)
            | Self::JobHistory(_)
            | Self::JobEvents(_)
            | Self::ExplainJob(_)
            | Self::JobWebhooks(_)
            | Self::JobGraph(_)
            | Self::CancelJob(_)
            | Self::SignalJob(_)
            | Self::Decide(..)
            | Self::RetryJob(_)
            | Self::SkipJob(_)
            | Self::Schedules
            | Self::Blueprints
            | Self::BlueprintByName(_)
            | Self::BlueprintGraph(_) => Role::Client,
            Self::Redeliver { .. }
            | Self::RepairJobs
            | Self::Workers
            | Self::RestoreWorker(_)
            | Self::DrainWorker(_)
            | Self::MigrateBlueprint(_)
            | Self::Dashboard
            | Self::PutBlueprint(_)
            | Self::Reload => Role::Operator,
        }
    }
}

/// What the body of a submission is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyForm {
    /// `initial_data` itself: the unversioned API.
    Raw,
    /// An object with `initial_data` in it: version 1.
    Wrapped,
}

/// An endpoint that asks for no client's token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PublicRoute<'p> {
    /// Decide what a job asks a human, with the approval's own token.
    Approval(&'p str),
    Probe(Probe),
}

/// What can be asked of the process itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Probe {
    Status,
    Metrics,
    Live,
    Ready,
}

/// Why there is no endpoint.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NoRoute {
    /// Nothing is served at this path.
    UnknownPath,
    /// Something is, with other methods: the value of `Allow`.
    WrongMethod(&'static str),
}

const READ: &str = "GET, HEAD";
const CREATE: &str = "POST";
const BOTH: &str = "GET, HEAD, POST";
const READ_AND_REPLACE: &str = "GET, HEAD, PUT";

/// What stands before the job's id where it is decided with a token.
const APPROVALS: &str = "/_public/webhooks/approval/";

/// Where whoever has the token of a job's approval decides.
pub(in crate::api) fn approval_path(job_id: JobId) -> String {
    format!("{APPROVALS}{job_id}")
}

/// Whether the path belongs to clients, served or not: everything there asks for a token first.
pub(super) fn is_client_path(path: &str) -> bool {
    path.starts_with("/api")
}

/// The endpoint that asks for no client's token.
pub(super) fn public<'p>(method: &Method, path: &'p str) -> Result<PublicRoute<'p>, NoRoute> {
    if let Some(id) = path.strip_prefix(APPROVALS).filter(|id| !id.contains('/')) {
        return match *method {
            Method::POST => Ok(PublicRoute::Approval(id)),
            _ => Err(NoRoute::WrongMethod(CREATE)),
        };
    }
    let probe = match path {
        "/_public/status" => Probe::Status,
        "/_public/metrics" => Probe::Metrics,
        "/healthz" => Probe::Live,
        "/readyz" => Probe::Ready,
        _ => return Err(NoRoute::UnknownPath),
    };
    match is_read(method) {
        true => Ok(PublicRoute::Probe(probe)),
        false => Err(NoRoute::WrongMethod(READ)),
    }
}

/// The endpoint for a client's request.
pub(super) fn client<'p>(
    method: &Method,
    path: &'p str,
    blueprints: &Registry,
) -> Result<Route<'p>, NoRoute> {
    let (form, path) = strip_version(path).ok_or(NoRoute::UnknownPath)?;
    let read = reads(path);
    let create = creates(path, form, blueprints);
    let replace = replaces(path);
    let allow = match (&read, &create) {
        _ if replace.is_some() => READ_AND_REPLACE,
        (Some(_), Some(_)) => BOTH,
        (Some(_), None) => READ,
        (None, Some(_)) => CREATE,
        (None, None) => return Err(NoRoute::UnknownPath),
    };
    let chosen = match *method {
        _ if is_read(method) => read,
        Method::POST => create,
        Method::PUT => replace,
        _ => None,
    };
    match chosen {
        Some(route) => Ok(route),
        // The path looks like a job's, but who posts there means a blueprint's endpoint.
        None if *method == Method::POST && matches!(reads(path), Some(Route::Job(_))) => {
            Err(NoRoute::UnknownPath)
        }
        None => Err(NoRoute::WrongMethod(allow)),
    }
}

/// The path below `/api` or `/api/v1`, and what that says of bodies.
fn strip_version(path: &str) -> Option<(BodyForm, &str)> {
    let path = path.strip_prefix("/api")?;
    let (form, path) = match path.strip_prefix("/v1") {
        Some(rest) if rest.starts_with('/') => (BodyForm::Wrapped, rest),
        _ => (BodyForm::Raw, path),
    };
    path.starts_with('/').then_some((form, path))
}

fn reads(path: &str) -> Option<Route<'_>> {
    let mut segments = path.split('/').skip(1);
    let route = match (segments.next()?, segments.next(), segments.next()) {
        ("jobs", None, None) => Route::ListJobs,
        ("jobs", Some(id), None) => Route::Job(id),
        ("jobs", Some(id), Some("history")) => Route::JobHistory(id),
        ("jobs", Some(id), Some("events")) => Route::JobEvents(id),
        ("jobs", Some(id), Some("explain")) => Route::ExplainJob(id),
        ("jobs", Some(id), Some("webhooks")) => Route::JobWebhooks(id),
        ("jobs", Some(id), Some("graph")) => Route::JobGraph(id),
        ("workers", None, None) => Route::Workers,
        ("schedules", None, None) => Route::Schedules,
        ("blueprints", None, None) => Route::Blueprints,
        ("blueprints", Some(name), None) => Route::BlueprintByName(name),
        ("blueprints", Some(name), Some("graph")) => Route::BlueprintGraph(name),
        ("dashboard", None, None) => Route::Dashboard,
        _ => return None,
    };
    segments.next().is_none().then_some(route)
}

fn creates<'p>(path: &'p str, form: BodyForm, blueprints: &Registry) -> Option<Route<'p>> {
    let mut segments = path.split('/').skip(1);
    match (segments.next()?, segments.next(), segments.next(), segments.next()) {
        ("jobs", None, None, None) => return Some(Route::SubmitByName),
        ("blueprints", Some(name), Some("migrate"), None) => return Some(Route::MigrateBlueprint(name)),
        ("workers", Some(id), Some("restore"), None) => return Some(Route::RestoreWorker(id)),
        ("workers", Some(id), Some("drain"), None) => return Some(Route::DrainWorker(id)),
        ("reload", None, None, None) => return Some(Route::Reload),
        ("jobs", Some("repair"), None, None) => return Some(Route::RepairJobs),
        ("jobs", Some(id), Some("cancel"), None) => return Some(Route::CancelJob(id)),
        ("jobs", Some(id), Some("signal"), None) => return Some(Route::SignalJob(id)),
        ("jobs", Some(id), Some("decide"), None) => return Some(Route::Decide(id, None)),
        ("jobs", Some(id), Some("approve"), None) => return Some(Route::Decide(id, Some("approved"))),
        ("jobs", Some(id), Some("reject"), None) => return Some(Route::Decide(id, Some("rejected"))),
        ("jobs", Some(id), Some("retry"), None) => return Some(Route::RetryJob(id)),
        ("jobs", Some(id), Some("skip"), None) => return Some(Route::SkipJob(id)),
        _ => {}
    }
    if let Some(route) = redelivers(path) {
        return Some(route);
    }
    let blueprint = blueprints.at_endpoint(path)?.clone();
    Some(Route::Submit { blueprint, body: form })
}

/// What is put at its own path, where it can be read as well.
fn replaces(path: &str) -> Option<Route<'_>> {
    match reads(path)? {
        Route::BlueprintByName(name) => Some(Route::PutBlueprint(name)),
        _ => None,
    }
}

fn redelivers(path: &str) -> Option<Route<'_>> {
    let (id, rest) = path.strip_prefix("/jobs/")?.split_once("/webhooks/")?;
    let webhook_id = match rest.strip_suffix("/redeliver") {
        Some(webhook_id) => Some(webhook_id),
        None if rest == "redeliver" => None,
        None => return None,
    };
    let is_one_segment = |text: &str| !text.contains('/');
    (is_one_segment(id) && webhook_id.is_none_or(is_one_segment))
        .then_some(Route::Redeliver { id, webhook_id })
}

fn is_read(method: &Method) -> bool {
    method == Method::GET || method == Method::HEAD
}

/// Blueprints' endpoints that an error lists at most.
const LISTED_ENDPOINTS_MAX: usize = 20;

/// Whether the path is that of a gRPC method, which is served to calls of gRPC only.
pub(super) fn is_grpc_method(path: &str) -> bool {
    path.starts_with("/avtomatika.v1.") || path.starts_with("/grpc.")
}

/// The answer to a call of a gRPC method that does not come as one.
pub(super) fn no_grpc() -> ApiError {
    let text = "This path is a method of gRPC, and the content-type is not application/grpc";
    ApiError::new(ErrorCode::UnsupportedMediaType, text)
        .with_hint("Call it with gRPC; /api is for everything else.")
}

/// The answer to a path at which nothing is served. `blueprints` is what the caller may know of.
pub(super) fn unknown_path(blueprints: Option<&Registry>) -> ApiError {
    let error = ApiError::new(ErrorCode::EndpointNotFound, "Nothing is served at this path");
    let Some(blueprints) = blueprints else {
        return error.with_hint("Served without a token: GET /_public/status, GET /_public/metrics, GET /healthz, GET /readyz; with the token of an approval: POST /_public/webhooks/approval/{job_id}; with a client's: /api and below.");
    };
    let mut served: Vec<String> = Vec::new();
    let endpoints = blueprints.served().filter_map(|blueprint| blueprint.endpoint.as_deref());
    served.extend(endpoints.take(LISTED_ENDPOINTS_MAX).map(|endpoint| format!("POST /api{endpoint}")));
    served.push(FIXED.to_owned());
    error.with_hint(format!("Served: {}.", served.join(", ")))
}

const FIXED: &str = "POST /api/v1/jobs, GET /api/jobs, GET /api/jobs/{id}, GET /api/jobs/{id}/history, \
    GET /api/jobs/{id}/explain, GET /api/jobs/{id}/graph, GET /api/jobs/{id}/events, \
    POST /api/jobs/{id}/cancel (or signal, decide, approve, reject, retry, skip), POST /api/jobs/repair, \
    GET /api/jobs/{id}/webhooks, POST /api/jobs/{id}/webhooks/redeliver, \
    POST /api/jobs/{id}/webhooks/{webhook_id}/redeliver, \
    GET /api/workers, POST /api/workers/{id}/restore (or drain), GET /api/schedules, \
    GET /api/blueprints, GET or PUT /api/blueprints/{name}, GET /api/blueprints/{name}/graph, POST /api/blueprints/{name}/migrate, \
    GET /api/dashboard, POST /api/reload; each also below /api/v1";

/// The answer to a method that a path does not have.
pub(super) fn wrong_method(allow: &str) -> ApiError {
    ApiError::new(ErrorCode::MethodNotAllowed, "This path is not served with this method")
        .with_hint(format!("Served here: {allow}."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blueprint::load;

    fn registry() -> Registry {
        let mut registry = Registry::default();
        let blueprint = Blueprint {
            input_schema: None,
            keys: Vec::new(),
            name: Arc::from("test_workflow"),
            version: 1,
            is_put: false,
            endpoint: Some(Arc::from("/jobs/test")),
            start: Arc::from("init"),
            max_transitions: 1,
            states: Default::default(),
            definition: Arc::from("{}"),
        };
        registry.add(Arc::new(blueprint), true);
        registry
    }

    fn name(method: &str, path: &str) -> String {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        match client(&method, path, &registry()) {
            Ok(Route::Submit { blueprint, body }) => format!("submit {} {body:?}", blueprint.name),
            Ok(route) => format!("{route:?}"),
            Err(NoRoute::UnknownPath) => "404".to_owned(),
            Err(NoRoute::WrongMethod(allow)) => format!("405 {allow}"),
        }
    }

    #[test]
    fn every_path_means_one_thing() {
        for (method, path, meant) in [
            ("POST", "/api/jobs/test", "submit test_workflow Raw"),
            ("POST", "/api/v1/jobs/test", "submit test_workflow Wrapped"),
            ("POST", "/api/jobs", "SubmitByName"),
            ("POST", "/api/v1/jobs", "SubmitByName"),
            ("GET", "/api/jobs", "ListJobs"),
            ("HEAD", "/api/v1/jobs", "ListJobs"),
            ("GET", "/api/jobs/test", "Job(\"test\")"),
            ("GET", "/api/jobs/", "Job(\"\")"),
            ("GET", "/api/v1/jobs/x/history", "JobHistory(\"x\")"),
            ("GET", "/api/jobs/x/events", "JobEvents(\"x\")"),
            ("GET", "/api/v1/jobs/x/explain", "ExplainJob(\"x\")"),
            ("GET", "/api/jobs/x/webhooks", "JobWebhooks(\"x\")"),
            ("POST", "/api/jobs/x/webhooks/redeliver", "Redeliver { id: \"x\", webhook_id: None }"),
            ("POST", "/api/jobs/x/webhooks/m/redeliver", "Redeliver { id: \"x\", webhook_id: Some(\"m\") }"),
            ("GET", "/api/jobs/x/webhooks/m/redeliver", "405 POST"),
            ("POST", "/api/jobs/x/webhooks", "405 GET, HEAD"),
            ("POST", "/api/jobs/x/webhooks/m/n/redeliver", "404"),
            ("GET", "/api/jobs/x/graph", "JobGraph(\"x\")"),
            ("POST", "/api/jobs/x/cancel", "CancelJob(\"x\")"),
            ("POST", "/api/v1/jobs/x/signal", "SignalJob(\"x\")"),
            ("POST", "/api/jobs/x/decide", "Decide(\"x\", None)"),
            ("POST", "/api/jobs/x/approve", "Decide(\"x\", Some(\"approved\"))"),
            ("POST", "/api/jobs/x/reject", "Decide(\"x\", Some(\"rejected\"))"),
            ("POST", "/api/jobs/x/retry", "RetryJob(\"x\")"),
            ("POST", "/api/jobs/x/skip", "SkipJob(\"x\")"),
            ("POST", "/api/v1/jobs/repair", "RepairJobs"),
            ("GET", "/api/jobs/repair", "Job(\"repair\")"),
            ("GET", "/api/jobs/x/retry", "405 POST"),
            ("GET", "/api/workers", "Workers"),
            ("POST", "/api/workers/w/restore", "RestoreWorker(\"w\")"),
            ("POST", "/api/v1/workers/w/drain", "DrainWorker(\"w\")"),
            ("GET", "/api/workers/w/drain", "405 POST"),
            ("GET", "/api/schedules", "Schedules"),
            ("POST", "/api/v1/schedules", "405 GET, HEAD"),
            ("GET", "/api/blueprints", "Blueprints"),
            ("GET", "/api/blueprints/b", "BlueprintByName(\"b\")"),
            ("PUT", "/api/v1/blueprints/b", "PutBlueprint(\"b\")"),
            ("POST", "/api/blueprints/b", "405 GET, HEAD, PUT"),
            ("PUT", "/api/blueprints", "405 GET, HEAD"),
            ("GET", "/api/blueprints/b/graph", "BlueprintGraph(\"b\")"),
            ("GET", "/api/v1/dashboard", "Dashboard"),
            ("POST", "/api/blueprints/b/migrate", "MigrateBlueprint(\"b\")"),
            ("GET", "/api/blueprints/b/migrate", "405 POST"),
            ("POST", "/api/reload", "Reload"),
            ("GET", "/api/v1/reload", "405 POST"),
            ("POST", "/api/jobs/xyz", "404"),
            ("POST", "/api/jobs/31c0f6fe-650e-4c67-9a15-641ec32266b7", "404"),
            ("DELETE", "/api/jobs/test", "405 GET, HEAD, POST"),
            ("DELETE", "/api/jobs/xyz", "405 GET, HEAD"),
            ("PUT", "/api/jobs", "405 GET, HEAD, POST"),
            ("POST", "/api/workers", "405 GET, HEAD"),
            ("GET", "/api/jobs/x/cancel", "405 POST"),
            ("OPTIONS", "/api/dashboard", "405 GET, HEAD"),
            ("GET", "/api/jobs/x/history/y", "404"),
            ("GET", "/api", "404"),
            ("GET", "/api/", "404"),
            ("GET", "/api/v1", "404"),
            ("GET", "/api/v2/jobs", "404"),
            ("GET", "/apix/jobs", "404"),
            ("POST", "/api/nothing", "404"),
        ] {
            assert_eq!(name(method, path), meant, "{method} {path}");
        }
    }

    /// Whatever the loader lets pass is reached: nothing of the API itself stands before it.
    #[test]
    fn a_blueprint_is_reached_at_every_endpoint_that_it_may_have() {
        let first = ["jobs", "workers", "schedules", "blueprints", "dashboard", "reload", "v1", "orders"];
        let second = ["", "/x", "/repair", "/webhooks", "/drain"];
        let verbs = [
            "cancel",
            "signal",
            "decide",
            "approve",
            "reject",
            "retry",
            "skip",
            "restore",
            "drain",
            "migrate",
            "history",
            "events",
            "explain",
            "graph",
            "webhooks",
            "redeliver",
            "repair",
            "reload",
        ];
        let third = verbs.map(|verb| format!("/{verb}"));
        let fourth = ["", "/redeliver", "/x", "/x/redeliver", "/x/y", "/x/y/redeliver"];
        let mut accepted = 0;
        for path in first.iter().flat_map(|first| second.map(|second| format!("/{first}{second}"))) {
            let deeper = third.iter().flat_map(|third| fourth.map(|fourth| format!("{path}{third}{fourth}")));
            for endpoint in std::iter::once(path.clone()).chain(deeper) {
                let text = format!(
                    "blueprint: b\nendpoint: {endpoint}\nstates:\n  s: {{ start: true, end: finished }}\n"
                );
                let Ok(loaded) = load("b.yaml", &text) else { continue };
                accepted += 1;
                let mut registry = Registry::default();
                registry.add(Arc::new(loaded.definition.into_blueprint(1)), true);
                let path = format!("/api{endpoint}");
                let meant = client(&Method::POST, &path, &registry);
                assert!(matches!(meant, Ok(Route::Submit { .. })), "{endpoint}: {meant:?}");
            }
        }
        assert!(accepted > 1000, "{accepted}");
    }

    #[test]
    fn the_answer_to_what_is_not_served_says_what_is() {
        let error = unknown_path(Some(&registry()));
        assert!(
            error.hint.starts_with("Served: POST /api/jobs/test, POST /api/v1/jobs, GET"),
            "{}",
            error.hint
        );
        assert!(!unknown_path(None).hint.contains("/api/jobs/test"), "blueprints are for clients");
    }
}
