//! The words that teach: help, completions, usage errors.

use insta::assert_snapshot;

use crate::server::{avtomatika, ran};

#[test]
fn the_first_page_of_help() {
    assert_snapshot!(ran(&mut avtomatika(&["--help"])));
}

#[test]
fn the_help_of_submit() {
    assert_snapshot!(ran(&mut avtomatika(&["submit", "--help"])));
}

#[test]
fn the_help_of_retry() {
    assert_snapshot!(ran(&mut avtomatika(&["retry", "--help"])));
}

#[test]
fn the_help_of_every_command_has_examples() {
    for command in [
        &["submit"][..],
        &["get"],
        &["list"],
        &["watch"],
        &["history"],
        &["explain"],
        &["webhooks"],
        &["webhooks", "redeliver"],
        &["graph"],
        &["cancel"],
        &["signal"],
        &["approve"],
        &["reject"],
        &["retry"],
        &["skip"],
        &["workers"],
        &["schedules"],
        &["blueprints"],
        &["blueprint", "show"],
        &["blueprint", "graph"],
        &["blueprint", "check"],
        &["blueprint", "diff"],
        &["blueprint", "migrate"],
        &["reload"],
        &["token", "new"],
        &["token", "hash"],
        &["stats"],
        &["dev"],
        &["bench"],
        &["completions"],
    ] {
        let help = ran(avtomatika(command).arg("--help"));
        assert_eq!(help.code, 0, "{help}");
        assert!(help.stdout.contains(&format!("\nExamples:\n  avtomatika {}", command.join(" "))), "{help}");
    }
}

#[test]
fn a_command_line_that_makes_no_sense_ends_with_2_and_a_suggestion() {
    for (args, words) in [
        (&[][..], "Usage: avtomatika"),
        (&["sumbit"], "a similar subcommand exists: 'submit'"),
        (&["list", "--stauts", "failed"], "a similar argument exists: '--status'"),
        (&["list", "--status", "done"], "possible values: pending, running"),
        (&["list", "--limit", "5", "--all"], "cannot be used with"),
        (&["list", "--since", "yesterday"], "expected a duration such as 30m, 1h or 7d"),
        (&["list", "--label", "team"], "expected KEY=VALUE"),
        (&["get", "4711"], "expected 36 characters such as"),
        (&["submit", "test_workflow", "--wait=soon"], "such as 500ms, 30s, 5m, 2h or 1d"),
        (&["submit", "test_workflow", "--start-at", "18:00"], "such as 2026-12-24T18:00:00Z"),
        (
            &["submit", "test_workflow", "--delay", "1h", "--start-at", "2026-12-24T18:00:00Z"],
            "cannot be used",
        ),
        (&["submit", "test_workflow", "--priority", "101"], "101 is not in -100..=100"),
        (&["retry"], "neither a job nor a filter is given"),
        (&["retry", "--dry-run"], "neither a job nor a filter is given"),
        (&["retry", "--status", "finished"], "possible values: failed, quarantined"),
        (&["retry", "01890a5d-ac96-774b-bcce-b302099a8057", "--all"], "cannot be used with"),
        (&["retry", "--all", "--replace"], "--data"),
        (&["retry", "--all", "--history", "7"], "--history is JSON, but not an object"),
        (&["skip", "--all"], "--outcome <WORD>"),
        (&["signal", "01890a5d-ac96-774b-bcce-b302099a8057"], "<NAME>"),
        (&["blueprint", "graph"], "<NAME|--file <FILE>>"),
        (&["blueprint", "graph", "order", "--file", "order.yaml"], "cannot be used with"),
        (&["blueprint", "graph", "--version", "2", "--file", "order.yaml"], "cannot be used with"),
        (&["--url", "localhost:8000", "list"], "does not begin with http://"),
    ] {
        let answer = ran(&mut avtomatika(args));
        assert_eq!(answer.code, 2, "{args:?}: {answer}");
        assert!(answer.stderr.contains(words), "{args:?}: {answer}");
        assert_eq!(answer.stdout, "", "{args:?}");
    }
}

#[test]
fn a_terminal_one_column_wide_is_no_reason_to_fail() {
    let help = ran(avtomatika(&["submit", "--help"]).env("COLUMNS", "1"));
    assert_eq!(help.code, 0);
}

#[test]
fn there_are_completions_for_every_shell() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = ran(&mut avtomatika(&["completions", shell]));
        assert_eq!(script.code, 0, "{shell}");
        assert!(script.stdout.contains("idempotency-key"), "{shell}: {script}");
    }
}
