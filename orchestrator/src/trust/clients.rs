//! `clients.toml`: a table for each client, with the hashes of its tokens and its terms.

use std::{path::Path, sync::Arc};

use avtomatika_proto::limits::NAME_BYTES_MAX;
use toml::de::DeValue;

use super::{
    ClientEntry, Rate, Role, Terms, is_client_name,
    table::{Entry, entries, read, whole},
};
use crate::blueprint::Finding;

/// Clients in one file.
pub const CLIENTS_MAX: usize = 10_000;

const KEYS: [&str; 8] =
    ["token_sha256", "role", "plan", "quota", "max_open_jobs", "rate_limit", "allowed_blueprints", "weight"];

/// The clients of a file.
///
/// # Errors
/// Everything that is wrong with it.
pub fn clients(path: &Path) -> Result<Vec<ClientEntry>, Vec<Finding>> {
    let text = read(path, "clients_file").map_err(|finding| vec![finding])?;
    parse(&path.display().to_string(), &text)
}

fn parse(file: &str, text: &str) -> Result<Vec<ClientEntry>, Vec<Finding>> {
    let limit = (CLIENTS_MAX, "let one client stand for many users of its own");
    entries(file, text, limit, |entry| Some(client(file, entry)))
}

fn client(file: &str, entry: &mut Entry<'_, '_>) -> ClientEntry {
    if !is_client_name(&entry.name) {
        let (line, cure) = (entry.line, "a name is 1 to 64 characters of a-z A-Z 0-9 . _ -");
        entry.wrong(line, "is not a client's name", cure);
    }
    entry.only(&KEYS);
    let tokens = entry.token_hashes();
    let place = format!("{file}:{}", entry.line);
    ClientEntry { name: Arc::from(entry.name.as_str()), tokens, terms: Arc::new(terms(entry)), place }
}

fn terms(entry: &mut Entry<'_, '_>) -> Terms {
    let text = |value: &DeValue<'_>| value.as_str().map(str::to_owned);
    let fits =
        |plan: &String| (1..=NAME_BYTES_MAX).contains(&plan.len()) && !plan.chars().any(char::is_control);
    let plan = entry.value("plan", |value| text(value).filter(fits), "plan = \"gold\": a short text");
    let role = entry.value(
        "role",
        |value| value.as_str().and_then(Role::from_name),
        "role = \"client\", \"operator\" or \"admin\"",
    );
    let quota = entry.value(
        "quota",
        |value| whole(value, 0, i64::MAX as u64),
        "quota = 100000: accepted submissions in a month",
    );
    let max_open_jobs = entry.value(
        "max_open_jobs",
        |value| whole(value, 0, u32::MAX.into()),
        "max_open_jobs = 1000: jobs of it that may be open at once",
    );
    let rate_limit = entry.value(
        "rate_limit",
        |value| value.as_str().and_then(Rate::parse),
        "rate_limit = \"50/s\", \"600/m\" or \"1000/h\"",
    );
    let weight = entry.value(
        "weight",
        |value| whole(value, 1, Terms::WEIGHT_MAX.into()),
        "weight = 1 to 1000: a share beside the other clients'",
    );
    let known = Terms::default();
    Terms {
        plan: plan.map_or(known.plan, Arc::from),
        role: role.unwrap_or(known.role),
        quota,
        max_open_jobs: max_open_jobs.map(|jobs| jobs as usize),
        rate_limit,
        allowed_blueprints: entry.globs("allowed_blueprints"),
        weight: weight.map_or(known.weight, |weight| weight as u32),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trust::{Glob, TokenHash};

    fn hash(token: &str) -> String {
        TokenHash::of(token.as_bytes()).to_hex()
    }

    #[test]
    fn a_client_has_what_its_table_says_and_else_what_anybody_has() {
        let text = format!(
            "[acme]\ntoken_sha256 = [\"{}\",\n  \"{}\"]\nrole = \"operator\"\nplan = \"gold\"\nquota = 1_000\nmax_open_jobs = 30\n\
             rate_limit = \"50/s\"\nallowed_blueprints = [\"order\", \"report-*\"]\nweight = 10\n\
             [\"small.one\"]\ntoken_sha256 = \"{}\"\n",
            hash("old"),
            hash("new"),
            hash("other")
        );
        let clients = parse("clients.toml", &text).unwrap();
        let [acme, small] = &clients[..] else { panic!("{clients:?}") };
        assert_eq!(acme.tokens, [(TokenHash::of(b"old"), 2), (TokenHash::of(b"new"), 3)]);
        let globs = ["order", "report-*"].map(|text| Glob::new(text).unwrap());
        let terms = Terms {
            plan: "gold".into(),
            role: Role::Operator,
            quota: Some(1000),
            max_open_jobs: Some(30),
            rate_limit: Rate::parse("50/s"),
            allowed_blueprints: Some(globs.into()),
            weight: 10,
        };
        assert_eq!(*acme.terms, terms);
        assert!(terms.may_use("order") && terms.may_use("report-7") && !terms.may_use("orders"));
        assert_eq!((&*small.name, &*small.terms), ("small.one", &Terms::default()));
        assert!(small.terms.may_use("anything"));
    }

    #[test]
    fn the_example_names_every_key_and_is_accepted() {
        let text = include_str!("../../../examples/clients.toml");
        let clients = parse("clients.toml", text).unwrap();
        assert_eq!(clients[1].terms.role, Role::Admin);
        for key in KEYS {
            assert!(text.contains(&format!("\n{key} = ")), "examples/clients.toml lacks {key}");
        }
    }

    #[test]
    fn every_mistake_is_told_with_file_line_and_cure_and_no_token() {
        let text = format!(
            "[a]\ntoken = \"secret\"\n[b]\ntoken_sha256 = \"secret\"\nquotum = 5\n[c]\ntoken_sha256 = \"{}\"\n\
             role = \"root\"\nquota = -1\nmax_open_jobs = \"many\"\nrate_limit = \"5\"\nweight = 0\nallowed_blueprints = [\"x[1]\",\n 7]\nplan = \"\"\n\
             [\"d d\"]\ntoken_sha256 = []\nallowed_blueprints = \"all\"\n",
            hash("c")
        );
        let wrong: Vec<String> =
            parse("clients.toml", &text).unwrap_err().iter().map(ToString::to_string).collect();
        let expected = [
            "clients.toml:1:1: error: \"a\": token_sha256 is missing; make a token with `avtomatika token new`",
            "clients.toml:2:1: error: \"a\": token would hold a token in clear text; make the token's hash with `avtomatika token hash`",
            "clients.toml:4:1: error: \"b\": token_sha256 holds what is not 64 hexadecimal digits; make the token's hash",
            "clients.toml:5:1: error: \"b\": unknown key \"quotum\"; did you mean \"quota\"?; keys: token_sha256, role",
            "clients.toml:8:1: error: \"c\": role is not what it must be; write role = \"client\"",
            "clients.toml:9:1: error: \"c\": quota is not what it must be; write quota = 100000",
            "clients.toml:10:1: error: \"c\": max_open_jobs is not what it must be; write max_open_jobs = 1000",
            "clients.toml:11:1: error: \"c\": rate_limit is not what it must be; write rate_limit = \"50/s\"",
            "clients.toml:12:1: error: \"c\": weight is not what it must be; write weight = 1 to 1000",
            "clients.toml:13:1: error: \"c\": allowed_blueprints: \"x[1]\" is no pattern: '[' is in no name; write a name",
            "clients.toml:14:1: error: \"c\": allowed_blueprints: \"\" is no pattern: it is not 1 to 128",
            "clients.toml:15:1: error: \"c\": plan is not what it must be; write plan",
            "clients.toml:16:1: error: \"d d\": is not a client's name; a name is 1 to 64",
            "clients.toml:17:1: error: \"d d\": token_sha256 has not 1 to 16 hashes",
            "clients.toml:18:1: error: \"d d\": allowed_blueprints is not a list; write allowed_blueprints = [",
        ];
        assert_eq!(wrong.len(), expected.len(), "{wrong:#?}");
        for (wrong, expected) in wrong.iter().zip(expected) {
            assert!(wrong.starts_with(expected), "{wrong}\nshould begin with\n{expected}");
            assert!(!wrong.contains("secret"), "{wrong}");
        }
    }
}
