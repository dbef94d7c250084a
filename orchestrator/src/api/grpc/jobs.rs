//! `JobService`: a client's jobs.

use std::{pin::Pin, sync::Arc};

use avtomatika_proto::{
    ApiError, ErrorCode, v1,
    v1::{job_service_server::JobService, submit_jobs_response},
};
use futures_util::{FutureExt, Stream, StreamExt, stream};
use tokio::sync::oneshot;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Request, Response, Status, Streaming};

use super::{
    actions,
    gate::{ClientName, caller_of},
};
use crate::{
    api::{
        Inside,
        callers::{Call, CameFrom},
        convert, graph,
        intake::Turn,
        limits::TINY_BODY_BYTES,
        shown::Shown,
        submission,
        trace::{Submitting, trace_headers},
    },
    conductor::{Conductor, Watch},
    graph::Format,
};

/// Requests of one bulk stream that are under way at once: enough to fill the batches of the group commit, few enough that one
/// client does not take the whole mailbox.
const BULK_IN_FLIGHT_MAX: usize = 256;

/// What is called with many submissions.
const SUBMIT_JOBS: &str = "/avtomatika.v1.JobService/SubmitJobs";

/// Answers clients. The gate has put their names into the requests.
pub(super) struct Jobs {
    inside: Arc<Inside>,
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Jobs {
    pub(super) fn new(inside: Arc<Inside>) -> Self {
        Self { inside }
    }
}

async fn submit(
    conductor: &Conductor,
    client: &Arc<str>,
    request: v1::SubmitJobRequest,
    submitting: Submitting,
    turn: &Turn,
) -> Result<v1::SubmitJobResponse, ApiError> {
    let admission = conductor.admit(request.initial_data.len()).await;
    // Whoever waits for the job's end holds nobody up.
    turn.let_go();
    let mut request = convert::submit_request(request)?;
    request.submission.trace = submitting.context.clone();
    let name = request.blueprint.clone();
    let submitted = conductor.submit_admitted(client, request, admission).await;
    submitting.end(&name, &submitted);
    submitted.map(convert::submitted)
}

/// Goes on whether or not somebody asks for its answer, and ends when nobody will.
fn by_itself<T: Send + 'static>(
    call: impl Future<Output = Result<T, Status>> + Send + 'static,
) -> impl Future<Output = Result<T, Status>> {
    let going = AbortOnDropHandle::new(tokio::spawn(call));
    async move { going.await.unwrap_or_else(|_| Err(Status::internal("a submission did not come to its end"))) }
}

#[tonic::async_trait]
impl JobService for Jobs {
    type SubmitJobsStream = Answers<v1::SubmitJobsResponse>;
    type WatchJobStream = Answers<v1::WatchJobResponse>;

    async fn submit_job(
        &self,
        request: Request<v1::SubmitJobRequest>,
    ) -> Result<Response<v1::SubmitJobResponse>, Status> {
        let caller = caller_of(&request)?;
        self.inside.auth.check_client(&caller)?;
        let submitting = self.inside.tracing.begin(request.metadata().as_ref());
        let turn = Turn::of(request.extensions());
        let submitted =
            submit(&self.inside.conductor, &caller.client, request.into_inner(), submitting, &turn).await;
        Ok(Response::new(submitted?))
    }

    async fn submit_jobs(
        &self,
        request: Request<Streaming<v1::SubmitJobRequest>>,
    ) -> Result<Response<Self::SubmitJobsStream>, Status> {
        let caller = caller_of(&request)?;
        let (inside, head) = (self.inside.clone(), trace_headers(request.metadata()));
        let turn = Turn::of(request.extensions());
        let from = request.extensions().get().map(|&CameFrom(from)| from);
        type Read = Result<v1::SubmitJobRequest, Status>;
        let answer = move |index: usize, request: Read, has_turn: Option<oneshot::Sender<()>>| {
            let (caller, inside, turn) = (caller.clone(), inside.clone(), turn.another());
            // The stream's head speaks for each of its requests.
            let submitting = inside.tracing.begin(&head);
            async move {
                use submit_jobs_response::Result::{Error, Ok as Done};
                // A request that cannot be read ends the stream: what follows it cannot be read either.
                let request = request?;
                let taken = turn.take_of_stream(request.initial_data.len()).await;
                if let Some(has_turn) = has_turn {
                    // Nobody listens any more when the stream has ended.
                    let _ = has_turn.send(());
                }
                // Each of them is a call of its own, as far as the client's rate is concerned.
                let is_welcome = inside.auth.take(&caller).and_then(|()| inside.auth.check_client(&caller));
                let submitted = match is_welcome.and(taken) {
                    Ok(()) => submit(&inside.conductor, &caller.client, request, submitting, &turn).await,
                    Err(error) => Err(error),
                };
                let result = match submitted {
                    Ok(done) => Done(done),
                    Err(error) => {
                        inside.metrics.request_refused(error.code);
                        if let Some(from) = from {
                            let call = Call { from, method: "", path: SUBMIT_JOBS };
                            call.refused(&inside.audit, &inside.auth, &caller, error.code);
                        }
                        Error(convert::submit_error(error))
                    }
                };
                Ok(v1::SubmitJobsResponse { index: index as u64, result: Some(result) })
            }
        };
        let start = move |(index, request): (usize, Read)| {
            let takes_a_turn =
                request.as_ref().is_ok_and(|request| request.initial_data.len() > TINY_BODY_BYTES);
            let (told, turn) = takes_a_turn.then(oneshot::channel).unzip();
            // Whoever has a turn, or waits in the line for one, has others wait for it: it must not wait itself until its sender
            // takes an answer.
            // In a box, since it is handed on several times.
            let answer = answer(index, request, told).boxed();
            async move {
                let Some(turn) = turn else { return answer };
                let going = by_itself(answer);
                // The next one is read when this one has its turn, or will have none.
                let _ = turn.await;
                going.boxed()
            }
        };
        let answers = request.into_inner().enumerate().then(start).buffered(BULK_IN_FLIGHT_MAX);
        Ok(Response::new(answers.boxed()))
    }

    async fn get_job(
        &self,
        request: Request<v1::GetJobRequest>,
    ) -> Result<Response<v1::GetJobResponse>, Status> {
        let client = ClientName::of(&request)?;
        let id = convert::job_id(&request.get_ref().job_id)?;
        let view = self.inside.conductor.get(&client, id).await?;
        let decisions = self.inside.conductor.decisions(&view.job);
        let shown = Shown::Owner { decisions: &decisions };
        Ok(Response::new(v1::GetJobResponse { job: Some(convert::job(&view, shown)) }))
    }

    async fn list_jobs(
        &self,
        request: Request<v1::ListJobsRequest>,
    ) -> Result<Response<v1::ListJobsResponse>, Status> {
        let client = ClientName::of(&request)?;
        let query = convert::list_query(client, request.into_inner())?;
        let page = self.inside.conductor.list(query).await?;
        Ok(Response::new(v1::ListJobsResponse {
            jobs: page.jobs.iter().map(|view| convert::job(view, Shown::Listed)).collect(),
            next_cursor: convert::jobs_cursor_text(page.next_below_key),
        }))
    }

    async fn get_job_history(
        &self,
        request: Request<v1::GetJobHistoryRequest>,
    ) -> Result<Response<v1::GetJobHistoryResponse>, Status> {
        let client = ClientName::of(&request)?;
        let request = request.into_inner();
        let id = convert::job_id(&request.job_id)?;
        let from = convert::history_cursor(&request.cursor)?;
        let limit = submission::page_size(request.page_size.into(), submission::HISTORY_PAGE_DEFAULT)?;
        // One entry further, to know whether there is another page.
        let entries = self.inside.conductor.history(&client, id, from, limit + 1).await?;
        let (entries, next) = convert::history_page(entries, limit);
        Ok(Response::new(v1::GetJobHistoryResponse {
            entries: entries.iter().map(convert::history_entry).collect(),
            next_cursor: convert::history_cursor_text(next),
        }))
    }

    async fn watch_job(
        &self,
        request: Request<v1::WatchJobRequest>,
    ) -> Result<Response<Self::WatchJobStream>, Status> {
        let client = ClientName::of(&request)?;
        let id = convert::job_id(&request.get_ref().job_id)?;
        let watch = self.inside.conductor.watch(&client, id).await?;
        Ok(Response::new(updates(self.inside.clone(), watch).boxed()))
    }

    async fn cancel_job(
        &self,
        request: Request<v1::CancelJobRequest>,
    ) -> Result<Response<v1::CancelJobResponse>, Status> {
        let client = ClientName::of(&request)?;
        let id = convert::job_id(&request.get_ref().job_id)?;
        let reason = submission::reason(&request.get_ref().reason)?;
        let view = self.inside.conductor.cancel(&client, id, reason).await?;
        Ok(Response::new(v1::CancelJobResponse { job: Some(convert::job(&view, Shown::Alone)) }))
    }

    async fn signal_job(
        &self,
        request: Request<v1::SignalJobRequest>,
    ) -> Result<Response<v1::SignalJobResponse>, Status> {
        actions::signal(&self.inside, request).await.map(Response::new)
    }

    async fn decide_approval(
        &self,
        request: Request<v1::DecideApprovalRequest>,
    ) -> Result<Response<v1::DecideApprovalResponse>, Status> {
        actions::decide(&self.inside, request).await.map(Response::new)
    }

    async fn retry_job(
        &self,
        request: Request<v1::RetryJobRequest>,
    ) -> Result<Response<v1::RetryJobResponse>, Status> {
        actions::retry(&self.inside, request).await.map(Response::new)
    }

    async fn skip_job(
        &self,
        request: Request<v1::SkipJobRequest>,
    ) -> Result<Response<v1::SkipJobResponse>, Status> {
        actions::skip(&self.inside, request).await.map(Response::new)
    }

    async fn repair_jobs(
        &self,
        request: Request<v1::RepairJobsRequest>,
    ) -> Result<Response<v1::RepairJobsResponse>, Status> {
        actions::repair(&self.inside, request).await.map(Response::new)
    }

    async fn explain_job(
        &self,
        request: Request<v1::ExplainJobRequest>,
    ) -> Result<Response<v1::ExplainJobResponse>, Status> {
        let client = ClientName::of(&request)?;
        let id = convert::job_id(&request.get_ref().job_id)?;
        let explanation = self.inside.conductor.explain(&client, id).await?;
        Ok(Response::new(convert::explained(&explanation)))
    }

    async fn list_webhooks(
        &self,
        request: Request<v1::ListWebhooksRequest>,
    ) -> Result<Response<v1::ListWebhooksResponse>, Status> {
        let client = ClientName::of(&request)?;
        let id = convert::job_id(&request.get_ref().job_id)?;
        let notices = self.inside.conductor.notices(&client, id).await?;
        Ok(Response::new(v1::ListWebhooksResponse { messages: convert::webhook_messages(&notices) }))
    }

    async fn redeliver_webhook(
        &self,
        request: Request<v1::RedeliverWebhookRequest>,
    ) -> Result<Response<v1::RedeliverWebhookResponse>, Status> {
        let client = ClientName::of(&request)?;
        let request = request.get_ref();
        let id = convert::job_id(&request.job_id)?;
        let named = Some(&*request.webhook_id).filter(|text| !text.is_empty());
        let notice_id = named.map(convert::notice_id).transpose()?;
        let notices = self.inside.conductor.redeliver(&client, id, notice_id).await?;
        Ok(Response::new(v1::RedeliverWebhookResponse { messages: convert::webhook_messages(&notices) }))
    }

    async fn migrate_jobs(
        &self,
        request: Request<v1::MigrateJobsRequest>,
    ) -> Result<Response<v1::MigrateJobsResponse>, Status> {
        let client = ClientName::of(&request)?;
        let request = convert::migration_request(request.into_inner())?;
        let page = self.inside.conductor.migrate(&client, request).await?;
        Ok(Response::new(convert::migrated(&page)))
    }

    async fn get_job_graph(
        &self,
        request: Request<v1::GetJobGraphRequest>,
    ) -> Result<Response<v1::GetJobGraphResponse>, Status> {
        let client = ClientName::of(&request)?;
        let id = convert::job_id(&request.get_ref().job_id)?;
        let format = convert::graph_format(request.get_ref().format)?.unwrap_or(Format::Dot);
        let graph = graph::of_job(&self.inside, &client, id, format).await?;
        Ok(Response::new(v1::GetJobGraphResponse { graph }))
    }
}

/// The updates of a watch, up to the job's end or the orchestrator's.
fn updates(inside: Arc<Inside>, watch: Watch) -> impl Stream<Item = Result<v1::WatchJobResponse, Status>> {
    stream::unfold(Some(watch), move |watch| {
        let readiness = inside.readiness.clone();
        async move {
            let mut watch = watch?;
            let update = tokio::select! {
                biased;
                update = watch.next() => update?,
                () = readiness.draining() => {
                    Err(ApiError::new(ErrorCode::ShuttingDown, "The orchestrator is stopping"))
                }
            };
            match update {
                Ok(view) => {
                    let job = Some(convert::job(&view, Shown::Alone));
                    Some((Ok(v1::WatchJobResponse { job }), Some(watch)))
                }
                Err(error) => Some((Err(error.into()), None)),
            }
        }
    })
}
