//! The blueprints that this orchestrator serves: every version that a job may keep, and the newest of each for new jobs.

use std::{collections::BTreeMap, fmt, sync::Arc};

use super::{Blueprint, Definition};

/// All versions of all blueprints. Immutable; a change makes a new one.
#[derive(Debug, Default, Clone)]
pub struct Registry {
    /// By name and version: looked up with every decision.
    versions: BTreeMap<Arc<str>, BTreeMap<u32, Arc<Blueprint>>>,
    newest: BTreeMap<Arc<str>, Arc<Blueprint>>,
    by_endpoint: BTreeMap<Arc<str>, Arc<Blueprint>>,
}

/// What becomes of a registry when other definitions are to be served.
#[derive(Debug)]
pub struct Enactment {
    /// The registry as it will be.
    pub registry: Registry,
    /// The versions that are new in it. They have to be stored before anybody is served by them.
    pub new_versions: Vec<Arc<Blueprint>>,
    /// What changes for new jobs, by name.
    pub changes: Vec<Change>,
}

/// What changes for new jobs of one blueprint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Its name.
    pub name: Arc<str>,
    /// The version that new jobs took before; `None` when it was not served.
    pub before: Option<u32>,
    /// The version that they take from now on; `None` when it is served no more.
    pub after: Option<u32>,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.before, self.after) {
            (None, Some(after)) => write!(f, "{}: version {after}, served from now on", self.name),
            (Some(before), Some(after)) => write!(f, "{}: version {after} instead of {before}", self.name),
            (_, None) => write!(f, "{}: served no more", self.name),
        }
    }
}

impl Registry {
    /// Adds a version. With `served`, new jobs may take it, by name and at its endpoint; without, it only serves the jobs that keep it.
    pub fn add(&mut self, blueprint: Arc<Blueprint>, served: bool) {
        self.versions.entry(blueprint.name.clone()).or_default().insert(blueprint.version, blueprint.clone());
        if served {
            if let Some(endpoint) = &blueprint.endpoint {
                self.by_endpoint.insert(endpoint.clone(), blueprint.clone());
            }
            self.newest.insert(blueprint.name.clone(), blueprint);
        }
    }

    /// The registry in which these definitions are served, and those that were put last, and no others. A definition that differs
    /// from the latest version of its name becomes the next one; every version stays for the jobs that keep it. What was put
    /// gives way to a file that has changed since, and not to one that is as it was: the last change counts.
    pub fn enact(&self, definitions: Vec<Definition>) -> Enactment {
        let mut registry = Self { versions: self.versions.clone(), ..Self::default() };
        for blueprint in self.put_last().filter(|put| definitions.iter().all(|file| *file.name() != put.name))
        {
            registry.add(blueprint.clone(), true);
        }
        let mut new_versions = Vec::new();
        for definition in definitions {
            let latest = registry.latest(definition.name());
            let blueprint = match latest {
                Some(latest) if latest.definition == *definition.canonical() => latest.clone(),
                Some(latest) if latest.is_put && registry.is_as_before(&definition) => latest.clone(),
                latest => {
                    let version = latest.map_or(1, |latest| latest.version + 1);
                    let blueprint = Arc::new(definition.into_blueprint(version));
                    new_versions.push(blueprint.clone());
                    blueprint
                }
            };
            registry.add(blueprint, true);
        }
        let changes = self.changes_to(&registry);
        Enactment { registry, new_versions, changes }
    }

    /// The registry in which this definition is served under its name, whatever else is. What is served already stays as it is.
    pub fn put(&self, definition: Definition) -> Enactment {
        let name = definition.name().clone();
        let served = self.newest(&name);
        if served.is_some_and(|served| served.definition == *definition.canonical()) {
            return Enactment { registry: self.clone(), new_versions: Vec::new(), changes: Vec::new() };
        }
        let mut registry = self.clone();
        // It may have moved, and goes with the version that had it.
        registry.by_endpoint.retain(|_, holder| holder.name != name);
        let version = self.latest(&name).map_or(1, |latest| latest.version + 1);
        let blueprint = Arc::new(Blueprint { is_put: true, ..definition.into_blueprint(version) });
        registry.add(blueprint.clone(), true);
        let changes = self.changes_to(&registry);
        Enactment { registry, new_versions: vec![blueprint], changes }
    }

    /// Whether the last version that came from a file, and not over the wire, was this one.
    fn is_as_before(&self, definition: &Definition) -> bool {
        let from_file = self.versions_of(definition.name()).rfind(|blueprint| !blueprint.is_put);
        from_file.is_some_and(|blueprint| blueprint.definition == *definition.canonical())
    }

    /// The blueprints whose latest version was put over the wire.
    pub(super) fn put_last(&self) -> impl Iterator<Item = &Arc<Blueprint>> {
        let latest = self.versions.values().filter_map(|versions| versions.values().next_back());
        latest.filter(|latest| latest.is_put)
    }

    fn changes_to(&self, other: &Self) -> Vec<Change> {
        let version_in = |registry: &Self, name: &str| registry.newest(name).map(|served| served.version);
        let gone = self.newest.keys().filter(|name| other.newest(name).is_none());
        let mut changes: Vec<Change> = gone
            .chain(other.newest.keys())
            .map(|name| Change {
                name: name.clone(),
                before: version_in(self, name),
                after: version_in(other, name),
            })
            .filter(|change| change.before != change.after)
            .collect();
        changes.sort_by(|a, b| a.name.cmp(&b.name));
        changes
    }

    /// The latest version of this blueprint, served or not.
    fn latest(&self, name: &str) -> Option<&Arc<Blueprint>> {
        self.versions_of(name).next_back()
    }

    /// Every version of this blueprint, from the first on.
    fn versions_of(&self, name: &str) -> impl DoubleEndedIterator<Item = &Arc<Blueprint>> {
        self.versions.get(name).into_iter().flat_map(BTreeMap::values)
    }

    /// This version of this blueprint.
    pub fn version(&self, name: &str, version: u32) -> Option<&Arc<Blueprint>> {
        self.versions.get(name)?.get(&version)
    }

    /// The version that new jobs take.
    pub fn newest(&self, name: &str) -> Option<&Arc<Blueprint>> {
        self.newest.get(name)
    }

    /// The blueprint whose jobs are created at this path under `/api`.
    pub fn at_endpoint(&self, path: &str) -> Option<&Arc<Blueprint>> {
        self.by_endpoint.get(path)
    }

    /// Those that are served and have an endpoint that leads to another one.
    pub fn without_their_endpoint(&self) -> impl Iterator<Item = &Arc<Blueprint>> {
        let is_there = |blueprint: &&Arc<Blueprint>| {
            let endpoint = blueprint.endpoint.as_ref();
            let holder = endpoint.and_then(|endpoint| self.at_endpoint(endpoint));
            holder.is_none_or(|holder| holder.name == blueprint.name)
        };
        self.served().filter(move |blueprint| !is_there(blueprint))
    }

    /// What new jobs can be created from, by name.
    pub fn served(&self) -> impl Iterator<Item = &Arc<Blueprint>> {
        self.newest.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blueprint::load;

    fn definition(name: &str, endpoint: &str, end: &str) -> Definition {
        let text = format!(
            "blueprint: {name}\nendpoint: {endpoint}\nstates:\n  only: {{ start: true, end: {end} }}\n"
        );
        load("test.yaml", &text).unwrap_or_else(|findings| panic!("{findings:?}")).definition
    }

    fn told(enactment: &Enactment) -> Vec<String> {
        let shown = |version: Option<u32>| version.map_or("-".to_owned(), |version| version.to_string());
        let change =
            |change: &Change| format!("{} {} to {}", change.name, shown(change.before), shown(change.after));
        enactment.changes.iter().map(change).collect()
    }

    #[test]
    fn a_changed_definition_is_the_next_version_and_an_unchanged_one_is_none() {
        let empty = Registry::default();
        let first = empty.enact(vec![definition("b", "/b", "finished"), definition("a", "/a", "finished")]);
        assert_eq!(told(&first), ["a - to 1", "b - to 1"]);
        let same =
            first.registry.enact(vec![definition("a", "/a", "finished"), definition("b", "/b", "finished")]);
        assert_eq!((told(&same).len(), same.new_versions.len()), (0, 0));
        let changed =
            first.registry.enact(vec![definition("a", "/a", "failed"), definition("b", "/b", "finished")]);
        assert_eq!(told(&changed), ["a 1 to 2"]);
        assert_eq!(changed.new_versions.len(), 1);
        assert!(changed.registry.version("a", 1).is_some(), "jobs may keep it");
    }

    #[test]
    fn what_was_put_stays_until_its_file_changes() {
        let files = |end| vec![definition("a", "/a", end)];
        let from_files = Registry::default().enact(files("finished")).registry;
        let put = from_files.put(definition("a", "/put", "failed"));
        assert_eq!((told(&put), put.new_versions.len()), (vec!["a 1 to 2".to_owned()], 1));
        assert!(put.registry.at_endpoint("/a").is_none() && put.registry.at_endpoint("/put").is_some());
        let again = put.registry.put(definition("a", "/put", "failed"));
        assert_eq!((told(&again).len(), again.new_versions.len()), (0, 0));

        // The file is as it was when it was put over: it has nothing new to say.
        let unchanged = put.registry.enact(files("finished"));
        assert_eq!((told(&unchanged).len(), unchanged.new_versions.len()), (0, 0));
        // Without a file it stays as well.
        assert_eq!(told(&put.registry.enact(vec![])).len(), 0);
        // A file that says something new takes its place, and is then as good as any file.
        let changed = put.registry.enact(vec![definition("a", "/new", "finished")]);
        assert_eq!(told(&changed), ["a 2 to 3"]);
        assert!(changed.registry.at_endpoint("/put").is_none());
        assert_eq!(told(&changed.registry.enact(vec![])), ["a 3 to -"]);
    }

    #[test]
    fn what_is_put_comes_back_from_the_store_and_serves_others_no_less() {
        let put = Registry::default().enact(vec![definition("a", "/a", "finished")]).registry;
        let put = put.put(definition("b", "/b", "finished")).registry;
        let mut stored = Registry::default();
        put.versions.values().flat_map(BTreeMap::values).for_each(|one| stored.add(one.clone(), false));
        let restarted = stored.enact(vec![definition("a", "/a", "finished")]).registry;
        assert!(restarted.at_endpoint("/b").is_some() && restarted.newest("a").is_some());
    }

    #[test]
    fn a_definition_that_is_gone_is_not_served_and_keeps_its_versions_and_its_numbers() {
        let both = Registry::default()
            .enact(vec![definition("a", "/a", "finished"), definition("b", "/b", "finished")])
            .registry;
        let without = both.enact(vec![definition("b", "/moved", "finished")]);
        assert_eq!(told(&without), ["a 1 to -", "b 1 to 2"]);
        let without = without.registry;
        assert!(without.newest("a").is_none() && without.at_endpoint("/a").is_none());
        assert!(without.at_endpoint("/b").is_none(), "an endpoint goes with the version that had it");
        assert!(without.version("a", 1).is_some());
        let same_again =
            without.enact(vec![definition("a", "/a", "finished"), definition("b", "/moved", "finished")]);
        assert_eq!(told(&same_again), ["a - to 1"]);
        let other = without.enact(vec![definition("a", "/a", "failed")]);
        assert_eq!(told(&other), ["a - to 2", "b 2 to -"]);
    }
}
