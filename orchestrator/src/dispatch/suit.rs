//! Whether a worker may have tasks of a class, and how gladly it is given them: what the tasks need against what it said of itself.
//!
//! Asked once for each class and worker, when the two meet for the first time; what changes while both are there (free slots, warm
//! types, reputation) is the business of [`placement`](super::placement).

use super::classes::Class;
use crate::{
    blueprint::{About, Condition, Test},
    store::WorkerRecord,
};

/// Something that a task needs and a worker does not have.
#[derive(Debug, Clone, PartialEq)]
pub struct Unmet {
    /// `label`, `resource`, `software`, `model` or `cost`.
    pub about: &'static str,
    /// What is needed, for people: `gpu_vram_gb >= 16`.
    pub needs: String,
    /// What the worker has under that name.
    pub has: Option<String>,
    /// How far that is from what is needed: the difference in millionths of the larger one, so that gigabytes and costs compare. All of
    /// them where it is no number, or not there.
    pub shortfall_millionths: u32,
}

/// Nothing of what is needed.
const WHOLE: u32 = 1_000_000;

/// Whether the worker may have tasks of this class.
pub fn suits(class: &Class, worker: &WorkerRecord) -> bool {
    let Some(needs) = &class.needs else { return true };
    let affordable = needs.max_cost.is_none_or(|max| cost(class, worker) <= max);
    affordable && needs.requires.iter().all(|condition| holds(condition, worker))
}

/// What of the class's needs the worker does not meet.
pub fn unmet(class: &Class, worker: &WorkerRecord) -> Vec<Unmet> {
    let Some(needs) = &class.needs else { return Vec::new() };
    let conditions = needs.requires.iter().filter(|condition| !holds(condition, worker));
    let mut unmet: Vec<Unmet> = conditions
        .map(|condition| {
            let (needs, has) = (condition.to_string(), has(condition, worker));
            let shortfall_millionths = match &condition.test {
                Test::Compared(_, wants) => shortfall(number(wants), has.as_deref().and_then(number)),
                Test::Present | Test::OneOf(_) => WHOLE,
            };
            Unmet { about: condition.about.as_str(), needs, has, shortfall_millionths }
        })
        .collect();
    let cost = cost(class, worker);
    if let Some(max) = needs.max_cost.filter(|max| cost > *max) {
        let has = Some(cost).filter(|cost| cost.is_finite());
        unmet.push(Unmet {
            about: "cost",
            needs: format!("<= {max}"),
            has: has.map(|cost| cost.to_string()),
            shortfall_millionths: shortfall(Some(max), has),
        });
    }
    unmet
}

fn number(text: &str) -> Option<f64> {
    text.parse().ok().filter(|number: &f64| number.is_finite())
}

fn shortfall(wants: Option<f64>, has: Option<f64>) -> u32 {
    let (Some(wants), Some(has)) = (wants, has) else { return WHOLE };
    let larger = wants.abs().max(has.abs());
    if larger == 0.0 {
        // Both are nothing, and the one is to be more or less than the other.
        return 0;
    }
    // At most twice the larger one, when they differ in sign; the cast keeps within bounds.
    ((wants - has).abs() / larger * f64::from(WHOLE)).min(f64::from(WHOLE)) as u32
}

/// What the class's preferences that the worker meets are worth.
pub fn preference(class: &Class, worker: &WorkerRecord) -> u32 {
    let Some(needs) = &class.needs else { return 0 };
    let met = needs
        .prefers
        .iter()
        .filter(|preference| preference.conditions.iter().all(|condition| holds(condition, worker)));
    met.map(|preference| preference.weight).sum()
}

/// What a task of the class costs on the worker; infinite when the worker does not say.
pub fn cost(class: &Class, worker: &WorkerRecord) -> f64 {
    worker.terms.get(&class.task_type).and_then(|terms| terms.cost).unwrap_or(f64::INFINITY)
}

fn holds(condition: &Condition, worker: &WorkerRecord) -> bool {
    match condition.about {
        About::Resource => condition.holds(has(condition, worker).as_deref()),
        about => condition.holds(texts(about, worker).get(&*condition.name).map(String::as_str)),
    }
}

fn has(condition: &Condition, worker: &WorkerRecord) -> Option<String> {
    match condition.about {
        About::Resource => worker.resources.get(&*condition.name).map(f64::to_string),
        about => texts(about, worker).get(&*condition.name).cloned(),
    }
}

fn texts(about: About, worker: &WorkerRecord) -> &std::collections::BTreeMap<String, String> {
    match about {
        About::Software => &worker.software,
        About::Model => &worker.models,
        About::Label | About::Resource => &worker.labels,
    }
}
