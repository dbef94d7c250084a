//! A directory of blueprint files, which must agree with each other.

use std::{collections::BTreeMap, fs, path::Path, sync::Arc};

use super::{
    finding::{Finding, Position, Severity, did_you_mean},
    load::{FILE_BYTES_MAX, Loaded, load, too_large},
};

/// Loads every `*.yaml`, `*.yml` and `*.json` file of a directory, sorted by name, and compares their names and endpoints. The
/// error holds the findings on all files, sorted by file and place.
pub fn load_dir(dir: &Path) -> Result<Vec<Loaded>, Vec<Finding>> {
    let unreadable = |path: &Path, error: &dyn std::fmt::Display| Finding {
        severity: Severity::Error,
        file: path.display().to_string(),
        at: Position::default(),
        what: format!("cannot be read: {error}"),
        cure: "check the path and its permissions".to_owned(),
    };
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir).map_err(|error| vec![unreadable(dir, &error)])? {
        let path = entry.map_err(|error| vec![unreadable(dir, &error)])?.path();
        if path
            .extension()
            .is_some_and(|extension| ["yaml", "yml", "json"].iter().any(|known| extension == *known))
        {
            paths.push(path);
        }
    }
    paths.sort();
    let mut loaded = Vec::new();
    let mut findings = Vec::new();
    for path in paths {
        let file = path.display().to_string();
        let text = match read(&path) {
            Ok(text) => text,
            Err(error) => {
                findings.push(unreadable(&path, &error));
                continue;
            }
        };
        match load(&file, &text) {
            Ok(one) => loaded.push((file, one)),
            Err(found) => findings.extend(found),
        }
    }
    findings.extend(clashes(&loaded));
    warn_of_unknown_runs(&mut loaded);
    if findings.is_empty() {
        return Ok(loaded.into_iter().map(|(_, one)| one).collect());
    }
    findings.extend(loaded.into_iter().flat_map(|(_, one)| one.warnings));
    findings.sort_by(|a, b| (&a.file, a.at).cmp(&(&b.file, b.at)));
    Err(findings)
}

/// [`load_dir`] of a directory that is meant to hold blueprints: one that holds none is a wrong path, or a deployment that is not complete.
///
/// # Errors
/// The findings of [`load_dir`], or that there is no blueprint.
pub fn load_filled_dir(dir: &Path) -> Result<Vec<Loaded>, Vec<Finding>> {
    let loaded = load_dir(dir)?;
    match loaded.is_empty() {
        false => Ok(loaded),
        true => Err(vec![Finding {
            severity: Severity::Error,
            file: dir.display().to_string(),
            at: Position::default(),
            what: "holds no blueprint".to_owned(),
            cure: "put *.yaml files there, or name another directory; examples/blueprints has some"
                .to_owned(),
        }]),
    }
}

/// The text of a regular file of acceptable size. Opens nothing else: a pipe would hold the reader up for ever.
fn read(path: &Path) -> Result<String, String> {
    let about = fs::metadata(path).map_err(|error| error.to_string())?;
    if !about.is_file() {
        return Err("it is no regular file".to_owned());
    }
    if about.len() > FILE_BYTES_MAX as u64 {
        return Err(too_large(about.len()));
    }
    let bytes = fs::read(path).map_err(|error| error.to_string())?;
    String::from_utf8(bytes)
        .map_err(|error| format!("not UTF-8 at byte {}", error.utf8_error().valid_up_to()))
}

/// Blueprints that are run and are in no file. They may be added later, so it is no error.
fn warn_of_unknown_runs(loaded: &mut [(String, Loaded)]) {
    let names: Vec<Arc<str>> = loaded.iter().map(|(_, one)| one.definition.name().clone()).collect();
    for (file, one) in loaded {
        let Loaded { runs, warnings, .. } = one;
        for (name, at) in runs.iter().filter(|(name, _)| !names.contains(name)) {
            warnings.push(Finding {
                severity: Severity::Warning,
                file: file.clone(),
                at: *at,
                what: format!("no file defines the blueprint `{name}`, which is run here"),
                cure: did_you_mean(name, names.iter().map(|name| &**name)),
            });
        }
        warnings.sort_by_key(|warning| warning.at);
    }
}

/// Names and endpoints that two files claim.
fn clashes(loaded: &[(String, Loaded)]) -> Vec<Finding> {
    let mut names: BTreeMap<&str, String> = BTreeMap::new();
    let mut endpoints: BTreeMap<&str, String> = BTreeMap::new();
    let mut findings = Vec::new();
    for (file, one) in loaded {
        let claims = [
            ("the blueprint", Some(one.definition.name()), one.name_at, &mut names),
            ("the endpoint", one.definition.endpoint(), one.endpoint_at, &mut endpoints),
        ];
        for (what, claimed, at, seen) in claims {
            let Some(claimed) = claimed else { continue };
            if let Some(first) = seen.get(&**claimed) {
                findings.push(Finding {
                    severity: Severity::Error,
                    file: file.clone(),
                    at,
                    what: format!("{what} `{claimed}` is defined already at {first}"),
                    cure: "rename one of them".to_owned(),
                });
            } else {
                seen.insert(claimed, format!("{file}:{}:{}", at.line, at.column));
            }
        }
    }
    findings
}
