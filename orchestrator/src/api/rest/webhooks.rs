//! `GET /api/jobs/{id}/webhooks`, `POST /api/jobs/{id}/webhooks/redeliver`, `POST /api/jobs/{id}/webhooks/{webhook_id}/redeliver`:
//! what a job's webhook was told, and telling it again.

use std::sync::Arc;

use avtomatika_proto::ApiError;
use axum::response::Response;
use http::{StatusCode, Uri};
use serde::Serialize;

use super::query;
use crate::{
    api::{Inside, convert, notice::kind, reply},
    store::{NoticeRecord, NoticeStatus},
};

pub(super) async fn list(
    inside: &Inside,
    client: &Arc<str>,
    id: &str,
    uri: &Uri,
) -> Result<Response, ApiError> {
    let id = convert::job_id(id)?;
    query::none(uri)?;
    let notices = inside.conductor.notices(client, id).await?;
    Ok(reply::json(StatusCode::OK, &Document::of(&notices)))
}

pub(super) async fn redeliver(
    inside: &Inside,
    client: &Arc<str>,
    id: &str,
    webhook_id: Option<&str>,
    uri: &Uri,
) -> Result<Response, ApiError> {
    let id = convert::job_id(id)?;
    query::none(uri)?;
    let webhook_id = webhook_id.map(convert::notice_id).transpose()?;
    let notices = inside.conductor.redeliver(client, id, webhook_id).await?;
    Ok(reply::json(StatusCode::ACCEPTED, &Document::of(&notices)))
}

#[derive(Serialize)]
struct Document<'a> {
    webhooks: Vec<Message<'a>>,
}

impl<'a> Document<'a> {
    fn of(notices: &'a [NoticeRecord]) -> Self {
        Self { webhooks: notices.iter().map(Message::of).collect() }
    }
}

#[derive(Serialize)]
struct Message<'a> {
    id: String,
    r#type: &'static str,
    url: &'a str,
    at: String,
    status: &'static str,
    attempts: u32,
    attempted_at: Option<String>,
    http_status: Option<u16>,
    problem: Option<&'a str>,
    due_at: Option<String>,
    give_up_at: Option<String>,
}

impl<'a> Message<'a> {
    fn of(notice: &'a NoticeRecord) -> Self {
        let is_pending = notice.status == NoticeStatus::Pending;
        Self {
            id: notice.id.to_string(),
            r#type: kind(notice),
            url: &notice.url,
            at: notice.at.to_string(),
            status: notice.status.as_str(),
            attempts: notice.attempts,
            attempted_at: notice.attempted_at.map(|time| time.to_string()),
            http_status: notice.answer,
            problem: notice.problem.as_deref(),
            due_at: is_pending.then(|| notice.due_at.to_string()),
            give_up_at: is_pending.then(|| notice.give_up_at.to_string()),
        }
    }
}
