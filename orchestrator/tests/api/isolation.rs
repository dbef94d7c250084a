//! What one client can learn or do about the jobs of another: nothing, wherever it asks.
//!
//! The gRPC table is made from the protocol itself, so that a method which is added is asked as well.

use std::{sync::Arc, time::Duration};

use avtomatika_orchestrator::{assemble, store::memory::MemoryStore, webhook};
use avtomatika_proto::{ApiError, ErrorCode, FILE_DESCRIPTOR_SET, v1};
use prost::{
    Message as _,
    bytes::{Buf, BufMut},
    encoding::{WireType, encode_key, encode_varint},
};
use prost_types::{DescriptorProto, FileDescriptorSet, MethodDescriptorProto, field_descriptor_proto::Type};
use serde_json::json;
use tonic::{
    Request, Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    transport::{Channel, Endpoint},
};

use crate::{
    grpc::Caller,
    support::{ALICE, BOB, Server, WORKER, parts},
};

const UNKNOWN_ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

/// Messages as they are on the wire.
#[derive(Debug, Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining()).to_vec()))
    }
}

/// A method of the protocol, with the message that it takes.
struct Method {
    path: String,
    input: DescriptorProto,
}

/// The message of this name.
fn message(name: &str) -> DescriptorProto {
    let files = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap();
    let name = name.rsplit('.').next().unwrap();
    let mut messages = files.file.into_iter().flat_map(|file| file.message_type);
    messages.find(|message| message.name() == name).unwrap()
}

/// A message in which these text fields are set, as far as it has them, its action included.
fn encode(message_type: &DescriptorProto, fields: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for field in &message_type.field {
        let value = match field.r#type() {
            Type::String => {
                let set = fields.iter().find(|(name, _)| *name == field.name());
                set.map(|(_, value)| value.as_bytes().to_vec())
            }
            Type::Message if field.name() == "action" => Some(encode(&message(field.type_name()), fields)),
            _ => None,
        };
        if let Some(value) = value {
            encode_key(field.number() as u32, WireType::LengthDelimited, &mut bytes);
            encode_varint(value.len() as u64, &mut bytes);
            bytes.extend_from_slice(&value);
        }
    }
    bytes
}

fn methods() -> Vec<Method> {
    let files = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap();
    let services = files.file.iter().flat_map(|file| &file.service);
    let of_service = services.flat_map(|service| service.method.iter().map(move |method| (service, method)));
    let method = |(service, method): (&prost_types::ServiceDescriptorProto, &MethodDescriptorProto)| Method {
        path: format!("/avtomatika.v1.{}/{}", service.name(), method.name()),
        input: message(method.input_type()),
    };
    of_service.map(method).collect()
}

impl Method {
    /// What becomes of the call, up to the first message of a stream.
    async fn call(
        &self,
        channel: &Channel,
        headers: &[(&'static str, &str)],
        body: Vec<u8>,
    ) -> Result<(), Status> {
        let mut grpc = Grpc::new(channel.clone());
        grpc.ready().await.unwrap();
        let path = self.path.parse().unwrap();
        let mut request = Request::new(stream_of(body));
        for (name, value) in headers {
            request.metadata_mut().insert(*name, value.parse().unwrap());
        }
        let mut answers = grpc.streaming(request, path, Raw).await?.into_inner();
        answers.message().await.map(drop)
    }
}

fn stream_of(body: Vec<u8>) -> impl futures_util::Stream<Item = Vec<u8>> + Send + 'static {
    futures_util::stream::iter([body])
}

/// A server that could tell webhooks, so that what is asked about them is looked up.
async fn start() -> Server {
    let store = Arc::new(MemoryStore::new());
    let mut parts = parts(store.clone(), Duration::from_secs(5));
    let key = webhook::Key::from_secret(webhook::DEVELOPMENT_SECRET).unwrap();
    parts.settings.webhooks = Some(webhook::Setup { keys: vec![key], allow_private: true });
    Server::serve(assemble(parts).unwrap(), store).await
}

async fn channel(server: &Server) -> Channel {
    Endpoint::try_from(server.url("")).unwrap().connect().await.unwrap()
}

fn told(status: &Status) -> (ErrorCode, String) {
    let error = ApiError::from_status(status);
    (error.code, error.message.into_owned())
}

#[tokio::test]
async fn s19_every_grpc_method_answers_a_foreign_job_as_one_that_is_not_there() {
    let server = start().await;
    let job = server.post("/api/jobs/test", "{}").await.text("job_id");
    let channel = channel(&server).await;
    let mut asked = 0;
    for method in methods() {
        if !method.input.field.iter().any(|field| field.name() == "job_id") {
            continue;
        }
        let answer = async |id: &str| {
            let fields = [("job_id", id), ("name", "x"), ("decision", "approved"), ("outcome", "success")];
            let call = method.call(&channel, &[("x-avtomatika-token", BOB)], encode(&method.input, &fields));
            told(&call.await.expect_err(&method.path))
        };
        let (foreign, missing) = (answer(&job).await, answer(UNKNOWN_ID).await);
        assert_eq!(foreign, (ErrorCode::JobNotFound, "Job not found".to_owned()), "{}", method.path);
        assert_eq!(foreign, missing, "{}", method.path);
        asked += 1;
    }
    assert!(asked >= 12, "only {asked} methods take a job's id");
    assert_eq!(server.get(&format!("/api/jobs/{job}")).await.json()["status"], "waiting_for_worker");
}

#[tokio::test]
async fn s19_every_rest_path_answers_a_foreign_job_as_one_that_is_not_there() {
    let server = start().await;
    let ask = json!({ "blueprint": "ask", "initial_data": { "amount": 7 } }).to_string();
    let job = server.post("/api/v1/jobs", &ask).await.text("job_id");
    for (method, rest, body) in [
        ("GET", "", ""),
        ("HEAD", "", ""),
        ("GET", "/history", ""),
        ("GET", "/explain", ""),
        ("GET", "/events", ""),
        ("GET", "/graph", ""),
        ("GET", "/webhooks", ""),
        ("POST", "/webhooks/redeliver", ""),
        ("POST", "/cancel", ""),
        ("POST", "/signal", r#"{"name": "paid"}"#),
        ("POST", "/decide", r#"{"decision": "approved"}"#),
        ("POST", "/approve", ""),
        ("POST", "/reject", ""),
        ("POST", "/retry", ""),
        ("POST", "/skip", r#"{"outcome": "success"}"#),
    ] {
        for prefix in ["/api", "/api/v1"] {
            let answer = async |id: &str| {
                let answer = server.by(BOB, method, &format!("{prefix}/jobs/{id}{rest}"), body).await;
                (answer.status, answer.body)
            };
            let (foreign, missing) = (answer(&job).await, answer(UNKNOWN_ID).await);
            assert_eq!(foreign.0, 404, "{method} {prefix}{rest}: {foreign:?}");
            assert_eq!(foreign, missing, "byte for byte: {method} {prefix}{rest}");
        }
    }
    let approval = server
        .by(BOB, "POST", &format!("/_public/webhooks/approval/{job}"), r#"{"decision": "approved"}"#)
        .await;
    assert_eq!((approval.status, approval.text("code").as_str()), (404, "JOB_NOT_FOUND"));
    assert_eq!(server.get(&format!("/api/jobs/{job}")).await.json()["status"], "waiting_for_human");
}

#[tokio::test]
async fn s20_what_is_asked_by_the_set_reaches_the_callers_own_jobs_only() {
    let server = start().await;
    let fragile =
        json!({ "blueprint": "fragile", "initial_data": {}, "labels": { "of": "alice" } }).to_string();
    let job = server.post("/api/v1/jobs", &fragile).await.text("job_id");
    assert_eq!(server.get(&format!("/api/jobs/{job}")).await.json()["status"], "failed");
    for query in ["", "?status=failed", "?label=of:alice", "?blueprint=fragile"] {
        let page = server.by(BOB, "GET", &format!("/api/jobs{query}"), "").await;
        assert!(!page.body.contains(&job), "{query}: {page:?}");
    }
    let repair = json!({ "action": "retry", "statuses": ["failed"] }).to_string();
    let repaired = server.by(BOB, "POST", "/api/jobs/repair", &repair).await;
    assert!(!repaired.body.contains(&job), "{repaired:?}");
    let moved = server.by(BOB, "POST", "/api/blueprints/fragile/migrate", "{}").await;
    assert!(!moved.body.contains(&job), "{moved:?}");
    // A key of the one is nothing to the other.
    let keyed = [("idempotency-key", "k")];
    let submit = async |token: &str| {
        let headers = [keyed[0], ("x-avtomatika-token", token)];
        server.send("POST", "/api/jobs/instant", &headers, "{}").await.text("job_id")
    };
    let (alices, bobs) = (submit(ALICE).await, submit(BOB).await);
    assert_ne!(alices, bobs);
    assert_eq!(submit(BOB).await, bobs);
    assert_eq!(server.get(&format!("/api/jobs/{job}")).await.json()["status"], "failed");
    let metrics = server.send("GET", "/_public/metrics", &[], "").await.body;
    for name in ["alice", "bob", &*job] {
        assert!(!metrics.contains(name), "{name} stands in the metrics, which ask for no token");
    }
}

#[tokio::test]
async fn s29_every_method_asks_for_its_own_kind_of_token_and_only_admins_act_for_others() {
    let server = start().await;
    let channel = channel(&server).await;
    for method in methods() {
        let is_workers = method.path.contains(".WorkerService/");
        let (wrong_kind, right) = if is_workers { (ALICE, WORKER) } else { (WORKER, ALICE) };
        let code = async |headers: &[(&'static str, &str)]| {
            let answer = method.call(&channel, headers, encode(&method.input, &[])).await;
            answer.err().map(|status| ApiError::from_status(&status).code)
        };
        assert_eq!(code(&[]).await, Some(ErrorCode::MissingToken), "{}", method.path);
        for token in ["guess", wrong_kind, &right[1..], &format!("{right}x")] {
            let bearer = format!("Bearer {token}");
            assert_eq!(
                code(&[("authorization", &bearer)]).await,
                Some(ErrorCode::InvalidToken),
                "{}",
                method.path
            );
        }
        let bearer = format!("Bearer {right}");
        let answer = code(&[("authorization", &bearer)]).await;
        assert!(
            !matches!(
                answer,
                Some(ErrorCode::InvalidToken | ErrorCode::MissingToken | ErrorCode::PermissionDenied)
            ),
            "{}: {answer:?}",
            method.path
        );
        if !is_workers {
            let named = [("authorization", &*bearer), ("x-avtomatika-client", "bob")];
            assert_eq!(code(&named).await, Some(ErrorCode::PermissionDenied), "{}", method.path);
        }
    }
    let caller = Caller::new(&server, BOB).await;
    let listed = caller.jobs().list_jobs(caller.request(v1::ListJobsRequest::default())).await.unwrap();
    assert!(listed.into_inner().jobs.is_empty());
}
