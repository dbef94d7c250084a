//! How much of its quota a client has used: what is stored of it, and the bytes of its row.
//!
//! It is written in the transaction of the submissions that it counts, so that none of them is counted without being there, or is
//! there without being counted, whatever happens in between. It refuses to know how large a quota is.

use std::sync::Arc;

use prost::Message;

use super::record::{Damaged, Kind, seal, unseal};
use crate::time::Month;

/// How many submissions of a client were accepted in a month.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageRecord {
    /// Whose.
    pub client: Arc<str>,
    /// In which month.
    pub month: Month,
    /// How many.
    pub accepted: u64,
}

// Tags are for ever: a tag that goes out of use is never given away again.
#[derive(Message)]
struct StoredUsage {
    /// Months since the beginning of the year 0.
    #[prost(sint32, tag = "1")]
    month: i32,
    #[prost(uint64, tag = "2")]
    accepted: u64,
}

/// The row of a client.
pub(super) fn encode(record: &UsageRecord, buffer: &mut Vec<u8>) {
    let message = StoredUsage { month: record.month.number(), accepted: record.accepted };
    seal(Kind::Usage, record.client.as_bytes(), &message, buffer);
}

/// The row of the client with this name.
pub(super) fn decode(client: &str, record: &[u8]) -> Result<UsageRecord, Damaged> {
    let StoredUsage { month, accepted } = unseal(Kind::Usage, client.as_bytes(), record)?;
    let unknown = || Damaged::new(format!("{month} is not the number of a month"));
    let month = Month::from_number(month).ok_or_else(unknown)?;
    Ok(UsageRecord { client: client.into(), month, accepted })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Timestamp;

    fn record() -> UsageRecord {
        let month = Month::of(Timestamp::from_micros(1_700_000_000_000_000));
        UsageRecord { client: "acme".into(), month, accepted: 4711 }
    }

    #[test]
    fn what_is_written_is_read_and_every_damaged_byte_is_noticed() {
        let mut bytes = Vec::new();
        encode(&record(), &mut bytes);
        assert_eq!(decode("acme", &bytes), Ok(record()));
        assert!(decode("umbrella", &bytes).is_err(), "another one's row");
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 4;
            assert!(decode("acme", &damaged).is_err(), "byte {at}");
        }
    }

    /// These bytes are on people's disks: if this test fails, the change breaks every store there is.
    #[test]
    fn the_bytes_are_those_of_every_release() {
        let mut bytes = Vec::new();
        encode(&record(), &mut bytes);
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "0108bcfb0210e724ee742b96");
    }
}
