//! Quotas: how many submissions of each client were accepted this month.
//!
//! Memory counts ahead of the store, as the book does; what has changed is written once per client and batch, in the transaction
//! of the submissions that it counts. It promises that a repetition and a refusal count nothing, and that an acknowledged
//! submission is counted whatever crashes. Only clients that have a quota are counted. It refuses to know who calls.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use avtomatika_proto::{ApiError, ErrorCode};

use super::core::Core;
use crate::{
    store::{UsageRecord, Write},
    time::Month,
};

/// What clients have used.
#[derive(Debug, Default)]
pub(super) struct Usage {
    counted: HashMap<Arc<str>, Counted>,
    /// Of whom the store does not know it yet.
    unwritten: BTreeSet<Arc<str>>,
}

#[derive(Debug, Clone, Copy)]
struct Counted {
    month: Month,
    accepted: u64,
}

impl Usage {
    /// As it was stored.
    pub fn restore(records: Vec<UsageRecord>) -> Self {
        let counted = |UsageRecord { client, month, accepted }| (client, Counted { month, accepted });
        Self { counted: records.into_iter().map(counted).collect(), unwritten: BTreeSet::new() }
    }

    fn used(&self, client: &str, month: Month) -> u64 {
        self.counted
            .get(client)
            .filter(|counted| counted.month == month)
            .map_or(0, |counted| counted.accepted)
    }

    fn count(&mut self, client: &Arc<str>, month: Month) {
        let accepted = self.used(client, month) + 1;
        self.counted.insert(client.clone(), Counted { month, accepted });
        self.unwritten.insert(client.clone());
    }

    /// A submission that was counted did not become durable. The store never heard of it, nor of its count.
    pub fn uncount(&mut self, client: &str) {
        if let Some(counted) = self.counted.get_mut(client) {
            counted.accepted = counted.accepted.saturating_sub(1);
        }
        self.unwritten.remove(client);
    }

    fn take_unwritten(&mut self) -> impl Iterator<Item = UsageRecord> {
        std::mem::take(&mut self.unwritten).into_iter().filter_map(|client| {
            let Counted { month, accepted } = *self.counted.get(&client)?;
            Some(UsageRecord { client, month, accepted })
        })
    }
}

impl Core {
    /// The month to count in, if the client has a quota and something is left of it.
    pub(super) fn check_quota(&self, client: &str) -> Result<Option<Month>, ApiError> {
        let Some(quota) = self.tenancy.current().of(client).quota else { return Ok(None) };
        let now = self.clock.wall();
        let month = Month::of(now);
        if self.usage.used(client, month) < quota {
            return Ok(Some(month));
        }
        let hint = format!(
            "Client {client:?} may submit {quota} jobs in a month, and {month} is used up. It begins anew at {}.",
            month.end().to_rfc3339()
        );
        let wait = month.end().saturating_since(now);
        Err(ApiError::new(ErrorCode::QuotaExceeded, "Quota exceeded").with_hint(hint).with_retry_after(wait))
    }

    /// A submission was accepted.
    pub(super) fn count_accepted(&mut self, client: &Arc<str>, month: Option<Month>) {
        if let Some(month) = month {
            self.usage.count(client, month);
        }
    }

    /// Puts what has been counted into the batch, behind the submissions.
    pub(super) fn write_usage(&mut self) {
        let records = self.usage.take_unwritten();
        self.batch.writes.writes.extend(records.map(Write::PutUsage));
    }
}
