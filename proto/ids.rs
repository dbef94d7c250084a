//! Ids that cannot be mistaken for one another.
//!
//! Job and task ids are UUIDs in their one canonical form (36 characters, lower case, hyphens): any other spelling is
//! refused, so that an id has one name in logs, stores and URLs.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The text is not a UUID in canonical form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an id: expected 36 characters such as 01890a5d-ac96-774b-bcce-b302099a8057")]
pub struct InvalidId;

fn parse_canonical(text: &str) -> Result<Uuid, InvalidId> {
    let id = Uuid::try_parse(text).map_err(|_| InvalidId)?;
    let mut buffer = Uuid::encode_buffer();
    if id.hyphenated().encode_lower(&mut buffer) == text { Ok(id) } else { Err(InvalidId) }
}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// The 16 bytes, for storage.
            pub fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }

            /// The id with these 16 bytes.
            pub fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(Uuid::from_bytes(bytes))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                parse_canonical(text).map(Self)
            }
        }
    };
}

uuid_id! {
    /// One run of a blueprint. A UUID of version 7 whose leading 60 bits (milliseconds and a counter) are unique by
    /// themselves within one orchestrator: see [`JobId::key`].
    JobId
}

uuid_id! {
    /// One attempt at a task, and its fence: only the result that carries the current one is applied.
    TaskId
}

uuid_id! {
    /// One registration of a worker. Unguessable, hence a credential: do not log it.
    SessionId
}

impl JobId {
    /// Bits of the counter that tells jobs of one millisecond apart.
    pub const COUNTER_BITS: u32 = 12;

    /// The id made of a time, a counter within that millisecond, and randomness.
    ///
    /// `unix_ms` uses its low 48 bits, `counter` its low 12, `random` its low 62.
    pub fn compose(unix_ms: u64, counter: u16, random: u64) -> Self {
        let high = (unix_ms & 0xffff_ffff_ffff) << 16 | 0x7000 | u64::from(counter & 0x0fff);
        let low = 0x8000_0000_0000_0000 | (random & 0x3fff_ffff_ffff_ffff);
        Self(Uuid::from_u64_pair(high, low))
    }

    /// A number that is unique within one orchestrator and grows with time: 48 bits of milliseconds, 12 of counter. It
    /// saves stores a second index; it is not a name, since two orchestrators may use the same.
    pub fn key(&self) -> i64 {
        let (high, _) = self.0.as_u64_pair();
        // 60 bits: never negative.
        ((high >> 16) << Self::COUNTER_BITS | (high & 0x0fff)) as i64
    }

    /// The id whose key is so much larger, with the same randomness: of a job that was reserved together with this one.
    pub fn sibling(&self, distance: u32) -> Self {
        let (_, low) = self.0.as_u64_pair();
        Self::of_key(self.key() + i64::from(distance), low)
    }

    /// The id with this key; `random` uses its low 62 bits.
    pub fn of_key(key: i64, random: u64) -> Self {
        let counter = (key & ((1 << Self::COUNTER_BITS) - 1)) as u16;
        Self::compose((key >> Self::COUNTER_BITS) as u64, counter, random)
    }

    /// The smallest key that a job of this millisecond can have.
    pub fn first_key_of(unix_ms: u64) -> i64 {
        ((unix_ms & 0xffff_ffff_ffff) << Self::COUNTER_BITS) as i64
    }
}

impl TaskId {
    /// The id of an attempt at a task of this job. It begins as the job's does, so that in an ordered map the tasks of jobs that
    /// wait together lie together; `random` uses its low 62 bits, and tells the attempts apart.
    pub fn of_job(job: JobId, random: u64) -> Self {
        Self(JobId::of_key(job.key(), random).0)
    }

    /// The id made of 128 random bits, six of which are replaced by the version and variant marks.
    pub fn from_random(random: u128) -> Self {
        Self(uuid::Builder::from_random_bytes(random.to_be_bytes()).into_uuid())
    }
}

impl SessionId {
    /// The id made of 128 random bits, six of which are replaced by the version and variant marks.
    pub fn from_random(random: u128) -> Self {
        Self(uuid::Builder::from_random_bytes(random.to_be_bytes()).into_uuid())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn job_id_is_a_uuid_of_version_7_and_its_key_orders_by_time_then_counter() {
        let id = JobId::compose(1_700_000_000_000, 5, u64::MAX);
        assert_eq!(id.to_string().len(), 36);
        assert_eq!(id.0.get_version_num(), 7);
        assert_eq!(id.key(), (1_700_000_000_000_i64 << 12) + 5);
        assert!(JobId::compose(1_700_000_000_001, 0, 0).key() > id.key());
        assert_eq!(id.to_string().parse(), Ok(id));
    }

    #[test]
    fn siblings_have_keys_in_a_row_across_milliseconds() {
        let first = JobId::compose(1_700_000_000_000, 4095, 77);
        assert_eq!(first.sibling(0), first);
        assert_eq!(first.sibling(1), JobId::compose(1_700_000_000_001, 0, 77));
        assert_eq!(first.sibling(10_000).key(), first.key() + 10_000);
    }

    #[test]
    fn ids_of_attempts_are_in_the_order_of_their_jobs_and_each_its_own() {
        let (earlier, later) =
            (JobId::compose(1_700_000_000_000, 5, 9), JobId::compose(1_700_000_000_000, 6, 1));
        let attempts =
            [TaskId::of_job(earlier, 1), TaskId::of_job(earlier, u64::MAX), TaskId::of_job(later, 0)];
        assert!(attempts.is_sorted_by(|one, other| one < other), "{attempts:?}");
        assert!(attempts[0].to_string().starts_with(&earlier.to_string()[..18]));
    }

    #[test]
    fn only_the_canonical_spelling_is_an_id() {
        for text in [
            "",
            "test",
            "01890A5D-AC96-774B-BCCE-B302099A8057",
            "01890a5dac96774bbcceb302099a8057",
            "{01890a5d-ac96-774b-bcce-b302099a8057}",
            "urn:uuid:01890a5d-ac96-774b-bcce-b302099a8057",
            "01890a5d-ac96-774b-bcce-b302099a8057\0",
        ] {
            assert_eq!(text.parse::<JobId>(), Err(InvalidId), "{text:?}");
        }
        assert!("01890a5d-ac96-774b-bcce-b302099a8057".parse::<JobId>().is_ok());
    }
}
