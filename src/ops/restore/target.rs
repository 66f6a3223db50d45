//! The directory a restore fills: what must be true before the first byte, and the marker that guards the rest.
//!
//! ```text
//!   empty ──marker──► incomplete ──all files synced, redo renamed into place──► marker removed: a database
//!                        │
//!                        └─ killed here: no server starts (no #innodb_redo), none initialises (not empty),
//!                           and only --overwrite-incomplete cleans it
//! ```
//! While it is filled, its directory is locked (`flock`), so that a second restore does not take it for remains. Where locks do
//! not reach, on a network file system, the marker names the run: it is looked at again before anything is final.
//!
//! Owns the marker file, the lock and the refusals; writes nothing else.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{FlockOperation, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::ops::error::{Error, ErrorKind};
use crate::util::fs::{
    FsError, create_dir_all, create_durable, durable_rename, fsync_dir, sync_file, sync_files_below,
};

/// The first file written into a target and the last one removed. It has no leading dot, because
/// `mysqld --initialize` ignores dot files and must refuse such a directory (MySQL 9.7).
pub const MARKER: &str = "stillframe-restore-incomplete";
/// The file that says whose restore made a database.
pub const RECEIPT: &str = "stillframe-restored";

/// Mode of every directory made here: the server's own choice.
pub const DIRECTORY_MODE: u32 = 0o750;

/// Mode of every file made here: the server's own choice.
pub const FILE_MODE: u32 = 0o640;

/// What the marker says; read by the run that cleans up after a dead one.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Marker {
    /// The backup that was being restored.
    pub backup: String,
    /// For the person who finds it.
    pub note: String,
    /// Files outside the data directory that the restore creates: absolute paths, lossy where not UTF-8.
    pub external_files: Vec<PathBuf>,
    /// Which run of a restore this is.
    #[serde(default)]
    pub run: String,
}

/// A checked target, marked as incomplete.
#[derive(Debug)]
pub struct Target {
    datadir: PathBuf,
    owner: Option<(u32, u32)>,
    /// The directory, open and locked.
    _lock: File,
    marker: Marker,
    /// Files that were made outside of it.
    made_outside: Mutex<Vec<PathBuf>>,
    /// Something open on each file system that is written to, by its number: open since before the first byte, so that the
    /// sync at the end tells of every write that failed, also where somebody else's sync was told of it meanwhile.
    file_systems: Mutex<BTreeMap<u64, File>>,
}

impl Target {
    /// Refuses a directory that is not empty, or, with `overwrite_incomplete`, one that is not the remains of a
    /// restore. Touches nothing.
    pub fn check(datadir: &Path, overwrite_incomplete: bool) -> Result<(), Error> {
        let entries = match fs::read_dir(datadir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(io_error("list", datadir, error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            names.push(entry.map_err(|error| io_error("list", datadir, error))?.file_name());
        }
        names.retain(|name| name != "lost+found");
        if names.is_empty() {
            return Ok(());
        }
        refuse_running_server(datadir)?;
        let marked = names.iter().any(|name| name == MARKER);
        if marked && overwrite_incomplete {
            return Ok(());
        }
        let hint = if marked {
            "it holds the remains of an interrupted restore; pass --overwrite-incomplete to clean it and start over"
        } else {
            "restore into an empty directory"
        };
        let path = datadir.display();
        Err(Error::new(ErrorKind::TargetNotEmpty, format!("target directory {path} is not empty: {hint}")))
    }

    /// Checks the target again, removes the remains of an interrupted restore where that was asked for, and
    /// writes the marker, durably, before anything else.
    pub fn claim(datadir: &Path, overwrite_incomplete: bool, marker: &Marker) -> Result<Self, Error> {
        create_dir_all(datadir, DIRECTORY_MODE).map_err(local_io)?;
        let lock = lock(datadir)?;
        Self::check(datadir, overwrite_incomplete)?;
        let target = Self {
            datadir: datadir.to_path_buf(),
            owner: inherited_owner(datadir)?,
            _lock: lock,
            marker: marker.clone(),
            made_outside: Mutex::default(),
            file_systems: Mutex::default(),
        };
        target.watch(File::open(datadir).map_err(|error| io_error("open", datadir, error))?, datadir)?;
        target.clean_remains()?;
        target.mark(marker)?;
        Ok(target)
    }

    /// The directory.
    pub fn datadir(&self) -> &Path {
        &self.datadir
    }

    /// User and group that created files are given to: those of the directory, when this process is root and they
    /// are not root's own.
    pub fn owner(&self) -> Option<(u32, u32)> {
        self.owner
    }

    /// Creates a file of `bytes` zeros that take no space, with the server's mode and the target's owner. It must not
    /// exist yet.
    pub fn create_file(&self, path: &Path, bytes: u64) -> Result<(), Error> {
        if let Some(parent) = path.parent() {
            self.create_dir(parent)?;
        }
        let created = File::options().write(true).create_new(true).mode(FILE_MODE).open(path);
        let file = match created {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.disown_outside()?;
                return Err(io_error("create", path, error));
            }
            created => created.map_err(|error| io_error("create", path, error))?,
        };
        if !path.starts_with(&self.datadir) {
            self.made_outside.lock().unwrap_or_else(PoisonError::into_inner).push(path.to_path_buf());
        }
        file.set_len(bytes).map_err(|error| io_error("set the size of", path, error))?;
        self.give_open(&file, path)?;
        self.watch(file, path)
    }

    /// A file is there that this run did not make: from now on the marker names only those that it did, or the next run would
    /// remove somebody else's.
    fn disown_outside(&self) -> Result<(), Error> {
        let made = self.made_outside.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.mark(&Marker { external_files: made, ..self.marker.clone() })
    }

    /// Refuses to go on where another run has taken the directory over.
    pub fn check_is_ours(&self) -> Result<(), Error> {
        let path = self.datadir.join(MARKER);
        let bytes = fs::read(&path).map_err(|error| io_error("read", &path, error))?;
        if serde_json::from_slice::<Marker>(&bytes).is_ok_and(|found| found.run == self.marker.run) {
            return Ok(());
        }
        let message = format!("another restore has taken {} over meanwhile", self.datadir.display());
        Err(Error::new(ErrorKind::TargetInUse, message))
    }

    /// Keeps a file open where it is the first one of its file system.
    fn watch(&self, file: File, path: &Path) -> Result<(), Error> {
        let device = file.metadata().map_err(|error| io_error("look at", path, error))?.dev();
        let _ = self.file_systems.lock().unwrap_or_else(PoisonError::into_inner).entry(device).or_insert(file);
        Ok(())
    }

    /// Makes everything that was written durable: on the data directory's file system and those of `outside` files.
    pub fn sync<'a>(&'a self, mut outside: impl Iterator<Item = &'a Path>) -> Result<(), Error> {
        let mut told = sync_tells_of_failures(&rustix::system::uname().release().to_string_lossy());
        for file in self.file_systems.lock().unwrap_or_else(PoisonError::into_inner).values() {
            told &= !is_fuse(file);
            let failed = |error: Errno| io_error("sync the file systems of", &self.datadir, error.into());
            rustix::fs::syncfs(file).map_err(failed)?;
        }
        if !told {
            // All is written: each file only says whether that went well.
            let _ = sync_files_below(&self.datadir).map_err(local_io)?;
            outside.try_for_each(sync_file).map_err(local_io)?;
        }
        Ok(())
    }

    /// Removes the marker: from here on the directory is a database. Everything else must be durable by now. Before that
    /// it leaves a receipt, where somebody may ask for one.
    pub fn complete(&self, receipt: Option<&str>) -> Result<(), Error> {
        self.check_is_ours()?;
        if let Some(receipt) = receipt {
            create_durable(&self.datadir.join(RECEIPT), receipt.as_bytes(), FILE_MODE).map_err(local_io)?;
        }
        let path = self.datadir.join(MARKER);
        fs::remove_file(&path).map_err(|error| io_error("remove", &path, error))?;
        fsync_dir(&self.datadir).map_err(local_io)
    }

    fn clean_remains(&self) -> Result<(), Error> {
        if !self.datadir.join(MARKER).exists() {
            return Ok(());
        }
        let outside = marked_files(&self.datadir);
        // All are looked at before one goes.
        outside.iter().try_for_each(|path| refuse_locked(path))?;
        outside.iter().try_for_each(|path| remove_if_there(path))?;
        for entry in fs::read_dir(&self.datadir).map_err(|error| io_error("list", &self.datadir, error))? {
            let entry = entry.map_err(|error| io_error("list", &self.datadir, error))?;
            let name = entry.file_name();
            if name == MARKER || name == "lost+found" {
                continue;
            }
            let path = entry.path();
            let kind = entry.file_type().map_err(|error| io_error("look at", &path, error))?;
            let removed = if kind.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.map_err(|error| io_error("remove", &path, error))?;
        }
        Ok(())
    }

    /// Marks the directory as no database; also again, where what was complete turned out to be none.
    pub fn mark(&self, marker: &Marker) -> Result<(), Error> {
        let path = self.datadir.join(MARKER);
        let text = serde_json::to_vec_pretty(marker)
            .map_err(|error| Error::new(ErrorKind::Failed, "cannot encode the restore marker").caused_by(error))?;
        // Not given to the target's owner: what it names may be removed one day by the user who writes it here.
        if fs::symlink_metadata(&path).is_err() {
            return create_durable(&path, &text, FILE_MODE).map_err(local_io);
        }
        // An old one stays until the new one is whole, and is not written through where it is a link.
        let fresh = self.datadir.join(format!("{MARKER}.new"));
        create_durable(&fresh, &text, FILE_MODE).map_err(local_io)?;
        durable_rename(&fresh, &path).map_err(local_io)
    }

    /// Gives `path` to the target's owner, where there is one to give it to.
    pub fn give(&self, path: &Path) -> Result<(), Error> {
        let Some((uid, gid)) = self.owner else { return Ok(()) };
        // Of a link itself, not of what it leads to: the directory's owner could have put one there.
        std::os::unix::fs::lchown(path, Some(uid), Some(gid))
            .map_err(|error| io_error("change the owner of", path, error))
    }

    fn give_open(&self, file: &File, path: &Path) -> Result<(), Error> {
        let Some((uid, gid)) = self.owner else { return Ok(()) };
        std::os::unix::fs::fchown(file, Some(uid), Some(gid))
            .map_err(|error| io_error("change the owner of", path, error))
    }

    /// Creates the directory `path` with its parents, mode 0750 and the target's owner, as the server does.
    pub fn create_dir(&self, path: &Path) -> Result<(), Error> {
        if path.is_dir() {
            // Above the data directory, links are the owner's of the machine.
            let below = path.starts_with(&self.datadir) && path != self.datadir;
            return if below { open_directory(path).map(drop) } else { Ok(()) };
        }
        if let Some(parent) = path.parent() {
            self.create_dir(parent)?;
        }
        match fs::create_dir(path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
            Err(error) => return Err(io_error("create", path, error)),
        }
        let made = open_directory(path)?;
        made.set_permissions(fs::Permissions::from_mode(DIRECTORY_MODE))
            .map_err(|error| io_error("set the mode of", path, error))?;
        self.give_open(&made, path)
    }
}

/// Opens a directory that is no link.
fn open_directory(path: &Path) -> Result<File, Error> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW;
    let mut options = File::options();
    options.read(true).custom_flags(i32::try_from(flags.bits()).unwrap_or(0));
    options.open(path).map_err(|error| io_error("open", path, error))
}

/// Opens a directory and locks it for as long as it stays open.
fn lock(datadir: &Path) -> Result<File, Error> {
    let file = File::open(datadir).map_err(|error| io_error("open", datadir, error))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => {
            let message = format!("another restore fills {} right now", datadir.display());
            Err(Error::new(ErrorKind::TargetInUse, message).advise("wait for it, or choose another directory"))
        }
        // Not every file system locks directories; there the marker has to do.
        Ok(()) | Err(_) => Ok(file),
    }
}

/// The number of FUSE among file systems (Linux, `statfs(2)`).
const FUSE: u64 = 0x6573_5546;

/// A sync of such a file system reaches its server only file by file.
fn is_fuse(file: &File) -> bool {
    rustix::fs::fstatfs(file).is_ok_and(|found| u64::try_from(found.f_type) == Ok(FUSE))
}

/// Files outside of the data directory that an interrupted restore of this user says are its own. Whoever owns the
/// directory can write a marker, too, and name anything: another user's is not believed.
pub fn marked_files(datadir: &Path) -> Vec<PathBuf> {
    let path = datadir.join(MARKER);
    let own = |metadata: fs::Metadata| metadata.is_file() && metadata.uid() == rustix::process::geteuid().as_raw();
    if !fs::symlink_metadata(&path).is_ok_and(own) {
        return Vec::new();
    }
    let bytes = fs::read(path).unwrap_or_default();
    serde_json::from_slice::<Marker>(&bytes).map(|marker| marker.external_files).unwrap_or_default()
}

/// Whether the sync of a file system fails where a write to one of its files has: Linux does so from 5.8 on.
fn sync_tells_of_failures(release: &str) -> bool {
    let mut numbers =
        release.split(|letter: char| !letter.is_ascii_digit()).map(|digits| digits.parse().unwrap_or(0_u32));
    (numbers.next(), numbers.next()) >= (Some(5), Some(8))
}

/// The directory itself, or the one in which it will be made.
pub fn existing_ancestor(datadir: &Path) -> &Path {
    let mut existing = datadir;
    while !existing.exists() {
        match existing.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => existing = parent,
            _ => existing = Path::new("."),
        }
    }
    existing
}

/// Turns an I/O failure into an error that names act and path.
pub fn io_error(act: &str, path: &Path, error: io::Error) -> Error {
    Error::new(ErrorKind::LocalIo, format!("cannot {act} {}", path.display())).caused_by(error)
}

/// Turns a failed file operation, which names its act and path itself, into an error.
pub fn local_io(error: FsError) -> Error {
    Error::new(ErrorKind::LocalIo, error.to_string()).caused_by(error.source)
}

fn remove_if_there(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("remove", path, error)),
        _ => Ok(()),
    }
}

/// A server holds a write lock on each of its tablespaces for as long as it runs. The first one may lie elsewhere, or have
/// another name; the dictionary's never does.
pub fn refuse_running_server(datadir: &Path) -> Result<(), Error> {
    ["ibdata1", "mysql.ibd"].iter().try_for_each(|name| refuse_locked(&datadir.join(name)))
}

/// A server locks every tablespace file that it has open.
fn refuse_locked(path: &Path) -> Result<(), Error> {
    let Ok(file) = File::options().read(true).write(true).open(path) else { return Ok(()) };
    if rustix::fs::fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
        return Ok(());
    }
    let message = format!("a running server holds {}: stop it first", path.display());
    Err(Error::new(ErrorKind::TargetInUse, message))
}

fn inherited_owner(datadir: &Path) -> Result<Option<(u32, u32)>, Error> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let metadata = fs::metadata(datadir).map_err(|error| io_error("look at", datadir, error))?;
    let owner = (metadata.uid(), metadata.gid());
    Ok(if owner == (0, 0) { None } else { Some(owner) })
}

#[cfg(test)]
#[path = "target_tests.rs"]
mod tests;
