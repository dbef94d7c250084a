//! Everybody who may call, from every place where they may be named, checked as a whole: one token is one caller.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::{Glob, Role, Secret, Tenants, Terms, TokenHash, WorkerTerms, mistake};
use crate::blueprint::Finding;

/// The tokens of the examples and of development, which everybody knows.
const WELL_KNOWN_TOKENS: [&str; 2] = ["test-client-token", "test-worker-token"];

/// What a client may do that was named by a flag or among the settings. Whoever writes those runs the orchestrator.
pub const INLINE_ROLE: Role = Role::Operator;

/// A client, as it is named somewhere.
#[derive(Debug, Clone)]
pub struct ClientEntry {
    /// Its name.
    pub name: Arc<str>,
    /// The hashes of its tokens, each with the line where it stands.
    pub tokens: Vec<(TokenHash, usize)>,
    /// What holds for it.
    pub terms: Arc<Terms>,
    /// Where it is named.
    pub place: String,
}

/// Workers that share a name or a pattern.
#[derive(Debug, Clone)]
pub struct WorkerEntry {
    /// The hashes of their tokens, each with the line where it stands.
    pub tokens: Vec<(TokenHash, usize)>,
    /// What holds for them.
    pub terms: Arc<WorkerTerms>,
    /// Who owns what they register, whichever of the tokens they show; `None` where each token is an owner of its own.
    pub credential: Option<[u8; 32]>,
    /// Where they are named.
    pub place: String,
}

/// Everybody who may call.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// The clients.
    pub clients: Vec<ClientEntry>,
    /// The workers.
    pub workers: Vec<WorkerEntry>,
}

impl Access {
    /// Of these clients by name and token, and of workers with these tokens, whatever their names.
    pub fn inline<'a>(
        clients: impl IntoIterator<Item = (&'a str, &'a Secret)>,
        workers: impl IntoIterator<Item = &'a Secret>,
    ) -> Self {
        let hashed = |token: &Secret| vec![(TokenHash::of(token.expose().as_bytes()), 0)];
        let terms = Arc::new(Terms { role: INLINE_ROLE, ..Terms::default() });
        let client = |(name, token): (&str, &Secret)| ClientEntry {
            name: Arc::from(name),
            tokens: hashed(token),
            terms: terms.clone(),
            place: "client_tokens".to_owned(),
        };
        let anybody = Glob::new("*").expect("a star is a pattern");
        let all = Arc::new(WorkerTerms { names: anybody, allowed_tasks: None });
        let worker = |token: &Secret| WorkerEntry {
            tokens: hashed(token),
            terms: all.clone(),
            credential: None,
            place: "worker_tokens".to_owned(),
        };
        Self {
            clients: clients.into_iter().map(client).collect(),
            workers: workers.into_iter().map(worker).collect(),
        }
    }

    /// Whether everybody is told from everybody else.
    ///
    /// # Errors
    /// Each name and each token that stands twice.
    pub fn check(&self) -> Result<(), Vec<Finding>> {
        let mut wrong = Vec::new();
        let mut names = HashMap::new();
        for client in &self.clients {
            if let Some(other) = names.insert(&client.name, &client.place) {
                let what = format!("client {:?} is named here and at {other}", client.name);
                wrong.push(mistake(&client.place, 0, what, "keep one of the two"));
            }
        }
        let mut owners: HashMap<TokenHash, (String, &str)> = HashMap::new();
        for (hash, owner, place, line) in self.tokens() {
            if let Some((other, _)) = owners.insert(hash, (owner.clone(), place)) {
                let line = if line > 0 { format!(" (line {line})") } else { String::new() };
                let what = format!("one token is given to {other} and to {owner}{line}");
                wrong.push(mistake(
                    place,
                    0,
                    what,
                    "give each client, and the workers, a token of their own",
                ));
            }
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }

    /// Whose tokens everybody knows.
    pub fn well_known(&self) -> Vec<String> {
        let known: HashSet<TokenHash> =
            WELL_KNOWN_TOKENS.iter().map(|token| TokenHash::of(token.as_bytes())).collect();
        self.tokens().filter(|(hash, ..)| known.contains(hash)).map(|(_, owner, ..)| owner).collect()
    }

    fn tokens(&self) -> impl Iterator<Item = (TokenHash, String, &str, usize)> {
        let clients = self.clients.iter().flat_map(|client| {
            let owner = format!("client {:?}", client.name);
            client.tokens.iter().map(move |(hash, line)| (*hash, owner.clone(), &*client.place, *line))
        });
        let workers = self.workers.iter().flat_map(|worker| {
            let owner = match worker.terms.names.as_str() {
                "*" => "workers".to_owned(),
                names => format!("worker {names:?}"),
            };
            worker.tokens.iter().map(move |(hash, line)| (*hash, owner.clone(), &*worker.place, *line))
        });
        clients.chain(workers)
    }

    /// What holds for which client.
    pub fn tenants(&self) -> Arc<Tenants> {
        Arc::new(Tenants::new(self.clients.iter().map(|client| (client.name.clone(), client.terms.clone()))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_token_is_one_caller_and_one_name_is_one_client() {
        let [a, b, w] = ["a", "b", "w"].map(Secret::new);
        assert_eq!(Access::inline([("a", &a), ("b", &b)], [&w]).check(), Ok(()));
        let twice = |access: Access| access.check().unwrap_err()[0].to_string();
        assert!(
            twice(Access::inline([("a", &a)], [&a]))
                .starts_with("worker_tokens: error: one token is given to client \"a\" and to workers")
        );
        assert!(
            twice(Access::inline([("a", &a), ("a", &b)], [&w])).contains("client \"a\" is named here and at")
        );
    }

    #[test]
    fn tokens_of_the_examples_are_known_by_their_hashes() {
        let (known, own) = (Secret::new("test-client-token"), Secret::new("own"));
        assert_eq!(Access::inline([("a", &known)], [&own]).well_known(), ["client \"a\""]);
        assert!(Access::inline([("a", &own)], []).well_known().is_empty());
    }
}
