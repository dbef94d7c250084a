//! Who is calling. Identity comes from the token that a connection sends, never from a field of a message.
//!
//! A token is looked up by its SHA-256, in one probe, and hashes are compared in constant time: neither the answer nor its delay
//! tells how near a guess was. Client tokens and worker tokens are different things: one is refused in the place of the other.
//! It refuses to know where tokens are written down: see [`trust`](crate::trust).

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    net::IpAddr,
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};

use avtomatika_proto::{ApiError, ErrorCode, headers, names::is_name};
use http::{HeaderMap, header::AUTHORIZATION};

use crate::{
    api::submission::quote,
    spelling::did_you_mean,
    store::WorkerRecord,
    trust::{
        Access, Advice, Allowance, ClientEntry, Role, Standing, Terms, Throttle, TokenHash, WorkerEntry,
        WorkerTerms, is_client_name,
    },
};

pub use crate::trust::Secret;

/// Which worker token was presented. Two connections with equal credentials belong to one operator.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct WorkerCredential([u8; 32]);

impl WorkerCredential {
    /// The hash of the token, for storage.
    pub fn to_bytes(self) -> [u8; 32] {
        self.0
    }
}

impl fmt::Debug for WorkerCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WorkerCredential(***)")
    }
}

/// A client that calls.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Whose jobs are meant: its own, unless an admin names another client.
    pub client: Arc<str>,
    /// Who calls.
    pub actor: Arc<str>,
    /// What held for whoever calls when it was let in.
    pub terms: Arc<Terms>,
    /// Whether the token that was shown is still good.
    pub standing: Standing,
    allowance: Arc<Allowance>,
}

impl Caller {
    /// The same in the name of the client that these headers name, if they name one.
    ///
    /// # Errors
    /// `PERMISSION_DENIED` for anybody but an admin; `INVALID_ARGUMENT` for what is no name.
    pub fn calling_for(mut self, headers: &HeaderMap) -> Result<Self, ApiError> {
        if let Some(named) = only(headers, headers::ON_BEHALF_OF).map_err(|_| named_twice())? {
            self.require(Role::Admin)?;
            self.client = client_name(named)?;
        }
        Ok(self)
    }

    /// Whether it may do what asks for this role.
    ///
    /// # Errors
    /// `PERMISSION_DENIED`.
    pub fn require(&self, role: Role) -> Result<(), ApiError> {
        if self.terms.role >= role {
            return Ok(());
        }
        let text = format!("This call asks for the role {role:?}", role = role.as_str());
        let hint = format!(
            "Client {:?} has the role {:?}; an operator can give it another one in the clients file.",
            self.actor,
            self.terms.role.as_str()
        );
        Err(ApiError::new(ErrorCode::PermissionDenied, text).with_hint(hint))
    }
}

/// A worker that calls.
#[derive(Debug, Clone)]
pub struct WorkerPass {
    /// Whose sessions it may open.
    pub credential: WorkerCredential,
    /// Whether the token that was shown is still good.
    pub standing: Standing,
    /// What holds for whoever shows it.
    pub terms: Arc<WorkerTerms>,
}

impl WorkerPass {
    /// Whom the token is for, by name or pattern.
    pub fn names(&self) -> &str {
        self.terms.names.as_str()
    }

    /// Whether a worker with this pass may register so. One without a name gets that of its entry, if that is one, or else one that
    /// nobody has chosen.
    ///
    /// # Errors
    /// `PERMISSION_DENIED` for a name or a task type that is not in the token's entry; `INTERNAL` when the system has no random
    /// numbers.
    pub fn check(&self, mut worker: WorkerRecord) -> Result<WorkerRecord, ApiError> {
        let names = &self.terms.names;
        if worker.worker_id.is_empty() {
            worker.worker_id = match names.literal() {
                Some(name) => name.clone(),
                None => made_up_name(&worker.worker_type)?,
            };
            if !self.terms.may_be_called(&worker.worker_id) {
                return Err(denied(format!("This token is for workers called {names}"))
                    .with_hint("Give the worker a name that matches."));
            }
        } else if !self.terms.may_be_called(&worker.worker_id) {
            let text = format!("This token is not for a worker called {}", quote(&worker.worker_id));
            return Err(denied(text).with_hint(format!("It is for workers called {names}.")));
        }
        match worker.task_types.iter().find(|task_type| !self.terms.may_serve(task_type)) {
            None => Ok(worker),
            Some(task_type) => {
                let text = format!("Workers with this token may not serve {}", quote(task_type));
                Err(denied(text)
                    .with_hint("An operator can add the type to allowed_tasks in the workers file."))
            }
        }
    }
}

/// The name that a worker without one is given: its type, if that can be part of a name, and 64 random bits, so that no two meet.
fn made_up_name(worker_type: &str) -> Result<Arc<str>, ApiError> {
    let random = getrandom::u64()
        .map_err(|error| ApiError::new(ErrorCode::Internal, format!("No random numbers: {error}")))?;
    let name = format!("{worker_type}-{random:016x}");
    let is_good = !worker_type.is_empty() && is_name(&name);
    Ok(if is_good { name.into() } else { format!("worker-{random:016x}").into() })
}

fn denied(text: String) -> ApiError {
    ApiError::new(ErrorCode::PermissionDenied, text)
}

/// The tokens that this orchestrator knows. They may be exchanged while it runs.
pub struct Auth {
    tables: RwLock<Arc<Tables>>,
    throttle: Throttle,
    /// Since when rates are counted.
    epoch: Instant,
}

/// Who shows which token: one probe finds it, however many there are.
#[derive(Default)]
struct Tables {
    clients: HashMap<TokenHash, Caller>,
    workers: HashMap<TokenHash, WorkerPass>,
    /// Of the clients.
    names: BTreeSet<Arc<str>>,
    access: Access,
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tables = self.tables();
        let names: Vec<&str> = tables.access.clients.iter().map(|client| &*client.name).collect();
        f.debug_struct("Auth").field("clients", &names).field("worker_tokens", &tables.workers.len()).finish()
    }
}

impl Tables {
    /// What is in force now stays as it is for whoever keeps the token and its rights: its standing, and what is left of its rate.
    fn of(access: Access, before: &Tables) -> Self {
        let of_caller = |caller: &Caller| (caller.client.clone(), caller.allowance.clone());
        let mut allowances: HashMap<Arc<str>, Arc<Allowance>> =
            before.clients.values().map(of_caller).collect();
        let (mut clients, mut workers) = (HashMap::new(), HashMap::new());
        for ClientEntry { name, tokens, terms, .. } in &access.clients {
            let allowance = allowances.entry(name.clone()).or_default().clone();
            allowance.limit(terms.rate_limit);
            for (hash, _) in tokens {
                let known = before.clients.get(hash).filter(|known| known.may_stay(name, terms));
                let standing = known.map(|known| known.standing.clone()).unwrap_or_default();
                let (client, actor) = (name.clone(), name.clone());
                let (terms, allowance) = (terms.clone(), allowance.clone());
                clients.insert(*hash, Caller { client, actor, terms, standing, allowance });
            }
        }
        for WorkerEntry { tokens, terms, credential, .. } in &access.workers {
            for (hash, _) in tokens {
                let credential = WorkerCredential(credential.unwrap_or_else(|| hash.to_bytes()));
                let known = before.workers.get(hash).filter(|known| known.may_stay(credential, terms));
                let standing = known.map(|known| known.standing.clone()).unwrap_or_default();
                workers.insert(*hash, WorkerPass { credential, standing, terms: terms.clone() });
            }
        }
        let names = access.clients.iter().map(|client| client.name.clone()).collect();
        Self { clients, workers, names, access }
    }
}

impl Caller {
    /// Whether a stream that was opened with it may go on under this name and these terms: what its role let it begin is still
    /// allowed. Every other term is looked at when it is used.
    fn may_stay(&self, name: &str, terms: &Terms) -> bool {
        *self.client == *name && self.terms.role <= terms.role
    }
}

impl WorkerPass {
    /// Whether a stream that was opened with it may go on under these terms: what it registered is still allowed.
    fn may_stay(&self, credential: WorkerCredential, terms: &WorkerTerms) -> bool {
        self.credential == credential && *self.terms == *terms
    }
}

impl Auth {
    /// Knows these clients by name and token, and these workers' tokens.
    pub fn new<'a>(
        clients: impl IntoIterator<Item = (&'a str, &'a Secret)>,
        workers: impl IntoIterator<Item = &'a Secret>,
    ) -> Self {
        Self::of(Access::inline(clients, workers))
    }

    /// Knows everybody who is named there.
    pub fn of(access: Access) -> Self {
        let tables = Tables::of(access, &Tables::default());
        Self { tables: RwLock::new(Arc::new(tables)), throttle: Throttle::default(), epoch: Instant::now() }
    }

    /// Knows these from now on, and nobody else. Tokens that are no longer among them are dead at once, and what was begun
    /// with them is told so; so is what was begun with tokens that are not for the same any more. Returns how many those were.
    pub fn replace(&self, access: Access) -> usize {
        let before = {
            let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
            let next = Arc::new(Tables::of(access, &tables));
            std::mem::replace(&mut *tables, next)
        };
        let after = self.tables();
        let stays = |hash: &TokenHash, standing: &Standing| {
            let client = after.clients.get(hash).map(|caller| &caller.standing);
            let known = client.or_else(|| after.workers.get(hash).map(|pass| &pass.standing));
            known.is_some_and(|known| known.is_the(standing))
        };
        let clients = before.clients.iter().map(|(hash, caller)| (hash, &caller.standing));
        let all = clients.chain(before.workers.iter().map(|(hash, pass)| (hash, &pass.standing)));
        let gone: Vec<&Standing> =
            all.filter(|(hash, standing)| !stays(hash, standing)).map(|(_, gone)| gone).collect();
        gone.iter().for_each(|standing| standing.withdraw());
        gone.len()
    }

    /// Everybody who may call now.
    pub fn access(&self) -> Access {
        self.tables().access.clone()
    }

    fn tables(&self) -> Arc<Tables> {
        // Tables are put in their place in one go: there is no half of them to be seen after a panic.
        self.tables.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whose token these headers show.
    ///
    /// # Errors
    /// `MISSING_TOKEN`, `INVALID_TOKEN`.
    pub fn owner(&self, headers: &HeaderMap) -> Result<Caller, ApiError> {
        let token = token(headers, &[headers::AVTOMATIKA_TOKEN, headers::CLIENT_TOKEN])
            .map_err(|found| found.into_error("Missing X-Avtomatika-Token header"))?;
        self.tables().clients.get(&TokenHash::of(token)).cloned().ok_or_else(invalid)
    }

    /// The client that these headers belong to. An admin may name the client in whose name it calls.
    ///
    /// # Errors
    /// `MISSING_TOKEN`, `INVALID_TOKEN`; `PERMISSION_DENIED` when somebody else names another client.
    pub fn client(&self, headers: &HeaderMap) -> Result<Caller, ApiError> {
        self.owner(headers)?.calling_for(headers)
    }

    /// Whether there is the client whose jobs are meant. A slip of an admin's pen would otherwise make jobs of a client that nobody
    /// is; what is done to jobs that are there asks for no such thing, because jobs outlive the entries of their clients.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`, with the name that was probably meant.
    pub fn check_client(&self, caller: &Caller) -> Result<(), ApiError> {
        // Whoever calls in its own name is known by its token.
        if caller.client == caller.actor {
            return Ok(());
        }
        let tables = self.tables();
        if tables.names.contains(&caller.client) {
            return Ok(());
        }
        let meant = did_you_mean(&caller.client, tables.names.iter().map(|name| &**name));
        let text = format!("There is no client {:?}{meant}", caller.client);
        Err(ApiError::new(ErrorCode::InvalidArgument, text).with_hint(
            "X-Avtomatika-Client names a client of the settings or of the clients file; add it there and reload first if it is new.",
        ))
    }

    /// Takes one call from the rate that the client has now, whatever it was when it was let in.
    ///
    /// # Errors
    /// `RATE_LIMITED`, with the time until the next call.
    pub fn take(&self, caller: &Caller) -> Result<(), ApiError> {
        let Some(rate) = caller.allowance.rate() else { return Ok(()) };
        caller.allowance.take(rate, self.epoch.elapsed()).map_err(|wait| {
            let text = format!("Client {:?} calls more often than {rate}", caller.actor);
            ApiError::new(ErrorCode::RateLimited, text).with_retry_after(wait.max(Duration::from_millis(1)))
        })
    }

    /// Somebody at this address was refused: what to do about it.
    pub fn refused(&self, from: IpAddr) -> Advice {
        self.throttle.refused(from, self.epoch.elapsed())
    }

    /// The pass of the worker that these headers belong to.
    ///
    /// # Errors
    /// `MISSING_TOKEN`, `INVALID_TOKEN`.
    pub fn worker(&self, headers: &HeaderMap) -> Result<WorkerPass, ApiError> {
        let token = token(headers, &[headers::WORKER_TOKEN]).map_err(|found| {
            found
                .into_error("Missing X-Worker-Token header")
                .with_hint("Send the worker token in X-Worker-Token, or as Authorization: Bearer TOKEN.")
        })?;
        self.tables().workers.get(&TokenHash::of(token)).cloned().ok_or_else(invalid)
    }
}

fn client_name(named: &[u8]) -> Result<Arc<str>, ApiError> {
    let name = std::str::from_utf8(named).ok().filter(|name| is_client_name(name));
    name.map(Arc::from).ok_or_else(|| {
        ApiError::new(ErrorCode::InvalidArgument, "X-Avtomatika-Client is not a client's name")
            .with_hint("A name is 1 to 64 characters of a-z A-Z 0-9 . _ -")
    })
}

fn named_twice() -> ApiError {
    ApiError::new(ErrorCode::InvalidArgument, "X-Avtomatika-Client stands there twice")
        .with_hint("Name one client.")
}

/// Why there is no token to look at.
enum NoToken {
    Absent,
    Ambiguous,
}

impl NoToken {
    fn into_error(self, missing: &'static str) -> ApiError {
        match self {
            Self::Absent => ApiError::new(ErrorCode::MissingToken, missing),
            Self::Ambiguous => invalid().with_hint("Send one token, once."),
        }
    }
}

fn invalid() -> ApiError {
    ApiError::new(ErrorCode::InvalidToken, "Unauthorized: Invalid token")
}

/// The token of the first header that is there. The same header twice is refused: two parties on the way might each believe
/// in another one of them.
fn token<'h>(headers: &'h HeaderMap, names: &[&str]) -> Result<&'h [u8], NoToken> {
    for name in names {
        if let Some(value) = only(headers, name)? {
            return Ok(value);
        }
    }
    let Some(value) = only(headers, AUTHORIZATION.as_str())? else { return Err(NoToken::Absent) };
    let Some((scheme, rest)) = value.split_at_checked(BEARER.len()) else { return Err(NoToken::Absent) };
    let token = rest.trim_ascii();
    match scheme.eq_ignore_ascii_case(BEARER) && !token.is_empty() {
        true => Ok(token),
        false => Err(NoToken::Absent),
    }
}

const BEARER: &[u8] = b"Bearer ";

/// The one value of a header; none when it is absent or empty.
fn only<'h>(headers: &'h HeaderMap, name: &str) -> Result<Option<&'h [u8]>, NoToken> {
    let mut values = headers.get_all(name).iter();
    let value = values.next().map(|value| value.as_bytes().trim_ascii()).filter(|value| !value.is_empty());
    match values.next() {
        Some(_) => Err(NoToken::Ambiguous),
        None => Ok(value),
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;
    use crate::trust::{Glob, Rate};

    fn auth() -> Auth {
        Auth::new(
            [("alice", &Secret::new("a-token")), ("bob", &Secret::new("b-token"))],
            [&Secret::new("w-token")],
        )
    }

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn each_client_is_known_by_its_token_in_any_of_three_headers() {
        for header in ["x-avtomatika-token", "x-client-token"] {
            assert_eq!(&*auth().client(&headers(&[(header, "a-token")])).unwrap().client, "alice");
        }
        for value in ["Bearer b-token", "bearer  b-token", "BEARER b-token "] {
            assert_eq!(&*auth().client(&headers(&[("authorization", value)])).unwrap().client, "bob");
        }
    }

    #[test]
    fn a_credential_that_is_not_there_and_one_that_is_wrong_have_the_documented_texts() {
        let missing = "Missing X-Avtomatika-Token header";
        let invalid = "Unauthorized: Invalid token";
        let rows: [(&[(&str, &str)], &str); 10] = [
            (&[], missing),
            (&[("x-avtomatika-token", "")], missing),
            (&[("authorization", "Bearer")], missing),
            (&[("authorization", "Bearer ")], missing),
            (&[("authorization", "Basic YTpi")], missing),
            (&[("x-worker-token", "w-token")], missing),
            (&[("x-avtomatika-token", "a-toke")], invalid),
            (&[("x-avtomatika-token", "w-token")], invalid),
            (&[("x-avtomatika-token", "a-token"), ("x-avtomatika-token", "b-token")], invalid),
            (&[("authorization", "Bearer w-token")], invalid),
        ];
        for (pairs, text) in rows {
            assert_eq!(auth().client(&headers(pairs)).unwrap_err().message, text, "{pairs:?}");
        }
    }

    #[test]
    fn a_worker_is_known_by_a_worker_token_only() {
        assert!(auth().worker(&headers(&[("x-worker-token", "w-token")])).is_ok());
        assert!(auth().worker(&headers(&[("authorization", "Bearer w-token")])).is_ok());
        let error = auth().worker(&headers(&[("x-worker-token", "a-token")])).unwrap_err();
        assert_eq!(error.message, "Unauthorized: Invalid token");
        let error = auth().worker(&headers(&[])).unwrap_err();
        assert_eq!(error.message, "Missing X-Worker-Token header");
    }

    fn access(clients: &[(&str, &str, Role)], workers: &[(&str, &str)]) -> Access {
        let hashed = |token: &str| vec![(TokenHash::of(token.as_bytes()), 1)];
        let client = |(name, token, role): &(&str, &str, Role)| ClientEntry {
            name: Arc::from(*name),
            tokens: hashed(token),
            terms: Arc::new(Terms { role: *role, rate_limit: Rate::parse("2/h"), ..Terms::default() }),
            place: String::new(),
        };
        let worker = |(names, token): &(&str, &str)| WorkerEntry {
            tokens: hashed(token),
            terms: Arc::new(WorkerTerms {
                names: Glob::new(names).unwrap(),
                allowed_tasks: Some(vec![Glob::new("render_*").unwrap()]),
            }),
            credential: Some([7; 32]),
            place: String::new(),
        };
        Access {
            clients: clients.iter().map(client).collect(),
            workers: workers.iter().map(worker).collect(),
        }
    }

    #[test]
    fn only_an_admin_calls_in_the_name_of_others() {
        let auth = Auth::of(access(&[("a", "a", Role::Operator), ("root", "r", Role::Admin)], &[]));
        let call = |token: &'static str, name| {
            auth.client(&headers(&[("x-avtomatika-token", token), ("x-avtomatika-client", name)]))
        };
        let caller = call("r", "a").unwrap();
        assert_eq!((&*caller.client, &*caller.actor), ("a", "root"));
        assert_eq!(call("a", "root").unwrap_err().code, ErrorCode::PermissionDenied);
        assert_eq!(call("a", "a").unwrap_err().code, ErrorCode::PermissionDenied, "not even in its own");
        assert_eq!(call("r", "no name").unwrap_err().code, ErrorCode::InvalidArgument);
        assert!(caller.require(Role::Admin).is_ok());
        let refused = call("a", "").unwrap().require(Role::Admin).unwrap_err();
        assert_eq!(refused.message, "This call asks for the role \"admin\"");
        assert!(refused.hint.starts_with("Client \"a\" has the role \"operator\""), "{}", refused.hint);
    }

    #[test]
    fn a_rate_is_shared_by_all_tokens_of_a_client_and_says_when() {
        let auth = Auth::of(access(
            &[("a", "1", Role::Client), ("a", "2", Role::Client), ("b", "3", Role::Client)],
            &[],
        ));
        let caller = |token| auth.client(&headers(&[("x-avtomatika-token", token)])).unwrap();
        assert!(auth.take(&caller("1")).is_ok() && auth.take(&caller("2")).is_ok());
        let refused = auth.take(&caller("1")).unwrap_err();
        assert_eq!(refused.message, "Client \"a\" calls more often than 2/h");
        let wait = refused.retry_after.unwrap();
        assert!(wait > Duration::from_secs(600) && wait <= Duration::from_secs(1800), "{wait:?}");
        assert!(auth.take(&caller("3")).is_ok(), "another client's is another one");
        auth.replace(auth.access());
        assert!(auth.take(&caller("2")).is_err(), "a reload refills nothing");
    }

    #[test]
    fn what_is_no_longer_there_is_withdrawn_and_the_rest_goes_on() {
        let auth = Auth::of(access(
            &[("stays", "s", Role::Client), ("leaves", "l", Role::Client), ("renamed", "r", Role::Client)],
            &[("w1", "w1"), ("w2", "w2")],
        ));
        let client = |token| auth.client(&headers(&[("x-avtomatika-token", token)]));
        let worker = |token| auth.worker(&headers(&[("x-worker-token", token)]));
        let [stays, leaves, renamed] = ["s", "l", "r"].map(|token| client(token).unwrap().standing);
        let [w1, w2] = ["w1", "w2"].map(|token| worker(token).unwrap().standing);
        let next = access(&[("stays", "s", Role::Admin), ("other", "r", Role::Client)], &[("w2", "w2")]);
        assert_eq!(auth.replace(next), 3);
        assert!(leaves.is_withdrawn() && renamed.is_withdrawn() && w1.is_withdrawn());
        assert!(!stays.is_withdrawn() && !w2.is_withdrawn());
        assert_eq!(client("l").unwrap_err().code, ErrorCode::InvalidToken);
        assert_eq!(client("s").unwrap().terms.role, Role::Admin, "with its new rights");
        assert!(!client("r").unwrap().standing.is_withdrawn());
    }

    #[test]
    fn what_somebody_began_is_withdrawn_when_its_role_falls() {
        let clients = |roles: [Role; 3]| {
            let [falls, rises, stays] = roles;
            access(&[("falls", "f", falls), ("rises", "r", rises), ("stays", "s", stays)], &[])
        };
        let auth = Auth::of(clients([Role::Admin, Role::Client, Role::Operator]));
        let standing = |token| auth.client(&headers(&[("x-avtomatika-token", token)])).unwrap().standing;
        let before = ["f", "r", "s"].map(standing);
        assert_eq!(auth.replace(clients([Role::Operator, Role::Admin, Role::Operator])), 1);
        assert_eq!(before.each_ref().map(Standing::is_withdrawn), [true, false, false]);
        assert!(!standing("f").is_withdrawn(), "the token itself is good");
    }

    #[test]
    fn a_worker_registers_under_a_name_and_for_types_of_its_entry() {
        let auth = Auth::of(access(&[], &[("gpu-*", "g"), ("one", "o"), ("*", "a")]));
        let check_of = |worker_type: &str, token, name: &str, task_type: &str| {
            let pass = auth.worker(&headers(&[("x-worker-token", token)])).unwrap();
            let worker = WorkerRecord {
                worker_id: name.into(),
                worker_type: worker_type.into(),
                task_types: vec![task_type.into()],
                slots: 1,
                ..WorkerRecord::default()
            };
            pass.check(worker)
                .map(|worker| worker.worker_id.to_string())
                .map_err(|error| error.message.into_owned())
        };
        let check = |token, name: &str, task_type: &str| check_of("", token, name, task_type);
        assert_eq!(check("g", "gpu-7", "render_frame"), Ok("gpu-7".to_owned()));
        assert_eq!(check("o", "", "render_frame"), Ok("one".to_owned()));
        assert_eq!(check("g", "", "render_frame"), Err("This token is for workers called gpu-*".to_owned()));
        assert_eq!(
            check("o", "gpu-7", "render_frame"),
            Err("This token is not for a worker called \"gpu-7\"".to_owned())
        );
        for (worker_type, token, expected) in
            [("gpu", "g", "gpu-"), ("", "a", "worker-"), ("gpu", "a", "gpu-"), ("two words", "a", "worker-")]
        {
            let name = check_of(worker_type, token, "", "render_frame").unwrap();
            let random = name.strip_prefix(expected).unwrap_or_else(|| panic!("{name} of {worker_type:?}"));
            assert!(random.len() == 16 && random.bytes().all(|byte| byte.is_ascii_hexdigit()), "{name}");
        }
        assert_eq!(
            check("g", "gpu-7", "mail"),
            Err("Workers with this token may not serve \"mail\"".to_owned())
        );
    }

    #[test]
    fn nothing_shows_a_token() {
        let shown = format!("{:?} {:?}", auth(), Secret::new("a-token"));
        assert!(!shown.contains("-token"), "{shown}");
    }
}
