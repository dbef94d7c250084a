//! Commands about files of this machine: they need no orchestrator.

use std::fs;

use crate::server::{avtomatika, ran};

const SOUND: &str = "blueprint: sound
states:
  init:
    start: true
    task: { type: work }
    on: { success: done }
  done: { end: finished }
";

const BROKEN: &str = "blueprint: broken
states:
  init:
    start: true
    task: { type: work, parms: {} }
    on: { success: don }
  done: { end: finished }
";

/// Makes a file with this text, and says where it is.
pub fn file(dir: &tempfile::TempDir, name: &str, text: &str) -> String {
    let path = dir.path().join(name);
    fs::write(&path, text).unwrap();
    path.display().to_string()
}

#[test]
fn a_sound_blueprint_passes() {
    let dir = tempfile::tempdir().unwrap();
    let answer = ran(&mut avtomatika(&["blueprint", "check", &file(&dir, "sound.yaml", SOUND)]));
    assert_eq!((answer.code, answer.stdout.as_str()), (0, ""), "{answer}");
    assert_eq!(answer.stderr, "1 blueprint is in order.\n");
}

#[test]
fn a_directory_of_blueprints_is_checked_as_a_whole_and_one_without_any_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().display().to_string();
    let empty = ran(&mut avtomatika(&["blueprint", "check", &place]));
    assert_eq!((empty.code, empty.stderr.as_str()), (1, ""), "{empty}");
    assert!(empty.stdout.starts_with(&format!("{place}: error: holds no blueprint; ")), "{empty}");
    file(&dir, "sound.yaml", SOUND);
    file(&dir, "other.yaml", &SOUND.replace("blueprint: sound", "blueprint: other"));
    let answer = ran(&mut avtomatika(&["blueprint", "check", &place]));
    assert_eq!((answer.code, answer.stderr.as_str()), (0, "2 blueprints are in order.\n"), "{answer}");
}

#[test]
fn every_finding_is_told_with_its_place_and_the_exit_code_is_1() {
    let dir = tempfile::tempdir().unwrap();
    let (broken, sound) = (file(&dir, "broken.yaml", BROKEN), file(&dir, "sound.yaml", SOUND));
    let missing = dir.path().join("missing.yaml").display().to_string();
    let answer = ran(&mut avtomatika(&["blueprint", "check", &broken, &sound, &missing]));
    assert_eq!(answer.code, 1, "{answer}");
    for finding in [
        format!("{broken}:5:25: error: "),
        format!("{broken}:6:20: error: "),
        format!("{missing}: error: cannot be read"),
    ] {
        assert!(answer.stdout.contains(&finding), "no {finding:?} in {answer}");
    }
    let json = ran(&mut avtomatika(&["-o", "json", "blueprint", "check", &broken]));
    let findings: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!((json.code, &findings[0]["line"], &findings[0]["column"]), (1, &5.into(), &25.into()));
}

#[test]
fn the_graph_of_a_file_is_drawn_without_an_orchestrator() {
    let dir = tempfile::tempdir().unwrap();
    let sound = file(&dir, "sound.yaml", SOUND);
    let answer = ran(&mut avtomatika(&["blueprint", "graph", "--file", &sound]));
    assert_eq!(answer.code, 0, "{answer}");
    assert!(answer.stdout.starts_with("digraph"), "{answer}");
}

#[test]
fn the_schema_of_blueprint_files_is_printed_without_an_orchestrator() {
    let answer = ran(&mut avtomatika(&["blueprint", "schema"]));
    assert_eq!(answer.code, 0, "{answer}");
    let schema: serde_json::Value = serde_json::from_str(&answer.stdout).unwrap();
    assert_eq!(schema["title"], "Avtomatika blueprint");
}
