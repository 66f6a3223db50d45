//! The last step: what the backup is becomes its manifest, is proven to be there, and is committed.
//!
//! ```text
//!   every object of the archive: is it in the store, with its size? ─► keys beside it ─► manifest, create-only
//! ```
//! Until the manifest stands there is no backup; once it stands nothing can make this run a failure.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::archive;
use crate::archive::manifest::{self, Manifest};
use crate::capture::{CapturedRedo, CopySummary};
use crate::mysql::Role;
use crate::ops::context::Context;
use crate::ops::error::Error;
use crate::ops::options::{BackupOptions, NonTransactional};
use crate::ops::report::{BackupBytes, BackupReport, BackupType, BinlogPosition, LsnRange, PageCounts, ServerIdentity};
use crate::util::clock;

use super::destination::Attempt;
use super::files::StoredSet;
use super::source::Source;

/// All that is known of a copy when the locks are gone.
pub struct Copied {
    /// Pages.
    pub pages: CopySummary,
    /// The redo's range and origin.
    pub captured: CapturedRedo,
    /// Bytes of redo.
    pub redo_bytes: u64,
    /// Files, tables, and the cut.
    pub stored: StoredSet,
    /// Names of the keys that the server's encrypted files open with.
    pub master_keys: Vec<String>,
    /// How long the backup lock was held.
    pub backup_lock: Duration,
    /// How long the global read lock was held.
    pub global_read_lock: Duration,
    /// How long DDL was seen waiting.
    pub ddl_wait: Duration,
}

/// Commits the backup.
pub async fn commit(
    ctx: &Context,
    options: &BackupOptions,
    source: &Source,
    attempt: &Attempt,
    copied: Copied,
    begun: (Timestamp, Instant),
) -> Result<BackupReport, Error> {
    ctx.check()?;
    ctx.progress.step("commit");
    let writer = attempt.writer();
    attempt.run.prove(&writer.objects()).await?;
    for key in writer.wrapped_keys() {
        attempt.run.put_key(key.key_id(), key.encode()?).await?;
    }
    let warnings = warnings(options, source, &copied);
    let manifest = build_manifest(options, source, attempt, &copied, begun, warnings)?;
    let bytes = manifest.encode(writer.keys())?;
    ctx.check()?;
    attempt.run.commit(&bytes).await?;
    Ok(report(source, attempt, &copied, &manifest))
}

fn warnings(options: &BackupOptions, source: &Source, copied: &Copied) -> Vec<String> {
    let mut warnings = source.warnings().to_vec();
    if copied.pages.opaque > 0 {
        let pages = copied.pages.opaque;
        warnings.push(format!("{pages} encrypted pages were copied without looking inside: no keyring was given"));
    }
    if options.non_transactional == NonTransactional::Skip && copied.stored.skipped > 0 {
        let files = copied.stored.skipped;
        warnings.push(format!("{files} files of non-transactional tables were skipped: those tables cannot be opened"));
    }
    if source.untested {
        let version = &source.info.version_text;
        warnings.push(format!("server version {version} is in no recorded test run"));
    }
    warnings
}

fn build_manifest(
    options: &BackupOptions,
    source: &Source,
    attempt: &Attempt,
    copied: &Copied,
    begun: (Timestamp, Instant),
    warnings: Vec<String>,
) -> Result<Manifest, Error> {
    let (info, status, redo) = (&source.info, &copied.stored.status, &copied.captured);
    let writer = attempt.writer();
    Ok(Manifest {
        format: u32::from(archive::FORMAT),
        id: attempt.id.clone(),
        name: attempt.id.name().to_owned(),
        attempt: attempt.try_id.clone(),
        labels: std::collections::BTreeMap::new(),
        origin: options.origin.clone(),
        backup_type: manifest::BackupType::Full,
        parent: None,
        server: manifest::Server {
            version: info.version_text.clone(),
            version_comment: info.version_comment.clone(),
            uuid: info.uuid.clone(),
            page_size: info.page_size,
            lower_case_table_names: info.lower_case_table_names,
            settings: info.settings.clone(),
            untested: source.untested,
            master_keys: copied.master_keys.clone(),
            role: Some(match source.role {
                Role::Primary => manifest::Role::Primary,
                Role::Replica => manifest::Role::Replica,
            }),
            channels: status.channels.iter().map(|channel| channel.name.clone()).collect(),
        },
        lsn: manifest::LsnRange { checkpoint: redo.checkpoint, end: redo.end, page_tracking_start: None },
        redo: manifest::RedoInfo {
            log_uuid: redo.log_uuid,
            creator: redo.creator.clone(),
            encryption_block: redo.encryption_block.as_deref().map(hex::encode),
        },
        binlog: status
            .binlog
            .as_ref()
            .map(|at| manifest::BinlogPosition { file: at.file.clone(), position: at.position }),
        gtid_executed: status.gtid_executed.clone(),
        gtid_purged: info.gtid_purged.clone(),
        start_time: begun.0,
        completion_time: clock::now(),
        duration_seconds: begun.1.elapsed().as_secs(),
        lock_held_milliseconds: milliseconds(copied.backup_lock),
        global_read_lock_milliseconds: milliseconds(copied.global_read_lock),
        ddl_wait_milliseconds: milliseconds(copied.ddl_wait),
        bytes: manifest::ByteCounts { read: bytes_read(copied), stored: writer.stored_bytes() },
        pages: manifest::PageCounts {
            copied: copied.pages.pages,
            zero: copied.pages.zero,
            reread: copied.pages.reread,
            unverified: copied.pages.opaque,
        },
        codec: options.compression,
        cipher: writer.cipher_info()?,
        contents: copied.stored.contents.clone(),
        warnings,
        hmac: manifest::Digits::default(),
        digest: manifest::Digits::default(),
    })
}

fn report(source: &Source, attempt: &Attempt, copied: &Copied, manifest: &Manifest) -> BackupReport {
    BackupReport {
        name: manifest.name.clone(),
        id: manifest.id.to_string(),
        backup_type: BackupType::Full,
        parent: None,
        lsn: LsnRange { checkpoint: manifest.lsn.checkpoint, end: manifest.lsn.end },
        binlog: manifest.binlog.as_ref().map(|at| BinlogPosition { file: at.file.clone(), position: at.position }),
        gtid_executed: manifest.gtid_executed.clone(),
        server: ServerIdentity {
            version: manifest.server.version.clone(),
            uuid: manifest.server.uuid.clone(),
            untested: source.untested,
        },
        bytes: BackupBytes { read: manifest.bytes.read, stored: manifest.bytes.stored },
        pages: PageCounts { copied: copied.pages.pages, zero: copied.pages.zero, reread: copied.pages.reread },
        duration_seconds: manifest.duration_seconds,
        lock_held_milliseconds: manifest.lock_held_milliseconds,
        global_read_lock_milliseconds: manifest.global_read_lock_milliseconds,
        ddl_wait_milliseconds: manifest.ddl_wait_milliseconds,
        start_time: manifest.start_time,
        completion_time: manifest.completion_time,
        destination: attempt.destination.clone(),
        warnings: manifest.warnings.clone(),
    }
}

fn bytes_read(copied: &Copied) -> u64 {
    copied.pages.bytes.saturating_add(copied.redo_bytes).saturating_add(copied.stored.bytes)
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
