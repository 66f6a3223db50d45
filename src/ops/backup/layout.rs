//! From the server's settings to the places the copy reads.
//!
//! ```text
//!   innodb_data_file_path = ibdata1:12M;/ssd/ibdata2:50M:autoextend      innodb_data_home_dir = /data | unset
//!                           └ relative to the home ┘└ absolute when the home is set but empty ┘
//!   --datadir replaces @@datadir as the prefix of every path below it (another mount of the same volume).
//!   ../undo = beside the data directory: what a backup stores names each place in one way, without `..`
//! ```

use std::path::{Component, Path, PathBuf};

use crate::capture::{SourceLayout, SystemFile};
use crate::mysql::ServerInfo;
use crate::ops::error::{Error, ErrorKind};
use crate::util::units::parse_bytes;

/// Where the files of the server `info` are, seen from here; `datadir` overrides what the server says.
pub fn source_layout(info: &ServerInfo, datadir: Option<&Path>) -> Result<SourceLayout, Error> {
    let mount = Mount::new(&info.datadir, datadir);
    let home = Path::new(info.innodb_data_home_dir.as_deref().unwrap_or("./"));
    let directories = split_list(info.innodb_directories.as_deref().unwrap_or_default());
    Ok(SourceLayout {
        system_files: system_files(&info.innodb_data_file_path, |name| mount.resolve(home.join(name)))?,
        data_home: mount.resolve(home),
        undo_dir: mount.resolve(info.innodb_undo_directory.as_deref().unwrap_or("./")),
        directories: directories.map(|text| mount.resolve(text)).collect(),
        redo_dir: mount.resolve(info.innodb_log_group_home_dir.as_deref().unwrap_or("./")).join("#innodb_redo"),
        page_size: info.page_size,
        datadir: mount.datadir,
    })
}

/// The server's data directory, and where it is seen from here.
#[derive(Debug)]
pub struct Mount {
    server: PathBuf,
    datadir: PathBuf,
}

impl Mount {
    /// Pairs the server's `datadir` with the place it is mounted here, the same where nothing else is said.
    pub fn new(server: &Path, here: Option<&Path>) -> Self {
        Self { server: without_parents(server), datadir: here.unwrap_or(server).to_path_buf() }
    }

    /// The path `text` of a server's setting, seen from here: relative ones start at the data directory.
    pub fn resolve(&self, text: impl AsRef<Path>) -> PathBuf {
        let path = text.as_ref();
        let joined = if path.is_absolute() { path.to_path_buf() } else { self.server.join(path) };
        let clean = without_parents(&joined);
        match clean.strip_prefix(&self.server) {
            Ok(below) => self.datadir.join(below).components().collect(),
            Err(_) => clean,
        }
    }
}

/// The same place, of an absolute path, without `..`.
fn without_parents(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for part in path.components() {
        if part != Component::ParentDir {
            clean.push(part);
            continue;
        }
        // Above a link is what is above the place that it leads to.
        if clean.is_symlink()
            && let Ok(place) = clean.canonicalize()
        {
            clean = place;
        }
        let _ = clean.pop();
    }
    clean
}

fn split_list(text: &str) -> impl Iterator<Item = &str> {
    text.split(';').map(str::trim).filter(|part| !part.is_empty())
}

/// Reads `innodb_data_file_path`: `name:size[:autoextend[:max:size]]`, joined by semicolons.
fn system_files(setting: &str, place: impl Fn(&str) -> PathBuf) -> Result<Vec<SystemFile>, Error> {
    let bad = |part: &str| {
        let message = format!("cannot read innodb_data_file_path {setting:?}: {part:?} is not name:size[:autoextend]");
        Error::new(ErrorKind::UnsupportedServer, message)
    };
    let mut files = Vec::new();
    for part in split_list(setting) {
        let mut fields = part.split(':');
        let (Some(name), Some(size)) = (fields.next(), fields.next()) else { return Err(bad(part)) };
        if size.ends_with("raw") || size.ends_with("new") || fields.clone().any(|word| word.ends_with("raw")) {
            let message = format!("the system tablespace {part:?} is a raw device, which cannot be backed up");
            return Err(Error::new(ErrorKind::UnsupportedServer, message));
        }
        let _ = parse_bytes(size).map_err(|_| bad(part))?;
        files.push(SystemFile { path: place(name) });
    }
    if files.is_empty() { Err(bad(setting)) } else { Ok(files) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_system_files_in_their_order() {
        let home = |name: &str| Path::new("/data").join(name);
        let files = system_files("ibdata1:12M;/ssd/ibdata2:50M:autoextend:max:2G", home).unwrap();
        assert_eq!(files.len(), 2);
        assert_eq!(files[0].path, Path::new("/data/ibdata1"));
        assert_eq!(files[1].path, Path::new("/ssd/ibdata2"));
    }

    #[test]
    fn what_cannot_be_read_is_refused_by_name() {
        for bad in ["", "ibdata1", "ibdata1:many", "/dev/sdb1:3Gnewraw"] {
            let error = system_files(bad, |name| Path::new("/data").join(name)).unwrap_err();
            assert_eq!(error.kind, ErrorKind::UnsupportedServer, "{bad}");
        }
    }

    #[test]
    fn another_mount_moves_what_is_below_the_data_directory_only() {
        let mount = Mount::new(Path::new("/var/lib/mysql/"), Some(Path::new("/mnt/db")));
        assert_eq!(mount.resolve("./"), Path::new("/mnt/db"));
        assert_eq!(mount.resolve("./undo"), Path::new("/mnt/db/undo"));
        assert_eq!(mount.resolve("/var/lib/mysql/redo"), Path::new("/mnt/db/redo"));
        assert_eq!(mount.resolve("/ssd/undo"), Path::new("/ssd/undo"));
    }

    #[test]
    fn a_place_is_named_in_one_way_only() {
        let mount = Mount::new(Path::new("/var/lib/mysql/"), Some(Path::new("/mnt/db")));
        assert_eq!(mount.resolve("../undo/./undo_001"), Path::new("/var/lib/undo/undo_001"));
        assert_eq!(mount.resolve("/ssd/../var/lib/mysql/undo"), Path::new("/mnt/db/undo"));
        assert_eq!(mount.resolve("/../../etc"), Path::new("/etc"));
        let files = system_files("../system/ibdata1:12M", |name| mount.resolve(name)).unwrap();
        assert_eq!(files[0].path, Path::new("/var/lib/system/ibdata1"));
        let mount = Mount::new(Path::new("/ssd/../data/"), Some(Path::new("../mnt")));
        assert_eq!(mount.resolve("/data/undo"), Path::new("../mnt/undo"), "another mount is the user's to name");
    }

    #[test]
    fn above_a_link_is_what_is_above_the_place_that_it_leads_to() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        std::fs::create_dir_all(base.join("disk/data")).unwrap();
        std::os::unix::fs::symlink("disk/data", base.join("mysql")).unwrap();
        let server = base.join("mysql");
        assert_eq!(Mount::new(&server, None).resolve("../undo"), base.join("disk/undo"));
        assert_eq!(Mount::new(&server, None).resolve("undo"), server.join("undo"));
    }
}
