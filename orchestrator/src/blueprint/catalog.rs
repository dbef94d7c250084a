//! Where the registry in force is found, by everybody who serves while it may be replaced.
//!
//! It refuses to know when a registry may come into force: that is the conductor's, after the commit.

use super::Registry;
use crate::live::Live;

/// The registry in force.
pub type Catalog = Live<Registry>;
