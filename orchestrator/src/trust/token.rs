//! Tokens: how one is made, and the only form in which it is kept.
//!
//! A token of ours is 256 random bits, so that its plain SHA-256 cannot be searched: a slow hash would protect nothing more and
//! cost every request. The hash is also what a token is found by, in one probe of a map; two hashes are compared in constant time.

use std::{
    fmt,
    hash::{Hash, Hasher},
    io,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

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

/// The SHA-256 of a token. Written as 64 hexadecimal digits in files, and never shown elsewhere.
#[derive(Clone, Copy, Eq)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    /// Of a token as it was presented.
    pub fn of(token: &[u8]) -> Self {
        Self(Sha256::digest(token).into())
    }

    /// The hash that these digits spell, in either case.
    pub fn from_hex(digits: &str) -> Option<Self> {
        let digits = digits.as_bytes();
        if digits.len() != 64 {
            return None;
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let digit = |at: usize| char::from(pair[at]).to_digit(16);
            *byte = (digit(0)? * 16 + digit(1)?) as u8;
        }
        Some(Self(bytes))
    }

    /// As 64 lower-case digits, for the file that it belongs into.
    pub fn to_hex(self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// For storage beside a session.
    pub fn to_bytes(self) -> [u8; 32] {
        self.0
    }
}

impl PartialEq for TokenHash {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

/// The first 64 bits are as good as random; whoever could choose them would have to know a token with that hash.
impl Hash for TokenHash {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        state.write_u64(u64::from_le_bytes([a, b, c, d, e, f, g, h]));
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash(***)")
    }
}

/// Whose token it is to be. Shown in the token itself, so that people and scanners for lost secrets know one when they see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    /// A client's.
    Client,
    /// A worker's.
    Worker,
}

impl TokenKind {
    fn prefix(self) -> &'static str {
        match self {
            Self::Client => "avtc_",
            Self::Worker => "avtw_",
        }
    }
}

/// A new token: 256 random bits behind the prefix of its kind.
///
/// # Errors
/// When the system gives no random numbers.
pub fn new_token(kind: TokenKind) -> io::Result<Secret> {
    let mut random = [0; 32];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    Ok(Secret::new(format!("{}{}", kind.prefix(), URL_SAFE_NO_PAD.encode(random))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_read_as_it_is_written_and_shown_to_nobody() {
        let hash = TokenHash::of(b"abc");
        let hex = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hash.to_hex(), hex);
        assert_eq!(TokenHash::from_hex(hex), Some(hash));
        assert_eq!(TokenHash::from_hex(&hex.to_uppercase()), Some(hash));
        assert!(!format!("{hash:?}").contains("ba78"));
        for wrong in ["", &hex[1..], &format!("{hex}0"), &hex.replace('b', "g"), &hex.replace("ba", "é")] {
            assert_eq!(TokenHash::from_hex(wrong), None, "{wrong}");
        }
        assert_ne!(hash, TokenHash::of(b"abd"));
    }

    #[test]
    fn tokens_are_long_different_and_fit_a_header() {
        let (a, b) = (new_token(TokenKind::Client).unwrap(), new_token(TokenKind::Worker).unwrap());
        assert!(a.expose().starts_with("avtc_") && b.expose().starts_with("avtw_"));
        assert_ne!(a.expose()[5..], b.expose()[5..]);
        assert_eq!(a.expose().len(), 5 + 43);
        assert!(a.expose().bytes().all(|byte| byte.is_ascii_graphic()));
        assert_eq!(format!("{a:?}"), "***");
    }
}
