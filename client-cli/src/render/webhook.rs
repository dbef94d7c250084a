//! Messages to webhooks, for people and for programs.

use avtomatika_proto::v1::{WebhookMessage, WebhookStatus};
use serde::Serialize;

use super::{
    table::{Cell, Overflow, Table, Tone},
    time::{exact, rfc3339},
};

/// One line for each message.
pub fn page(messages: &[WebhookMessage]) -> String {
    let columns = &["MESSAGE", "TYPE", "STATUS", "ATTEMPTS", "LAST ATTEMPT", "NEXT ATTEMPT", "DETAIL"];
    Table::new(columns, Overflow::Wrap).page(messages.iter().map(row))
}

fn row(message: &WebhookMessage) -> Vec<Cell> {
    let tone = match message.status() {
        WebhookStatus::Delivered => Some(Tone::Good),
        WebhookStatus::Failed => Some(Tone::Bad),
        WebhookStatus::Pending => Some(Tone::Busy),
        WebhookStatus::Obsolete | WebhookStatus::Unspecified => Some(Tone::Quiet),
    };
    let detail = match message.problem.is_empty() {
        true => message.url.clone(),
        false => format!("{}: {}", message.url, message.problem),
    };
    vec![
        Cell::from(&message.id),
        Cell::from(&message.r#type),
        Cell::toned(status_name(message), tone),
        message.attempts.to_string().into(),
        exact(message.attempted_at.as_ref()).into(),
        exact(message.due_at.as_ref()).into(),
        detail.into(),
    ]
}

/// The message in the form of the REST API.
pub fn form(message: &WebhookMessage) -> impl Serialize + '_ {
    Form {
        id: &message.id,
        r#type: &message.r#type,
        url: &message.url,
        at: rfc3339(message.at.as_ref()),
        status: status_name(message),
        attempts: message.attempts,
        attempted_at: rfc3339(message.attempted_at.as_ref()),
        http_status: (message.http_status > 0).then_some(message.http_status),
        problem: (!message.problem.is_empty()).then_some(&message.problem),
        due_at: rfc3339(message.due_at.as_ref()),
        give_up_at: rfc3339(message.give_up_at.as_ref()),
    }
}

#[derive(Serialize)]
struct Form<'a> {
    id: &'a str,
    r#type: &'a str,
    url: &'a str,
    at: Option<String>,
    status: String,
    attempts: u32,
    attempted_at: Option<String>,
    http_status: Option<u32>,
    problem: Option<&'a String>,
    due_at: Option<String>,
    give_up_at: Option<String>,
}

fn status_name(message: &WebhookMessage) -> String {
    let name = message.status().as_str_name();
    name.strip_prefix("WEBHOOK_STATUS_").unwrap_or(name).to_lowercase()
}
