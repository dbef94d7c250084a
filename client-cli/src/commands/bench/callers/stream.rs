//! `SubmitJobs`: requests and answers over one stream for each connection, in order.
//!
//! An answer waits for those before it, which is part of what is measured: a client of this call sees nothing else.

use std::sync::Arc;

use avtomatika_proto::v1::{SubmitJobRequest, submit_jobs_response};
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
};
use tokio_stream::wrappers::ReceiverStream;

use super::{
    super::{tally::Tally, tickets::Ticket},
    Submission, refusal, shares,
};
use crate::{client::Server, failure::Failure};

/// Requests that wait for the connection to take them.
const FEED: usize = 64;

/// One stream on each of these connections, with so many requests in flight on all of them.
pub(in super::super) struct Callers {
    servers: Vec<Arc<Server>>,
    submission: Submission,
    in_flight: usize,
}

impl Callers {
    pub(super) fn new(servers: Vec<Server>, submission: Submission, in_flight: usize) -> Self {
        Self { servers: servers.into_iter().map(Arc::new).collect(), submission, in_flight }
    }

    pub(super) async fn run(&self, tally: &Arc<Tally>) {
        let mut streams = JoinSet::new();
        for (server, room) in self.servers.iter().zip(shares(self.in_flight, self.servers.len())) {
            streams.spawn(stream(Arc::clone(server), self.submission.clone(), room, Arc::clone(tally)));
        }
        streams.join_all().await;
    }
}

async fn stream(server: Arc<Server>, submission: Submission, in_flight: usize, tally: Arc<Tally>) {
    let room = Arc::new(Semaphore::new(in_flight));
    let (requests, feed) = mpsc::channel(FEED);
    // As long as what may be unanswered: sending never waits.
    let (asked, mut open) = mpsc::channel(in_flight);
    let feeder = tokio::spawn(submit(submission, Arc::clone(&room), requests, asked, Arc::clone(&tally)));
    let odd = |why: &str| Failure::NotAnOrchestrator { url: server.url().to_owned(), why: why.to_owned() };
    let failed = |status| tally.failed(server.failure(&status));
    match server.jobs().submit_jobs(ReceiverStream::new(feed)).await {
        Err(status) => failed(status),
        Ok(response) => {
            let mut answers = response.into_inner();
            loop {
                let answer = match answers.message().await {
                    Ok(Some(answer)) => answer,
                    Ok(None) => break,
                    Err(status) => break failed(status),
                };
                // Answers come in the order of the requests.
                let Some(ticket) = open.recv().await else {
                    break tally.failed(odd("it gave more answers than it got submissions"));
                };
                room.add_permits(1);
                match answer.result {
                    Some(submit_jobs_response::Result::Ok(response)) => tally.response(ticket, &response),
                    Some(submit_jobs_response::Result::Error(error)) => {
                        tally.failed(refusal(&error.code, error.message, error.hint, server.url()));
                    }
                    None => tally.failed(odd("it gave an empty answer")),
                }
            }
        }
    }
    // After a failure nobody answers any more, and the feeder must not wait for that.
    room.close();
    drop(open);
    // It ends by itself, and a panic of its has been told by the runtime.
    let _ = feeder.await;
}

/// Feeds the stream. When there are no more tickets it ends it, and the orchestrator answers what is open and ends its side.
async fn submit(
    submission: Submission,
    room: Arc<Semaphore>,
    requests: mpsc::Sender<SubmitJobRequest>,
    asked: mpsc::Sender<Ticket>,
    tally: Arc<Tally>,
) {
    while let Ok(place) = room.acquire().await {
        place.forget();
        let Some(ticket) = tally.next().await else { return };
        if asked.send(ticket).await.is_err() || requests.send(submission.request()).await.is_err() {
            return;
        }
    }
}
