//! The commands that change jobs and blueprints, one after the other as people use them, against a real orchestrator: what one has
//! done, the next one sees.

use serde_json::Value;

use crate::{
    dev::Dev,
    server::{Ran, avtomatika, ran},
};

const PARCEL: &str = r#"blueprint: parcel
states:
  listen: { start: true, event: { name: arrived }, on: { received: ask } }
  ask: { approval: { message: "sign for ${initial_data.what}?" }, on: { approved: deliver, rejected: back } }
  deliver: { task: { type: deliver, params: { street: "${initial_data.address.street}" } }, on: { success: done } }
  done: { end: finished }
  back: { end: failed }
"#;

/// Somebody weighs it first.
fn weighed() -> String {
    PARCEL
        .replace("approved: deliver", "approved: weigh")
        .replace("  done:", "  weigh: { pass: { kg: 3 }, next: deliver }\n  done:")
}

/// An orchestrator that serves [`PARCEL`], and the binary in front of it.
struct Office {
    dev: Dev,
    dir: tempfile::TempDir,
}

impl Office {
    fn open() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("parcel.yaml"), PARCEL).unwrap();
        let blueprints = dir.path().display().to_string();
        let mut dev = Dev::start(&["--ephemeral", "--no-sample", "--blueprints", &blueprints]);
        dev.until("Stop with Ctrl+C");
        Self { dev, dir }
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        ran(&mut avtomatika(&[&["--url", &self.dev.url], arguments].concat()))
    }

    /// What it said to people, all of it; the command must have done its work.
    fn done(&self, arguments: &[&str]) -> String {
        let answer = self.run(arguments);
        assert_eq!(answer.code, 0, "{arguments:?}: {answer}");
        answer.stdout + &answer.stderr
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let answer = self.run(&[&["-o", "json"], arguments].concat());
        serde_json::from_str(&answer.stdout).unwrap_or_else(|_| panic!("{arguments:?}: {answer}"))
    }

    fn submit(&self, initial_data: &str) -> String {
        let accepted = self.json(&["submit", "parcel", "--data", initial_data]);
        accepted["job_id"].as_str().unwrap().to_owned()
    }

    /// A job that has gone wrong where its street is needed.
    fn stray(&self, what: &str) -> String {
        let id = self.submit(&format!(r#"{{"what":"{what}"}}"#));
        self.done(&["signal", &id, "arrived"]);
        self.done(&["approve", &id]);
        let watched = self.run(&["watch", &id]);
        assert!(watched.code == 1 && watched.stdout.contains("EXPRESSION_ERROR"), "{watched}");
        id
    }
}

fn state_of(job: &Value) -> (&str, &str) {
    (job["status"].as_str().unwrap(), job["current_state"].as_str().unwrap())
}

#[test]
fn a_job_gets_its_signal_its_decision_and_is_led_past_what_failed() {
    let office = Office::open();
    let id = office.submit(r#"{"what":"a chair"}"#);
    let signalled = office.done(&["signal", &id, "arrived", "--data", r#"{"from":"Oslo"}"#, "--id", "van-7"]);
    assert!(signalled.contains("has the signal; it is waiting_for_human"), "{signalled}");
    office.done(&["signal", &id, "arrived", "--data", r#"{"from":"Oslo"}"#, "--id", "van-7"]);
    office.done(&["approve", &id]);
    assert_eq!(state_of(&office.json(&["get", &id])), ("failed", "deliver"));

    let refused = office.run(&["skip", &id, "--outcome", "lost"]);
    assert!(refused.code == 13 && refused.stderr.contains("Choose one of: success"), "{refused}");
    let skipped = ["skip", &id, "--outcome", "success", "--data", r#"{"by":"hand"}"#, "-r", "carried over"];
    assert!(office.done(&skipped).contains("it is finished"));
    let job = office.json(&["get", &id]);
    assert_eq!((state_of(&job), &job["state_history"]["by"]), (("finished", "done"), &"hand".into()));
    let history = office.json(&["history", &id]);
    let count = |event: &str| history.as_array().unwrap().iter().filter(|e| e["event"] == event).count();
    assert_eq!(["signal_received", "approval_decided", "state_skipped"].map(count), [1, 1, 1], "{history}");
    assert!(history.to_string().contains("carried over"), "{history}");
}

#[test]
fn jobs_that_went_wrong_alike_are_repaired_together() {
    let office = Office::open();
    let strays = [office.stray("a lamp"), office.stray("a rug")];
    let them = ["--blueprint", "parcel", "--error-code", "EXPRESSION_ERROR"];
    let dry = office.done(&[&["retry"], &them[..], &["--dry-run"]].concat());
    assert!(dry.contains("2 jobs"), "{dry}");
    for id in &strays {
        assert_eq!(state_of(&office.json(&["get", id])), ("failed", "deliver"));
    }
    let address = ["--data", r#"{"address":{"street":"Elm"}}"#];
    office.done(&[&["retry"], &them[..], &address].concat());
    for id in &strays {
        let job = office.json(&["get", id]);
        assert_eq!(
            (job["status"].as_str(), job["retry_count"].as_u64()),
            (Some("waiting_for_worker"), Some(0))
        );
        assert_eq!(job["initial_data"]["address"]["street"], "Elm");
    }
    let nobody = office.done(&[&["skip", "--outcome", "success"], &them[..]].concat());
    assert!(nobody.contains("0 jobs skipped"), "{nobody}");
}

#[test]
fn a_blueprint_is_put_compared_and_its_jobs_are_moved() {
    let office = Office::open();
    let id = office.submit(r#"{"what":"a table"}"#);
    let file = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
    std::fs::write(&file, weighed()).unwrap();
    let file_name = file.path().display().to_string();
    let put = |more: &[&str]| office.done(&[&["blueprint", "put", &file_name], more].concat());
    assert!(put(&["--dry-run"]).contains("version 2 instead of 1"));
    assert!(put(&[]).contains("version 2 instead of 1"), "the dry run has changed nothing");
    assert!(put(&[]).contains("served like this already: version 2"));

    let compared = office.run(&["blueprint", "diff", "parcel@1", "parcel@2"]);
    assert!(compared.code == 0 && compared.stdout.contains("states.ask.on.approved"), "{compared}");
    assert!(compared.stdout.contains("states.weigh"), "{compared}");
    assert_eq!(office.run(&["blueprint", "diff", "parcel@2", "parcel"]).code, 0);
    assert_eq!(office.run(&["blueprint", "diff", "parcel@2", "parcel@3"]).code, 12);

    let version = || office.json(&["get", &id])["blueprint_version"].clone();
    office.done(&["blueprint", "migrate", "parcel", "--dry-run"]);
    assert_eq!(version(), 1);
    assert!(office.done(&["blueprint", "migrate", "parcel"]).contains("1 job moved to version 2"));
    assert_eq!(version(), 2);
    let nothing = office.done(&["blueprint", "migrate", "parcel"]);
    assert!(nothing.contains("No open job has another version than 2"), "{nothing}");
    office.done(&["signal", &id, "arrived"]);
    office.done(&["approve", &id]);
    assert_eq!(office.json(&["get", &id])["state_history"]["kg"], 3, "it went the new way");
}

#[test]
fn a_reload_reads_the_files_and_one_with_a_mistake_changes_nothing() {
    let office = Office::open();
    let unchanged = office.done(&["reload"]);
    assert!(unchanged.contains("Reloaded; 2 blueprints are as they were"), "{unchanged}");
    std::fs::write(office.dir.path().join("broken.yaml"), "blueprint: broken\n").unwrap();
    let refused = office.run(&["reload"]);
    assert!(refused.code == 1 && refused.stdout.contains("broken.yaml"), "{refused}");
    std::fs::write(office.dir.path().join("broken.yaml"), PARCEL.replace("parcel", "letter")).unwrap();
    // The orchestrator watches its files too, and may have been quicker.
    office.done(&["reload"]);
    let served = office.json(&["blueprints"]);
    let names: Vec<&str> = served.as_array().unwrap().iter().map(|b| b["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["letter", "parcel", "test_workflow"]);
}
