//! `AdminService`: what the orchestrator runs and knows.

use std::sync::Arc;

use avtomatika_proto::{ApiError, ErrorCode, v1, v1::admin_service_server::AdminService};
use tonic::{Request, Response, Status};

use super::gate::ClientName;
use crate::{
    api::{Inside, convert, graph, submission::quote},
    graph::Format,
};

/// Answers operators. The gate has asked for their token.
pub(super) struct Admin {
    inside: Arc<Inside>,
}

impl Admin {
    pub(super) fn new(inside: Arc<Inside>) -> Self {
        Self { inside }
    }
}

#[tonic::async_trait]
impl AdminService for Admin {
    async fn list_workers(
        &self,
        _: Request<v1::ListWorkersRequest>,
    ) -> Result<Response<v1::ListWorkersResponse>, Status> {
        let workers = self.inside.conductor.workers().await?;
        Ok(Response::new(v1::ListWorkersResponse { workers: workers.iter().map(convert::worker).collect() }))
    }

    async fn restore_worker(
        &self,
        request: Request<v1::RestoreWorkerRequest>,
    ) -> Result<Response<v1::RestoreWorkerResponse>, Status> {
        let worker = self.inside.conductor.restore_worker(&request.into_inner().worker_id).await?;
        Ok(Response::new(v1::RestoreWorkerResponse { worker: Some(convert::worker(&worker)) }))
    }

    async fn drain_worker(
        &self,
        request: Request<v1::DrainWorkerRequest>,
    ) -> Result<Response<v1::DrainWorkerResponse>, Status> {
        let worker = self.inside.conductor.drain_worker(&request.into_inner().worker_id).await?;
        Ok(Response::new(v1::DrainWorkerResponse { worker: Some(convert::worker(&worker)) }))
    }

    async fn list_blueprints(
        &self,
        _: Request<v1::ListBlueprintsRequest>,
    ) -> Result<Response<v1::ListBlueprintsResponse>, Status> {
        let blueprints = self.inside.conductor.blueprints();
        let blueprints = blueprints.served().map(|blueprint| convert::blueprint(blueprint)).collect();
        Ok(Response::new(v1::ListBlueprintsResponse { blueprints }))
    }

    async fn get_blueprint(
        &self,
        request: Request<v1::GetBlueprintRequest>,
    ) -> Result<Response<v1::GetBlueprintResponse>, Status> {
        let v1::GetBlueprintRequest { name, version, graph_format } = request.into_inner();
        let blueprints = self.inside.conductor.blueprints();
        let found = match version {
            0 => blueprints.newest(&name),
            version => blueprints.version(&name, version),
        };
        let blueprint = found.ok_or_else(|| {
            let message = match version {
                0 => format!("Blueprint not found: {}", quote(&name)),
                version => format!("Blueprint not found: {} in version {version}", quote(&name)),
            };
            ApiError::new(ErrorCode::BlueprintNotFound, message)
        })?;
        Ok(Response::new(v1::GetBlueprintResponse {
            blueprint: Some(convert::blueprint(blueprint)),
            definition: blueprint.definition.to_string(),
            graph_dot: graph::of_blueprint(blueprint, Format::Dot).await?,
            graph: match convert::graph_format(graph_format)? {
                Some(format) => graph::of_blueprint(blueprint, format).await?,
                None => String::new(),
            },
        }))
    }

    async fn list_schedules(
        &self,
        request: Request<v1::ListSchedulesRequest>,
    ) -> Result<Response<v1::ListSchedulesResponse>, Status> {
        let client = ClientName::of(&request)?;
        let views = self.inside.schedules.list_of(&client, self.inside.conductor.wall_time());
        Ok(Response::new(v1::ListSchedulesResponse {
            schedules: views.iter().map(convert::schedule).collect(),
        }))
    }

    async fn get_stats(
        &self,
        _: Request<v1::GetStatsRequest>,
    ) -> Result<Response<v1::GetStatsResponse>, Status> {
        let stats = self.inside.conductor.stats().await?;
        Ok(Response::new(convert::stats(&stats, self.inside.conductor.store_name())))
    }

    async fn reload_config(
        &self,
        request: Request<v1::ReloadConfigRequest>,
    ) -> Result<Response<v1::ReloadConfigResponse>, Status> {
        let dry_run = request.into_inner().dry_run;
        Ok(Response::new(convert::reloaded(self.inside.reload.reload(dry_run).await?, dry_run)))
    }

    async fn put_blueprint(
        &self,
        request: Request<v1::PutBlueprintRequest>,
    ) -> Result<Response<v1::PutBlueprintResponse>, Status> {
        let request = request.into_inner();
        let dry_run = request.dry_run;
        let outcome = self.inside.reload.put(convert::put(request)).await?;
        Ok(Response::new(convert::put_outcome(&outcome, dry_run)))
    }
}
