//! Those who submit: connected once, then given tickets, through one of the three APIs.
//!
//! Each asks for the job's end in the submission itself (`wait`), so that the answer is the end and nothing has to be polled.

use std::{sync::Arc, time::Duration};

use avtomatika_proto::{ApiError, ErrorCode, v1::SubmitJobRequest, wire_time};

use super::{
    args::{Api, Plan},
    blueprint,
    tally::Tally,
};
use crate::{args::Options, client::Server, failure::Failure};

mod rest;
mod stream;
mod unary;

/// How long a job may take before it counts as not finished.
const WAIT: Duration = Duration::from_secs(60);

/// Connected callers of one API.
pub(super) enum Callers {
    Unary(unary::Callers),
    Stream(stream::Callers),
    Rest(rest::Callers),
}

/// What is submitted, over and over.
#[derive(Debug, Clone)]
pub(super) struct Submission {
    pub(super) blueprint: String,
    pub(super) initial_data: String,
}

impl Submission {
    /// To this blueprint, with data of the planned size.
    pub(super) fn new(plan: &Plan, blueprint: &str) -> Self {
        Self { blueprint: blueprint.to_owned(), initial_data: blueprint::initial_data(plan.payload_bytes) }
    }

    /// As a gRPC request.
    pub(super) fn request(&self) -> SubmitJobRequest {
        SubmitJobRequest {
            blueprint: self.blueprint.clone(),
            initial_data: self.initial_data.clone(),
            wait: Some(wire_time::duration(WAIT)),
            ..SubmitJobRequest::default()
        }
    }
}

impl Callers {
    /// Opens the connections that the plan asks for.
    pub(super) async fn connect(
        plan: &Plan,
        options: &Options,
        submission: Submission,
    ) -> Result<Self, Failure> {
        if plan.api == Api::Rest {
            return rest::Callers::connect(options, submission, plan.in_flight).await.map(Self::Rest);
        }
        let mut servers = Vec::with_capacity(plan.connections);
        for _ in 0..plan.connections {
            servers.push(Server::connect(options).await?);
        }
        Ok(match plan.api {
            Api::Grpc => Self::Unary(unary::Callers::new(servers, submission, plan.in_flight)),
            _ => Self::Stream(stream::Callers::new(servers, submission, plan.in_flight)),
        })
    }

    /// Submits until there are no more tickets and everything was answered.
    pub(super) async fn run(&mut self, tally: &Arc<Tally>) {
        match self {
            Self::Unary(callers) => callers.run(tally).await,
            Self::Stream(callers) => callers.run(tally).await,
            Self::Rest(callers) => callers.run(tally).await,
        }
    }
}

/// What a refusal means that came as the body of an answer, in the fields that both APIs have for it.
fn refusal(code: &str, message: String, hint: String, url: &str) -> Failure {
    match ErrorCode::from_name(code) {
        Some(code) => Failure::Refused(ApiError::new(code, message).with_hint(hint)),
        None => Failure::NotAnOrchestrator { url: url.to_owned(), why: message },
    }
}

/// The share of each of `parts` when `whole` is spread as evenly as it goes.
fn shares(whole: usize, parts: usize) -> impl Iterator<Item = usize> {
    (0..parts).map(move |part| whole / parts + usize::from(part < whole % parts))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_spread_stays_whole() {
        assert_eq!(shares(10, 4).collect::<Vec<_>>(), [3, 3, 2, 2]);
        assert_eq!(shares(512, 1).sum::<usize>(), 512);
    }
}
