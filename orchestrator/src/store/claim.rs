//! What a job takes of keys, as it is written down in its record and in its stub.
//!
//! The same messages stand in both. Limits are written with each share: a job is held to those of its own version, whatever the blueprint
//! has become since.

use std::{sync::Arc, time::Duration};

use prost::Message;

use super::record::Damaged;
use crate::{
    blueprint::{KeyLimit, KeyPolicy, Rate, Share},
    engine::{Claim, Hold, KeyScope},
    time::Timestamp,
};

// Tags are for ever: a tag that goes out of use is never given away again.

#[derive(Message)]
pub(super) struct StoredHold {
    #[prost(int64, tag = "1")]
    since_us: i64,
    #[prost(message, repeated, tag = "2")]
    shares: Vec<StoredShare>,
}

/// Of a concurrency key, `per_us` is absent.
#[derive(Message)]
struct StoredShare {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(uint32, tag = "2")]
    limit: u32,
    #[prost(uint64, optional, tag = "3")]
    per_us: Option<u64>,
    #[prost(uint32, tag = "4")]
    burst: u32,
    #[prost(uint32, tag = "5")]
    policy: u32,
}

pub(super) fn hold_to_stored(hold: &Hold) -> StoredHold {
    let shares = hold.claim.shares.iter().map(share_to_stored).collect();
    StoredHold { since_us: hold.since.as_micros(), shares }
}

/// `shared` gives one text for each key, however many records name it.
pub(super) fn hold_from_stored(
    stored: StoredHold,
    shared: &mut impl FnMut(&str) -> Arc<str>,
) -> Result<Hold, Damaged> {
    let shares: Result<_, Damaged> =
        stored.shares.into_iter().map(|share| share_from_stored(share, shared)).collect();
    let claim = Arc::new(Claim { shares: shares? });
    Ok(Hold { claim, since: Timestamp::from_micros(stored.since_us) })
}

/// The claim of a branch, which nobody has held yet.
pub(super) fn claim_to_stored(claim: &Claim) -> StoredHold {
    StoredHold { since_us: 0, shares: claim.shares.iter().map(share_to_stored).collect() }
}

fn share_to_stored(share: &Share) -> StoredShare {
    let (limit, per_us, burst) = match share.limit {
        KeyLimit::Concurrency(limit) => (limit, None, 0),
        KeyLimit::Rate(rate) => (rate.count, Some(rate.per.as_micros() as u64), rate.burst),
    };
    StoredShare { key: share.key.to_string(), limit, per_us, burst, policy: share.policy as u32 }
}

fn share_from_stored(
    stored: StoredShare,
    shared: &mut impl FnMut(&str) -> Arc<str>,
) -> Result<Share, Damaged> {
    let policy = u8::try_from(stored.policy).ok().and_then(KeyPolicy::from_number);
    let limit = match stored.per_us {
        None => KeyLimit::Concurrency(stored.limit),
        Some(per) => {
            let per = Duration::from_micros(per);
            KeyLimit::Rate(Rate { count: stored.limit, per, burst: stored.burst })
        }
    };
    Ok(Share {
        key: shared(&stored.key),
        limit,
        policy: policy
            .ok_or_else(|| Damaged::new(format!("{} is not the number of a key's policy", stored.policy)))?,
    })
}

/// The scope with this number.
pub(super) fn scope_from_stored(number: u32) -> Result<KeyScope, Damaged> {
    let scope = u8::try_from(number).ok().and_then(KeyScope::from_number);
    scope.ok_or_else(|| Damaged::new(format!("{number} is not the number of a scope of keys")))
}
