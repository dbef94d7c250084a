//! Blueprints that are put over the wire, beside those of files: one must not take away what the other has. Pure, and complete: each
//! answer has every finding.

use std::collections::BTreeSet;

use super::{
    Registry,
    finding::{Finding, Position, Severity, did_you_mean},
    load::Loaded,
};

impl Loaded {
    /// What keeps this blueprint from being put under `name`, beside those that are served; and warnings.
    pub fn check_put(&self, name: &str, served: &Registry) -> Vec<Finding> {
        let own = self.definition.name();
        let mut findings = Vec::new();
        if **own != *name {
            findings.push(self.finding(
                self.name_at,
                format!("the blueprint is called `{own}`, and is put as `{name}`"),
                "put it under its own name".to_owned(),
            ));
        }
        let holder = self.definition.endpoint().and_then(|endpoint| served.at_endpoint(endpoint));
        if let Some(holder) = holder.filter(|holder| holder.name != *own) {
            findings.push(self.taken(&holder.name));
        }
        let names: BTreeSet<&str> =
            served.served().map(|blueprint| &*blueprint.name).chain([&**own]).collect();
        let unknown = self.runs.iter().filter(|(run, _)| !names.contains(&**run));
        findings.extend(unknown.map(|(run, at)| Finding {
            severity: Severity::Warning,
            ..self.finding(
                *at,
                format!("the blueprint `{run}`, which is run here, is not served"),
                did_you_mean(run, names.iter().copied()),
            )
        }));
        findings
    }

    fn taken(&self, holder: &str) -> Finding {
        let endpoint = self.definition.endpoint().map_or("", |endpoint| endpoint);
        self.finding(
            self.endpoint_at,
            format!("the endpoint `{endpoint}` belongs to the blueprint `{holder}`"),
            "give it another one".to_owned(),
        )
    }

    fn finding(&self, at: Position, what: String, cure: String) -> Finding {
        Finding { severity: Severity::Error, file: self.file.clone(), at, what, cure }
    }
}

impl Registry {
    /// Where these files, served in place of those before, would take the endpoint of a blueprint that was put and stays.
    pub fn clashes_with_put(&self, files: &[Loaded]) -> Vec<Finding> {
        let is_in_a_file = |name: &str| files.iter().any(|file| **file.definition.name() == *name);
        let staying: Vec<_> = self.put_last().filter(|put| !is_in_a_file(&put.name)).collect();
        let clash = |file: &Loaded| {
            let endpoint = file.definition.endpoint()?;
            let put = staying.iter().find(|put| put.endpoint.as_ref() == Some(endpoint))?;
            Some(file.taken(&put.name))
        };
        files.iter().filter_map(clash).collect()
    }
}
