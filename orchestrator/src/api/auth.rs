//! Who is calling. Identity comes from the token that a connection sends, never from a field of a message.
//!
//! Tokens are kept as SHA-256 and compared in constant time against every entry, so that neither the answer nor its delay
//! tells how near a guess was. Client tokens and worker tokens are different things: one is refused in the place of the other.

use std::{fmt, sync::Arc};

use avtomatika_proto::{ApiError, ErrorCode, headers};
use http::{HeaderMap, header::AUTHORIZATION};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

/// A token in clear text, on its way from the configuration to its hash. Shown as `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a token.
    pub fn new(token: impl Into<String>) -> Self {
        Self(token.into())
    }

    /// The token itself. Not for logs.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

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

/// The tokens that this orchestrator knows.
pub struct Auth {
    clients: Vec<Client>,
    workers: Vec<[u8; 32]>,
}

struct Client {
    name: Arc<str>,
    hash: [u8; 32],
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.clients.iter().map(|client| &*client.name).collect();
        f.debug_struct("Auth").field("clients", &names).field("worker_tokens", &self.workers.len()).finish()
    }
}

impl Auth {
    /// Knows these clients by name and token, and these workers' tokens.
    pub fn new<'a>(
        clients: impl IntoIterator<Item = (&'a str, &'a Secret)>,
        workers: impl IntoIterator<Item = &'a Secret>,
    ) -> Self {
        let client = |(name, token): (&str, &Secret)| Client { name: Arc::from(name), hash: hash(token) };
        Self {
            clients: clients.into_iter().map(client).collect(),
            workers: workers.into_iter().map(hash).collect(),
        }
    }

    /// The client that these headers belong to.
    ///
    /// # Errors
    /// `MISSING_TOKEN`, `INVALID_TOKEN`.
    pub fn client(&self, headers: &HeaderMap) -> Result<Arc<str>, ApiError> {
        let token = token(headers, &[headers::AVTOMATIKA_TOKEN, headers::CLIENT_TOKEN])
            .map_err(|found| found.into_error("Missing X-Avtomatika-Token header"))?;
        let presented = Sha256::digest(token);
        let mut found = NOT_FOUND;
        for (index, client) in (0_u32..).zip(&self.clients) {
            found.conditional_assign(&index, equal(&presented, &client.hash));
        }
        match self.clients.get(found as usize) {
            Some(client) => Ok(client.name.clone()),
            None => Err(invalid()),
        }
    }

    /// The credential of the worker that these headers belong to.
    ///
    /// # Errors
    /// `MISSING_TOKEN`, `INVALID_TOKEN`.
    pub fn worker(&self, headers: &HeaderMap) -> Result<WorkerCredential, ApiError> {
        let token = token(headers, &[headers::WORKER_TOKEN]).map_err(|found| {
            found
                .into_error("Missing X-Worker-Token header")
                .with_hint("Send the worker token in X-Worker-Token, or as Authorization: Bearer TOKEN.")
        })?;
        let presented = Sha256::digest(token);
        let mut known = Choice::from(0);
        for hash in &self.workers {
            known |= equal(&presented, hash);
        }
        match bool::from(known) {
            true => Ok(WorkerCredential(presented.into())),
            false => Err(invalid()),
        }
    }
}

/// Beyond every index: a process with this many clients does not exist.
const NOT_FOUND: u32 = u32::MAX;

fn hash(token: &Secret) -> [u8; 32] {
    Sha256::digest(token.expose()).into()
}

fn equal(presented: &[u8], known: &[u8; 32]) -> Choice {
    presented.ct_eq(known)
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
            assert_eq!(&*auth().client(&headers(&[(header, "a-token")])).unwrap(), "alice");
        }
        for value in ["Bearer b-token", "bearer  b-token", "BEARER b-token "] {
            assert_eq!(&*auth().client(&headers(&[("authorization", value)])).unwrap(), "bob");
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

    #[test]
    fn nothing_shows_a_token() {
        let shown = format!("{:?} {:?}", auth(), Secret::new("a-token"));
        assert!(!shown.contains("-token"), "{shown}");
    }
}
