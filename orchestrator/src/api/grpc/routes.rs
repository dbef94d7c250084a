//! All gRPC services of the orchestrator, as one router.

use std::sync::Arc;

use avtomatika_proto::{
    FILE_DESCRIPTOR_SET,
    limits::MESSAGE_BYTES_MAX,
    v1::{admin_service_server::AdminServiceServer, job_service_server::JobServiceServer},
};
use tonic::service::Routes;
use tonic_health::pb::health_server::HealthServer;

use super::{admin::Admin, health::Health, jobs::Jobs};
use crate::api::Inside;

/// The services for clients and operators, with reflection and health. The service for workers is added by its owner:
/// `routes(&inside).add_service(workers)`.
pub fn routes(inside: &Arc<Inside>) -> Routes {
    let jobs = JobServiceServer::new(Jobs::new(inside.clone()))
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let admin = AdminServiceServer::new(Admin::new(inside.clone()))
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let health = HealthServer::new(Health::new(inside.readiness.clone()))
        .max_decoding_message_size(HEALTH_BYTES_MAX)
        .max_encoding_message_size(HEALTH_BYTES_MAX);
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let compiled = "the descriptors were written by this project's own compiler";
    Routes::new(jobs)
        .add_service(admin)
        .add_service(health)
        .add_service(reflection().build_v1().expect(compiled))
        .add_service(reflection().build_v1alpha().expect(compiled))
}

/// A health message holds one service name.
const HEALTH_BYTES_MAX: usize = 4096;
