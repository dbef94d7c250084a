//! Where the registry in force is found, by everybody who serves while it may be replaced.
//!
//! Whoever reads takes the registry as a whole and keeps it for one piece of work, so that no request sees half of a change. It
//! refuses to know when a registry may come into force: that is the conductor's, after the commit.

use std::sync::{Arc, PoisonError, RwLock};

use super::Registry;

/// The registry in force. Cheap to clone; every clone sees the same one.
#[derive(Debug, Clone)]
pub struct Catalog(Arc<RwLock<Arc<Registry>>>);

impl Catalog {
    /// A catalog in which this registry is in force.
    pub fn new(registry: Arc<Registry>) -> Self {
        Self(Arc::new(RwLock::new(registry)))
    }

    /// The registry in force now. The lock is held for as long as it takes to count one reference more.
    pub fn current(&self) -> Arc<Registry> {
        // A registry is put in its place in one go: there is no half of one to be seen after a panic.
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts another registry into force.
    pub fn replace(&self, registry: Arc<Registry>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = registry;
    }
}
