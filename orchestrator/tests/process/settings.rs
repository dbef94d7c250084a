//! The settings file is read again: what can change does, what cannot is named, and a mistake anywhere keeps everything as it was.

use std::fs;

use serde_json::{Value, json};

use super::*;

/// Jobs of it stay open, and may have a webhook.
const OPEN: &str = "blueprint: open\nstates:\n  stand: { start: true, event: { name: go }, on: { received: done } }\n  done: { end: finished }\n";

/// A program whose settings are in a file alone, and what it is made of.
struct World {
    dir: tempfile::TempDir,
    running: Running,
}

impl World {
    /// Started with these lines among the settings.
    fn with(lines: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("blueprints")).unwrap();
        fs::write(dir.path().join("blueprints/open.yaml"), OPEN).unwrap();
        write_settings(dir.path(), lines);
        let mut command = program();
        command.arg("--config").arg(dir.path().join("settings.toml"));
        Self { running: Running::start(command), dir }
    }

    fn set(&self, lines: &str) {
        write_settings(self.dir.path(), lines);
    }

    /// Status and body of the answer to a reload.
    fn reload(&self) -> (u16, Value) {
        post(self.running.port, "/api/reload").unwrap()
    }

    /// A reload that goes well: what it warns of.
    fn reloaded(&self) -> Vec<String> {
        let (status, answer) = self.reload();
        assert_eq!((status, &answer["applied"]), (200, &json!(true)), "{answer}");
        let findings = answer["findings"].as_array().unwrap();
        findings.iter().map(|finding| finding["what"].as_str().unwrap().to_owned()).collect()
    }

    /// Status and code of the answer to a submission.
    fn submit(&self, webhook_url: Option<&str>) -> (u16, Value) {
        let body = json!({ "blueprint": "open", "initial_data": {}, "webhook_url": webhook_url });
        let (status, answer) =
            send_text(self.running.port, "POST", "/api/v1/jobs", &body.to_string()).unwrap();
        (status, answer["code"].clone())
    }

    fn stop(self) {
        self.running.stop();
    }
}

fn write_settings(dir: &Path, lines: &str) {
    let text = format!(
        "{lines}\nlisten = \"127.0.0.1:0\"\nblueprints = {:?}\ndata_dir = {:?}\nworker_tokens = [{:?}]\n[clients]\ndefault = {:?}\n",
        dir.join("blueprints"),
        dir.join("data"),
        TOKENS[3],
        TOKENS[1]
    );
    fs::write(dir.join("settings.toml"), text).unwrap();
}

#[test]
fn limits_are_in_force_when_the_reload_is_answered() {
    let world = World::with("max_open_jobs = 1");
    assert_eq!(world.submit(None).0, 202);
    assert_eq!(world.submit(None), (429, json!("TOO_MANY_OPEN_JOBS")));
    world.set("max_open_jobs = 3");
    assert_eq!(world.reloaded(), [""; 0]);
    assert_eq!((world.submit(None).0, world.submit(None).0), (202, 202));
    assert_eq!(world.submit(None).0, 429);
    // What is there already stays.
    world.set("max_open_jobs = 2");
    assert_eq!(world.reloaded(), [""; 0]);
    assert_eq!(world.submit(None).0, 429);
    assert_eq!(get(world.running.port, "/api/jobs")["jobs"].as_array().unwrap().len(), 3);
    world.stop();
}

#[test]
fn what_needs_a_restart_is_named_and_the_rest_is_in_force() {
    let world = World::with("max_open_jobs = 1\nadoption_window = \"5s\"");
    assert_eq!(world.submit(None).0, 202);
    world.set("max_open_jobs = 2\nadoption_window = \"6s\"\nlog_format = \"json\"");
    let named =
        ["adoption_window has changed, and needs a restart", "log_format has changed, and needs a restart"];
    assert_eq!(world.reloaded(), named);
    assert_eq!(world.submit(None).0, 202);
    assert_eq!(world.reloaded(), named, "as long as it is so");
    world.stop();
}

#[test]
fn a_mistake_in_the_settings_or_elsewhere_keeps_everything_as_it_was() {
    let world = World::with("max_open_jobs = 1");
    assert_eq!(world.submit(None).0, 202);
    let blueprint = world.dir.path().join("blueprints/open.yaml");
    let refused = |world: &World| {
        let (status, answer) = world.reload();
        assert_eq!((status, &answer["code"]), (422, &json!("BLUEPRINTS_INVALID")), "{answer}");
        assert_eq!(world.submit(None).0, 429, "the limit of before");
        answer["findings"][0]["what"].as_str().unwrap().to_owned()
    };
    // Settings in order, a blueprint that is not.
    world.set("max_open_jobs = 2");
    fs::write(&blueprint, "blueprint: open").unwrap();
    refused(&world);
    // The other way round.
    world.set("max_open_jobs = 0");
    fs::write(&blueprint, OPEN.replace("name: go", "name: come")).unwrap();
    assert_eq!(refused(&world), "0 would refuse everything");
    assert_eq!(get(world.running.port, "/api/blueprints/open")["version"], 1);
    // Both.
    world.set("max_open_jobs = 2");
    assert_eq!(world.reloaded(), [""; 0]);
    assert_eq!(get(world.running.port, "/api/blueprints/open")["version"], 2);
    assert_eq!(world.submit(None).0, 202);
    world.stop();
}

#[test]
fn tokens_and_webhooks_are_read_again() {
    let secret = |name: &str| {
        format!("webhook_secrets = [\"whsec_{name}5r8GKYqrTwjUPD8ILPZIo2LaLaSw\"]\nmax_open_jobs = 9")
    };
    let inside = Some("http://127.0.0.1:9/told");
    let world = World::with(&secret("MfKQ"));
    assert_eq!(world.submit(inside), (422, json!("WEBHOOK_URL_FORBIDDEN")));
    world.set(&format!("{}\nwebhooks_allow_private = true", secret("NgLR")));
    assert_eq!(world.reloaded(), [""; 0]);
    assert_eq!(world.submit(inside).0, 202);
    // Webhooks as a whole are begun and ended by a restart.
    world.set("");
    assert_eq!(world.reloaded(), ["webhook_secrets has changed, and needs a restart"]);
    assert_eq!(world.submit(inside).0, 202);

    let settings = world.dir.path().join("settings.toml");
    let text = fs::read_to_string(&settings).unwrap();
    fs::write(&settings, text.replace(TOKENS[1], "another-client-token")).unwrap();
    assert_eq!(world.reloaded(), ["webhook_secrets has changed, and needs a restart"]);
    assert_eq!(world.submit(None).0, 401, "the token of before");
    world.stop();
}

#[test]
fn after_a_hangup_the_log_says_as_much_as_the_file_wants() {
    let mut world = World::with("log = \"info\"");
    let mut hang_up = |lines: &str, until: &str| {
        let begin = world.running.said.len();
        world.set(lines);
        world.running.signal("-HUP");
        world.running.until(until);
        world.running.said[begin..].to_owned()
    };
    // The warning is told after the new filter is in force.
    let said = hang_up("log = \"warn\"\ndrain_timeout = \"9s\"", "drain_timeout has changed");
    assert!(!said.contains("Access reloaded"), "{said}");
    let said = hang_up("log = \"info,a=b=c\"", "is not a filter");
    assert!(said.contains("log: error: ") && !said.contains("Blueprints reloaded"), "{said}");
    let said = hang_up("log = \"info\"\ndrain_timeout = \"9s\"", "Blueprints reloaded");
    assert_eq!(said.matches("Blueprints reloaded").count(), 1, "{said}");
    world.stop();
}
