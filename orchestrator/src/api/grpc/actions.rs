//! What a client does to its jobs over gRPC: signals, decisions, repair.

use avtomatika_proto::v1;
use tonic::{Request, Status};

use super::gate::ClientName;
use crate::{
    api::{Inside, convert, shown::Shown},
    conductor::JobView,
};

fn shown(view: &JobView) -> Option<v1::Job> {
    Some(convert::job(view, Shown::Alone))
}

pub(super) async fn signal(
    inside: &Inside,
    request: Request<v1::SignalJobRequest>,
) -> Result<v1::SignalJobResponse, Status> {
    let client = ClientName::of(&request)?;
    let request = request.into_inner();
    let id = convert::job_id(&request.job_id)?;
    let admission = inside.conductor.admit(request.data.len()).await;
    let done = inside.conductor.signal(&client, id, convert::signal(&request)?, admission).await?;
    Ok(v1::SignalJobResponse { job: shown(&done.view), deduplicated: done.repeated })
}

pub(super) async fn decide(
    inside: &Inside,
    request: Request<v1::DecideApprovalRequest>,
) -> Result<v1::DecideApprovalResponse, Status> {
    let client = ClientName::of(&request)?;
    let request = request.into_inner();
    let id = convert::job_id(&request.job_id)?;
    let admission = inside.conductor.admit(request.data.len()).await;
    let ruling = convert::deciding(&request, &client)?;
    let view = inside.conductor.approve(&client, id, ruling, admission).await?;
    Ok(v1::DecideApprovalResponse { job: shown(&view) })
}

pub(super) async fn retry(
    inside: &Inside,
    request: Request<v1::RetryJobRequest>,
) -> Result<v1::RetryJobResponse, Status> {
    let client = ClientName::of(&request)?;
    let v1::RetryJobRequest { job_id, action, idempotency_key } = request.into_inner();
    let id = convert::job_id(&job_id)?;
    let bytes = action.as_ref().map_or(0, retry_bytes);
    let admission = inside.conductor.admit(bytes).await;
    let retry = convert::retry(action, &idempotency_key, &client)?;
    let done = inside.conductor.retry(&client, id, retry, admission).await?;
    Ok(v1::RetryJobResponse { job: shown(&done.view), deduplicated: done.repeated })
}

pub(super) async fn skip(
    inside: &Inside,
    request: Request<v1::SkipJobRequest>,
) -> Result<v1::SkipJobResponse, Status> {
    let client = ClientName::of(&request)?;
    let v1::SkipJobRequest { job_id, action, idempotency_key } = request.into_inner();
    let id = convert::job_id(&job_id)?;
    let admission = inside.conductor.admit(action.as_ref().map_or(0, |action| action.data.len())).await;
    let skip = convert::skip(action, &idempotency_key, &client)?;
    let done = inside.conductor.skip(&client, id, skip, admission).await?;
    Ok(v1::SkipJobResponse { job: shown(&done.view), deduplicated: done.repeated })
}

pub(super) async fn repair(
    inside: &Inside,
    request: Request<v1::RepairJobsRequest>,
) -> Result<v1::RepairJobsResponse, Status> {
    let client = ClientName::of(&request)?;
    let request = request.into_inner();
    let query = convert::repair_query(&request, client.clone())?;
    let repair = convert::repair(request.action, &client)?;
    Ok(convert::repaired(inside.conductor.repair(query, repair).await?))
}

fn retry_bytes(action: &v1::RetryAction) -> usize {
    action.initial_data.len() + action.initial_data_patch.len() + action.state_history_patch.len()
}
