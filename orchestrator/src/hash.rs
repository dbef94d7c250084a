//! Hash maps and sets for what the orchestrator looks up several times for each job.
//!
//! Their keys are ids that it has given out itself, or names that its operator has given. A hash function that withstands keys which
//! somebody has chosen to collide, as the standard library's does, took 7 % of the orchestrator's instructions for a job. Where clients or workers choose the
//! keys, the maps are those of the standard library.

use foldhash::fast::RandomState;

/// A map by ids or names of our own.
pub type FastMap<K, V> = std::collections::HashMap<K, V, RandomState>;

/// A set of them.
pub type FastSet<T> = std::collections::HashSet<T, RandomState>;

/// Such a map that remembers the order of what came.
pub type FastIndexMap<K, V> = indexmap::IndexMap<K, V, RandomState>;
