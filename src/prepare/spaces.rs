//! Tablespaces as redo leaves them: which are there, how large they become, whether they are encrypted and how.
//!
//! ```text
//!   copied spaces (id, flags, pages) ─┐
//!   FILE_EXTEND, FSP_SIZE ────────────┼─► pages: the most that anyone says; never fewer than were copied
//!   flags, encryption info on page 0 ─┼─► encrypted at the end, and every key that a page may have been written with
//!   FILE_DELETE ──────────────────────┘   names of deleted spaces; one that is missing otherwise is an error
//! ```
//! Rules: redo-records reference, sections 9.1 to 9.4. Files are not made, renamed or removed by redo: the copy has the
//! names of its end.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::PrepareError;
use super::scan::redo_error;
use crate::innodb::FormatError;
use crate::innodb::ids::{PageId, PageNo, SpaceId};
use crate::innodb::keyring::Keyring;
use crate::innodb::lsn::Lsn;
use crate::innodb::redo::body::Body;
use crate::innodb::redo::{RecordKind, RedoRecord};
use crate::innodb::space::encryption::ENCRYPTION_INFO_SIZE;
use crate::innodb::space::header::{
    FSP_FLAGS, FSP_SIZE, SpaceHeader, encryption_change_offset, encryption_offset, is_being_decrypted,
};
use crate::innodb::space::{EncryptionInfo, TablespaceFlags, TablespaceKey};

/// A tablespace as it was copied.
#[derive(Debug, Clone, Copy)]
pub struct CopiedSpace {
    /// Its id.
    pub space: SpaceId,
    /// Its flags.
    pub flags: TablespaceFlags,
    /// Its size.
    pub pages: u32,
    /// First page of its last file: the one that is extended.
    pub last_file: PageNo,
}

/// How pages of a tablespace are opened and closed.
#[derive(Debug, Clone, Default)]
pub(super) struct Seal {
    /// Keys that they may be encrypted with, the newest last.
    pub keys: Vec<TablespaceKey>,
    /// Those that are written are encrypted, with the newest key.
    pub encrypts: bool,
}

/// A tablespace as it will be.
#[derive(Debug, Clone)]
pub struct Space {
    copied: CopiedSpace,
    /// Its size when all redo is applied.
    pub pages: u32,
    /// Its flags at the end say that it is encrypted.
    encrypted: bool,
    /// Whether it is being decrypted at the end, where redo tells.
    being_decrypted: Option<bool>,
    /// The last page that redo changes, with the LSN of the first record beyond the copied size.
    last_changed: Option<PageNo>,
    /// Redo changed whether or how it is encrypted.
    encryption_changed: bool,
    keys: Vec<TablespaceKey>,
}

impl Space {
    pub(super) fn new(copied: CopiedSpace) -> Self {
        let encrypted = copied.flags.is_encrypted();
        let (pages, keys) = (copied.pages, Vec::new());
        Self { copied, pages, encrypted, being_decrypted: None, last_changed: None, encryption_changed: false, keys }
    }

    /// Its id.
    pub const fn id(&self) -> SpaceId {
        self.copied.space
    }

    /// Its flags as they were copied; sizes of pages never change.
    pub const fn flags(&self) -> TablespaceFlags {
        self.copied.flags
    }

    /// Its size as it was copied.
    pub const fn copied_pages(&self) -> u32 {
        self.copied.pages
    }

    /// Redo has changes of it.
    pub const fn is_changed(&self) -> bool {
        self.last_changed.is_some()
    }

    /// How its pages are opened and closed, given page 0 as it was copied.
    pub(super) fn seal(&self, copied: &SpaceHeader, keyring: &Keyring) -> Result<Seal, FormatError> {
        let key = copied.encryption.as_ref().map(|info| info.unwrap_key(keyring)).transpose()?;
        let mut keys: Vec<_> = key.into_iter().filter(|key| !self.keys.contains(key)).collect();
        keys.extend(self.keys.iter().cloned());
        let being_decrypted = self.being_decrypted.unwrap_or(copied.being_decrypted);
        Ok(Seal { keys, encrypts: self.encrypted && !being_decrypted })
    }

    /// Some of its pages may be encrypted: the key on its page 0 is needed.
    pub const fn may_be_encrypted(&self) -> bool {
        self.copied.flags.is_encrypted() || self.encrypted || self.encryption_changed
    }

    /// Learns from a record of page 0; gives the encryption info that it has, if any.
    fn note_page0(&mut self, record: &RedoRecord<'_>) -> Result<Option<EncryptionInfo>, FormatError> {
        match record.kind {
            RecordKind::Write4 => {
                let Body::WriteNumber(write) = record.body()? else { return Ok(None) };
                let value = u32::try_from(write.value).unwrap_or(u32::MAX);
                match usize::from(write.offset) {
                    FSP_SIZE => self.pages = self.pages.max(value),
                    FSP_FLAGS => {
                        self.encrypted = TablespaceFlags::decode(value)?.is_encrypted();
                        self.encryption_changed = true;
                    }
                    _ => {}
                }
                Ok(None)
            }
            RecordKind::Write1 => {
                let Body::WriteNumber(write) = record.body()? else { return Ok(None) };
                if usize::from(write.offset) == encryption_change_offset(self.copied.flags)? {
                    self.being_decrypted = Some(u8::try_from(write.value).is_ok_and(is_being_decrypted));
                }
                Ok(None)
            }
            RecordKind::WriteString => {
                let Body::WriteString(write) = record.body()? else { return Ok(None) };
                let is_info = usize::from(write.offset) == encryption_offset(self.copied.flags)?
                    && write.bytes.0.len() >= ENCRYPTION_INFO_SIZE;
                if is_info { EncryptionInfo::decode(write.bytes.0) } else { Ok(None) }
            }
            _ => Ok(None),
        }
    }

    /// Takes a key that redo has brought.
    fn add_key(&mut self, key: TablespaceKey) {
        self.keys.retain(|known| *known != key);
        self.keys.push(key);
        self.encryption_changed = true;
    }

    /// Learns from a record of this tablespace what it says of its size.
    pub(super) fn note_size(&mut self, record: &RedoRecord<'_>) -> Result<(), FormatError> {
        if record.kind == RecordKind::FileExtend {
            if let Body::FileExtend(extend) = record.body()? {
                self.note_extension(extend.offset.saturating_add(extend.bytes));
            }
        } else if record.kind == RecordKind::Write4 && record.page.is_some_and(|page| page.page == PageNo(0)) {
            let _ = self.note_page0(record)?;
        }
        Ok(())
    }

    /// Its last file was extended by zeros up to here.
    fn note_extension(&mut self, end_bytes: u64) {
        let page = u64::from(self.copied.flags.physical_size().bytes());
        let pages = end_bytes.checked_div(page).unwrap_or(0).saturating_add(u64::from(self.copied.last_file.0));
        self.pages = self.pages.max(u32::try_from(pages).unwrap_or(u32::MAX));
    }
}

/// What a log says of tablespaces, while it is read.
#[derive(Debug)]
pub(super) struct SpaceScan {
    spaces: Vec<Space>,
    /// Where each is among them.
    places: HashMap<SpaceId, usize>,
    /// The place of the one that was asked for last: the next record is likely of it, too.
    last: usize,
    deleted: HashSet<SpaceId>,
    missing: BTreeMap<SpaceId, (Lsn, RecordKind)>,
}

impl SpaceScan {
    pub fn new(copied: impl IntoIterator<Item = CopiedSpace>) -> Self {
        let spaces: Vec<Space> = copied.into_iter().map(Space::new).collect();
        let places = spaces.iter().zip(0..).map(|(space, place)| (space.id(), place)).collect();
        Self { spaces, places, last: 0, deleted: HashSet::new(), missing: BTreeMap::new() }
    }

    fn get_mut(&mut self, id: SpaceId) -> Option<&mut Space> {
        if self.spaces.get(self.last).is_none_or(|last| last.id() != id) {
            self.last = *self.places.get(&id)?;
        }
        self.spaces.get_mut(self.last)
    }

    /// Takes in a record that changes a page, and says whether that is a page of the copy.
    pub fn note_change(
        &mut self,
        page: PageId,
        record: &RedoRecord<'_>,
        keyring: Option<&Keyring>,
    ) -> Result<bool, PrepareError> {
        let Some(space) = self.get_mut(page.space) else {
            let _ = self.missing.entry(page.space).or_insert((record.lsn, record.kind));
            return Ok(false);
        };
        space.last_changed = space.last_changed.max(Some(page.page));
        if page.page == PageNo(0) {
            let info = space.note_page0(record).map_err(|source| redo_error(record, source))?;
            if let Some(info) = info {
                let (none, failed) = (Keyring::default(), |source| PrepareError::Key { space: page.space, source });
                space.add_key(info.unwrap_key(keyring.unwrap_or(&none)).map_err(failed)?);
            }
        }
        Ok(true)
    }

    /// Takes in a record about a file.
    pub fn note_file(&mut self, page: PageId, record: &RedoRecord<'_>) -> Result<(), PrepareError> {
        let body = record.body().map_err(|source| redo_error(record, source))?;
        match body {
            Body::FileDelete(_) if self.get_mut(page.space).is_some() => {
                Err(PrepareError::Deleted { space: page.space, lsn: record.lsn })
            }
            Body::FileDelete(_) => {
                let _ = self.deleted.insert(page.space);
                Ok(())
            }
            Body::FileExtend(extend) => {
                if let Some(space) = self.get_mut(page.space) {
                    space.note_extension(extend.offset.saturating_add(extend.bytes));
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// All tablespaces; an error where one is missing, or too small for what redo does to it.
    pub fn finish(self) -> Result<HashMap<SpaceId, Space>, PrepareError> {
        let newest_undo = self.newest_undo();
        for (&space, &(lsn, kind)) in &self.missing {
            // An undo tablespace that was truncated has a smaller id since, and nothing of the old one counts.
            let was_truncated =
                space.undo_number().and_then(|number| newest_undo.get(&number)).is_some_and(|newest| *newest < space);
            if !was_truncated && !self.deleted.contains(&space) {
                return Err(PrepareError::MissingSpace { space, lsn, kind });
            }
        }
        for space in &self.spaces {
            if let Some(page) = space.last_changed.filter(|page| page.0 >= space.pages) {
                let page = PageId { space: space.id(), page };
                return Err(PrepareError::BehindEnd { page, pages: space.pages });
            }
        }
        Ok(self.spaces.into_iter().map(|space| (space.id(), space)).collect())
    }

    /// The id of each undo tablespace that the copy has, by number.
    fn newest_undo(&self) -> HashMap<u32, SpaceId> {
        self.places.keys().filter_map(|space| Some((space.undo_number()?, *space))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LSN: Lsn = Lsn::new(9000);

    fn copied(space: u32, pages: u32) -> CopiedSpace {
        let flags = TablespaceFlags::decode(0x4021).unwrap();
        CopiedSpace { space: SpaceId(space), flags, pages, last_file: PageNo(0) }
    }

    fn change(scan: &mut SpaceScan, bytes: &[u8]) -> Result<bool, PrepareError> {
        let record = RedoRecord::decode(bytes, LSN).unwrap();
        let page = record.page.unwrap();
        if record.kind.is_file_operation() {
            return scan.note_file(page, &record).map(|()| false);
        }
        scan.note_change(page, &record, None)
    }

    #[test]
    fn the_largest_size_counts() {
        let mut scan = SpaceScan::new([copied(5, 7), copied(6, 7), copied(7, 7)]);
        // FSP_SIZE of space 5, an extension of space 6 by 64 KiB at 112 KiB, a smaller FSP_SIZE of space 7.
        assert!(change(&mut scan, &[4, 5, 0, 0, 46, 9]).unwrap());
        change(&mut scan, &[65, 6, 0, 0, 0, 0, 0, 0, 1, 0xC0, 0, 0, 0, 0, 0, 0, 1, 0, 0]).unwrap();
        change(&mut scan, &[4, 7, 0, 0, 46, 3]).unwrap();
        change(&mut scan, &[1, 5, 8, 0, 100, 1]).unwrap();
        let spaces = scan.finish().unwrap();
        let pages = |id| spaces[&SpaceId(id)].pages;
        assert_eq!((pages(5), pages(6), pages(7)), (9, 11, 7));
        assert!(spaces[&SpaceId(5)].is_changed() && !spaces[&SpaceId(6)].is_changed());
    }

    #[test]
    fn pages_behind_the_end_are_refused() {
        let mut scan = SpaceScan::new([copied(5, 7)]);
        change(&mut scan, &[1, 5, 7, 0, 100, 1]).unwrap();
        assert!(matches!(scan.finish(), Err(PrepareError::BehindEnd { pages: 7, .. })));
    }

    #[test]
    fn unknown_spaces_must_have_been_deleted() {
        let mut scan = SpaceScan::new([copied(5, 7)]);
        assert!(!change(&mut scan, &[1, 9, 3, 0, 100, 1]).unwrap());
        change(&mut scan, b"\x23\x09\x00\x00\x0A./d/t.ibd\x00").unwrap();
        scan.finish().unwrap();

        let mut scan = SpaceScan::new([copied(5, 7)]);
        change(&mut scan, &[1, 9, 3, 0, 100, 1]).unwrap();
        let error = scan.finish().unwrap_err();
        assert!(error.to_string().contains("LSN 9000 (MLOG_1BYTE) changes space 9"), "{error}");

        let mut scan = SpaceScan::new([copied(5, 7)]);
        let error = change(&mut scan, b"\x23\x05\x00\x00\x0A./d/t.ibd\x00").unwrap_err();
        assert!(matches!(error, PrepareError::Deleted { space: SpaceId(5), .. }));
    }

    #[test]
    fn undo_tablespaces_may_have_been_truncated_before_but_not_after() {
        // 4294967150 is what 4294967277 became.
        let old = [1, 0xFB, 0xED, 3, 0, 100, 1];
        let new = [1, 0xFB, 0x6E, 3, 0, 100, 1];
        let mut scan = SpaceScan::new([copied(4_294_967_150, 7)]);
        assert!(!change(&mut scan, &old).unwrap());
        assert!(change(&mut scan, &new).unwrap());
        scan.finish().unwrap();

        let mut scan = SpaceScan::new([copied(4_294_967_277, 7)]);
        change(&mut scan, &new).unwrap();
        assert!(matches!(scan.finish(), Err(PrepareError::MissingSpace { .. })));
        let mut scan = SpaceScan::new([copied(4_294_967_276, 7)]);
        change(&mut scan, &old).unwrap();
        assert!(matches!(scan.finish(), Err(PrepareError::MissingSpace { .. })), "another number");
    }

    #[test]
    fn flags_that_are_not_known_are_no_missing_key() {
        let mut scan = SpaceScan::new([copied(5, 7)]);
        // Flags 0x104021, as a compressed number.
        let error = change(&mut scan, &[4, 5, 0, 0, 54, 0xD0, 0x40, 0x21]).unwrap_err();
        assert!(matches!(error, PrepareError::Redo(_)), "{error}");
        assert!(error.to_string().contains("9000") && error.to_string().contains("0x104021"), "{error}");
    }

    #[test]
    fn encryption_follows_the_last_flags() {
        let mut scan = SpaceScan::new([copied(5, 7)]);
        // Flags 0x6021, as a compressed number.
        change(&mut scan, &[4, 5, 0, 0, 54, 0xC0, 0x60, 0x21]).unwrap();
        let space = &scan.finish().unwrap()[&SpaceId(5)];
        assert!(space.encrypted && space.may_be_encrypted());
    }

    #[test]
    fn what_is_being_decrypted_is_written_in_the_clear() {
        let flags = TablespaceFlags::decode(0x6021).unwrap();
        let at = u16::try_from(encryption_change_offset(flags).unwrap()).unwrap().to_be_bytes();
        let mut page0 = vec![0; 16384];
        page0[37] = 5;
        page0[41] = 5;
        page0[54..58].copy_from_slice(&0x6021_u32.to_be_bytes());
        let encrypts = |copied_state: u8, redo: Option<u8>| {
            let mut scan = SpaceScan::new([CopiedSpace { flags, ..copied(5, 7) }]);
            if let Some(state) = redo {
                change(&mut scan, &[1, 5, 0, at[0], at[1], state]).unwrap();
            }
            let mut page0 = page0.clone();
            page0[10513] = copied_state;
            let header = SpaceHeader::decode(&page0).unwrap();
            scan.finish().unwrap()[&SpaceId(5)].seal(&header, &Keyring::default()).unwrap().encrypts
        };
        assert!(encrypts(0, None) && encrypts(1, None) && encrypts(0, Some(1)));
        assert!(!encrypts(2, None) && !encrypts(0, Some(2)) && !encrypts(2, Some(2)));
        assert!(encrypts(2, Some(0)), "it was decrypted, and is encrypted again");
    }
}
