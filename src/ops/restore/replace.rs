//! A database that a restore replaces: seen for what it is, and given up before anything of it is removed.
//!
//! ```text
//!   database ──marker──► ──#innodb_redo renamed──► remains of a restore, which `Target::claim` clears
//!               │            │
//!               └────────────┴─ killed here: no server starts on a part of it, and only a restore cleans it
//! ```
//! Owns the two steps from a database to remains; clearing them is the target's.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use crate::ops::error::Error;
use crate::util::fs::{create_durable, durable_rename};

use super::target::{FILE_MODE, MARKER, Marker, RECEIPT, io_error, local_io, refuse_running_server};

/// One of these is in every data directory.
const SIGNS: [&str; 2] = ["ibdata1", "mysql.ibd"];
const REDO: &str = "#innodb_redo";
/// What a server makes at its first start.
const STARTED: &str = "auto.cnf";
/// A name that no server takes for its log.
const GIVEN_UP: &str = "#innodb_redo.given-up";

/// True if the directory holds a database, whole as far as can be seen.
pub fn holds_database(datadir: &Path) -> bool {
    !datadir.join(MARKER).exists() && SIGNS.iter().any(|sign| datadir.join(sign).is_file())
}

/// True if it is what the restore with this receipt has made, and no server has started on it since.
pub fn is_done(datadir: &Path, receipt: &str) -> bool {
    let mine = fs::read(datadir.join(RECEIPT)).is_ok_and(|found| found == receipt.as_bytes());
    mine && fs::symlink_metadata(datadir.join(STARTED)).is_err()
}

/// What its files take up on the disk, and will give back.
pub fn taken_bytes(datadir: &Path) -> Result<u64, Error> {
    use std::os::unix::fs::MetadataExt;
    let (mut bytes, mut left) = (0_u64, vec![datadir.to_path_buf()]);
    while let Some(path) = left.pop() {
        for entry in fs::read_dir(&path).map_err(|error| io_error("list", &path, error))? {
            let entry = entry.map_err(|error| io_error("list", &path, error))?;
            let metadata = entry.metadata().map_err(|error| io_error("look at", &entry.path(), error))?;
            if metadata.is_dir() {
                left.push(entry.path());
            }
            bytes = bytes.saturating_add(metadata.blocks().saturating_mul(512));
        }
    }
    Ok(bytes)
}

/// Refuses a database that a server runs on.
pub fn check(datadir: &Path) -> Result<(), Error> {
    refuse_running_server(datadir)
}

/// Makes remains of a database: from here on no server starts on it.
pub fn give_up(datadir: &Path, marker: &Marker) -> Result<(), Error> {
    check(datadir)?;
    let text = serde_json::to_vec_pretty(marker).unwrap_or_default();
    create_durable(&datadir.join(MARKER), &text, FILE_MODE).map_err(local_io)?;
    let redo = datadir.join(REDO);
    match File::open(&redo) {
        Ok(_) => durable_rename(&redo, &datadir.join(GIVEN_UP)).map_err(local_io),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(io_error("open", &redo, error)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::target::Target;
    use super::*;
    use crate::ops::error::ErrorKind;

    fn marker() -> Marker {
        Marker { backup: "b".into(), note: "n".into(), external_files: vec![], run: "r".into() }
    }

    fn database(dir: &Path) {
        fs::create_dir(dir.join(REDO)).unwrap();
        fs::write(dir.join(REDO).join("#ib_redo0"), vec![1; 10_000]).unwrap();
        fs::write(dir.join("ibdata1"), vec![1; 100_000]).unwrap();
    }

    #[test]
    fn a_database_becomes_remains_and_then_an_empty_target() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!holds_database(dir.path()), "it is empty");
        database(dir.path());
        assert!(holds_database(dir.path()));
        assert!(taken_bytes(dir.path()).unwrap() >= 110_000);
        assert_eq!(Target::check(dir.path(), true).unwrap_err().kind, ErrorKind::TargetNotEmpty);

        give_up(dir.path(), &marker()).unwrap();
        assert!(!dir.path().join(REDO).exists(), "no server starts without it");
        assert!(!holds_database(dir.path()), "it is remains now");
        let target = Target::claim(dir.path(), true, &marker()).unwrap();
        target.complete(None).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn only_its_own_work_that_no_server_has_seen_is_known_again() {
        let dir = tempfile::tempdir().unwrap();
        let target = Target::claim(dir.path(), false, &marker()).unwrap();
        database(dir.path());
        assert!(!is_done(dir.path(), "mine"));
        target.complete(Some("mine")).unwrap();
        assert!(holds_database(dir.path()) && is_done(dir.path(), "mine"));
        assert!(!is_done(dir.path(), "another's"));
        fs::write(dir.path().join(STARTED), "").unwrap();
        assert!(!is_done(dir.path(), "mine"), "somebody may have written to it");
    }

    #[test]
    fn what_is_no_database_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("precious"), b"x").unwrap();
        assert!(!holds_database(dir.path()));
    }
}
