//! The catalogue of bad input, as far as settings are concerned: B77 to B79, B81 and B83 of docs/bad-input.md. The program ends with its
//! status, names the key, and says how to mend it.

use std::{ffi::OsStr, net::TcpListener, os::unix::ffi::OsStrExt as _, path::Path};

use crate::{Running, blueprints, ended, program};

/// What every file here needs besides.
fn least() -> String {
    format!("blueprints = {:?}\nclients = {{ a = \"token-of-a\" }}\nworker_tokens = [\"w\"]\n", blueprints())
}

/// Status, and what is said, with this file of settings.
fn with_file(dir: &Path, settings: &str) -> (Option<i32>, String) {
    let file = dir.join("settings.toml");
    std::fs::write(&file, settings).unwrap();
    ended(program().arg("--config").arg(file).arg("--data-dir").arg(dir.join("data")).output().unwrap())
}

#[test]
fn b77_to_b79_b81_settings_that_cannot_be_meant() {
    let dir = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let least = least();
    let key = |line: &str| format!("{line}\n{least}");
    let deep = format!("{least}x = {}1{}", "[".repeat(200), "]".repeat(200));
    for (number, settings, status, words) in [
        ("B77", key("listne = \"x\""), 2, "line 1: unknown key \"listne\"; did you mean \"listen\"?"),
        ("B77", key("listen = 8000"), 2, "line 1: invalid type: integer `8000`"),
        ("B77", key("listen = \"127.0.0.1:0\"\nlisten = \"127.0.0.1:0\""), 2, "line 2: duplicate key"),
        ("B77", format!("{least}[logs]\n[logs]\n"), 2, "settings.toml, line"),
        ("B77", deep, 2, "settings.toml, line"),
        ("B77", key("listen = \"127.0.0.1:0"), 2, "settings.toml, line 1"),
        (
            "B78",
            key("listen = \"127.0.0.1:70000\""),
            2,
            "listen: \"127.0.0.1:70000\" is not an address with a port",
        ),
        ("B78", key("listen = \"127.0.0.1:abc\""), 2, "listen: \"127.0.0.1:abc\" is not an address"),
        ("B78", key("listen = \"8000\""), 2, "listen: \"8000\" is not an address with a port"),
        ("B78", key(&format!("listen = \"127.0.0.1:{port}\"")), 69, "cannot listen on 127.0.0.1:"),
        // An address that is not this machine's.
        (
            "B78",
            key("listen = \"192.0.2.1:8000\"\nallow_plaintext = true"),
            69,
            "cannot listen on 192.0.2.1:8000",
        ),
        ("B79", key("max_workers = 0"), 2, "max_workers: 0 would refuse everything"),
        ("B79", key("max_open_jobs = -1"), 2, "line 1: invalid value: integer `-1`"),
        ("B79", key("adoption_window = \"1h\""), 2, "adoption_window: \"1h\" is longer than 10m"),
        ("B79", key("retention = \"1s\""), 2, "retention: \"1s\" is shorter than 1m"),
        ("B79", key("tls_cert = \"c\""), 2, "tls_key: the certificate of tls_cert has no key"),
        ("B81", key("listen = \"127.0.0.1:0\"\ndata_dir = \"/proc/nothing/here\""), 73, "/proc/nothing/here"),
        ("B81", key("listen = \"127.0.0.1:0\"\ndata_dir = \"/dev/null\""), 73, "/dev/null"),
    ] {
        let (found, said) = match settings.contains("data_dir") {
            true => {
                let file = dir.path().join("own.toml");
                std::fs::write(&file, &settings).unwrap();
                ended(program().arg("--config").arg(file).output().unwrap())
            }
            false => with_file(dir.path(), &settings),
        };
        assert_eq!(found, Some(status), "{number} {settings}: {said}");
        assert!(said.starts_with("error: ") && said.contains(words), "{number}: {said}");
        assert!(said.contains("\nhint: "), "{number}: {said}");
        assert!(!said.contains("token-of-a") && !said.contains("panicked"), "{number}: {said}");
    }
}

#[test]
fn b77_what_editors_leave_in_a_file_means_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("settings.toml");
    let text = format!("\u{feff}listen = \"127.0.0.1:0\"\n{}", least()).replace('\n', "\r\n");
    std::fs::write(&file, text).unwrap();
    let mut command = program();
    command.arg("--config").arg(file).arg("--data-dir").arg(dir.path().join("data"));
    let running = Running::start(command);
    running.stop();
}

#[test]
fn b83_an_environment_that_cannot_be_meant() {
    for (value, words) in [(&b"\xff\xfe"[..], "UTF-8"), (b"", "listen"), (b"nowhere", "listen")] {
        let dir = tempfile::tempdir().unwrap();
        let mut command = program();
        command.env("AVTOMATIKA_LISTEN", OsStr::from_bytes(value)).arg("--data-dir").arg(dir.path());
        command.arg("--blueprints").arg(blueprints()).args(crate::TOKENS);
        let (status, said) = ended(command.output().unwrap());
        assert_eq!(status, Some(2), "B83 {value:?}: {said}");
        assert!(said.starts_with("error: ") && said.contains(words), "B83 {value:?}: {said}");
    }
}
