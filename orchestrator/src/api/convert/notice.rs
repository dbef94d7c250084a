//! Messages to webhooks on the wire.

use avtomatika_proto::v1;

use super::timestamp;
use crate::{
    api::notice::kind,
    store::{NoticeRecord, NoticeStatus},
};

pub(in crate::api) fn webhook_messages(notices: &[NoticeRecord]) -> Vec<v1::WebhookMessage> {
    notices.iter().map(webhook_message).collect()
}

fn webhook_message(notice: &NoticeRecord) -> v1::WebhookMessage {
    let is_pending = notice.status == NoticeStatus::Pending;
    v1::WebhookMessage {
        id: notice.id.to_string(),
        r#type: kind(notice).to_owned(),
        url: notice.url.to_string(),
        at: Some(timestamp(notice.at)),
        // The numbers of the protocol are those of the domain, by definition.
        status: i32::from(notice.status as u8),
        attempts: notice.attempts,
        attempted_at: notice.attempted_at.map(timestamp),
        http_status: notice.answer.map_or(0, u32::from),
        problem: notice.problem.as_deref().unwrap_or_default().to_owned(),
        due_at: is_pending.then(|| timestamp(notice.due_at)),
        give_up_at: is_pending.then(|| timestamp(notice.give_up_at)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_protocol_numbers_deliveries_as_the_domain_does() {
        for status in NoticeStatus::ALL {
            let wire = v1::WebhookStatus::try_from(i32::from(status as u8)).unwrap();
            assert_eq!(wire.as_str_name().to_lowercase(), format!("webhook_status_{}", status.as_str()));
        }
    }
}
