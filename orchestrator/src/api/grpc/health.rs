//! The standard health service, straight from the process's [`Readiness`]: there is no second opinion to keep in step.

use std::pin::Pin;

use futures_util::{Stream, StreamExt, stream};
use tonic::{Request, Response, Status};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus, health_server,
};

use crate::api::{Phase, Readiness};

/// The names that can be asked for: the process as a whole, and its services.
const SERVICES: [&str; 4] =
    ["", "avtomatika.v1.JobService", "avtomatika.v1.AdminService", "avtomatika.v1.WorkerService"];

/// Answers with the phase of the process.
pub(super) struct Health {
    readiness: Readiness,
}

impl Health {
    pub(super) fn new(readiness: Readiness) -> Self {
        Self { readiness }
    }
}

fn answer(phase: Phase) -> HealthCheckResponse {
    let status = match phase {
        Phase::Ready => ServingStatus::Serving,
        Phase::Starting | Phase::DiskFull | Phase::Draining => ServingStatus::NotServing,
    };
    HealthCheckResponse { status: status.into() }
}

#[tonic::async_trait]
impl health_server::Health for Health {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        match SERVICES.contains(&request.get_ref().service.as_str()) {
            true => Ok(Response::new(answer(self.readiness.phase()))),
            false => Err(Status::not_found("no such service; ask with an empty name for the whole")),
        }
    }

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        if !SERVICES.contains(&request.get_ref().service.as_str()) {
            // The protocol of this service wants an answer here, not an error.
            let unknown = HealthCheckResponse { status: ServingStatus::ServiceUnknown.into() };
            return Ok(Response::new(stream::iter([Ok(unknown)]).boxed()));
        }
        let mut phases = self.readiness.follow();
        phases.mark_changed();
        // The news that the process stops is the last, so that this stream does not hold the stop up.
        let updates = stream::unfold(Some(phases), async |phases| {
            let mut phases = phases?;
            phases.changed().await.ok()?;
            let phase = *phases.borrow_and_update();
            Some((Ok(answer(phase)), (phase != Phase::Draining).then_some(phases)))
        });
        Ok(Response::new(updates.boxed()))
    }
}
