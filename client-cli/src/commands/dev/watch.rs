//! Notices that the files of a directory have changed.
//!
//! It looks, because looking works on every file system, mounted ones included, and for every way in which editors save. What it
//! compares are names, sizes and times; it refuses to know what is in the files.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// How often the directory is looked at: a person does not notice the delay, nor the machine the work.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// What a directory looks like: size and time of each file. Empty while it cannot be read.
type Look = BTreeMap<PathBuf, (u64, Option<SystemTime>)>;

/// Watches one directory.
pub(super) struct DirWatch {
    dir: PathBuf,
    /// As it was when it was last told of.
    told: Look,
}

impl DirWatch {
    /// Begins with the directory as it is now.
    pub(super) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), told: look(dir) }
    }

    /// Returns when the directory has changed and then stayed as it is from one look to the next, so that a change of many files
    /// is told once, and no half of a file is read.
    pub(super) async fn changed(&mut self) {
        let mut before = self.told.clone();
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let now = look(&self.dir);
            if now == before && now != self.told {
                self.told = now;
                return;
            }
            before = now;
        }
    }
}

fn look(dir: &Path) -> Look {
    let Ok(entries) = fs::read_dir(dir) else { return Look::new() };
    let about = |entry: fs::DirEntry| {
        let path = entry.path();
        // Not the entry's own: a link may lead to another file than before.
        let metadata = fs::metadata(&path).ok()?;
        Some((path, (metadata.len(), metadata.modified().ok())))
    };
    entries.flatten().filter_map(about).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn is_quiet(watch: &mut DirWatch) -> bool {
        tokio::time::timeout(10 * LOOK_EVERY, watch.changed()).await.is_err()
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_is_told_once_and_silence_is_no_change() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        file("a.yaml", "1");
        let mut watch = DirWatch::new(dir.path());
        assert!(is_quiet(&mut watch).await, "nothing has changed");
        file("a.yaml", "22");
        file("b.yaml", "1");
        watch.changed().await;
        assert!(is_quiet(&mut watch).await, "both changes were told at once");
        fs::remove_file(dir.path().join("b.yaml")).unwrap();
        watch.changed().await;
    }
}
