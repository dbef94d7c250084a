//! Figures by name, for names that are an operator's own: of blueprints and of task types.
//!
//! It promises that there are never more than [`NAMES_MAX`] names and one for the rest, whoever brings new ones, and that a
//! name that is known costs one look-up. It refuses to know what is counted.

use std::{
    fmt,
    sync::{Arc, PoisonError, RwLock},
};

use crate::hash::FastMap;

/// Names that have figures of their own, of blueprints and of task types each. Further ones share the figures of [`OTHER`].
pub const NAMES_MAX: usize = 200;

/// The name under which names beyond [`NAMES_MAX`] are counted.
pub const OTHER: &str = "other";

/// Makes the figures of a name.
type Make<M> = Box<dyn Fn(&Arc<str>) -> M + Send + Sync>;

/// The figures of each name. The first names that come are kept for as long as the process runs, so that no counter goes back.
pub(super) struct ByName<M> {
    meters: RwLock<FastMap<Arc<str>, Arc<M>>>,
    make: Make<M>,
}

impl<M> ByName<M> {
    /// Nobody is known yet; `make` makes the figures of a name.
    pub(super) fn new(make: impl Fn(&Arc<str>) -> M + Send + Sync + 'static) -> Self {
        Self { meters: RwLock::default(), make: Box::new(make) }
    }

    /// The figures of this name.
    pub(super) fn of(&self, name: &Arc<str>) -> Arc<M> {
        // A map of whole entries is never left half changed.
        let known = self.meters.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(meter) = known.get(name) {
            return meter.clone();
        }
        drop(known);
        let mut meters = self.meters.write().unwrap_or_else(PoisonError::into_inner);
        let name = match meters.len() < NAMES_MAX || meters.contains_key(name) {
            true => name.clone(),
            false => Arc::from(OTHER),
        };
        meters.entry(name).or_insert_with_key(|name| Arc::new((self.make)(name))).clone()
    }

    /// Whether this name has figures of its own.
    pub(super) fn knows(&self, name: &str) -> bool {
        self.meters.read().unwrap_or_else(PoisonError::into_inner).contains_key(name)
    }

    /// Does this with every name that is known.
    pub(super) fn each(&self, mut visit: impl FnMut(&M)) {
        let meters = self.meters.read().unwrap_or_else(PoisonError::into_inner);
        meters.values().for_each(|meter| visit(meter));
    }
}

impl<M> fmt::Debug for ByName<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ByName")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn beyond_the_limit_names_share_one() {
        let made = Arc::new(AtomicUsize::new(0));
        let count = made.clone();
        let by_name = ByName::new(move |name| {
            count.fetch_add(1, Ordering::Relaxed);
            name.clone()
        });
        for n in 0..100_000 {
            by_name.of(&Arc::from(format!("name-{n}")));
        }
        assert_eq!(made.load(Ordering::Relaxed), NAMES_MAX + 1);
        assert_eq!(&**by_name.of(&Arc::from("name-7")), "name-7", "whoever came first keeps its own");
        assert_eq!(&**by_name.of(&Arc::from("name-99999")), OTHER);
        let mut names = 0;
        by_name.each(|_| names += 1);
        assert_eq!(names, NAMES_MAX + 1);
    }
}
