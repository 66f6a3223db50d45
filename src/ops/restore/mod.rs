//! `stillframe restore`: one pass from the store to a directory that a server starts on.
//!
//! ```text
//!   open the backup ─ keys ─ where does each file go ─ every refusal, before a byte is written
//!   [native: scan all redo, by page; find the accounts that get other passwords] ─► every refusal is behind us
//!   marker ─► pages (parallel: fetch, decrypt, decompress, check, [apply redo,] write) ─► files ─► [passwords] ─► redo
//!             log, binlog, isolation ─► sync ─► #innodb_redo takes its name ─► marker goes ─► [mysqld starts once, isolated; where it
//!             fails, the marker comes back]
//! ```
//! Owns the order. With `--recovery native` pages are written as the redo leaves them, and the log is a new, clean one.
//! With `--recovery server` the captured redo becomes a log that a stock server accepts and applies at its next start.

mod accounts;
mod files;
mod isolation;
mod native;
mod pages;
mod placement;
mod recovered;
mod redo;
#[cfg(test)]
mod refusals;
mod replace;
mod room;
mod server;
mod settings;
mod target;

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use crate::archive::filetable::FileTable;
use crate::archive::manifest::Manifest;
use crate::archive::{ArchiveReader, AttemptId};
use crate::innodb::ids::SpaceId;
use crate::innodb::keyring::Keyring;
use crate::innodb::lsn::Lsn;
use crate::innodb::space::TablespaceFlags;
use crate::ops::blocking;
use crate::ops::context::Context;
use crate::ops::error::{Error, ErrorKind};
use crate::ops::keyring;
use crate::ops::options::{Recovery, RestoreOptions};
use crate::ops::report::{
    AppliedRedo, BinlogPosition, LsnRange, RecoveryState, RestoreBytes, RestoreReport, ServerIdentity, StructureReport,
};
use crate::ops::stored;
use crate::ops::structure::{self, Restored};
use crate::prepare::{self, Tally};

use accounts::NewPasswords;
pub use pages::page_at;
use placement::{Layout, Placement};
use server::Needs;
use target::{Marker, Target};

/// Restores one backup.
pub async fn run(ctx: &Context, options: RestoreOptions) -> Result<RestoreReport, Error> {
    options.check()?;
    let started = Instant::now();
    ctx.progress.step("open");
    let found = stored::find(&options.store, &options.backup).await?;
    let reader = Arc::new(found.open(&options.encryption_key_files, &ctx.cancel).await?);
    let manifest = Arc::new(found.manifest);
    let table = {
        let reader = Arc::clone(&reader);
        Arc::new(blocking(move || Ok(reader.file_table()?)).await?)
    };
    ctx.check()?;

    ctx.progress.step("check target");
    // Read once: what it says must be the same for all who ask.
    let keyring = keyring::read_if_named(options.keyring_file.as_deref())?.map(Arc::new);
    let mut layout = Layout::plan(&table, &Placement::new(&options.datadir, &options.external_files))?;
    if let Some(index) = files::binlog(&table, &layout).map(|binlog| files::index_path(&manifest, binlog)) {
        layout.add_made(index, &options.datadir);
    }
    let needs = check_target(&options, &manifest, &table, &layout, keyring.as_deref()).await?;
    let recovery = match options.recovery {
        Recovery::Server => None,
        Recovery::Native => Some(scan(ctx, &options, &reader, &manifest, &table, keyring.as_deref().cloned()).await?),
    };
    for space in recovery.iter().flat_map(prepare::Recovery::spaces) {
        layout.grow(space.id(), space.pages);
    }
    let layout = Arc::new(layout);
    ctx.check()?;
    let (recovery, passwords) = find_accounts(recovery, &options, &reader, &manifest, &table, keyring.as_ref()).await?;
    ctx.check()?;

    // Much may have come to be while the redo was read.
    layout.check_outside_is_free(options.overwrite_incomplete, &options.datadir)?;
    let marker = marker(&manifest, &layout);
    let replaces = replaces(&options);
    if replaces {
        // What it holds of files elsewhere is not known, so none of those is this restore's.
        replace::give_up(&options.datadir, &Marker { external_files: Vec::new(), ..marker.clone() })?;
    }
    let target = Arc::new(Target::claim(&options.datadir, options.overwrite_incomplete || replaces, &marker)?);
    let written = {
        let (ctx, options, target) = (ctx.clone(), options.clone(), Arc::clone(&target));
        let (reader, manifest, table, layout) =
            (Arc::clone(&reader), Arc::clone(&manifest), Arc::clone(&table), Arc::clone(&layout));
        let (keyring, passwords) = (keyring.clone(), Arc::clone(&passwords));
        let work = move || {
            let mut written = {
                let (keyring, recovery) = (keyring.as_deref(), recovery.as_ref());
                let source = Source { reader: &reader, manifest: &manifest, table: &table, keyring, recovery };
                fill(&ctx, &options, &target, &source, &layout, &passwords)?
            };
            written.applied = recovery.as_ref().map(|recovery| applied(recovery, written.recovered));
            // Redo that did not fit into memory would else be written to the disk, too, only to be forgotten.
            drop(recovery);
            finish(&ctx, &target, &layout)?;
            Ok(written)
        };
        blocking(work).await?
    };
    ctx.check()?;
    target.complete(options.receipt.as_deref())?;

    let state = match &options.mysqld {
        Some(mysqld) => {
            // Where the redo was applied here, it only rolls back what was open.
            ctx.progress.step(if written.applied.is_some() { "run server" } else { "recover" });
            if let Err(error) = server::recover(mysqld, &target, &needs, &ctx.cancel).await {
                // Whatever it is now: nobody is to take it for what the backup held.
                if error.kind == ErrorKind::RecoveryFailed {
                    target.mark(&marker)?;
                }
                return Err(error);
            }
            RecoveryState::Recovered
        }
        None if written.applied.is_some() => RecoveryState::Applied,
        None => RecoveryState::AtFirstStart,
    };
    let structure = if options.check_structure {
        ctx.progress.step("check structure");
        Some(check_structure(ctx, &options, &manifest, &table, &layout, keyring).await?)
    } else {
        None
    };
    let mut report = report(&options, &manifest, &layout, &needs, written, state, started);
    report.accounts.clone_from(&passwords.accounts);
    report.warnings.extend(passwords.warnings.iter().cloned());
    Ok(RestoreReport { structure, ..report })
}

/// Finds the accounts that get other passwords, where there are such. Gives the recovery back.
async fn find_accounts(
    recovery: Option<prepare::Recovery>,
    options: &RestoreOptions,
    reader: &Arc<ArchiveReader>,
    manifest: &Arc<Manifest>,
    table: &Arc<FileTable>,
    keyring: Option<&Arc<Keyring>>,
) -> Result<(Option<prepare::Recovery>, Arc<NewPasswords>), Error> {
    let Some(recovery) = recovery else { return Ok((None, Arc::default())) };
    if options.account_passwords.is_empty() {
        return Ok((Some(recovery), Arc::default()));
    }
    let wanted = options.account_passwords.clone();
    let (reader, manifest, table) = (Arc::clone(reader), Arc::clone(manifest), Arc::clone(table));
    let keyring = keyring.cloned();
    let work = move || {
        let source = Source {
            reader: &reader,
            manifest: &manifest,
            table: &table,
            keyring: keyring.as_deref(),
            recovery: Some(&recovery),
        };
        let found = NewPasswords::find(&wanted, &source, &recovery)?;
        Ok((Some(recovery), Arc::new(found)))
    };
    blocking(work).await
}

/// Checks the structure of the tablespaces, which are recovered by now.
async fn check_structure(
    ctx: &Context,
    options: &RestoreOptions,
    manifest: &Manifest,
    table: &FileTable,
    layout: &Layout,
    keyring: Option<Arc<Keyring>>,
) -> Result<StructureReport, Error> {
    let mut spaces = Vec::new();
    for entry in &table.spaces {
        let flags = TablespaceFlags::decode(entry.flags).map_err(|error| {
            Error::new(ErrorKind::UnsupportedFormat, format!("space {}: {error}", entry.space)).caused_by(error)
        })?;
        let files: Vec<PathBuf> = layout.pieces(entry.space).map(Path::to_path_buf).collect();
        let first = files.first().filter(|_| options.mysqld.is_some());
        spaces.push(Restored { space: structure::id_now(entry.space, first.map(PathBuf::as_path))?, flags, files });
    }
    // A server that recovered the files has written redo of its own since.
    let end = if options.mysqld.is_some() { Lsn::new(u64::MAX) } else { manifest.lsn.end };
    let (parallel, cancel) = (options.parallel, ctx.cancel.clone());
    blocking(move || structure::check(&spaces, keyring.as_deref(), end, parallel, &cancel)).await
}

/// Scans the redo; what native recovery refuses, it refuses here.
async fn scan(
    ctx: &Context,
    options: &RestoreOptions,
    reader: &Arc<ArchiveReader>,
    manifest: &Arc<Manifest>,
    table: &Arc<FileTable>,
    keyring: Option<Keyring>,
) -> Result<prepare::Recovery, Error> {
    let (ctx, options) = (ctx.clone(), options.clone());
    let (reader, manifest, table) = (Arc::clone(reader), Arc::clone(manifest), Arc::clone(table));
    blocking(move || native::scan(&ctx, &options, &reader, &manifest, &table, keyring)).await
}

fn applied(recovery: &prepare::Recovery, tally: Tally) -> AppliedRedo {
    AppliedRedo {
        records: tally.applied,
        skipped: tally.skipped,
        pages: tally.pages,
        created: tally.created,
        tables: u64::try_from(recovery.metadata().table_count()).unwrap_or(0),
        spilled_bytes: recovery.plan().spilled_bytes(),
    }
}

/// Every refusal that can be known before a byte is written.
async fn check_target(
    options: &RestoreOptions,
    manifest: &Manifest,
    table: &FileTable,
    layout: &Layout,
    keyring: Option<&Keyring>,
) -> Result<Needs, Error> {
    let given_back = if replaces(options) {
        replace::check(&options.datadir)?;
        replace::taken_bytes(&options.datadir)?
    } else {
        Target::check(&options.datadir, options.overwrite_incomplete)?;
        0
    };
    layout.check_outside_is_free(options.overwrite_incomplete, &options.datadir)?;
    if layout.pieces(SpaceId::SYSTEM).next().is_none() {
        return Err(no_system_tablespace());
    }
    room::check(&options.datadir, given_back, manifest, table, layout)?;
    check_keyring(manifest, options.keyring_file.as_deref().zip(keyring))?;
    let needs = Needs {
        version: manifest.server.version.parse().map_err(|error: crate::innodb::version::BadVersion| {
            Error::new(ErrorKind::DamagedBackup, format!("the manifest's server version: {error}"))
        })?,
        page_size: manifest.server.page_size,
        lower_case_table_names: manifest.server.lower_case_table_names,
        settings: settings::needed(manifest, table, layout, &options.datadir),
        recovery: settings::for_recovery(manifest),
    };
    if let Some(mysqld) = &options.mysqld {
        server::check(&server::probe(mysqld, &options.datadir).await?, &needs)?;
    }
    Ok(needs)
}

fn no_system_tablespace() -> Error {
    Error::new(ErrorKind::DamagedBackup, "the backup has no system tablespace")
}

/// A database is there, and is to make room: any one where that was asked for, else what this very restore has made.
fn replaces(options: &RestoreOptions) -> bool {
    let mine = || options.receipt.as_deref().is_some_and(|receipt| replace::is_done(&options.datadir, receipt));
    replace::holds_database(&options.datadir) && (options.overwrite || mine())
}

/// A backup with encrypted data is of no use where its master keys are not: refused, naming the keys.
fn check_keyring(manifest: &Manifest, keyring: Option<(&Path, &Keyring)>) -> Result<(), Error> {
    let needed = &manifest.server.master_keys;
    if needed.is_empty() {
        return Ok(());
    }
    let names = needed.join(", ");
    let Some((path, keyring)) = keyring else {
        let message = format!("the backup holds encrypted data; the target's keyring must have {names}");
        return Err(Error::new(ErrorKind::KeyMissing, message)
            .advise("name the keyring file that the restored server will use with --keyring-file"));
    };
    match needed.iter().find(|name| keyring.key(name).is_none()) {
        None => Ok(()),
        Some(name) => Err(Error::new(ErrorKind::KeyMissing, format!("{} does not hold {name}", path.display()))),
    }
}

fn marker(manifest: &Manifest, layout: &Layout) -> Marker {
    Marker {
        backup: manifest.id.to_string(),
        note: "a restore was interrupted or still runs here: this is no database; \
               run stillframe restore again with --overwrite-incomplete"
            .to_owned(),
        external_files: layout.outside().map(PathBuf::from).collect(),
        run: AttemptId::generate().as_str().to_owned(),
    }
}

/// What was moved.
#[derive(Debug, Clone, Copy, Default)]
struct Written {
    bytes: RestoreBytes,
    files: u64,
    recovered: Tally,
    /// What was applied, where that was done here.
    applied: Option<AppliedRedo>,
}

/// What a restore is made of.
struct Source<'a> {
    reader: &'a ArchiveReader,
    manifest: &'a Manifest,
    table: &'a FileTable,
    keyring: Option<&'a Keyring>,
    /// Its redo, where it is applied here.
    recovery: Option<&'a prepare::Recovery>,
}

/// Writes everything but the last rename's marker. Blocks.
fn fill(
    ctx: &Context,
    options: &RestoreOptions,
    target: &Target,
    source: &Source<'_>,
    layout: &Layout,
    passwords: &NewPasswords,
) -> Result<Written, Error> {
    let Source { reader, manifest, table, recovery, .. } = *source;
    ctx.progress.step("restore");
    let mut written = Written { files: layout.create_all(target, table)?, ..Written::default() };
    let taken = recovery.map_or(0, |recovery| recovery.plan().memory_bytes());
    let threads = threads(options.parallel, options.memory.saturating_sub(taken));
    let moved = pages::write(ctx, target, reader, table, layout, recovery, threads)?;
    written.bytes.fetched = moved.fetched;
    written.bytes.written = moved.written;
    written.recovered = moved.recovered;
    passwords.write(layout)?;

    ctx.progress.step("redo");
    let redo = match recovery {
        Some(recovery) => native::write_clean_log(target, layout, recovery, manifest)?,
        None => write_captured_log(ctx, target, source, layout, threads)?,
    };
    written.bytes.fetched = written.bytes.fetched.saturating_add(redo.fetched);
    written.bytes.written = written.bytes.written.saturating_add(redo.written);
    written.files = written.files.saturating_add(redo.files);
    files::write_binlog_index(target, table, layout, manifest)?;
    if !options.keep_replication {
        files::write_isolation(target)?;
    }

    Ok(written)
}

/// Makes all of it durable, and gives the log its name. Blocks.
fn finish(ctx: &Context, target: &Target, layout: &Layout) -> Result<(), Error> {
    ctx.progress.step("sync");
    target.sync(layout.outside())?;
    ctx.check()?;
    target.check_is_ours()?;
    redo::publish(target)
}

/// Writes the log that a server will apply, and makes what it will not make: the end of the system tablespace.
fn write_captured_log(
    ctx: &Context,
    target: &Target,
    source: &Source<'_>,
    layout: &Layout,
    threads: NonZeroUsize,
) -> Result<redo::RedoWritten, Error> {
    let mut growth = redo::system_growth(source.manifest, source.table, source.keyring)?;
    let written = redo::write(target, source.reader, source.manifest, &mut growth, threads, &ctx.cancel)?;
    layout.extend(SpaceId::SYSTEM, growth.finish(source.manifest.lsn.end)?)?;
    Ok(written)
}

/// What a writing thread has on its way at most: a range of a pack, and blocks of it decrypted and decompressed.
const THREAD_BYTES: u64 = 24 << 20;

/// As many threads as are wanted and fit into the memory given; one in any case.
fn threads(wanted: NonZeroUsize, memory: u64) -> NonZeroUsize {
    let fitting = usize::try_from(memory / THREAD_BYTES).unwrap_or(usize::MAX);
    NonZeroUsize::new(fitting).map_or(NonZeroUsize::MIN, |fitting| fitting.min(wanted))
}

fn report(
    options: &RestoreOptions,
    manifest: &Manifest,
    layout: &Layout,
    needs: &Needs,
    written: Written,
    recovery: RecoveryState,
    started: Instant,
) -> RestoreReport {
    let mut isolation = vec!["a new server_uuid is made at the first start".to_owned()];
    if !options.keep_replication {
        let set = "skip_replica_start=ON, event_scheduler=OFF and group_replication_start_on_boot=OFF";
        isolation.push(format!("{set} are set in mysqld-auto.cnf"));
        isolation.push(format!("to lift it: {}", isolation::HOW_TO_LIFT));
    }
    isolation.extend(isolation::before_replication(&manifest.server));
    let mut warnings = manifest.warnings.clone();
    let outside = placement::external_directories(&options.datadir, layout.outside());
    if !outside.is_empty() {
        let list: Vec<String> = outside.iter().map(|path| path.display().to_string()).collect();
        warnings.push(format!("files lie outside of the data directory, in {}", list.join(", ")));
    }
    RestoreReport {
        name: manifest.name.clone(),
        id: manifest.id.to_string(),
        datadir: options.datadir.clone(),
        recovery,
        mode: options.recovery,
        applied: written.applied,
        lsn: LsnRange { checkpoint: manifest.lsn.checkpoint, end: manifest.lsn.end },
        binlog: manifest.binlog.as_ref().map(|at| BinlogPosition { file: at.file.clone(), position: at.position }),
        gtid_executed: manifest.gtid_executed.clone(),
        server: ServerIdentity {
            version: manifest.server.version.clone(),
            uuid: manifest.server.uuid.clone(),
            untested: manifest.server.untested,
        },
        bytes: written.bytes,
        files: written.files,
        duration_seconds: started.elapsed().as_secs(),
        structure: None,
        settings: needs.settings.clone(),
        isolation,
        accounts: Vec::new(),
        warnings,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_bounds_the_threads() {
        let threads = |wanted, memory| threads(NonZeroUsize::new(wanted).unwrap(), memory).get();
        assert_eq!(threads(8, 128 << 20), 5);
        assert_eq!(threads(2, 128 << 20), 2);
        assert_eq!(threads(8, 1), 1);
        assert_eq!(threads(8, u64::MAX), 8);
    }
}
