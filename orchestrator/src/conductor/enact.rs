//! Other blueprints come into force: decided and committed like everything else, so that nobody is served by a version that is
//! not durable, and no job refers to one.

use std::sync::Arc;

use avtomatika_proto::ApiError;

use super::{
    batch::Afterwards,
    core::Core,
    handle::Conductor,
    mailbox::{Reply, Request, Served},
};
use crate::{
    blueprint::{Blueprint, Change, Definition, Registry},
    store::{BlueprintRecord, Write},
};

impl Conductor {
    /// Serves these definitions to new jobs from now on, and no others. Jobs that exist keep their versions. Answers what
    /// changed, when that is durable and in force.
    ///
    /// # Errors
    /// `STORAGE_FULL`, `OVERLOADED`, `SHUTTING_DOWN`: nothing has changed.
    pub async fn enact(&self, definitions: Vec<Definition>) -> Result<Vec<Change>, ApiError> {
        self.mailbox.ask(|reply| Request::Enact(Served::These(definitions), reply)).await?
    }

    /// Serves this definition to new jobs from now on, in place of the one of its name if there is one. It stays served, also
    /// after a restart, until its file changes or another is put. Answers what changed, when that is durable and in force.
    ///
    /// # Errors
    /// `STORAGE_FULL`, `OVERLOADED`, `SHUTTING_DOWN`: nothing has changed.
    pub async fn put_blueprint(&self, definition: Definition) -> Result<Vec<Change>, ApiError> {
        self.mailbox.ask(|reply| Request::Enact(Served::Also(definition), reply)).await?
    }
}

impl Core {
    pub(super) fn enact(&mut self, served: Served, reply: Reply<Result<Vec<Change>, ApiError>>) {
        if let Err(error) = self.check_serving() {
            return drop(reply.send(Err(error)));
        }
        // On top of what was decided last, so that two changes at once do not make the same version twice.
        let last = self.enacted.as_ref().unwrap_or(&self.blueprints);
        let enactment = match served {
            Served::These(definitions) => last.enact(definitions),
            Served::Also(definition) => last.put(definition),
        };
        let registry = Arc::new(enactment.registry);
        self.batch.writes.writes.extend(records(&enactment.new_versions));
        self.enacted = Some(registry.clone());
        self.batch.afterwards.push(Afterwards::Enacted { registry, changes: enactment.changes, reply });
    }

    /// The versions are durable.
    pub(super) fn put_in_force(
        &mut self,
        registry: Arc<Registry>,
        changes: Vec<Change>,
        reply: Reply<Result<Vec<Change>, ApiError>>,
    ) {
        if self.enacted.as_ref().is_some_and(|enacted| Arc::ptr_eq(enacted, &registry)) {
            self.enacted = None;
        }
        self.blueprints = registry.clone();
        self.catalog.replace(registry);
        let _ = reply.send(Ok(changes));
    }
}

/// What has to be stored of new versions.
pub(crate) fn records(new_versions: &[Arc<Blueprint>]) -> impl Iterator<Item = Write> {
    new_versions.iter().map(|blueprint| {
        Write::PutBlueprint(BlueprintRecord {
            name: blueprint.name.clone(),
            version: blueprint.version,
            definition: blueprint.definition.clone(),
            is_put: blueprint.is_put,
        })
    })
}
