//! `SubmitJob`: a call for each job, many at once over few connections.

use std::sync::Arc;

use tokio::task::JoinSet;

use super::{super::tally::Tally, Submission};
use crate::client::Server;

/// So many callers over these connections.
pub(in super::super) struct Callers {
    servers: Vec<Arc<Server>>,
    submission: Submission,
    callers: usize,
}

impl Callers {
    pub(super) fn new(servers: Vec<Server>, submission: Submission, callers: usize) -> Self {
        Self { servers: servers.into_iter().map(Arc::new).collect(), submission, callers }
    }

    pub(super) async fn run(&self, tally: &Arc<Tally>) {
        let mut callers = JoinSet::new();
        for server in self.servers.iter().cycle().take(self.callers) {
            callers.spawn(call(Arc::clone(server), self.submission.clone(), Arc::clone(tally)));
        }
        callers.join_all().await;
    }
}

async fn call(server: Arc<Server>, submission: Submission, tally: Arc<Tally>) {
    let mut jobs = server.jobs();
    while let Some(ticket) = tally.next().await {
        match jobs.submit_job(submission.request()).await {
            Ok(response) => tally.response(ticket, response.get_ref()),
            Err(status) => tally.failed(server.failure(&status)),
        }
    }
}
