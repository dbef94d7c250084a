//! The door in front of every gRPC service: no call reaches a handler without the credential that its service asks for. A
//! service that is not named here needs a client token, so that a new method cannot forget to ask.

use std::sync::Arc;

use avtomatika_proto::{ApiError, ErrorCode};
use http::Request;
use tonic::Status;

use crate::{api::auth::Auth, tls::Peer};

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

/// What a path asks of its caller.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::api) enum Gate {
    /// A client's token.
    Client,
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
            Some("grpc.health.v1.Health") => Self::Open,
            Some("grpc.reflection.v1.ServerReflection" | "grpc.reflection.v1alpha.ServerReflection") => {
                Self::Open
            }
            _ => Self::Client,
        }
    }

    /// Lets the request in with its caller's identity in its extensions, or says why not.
    pub(in crate::api) fn admit<B>(auth: &Auth, request: &mut Request<B>) -> Result<(), ApiError> {
        match Self::at(request.uri().path()) {
            Self::Open => {}
            Self::Client => {
                let name = auth.client(request.headers())?;
                request.extensions_mut().insert(ClientName(name));
            }
            Self::Worker => {
                let credential = auth.worker(request.headers())?;
                request.extensions().get::<Peer>().cloned().unwrap_or_default().admit()?;
                request.extensions_mut().insert(credential);
            }
        }
        Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_streams_of_requests_are_those_of_the_protocol() {
        use prost::Message as _;
        let files = prost_types::FileDescriptorSet::decode(avtomatika_proto::FILE_DESCRIPTOR_SET).unwrap();
        for service in files.file.iter().flat_map(|file| &file.service) {
            for method in &service.method {
                let path = format!("/avtomatika.v1.{}/{}", service.name(), method.name());
                assert_eq!(is_stream_of_requests(&path), method.client_streaming(), "{path}");
            }
        }
    }

    #[test]
    fn only_what_is_named_is_open() {
        for (path, gate) in [
            ("/avtomatika.v1.JobService/GetJob", Gate::Client),
            ("/avtomatika.v1.AdminService/Anything", Gate::Client),
            ("/avtomatika.v1.WorkerService/TaskStream", Gate::Worker),
            ("/grpc.health.v1.Health/Check", Gate::Open),
            ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Gate::Open),
            ("/grpc.health.v1.Health", Gate::Client),
            ("//grpc.health.v1.Health/Check", Gate::Client),
            ("/unknown.Service/Method", Gate::Client),
            ("/", Gate::Client),
            ("", Gate::Client),
        ] {
            assert_eq!(Gate::at(path), gate, "{path}");
        }
    }
}
