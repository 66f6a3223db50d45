//! What file stores need beyond `object_store`: removing half-written files with the rest, and compare-and-swap,
//! which file systems do not offer.
//!
//! ```text
//!   lock the folder (flock) ► read ► same bytes as expected? ► write beside, sync ► rename ► sync folder ► unlock
//! ```
//!
//! All who swap go through the folder's lock, so between reading and renaming nobody else can have swapped. The
//! kernel drops the lock with the process that holds it. A process stopped inside holds up others, who give up after
//! a few seconds and try again later; when it goes on, its lock still holds, so its comparison is still true.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

use crate::util::fs::{FsError, create_durable, durable_rename, parent};

const LOCK_WAIT: Duration = Duration::from_secs(5);
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// Replaces a file's content if it still is `from`. False if it is not, or the file is gone.
pub(super) fn swap(path: &Path, from: &[u8], to: &[u8]) -> Result<bool, FsError> {
    let folder = match lock(parent(path)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        locked => locked?,
    };
    let found = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(FsError::of("read", path)(error)),
    };
    if found != from {
        return Ok(false);
    }
    let beside = beside(path);
    // What a killed process left half-written.
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(FsError::of("remove", &beside)(error)),
        _ => {}
    }
    create_durable(&beside, to, 0o640)?;
    durable_rename(&beside, path)?;
    drop(folder);
    Ok(true)
}

/// Removes a folder and all in it; one that is gone already is as good.
pub(super) fn remove_tree(path: &Path) -> Result<(), FsError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(FsError::of("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Removes the empty folders of a tree, and the tree if nothing else is in it. A bucket has no empty folders.
pub(super) fn remove_empty(path: &Path) {
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_empty(&entry.path());
        }
    }
    // What is not empty stays, and that is all that can go wrong here.
    let _ = fs::remove_dir(path);
}

/// Whether the system refused.
pub(super) fn is_denied(error: &FsError) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
}

/// A name that listings leave out, as they do those of uploads under way.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("#0");
    name.into()
}

fn lock(folder: &Path) -> Result<File, FsError> {
    let file = File::open(folder).map_err(FsError::of("open", folder))?;
    let begin = Instant::now();
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) if begin.elapsed() < LOCK_WAIT => {
                std::thread::sleep(LOCK_PAUSE);
            }
            Err(error) => return Err(FsError::of("lock", folder)(error.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_expected_content_is_replaced() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("lease.json");
        assert!(!swap(&path, b"", b"x").unwrap(), "nothing is there");
        fs::write(&path, b"one").unwrap();
        fs::write(base.path().join("lease.json#0"), b"left over").unwrap();
        assert!(swap(&path, b"one", b"two").unwrap());
        assert!(!swap(&path, b"one", b"three").unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(base.path()).unwrap().count(), 1);
        assert!(!swap(&base.path().join("no/such/lease.json"), b"", b"x").unwrap());
    }

    #[test]
    fn only_empty_folders_go() {
        let base = tempfile::tempdir().unwrap();
        let (full, empty) = (base.path().join("full/data/a"), base.path().join("empty/data/a"));
        for folder in [&full, &empty] {
            fs::create_dir_all(folder).unwrap();
        }
        fs::write(full.join("pack"), b"x").unwrap();
        remove_empty(&base.path().join("full"));
        remove_empty(&base.path().join("empty"));
        assert!(full.join("pack").exists());
        assert!(!base.path().join("empty").exists());
    }

    #[test]
    fn of_many_who_swap_at_once_one_wins() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("lease.json");
        fs::write(&path, b"start").unwrap();
        let wins = std::thread::scope(|scope| {
            let tasks: Vec<_> = (0..8_u8)
                .map(|n| {
                    let path = &path;
                    scope.spawn(move || swap(path, b"start", &[n]).unwrap())
                })
                .collect();
            tasks.into_iter().map(|task| task.join().unwrap()).filter(|won| *won).count()
        });
        assert_eq!(wins, 1);
    }
}
