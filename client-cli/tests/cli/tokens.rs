//! Tokens: made, shown once, and hashed for the orchestrator's files.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use avtomatika_orchestrator::trust::TokenHash;
use serde_json::Value;

use crate::server::{avtomatika, ran};

/// What the command says when this comes in.
fn fed(mut command: Command, input: &str) -> (Option<i32>, String, String) {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_new_token_is_shown_beside_the_lines_for_the_file() {
    for (owner, name, head, prefix) in
        [("--client", "acme", "[acme]", "avtc_"), ("--worker", "gpu-*", "[\"gpu-*\"]", "avtw_")]
    {
        let made = ran(&mut avtomatika(&["token", "new", owner, name]));
        assert_eq!(made.code, 0, "{made}");
        let token = made.stderr.lines().find(|line| line.starts_with(prefix)).unwrap();
        let hash = TokenHash::of(token.as_bytes()).to_hex();
        assert_eq!(
            made.stdout,
            format!("{head}\ntoken_sha256 = \"{hash}\"\n"),
            "and nothing else goes into a file"
        );
    }
    let line = ran(&mut avtomatika(&["-o", "json", "token", "new", "--client", "acme"])).stdout;
    let made: Value = serde_json::from_str(&line).unwrap();
    let token = made["token"].as_str().unwrap();
    assert_eq!(made["token_sha256"], TokenHash::of(token.as_bytes()).to_hex());
    assert_eq!(made["client"], "acme");
    let again = ran(&mut avtomatika(&["-o", "json", "token", "new", "--client", "acme"])).stdout;
    assert_ne!(line, again);
}

#[test]
fn the_hash_of_a_token_is_that_of_its_line() {
    let hash = TokenHash::of(b"s3cret").to_hex();
    for input in ["s3cret", "s3cret\n", "  s3cret\r\n"] {
        let (code, out, err) = fed(avtomatika(&["token", "hash"]), input);
        assert_eq!((code, out), (Some(0), format!("token_sha256 = \"{hash}\"\n")), "{err}");
    }
    for input in ["", "\n", "two words\n", "schlüssel\n"] {
        let (code, out, err) = fed(avtomatika(&["token", "hash"]), input);
        assert_eq!((code, out.as_str()), (Some(2), ""), "{err}");
        assert!(!err.contains("words"), "{err}");
    }
}

#[test]
fn a_name_that_no_file_can_hold_is_refused() {
    for line in [
        &["token", "new", "--client", "a b"][..],
        &["token", "new", "--worker", "w[1]"],
        &["token", "new", "--client", "a", "--worker", "b"],
    ] {
        assert_eq!(ran(&mut avtomatika(line)).code, 2, "{line:?}");
    }
}
