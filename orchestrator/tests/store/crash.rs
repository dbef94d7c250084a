//! A crash at any instant: what was acknowledged is there, and no batch is there in part.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use avtomatika_orchestrator::{
    engine::Entropy,
    store::{
        Store, StoreError,
        journal::{self, JournaledStore, Pace},
        sqlite::SqliteStore,
    },
};

use crate::script::{Script, assert_holds, assert_holds_exactly, copy_as_after_a_crash, database, log};

const DIR: &str = "AVTOMATIKA_TEST_STORE";
const SEED: &str = "AVTOMATIKA_TEST_SEED";
const KIND: &str = "AVTOMATIKA_TEST_KIND";

/// What is on the disk.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Database,
    DatabaseBehindJournal,
}

impl Kind {
    const ALL: [Self; 2] = [Self::Database, Self::DatabaseBehindJournal];

    fn open(self, dir: &Path) -> Result<Box<dyn Store>, StoreError> {
        Ok(match self {
            Self::Database => Box::new(SqliteStore::open(dir)?),
            Self::DatabaseBehindJournal => {
                // Slow enough for a crash to find frames that are not applied, fast enough to find applied ones.
                let pace = Pace { age: Duration::from_millis(5), bytes: 20_000 };
                Box::new(JournaledStore::open(SqliteStore::open(dir)?, dir, pace)?)
            }
        })
    }

    /// The file that is synced with every commit.
    fn synced(self, dir: &Path) -> PathBuf {
        match self {
            Self::Database => log(dir),
            Self::DatabaseBehindJournal => dir.join(journal::FILE_NAME),
        }
    }
}

/// Runs in a process of its own, which the tests below kill.
#[test]
#[ignore = "the other half of the tests that kill it"]
fn child() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let seed = std::env::var(SEED).unwrap().parse().unwrap();
    let kind = std::env::var(KIND).unwrap();
    let kind = Kind::ALL.into_iter().find(|one| format!("{one:?}") == kind).unwrap();
    println!("\nopening");
    let store = kind.open(Path::new(&dir)).unwrap();
    for batch in Script::new(seed) {
        match store.commit(&batch) {
            Ok(()) => println!("\ncommitted"),
            Err(error) => {
                println!("\nrefused {error}");
                println!("\nrefused {}", store.commit(&batch).unwrap_err());
                return;
            }
        }
    }
}

fn start(mut command: Command, kind: Kind, dir: &Path, seed: u8) -> (Child, impl Iterator<Item = String>) {
    let mut child = command
        .args(["--exact", "crash::child", "--ignored", "--nocapture"])
        .env(DIR, dir)
        .env(SEED, seed.to_string())
        .env(KIND, format!("{kind:?}"))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    (child, lines)
}

fn this_program() -> Command {
    Command::new(std::env::current_exe().unwrap())
}

#[test]
fn a_killed_process_leaves_every_acknowledged_batch_whole() {
    for (seed, kind) in (0..12).flat_map(|seed| Kind::ALL.map(|kind| (seed, kind))) {
        let dir = tempfile::tempdir().unwrap();
        let mut entropy = Entropy::from_seed([seed; 32]);
        let kill_after = 1 + entropy.next_u64() % 60;

        let (mut child, lines) = start(this_program(), kind, dir.path(), seed);
        let mut acknowledged = 0;
        for _ in lines.filter(|line| line == "committed") {
            acknowledged += 1;
            if acknowledged == kill_after {
                // What it says until it is dead is acknowledged as well.
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(acknowledged >= kill_after, "it ended by itself");

        // Recovery may be killed too.
        let (mut child, mut lines) = start(this_program(), kind, dir.path(), seed);
        assert!(lines.any(|line| line == "opening"));
        child.kill().unwrap();
        let rest = lines.filter(|line| line == "committed").count();
        child.wait().unwrap();
        assert_eq!(rest, 0, "the script begins with batches that are there already");

        let store = kind.open(dir.path()).unwrap();
        assert_holds(&*store, seed, acknowledged as usize);
    }
}

#[test]
fn a_torn_tail_of_the_log_costs_at_most_the_last_batch() {
    const SECTOR: usize = 512;
    let (dir, crashed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = SqliteStore::open(dir.path()).unwrap();
    let mut script = Script::new(1);
    for batch in script.by_ref().take(3) {
        store.commit(&batch).unwrap();
    }
    let safe = fs::metadata(log(dir.path())).unwrap().len();
    store.commit(&script.next().unwrap()).unwrap();
    let end = fs::metadata(log(dir.path())).unwrap().len();
    assert!(end > safe, "the log must grow for the test to mean anything");

    let mut whole = 0;
    for cut in (safe..=end).step_by(SECTOR).chain([end]) {
        // What did not reach the disk is missing, or reads as zeros.
        for zeros in [false, true] {
            let at = crashed.path().join(format!("{cut}-{zeros}"));
            copy_as_after_a_crash(dir.path(), &at);
            let file = File::options().write(true).open(log(&at)).unwrap();
            file.set_len(cut).unwrap();
            if zeros {
                file.set_len(end).unwrap();
            }
            let committed = if cut == end { 4 } else { 3 };
            whole += usize::from(committed == 4);
            assert_holds_exactly(&SqliteStore::open(&at).unwrap(), 1, committed);
            fs::remove_dir_all(&at).unwrap();
        }
    }
    assert!(whole >= 2);
}

#[test]
fn sectors_of_the_last_batch_may_reach_the_disk_in_any_order() {
    const SECTOR: usize = 512;
    let (dir, crashed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = SqliteStore::open(dir.path()).unwrap();
    let mut script = Script::new(2);
    for batch in script.by_ref().take(3) {
        store.commit(&batch).unwrap();
    }
    let safe = fs::metadata(log(dir.path())).unwrap().len() as usize;
    store.commit(&script.next().unwrap()).unwrap();
    let sound = fs::read(log(dir.path())).unwrap();
    for missing in (safe..sound.len()).step_by(SECTOR) {
        let at = crashed.path().join(missing.to_string());
        copy_as_after_a_crash(dir.path(), &at);
        let mut torn = sound.clone();
        let sector = missing..(missing + SECTOR).min(sound.len());
        let was_zero = torn[sector.clone()].iter().all(|&byte| byte == 0);
        torn[sector].fill(0);
        fs::write(log(&at), torn).unwrap();
        assert_holds_exactly(&SqliteStore::open(&at).unwrap(), 2, if was_zero { 4 } else { 3 });
        fs::remove_dir_all(&at).unwrap();
    }
}

#[test]
fn after_a_failed_fsync_nothing_is_acknowledged() {
    // strace answers the fsync in the kernel's place.
    if Command::new("strace").arg("-V").stdout(Stdio::null()).status().is_err() {
        eprintln!("skipped: strace is not installed");
        return;
    }
    for (failing, kind) in (1..=3).flat_map(|failing| Kind::ALL.map(|kind| (failing, kind))) {
        let dir = tempfile::tempdir().unwrap();
        drop(kind.open(dir.path()).unwrap());
        let mut strace = Command::new("strace");
        let log = kind.synced(dir.path());
        strace.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=fsync,fdatasync", "-P"]).arg(&log);
        for call in ["fsync", "fdatasync"] {
            strace.args(["-e", &format!("inject={call}:error=EIO:when={failing}")]);
        }
        strace.arg(std::env::current_exe().unwrap());
        let (mut child, lines) = start(strace, kind, dir.path(), 3);
        let lines: Vec<String> = lines.collect();
        child.wait().unwrap();
        let refused: Vec<&String> = lines.iter().filter(|line| line.starts_with("refused")).collect();
        if refused.is_empty() && lines.iter().all(|line| line != "opening") {
            eprintln!("skipped: this machine does not allow strace");
            return;
        }
        let acknowledged = lines.iter().filter(|line| *line == "committed").count();
        assert_eq!(refused.len(), 2, "{lines:?}");
        assert!(acknowledged < failing, "each acknowledged batch has had an fsync of its own");
        assert!(refused[0].contains("disk I/O error"), "{refused:?}");
        assert!(refused[1].contains("an earlier commit failed"), "{refused:?}");
        assert_holds(&*kind.open(dir.path()).unwrap(), 3, acknowledged);
    }
}

#[test]
fn a_store_whose_files_are_taken_away_stops() {
    let files = [(Kind::Database, database(Path::new(""))), (Kind::Database, log(Path::new("")))];
    let journal = (Kind::DatabaseBehindJournal, PathBuf::from(journal::FILE_NAME));
    for (kind, taken) in files.into_iter().chain([journal]) {
        let dir = tempfile::tempdir().unwrap();
        let store = kind.open(dir.path()).unwrap();
        let mut script = Script::new(4);
        store.commit(&script.next().unwrap()).unwrap();
        let away = dir.path().join("elsewhere");
        fs::rename(dir.path().join(&taken), &away).unwrap();
        for _ in 0..2 {
            let error = store.commit(&script.next().unwrap()).unwrap_err();
            assert!(
                matches!(&error, StoreError::Failed { reason } if reason.contains("was moved")),
                "{taken:?}: {error}"
            );
        }
    }
}
