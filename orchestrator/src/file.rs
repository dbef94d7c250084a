//! Reading a file that an operator has written: settings, clients, workers, schedules, certificates.
//!
//! It promises to come to an end: a pipe would hold the reader up for ever, and a device such as `/dev/zero` has no end, so nothing
//! but a regular file is read, and of that no more than the reader allows. It refuses to know what the text means.

use std::{
    fmt,
    fs::{self, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use rustix::fs::OFlags;

/// Why a file is not read.
#[derive(Debug)]
pub enum Unreadable {
    /// It cannot be had, or is none that has an end.
    Unusable(String),
    /// It is larger than it may be.
    TooLarge {
        /// How large it may be.
        max_bytes: u64,
    },
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unusable(why) => write!(f, "cannot be read: {why}"),
            Self::TooLarge { max_bytes } => write!(f, "it is larger than {} MiB", max_bytes / (1024 * 1024)),
        }
    }
}

impl From<io::Error> for Unreadable {
    fn from(error: io::Error) -> Self {
        Self::Unusable(error.to_string())
    }
}

/// The text of a regular file of at most this size.
///
/// # Errors
/// It cannot be read, is no regular file, is too large, or is not UTF-8.
pub fn text(path: &Path, max_bytes: u64) -> Result<String, Unreadable> {
    String::from_utf8(bytes(path, max_bytes)?).map_err(|error| {
        Unreadable::Unusable(format!("not UTF-8 at byte {}", error.utf8_error().valid_up_to()))
    })
}

/// The bytes of a regular file of at most this size.
///
/// # Errors
/// It cannot be read, is no regular file, or is too large.
pub fn bytes(path: &Path, max_bytes: u64) -> Result<Vec<u8>, Unreadable> {
    // Looked at before it is opened: to open a pipe would wake whoever waits at its other end.
    only_regular(&fs::metadata(path)?)?;
    // Another one may have taken its place since. Opening that waits for nobody, and it is looked at again.
    let file =
        OpenOptions::new().read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(path)?;
    only_regular(&file.metadata()?)?;
    let mut bytes = Vec::new();
    // The size that a file says it has may be another one by the time it is read.
    file.take(max_bytes + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max_bytes {
        return Err(Unreadable::TooLarge { max_bytes });
    }
    Ok(bytes)
}

fn only_regular(about: &fs::Metadata) -> Result<(), Unreadable> {
    match about.is_file() {
        true => Ok(()),
        false => Err(Unreadable::Unusable("it is no regular file".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn refused(path: &Path, max_bytes: u64) -> String {
        text(path, max_bytes).unwrap_err().to_string()
    }

    #[test]
    fn a_regular_file_is_read_up_to_its_limit_and_no_further() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "four").unwrap();
        assert_eq!(text(&path, 4).unwrap(), "four");
        fs::write(&path, vec![b' '; 1024 * 1024 + 1]).unwrap();
        assert_eq!(refused(&path, 1024 * 1024), "it is larger than 1 MiB");
        fs::write(&path, b"ab\xff").unwrap();
        assert_eq!(refused(&path, 4), "cannot be read: not UTF-8 at byte 2");
    }

    #[test]
    fn a_link_to_a_regular_file_is_one_as_well() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "text").unwrap();
        std::os::unix::fs::symlink("file", dir.path().join("link")).unwrap();
        assert_eq!(text(&dir.path().join("link"), 4).unwrap(), "text");
    }

    #[test]
    fn what_has_no_end_is_not_even_opened() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        for path in [pipe.as_path(), Path::new("/dev/zero"), dir.path()] {
            assert_eq!(refused(path, 4), "cannot be read: it is no regular file", "{}", path.display());
        }
        let missing = refused(&dir.path().join("missing"), 4);
        assert!(missing.starts_with("cannot be read: No such file"), "{missing}");
    }
}
