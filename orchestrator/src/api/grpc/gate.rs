//! The door in front of every gRPC service: no call reaches a handler without the credential that its service asks for. A
//! service that is not named here needs an operator's token, so that a new method cannot forget to ask.

use std::sync::Arc;

use avtomatika_proto::{ApiError, ErrorCode};
use http::Request;
use tonic::Status;

use crate::{
    api::{
        auth::{Auth, Caller},
        callers::{self, Unwelcome, Visitor},
        strangers::Acquaintance,
    },
    tls::Peer,
    trust::Role,
};

/// Who called, as the gate found it. In the extensions of every request that reaches a client's service.
#[derive(Debug, Clone)]
pub struct ClientName(pub Arc<str>);

impl ClientName {
    /// The caller of this request.
    ///
    /// # Errors
    /// `MISSING_TOKEN` when the request did not come through the gate.
    pub fn of<T>(request: &tonic::Request<T>) -> Result<Arc<str>, Status> {
        match request.extensions().get::<ClientName>() {
            Some(ClientName(name)) => Ok(name.clone()),
            None => Err(ApiError::new(ErrorCode::MissingToken, "Missing X-Avtomatika-Token header").into()),
        }
    }
}

/// The caller of this request, with its rights.
///
/// # Errors
/// `MISSING_TOKEN` when the request did not come through the gate.
pub(super) fn caller_of<T>(request: &tonic::Request<T>) -> Result<Caller, Status> {
    match request.extensions().get::<Caller>() {
        Some(caller) => Ok(caller.clone()),
        None => Err(ApiError::new(ErrorCode::MissingToken, "Missing X-Avtomatika-Token header").into()),
    }
}

/// What clients may not do although it is about their own jobs: it works on many at once, or again and again.
const OF_OPERATORS: [&str; 3] = [
    "/avtomatika.v1.JobService/RepairJobs",
    "/avtomatika.v1.JobService/MigrateJobs",
    "/avtomatika.v1.JobService/RedeliverWebhook",
];

/// What every client may ask of `AdminService`: what it needs to know to submit, and its own schedules.
const OF_EVERYBODY: [&str; 3] = [
    "/avtomatika.v1.AdminService/ListBlueprints",
    "/avtomatika.v1.AdminService/GetBlueprint",
    "/avtomatika.v1.AdminService/ListSchedules",
];

/// What a path asks of its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::api) enum Gate {
    /// A client's token, and this role.
    Client(Role),
    /// A worker's token, and its certificate where one is asked for.
    Worker,
    /// Nothing: what is served there is in this project's public files.
    Open,
}

impl Gate {
    /// What this path asks for.
    fn at(path: &str) -> Self {
        let service =
            path.strip_prefix('/').and_then(|rest| rest.split_once('/')).map(|(service, _)| service);
        match service {
            Some("avtomatika.v1.WorkerService") => Self::Worker,
            Some("avtomatika.v1.JobService") if !OF_OPERATORS.contains(&path) => Self::Client(Role::Client),
            Some("avtomatika.v1.AdminService") if OF_EVERYBODY.contains(&path) => Self::Client(Role::Client),
            Some("grpc.health.v1.Health") => Self::Open,
            Some("grpc.reflection.v1.ServerReflection" | "grpc.reflection.v1alpha.ServerReflection") => {
                Self::Open
            }
            _ => Self::Client(Role::Operator),
        }
    }

    /// Lets the request in with its caller's identity in its extensions, or says why not.
    pub(in crate::api) fn admit<B>(auth: &Auth, request: &mut Request<B>) -> Result<Visitor, Unwelcome> {
        Ok(match Self::at(request.uri().path()) {
            Self::Open => Visitor::Anybody,
            Self::Client(role) => {
                let caller = callers::admit(auth, request, || role)?;
                request.extensions_mut().insert(ClientName(caller.client.clone()));
                request.extensions_mut().insert(caller.clone());
                Visitor::Client(caller, role)
            }
            Self::Worker => {
                let pass = auth.worker(request.headers())?;
                let refused = |error| Unwelcome { who: Some(pass.names().into()), error };
                request.extensions().get::<Peer>().cloned().unwrap_or_default().admit().map_err(refused)?;
                Acquaintance::made(request.extensions());
                request.extensions_mut().insert(pass.clone());
                Visitor::Worker(pass)
            }
        })
    }
}

/// Whether the caller may take its time with what it sends, because it sends a stream.
pub(in crate::api) fn is_stream_of_requests(path: &str) -> bool {
    const STREAMS: [&str; 4] = [
        "/avtomatika.v1.JobService/SubmitJobs",
        "/avtomatika.v1.WorkerService/TaskStream",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    ];
    STREAMS.contains(&path)
}

/// Whether the answer may go on for long, because it is a stream.
pub(in crate::api) fn is_stream_of_answers(path: &str) -> bool {
    const STREAMS: [&str; 3] = [
        "/avtomatika.v1.JobService/SubmitJobs",
        "/avtomatika.v1.JobService/WatchJob",
        "/avtomatika.v1.WorkerService/TaskStream",
    ];
    STREAMS.contains(&path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_streams_are_those_of_the_protocol() {
        use prost::Message as _;
        let files = prost_types::FileDescriptorSet::decode(avtomatika_proto::FILE_DESCRIPTOR_SET).unwrap();
        for service in files.file.iter().flat_map(|file| &file.service) {
            for method in &service.method {
                let path = format!("/avtomatika.v1.{}/{}", service.name(), method.name());
                assert_eq!(is_stream_of_requests(&path), method.client_streaming(), "{path}");
                assert_eq!(is_stream_of_answers(&path), method.server_streaming(), "{path}");
            }
        }
    }

    #[test]
    fn what_is_named_here_exists() {
        use prost::Message as _;
        let files = prost_types::FileDescriptorSet::decode(avtomatika_proto::FILE_DESCRIPTOR_SET).unwrap();
        let services = files.file.iter().flat_map(|file| &file.service);
        let methods: Vec<String> = services
            .flat_map(|service| {
                service
                    .method
                    .iter()
                    .map(|method| format!("/avtomatika.v1.{}/{}", service.name(), method.name()))
            })
            .collect();
        for path in OF_OPERATORS.iter().chain(&OF_EVERYBODY) {
            assert!(methods.iter().any(|method| method == path), "{path}");
        }
    }

    #[test]
    fn only_what_is_named_is_open() {
        let (client, operator) = (Gate::Client(Role::Client), Gate::Client(Role::Operator));
        for (path, gate) in [
            ("/avtomatika.v1.JobService/GetJob", client),
            ("/avtomatika.v1.JobService/RepairJobs", operator),
            ("/avtomatika.v1.AdminService/GetBlueprint", client),
            ("/avtomatika.v1.AdminService/ListWorkers", operator),
            ("/avtomatika.v1.AdminService/Anything", operator),
            ("/avtomatika.v1.WorkerService/TaskStream", Gate::Worker),
            ("/grpc.health.v1.Health/Check", Gate::Open),
            ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Gate::Open),
            ("/grpc.health.v1.Health", operator),
            ("//grpc.health.v1.Health/Check", operator),
            ("/unknown.Service/Method", operator),
            ("/", operator),
            ("", operator),
        ] {
            assert_eq!(Gate::at(path), gate, "{path}");
        }
    }
}
