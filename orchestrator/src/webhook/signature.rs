//! How a receiver can tell that a message is ours and is whole: the symmetric signature of Standard Webhooks.
//!
//! What is signed is the message's id, the time of the attempt in seconds since 1970, and the body, with a full stop between
//! them: none of the three can be exchanged, and a receiver that looks at the time is not fooled by an old message.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Bytes of a key at least: what the standard asks for.
const KEY_BYTES_MIN: usize = 24;

/// Bytes of a key at most.
const KEY_BYTES_MAX: usize = 64;

/// What every secret begins with.
const PREFIX: &str = "whsec_";

/// A signing key. Shown as `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(Vec<u8>);

/// The text is not a secret as Standard Webhooks has them. It is not repeated: it may be the right one, badly copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a webhook secret is whsec_ and the base64 form of {KEY_BYTES_MIN} to {KEY_BYTES_MAX} bytes")]
pub struct InvalidKey;

impl Key {
    /// The key in a secret such as `whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw`.
    ///
    /// # Errors
    /// When the text is no such secret.
    pub fn from_secret(secret: &str) -> Result<Self, InvalidKey> {
        let bytes =
            secret.strip_prefix(PREFIX).and_then(|text| STANDARD.decode(text).ok()).ok_or(InvalidKey)?;
        match (KEY_BYTES_MIN..=KEY_BYTES_MAX).contains(&bytes.len()) {
            true => Ok(Self(bytes)),
            false => Err(InvalidKey),
        }
    }

    fn sign(&self, id: &str, timestamp_s: i64, body: &[u8]) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes keys of any length");
        mac.update(format!("{id}.{timestamp_s}.").as_bytes());
        mac.update(body);
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(***)")
    }
}

/// The value of `webhook-signature`: one signature for each key, with a space between them.
pub fn sign(keys: &[Key], id: &str, timestamp_s: i64, body: &[u8]) -> String {
    let signatures: Vec<String> = keys.iter().map(|key| key.sign(id, timestamp_s, body)).collect();
    signatures.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the Standard Webhooks specification and of its reference libraries.
    #[test]
    fn the_signature_is_that_of_the_standard() {
        let key = Key::from_secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let (id, body) = ("msg_p5jXN8AQM9LWM0D4loKWxJek", br#"{"test": 2432232314}"#);
        let expected = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        assert_eq!(sign(std::slice::from_ref(&key), id, 1_614_265_330, body), expected);
        assert_eq!(sign(&[key.clone(), key], id, 1_614_265_330, body), format!("{expected} {expected}"));
    }

    #[test]
    fn what_is_no_secret_is_refused_and_never_shown() {
        let secret = |bytes: usize| format!("whsec_{}", STANDARD.encode(vec![7; bytes]));
        assert!(Key::from_secret(&secret(24)).is_ok() && Key::from_secret(&secret(64)).is_ok());
        for text in
            ["", "whsec_", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_not base64", &secret(23), &secret(65)]
        {
            assert_eq!(Key::from_secret(text), Err(InvalidKey), "{text}");
        }
        assert_eq!(format!("{:?}", Key::from_secret(&secret(24)).unwrap()), "Key(***)");
    }

    #[test]
    fn the_development_secret_is_one() {
        assert!(Key::from_secret(super::super::DEVELOPMENT_SECRET).is_ok());
    }
}
