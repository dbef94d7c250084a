//! The way in: one port for HTTP/1.1, HTTP/2 and gRPC.
//!
//! The layer is thin. It knows who is calling ([`auth`]), whether the request is one ([`submission`]), and how to say it on the
//! wire (`convert`, `reply`); then it calls the one verb of the [`Conductor`] that the request means. It refuses to know
//! what a job does, and keeps nothing between two requests.

use std::sync::Arc;

use crate::{audit::Audit, conductor::Conductor, metrics::Metrics, reload::Reload, schedule::Schedules};

pub mod action;
pub mod auth;
mod callers;
mod convert;
mod explain;
mod graph;
mod intake;
pub mod limits;
mod notice;
mod readiness;
mod reply;
mod server;
mod shown;
mod strangers;
pub mod submission;
mod trace;

/// The gRPC services.
pub mod grpc {
    mod actions;
    mod admin;
    mod gate;
    mod health;
    mod jobs;
    mod routes;

    pub use gate::ClientName;
    pub use routes::routes;

    pub(super) use gate::{Gate, is_stream_of_answers, is_stream_of_requests};
}

/// The REST endpoints.
pub mod rest {
    mod actions;
    mod answer;
    mod body;
    mod document;
    mod events;
    mod explanation;
    mod jobs;
    mod migrate;
    mod operate;
    mod put;
    mod query;
    mod reload;
    mod route;
    mod schedules;
    mod scrape;
    mod submit;
    mod webhooks;

    pub(super) use answer::answer;
    pub(super) use document::JobDocument;
    pub(super) use route::approval_path;
}

pub use auth::{Auth, Secret, WorkerCredential};
pub use intake::Intake;
pub use notice::compose;
pub use readiness::{Phase, Readiness};
pub use server::{Api, serve};
pub use trace::Tracing;

/// What the requests need of the rest of the process. They share one.
#[derive(Clone)]
pub struct Inside {
    /// The verbs.
    pub conductor: Conductor,
    /// Who may call.
    pub auth: Arc<Auth>,
    /// When to make which jobs by itself.
    pub schedules: Schedules,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Whether to send work here.
    pub readiness: Readiness,
    /// How the blueprints are read again.
    pub reload: Reload,
    /// Whether, and where to, spans are told.
    pub tracing: Tracing,
    /// Where operators' calls and security events are written down.
    pub audit: Audit,
    /// How much of what is sent may be in memory.
    pub intake: Intake,
}
