//! Redo files: headers, checkpoints, and the blocks from an LSN on.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::file::{EncryptionLine, Opened, format, local, unwrap};
use crate::innodb::keyring::Keyring;
use crate::innodb::lsn::{LOG_BLOCK_SIZE, Lsn};
use crate::innodb::redo::block::{BLOCK_LEN, BlockRead, decode_block};
use crate::innodb::redo::file::{
    CHECKPOINT_OFFSETS, ENCRYPTION_OFFSET, HEADER_BLOCK_SIZE, REDO_HEADER_SIZE, RedoFileHeader, RedoFlags,
    decode_checkpoint, encryption_info, file_number, file_offset,
};
use crate::innodb::space::TablespaceKey;
use crate::ops::error::{Error, ErrorKind};
use crate::ops::keyring;

/// The directory that a server keeps its redo files in.
const REDO_DIR: &str = "#innodb_redo";

/// What redo files hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RedoInspection {
    /// What was looked at.
    pub path: PathBuf,
    /// The files, in the order of their LSNs.
    pub files: Vec<RedoFileLine>,
    /// The newest checkpoint that lies in its own file: where recovery would start.
    pub checkpoint: Option<Lsn>,
    /// Blocks, when they were asked for.
    pub blocks: Vec<BlockLine>,
}

/// One redo file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RedoFileLine {
    /// Its name.
    pub name: String,
    /// Its size with header.
    pub bytes: u64,
    /// The number that all files of a log share.
    pub log_uuid: u32,
    /// Who wrote it.
    pub creator: String,
    /// LSN of its first block.
    pub start: Lsn,
    /// LSN behind its last block.
    pub end: Lsn,
    /// Its flags by name.
    pub flags: Vec<&'static str>,
    /// Its two checkpoint blocks.
    pub checkpoints: Vec<CheckpointSlot>,
    /// The log's wrapped key, where the log is or was encrypted.
    pub encryption: Option<EncryptionLine>,
}

/// One of the two places for a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CheckpointSlot {
    /// Where in the file.
    pub offset: u64,
    /// The checkpoint, where there is one.
    pub lsn: Option<Lsn>,
    /// It lies in this file, so it counts.
    pub valid: bool,
    /// Why it cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// One block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BlockLine {
    /// LSN of its first byte.
    pub lsn: Lsn,
    /// The file that it is in.
    pub file: String,
    /// What stands there.
    #[serde(flatten)]
    pub state: BlockState,
}

/// What stands at a block's place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum BlockState {
    /// The block.
    Valid {
        /// Bytes used, 512 when full.
        data_bytes: u16,
        /// Where the first group of records begins; 0 for none.
        first_group: u16,
        /// Its payload is encrypted.
        encrypted: bool,
        /// Its checksum was compared: not so when encrypted and without key.
        checked: bool,
    },
    /// Not written yet: the log ends here.
    NotWritten,
    /// A later block: this one is gone.
    Overwritten {
        /// LSN of the later one.
        found: Lsn,
    },
    /// Neither.
    Bad {
        /// Why.
        why: String,
    },
}

/// Looks at a file or at a directory of them.
pub(super) fn inspect(
    path: &Path,
    from: Option<Lsn>,
    limit: u32,
    keyring_file: Option<&Path>,
) -> Result<RedoInspection, Error> {
    let keyring = keyring::read_if_named(keyring_file)?;
    let paths = redo_files(path)?;
    let mut logs = paths.iter().map(|path| Log::read(path, keyring.as_ref())).collect::<Result<Vec<_>, _>>()?;
    logs.sort_by_key(|log| log.line.start);
    let slots = logs.iter().flat_map(|log| &log.line.checkpoints);
    let checkpoint = slots.filter(|slot| slot.valid).filter_map(|slot| slot.lsn).max();
    let blocks = match from {
        Some(from) => read_blocks(&logs, from, limit)?,
        None => Vec::new(),
    };
    Ok(RedoInspection {
        path: path.to_path_buf(),
        checkpoint,
        blocks,
        files: logs.into_iter().map(|log| log.line).collect(),
    })
}

/// The redo files that `path` means: itself, those in it, or those in the redo directory of a data directory.
fn redo_files(path: &Path) -> Result<Vec<PathBuf>, Error> {
    if !path.is_dir() {
        return Ok(vec![path.to_path_buf()]);
    }
    let inner = path.join(REDO_DIR);
    let dir = if inner.is_dir() { inner } else { path.to_path_buf() };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(&dir).map_err(local("list", &dir))? {
        let entry = entry.map_err(local("list", &dir))?;
        if entry.file_name().to_str().and_then(file_number).is_some() {
            files.push(entry.path());
        }
    }
    if files.is_empty() {
        let message = format!("there are no redo files (#ib_redo0, ...) in {}", dir.display());
        return Err(Error::new(ErrorKind::LocalIo, message));
    }
    Ok(files)
}

/// A redo file that was opened.
struct Log<'p> {
    file: Opened<'p>,
    line: RedoFileLine,
    key: Option<TablespaceKey>,
}

impl<'p> Log<'p> {
    fn read(path: &'p Path, keyring: Option<&Keyring>) -> Result<Self, Error> {
        let file = Opened::open(path)?;
        let header = RedoFileHeader::decode(&file.read(0, HEADER_BLOCK_SIZE)?).map_err(format(path))?;
        let info = encryption_info(&file.read(ENCRYPTION_OFFSET, HEADER_BLOCK_SIZE)?).map_err(format(path))?;
        let (encryption, key) = unwrap(info.as_ref(), keyring);
        let end = header.start_lsn.checked_add(file.bytes.saturating_sub(REDO_HEADER_SIZE)).unwrap_or(header.start_lsn);
        let mut checkpoints = Vec::new();
        for offset in CHECKPOINT_OFFSETS {
            checkpoints.push(checkpoint(&file.read(offset, HEADER_BLOCK_SIZE)?, offset, header.start_lsn, end));
        }
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        let line = RedoFileLine {
            name,
            bytes: file.bytes,
            log_uuid: header.log_uuid,
            creator: header.creator,
            start: header.start_lsn,
            end,
            flags: flag_names(header.flags),
            checkpoints,
            encryption,
        };
        Ok(Self { file, line, key })
    }

    fn holds(&self, lsn: Lsn) -> bool {
        (self.line.start..self.line.end).contains(&lsn)
    }

    fn block(&self, lsn: Lsn) -> Result<BlockState, Error> {
        let offset = file_offset(self.line.start, lsn).unwrap_or(u64::MAX);
        let raw = self.file.read(offset, BLOCK_LEN)?;
        Ok(match decode_block(&raw, lsn, self.key.as_ref()) {
            Ok(BlockRead::Valid(block)) => BlockState::Valid {
                data_bytes: block.data_len,
                first_group: block.first_rec_group,
                encrypted: block.encrypted,
                checked: block.checked,
            },
            Ok(BlockRead::NotWritten) => BlockState::NotWritten,
            Ok(BlockRead::Overwritten { found }) => BlockState::Overwritten { found },
            Err(error) => BlockState::Bad { why: error.to_string() },
        })
    }
}

fn checkpoint(block: &[u8], offset: u64, start: Lsn, end: Lsn) -> CheckpointSlot {
    match decode_checkpoint(block) {
        Ok(lsn) => {
            let valid = lsn.is_some_and(|lsn| lsn >= start && lsn < end);
            CheckpointSlot { offset, lsn, valid, problem: None }
        }
        Err(error) => CheckpointSlot { offset, lsn: None, valid: false, problem: Some(error.to_string()) },
    }
}

fn flag_names(flags: RedoFlags) -> Vec<&'static str> {
    let names = [
        (RedoFlags::NO_LOGGING, "noLogging"),
        (RedoFlags::CRASH_UNSAFE, "crashUnsafe"),
        (RedoFlags::NOT_INITIALIZED, "notInitialized"),
        (RedoFlags::FILE_FULL, "full"),
    ];
    names.into_iter().filter(|(bit, _)| flags.0 & bit != 0).map(|(_, name)| name).collect()
}

/// Blocks from the one that `from` is in, across files, until the log ends or `limit` is reached.
fn read_blocks(logs: &[Log<'_>], from: Lsn, limit: u32) -> Result<Vec<BlockLine>, Error> {
    let mut lines = Vec::new();
    let mut at = from.block_start();
    for _ in 0..limit {
        let Some(log) = logs.iter().find(|log| log.holds(at)) else { break };
        let state = log.block(at)?;
        let goes_on = matches!(state, BlockState::Valid { data_bytes: 512, .. } | BlockState::Bad { .. });
        lines.push(BlockLine { lsn: at, file: log.line.name.clone(), state });
        match at.checked_add(LOG_BLOCK_SIZE) {
            Some(next) if goes_on => at = next,
            _ => break,
        }
    }
    if lines.is_empty() && limit > 0 {
        let message = match (logs.first(), logs.last()) {
            (Some(first), Some(last)) => {
                format!("LSN {from} is in none of the files: they hold LSN {} to {}", first.line.start, last.line.end)
            }
            _ => format!("LSN {from} is in none of the files"),
        };
        return Err(Error::new(ErrorKind::Usage, message).advise("choose an LSN in that range"));
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::innodb::redo::block::empty_block;
    use crate::innodb::redo::file::encode_checkpoint;

    const START: u64 = 8192;

    fn redo_file(start: u64, flags: u32, checkpoint: u64, blocks: &[[u8; BLOCK_LEN]], room: usize) -> Vec<u8> {
        let header = RedoFileHeader {
            log_uuid: 7,
            start_lsn: Lsn::new(start),
            creator: "MySQL 9.7.4".into(),
            flags: RedoFlags(flags),
        };
        let mut file = header.encode().to_vec();
        file.extend_from_slice(&encode_checkpoint(Lsn::new(checkpoint)));
        file.extend_from_slice(&[0; HEADER_BLOCK_SIZE]);
        file.extend_from_slice(&[9; HEADER_BLOCK_SIZE]);
        for block in blocks {
            file.extend_from_slice(block);
        }
        file.resize(file.len() + room * BLOCK_LEN, 0);
        file
    }

    #[test]
    fn a_log_is_shown_across_its_files() {
        let dir = tempfile::tempdir().unwrap();
        let redo = dir.path().join(REDO_DIR);
        fs::create_dir(&redo).unwrap();
        let block = empty_block(Lsn::new(START + 40)).unwrap();
        fs::write(redo.join("#ib_redo1"), redo_file(START + 1024, 0, 0, &[], 2)).unwrap();
        fs::write(redo.join("#ib_redo0"), redo_file(START, 8, START + 12, &[block], 1)).unwrap();
        fs::write(redo.join("#ib_redo2_tmp"), b"garbage").unwrap();

        let report = inspect(dir.path(), Some(Lsn::new(START + 30)), 10, None).unwrap();
        let names: Vec<&str> = report.files.iter().map(|file| file.name.as_str()).collect();
        assert_eq!(names, ["#ib_redo0", "#ib_redo1"], "by LSN, spare files left out");
        assert_eq!(report.checkpoint, Some(Lsn::new(START + 12)));
        assert_eq!((report.files[0].end, report.files[0].flags.clone()), (Lsn::new(START + 1024), vec!["full"]));
        let slots = &report.files[0].checkpoints;
        assert!(slots[0].valid && slots[0].problem.is_none());
        assert!(!slots[1].valid && slots[1].problem.is_some(), "a torn one is shown");
        assert_eq!(report.blocks.len(), 1, "a block that is not full is the last");
        let wanted = BlockState::Valid { data_bytes: 40, first_group: 40, encrypted: false, checked: true };
        assert_eq!(report.blocks[0].state, wanted);

        let next = inspect(&redo, Some(Lsn::new(START + 1024)), 10, None).unwrap();
        assert_eq!(next.blocks[0].state, BlockState::NotWritten);
        assert_eq!(next.blocks[0].file, "#ib_redo1");
        let error = inspect(&redo, Some(Lsn::new(START + 4096)), 10, None).unwrap_err();
        assert!(error.message.contains("they hold LSN 8192 to 10240"), "{error}");
    }

    #[test]
    fn what_is_no_redo_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(inspect(dir.path(), None, 1, None).unwrap_err().kind, ErrorKind::LocalIo);
        let path = dir.path().join("f");
        assert_eq!(inspect(&path, None, 1, None).unwrap_err().kind, ErrorKind::LocalIo);
        fs::write(&path, b"short").unwrap();
        let error = inspect(&path, None, 1, None).unwrap_err();
        assert_eq!(error.kind, ErrorKind::UnsupportedFormat);
        assert!(error.message.contains(&path.display().to_string()), "{error}");
    }

    #[test]
    fn the_json_has_states_by_name() {
        let line = BlockLine {
            lsn: Lsn::new(u64::MAX),
            file: "#ib_redo0".into(),
            state: BlockState::Overwritten { found: Lsn::new(9) },
        };
        let json = serde_json::to_value(line).unwrap();
        assert_eq!((json["state"].as_str(), json["found"].as_str()), (Some("overwritten"), Some("9")));
        assert_eq!(json["lsn"], u64::MAX.to_string());
    }
}
