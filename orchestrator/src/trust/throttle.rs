//! Addresses from which wrong tokens come. Past a rate, what they are told costs less and tells less, and is noted less often.
//!
//! Only who was refused comes here, so that a good token behind the same address is never kept waiting. The table has a fixed
//! size: addresses that fall on one place share it, and where they fall is a secret of this process.

use std::{
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use super::{Bucket, Rate};

/// Places of the table: 128 KiB, and a hundred attackers rarely share one.
const PLACES: usize = 1024;

/// Refusals that are answered as such, from one address. Beyond it, the answer is to come later.
const ANSWERED: Rate = Rate { count: 600, period: Duration::from_secs(60) };

/// Refusals that are noted, from one address.
const NOTED: Rate = Rate { count: 10, period: Duration::from_secs(60) };

/// What to do about a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Advice {
    /// Say that it was one too many, and when to come again.
    pub wait: Option<Duration>,
    /// Note it, and how many before it were not noted.
    pub note: Option<u64>,
}

/// Who was refused how often lately.
#[derive(Debug)]
pub struct Throttle {
    places: Box<[Place]>,
    hasher: RandomState,
}

#[derive(Debug, Default)]
struct Place {
    answered: Bucket,
    noted: Bucket,
    left_out: Mutex<u64>,
}

impl Default for Throttle {
    fn default() -> Self {
        let places = std::iter::repeat_with(Place::default).take(PLACES).collect();
        Self { places, hasher: RandomState::new() }
    }
}

impl Throttle {
    /// Somebody at this address was refused. `now` is the time since some moment, the same for all calls.
    pub fn refused(&self, from: IpAddr, now: Duration) -> Advice {
        let place = &self.places[self.hasher.hash_one(network(from)) as usize % PLACES];
        let wait = place.answered.take(ANSWERED, now).err();
        let mut left_out = place.left_out.lock().unwrap_or_else(PoisonError::into_inner);
        let note = match place.noted.take(NOTED, now) {
            Ok(()) => Some(std::mem::take(&mut *left_out)),
            Err(_) => {
                *left_out += 1;
                None
            }
        };
        Advice { wait, note }
    }
}

/// Whom an address stands for: of IPv6, everybody has a network of their own.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() & !u128::from(u64::MAX)).into()),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    #[test]
    fn a_few_mistakes_are_told_and_noted_and_a_flood_is_counted() {
        let (throttle, second) = (Throttle::default(), Duration::from_secs(1));
        let burst: Vec<Advice> = (0..1000).map(|_| throttle.refused(HERE, second)).collect();
        assert_eq!(burst.iter().filter(|advice| advice.wait.is_none()).count(), 600);
        assert_eq!(burst.iter().filter(|advice| advice.note.is_some()).count(), 10);
        assert_eq!(burst[999].wait, Some(second / 10));
        let later = throttle.refused(HERE, second * 61);
        assert_eq!(later, Advice { wait: None, note: Some(990) });
    }

    #[test]
    fn a_network_is_one_place_however_many_addresses_it_has() {
        let parse = |text: &str| network(text.parse().unwrap());
        assert_eq!(parse("2001:db8:1:2::1"), parse("2001:db8:1:2:ffff::9"));
        assert_ne!(parse("2001:db8:1:2::1"), parse("2001:db8:1:3::1"));
        assert_eq!(parse("::ffff:192.0.2.1"), HERE);
    }
}
