//! The document, from what was found out.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use avtomatika_orchestrator::engine::JobStatus;

use crate::{
    explore::{Explored, Place},
    leases::Observed,
};

const HEAD: &str = "\
# The states of jobs and attempts

Drawn by a test from the engine itself, which is asked in every job that small blueprints can come to what follows from everything that can
happen (`orchestrator/tests/states`). Do not edit: change the engine, and let the test write this page anew.

";

pub fn document(explored: &Explored, leases: &Observed) -> String {
    let mut page = HEAD.to_owned();
    page.push_str(
        "## A job\n\n\
         A job has one status at a time. Between two states of its blueprint it has none: it goes on at once, in the same transaction, until\n\
         a state makes it wait or end. Arrows from `next_state` are named by the kind of the state that it comes to; one that ends\n\
         badly does so because of an expression without a value, a limit, or an outcome without a transition.\n\n",
    );
    page.push_str(&diagram_of_jobs(explored));
    page.push_str(
        "\nA task in a worker's hands is stored as `waiting_for_worker` and shown as `running`: who holds it is not durable, and need not be.\n\n",
    );
    page.push_str(&table_of_jobs(explored));
    page.push_str(
        "\n## An attempt\n\n\
         Each try at a task has an id of its own, the fence: only what carries the id of the job's current attempt changes the job. While it\n\
         is current, it is ready or held; what ends it is decided once.\n\n",
    );
    page.push_str(&diagram_of_attempts(explored, leases));
    page.push('\n');
    page.push_str(&table_of_attempts(explored));
    page.push_str(
        "\n## What changes nothing\n\n\
         News that comes late, twice or from somebody else is refused by name.\n\n| refusal | of |\n|---|---|\n",
    );
    for (refusal, labels) in &explored.refusals {
        let _ = writeln!(page, "| `{refusal}` | {} |", listed(labels));
    }
    page
}

fn name(place: Place) -> String {
    match place {
        Place::Status(status) => status.to_string(),
        Place::NextState => "next_state".to_owned(),
    }
}

fn listed(labels: &BTreeSet<String>) -> String {
    labels.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}

/// What may happen to every open job alike is told in words: it would hide the rest.
fn is_told_apart(label: &str) -> bool {
    ["cancel", "migrate", "skip"].contains(&label)
}

fn diagram_of_jobs(explored: &Explored) -> String {
    let mut text =
        String::from("```mermaid\nstateDiagram-v2\n    state next_state <<choice>>\n    [*] --> pending\n");
    for (arrow, labels) in &explored.arrows {
        let repair = arrow.from.status().is_some_and(JobStatus::is_terminal);
        let is_shown = |label: &str| {
            // A signal that is kept changes nothing else.
            (repair || !is_told_apart(label)) && (arrow.from != arrow.to || label != "signal")
        };
        let shown: BTreeSet<String> = labels.iter().filter(|label| is_shown(label)).cloned().collect();
        if shown.is_empty() {
            continue;
        }
        let _ = writeln!(text, "    {} --> {} : {}", name(arrow.from), name(arrow.to), listed(&shown));
    }
    for status in JobStatus::ALL.iter().filter(|status| status.is_terminal()) {
        let _ = writeln!(text, "    {status} --> [*]");
    }
    text.push_str(
        "```\n\nNot drawn, because every open job has them: `cancel` leads to `cancelled`, `skip` to `next_state`, and `migrate` leaves the job\n\
         where it stands or enters the named state of the other version.\n",
    );
    text
}

fn table_of_jobs(explored: &Explored) -> String {
    let mut rows: BTreeMap<(Place, &str), BTreeSet<String>> = BTreeMap::new();
    for (arrow, labels) in &explored.arrows {
        for label in labels {
            rows.entry((arrow.from, label)).or_default().insert(format!("`{}`", name(arrow.to)));
        }
    }
    let mut text = String::from("| from | when | to |\n|---|---|---|\n");
    for ((from, label), to) in rows {
        let _ = writeln!(text, "| `{}` | {label} | {} |", name(from), listed(&to));
    }
    text
}

fn diagram_of_attempts(explored: &Explored, leases: &Observed) -> String {
    let mut text = String::from("```mermaid\nstateDiagram-v2\n    [*] --> current\n    state current {\n");
    for (from, to, why) in leases.iter().filter(|(_, to, _)| *to != "gone") {
        let from = if *from == "gone" { "[*]" } else { from };
        let _ = writeln!(text, "        {from} --> {to} : {why}");
    }
    text.push_str("    }\n");
    let mut ends: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for (ending, labels) in &explored.endings {
        ends.entry(ending.end).or_default().extend(labels.iter().cloned());
    }
    for (end, labels) in &ends {
        let _ = writeln!(text, "    current --> {end} : {}", listed(labels));
    }
    for ending in explored.endings.keys() {
        let _ = writeln!(text, "    {} --> {}", ending.end, ending.then);
    }
    text.push_str("    next_attempt --> [*]\n    retry_later --> [*]\n    next_state --> [*]\n    job_ended --> [*]\n```\n");
    text
}

fn table_of_attempts(explored: &Explored) -> String {
    let mut text = String::from("| it ended | because of | then |\n|---|---|---|\n");
    for (ending, labels) in &explored.endings {
        let then = match ending.then {
            "next_attempt" => "another attempt is ready at once",
            "retry_later" => "another attempt follows after a pause",
            "next_state" => "the job goes on to its next state",
            _ => "the job has ended",
        };
        let _ = writeln!(text, "| {} | {} | {then} |", ending.end.replace('_', " "), listed(labels));
    }
    text
}
