//! File operations that survive a power cut.
//!
//! A rename or a new entry is durable only when its *directory* is synced too; that is easily forgotten, so it is
//! done here and `std::fs::rename` is refused elsewhere.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A file operation that failed: what, and on which path.
#[derive(Debug, thiserror::Error)]
#[error("cannot {act} {}", path.display())]
pub struct FsError {
    /// What was tried: "sync", "rename", ...
    pub act: &'static str,
    /// On what.
    pub path: PathBuf,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

impl FsError {
    /// For `map_err`: names the act and the path of an I/O error.
    pub fn of(act: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self { act, path, source }
    }

    /// What kind of failure the system reported.
    pub fn kind(&self) -> io::ErrorKind {
        self.source.kind()
    }
}

/// Renames, then syncs the directories on both sides. The file itself must have been synced before.
pub fn durable_rename(from: &Path, to: &Path) -> Result<(), FsError> {
    #[expect(clippy::disallowed_methods, reason = "this is the helper that replaces it")]
    fs::rename(from, to).map_err(FsError::of("rename", from))?;
    let (source, target) = (parent(from), parent(to));
    fsync_dir(target)?;
    if source != target {
        fsync_dir(source)?;
    }
    Ok(())
}

/// Makes the entries of a directory (not its files' contents) durable.
pub fn fsync_dir(path: &Path) -> Result<(), FsError> {
    File::open(path).and_then(|dir| dir.sync_all()).map_err(FsError::of("sync directory", path))
}

/// Makes a file's contents durable.
pub fn sync_file(path: &Path) -> Result<(), FsError> {
    File::open(path).and_then(|file| file.sync_all()).map_err(FsError::of("sync", path))
}

/// Makes all files below a directory durable, and its directories' entries. Says how many of both there are.
pub fn sync_files_below(path: &Path) -> Result<u64, FsError> {
    let (mut count, mut left) = (0_u64, vec![path.to_path_buf()]);
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(&directory).map_err(FsError::of("list", &directory))? {
            let entry = entry.map_err(FsError::of("list", &directory))?;
            let kind = entry.file_type().map_err(FsError::of("look at", &entry.path()))?;
            if kind.is_dir() {
                left.push(entry.path());
            } else if kind.is_file() {
                sync_file(&entry.path())?;
                count = count.saturating_add(1);
            }
        }
        fsync_dir(&directory)?;
        count = count.saturating_add(1);
    }
    Ok(count)
}

/// Makes a directory and all above it that are missing, and syncs each parent that got a new entry.
pub fn create_dir_all(path: &Path, mode: u32) -> Result<(), FsError> {
    let mut missing = Vec::new();
    let mut at = path;
    while !at.as_os_str().is_empty() && !at.exists() {
        missing.push(at);
        at = parent(at);
    }
    for dir in missing.into_iter().rev() {
        match DirBuilder::new().mode(mode).create(dir) {
            Ok(()) => fsync_dir(parent(dir))?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => {}
            Err(error) => return Err(FsError::of("create directory", dir)(error)),
        }
    }
    // A file in the way is found here, not at the first use of the directory.
    if path.is_dir() { Ok(()) } else { Err(FsError::of("create directory", path)(io::ErrorKind::NotADirectory.into())) }
}

/// Writes a new file with all its bytes, synced, and its directory too. Fails if the file is there.
pub fn create_durable(path: &Path, bytes: &[u8], mode: u32) -> Result<(), FsError> {
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(mode).open(path).map_err(FsError::of("create", path))?;
    file.write_all(bytes).map_err(FsError::of("write", path))?;
    file.sync_all().map_err(FsError::of("sync", path))?;
    fsync_dir(parent(path))
}

/// Removes a file and makes that durable.
pub fn remove_durable(path: &Path) -> Result<(), FsError> {
    fs::remove_file(path).map_err(FsError::of("remove", path))?;
    fsync_dir(parent(path))
}

/// The directory that a path's entry is in.
pub fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => path,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn directories_are_made_with_their_mode_and_may_exist() {
        let base = tempfile::tempdir().unwrap();
        let deep = base.path().join("a/b/c");
        create_dir_all(&deep, 0o750).unwrap();
        create_dir_all(&deep, 0o750).unwrap();
        assert_eq!(fs::metadata(&deep).unwrap().permissions().mode() & 0o777, 0o750);
    }

    #[test]
    fn a_file_in_the_way_is_named() {
        let base = tempfile::tempdir().unwrap();
        let file = base.path().join("a");
        fs::write(&file, b"x").unwrap();
        assert!(create_dir_all(&file, 0o750).is_err());
        let error = create_dir_all(&file.join("b"), 0o750).unwrap_err();
        assert!(error.to_string().starts_with("cannot create directory"), "{error}");
    }

    #[test]
    fn all_files_below_are_synced() {
        let base = tempfile::tempdir().unwrap();
        create_dir_all(&base.path().join("a/b"), 0o750).unwrap();
        for name in ["one", "a/two", "a/b/three"] {
            fs::write(base.path().join(name), name).unwrap();
        }
        std::os::unix::fs::symlink("nowhere", base.path().join("a/link")).unwrap();
        assert_eq!(sync_files_below(base.path()).unwrap(), 6, "three files in three directories");
        assert_eq!(sync_files_below(&base.path().join("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(sync_file(&base.path().join("a/link")).is_err());
    }

    #[test]
    fn renames_across_directories() {
        let base = tempfile::tempdir().unwrap();
        let (from, to) = (base.path().join("x/f"), base.path().join("y/g"));
        create_dir_all(parent(&from), 0o700).unwrap();
        create_dir_all(parent(&to), 0o700).unwrap();
        create_durable(&from, b"bytes", 0o640).unwrap();
        durable_rename(&from, &to).unwrap();
        assert_eq!(fs::read(&to).unwrap(), b"bytes");
        assert_eq!(durable_rename(&from, &to).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_new_file_never_replaces_one() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("f");
        create_durable(&path, b"first", 0o600).unwrap();
        assert_eq!(create_durable(&path, b"second", 0o600).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"first");
        remove_durable(&path).unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn the_parent_of_a_bare_name_is_here() {
        assert_eq!(parent(Path::new("f")), Path::new("."));
        assert_eq!(parent(Path::new("/f")), Path::new("/"));
        assert_eq!(parent(Path::new("/")), Path::new("/"));
    }
}
