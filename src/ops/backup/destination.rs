//! Where a backup goes: the repository, the spool, the keys, and the one attempt that writes.
//!
//! ```text
//!   open:   store answers, refuses to replace, reads back ─ key files ─ spool
//!   begin:  lease ─► Attempt { writer ─► sink ─► data/<attempt>/… }
//!   end:    finish (lease gone, data stays)   or   abandon (lease gone, own data removed where that is allowed)
//! ```

use std::future::Future;
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::archive::codec::Codec;
use crate::archive::id::{AttemptId, BackupId};
use crate::archive::keys::RecipientKey;
use crate::archive::writer::{ArchiveWriter, WriterOptions};
use crate::capture::Spool;
use crate::ops::error::{Error, ErrorKind};
use crate::ops::options::BackupOptions;
use crate::ops::stored::read_key_files;
use crate::store::{Repository, Run, RunOptions};
use crate::util::units::format_bytes;

use super::source::Source;

/// Size of a pack at which the next one is begun.
const PACK_BYTES: u64 = 256 << 20;
/// Less room than this in the spool fails as soon as the server writes.
const MIN_SPOOL_BYTES: u64 = 16 << 20;

/// A store that was proven fit, and what goes with it.
pub struct Destination {
    repository: Repository,
    id: BackupId,
    spool: Arc<Spool>,
    recipients: Vec<RecipientKey>,
    options: WriterTemplate,
}

struct WriterTemplate {
    codec: Codec,
    redo_codec: Codec,
}

impl Destination {
    /// Opens and probes the store, reads the keys and makes the spool. Writes nothing but the probe.
    pub async fn open(options: &BackupOptions, source: &Source, started: Timestamp) -> Result<Self, Error> {
        let id = match &options.id {
            Some(id) => id.clone(),
            None => BackupId::generate(&options.name, started)
                .map_err(|error| Error::new(ErrorKind::Usage, error.to_string()))?,
        };
        let recipients = read_key_files(&options.encryption_key_files)?;
        refuse_spool_in_datadir(&options.spool_dir, source)?;
        refuse_small_spool(options)?;
        let repository = Repository::open(&options.store).await?;
        let _ = repository.probe().await?;
        let spool = Spool::create(&options.spool_dir, options.spool_bytes, id.as_str())?;
        let codec = options.compression;
        // What redo costs a busy server is time: nearly all of it is compression.
        let redo_codec = if options.polite { codec.quick() } else { codec };
        let options = WriterTemplate { codec, redo_codec };
        Ok(Self { repository, id, spool, recipients, options })
    }

    /// What a person should know of it before the copy begins.
    pub fn warning(&self, options: &BackupOptions) -> Option<String> {
        let (room, wanted) = (self.spool.limit(), options.spool_bytes);
        let (dir, has, asked) = (options.spool_dir.display(), format_bytes(room), format_bytes(wanted));
        (room < wanted)
            .then(|| format!("the disk of the spool {dir} has {has} free, less than the {asked} that redo may take: that much must do"))
    }

    /// The spool of this run.
    pub fn spool(&self) -> Arc<Spool> {
        Arc::clone(&self.spool)
    }

    /// Takes the lease and opens the archive.
    pub async fn begin(&self, cancel: &CancellationToken) -> Result<Attempt, Error> {
        let attempt = AttemptId::generate();
        let options = RunOptions { cancel: cancel.clone(), ..RunOptions::default() };
        let run = self.repository.begin_with(&self.id, &attempt, options).await?;
        let writer = ArchiveWriter::new(
            run.sink(),
            WriterOptions {
                backup: self.id.clone(),
                attempt: attempt.clone(),
                codec: self.options.codec,
                redo_codec: self.options.redo_codec,
                pack_bytes: PACK_BYTES,
                recipients: self.recipients.clone(),
            },
        )?;
        let destination = self.repository.url().to_string();
        Ok(Attempt { id: self.id.clone(), try_id: attempt, run, writer: Arc::new(writer), destination })
    }
}

/// One try at this backup: the only one that writes under its attempt id.
pub struct Attempt {
    /// The backup's id.
    pub id: BackupId,
    /// This try's id.
    pub try_id: AttemptId,
    /// Its lease and its objects.
    pub run: Run,
    /// The store, without secrets.
    pub destination: String,
    writer: Arc<ArchiveWriter>,
}

impl Attempt {
    /// The archive that this attempt writes.
    pub fn writer(&self) -> Arc<ArchiveWriter> {
        Arc::clone(&self.writer)
    }

    /// Resolves when another process may take this run for dead.
    pub fn lease_lost(&self) -> impl Future<Output = Error> + Send + 'static {
        let lost = self.run.lease_lost();
        async move { lost.await.into() }
    }

    /// The backup is committed: the lease is not needed any more.
    pub async fn finish(self) {
        self.run.finish().await;
    }

    /// The backup failed: removes what this attempt wrote, where the store lets it.
    pub async fn abandon(self) {
        let Self { run, writer, .. } = self;
        drop(writer);
        run.abandon().await;
    }
}

/// Two segments of redo must find room: one that is stored while the next one fills.
fn refuse_small_spool(options: &BackupOptions) -> Result<(), Error> {
    if options.spool_bytes >= MIN_SPOOL_BYTES {
        return Ok(());
    }
    let (given, least) = (format_bytes(options.spool_bytes), format_bytes(MIN_SPOOL_BYTES));
    Err(Error::new(
        ErrorKind::SpoolFull,
        format!("a spool of {given} is too small for any server: {least} is the least"),
    )
    .advise("raise --spool-bytes"))
}

/// Files below the data directory could be taken for the server's own.
fn refuse_spool_in_datadir(spool: &Path, source: &Source) -> Result<(), Error> {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    if !real(spool).starts_with(real(&source.layout.datadir)) {
        return Ok(());
    }
    let message = format!("the spool {} lies in the server's data directory", spool.display());
    Err(Error::new(ErrorKind::Preflight, message).advise("give a directory elsewhere with --spool-dir"))
}
