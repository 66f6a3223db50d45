//! Which of the keyring's keys a copy depends on: without them the restored server cannot open its files.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::FileExt;

use super::CaptureError;
use super::plan::CopyPlan;
use crate::innodb::redo::file::encryption_info;
use crate::innodb::space::SpaceHeader;

/// Names of the master keys that wrap the keys of `plan`'s encrypted tablespaces. Reads page 0 of each; only the backup
/// lock keeps rotations and drops away.
pub fn space_master_keys(plan: &CopyPlan) -> Result<BTreeSet<String>, CaptureError> {
    let mut names = BTreeSet::new();
    for space in plan.spaces.iter().filter(|space| space.flags.is_encrypted()) {
        let Some(piece) = space.pieces.first() else { continue };
        let path = piece.path.as_path();
        let mut page0 = vec![0; space.flags.physical_size().len()];
        let file = File::open(path).map_err(CaptureError::io("open", path))?;
        file.read_exact_at(&mut page0, 0).map_err(CaptureError::io("read page 0 of", path))?;
        let header = SpaceHeader::decode(&page0).map_err(CaptureError::format(path))?;
        names.extend(header.encryption.map(|info| info.master_key_name()));
    }
    Ok(names)
}

/// Name of the master key that wraps the key of the redo log whose `encryption_block` is given.
pub fn redo_master_key(encryption_block: &[u8]) -> Result<Option<String>, CaptureError> {
    let info = encryption_info(encryption_block).map_err(CaptureError::format("the redo log".as_ref()))?;
    Ok(info.map(|info| info.master_key_name()))
}
