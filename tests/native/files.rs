//! Tablespaces' files of a data directory: found by their ids, read page by page as recovery sees them.
//!
//! ```text
//!   directory ─► Space: id, flags, key, path ─► pages in memory ─► plain: decrypted, decompressed
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use stillframe::innodb::checksum::stamp_page;
use stillframe::innodb::ids::{PageNo, SpaceId};
use stillframe::innodb::keyring::Keyring;
use stillframe::innodb::page::{
    PageContext, PageScratch, PageType, UnverifiedPage, compress, crypt, fil, is_legacy_doublewrite,
};
use stillframe::innodb::space::header::encryption_change_offset;
use stillframe::innodb::space::{SpaceHeader, TablespaceFlags, TablespaceKey};

use crate::support::files::files_below;

/// A tablespace's file.
#[derive(Debug, Clone)]
pub struct Space {
    pub id: SpaceId,
    pub flags: TablespaceFlags,
    /// What opens its pages, where page 0 has it.
    pub key: Option<TablespaceKey>,
    /// Below the data directory.
    pub path: PathBuf,
    pub file: PathBuf,
}

/// The tablespaces below a data directory, but for temporary ones.
pub fn spaces(datadir: &Path, keyring: Option<&Keyring>) -> BTreeMap<SpaceId, Space> {
    let mut found = BTreeMap::new();
    for file in files_below(datadir).into_iter().filter(|path| is_tablespace(path)) {
        let bytes = read_start(&file);
        let header = SpaceHeader::decode(&bytes).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let key = match (&header.encryption, keyring) {
            (Some(info), Some(keyring)) => Some(info.unwrap_key(keyring).unwrap()),
            _ => None,
        };
        let path = file.strip_prefix(datadir).unwrap().to_owned();
        let space = Space { id: header.space, flags: header.flags, key, path, file };
        if let Some(other) = found.insert(header.space, space) {
            panic!("space {} is in two files, one is {}", header.space, other.path.display());
        }
    }
    found
}

fn is_tablespace(path: &Path) -> bool {
    let name = path.file_name().unwrap().to_string_lossy();
    let extension = path.extension().unwrap_or_default();
    // Only undo tablespaces that were made with the instance have no ending.
    let undo = name.starts_with("undo_") && extension.is_empty();
    undo || name == "ibdata1" || extension == "ibd" || extension == "ibu"
}

/// Page 0 says that the tablespace is being encrypted or decrypted in its place.
pub fn is_encryption_changing(file: &Path) -> bool {
    let page0 = read_start(file);
    let flags = SpaceHeader::decode(&page0).unwrap().flags;
    page0[encryption_change_offset(flags).unwrap()] != 0
}

/// The first page, whatever its size.
fn read_start(file: &Path) -> Vec<u8> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    std::fs::File::open(file).unwrap().take(65536).read_to_end(&mut bytes).unwrap();
    bytes
}

/// A tablespace's pages, in memory.
#[derive(Debug)]
pub struct Pages {
    pub space: Space,
    bytes: Vec<u8>,
    size: usize,
}

impl Pages {
    pub fn read(space: &Space) -> Self {
        let bytes = std::fs::read(&space.file).unwrap();
        Self { space: space.clone(), bytes, size: space.flags.physical_size().len() }
    }

    /// Whole pages in the file.
    pub fn count(&self) -> u32 {
        u32::try_from(self.bytes.len() / self.size).unwrap()
    }

    /// A page as it is in the file; `None` beyond its end.
    pub fn raw(&self, page: PageNo) -> Option<&[u8]> {
        let at = usize::try_from(page.0).unwrap() * self.size;
        self.bytes.get(at..at + self.size)
    }

    /// The type that a page has in the file.
    pub fn kind(&self, page: PageNo) -> Option<PageType> {
        let raw = self.raw(page)?;
        PageType::try_from(u16::from_be_bytes([raw[fil::TYPE], raw[fil::TYPE + 1]])).ok()
    }

    /// A page is encrypted in the file.
    pub fn is_encrypted(&self, page: PageNo) -> bool {
        self.kind(page).is_some_and(PageType::is_encrypted)
    }

    /// A page as recovery sees it: decrypted, decompressed, zero beyond the end of the file. Panics when its checksum
    /// is wrong.
    pub fn plain(&self, page: PageNo) -> Vec<u8> {
        let Some(raw) = self.raw(page) else { return vec![0; self.size] };
        let ctx = PageContext { space: self.space.id, flags: self.space.flags, key: self.space.key.as_ref() };
        if !is_legacy_doublewrite(ctx.space, ctx.flags, page)
            && let Err(fault) = UnverifiedPage::new(raw, page).verify(&ctx, &mut PageScratch::default())
        {
            panic!("page {page} of {}: {fault}", self.space.file.display());
        }
        plain(raw, self.space.key.as_ref())
    }
}

/// How many pages of each kind the files below a directory have, as they are there.
pub fn kinds(datadir: &Path, keyring: Option<&Keyring>) -> BTreeMap<u16, usize> {
    let mut kinds = BTreeMap::new();
    for space in spaces(datadir, keyring).values() {
        let pages = Pages::read(space);
        for page in (0..pages.count()).filter_map(|page| pages.raw(PageNo(page))) {
            *kinds.entry(u16::from_be_bytes([page[fil::TYPE], page[fil::TYPE + 1]])).or_default() += 1;
        }
    }
    kinds
}

/// A page without what was done to it on its way to the file.
pub fn plain(raw: &[u8], key: Option<&TablespaceKey>) -> Vec<u8> {
    let mut page = raw.to_vec();
    let kind = |page: &[u8]| PageType::try_from(u16::from_be_bytes([page[fil::TYPE], page[fil::TYPE + 1]]));
    if let Ok(encrypted) = kind(&page)
        && encrypted.is_encrypted()
    {
        crypt::decrypt_page(&mut page, encrypted, key.expect("an encrypted page needs its key")).unwrap();
    }
    if kind(&page) == Ok(PageType::Compressed) {
        let mut out = Vec::new();
        compress::decompress_page(&page, &mut out).unwrap();
        page = out;
    }
    page
}

/// Copies a tablespace while a server writes to it: each page until it is whole.
pub fn copy_hot(space: &Space, to: &Path) {
    use std::os::unix::fs::FileExt as _;
    let file = std::fs::File::open(&space.file).unwrap();
    let size = space.flags.physical_size().len();
    let ctx = PageContext { space: space.id, flags: space.flags, key: space.key.as_ref() };
    let (mut scratch, mut out) = (PageScratch::default(), Vec::new());
    let pages = usize::try_from(file.metadata().unwrap().len()).unwrap() / size;
    for number in 0..pages {
        let page = PageNo(u32::try_from(number).unwrap());
        let mut raw = vec![0; size];
        for attempt in 0.. {
            file.read_exact_at(&mut raw, u64::try_from(number * size).unwrap()).unwrap();
            match UnverifiedPage::new(&raw, page).verify(&ctx, &mut scratch) {
                Ok(_) => break,
                Err(_) if is_legacy_doublewrite(space.id, space.flags, page) => break,
                Err(fault) => {
                    assert!(attempt < 6000, "page {page} of {} stays torn: {fault}", space.file.display());
                    std::thread::sleep(std::time::Duration::from_millis(5));
                }
            }
        }
        out.extend_from_slice(&raw);
    }
    std::fs::create_dir_all(to.parent().unwrap()).unwrap();
    std::fs::write(to, out).unwrap();
}

/// What a server writes when it makes a tablespace's file, before the first redo of it: a page 0 that tells who it is,
/// and empty pages behind it.
pub fn fresh(space: &Space) -> Vec<u8> {
    const PAGES: usize = 7;
    const UNDO: usize = 16 << 20;
    let size = space.flags.physical_size().len();
    let undo = space.path.extension().is_none_or(|extension| extension == "ibu");
    let mut bytes = vec![0; if undo { UNDO } else { size * PAGES }];
    for at in [fil::SPACE_ID, 38] {
        bytes[at..at + 4].copy_from_slice(&space.id.0.to_be_bytes());
    }
    bytes[54..58].copy_from_slice(&space.flags.raw().to_be_bytes());
    if space.flags.is_encrypted() {
        // The file as it is now has the key; a server writes it with the rest.
        let (now, at) =
            (read_start(&space.file), stillframe::innodb::space::header::encryption_offset(space.flags).unwrap());
        bytes[at..at + 111].copy_from_slice(&now[at..at + 111]);
    }
    let page = &mut bytes[..size];
    if space.flags.zip_size().is_some() {
        let sum = crc32c::crc32c(&page[4..16]) ^ crc32c::crc32c(&page[24..26]) ^ crc32c::crc32c(&page[34..]);
        page[..4].copy_from_slice(&sum.to_be_bytes());
    } else {
        stamp_page(page).unwrap();
    }
    bytes
}
