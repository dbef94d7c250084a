//! The blueprints that this orchestrator serves: every version that a job may keep, and the newest of each for new jobs.

use std::{collections::BTreeMap, sync::Arc};

use super::Blueprint;

/// All versions of all blueprints. Immutable; a change makes a new one.
#[derive(Debug, Default, Clone)]
pub struct Registry {
    versions: BTreeMap<(Arc<str>, u32), Arc<Blueprint>>,
    newest: BTreeMap<Arc<str>, Arc<Blueprint>>,
    by_endpoint: BTreeMap<Arc<str>, Arc<Blueprint>>,
}

impl Registry {
    /// Adds a version. With `served`, new jobs may take it, by name and at its endpoint; without, it only serves the jobs that keep it.
    pub fn add(&mut self, blueprint: Arc<Blueprint>, served: bool) {
        self.versions.insert((blueprint.name.clone(), blueprint.version), blueprint.clone());
        if served {
            if let Some(endpoint) = &blueprint.endpoint {
                self.by_endpoint.insert(endpoint.clone(), blueprint.clone());
            }
            self.newest.insert(blueprint.name.clone(), blueprint);
        }
    }

    /// This version of this blueprint.
    pub fn version(&self, name: &str, version: u32) -> Option<&Arc<Blueprint>> {
        self.versions.get(&(Arc::from(name), version))
    }

    /// The version that new jobs take.
    pub fn newest(&self, name: &str) -> Option<&Arc<Blueprint>> {
        self.newest.get(name)
    }

    /// The blueprint whose jobs are created at this path under `/api`.
    pub fn at_endpoint(&self, path: &str) -> Option<&Arc<Blueprint>> {
        self.by_endpoint.get(path)
    }

    /// What new jobs can be created from, by name.
    pub fn served(&self) -> impl Iterator<Item = &Arc<Blueprint>> {
        self.newest.values()
    }
}
