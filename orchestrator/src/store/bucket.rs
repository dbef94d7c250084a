//! How far the bucket of a rate key is emptied: what is stored of it, and the bytes of its row.
//!
//! It is written in the transaction in which somebody takes a token, so that a restart fills no bucket. A bucket that is full again says
//! no more than one that is not there, and is forgotten. It refuses to know who took the tokens.

use std::{sync::Arc, time::Duration};

use prost::Message;

use super::record::{Damaged, Kind, seal, unseal};
use crate::time::Timestamp;

/// The bucket of a rate key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketRecord {
    /// The key.
    pub key: Arc<str>,
    /// The period in which its tokens are counted: another period is another bucket.
    pub per: Duration,
    /// When it will be full, if nobody takes another token. Each token that is taken puts it off by the time in which one comes.
    pub full_at: Timestamp,
    /// The longest that filling it can take, as whoever took the last token counts. Should the clock have been set back, it is
    /// empty, and not emptier than that.
    pub depth: Duration,
}

// Tags are for ever: a tag that goes out of use is never given away again.
#[derive(Message)]
struct StoredBucket {
    #[prost(int64, tag = "1")]
    full_at_us: i64,
    #[prost(uint64, tag = "2")]
    depth_us: u64,
}

/// The row of a bucket.
pub(super) fn encode(record: &BucketRecord, buffer: &mut Vec<u8>) {
    let message =
        StoredBucket { full_at_us: record.full_at.as_micros(), depth_us: record.depth.as_micros() as u64 };
    seal(Kind::Bucket, &owner(&record.key, micros(record.per)), &message, buffer);
}

/// The row of the bucket of this key and period.
pub(super) fn decode(key: &str, per_us: i64, record: &[u8]) -> Result<BucketRecord, Damaged> {
    let message: StoredBucket = unseal(Kind::Bucket, &owner(key, per_us), record)?;
    Ok(BucketRecord {
        key: key.into(),
        per: Duration::from_micros(per_us.unsigned_abs()),
        full_at: Timestamp::from_micros(message.full_at_us),
        depth: Duration::from_micros(message.depth_us),
    })
}

/// A period as a column has it.
pub(super) fn micros(per: Duration) -> i64 {
    i64::try_from(per.as_micros()).unwrap_or(i64::MAX)
}

pub(super) fn owner(key: &str, per_us: i64) -> Vec<u8> {
    [&per_us.to_le_bytes(), key.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_is_read_as_it_was_written_and_never_as_another_one() {
        let record = BucketRecord {
            key: "mail".into(),
            per: Duration::from_secs(60),
            full_at: Timestamp::from_micros(1_700_000_000_000_000),
            depth: Duration::from_secs(7),
        };
        let mut bytes = Vec::new();
        encode(&record, &mut bytes);
        assert_eq!(decode("mail", micros(record.per), &bytes).unwrap(), record);
        assert!(decode("mails", micros(record.per), &bytes).is_err());
        assert!(decode("mail", 1, &bytes).is_err());
    }
}
