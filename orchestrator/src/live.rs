//! Something that many read and somebody replaces while they do: the registry of blueprints, the terms of clients, settings.
//!
//! Whoever reads takes it as a whole and keeps that for one piece of work, so that nobody sees half of a change. It refuses to know
//! when another value may come into force.

use std::sync::{Arc, PoisonError, RwLock};

/// The value in force. Cheap to clone; every clone sees the same one.
#[derive(Debug)]
pub struct Live<T>(Arc<RwLock<Arc<T>>>);

impl<T> Live<T> {
    /// With this in force.
    pub fn new(value: impl Into<Arc<T>>) -> Self {
        Self(Arc::new(RwLock::new(value.into())))
    }

    /// What is in force now. The lock is held for as long as it takes to count one reference more.
    pub fn current(&self) -> Arc<T> {
        // A value is put in its place in one go: there is no half of one to be seen after a panic.
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts another one into force.
    pub fn replace(&self, value: impl Into<Arc<T>>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = value.into();
    }
}

impl<T> Clone for Live<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Default> Default for Live<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}
