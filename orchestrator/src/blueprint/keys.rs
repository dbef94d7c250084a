//! Keys: how many jobs or attempts with something in common may be under way at once, and how many may start in a time.
//!
//! A rule says by an expression what they have in common, and how many there may be. The same rules stand at the top of a blueprint, for its
//! jobs, and in a task, for its attempts. What a rule comes to for one job is a [`Share`]. It refuses to know who holds what.

use std::{sync::Arc, time::Duration};

use avtomatika_proto::limits::TIMEOUT_MAX;
use serde_json::{Map, Value, json};

use super::{
    Expr,
    expr::Place,
    reader::{Members, Reader, duration_text, literal},
    yaml::{Node, Yaml},
};

/// Rules of each kind that stand in one place.
pub const KEY_RULES_MAX: usize = 8;

/// Jobs or attempts that one key may allow at once, and starts in one period.
pub const KEY_LIMIT_MAX: u32 = 1_000_000;

/// Bytes of one key.
pub const KEY_BYTES_MAX: usize = 256;

/// How many there may be of those for which the expression gives the same key.
#[derive(Debug)]
pub struct KeyRule {
    /// Gives the key: a string; or null, where the rule does not apply.
    pub key: Expr,
    /// How many.
    pub limit: KeyLimit,
    /// What becomes of one more.
    pub policy: KeyPolicy,
}

/// How many there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyLimit {
    /// So many at once.
    Concurrency(u32),
    /// So many starts in a time.
    Rate(Rate),
}

/// So many starts in a time: a bucket of tokens that fills up again evenly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rate {
    /// Tokens that come in one period.
    pub count: u32,
    /// The period.
    pub per: Duration,
    /// Tokens that the bucket holds: so many may start in a row.
    pub burst: u32,
}

/// What becomes of whoever finds a key taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum KeyPolicy {
    /// It waits for its turn.
    Queue = 1,
    /// The one that has held the key longest is cancelled for it.
    CancelOldest = 2,
    /// It is refused.
    RefuseNewest = 3,
}

/// What one job or attempt takes of one key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Share {
    /// The key.
    pub key: Arc<str>,
    /// How many there may be, as the job's own version of its blueprint says.
    pub limit: KeyLimit,
    /// What becomes of one too many.
    pub policy: KeyPolicy,
}

impl Rate {
    /// The time in which one token comes: a whole number of microseconds, rounded up, so that there is never a token too many.
    pub fn interval(&self) -> Duration {
        Duration::from_micros((self.per.as_micros() as u64).div_ceil(u64::from(self.count.max(1))).max(1))
    }

    /// The time in which an empty bucket becomes full.
    pub fn depth(&self) -> Duration {
        self.interval().saturating_mul(self.burst)
    }
}

impl KeyPolicy {
    /// Every policy.
    pub const ALL: [Self; 3] = [Self::Queue, Self::CancelOldest, Self::RefuseNewest];

    /// Its name in blueprints and on every surface.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::CancelOldest => "cancel_oldest",
            Self::RefuseNewest => "refuse_newest",
        }
    }

    /// The policy with this number, as stored.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|policy| *policy as u8 == number)
    }
}

impl Share {
    /// Whether the two are about the same key.
    pub fn is_of_same_key(&self, other: &Share) -> bool {
        let same_kind = match (self.limit, other.limit) {
            (KeyLimit::Concurrency(_), KeyLimit::Concurrency(_)) => true,
            (KeyLimit::Rate(one), KeyLimit::Rate(other)) => one.per == other.per,
            _ => false,
        };
        same_kind && self.key == other.key
    }

    /// Whether it takes one of a number at once, and not a token.
    pub fn is_slot(&self) -> bool {
        matches!(self.limit, KeyLimit::Concurrency(_))
    }
}

/// Where the rules stand, as the grammar calls them.
const KINDS: [&str; 2] = ["concurrency", "rate"];

const CURE_CONCURRENCY: &str = "write for example `concurrency: { key: initial_data.tenant, limit: 5 }`";
const CURE_RATE: &str = "write for example `rate: { key: \"'mail'\", limit: 100, per: 1m }`";

impl Reader {
    /// What `concurrency` and `rate` among these members say, and the canonical form of it: nothing where they say nothing.
    pub fn key_rules(
        &mut self,
        members: &Members<'_>,
        place: Place,
    ) -> Option<(Vec<KeyRule>, Map<String, Value>)> {
        let (mut rules, mut form, mut sound) = (Vec::new(), Map::new(), true);
        for kind in KINDS {
            let Some(node) = members.value(kind) else { continue };
            let read: Vec<_> = match &node.value {
                Yaml::List(items) if items.len() <= KEY_RULES_MAX => {
                    items.iter().map(|item| self.key_rule(kind, item, place)).collect()
                }
                Yaml::List(items) => {
                    let fault = format!(
                        "`{kind}` of {} has {} keys, at most {KEY_RULES_MAX} are allowed",
                        members.what,
                        items.len()
                    );
                    self.findings.error(node.at, fault, "join some of them into one");
                    vec![None]
                }
                _ => vec![self.key_rule(kind, node, place)],
            };
            sound &= read.iter().all(Option::is_some);
            let (read, forms): (Vec<_>, Vec<_>) = read.into_iter().flatten().unzip();
            if !forms.is_empty() {
                form.insert(kind.to_owned(), Value::Array(forms));
            }
            rules.extend(read);
        }
        sound.then_some((rules, form))
    }

    fn key_rule(&mut self, kind: &str, node: &Node, place: Place) -> Option<(KeyRule, Value)> {
        let is_rate = kind == "rate";
        let (keys, cure): (&[&str], _) = match is_rate {
            true => (&["key", "limit", "per", "burst", "policy"], CURE_RATE),
            false => (&["key", "limit", "policy"], CURE_CONCURRENCY),
        };
        let rule = self.members(node, &format!("`{kind}`"), keys)?;
        // Everything is read before giving up, so that every error is found.
        let key = rule.required(self, "key", cure).and_then(|node| self.expression(node, "`key`", place));
        let count =
            rule.required(self, "limit", cure).and_then(|node| self.integer(node, "limit", 1, KEY_LIMIT_MAX));
        let policy = match rule.value("policy") {
            Some(node) => self.key_policy(node, is_rate),
            None => Some(KeyPolicy::Queue),
        };
        let rate = if is_rate { Some(self.rate(&rule, count)?) } else { None };
        let (key, count, policy) = (key?, count?, policy?);
        let mut form = Map::new();
        form.insert("key".to_owned(), json!(key.source()));
        form.insert("limit".to_owned(), json!(count));
        if let Some(rate) = rate {
            form.insert("per".to_owned(), json!(duration_text(rate.per)));
            form.insert("burst".to_owned(), json!(rate.burst));
        }
        form.insert("policy".to_owned(), json!(policy.as_str()));
        let limit = rate.map_or(KeyLimit::Concurrency(count), KeyLimit::Rate);
        Some((KeyRule { key, limit, policy }, Value::Object(form)))
    }

    fn rate(&mut self, rule: &Members<'_>, count: Option<u32>) -> Option<Rate> {
        let per = rule.required(self, "per", CURE_RATE).and_then(|node| self.duration(node, "per"));
        let burst = match rule.value("burst") {
            Some(node) => self.integer(node, "burst", 1, KEY_LIMIT_MAX),
            None => count,
        };
        let rate = Rate { count: count?, per: per?, burst: burst? };
        if rate.depth() > TIMEOUT_MAX {
            let at = rule.value("burst").map_or(rule.at, |node| node.at);
            let fault = format!(
                "a bucket of {} tokens would take {} to fill",
                rate.burst,
                duration_text(rate.depth())
            );
            self.findings.error(at, fault, "lower `burst`, or raise `limit`");
            return None;
        }
        Some(rate)
    }

    fn key_policy(&mut self, node: &Node, is_rate: bool) -> Option<KeyPolicy> {
        let known = KeyPolicy::ALL
            .into_iter()
            .find(|policy| matches!(&node.value, Yaml::Text(text) if text == policy.as_str()));
        match known {
            Some(KeyPolicy::CancelOldest) if is_rate => {
                let fault = "a rate has nobody to cancel: what has started has taken its token";
                self.findings.error(node.at, fault, "write `queue` or `refuse_newest`");
                None
            }
            Some(policy) => Some(policy),
            None => {
                let fault = format!("`policy` cannot be {}", literal(node));
                self.findings.error(node.at, fault, "write `queue`, `cancel_oldest` or `refuse_newest`");
                None
            }
        }
    }
}
