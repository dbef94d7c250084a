//! Messages to webhooks: what is sent, how it is signed, where it may go, and when it is tried again.
//!
//! The form is that of Standard Webhooks (<https://www.standardwebhooks.com>), so that receivers need nothing of ours to
//! verify it. Which messages are owed is in the store; who sends them is a chore. It refuses to know jobs beyond what a notice
//! holds.

mod address;
mod connect;
mod post;
mod schedule;
mod signature;
mod target;

pub use self::{
    address::is_public,
    connect::{Addresses, Resolve, SystemResolver},
    post::{Answer, CONNECT_WITHIN, Message, POST_WITHIN, Poster},
    schedule::{GIVE_UP_AFTER, RETRY_FIRST, RETRY_MAX, delivered, failed, obsolete, owed, redelivered},
    signature::{InvalidKey, Key, sign},
    target::{Target, URL_BYTES_MAX, check_url},
};

/// What an operator decides about webhooks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setup {
    /// What messages are signed with: with each of them, so that one can be replaced without a pause. Never empty.
    pub keys: Vec<Key>,
    /// Whether messages may go to addresses that are not public: the machine itself, private networks.
    pub allow_private: bool,
}

/// The secret of `avtomatika dev` and of examples. Everybody knows it.
pub const DEVELOPMENT_SECRET: &str = "whsec_YXZ0b21hdGlrYS1kZXZlbG9wbWVudC1zZWNyZXQ=";
