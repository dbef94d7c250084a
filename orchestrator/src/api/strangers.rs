//! Connections over which nobody has shown a good token yet: how many of them one address may have, and for how long.
//!
//! Whoever knows no token can open connections all the same, and a few hundred peers that keep theirs would leave no room for others.
//! Those over which one call was let in count no more, whatever else comes over them. It refuses to know what is asked.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use http::Extensions;
use tokio::time::sleep;

use super::limits::STRANGERS_OF_ADDRESS_MAX;
use crate::trust::network;

/// How many there are, by address. Cheap to clone.
#[derive(Clone)]
pub(super) struct Strangers {
    of: Arc<Mutex<HashMap<IpAddr, usize>>>,
    of_address_max: usize,
    /// Whether those of this machine count.
    with_ours: bool,
}

impl Strangers {
    /// Those of this machine do not count: whoever runs programs here can do worse, and ten thousand workers of one machine, or
    /// whatever comes through a proxy on it, would be taken for one stranger.
    pub fn new() -> Self {
        Self { of: Arc::default(), of_address_max: STRANGERS_OF_ADDRESS_MAX, with_ours: false }
    }

    /// Those of this machine count, too.
    #[cfg(test)]
    pub fn with_ours(of_address_max: usize) -> Self {
        Self { of: Arc::default(), of_address_max, with_ours: true }
    }

    /// Takes in another connection from there, unless there are as many as may be.
    pub fn take_in(&self, from: IpAddr) -> Option<Acquaintance> {
        let is_ours = from.to_canonical().is_loopback();
        let from = network(from);
        if self.with_ours || !is_ours {
            let mut of = self.lock();
            let count = of.entry(from).or_default();
            if *count >= self.of_address_max {
                return None;
            }
            *count += 1;
        }
        let (strangers, is_known, is_http_1) = (self.clone(), AtomicBool::new(false), AtomicBool::new(false));
        Some(Acquaintance(Arc::new(Connection { strangers, from, is_known, is_http_1 })))
    }

    fn leave(&self, from: IpAddr) {
        let mut of = self.lock();
        if let Some(count) = of.get_mut(&from) {
            *count -= 1;
            if *count == 0 {
                of.remove(&from);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.of.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is known of whoever is at the other end of a connection; in the extensions of its requests. Cheap to clone.
#[derive(Clone)]
pub(super) struct Acquaintance(Arc<Connection>);

struct Connection {
    strangers: Strangers,
    from: IpAddr,
    is_known: AtomicBool,
    is_http_1: AtomicBool,
}

impl Acquaintance {
    /// The request with these extensions had a good token.
    pub fn made(extensions: &Extensions) {
        if let Some(Self(connection)) = extensions.get() {
            connection.is_met();
        }
    }

    /// A request came over HTTP/1, which has a limit of its own for idle connections.
    pub fn speaks_http_1(&self) {
        self.0.is_http_1.store(true, Relaxed);
    }

    /// Returns when so much time has passed and a stranger is still one. Never returns of others.
    pub async fn is_not_made_within(&self, span: Duration) {
        sleep(span).await;
        if self.0.is_known.load(Relaxed) || self.0.is_http_1.load(Relaxed) {
            std::future::pending().await
        }
    }
}

impl Connection {
    fn is_met(&self) {
        // Read first: each request comes here, and most find it so.
        if !self.is_known.load(Relaxed) && !self.is_known.swap(true, Relaxed) {
            self.strangers.leave(self.from);
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.is_met();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request_of(acquaintance: &Acquaintance) -> Extensions {
        let mut extensions = Extensions::new();
        extensions.insert(acquaintance.clone());
        extensions
    }

    #[test]
    fn one_address_has_so_many_strangers_and_whoever_is_known_or_gone_is_none() {
        let strangers = Strangers::new();
        let take_in = |from: &str| strangers.take_in(from.parse().unwrap());
        let mut there: Vec<Acquaintance> =
            (0..STRANGERS_OF_ADDRESS_MAX).map(|_| take_in("192.0.2.1").unwrap()).collect();
        assert!(take_in("192.0.2.1").is_none() && take_in("::ffff:192.0.2.1").is_none());
        assert!(take_in("192.0.2.2").is_some(), "another address");
        Acquaintance::made(&request_of(&there[0]));
        Acquaintance::made(&request_of(&there[0]));
        there.push(take_in("192.0.2.1").unwrap());
        assert!(take_in("192.0.2.1").is_none(), "it was met once");
        drop(there.pop());
        assert!(take_in("192.0.2.1").is_some());
        drop(there);
        assert!(strangers.lock().is_empty(), "nobody is remembered who is gone");
    }

    #[test]
    fn a_network_of_ipv6_is_one_address_and_this_machine_is_none() {
        let strangers = Strangers::new();
        let all = |from: &dyn Fn(usize) -> String| -> Vec<Option<Acquaintance>> {
            (0..=STRANGERS_OF_ADDRESS_MAX).map(|n| strangers.take_in(from(n).parse().unwrap())).collect()
        };
        let network = all(&|n| format!("2001:db8:1:2::{n:x}"));
        assert_eq!(network.iter().flatten().count(), STRANGERS_OF_ADDRESS_MAX);
        for here in ["127.0.0.1", "::1"] {
            assert!(all(&|_| here.to_owned()).iter().all(Option::is_some), "{here}");
        }
    }
}
