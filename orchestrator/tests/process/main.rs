//! The real program: what it says, what it ends with, and how it stops.

#![allow(clippy::unwrap_used)]

mod bad_input;
mod log;
mod pruning_killed;
mod running;
mod schedules_killed;
mod settings;
mod traces;

use std::{
    fs::DirEntry,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
    time::SystemTime,
};

use avtomatika_orchestrator::{store::sqlite::SqliteStore, trust::TokenHash};
use running::{Running, TOKENS, blueprints, complete, ended, get, post, program, send_text};

#[test]
fn it_says_where_it_runs_and_what_it_serves_and_stops_when_asked() {
    for signal in ["-TERM", "-INT"] {
        let dir = tempfile::tempdir().unwrap();
        let running = Running::start(complete(&dir.path().join("data")));
        running.signal(signal);
        let (status, said) = running.wait();
        assert_eq!(status, Some(0), "{said}");
        assert!(said.contains("  - test_workflow (version 1, POST /api/jobs/test)"), "{said}");
        assert!(said.contains("Stopped: every acknowledged job is on disk"), "{said}");
        assert!(!said.contains("secret"), "no token reaches the log: {said}");
    }
}

#[test]
fn settings_come_from_the_environment_and_from_a_file_too() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("settings.toml");
    std::fs::write(
        &file,
        format!(
            "listen = \"127.0.0.1:0\"\nblueprints = {:?}\nworker_tokens = [\"w\"]\nlog_format = \"json\"\n",
            blueprints()
        ),
    )
    .unwrap();
    let mut command = program();
    command.arg("--config").arg(&file);
    command.env("AVTOMATIKA_CLIENT_TOKEN", "a:secret-1,b:secret-2").env("XDG_DATA_HOME", dir.path());
    let running = Running::start(command);
    assert!(running.said.starts_with("{\"timestamp\":"), "{}", running.said);
    running.stop();
    assert!(dir.path().join("avtomatika").is_dir(), "the default data directory");
}

#[test]
fn what_keeps_it_from_starting_is_said_in_two_lines_and_by_its_status() {
    let dir = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken_port = taken.local_addr().unwrap().to_string();
    let file = dir.path().join("a file");
    std::fs::write(&file, "").unwrap();
    let empty = dir.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let first = Running::start(complete(&dir.path().join("in use")));
    let garbage = dir.path().join("garbage");
    std::fs::create_dir(&garbage).unwrap();
    std::fs::write(garbage.join("avtomatika.db"), "this is no database").unwrap();
    let newer = dir.path().join("newer");
    drop(SqliteStore::open(&newer).unwrap());
    let database = rusqlite::Connection::open(newer.join("avtomatika.db")).unwrap();
    database.execute_batch("PRAGMA user_version = 999").unwrap();
    drop(database);

    let with = |flags: &[&str], data_dir: &str| {
        let mut command = program();
        command.args(TOKENS).arg("--data-dir").arg(dir.path().join(data_dir)).args(flags);
        command
    };
    let examples = blueprints();
    let examples = ["--blueprints", examples.to_str().unwrap()];
    let free = [examples.as_slice(), &["--listen", "127.0.0.1:0"]].concat();
    for (mut command, status, text) in [
        (
            with(&[], "d"),
            2,
            "error: blueprints: no directory with blueprints is named\nhint: name one with --blueprints",
        ),
        (
            with(&["--blueprints", empty.to_str().unwrap()], "d"),
            2,
            &*format!(
                "error: the blueprints cannot be used:\n{}: error: holds no blueprint",
                empty.display()
            ),
        ),
        (with(&["--blueprints", "/nowhere"], "d"), 2, "error: the blueprints cannot be used:\n/nowhere: "),
        (with(&["--config", "/nowhere.toml"], "d"), 2, "error: /nowhere.toml: cannot be read: "),
        (
            with(&[&free[..], &["--schedules", "/nowhere.toml"]].concat(), "d"),
            2,
            "error: the schedules cannot be used:\n/nowhere.toml: cannot be read: ",
        ),
        (with(&[&free[..], &["--log", "a=b=c"]].concat(), "d"), 2, "error: log: \"a=b=c\" is not a filter"),
        (with(&[&free[..], &["--listen", "0.0.0.0:0"]].concat(), "d"), 2, "error: the argument '--listen"),
        (
            with(&[&examples[..], &["--listen", "0.0.0.0:0"]].concat(), "d"),
            2,
            "error: listen: 0.0.0.0:0 can be reached",
        ),
        (
            with(&[&examples[..], &["--listen", &taken_port]].concat(), "d"),
            69,
            "error: cannot listen on 127.0.0.1:",
        ),
        (with(&free, "a file"), 73, "error: cannot use "),
        (with(&free, "in use"), 73, "error: "),
        (
            with(&free, "garbage"),
            73,
            &*format!("error: {} is damaged: ", garbage.join("avtomatika.db").display()),
        ),
        (
            with(&free, "newer"),
            73,
            &*format!("error: {} has format 999", newer.join("avtomatika.db").display()),
        ),
    ] {
        let (found, said) = ended(command.output().unwrap());
        assert_eq!(found, Some(status), "{said}");
        assert!(said.starts_with(text), "{said}");
        assert!(said.contains("\nhint: ") || said.contains("--help"), "{said}");
        assert!(!said.contains("secret") && !said.contains("panicked"), "{said}");
    }
    first.stop();
}

/// A directory of its own with one blueprint, whose jobs end by themselves.
fn one_blueprint(dir: &Path) -> PathBuf {
    let blueprints = dir.join("blueprints");
    std::fs::create_dir(&blueprints).unwrap();
    write_edition(&blueprints, 1);
    blueprints
}

fn write_edition(blueprints: &Path, edition: u32) {
    std::fs::write(blueprints.join("book.yaml"), edition_of("book", edition)).unwrap();
}

fn edition_of(name: &str, edition: u32) -> String {
    format!(
        "blueprint: {name}\nendpoint: /{name}s\nstates:\n  print: {{ start: true, pass: {{ edition: {edition} }}, next: done }}\n  done: {{ end: finished }}\n"
    )
}

fn serving(blueprints: &Path, data_dir: &Path) -> Command {
    let mut command = program();
    command.args(TOKENS).args(["--listen", "127.0.0.1:0", "--blueprints"]).arg(blueprints);
    command.arg("--data-dir").arg(data_dir);
    command
}

/// Sizes and times of the files in which jobs and blueprints are kept.
fn look(data_dir: &Path) -> Vec<(u64, SystemTime)> {
    let about = |file: DirEntry| file.metadata().and_then(|about| Ok((about.len(), about.modified()?))).ok();
    std::fs::read_dir(data_dir).unwrap().flatten().filter_map(about).collect()
}

#[test]
fn a_hangup_has_the_blueprints_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let blueprints = one_blueprint(dir.path());
    let mut running = Running::start(serving(&blueprints, &dir.path().join("data")));
    let edition = |port| post(port, "/api/books?wait=10s").unwrap().1["state_history"]["edition"].clone();
    running.until("  - book (version 1");
    assert_eq!(edition(running.port), 1);

    write_edition(&blueprints, 2);
    running.signal("-HUP");
    running.until("  - book: version 2 instead of 1");
    assert_eq!(edition(running.port), 2);

    std::fs::write(blueprints.join("bad.yaml"), "blueprint: bad").unwrap();
    write_edition(&blueprints, 3);
    running.signal("-HUP");
    running.until("The blueprints stay as they are, because of:");
    let finding = running.until("bad.yaml");
    assert!(finding.contains("error: "), "{finding}");
    assert_eq!(edition(running.port), 2);
    running.stop();
}

/// A file of clients in which the tokens of these tests have this quota.
fn clients_file(dir: &Path, quota: u64) -> PathBuf {
    let entry = |name: &str, token: &str, more: &str| {
        format!("[{name}]\ntoken_sha256 = \"{}\"\n{more}\n", TokenHash::of(token.as_bytes()).to_hex())
    };
    let file = dir.join("clients.toml");
    std::fs::write(
        &file,
        entry("small", TOKENS[1], &format!("quota = {quota}")) + &entry("other", "another", ""),
    )
    .unwrap();
    file
}

/// Serving to the clients of this file.
fn serving_to(clients: &Path, blueprints: &Path, data_dir: &Path) -> Command {
    let mut command = program();
    command.args(&TOKENS[2..]).args(["--listen", "127.0.0.1:0", "--blueprints"]).arg(blueprints);
    command.arg("--data-dir").arg(data_dir).arg("--clients-file").arg(clients);
    command
}

#[test]
fn a_quota_is_as_much_used_after_a_kill_as_before_and_a_hangup_reads_it_again() {
    let dir = tempfile::tempdir().unwrap();
    let (blueprints, data) = (one_blueprint(dir.path()), dir.path().join("data"));
    let file = clients_file(dir.path(), 3);
    let audit = dir.path().join("audit.jsonl");
    for _ in 0..3 {
        let mut command = serving_to(&file, &blueprints, &data);
        command.arg("--audit-log").arg(&audit);
        let running = Running::start(command);
        assert_eq!(post(running.port, "/api/books").unwrap().0, 202);
        running.signal("-KILL");
        running.wait();
    }
    let mut command = serving_to(&file, &blueprints, &data);
    command.arg("--audit-log").arg(&audit);
    let mut running = Running::start(command);
    let (status, over) = post(running.port, "/api/books").unwrap();
    assert_eq!((status, &over["error"]), (429, &"Quota exceeded".into()));
    clients_file(dir.path(), 4);
    running.signal("-HUP");
    running.until("Access reloaded: 2 clients, 1 entries of workers, 0 tokens withdrawn");
    running.until("Blueprints reloaded");
    assert_eq!(post(running.port, "/api/books").unwrap().0, 202);
    assert_eq!(post(running.port, "/api/books").unwrap().0, 429);
    let said = running.stop();
    let audit = std::fs::read_to_string(&audit).unwrap();
    assert!(audit.contains("\"event\":\"operator_call\",\"who\":\"SIGHUP\""), "{audit}");
    assert!(audit.contains("\"event\":\"quota_refused\",\"who\":\"small\""), "{audit}");
    assert!(!audit.contains("secret") && !said.contains("secret"), "no token is written down");
}

#[test]
fn s35_files_with_mistakes_and_well_known_tokens_let_nobody_in() {
    let dir = tempfile::tempdir().unwrap();
    let blueprints = one_blueprint(dir.path());
    let file = clients_file(dir.path(), 1);
    std::fs::write(&file, "[a]\ntoken = \"secret\"\nquotum = 1\n").unwrap();
    let (status, said) = ended(serving_to(&file, &blueprints, &dir.path().join("data")).output().unwrap());
    assert_eq!(status, Some(2));
    assert!(said.starts_with("error: nobody is let in, because of:\n"), "{said}");
    assert!(
        said.contains("clients.toml:2:1: error: \"a\": token would hold a token in clear text; make"),
        "{said}"
    );
    assert!(
        said.contains("clients.toml:3:1: error: \"a\": unknown key \"quotum\"; did you mean \"quota\"?"),
        "{said}"
    );
    assert!(!said.contains("secret"), "{said}");

    let known = TokenHash::of(b"test-client-token").to_hex();
    std::fs::write(&file, format!("[a]\ntoken_sha256 = \"{known}\"\n")).unwrap();
    let mut command = program();
    command
        .args(&TOKENS[2..])
        .args(["--listen", "0.0.0.0:0", "--allow-plaintext", "--blueprints"])
        .arg(&blueprints);
    command.arg("--data-dir").arg(dir.path().join("data")).arg("--clients-file").arg(&file);
    let (status, said) = ended(command.output().unwrap());
    assert_eq!(status, Some(2), "{said}");
    assert!(said.contains("a token of the examples, that of client \"a\", cannot guard 0.0.0.0:0"), "{said}");
}

/// Whoever writes a schedule learns at once that it cannot make a job, and not in the night in which it should have.
#[test]
fn a_schedule_whose_data_do_not_fit_is_warned_of_at_the_start_and_at_a_reload() {
    let dir = tempfile::tempdir().unwrap();
    let (blueprints, schedules) = (dir.path().join("blueprints"), dir.path().join("schedules.toml"));
    std::fs::create_dir(&blueprints).unwrap();
    std::fs::write(
        blueprints.join("report.yaml"),
        "blueprint: report\ninput_schema: { type: object, properties: { pages: { type: integer } } }\nstates:\n  done: { start: true, end: finished }\n",
    )
    .unwrap();
    let write = |pages: &str| {
        let text = format!(
            "[nightly]\nblueprint = \"report\"\ncron = \"0 3 1 1 *\"\ninitial_data = {{ pages = {pages} }}\n\n[off]\nenabled = false\nblueprint = \"report\"\ncron = \"0 3 1 1 *\"\ninitial_data = {{ pages = {pages} }}\n"
        );
        std::fs::write(&schedules, text).unwrap();
    };
    write("\"ten\"");
    let mut command = serving(&blueprints, &dir.path().join("data"));
    command.arg("--schedules").arg(&schedules);
    let mut running = Running::start(command);
    let misfit = "Schedule nightly will make no jobs of report as it stands: ";
    let warning = running.until(misfit);
    assert!(warning.contains("WARN") && warning.contains("initial_data/pages"), "{warning}");
    write("10");
    running.signal("-HUP");
    running.until("Blueprints reloaded");
    write("\"eleven\"");
    running.signal("-HUP");
    running.until(misfit);
    let said = running.stop();
    assert_eq!(said.matches(misfit).count(), 2, "only while it does not fit: {said}");
    assert!(!said.contains("Schedule off"), "nobody waits for its jobs: {said}");
}

/// A pipe would hold its reader up for ever, and with it every reload that comes later and the end of the process.
#[test]
fn a_pipe_or_a_device_in_the_place_of_a_file_is_refused_and_holds_nothing_up() {
    let dir = tempfile::tempdir().unwrap();
    let (blueprints, data) = (one_blueprint(dir.path()), dir.path().join("data"));
    let pipe = dir.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for flag in ["--config", "--clients-file", "--workers-file", "--schedules"] {
        for path in [pipe.as_path(), Path::new("/dev/zero")] {
            let mut command = serving(&blueprints, &data);
            command.arg(flag).arg(path);
            let (status, said) = ended(command.output().unwrap());
            assert_eq!(status, Some(2), "{flag}: {said}");
            let told = format!("{}: ", path.display());
            assert!(said.contains(&told) && said.contains("it is no regular file"), "{flag}: {said}");
        }
    }

    let clients = clients_file(dir.path(), 3);
    let mut running = Running::start(serving_to(&clients, &blueprints, &data));
    std::fs::rename(&pipe, &clients).unwrap();
    running.signal("-HUP");
    let finding = running.until("clients.toml");
    assert!(finding.contains("it is no regular file; check the path of clients_file"), "{finding}");
    std::fs::remove_file(&clients).unwrap();
    clients_file(dir.path(), 3);
    running.signal("-HUP");
    running.until("Blueprints reloaded");
    running.stop();
}

/// Whatever the moment: the change is in force whole or not at all, and no number is lost or given twice.
#[test]
fn a_kill_during_a_reload_leaves_one_version_for_each_definition() {
    let dir = tempfile::tempdir().unwrap();
    let blueprints = one_blueprint(dir.path());
    let data_dir = dir.path().join("data");
    for cycle in 1..=12 {
        let mut running = Running::start(serving(&blueprints, &data_dir));
        // The start before this one, or the reload that was killed, has stored it; once.
        running.until(&format!("  - book (version {cycle}"));
        write_edition(&blueprints, cycle + 1);
        let (port, before) = (running.port, look(&data_dir));
        let reload = std::thread::spawn(move || post(port, "/api/reload"));
        match cycle % 3 {
            // At once; as soon as it writes; after it was acknowledged.
            0 => {}
            1 => {
                while look(&data_dir) == before && !reload.is_finished() {
                    std::thread::yield_now();
                }
            }
            _ => assert_eq!(reload.join().unwrap().unwrap().0, 200),
        }
        running.kill();
    }
    let mut last = Running::start(serving(&blueprints, &data_dir));
    last.until("  - book (version 13");
    assert_eq!(post(last.port, "/api/books?wait=10s").unwrap().1["state_history"]["edition"], 13);
}

/// What was put and acknowledged is served after a kill, beside the files and in place of one; what was not is there whole or not
/// at all.
#[test]
fn a_kill_during_a_put_leaves_the_old_version_or_the_new_one() {
    let dir = tempfile::tempdir().unwrap();
    let blueprints = one_blueprint(dir.path());
    let data_dir = dir.path().join("data");
    let edition = |port, name: &str| {
        let job = post(port, &format!("/api/{name}s?wait=10s")).unwrap().1;
        job["state_history"]["edition"].as_u64().unwrap() as u32
    };
    let mut served = 0;
    for cycle in 1..=9 {
        let mut running = Running::start(serving(&blueprints, &data_dir));
        let (port, before) = (running.port, look(&data_dir));
        if cycle > 1 {
            assert_eq!(edition(port, "book"), 100, "its file is as it was when it was put");
            let now = edition(port, "map");
            assert!(now == served || now == cycle - 1, "{now}, and {served} was acknowledged");
        }
        let put = std::thread::spawn(move || {
            let book = send_text(port, "PUT", "/api/blueprints/book", &edition_of("book", 100));
            assert!(cycle > 1 || book.is_some_and(|(status, _)| status == 200));
            send_text(port, "PUT", "/api/blueprints/map", &edition_of("map", cycle))
        });
        // The first must be there before anything is asked of it.
        match if cycle == 1 { 2 } else { cycle % 3 } {
            0 => {}
            1 => {
                while look(&data_dir) == before && !put.is_finished() {
                    std::thread::yield_now();
                }
            }
            _ => {
                let (status, answer) = put.join().unwrap().unwrap();
                assert_eq!(status, 200, "{answer}");
                served = cycle;
            }
        }
        running.kill();
    }
    // The file says something new.
    write_edition(&blueprints, 200);
    let last = Running::start(serving(&blueprints, &data_dir));
    assert_eq!(edition(last.port, "book"), 200);
    last.stop();
}

/// A kill in the middle of it, and asking again moves the rest: every job moves once.
#[test]
fn a_kill_during_a_migration_leaves_each_job_in_one_version_and_the_rest_to_be_moved() {
    const JOBS: usize = 150;
    let dir = tempfile::tempdir().unwrap();
    let blueprints = dir.path().join("blueprints");
    std::fs::create_dir(&blueprints).unwrap();
    let write = |timeout: &str| {
        let text = format!(
            "blueprint: book\nendpoint: /books\nstates:\n  print: {{ start: true, task: {{ type: print, timeout: {timeout} }}, on: {{ success: done }} }}\n  done: {{ end: finished }}\n"
        );
        std::fs::write(blueprints.join("book.yaml"), text).unwrap();
    };
    write("1m");
    let data_dir = dir.path().join("data");
    let running = Running::start(serving(&blueprints, &data_dir));
    let submit = |_| post(running.port, "/api/books").unwrap().1["job_id"].as_str().unwrap().to_owned();
    let ids: Vec<String> = (0..JOBS).map(submit).collect();
    write("2m");
    assert_eq!(post(running.port, "/api/reload").unwrap().0, 200);
    let migrate = |port| post(port, "/api/blueprints/book/migrate");
    let (port, before) = (running.port, look(&data_dir));
    let migrating = std::thread::spawn(move || migrate(port));
    while look(&data_dir) == before && !migrating.is_finished() {
        std::thread::yield_now();
    }
    drop(running);

    let running = Running::start(serving(&blueprints, &data_dir));
    let (status, page) = migrate(running.port).unwrap();
    assert_eq!(status, 200, "{page}");
    assert!(page["moves"].as_array().unwrap().iter().all(|done| done["refused"].is_null()), "{page}");
    for id in ids {
        let job = get(running.port, &format!("/api/jobs/{id}"));
        assert_eq!((&job["blueprint_version"], &job["status"]), (&2.into(), &"waiting_for_worker".into()));
        let history = get(running.port, &format!("/api/jobs/{id}/history"));
        let entries = history["history"].as_array().unwrap();
        assert_eq!(entries.iter().filter(|entry| entry["event"] == "job_migrated").count(), 1, "{history}");
    }
}

#[test]
fn help_teaches_and_shows_no_token_of_the_environment() {
    let output = program().arg("--help").env("AVTOMATIKA_CLIENT_TOKEN", "token-of-ours").output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    for text in [
        "Example:",
        "--blueprints examples/blueprints",
        "AVTOMATIKA_LISTEN",
        "Exit status:",
        "127.0.0.1:8000",
    ] {
        assert!(help.contains(text), "{text} is not in\n{help}");
    }
    assert!(!help.contains("token-of-ours"), "{help}");
}
