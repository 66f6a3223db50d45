//! The cut: the one point in time that the backup becomes.
//!
//! ```text
//!   InnoDB only        ─────────────────────────── rotate ─ log_status ─ open binlog ─ flush redo
//!   other engines too  [FTWRL ─ files to the spool ─ rotate ─ log_status ─ open binlog ─ UNLOCK TABLES] ─ flush redo
//! ```
//! Whether other engines have user tables was decided from the files. Nothing in here waits for the store. The
//! binlog is opened while `log_status` is fresh and copied later through the open file, which a purge or a reset
//! cannot take away.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::capture::{CopyPlan, PlannedFile, Spool, SpooledFile, check_room, spool_files};
use crate::mysql::{BackupLock, LogStatus};
use crate::ops::blocking;
use crate::ops::error::{Error, ErrorKind};

use super::Parts;
use super::files::{Selected, read_error};
use super::redo::RedoCapture;
use super::source::Source;

/// What was fixed at the cut.
pub struct Cut {
    /// LSN, binlog position and GTID set, from one atomic look.
    pub status: LogStatus,
    /// Files that were copied under a lock.
    pub spooled: Vec<SpooledFile>,
    /// The binlog at the cut, open.
    pub binlog: Option<BinlogTail>,
    /// How long writers of non-transactional tables, and all others, had to wait.
    pub global_read_lock: Duration,
}

/// The tail of the binlog that recovery needs.
pub struct BinlogTail {
    /// The file, open since the cut.
    pub file: File,
    /// Its path as seen from here.
    pub path: PathBuf,
    /// Bytes of it that belong to the backup.
    pub bytes: u64,
}

/// Takes the cut.
pub(super) async fn take(
    parts: &Parts<'_>,
    lock: &BackupLock,
    redo: &RedoCapture,
    plan: &CopyPlan,
    selected: &Selected,
) -> Result<Cut, Error> {
    let Parts { options, source, destination, guards, .. } = *parts;
    let stop = guards.token();
    let locked = plan.has_non_transactional() && !selected.under_lock.is_empty();
    if locked {
        let (files, spool) = (selected.under_lock.clone(), destination.spool());
        blocking(move || Ok(check_room(&files, &spool)?)).await?;
        lock.global_read_lock(options.lock_timeout, stop).await?;
    }
    let budget = options.read_lock_budget.filter(|_| locked);
    let spooled = spool_within(budget, selected.under_lock.clone(), destination.spool(), stop).await?;
    if source.info.log_bin {
        lock.rotate_binlog().await?;
    }
    redo.hold();
    let status = lock.log_status().await?;
    let binlog = open_binlog(source, &status)?;
    let global_read_lock = if locked { lock.unlock_tables().await? } else { Duration::ZERO };
    lock.flush_engine_logs().await?;
    Ok(Cut { status, spooled, binlog, global_read_lock })
}

/// Copies the files that only the global read lock keeps still. Nobody can write meanwhile: what takes longer than the
/// budget is not waited for, not even to the end of a read that hangs.
async fn spool_within(
    budget: Option<Duration>,
    files: Vec<PlannedFile>,
    spool: Arc<Spool>,
    stop: &CancellationToken,
) -> Result<Vec<SpooledFile>, Error> {
    let own_stop = stop.child_token();
    // Whichever way this ends, the copy does.
    let _stopped = own_stop.clone().drop_guard();
    let count = files.len();
    let spooling = blocking(move || Ok(spool_files(&files, &spool, &own_stop)?));
    let Some(budget) = budget else { return spooling.await };
    tokio::time::timeout(budget, spooling).await.unwrap_or_else(|_| {
        let seconds = budget.as_secs();
        let message = format!("the {count} files of tables without redo were not copied within {seconds} s");
        Err(Error::new(ErrorKind::ReadLockBudget, message))
    })
}

/// Bytes before the first event of an encrypted binlog; positions do not count them (MySQL 9.7; tablespace-files
/// reference, section 9).
const ENCRYPTED_HEADER: u64 = 512;
const ENCRYPTED_MAGIC: [u8; 4] = [0xFD, 0x62, 0x69, 0x6E];

fn open_binlog(source: &Source, status: &LogStatus) -> Result<Option<BinlogTail>, Error> {
    let Some(position) = &status.binlog else { return Ok(None) };
    let Some(directory) = source.binlog_directory() else {
        let message = "the server writes a binary log but does not say where (log_bin_basename is empty)";
        return Err(Error::new(ErrorKind::UnsupportedServer, message));
    };
    let path = directory.join(&position.file);
    let file = File::open(&path).map_err(|error| {
        Error::new(ErrorKind::SourceChanged, format!("cannot open the binary log {} of the cut", path.display()))
            .caused_by(error)
            .advise("check that its directory can be read here, and that nobody ran RESET BINARY LOGS AND GTIDS")
    })?;
    let bytes = position.position.saturating_add(if is_encrypted(&file, &path)? { ENCRYPTED_HEADER } else { 0 });
    let found = file.metadata().map_err(read_error(&path))?.len();
    if found < bytes {
        let message = format!("{} has {found} bytes, and log_status said {bytes}: it was reset", path.display());
        return Err(Error::new(ErrorKind::SourceChanged, message));
    }
    Ok(Some(BinlogTail { file, path, bytes }))
}

fn is_encrypted(file: &File, path: &Path) -> Result<bool, Error> {
    use std::os::unix::fs::FileExt;
    let mut magic = [0; 4];
    file.read_exact_at(&mut magic, 0).map_err(read_error(path))?;
    Ok(magic == ENCRYPTED_MAGIC)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::FileKind;

    fn file(path: PathBuf) -> Vec<PlannedFile> {
        vec![PlannedFile { path, relative: None, kind: FileKind::NonTransactional }]
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn files_that_take_longer_than_the_budget_are_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::create(dir.path(), 1 << 20, "t").unwrap();
        let stop = CancellationToken::new();
        let hanging = dir.path().join("hangs.MYD");
        let made = std::process::Command::new("mkfifo").arg(&hanging).status().unwrap();
        assert!(made.success());
        let budget = Some(Duration::from_millis(50));
        let error = spool_within(budget, file(hanging.clone()), Arc::clone(&spool), &stop).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::ReadLockBudget);
        assert!(!stop.is_cancelled(), "the run decides what else ends");
        // Lets the thread that still waits for the file go.
        drop(File::options().write(true).open(&hanging).unwrap());

        let quick = dir.path().join("quick.MYD");
        std::fs::write(&quick, b"rows").unwrap();
        let minute = Some(Duration::from_mins(1));
        assert_eq!(spool_within(minute, file(quick), spool, &stop).await.unwrap().len(), 1);
    }
}
