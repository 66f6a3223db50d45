//! One page: what its header says, and whether it is right.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::file::{EncryptionLine, Opened, Verdict, format, judge};
use super::space::{Geometry, read_geometry};
use crate::innodb::FormatError;
use crate::innodb::cursor::{u16_at, u32_at, u64_at};
use crate::innodb::ids::{PageNo, PageSize, SpaceId};
use crate::innodb::lsn::Lsn;
use crate::innodb::page::{PageScratch, PageType, fil};
use crate::ops::error::{Error, ErrorKind};
use crate::ops::keyring;

/// Offsets of the neighbours of a page in its list.
const PREVIOUS: usize = 8;
const NEXT: usize = 12;
const NO_PAGE: u32 = u32::MAX;

/// What a page says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PageInspection {
    /// The file.
    pub path: PathBuf,
    /// Its place in the file, in pages.
    pub page: PageNo,
    /// Its place in the file, in bytes.
    pub offset: u64,
    /// Its size in the file.
    pub page_size: PageSize,
    /// The page size was given, page 0 was not asked.
    pub size_assumed: bool,
    /// The number on it.
    pub number: PageNo,
    /// The tablespace on it.
    pub space: SpaceId,
    /// The number of its type.
    pub type_id: u16,
    /// The name of its type, where it is a known one.
    pub type_name: Option<String>,
    /// LSN of its newest change.
    pub lsn: Lsn,
    /// The page before it in its list.
    pub previous: Option<PageNo>,
    /// The page behind it in its list.
    pub next: Option<PageNo>,
    /// The checksum in front, hexadecimal.
    pub checksum: String,
    /// The tablespace's key, where it has one.
    pub encryption: Option<EncryptionLine>,
    /// Whether it is right.
    pub verdict: Verdict,
}

/// Looks at one page.
pub(super) fn inspect(
    path: &Path,
    page: PageNo,
    page_size: Option<PageSize>,
    keyring_file: Option<&Path>,
) -> Result<PageInspection, Error> {
    let keyring = keyring::read_if_named(keyring_file)?;
    let file = Opened::open(path)?;
    let mut geometry = match page_size {
        None => read_geometry(&file, keyring.as_ref())?,
        Some(size) => Geometry::assumed(size).map_err(format(path))?,
    };
    let size = geometry.flags.physical_size();
    let offset = u64::from(page.0) * u64::from(size.bytes());
    let mut bytes = file.read(offset, size.len())?;
    if bytes.len() < size.len() {
        let pages = file.bytes / u64::from(size.bytes());
        let message = format!("{} has no page {page}: it has {pages} pages of {size} bytes", path.display());
        return Err(Error::new(ErrorKind::Usage, message).advise("pages are counted from 0, in this file"));
    }
    if page_size.is_some() {
        // Without page 0 nobody knows whose page it should be.
        geometry.space = SpaceId(u32_at(&bytes, fil::SPACE_ID, "page header").map_err(format(path))?);
    }
    let verdict = judge(&file, offset, page, &mut bytes, &geometry.context(), &mut PageScratch::default())?;
    let fields = Fields::decode(&bytes).map_err(format(path))?;
    Ok(PageInspection {
        path: path.to_path_buf(),
        page,
        offset,
        page_size: size,
        size_assumed: page_size.is_some(),
        number: PageNo(fields.number),
        space: SpaceId(fields.space),
        type_id: fields.kind,
        type_name: PageType::try_from(fields.kind).ok().map(|kind| format!("{kind:?}")),
        lsn: fields.lsn,
        previous: neighbour(fields.previous),
        next: neighbour(fields.next),
        checksum: format!("{:#010x}", fields.checksum),
        encryption: geometry.encryption,
        verdict,
    })
}

/// The header's fields as they stand there.
struct Fields {
    checksum: u32,
    number: u32,
    previous: u32,
    next: u32,
    lsn: Lsn,
    kind: u16,
    space: u32,
}

impl Fields {
    fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let what = "page header";
        Ok(Self {
            checksum: u32_at(bytes, 0, what)?,
            number: u32_at(bytes, fil::PAGE_NO, what)?,
            previous: u32_at(bytes, PREVIOUS, what)?,
            next: u32_at(bytes, NEXT, what)?,
            lsn: Lsn::new(u64_at(bytes, fil::LSN, what)?),
            kind: u16_at(bytes, fil::TYPE, what)?,
            space: u32_at(bytes, fil::SPACE_ID, what)?,
        })
    }
}

fn neighbour(number: u32) -> Option<PageNo> {
    (number != NO_PAGE).then_some(PageNo(number))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::space::tests::{PAGE, space_file};
    use super::*;

    #[test]
    fn a_good_page_and_a_bad_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.ibd");
        let mut file = space_file(4);
        fs::write(&path, &file).unwrap();
        let good = inspect(&path, PageNo(2), None, None).unwrap();
        assert_eq!((good.number, good.space, good.verdict), (PageNo(2), SpaceId(5), Verdict::Good));
        assert_eq!((good.type_id, good.type_name.as_deref()), (17855, Some("Index")));
        assert_eq!((good.offset, good.page_size.len()), (2 * 16384, PAGE));
        assert_eq!((good.lsn, good.previous, good.next), (Lsn::new(1234), None, Some(PageNo(7))));

        file[2 * PAGE + 5000] ^= 1;
        fs::write(&path, &file).unwrap();
        let bad = inspect(&path, PageNo(2), None, None).unwrap();
        assert!(matches!(bad.verdict, Verdict::Bad { why } if why.starts_with("checksum ")));
    }

    #[test]
    fn a_page_can_be_read_past_a_damaged_page_0() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.ibd");
        let mut file = space_file(4);
        file[..PAGE].fill(0xFF);
        fs::write(&path, &file).unwrap();
        assert_eq!(inspect(&path, PageNo(2), None, None).unwrap_err().kind, ErrorKind::UnsupportedFormat);
        let page = inspect(&path, PageNo(2), Some(PageSize::DEFAULT), None).unwrap();
        assert_eq!(page.verdict, Verdict::Good);
        assert!(page.size_assumed);
    }

    #[test]
    fn pages_beyond_the_end_are_a_usage_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.ibd");
        fs::write(&path, space_file(4)).unwrap();
        let error = inspect(&path, PageNo(4), None, None).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Usage);
        assert!(error.message.contains("has no page 4: it has 4 pages of 16384 bytes"), "{error}");
        assert!(inspect(&path, PageNo(u32::MAX), None, None).is_err());
    }
}
