//! The grammar of what a task asks of its worker: `requires`, `prefer` and `strategy`.
//!
//! It is read from files, and again from the canonical text that waiting tasks are stored with: both are the same words. What is
//! written in other words and means the same has the same canonical text.

use std::sync::Arc;

use avtomatika_proto::limits::{LABEL_KEY_BYTES_MAX, LABEL_VALUE_BYTES_MAX};
use serde_json::{Map, Value, json};

use super::{
    finding::{Findings, Position, did_you_mean, shown},
    needs::{About, Comparison, Condition, Needs, Preference, Strategy, Test},
    reader::{Members, Reader, literal},
    yaml::{Node, Yaml},
};

/// The keys of a task that this file is about.
pub const ASKING_KEYS: [&str; 3] = ["requires", "prefer", "strategy"];

/// Conditions of one `requires`, or of one preference.
const CONDITIONS_MAX: usize = 32;

/// Preferences of one task.
const PREFERENCES_MAX: usize = 16;

/// What one preference is worth at most.
const WEIGHT_MAX: u32 = 1000;

const CONDITION_KEYS: [&str; 4] = ["labels", "resources", "software", "models"];

/// Conditions with their canonical form.
type Read = (Vec<Condition>, Map<String, Value>);

/// The same with what a task may cost.
type Required = (Vec<Condition>, Option<f64>, Map<String, Value>);

impl Needs {
    /// What this canonical text asks for; `None` when it is none.
    pub fn parse(text: &str) -> Option<Self> {
        let value: Value = serde_json::from_str(text).ok()?;
        let node = Node::of_json(&value);
        let mut reader = Reader::new(Findings::new("needs"));
        let members = reader.members(&node, "needs", &ASKING_KEYS)?;
        let (needs, _) = reader.needs(&members)??;
        (!reader.findings.any_error()).then_some(needs)
    }
}

impl Reader {
    /// What a task with these members asks for, and the form of it; nothing is an answer too.
    pub fn needs(&mut self, task: &Members<'_>) -> Option<Option<(Needs, Map<String, Value>)>> {
        let mut form = Map::new();
        let requires = task.value("requires").map(|node| self.requires(node));
        let prefers = task.value("prefer").map(|node| self.prefers(node));
        let strategy = task.value("strategy").map(|node| self.strategy(node));
        // All are read before giving up, so that every error is found.
        let (conditions, max_cost, required) = requires.unwrap_or_else(|| Some(Default::default()))?;
        let (prefers, preferred) = prefers.unwrap_or_else(|| Some(Default::default()))?;
        let strategy = strategy.unwrap_or_else(|| Some(Default::default()))?;
        if !required.is_empty() {
            form.insert("requires".to_owned(), Value::Object(required));
        }
        if !preferred.is_empty() {
            form.insert("prefer".to_owned(), Value::Array(preferred));
        }
        if strategy != Strategy::Default {
            form.insert("strategy".to_owned(), json!(strategy.as_str()));
        }
        if form.is_empty() {
            return Some(None);
        }
        let text = Arc::from(Value::Object(form.clone()).to_string());
        let needs = Needs { text, requires: conditions, max_cost, prefers, strategy };
        Some(Some((needs, form)))
    }

    fn requires(&mut self, node: &Node) -> Option<Required> {
        let keys = [&CONDITION_KEYS[..], &["max_cost"]].concat();
        let members = self.members(node, "`requires`", &keys)?;
        let max_cost = match members.value("max_cost") {
            Some(node) => self.cost(node).map(Some),
            None => Some(None),
        };
        let (conditions, mut form) = self.conditions(&members)?;
        let max_cost = max_cost?;
        form.extend(max_cost.map(|cost| ("max_cost".to_owned(), json!(cost))));
        Some((conditions, max_cost, form))
    }

    fn cost(&mut self, node: &Node) -> Option<f64> {
        let cost = match &node.value {
            Yaml::Number(number) => number.as_f64().filter(|cost| *cost >= 0.0),
            _ => None,
        };
        if cost.is_none() {
            let fault = format!("`max_cost` must be a number, not {}", literal(node));
            self.findings.error(node.at, fault, "write what a task may cost at most, as in `max_cost: 0.5`");
        }
        cost
    }

    fn strategy(&mut self, node: &Node) -> Option<Strategy> {
        let text = self.text(node, "`strategy`")?;
        let found = Strategy::ALL.into_iter().find(|strategy| strategy.as_str() == text);
        if found.is_none() {
            let fault = format!("there is no strategy `{}`", shown(text));
            let names = Strategy::ALL.map(Strategy::as_str);
            self.findings.error(node.at, fault, did_you_mean(text, names));
        }
        found
    }

    fn prefers(&mut self, node: &Node) -> Option<(Vec<Preference>, Vec<Value>)> {
        let items = match &node.value {
            Yaml::List(items) if (1..=PREFERENCES_MAX).contains(&items.len()) => items,
            _ => {
                self.findings.error(
                    node.at,
                    format!("`prefer` must be a list, not {}", literal(node)),
                    format!("write 1 to {PREFERENCES_MAX} items, as in `- {{ labels: {{ disk: ssd }}, weight: 5 }}`"),
                );
                return None;
            }
        };
        let read: Vec<_> = items.iter().map(|item| self.preference(item)).collect();
        let read: Vec<(Preference, Value)> = read.into_iter().collect::<Option<_>>()?;
        Some(read.into_iter().unzip())
    }

    fn preference(&mut self, node: &Node) -> Option<(Preference, Value)> {
        let keys = [&CONDITION_KEYS[..], &["weight"]].concat();
        let members = self.members(node, "a preference", &keys)?;
        let weight = match members.value("weight") {
            Some(node) => self.integer(node, "weight", 1, WEIGHT_MAX),
            None => Some(1),
        };
        let (conditions, mut form) = self.conditions(&members)?;
        if conditions.is_empty() {
            let cure = "say what is preferred, as in `labels: { disk: ssd }`";
            self.findings.error(node.at, "a preference has no condition", cure);
            return None;
        }
        form.insert("weight".to_owned(), json!(weight?));
        Some((Preference { conditions, weight: weight? }, Value::Object(form)))
    }

    fn conditions(&mut self, members: &Members<'_>) -> Option<Read> {
        let (mut conditions, mut form) = (Vec::new(), Map::new());
        let mut sound = true;
        for (key, about) in
            CONDITION_KEYS.into_iter().zip([About::Label, About::Resource, About::Software, About::Model])
        {
            let Some(node) = members.value(key) else { continue };
            let read = match about {
                About::Label | About::Resource => self.by_name(node, key, about),
                About::Software | About::Model => self.installed(node, key, about),
            };
            match read {
                Some((more, value)) => {
                    conditions.extend(more);
                    form.insert(key.to_owned(), value);
                }
                None => sound = false,
            }
        }
        if conditions.len() > CONDITIONS_MAX {
            let fault = format!("{} has {} conditions", members.what, conditions.len());
            self.findings.error(members.at, fault, format!("keep at most {CONDITIONS_MAX}"));
            return None;
        }
        sound.then_some((conditions, form))
    }

    /// `{ region: eu, zone: [a, b] }` or `{ gpu_vram_gb: ">= 16", cpus: 8 }`.
    fn by_name(&mut self, node: &Node, key: &str, about: About) -> Option<(Vec<Condition>, Value)> {
        let (mut conditions, mut form) = (Vec::new(), Map::new());
        let mut sound = true;
        for entry in self.map(node, &format!("`{key}`"))? {
            let name = self.named(&entry.key, entry.key_at, key);
            let test = match about {
                About::Resource => self.quantity(&entry.value),
                _ => self.label(&entry.value),
            };
            match name.zip(test) {
                Some((name, test)) => {
                    form.insert(entry.key.clone(), form_of(about, &test));
                    conditions.push(Condition { about, name, test });
                }
                None => sound = false,
            }
        }
        sound.then_some((conditions, Value::Object(form)))
    }

    /// `[ffmpeg, "python >= 3.11"]`.
    fn installed(&mut self, node: &Node, key: &str, about: About) -> Option<(Vec<Condition>, Value)> {
        let Yaml::List(items) = &node.value else {
            let fault = format!("`{key}` must be a list, not {}", literal(node));
            self.findings.error(node.at, fault, "write for example `[ffmpeg, \"python >= 3.11\"]`");
            return None;
        };
        let read: Vec<Option<Condition>> = items
            .iter()
            .map(|item| {
                let text = self.text(item, &format!("an item of `{key}`"))?;
                let at = text.find(['<', '>', '=', '!']).unwrap_or(text.len());
                let name = self.named(text[..at].trim(), item.at, key)?;
                let test = match &text[at..] {
                    "" => Test::Present,
                    version => self.compared(item, version)?,
                };
                Some(Condition { about, name, test })
            })
            .collect();
        let conditions: Vec<Condition> = read.into_iter().collect::<Option<_>>()?;
        let form = conditions.iter().map(|condition| json!(condition.to_string())).collect();
        Some((conditions, Value::Array(form)))
    }

    fn named(&mut self, name: &str, at: Position, key: &str) -> Option<Arc<str>> {
        if !name.is_empty() && name.len() <= LABEL_KEY_BYTES_MAX && !name.chars().any(char::is_control) {
            return Some(Arc::from(name));
        }
        let fault = format!("`{}` cannot be a name in `{key}`", shown(name));
        self.findings.error(at, fault, format!("use 1 to {LABEL_KEY_BYTES_MAX} bytes"));
        None
    }

    /// A text, one of several, or a comparison.
    fn label(&mut self, node: &Node) -> Option<Test> {
        if let Yaml::List(items) = &node.value {
            let texts = items.iter().map(|item| self.label_text(item)).collect::<Vec<_>>();
            let texts: Vec<Arc<str>> = texts.into_iter().collect::<Option<_>>()?;
            if texts.is_empty() {
                let cure = "name the values that will do, as in `[eu, us]`";
                self.findings.error(node.at, "a label can be none of no values", cure);
                return None;
            }
            return Some(Test::OneOf(texts));
        }
        let text = self.label_text(node)?;
        match Comparison::split(&text) {
            Some(_) => self.compared(node, &text),
            None => Some(Test::Compared(Comparison::Is, text)),
        }
    }

    fn label_text(&mut self, node: &Node) -> Option<Arc<str>> {
        let text = match &node.value {
            Yaml::Number(number) => number.to_string(),
            Yaml::Bool(value) => value.to_string(),
            _ => self.text(node, "a label's value")?.to_owned(),
        };
        if text.len() <= LABEL_VALUE_BYTES_MAX {
            return Some(Arc::from(text));
        }
        let cure = format!("labels have values of at most {LABEL_VALUE_BYTES_MAX} bytes");
        self.findings.error(node.at, "no label has so long a value", cure);
        None
    }

    /// A comparison and what is compared with.
    fn compared(&mut self, node: &Node, text: &str) -> Option<Test> {
        match Comparison::split(text) {
            Some((comparison, wants)) if !wants.is_empty() => {
                Some(Test::Compared(comparison, Arc::from(wants)))
            }
            _ => {
                let fault = format!("`{}` compares with nothing", shown(text));
                self.findings.error(node.at, fault, "write for example `>= 2`");
                None
            }
        }
    }

    /// A number that is the least that will do, or a comparison with one.
    fn quantity(&mut self, node: &Node) -> Option<Test> {
        let compared = match &node.value {
            Yaml::Number(number) => number.as_f64().map(|number| (Comparison::AtLeast, number)),
            Yaml::Text(text) => Comparison::split(text)
                .and_then(|(comparison, number)| Some((comparison, number.parse().ok()?))),
            _ => None,
        };
        if let Some((comparison, number)) = compared.filter(|(_, number)| number.is_finite()) {
            return Some(Test::Compared(comparison, Arc::from(number.to_string())));
        }
        self.findings.error(
            node.at,
            format!("a quantity cannot be {}", literal(node)),
            "write the least that will do, as in `8`, or a comparison, as in `\">= 16\"`",
        );
        None
    }
}

/// A test in its canonical form.
fn form_of(about: About, test: &Test) -> Value {
    match test {
        Test::Present => json!(true),
        Test::OneOf(texts) => json!(texts),
        Test::Compared(Comparison::Is, text)
            if about == About::Label && Comparison::split(text).is_none() =>
        {
            json!(text)
        }
        Test::Compared(comparison, text) => json!(format!("{} {text}", comparison.as_str())),
    }
}
