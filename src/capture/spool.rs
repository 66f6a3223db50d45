//! The local spool: a bounded directory for what must not wait for the store.
//!
//! ```text
//!   redo segments, files copied under a lock ──reserve──► spool ──release──► (uploaded)
//! ```
//! Releasing locks never depends on the store, because everything that is read under a lock fits here. Owns the
//! accounting and the directory, which goes when the spool is dropped; a killed process leaves it behind in the
//! temporary directory.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio_util::sync::CancellationToken;

use super::CaptureError;
use super::plan::PlannedFile;
use super::read::PassingFile;

/// A directory of bounded size. Cheap to share by [`Arc`].
#[derive(Debug)]
pub struct Spool {
    dir: PathBuf,
    limit: u64,
    used: AtomicU64,
    next: AtomicU64,
}

/// A file in the spool; its room is given back when this is dropped.
#[derive(Debug)]
pub struct Spooled {
    spool: Arc<Spool>,
    path: PathBuf,
    bytes: u64,
}

/// A copy of one of the server's files.
#[derive(Debug)]
pub struct SpooledFile {
    /// Where it was.
    pub source: PlannedFile,
    /// Where it is.
    pub copy: Spooled,
}

impl Spool {
    /// Makes a private directory below `parent` for at most `limit` bytes, and for no more than its file system has free
    /// now: a spool must be full before a disk is, or nobody gives way in time. Refuses when that is too little for any
    /// server.
    pub fn create(parent: &Path, limit: u64, run: &str) -> Result<Arc<Self>, CaptureError> {
        fs::create_dir_all(parent).map_err(CaptureError::io("create spool directory", parent))?;
        let free = rustix::fs::statvfs(parent)
            .map(|stat| stat.f_bavail.saturating_mul(stat.f_frsize))
            .map_err(|error| CaptureError::io("measure the space of", parent)(error.into()))?;
        check_free(parent, free, limit)?;
        let dir = parent.join(format!("stillframe-spool-{run}"));
        DirBuilder::new().mode(0o700).create(&dir).map_err(CaptureError::io("create spool directory", &dir))?;
        let limit = limit.min(free);
        Ok(Arc::new(Self { dir, limit, used: AtomicU64::new(0), next: AtomicU64::new(0) }))
    }

    /// Bytes in use.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Bytes there may be: as many as were asked for, or what was free.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// A new file, empty and with no room reserved yet.
    pub fn file(self: &Arc<Self>) -> Result<(File, Spooled), CaptureError> {
        let path = self.dir.join(self.next.fetch_add(1, Ordering::Relaxed).to_string());
        let file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(CaptureError::io("create spool file", &path))?;
        Ok((file, Spooled { spool: Arc::clone(self), path, bytes: 0 }))
    }

    fn reserve(&self, bytes: u64) -> Result<(), CaptureError> {
        let full = |_| CaptureError::SpoolFull { path: self.dir.clone(), limit: self.limit };
        let room = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= self.limit);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).map(drop).map_err(full)
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        // Nothing can be done about a directory that does not go; its name says whose it was.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

impl Spooled {
    /// Reserves room for `bytes` more; to be called before they are written.
    pub fn grow(&mut self, bytes: u64) -> Result<(), CaptureError> {
        self.spool.reserve(bytes)?;
        self.bytes = self.bytes.saturating_add(bytes);
        Ok(())
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its size.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Opens it for reading.
    pub fn open(&self) -> Result<File, CaptureError> {
        File::open(&self.path).map_err(CaptureError::io("open spool file", &self.path))
    }
}

impl Drop for Spooled {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
        let _ = self.spool.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Less room than this is too little for any server.
const MIN_ROOM: u64 = 64 << 20;
const CHUNK: usize = 1 << 20;

/// Refuses to begin where the file system has so few bytes `free` that the spool would be full at once. What it is
/// allowed beyond that is a limit, not a need.
fn check_free(parent: &Path, free: u64, limit: u64) -> Result<(), CaptureError> {
    if free >= limit.min(MIN_ROOM) {
        return Ok(());
    }
    Err(CaptureError::SpoolFull { path: parent.to_path_buf(), limit: free })
}

/// Fails where `files`, as large as they are now, do not fit into the spool. To be asked before a lock stops everybody:
/// else that is found out half-way.
pub fn check_room(files: &[PlannedFile], spool: &Spool) -> Result<(), CaptureError> {
    let mut needed = spool.used();
    for file in files {
        let metadata = fs::metadata(&file.path).map_err(CaptureError::io("look at", &file.path))?;
        needed = needed.saturating_add(metadata.len());
    }
    if needed <= spool.limit {
        Ok(())
    } else {
        Err(CaptureError::SpoolFull { path: spool.dir.clone(), limit: spool.limit })
    }
}

/// Copies `files` into the spool as they are now. For files that only a lock keeps still.
pub fn spool_files(
    files: &[PlannedFile],
    spool: &Arc<Spool>,
    cancel: &CancellationToken,
) -> Result<Vec<SpooledFile>, CaptureError> {
    let mut buffer = vec![0; CHUNK];
    files.iter().map(|file| spool_file(file, spool, &mut buffer, cancel)).collect()
}

fn spool_file(
    file: &PlannedFile,
    spool: &Arc<Spool>,
    buffer: &mut [u8],
    cancel: &CancellationToken,
) -> Result<SpooledFile, CaptureError> {
    let mut source = PassingFile::new(File::open(&file.path).map_err(CaptureError::io("open", &file.path))?);
    let (mut target, mut copy) = spool.file()?;
    loop {
        if cancel.is_cancelled() {
            return Err(CaptureError::Cancelled);
        }
        let count = match io::Read::read(&mut source, buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(CaptureError::io("read", &file.path)(error)),
        };
        copy.grow(u64::try_from(count).unwrap_or(u64::MAX))?;
        let bytes = buffer.get(..count).unwrap_or_default();
        io::Write::write_all(&mut target, bytes).map_err(CaptureError::io("write spool file", copy.path()))?;
    }
    Ok(SpooledFile { source: file.clone(), copy })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::plan::FileKind;

    #[test]
    fn a_spool_is_no_larger_than_its_disk() {
        let parent = tempfile::tempdir().unwrap();
        let spool = Spool::create(parent.path(), u64::MAX, "t").unwrap();
        let stat = rustix::fs::statvfs(parent.path()).unwrap();
        assert!(spool.limit() <= stat.f_blocks * stat.f_frsize && spool.limit() >= MIN_ROOM, "{}", spool.limit());
    }

    #[test]
    fn a_disk_that_is_nearly_full_is_refused_before_anything_is_copied() {
        let parent = Path::new("/var/spool");
        check_free(parent, MIN_ROOM, 10 << 30).unwrap();
        check_free(parent, 16 << 20, 16 << 20).unwrap();
        for (free, limit) in [(MIN_ROOM - 1, 10 << 30), (0, 16 << 20), ((16 << 20) - 1, 16 << 20)] {
            let error = check_free(parent, free, limit).unwrap_err();
            assert_eq!(error.to_string(), format!("the spool /var/spool is full: {free} bytes"));
        }
    }

    #[test]
    fn a_spool_asks_the_disk() {
        // A file system without a single free byte, on every Linux.
        let nowhere = Path::new("/proc/self");
        let refused = Spool::create(nowhere, 1 << 30, "t").unwrap_err();
        assert!(matches!(refused, CaptureError::SpoolFull { limit: 0, .. }), "{refused}");
    }

    #[test]
    fn the_limit_holds_and_room_comes_back() {
        let parent = tempfile::tempdir().unwrap();
        let spool = Spool::create(parent.path(), 3 << 20, "t").unwrap();
        let path = parent.path().join("t.MYD");
        fs::write(&path, vec![7; 2 << 20]).unwrap();
        let file = PlannedFile { path, relative: Some(b"db/t.MYD".to_vec()), kind: FileKind::NonTransactional };
        let cancel = CancellationToken::new();

        check_room(std::slice::from_ref(&file), &spool).unwrap();
        let copies = spool_files(std::slice::from_ref(&file), &spool, &cancel).unwrap();
        assert_eq!(spool.used(), 2 << 20);
        assert_eq!(fs::read(copies[0].copy.path()).unwrap(), vec![7; 2 << 20]);
        assert!(matches!(check_room(std::slice::from_ref(&file), &spool), Err(CaptureError::SpoolFull { .. })));
        let full = spool_files(std::slice::from_ref(&file), &spool, &cancel).unwrap_err();
        assert!(matches!(full, CaptureError::SpoolFull { .. }));
        drop(copies);
        assert_eq!(spool.used(), 0, "the failed copy gave its room back, too");
        drop(spool);
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 1, "only the source is left");
    }
}
