//! The server's own recovery of a base and its redo, as it is before anything else is done: nothing rolled back, nothing
//! purged.
//!
//! The log is made to begin at the base's checkpoint: its file says so twice, all others say that they have none. The
//! server is killed as soon as it answers: by then recovery has written every page.

use std::path::Path;

use stillframe::innodb::lsn::Lsn;
use stillframe::innodb::redo::file::{RedoFileHeader, RedoFlags, encode_checkpoint, encryption_info};
use tempfile::TempDir;

use crate::case::{Crash, redo_files};
use crate::log::recovered_lsn;
use crate::support::server::scratch;

/// A directory that the server has recovered, and where it says that the log ended.
pub struct Recovered {
    pub dir: TempDir,
    pub end: Lsn,
}

impl Recovered {
    pub fn datadir(&self) -> std::path::PathBuf {
        self.dir.path().join("data")
    }
}

/// Recovers a crash with the server. `change` may damage the log before.
pub async fn recover(crash: &Crash, change: impl Fn(&Path)) -> Recovered {
    let dir = scratch();
    let datadir = with_redo(crash, dir.path());
    let redo = datadir.join("#innodb_redo");
    change(&redo);
    let mut server = crash
        .server
        .sibling()
        .default_places()
        // It would end transactions that are prepared.
        .log_bin(false)
        .on_datadir(&datadir)
        .option("innodb_force_recovery", 3)
        .option("innodb_buffer_pool_size", pool())
        .option("innodb_checksum_algorithm", "crc32")
        .create();
    server.start().await;
    let said = server.error_log().text;
    server.kill9();
    let end = recovered_lsn(&said).unwrap_or_else(|| panic!("the server recovered nothing:\n{said}"));
    // Kept, it would only take room.
    std::fs::remove_dir_all(&redo).unwrap();
    Recovered { dir, end }
}

/// A pool for a server that recovers. With the tests' usual 64 MiB, and with more work sooner, it may find no free page in
/// the midst of its own recovery, and wait for one for ever.
pub fn pool() -> String {
    format!("{}M", 256 * crate::scale())
}

/// Makes a directory of a base and its redo, as a server finds it that is to recover.
pub fn with_redo(crash: &Crash, dir: &Path) -> std::path::PathBuf {
    let datadir = dir.join("data");
    copy_tree(&crash.base(), &datadir);
    // Alone of all files the server does not extend this one by what redo says: it only looks whether it is as large.
    let length = |of: &Path| std::fs::metadata(of.join("ibdata1")).unwrap().len();
    if length(crash.server.datadir()) > length(&datadir) {
        let system = std::fs::File::options().write(true).open(datadir.join("ibdata1")).unwrap();
        system.set_len(length(crash.server.datadir())).unwrap();
    }
    let redo = datadir.join("#innodb_redo");
    std::fs::create_dir(&redo).unwrap();
    copy_redo(&crash.redo(), crash.log.checkpoint, &redo);
    datadir
}

pub fn copy_tree(from: &Path, to: &Path) {
    let mut command = std::process::Command::new("cp");
    let done = command.args(["-a", "--reflink=auto", "--sparse=auto"]).arg(from).arg(to).status().unwrap();
    assert!(done.success());
}

/// Copies a log that begins at `checkpoint`.
fn copy_redo(from: &Path, checkpoint: Lsn, to: &Path) {
    let files = redo_files(from);
    let wrapped = files.values().rev().find_map(|path| {
        let head = read_head(path);
        encryption_info(&head[1024..1536]).unwrap().map(|_| head[1024..1536].to_vec())
    });
    let first = *files.keys().rev().find(|start| **start <= checkpoint).expect("the checkpoint's file is there");
    let newest = *files.keys().next_back().unwrap();
    for (start, path) in files.range(first..) {
        let mut bytes = std::fs::read(path).unwrap();
        let lsn = if *start == first { checkpoint } else { Lsn::ZERO };
        for at in [512, 1536] {
            bytes[at..at + 512].copy_from_slice(&encode_checkpoint(lsn));
        }
        if let (true, Some(wrapped)) = (*start == first, &wrapped) {
            bytes[1024..1536].copy_from_slice(wrapped);
        }
        let mut header = RedoFileHeader::decode(&bytes).unwrap();
        header.flags = RedoFlags(if *start == newest { 0 } else { RedoFlags::FILE_FULL });
        bytes[..512].copy_from_slice(&header.encode());
        std::fs::write(to.join(path.file_name().unwrap()), bytes).unwrap();
    }
}

fn read_head(path: &Path) -> Vec<u8> {
    let mut head = vec![0; 2048];
    std::io::Read::read_exact(&mut std::fs::File::open(path).unwrap(), &mut head).unwrap();
    head
}
