//! What a task asks of the worker that is to have it, and which of several it would rather have.
//!
//! Plain data with one canonical text: tasks of one type with the same text may go to the same workers. It refuses to know what a
//! worker is: a condition holds of a text or a number that a worker has under a name, or of nothing.

use std::{cmp::Ordering, sync::Arc};

/// What a task asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct Needs {
    /// In its canonical form: JSON, as under the task of a blueprint.
    pub text: Arc<str>,
    /// What a worker must meet.
    pub requires: Vec<Condition>,
    /// What one task of the type may cost at most on the worker. One whose worker names no cost meets no limit.
    pub max_cost: Option<f64>,
    /// What a worker should rather meet.
    pub prefers: Vec<Preference>,
    /// How to choose among those that suit equally.
    pub strategy: Strategy,
}

/// One thing that holds of a worker or does not.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    /// Among which of its properties.
    pub about: About,
    /// Under which name.
    pub name: Arc<str>,
    /// What is there.
    pub test: Test,
}

/// Conditions that together are worth something.
#[derive(Debug, Clone, PartialEq)]
pub struct Preference {
    /// All of them.
    pub conditions: Vec<Condition>,
    /// How much.
    pub weight: u32,
}

/// Properties of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About {
    /// Its labels.
    Label,
    /// Its quantities.
    Resource,
    /// Its programs, with versions.
    Software,
    /// Its models, with versions.
    Model,
}

impl About {
    /// Its name on every surface.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Label => "label",
            Self::Resource => "resource",
            Self::Software => "software",
            Self::Model => "model",
        }
    }
}

/// What has to be under a name.
#[derive(Debug, Clone, PartialEq)]
pub enum Test {
    /// Anything.
    Present,
    /// One of these texts.
    OneOf(Vec<Arc<str>>),
    /// Something that compares so with this.
    Compared(Comparison, Arc<str>),
}

/// How two things compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// `=`
    Is,
    /// `!=`; also of nothing.
    IsNot,
    /// `<`
    Less,
    /// `<=`
    AtMost,
    /// `>`
    More,
    /// `>=`
    AtLeast,
}

impl Comparison {
    /// The comparison with which a text begins, and the rest of it.
    pub fn split(text: &str) -> Option<(Self, &str)> {
        // Of two that begin alike the longer one first.
        let all = [
            (">=", Self::AtLeast),
            ("<=", Self::AtMost),
            ("!=", Self::IsNot),
            ("==", Self::Is),
            (">", Self::More),
            ("<", Self::Less),
            ("=", Self::Is),
        ];
        all.into_iter().find_map(|(sign, comparison)| Some((comparison, text.strip_prefix(sign)?.trim())))
    }

    /// How it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Is => "=",
            Self::IsNot => "!=",
            Self::Less => "<",
            Self::AtMost => "<=",
            Self::More => ">",
            Self::AtLeast => ">=",
        }
    }

    fn holds(self, order: Option<Ordering>) -> bool {
        match self {
            Self::Is => order == Some(Ordering::Equal),
            Self::IsNot => order != Some(Ordering::Equal),
            Self::Less => order == Some(Ordering::Less),
            Self::AtMost => matches!(order, Some(Ordering::Less | Ordering::Equal)),
            Self::More => order == Some(Ordering::Greater),
            Self::AtLeast => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
        }
    }
}

impl Condition {
    /// Whether it holds of what is there: a text, and of a quantity its digits.
    pub fn holds(&self, has: Option<&str>) -> bool {
        match (&self.test, has) {
            (Test::Present, has) => has.is_some(),
            (Test::OneOf(texts), Some(has)) => texts.iter().any(|text| **text == *has),
            (Test::OneOf(_), None) => false,
            (Test::Compared(comparison, _), None) => *comparison == Comparison::IsNot,
            (Test::Compared(comparison @ (Comparison::Is | Comparison::IsNot), wants), Some(has))
                if self.about == About::Label =>
            {
                // A label is a text, even if it looks like a number.
                (**wants == *has) == (*comparison == Comparison::Is)
            }
            (Test::Compared(comparison, wants), Some(has)) => comparison.holds(self.order(has, wants)),
        }
    }

    fn order(&self, has: &str, wants: &str) -> Option<Ordering> {
        let numbers = || has.parse::<f64>().ok()?.partial_cmp(&wants.parse::<f64>().ok()?);
        match self.about {
            About::Resource => numbers(),
            About::Label => numbers().or_else(|| Some(versions(has, wants))),
            About::Software | About::Model => Some(versions(has, wants)),
        }
    }
}

/// As for people: `gpu_vram_gb >= 16`.
impl std::fmt::Display for Condition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = &self.name;
        match &self.test {
            Test::Present => write!(f, "{name}"),
            Test::OneOf(texts) => write!(f, "{name} in [{}]", texts.join(", ")),
            Test::Compared(comparison, wants) => write!(f, "{name} {} {wants}", comparison.as_str()),
        }
    }
}

/// Compares part by part between dots: as numbers where both are, as texts otherwise. A part that is missing is 0.
fn versions(has: &str, wants: &str) -> Ordering {
    let (mut has, mut wants) = (has.split('.'), wants.split('.'));
    loop {
        let (a, b) = match (has.next(), wants.next()) {
            (None, None) => return Ordering::Equal,
            (a, b) => (a.unwrap_or("0"), b.unwrap_or("0")),
        };
        let order = match (a.parse::<u64>(), b.parse::<u64>()) {
            (Ok(a), Ok(b)) => a.cmp(&b),
            _ => a.cmp(b),
        };
        if order.is_ne() {
            return order;
        }
    }
}

/// How to choose among workers that suit a task equally.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Strategy {
    /// Who has it warm, then who has most free slots.
    #[default]
    Default,
    /// Each in turn.
    RoundRobin,
    /// Who holds the fewest tasks.
    LeastConnections,
    /// Who costs least.
    Cheapest,
    /// Who costs least for its reputation.
    BestValue,
}

impl Strategy {
    /// Every strategy.
    pub const ALL: [Self; 5] =
        [Self::Default, Self::RoundRobin, Self::LeastConnections, Self::Cheapest, Self::BestValue];

    /// Its name on every surface.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::RoundRobin => "round_robin",
            Self::LeastConnections => "least_connections",
            Self::Cheapest => "cheapest",
            Self::BestValue => "best_value",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn condition(about: About, test: Test) -> Condition {
        Condition { about, name: Arc::from("x"), test }
    }

    #[test]
    fn labels_are_texts_and_compare_as_numbers_or_versions() {
        use Comparison::{AtLeast, AtMost, Is, IsNot, Less, More};
        for (comparison, wants, has, holds) in [
            (Is, "eu", Some("eu"), true),
            (Is, "eu", Some("us"), false),
            (Is, "eu", None, false),
            (Is, "1.1", Some("1.10"), false),
            (IsNot, "hdd", Some("ssd"), true),
            (IsNot, "hdd", Some("hdd"), false),
            (IsNot, "hdd", None, true),
            (AtLeast, "2", Some("10"), true),
            (AtLeast, "2.5", Some("2.25"), false),
            (More, "10", Some("9"), false),
            (Less, "10", Some("9"), true),
            (AtMost, "1.2.3", Some("1.10.0"), false),
            (AtMost, "1.10", Some("1.9.9"), true),
            (AtLeast, "2", None, false),
        ] {
            let condition = condition(About::Label, Test::Compared(comparison, Arc::from(wants)));
            assert_eq!(condition.holds(has), holds, "{has:?} for {condition}");
        }
        let one_of = condition(About::Label, Test::OneOf(vec![Arc::from("a"), Arc::from("b")]));
        assert!(one_of.holds(Some("b")) && !one_of.holds(Some("c")) && !one_of.holds(None));
        assert_eq!(one_of.to_string(), "x in [a, b]");
    }

    #[test]
    fn versions_compare_part_by_part_and_quantities_as_numbers() {
        use Comparison::{AtLeast, Is, Less};
        for (about, comparison, wants, has, holds) in [
            (About::Software, AtLeast, "3.9", "3.11", true),
            (About::Software, Is, "3.11", "3.11.0", true),
            (About::Software, Less, "3.11", "3.11.1", false),
            (About::Model, AtLeast, "2", "1.5", false),
            (About::Resource, AtLeast, "16", "16", true),
            (About::Resource, AtLeast, "16", "9.5", false),
            (About::Resource, Is, "16", "16.0", true),
            (About::Resource, AtLeast, "16", "many", false),
        ] {
            let condition = condition(about, Test::Compared(comparison, Arc::from(wants)));
            assert_eq!(condition.holds(Some(has)), holds, "{has} for {condition}");
        }
        let present = condition(About::Software, Test::Present);
        assert!(present.holds(Some("")) && !present.holds(None));
    }
}
