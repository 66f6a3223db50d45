//! The small files around the pages: the binlog's index and the isolation of the new server.

use std::fs::File;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::archive::filetable::{FileTable, StoredFileKind};
use crate::archive::manifest::Manifest;
use crate::ops::error::Error;
use crate::util::clock;

use super::isolation;
use super::placement::Layout;
use super::target::{FILE_MODE, Target, io_error};

/// Writes the index that lists the one binlog of the backup, under the name that the source used for it.
///
/// Without an index the server would begin with a new binlog and not look into the one that recovery needs.
pub fn write_binlog_index(
    target: &Target,
    table: &FileTable,
    layout: &Layout,
    manifest: &Manifest,
) -> Result<(), Error> {
    let Some(binlog) = binlog(table, layout) else { return Ok(()) };
    let directory = binlog.parent().unwrap_or(target.datadir());
    let path = index_path(manifest, binlog);
    let name = binlog.file_name().unwrap_or_default().as_bytes();
    // The server reads a relative name as one below its data directory.
    let mut line =
        if directory == target.datadir() { [b"./", name].concat() } else { binlog.as_os_str().as_bytes().to_vec() };
    line.push(b'\n');
    write(target, &path, &line)
}

/// Where the binlog of the backup goes, if there is one.
pub fn binlog<'l>(table: &FileTable, layout: &'l Layout) -> Option<&'l Path> {
    let entry = table.files.iter().find(|file| file.kind == StoredFileKind::BinlogTail)?;
    layout.file(entry.number)
}

/// Where its index goes: beside it, under the name that the source used, else what the server makes of the binlog's.
pub fn index_path(manifest: &Manifest, binlog: &Path) -> PathBuf {
    let default = binlog.with_extension("index");
    let setting = manifest.server.settings.get("log_bin_index").map(Path::new).and_then(Path::file_name);
    setting.map_or_else(|| default.clone(), |name| default.with_file_name(name))
}

/// Writes the settings that keep the restored server to itself.
pub fn write_isolation(target: &Target) -> Result<(), Error> {
    let micros = u64::try_from(clock::now().as_microsecond()).unwrap_or(0);
    write(target, &isolation::path(target.datadir()), &isolation::content(micros))
}

/// Writes a new file: one that is there is somebody else's.
fn write(target: &Target, path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let mut options = File::options();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(FILE_MODE)
        .open(path)
        .map_err(|error| io_error("create", path, error))?;
    file.write_all(bytes).map_err(|error| io_error("write", path, error))?;
    target.give(path)
}
