//! A tablespace file: what page 0 says, and all its pages by type and verdict.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::file::{EncryptionLine, Opened, Verdict, format, judge, unwrap};
use crate::innodb::FormatError;
use crate::innodb::cursor::{u16_at, u32_at, u64_at};
use crate::innodb::ids::{PageNo, PageSize, SpaceId};
use crate::innodb::keyring::Keyring;
use crate::innodb::lsn::Lsn;
use crate::innodb::page::{PageContext, PageScratch, PageType, fil};
use crate::innodb::space::header::PREFIX_SIZE;
use crate::innodb::space::{SpaceHeader, TablespaceFlags, TablespaceKey};
use crate::ops::context::Context;
use crate::ops::error::{Error, ErrorKind};
use crate::ops::keyring;

/// Bytes that are read at once.
const WINDOW: usize = 4 << 20;
/// Bad pages that are listed one by one.
const MOST_FAULTS: usize = 100;
/// Where page 0's own size is stored in the flags: `512 << n` bytes.
const ZIP_SHIFT: u32 = 1;
const PAGE_SHIFT: u32 = 6;
/// The bits that go with compressed pages: a format after Antelope, atomic blobs.
const ZIP_BITS: u32 = 1 | 1 << 5;

/// What must be known to judge a file's pages.
pub(super) struct Geometry {
    pub(super) space: SpaceId,
    pub(super) flags: TablespaceFlags,
    pub(super) header: Option<SpaceHeader>,
    pub(super) encryption: Option<EncryptionLine>,
    key: Option<TablespaceKey>,
}

impl Geometry {
    /// Of a file whose page 0 is not to be asked.
    pub(super) fn assumed(size: PageSize) -> Result<Self, FormatError> {
        let shift = size.bytes().trailing_zeros().saturating_sub(9);
        // Pages below 4 KiB exist only compressed. Larger ones are taken to be plain.
        let raw = if size.bytes() < 4096 { shift << ZIP_SHIFT | ZIP_BITS } else { shift << PAGE_SHIFT };
        let flags = TablespaceFlags::decode(raw)?;
        Ok(Self { space: SpaceId(0), flags, header: None, encryption: None, key: None })
    }

    pub(super) fn context(&self) -> PageContext<'_> {
        PageContext { space: self.space, flags: self.flags, key: self.key.as_ref() }
    }
}

/// Asks page 0.
pub(super) fn read_geometry(file: &Opened<'_>, keyring: Option<&Keyring>) -> Result<Geometry, Error> {
    let prefix = file.read(0, PREFIX_SIZE)?;
    let number = u32_at(&prefix, fil::PAGE_NO, "header of page 0").map_err(format(file.path))?;
    if number != 0 {
        let message = format!("{} begins with page {number}, not with page 0", file.path.display());
        let advice =
            "a later file of a tablespace of several, or no tablespace file: inspect page with --page-size works";
        return Err(Error::new(ErrorKind::UnsupportedFormat, message).advise(advice));
    }
    let flags = SpaceHeader::decode_prefix(&prefix).map_err(format(file.path))?.flags;
    let page0 = file.read(0, flags.physical_size().len())?;
    let header = SpaceHeader::decode(&page0).map_err(format(file.path))?;
    let (encryption, key) = unwrap(header.encryption.as_ref(), keyring);
    Ok(Geometry { space: header.space, flags, header: Some(header), encryption, key })
}

/// What a tablespace file holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SpaceInspection {
    /// The file.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// The tablespace's id.
    pub space: SpaceId,
    /// The flags as stored, hexadecimal.
    pub flags: String,
    /// The flags by name.
    pub flag_names: Vec<&'static str>,
    /// The size of a page in the file.
    pub page_size: PageSize,
    /// The instance's page size.
    pub logical_page_size: PageSize,
    /// The server version that made or last upgraded it.
    pub server_version: String,
    /// Its size in pages by page 0.
    pub pages_by_header: u32,
    /// Whole pages in the file.
    pub pages_in_file: u64,
    /// Bytes behind the last whole page.
    pub surplus_bytes: u64,
    /// The tablespace's key, where it has one.
    pub encryption: Option<EncryptionLine>,
    /// LSN of the newest change on any page.
    pub newest_lsn: Lsn,
    /// Pages by type.
    pub types: Vec<TypeLine>,
    /// Bad pages, one by one; cut off after a bounded number.
    pub faults: Vec<FaultLine>,
    /// How many are bad.
    pub fault_count: u64,
}

/// The pages of one type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TypeLine {
    /// The type's name, or its number when it is unknown.
    #[serde(rename = "type")]
    pub name: String,
    /// Right.
    pub good: u64,
    /// Never written, or in an area that is not used any more.
    pub empty: u64,
    /// Encrypted, without key.
    pub encrypted: u64,
    /// Wrong.
    pub bad: u64,
}

/// A bad page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FaultLine {
    /// Which.
    pub page: PageNo,
    /// What is wrong.
    pub why: String,
}

/// Looks at every page.
pub(super) fn inspect(ctx: &Context, path: &Path, keyring_file: Option<&Path>) -> Result<SpaceInspection, Error> {
    let keyring = keyring::read_if_named(keyring_file)?;
    let file = Opened::open(path)?;
    let geometry = read_geometry(&file, keyring.as_ref())?;
    ctx.progress.step("check pages");
    ctx.progress.total(file.bytes);
    let mut census = Census::default();
    census.take(ctx, &file, &geometry)?;
    Ok(report(&file, geometry, census))
}

/// Counts what it sees.
#[derive(Default)]
struct Census {
    types: BTreeMap<u16, TypeLine>,
    faults: Vec<FaultLine>,
    fault_count: u64,
    newest: Lsn,
}

impl Census {
    fn take(&mut self, ctx: &Context, file: &Opened<'_>, geometry: &Geometry) -> Result<(), Error> {
        let size = geometry.flags.physical_size();
        let context = geometry.context();
        let mut scratch = PageScratch::default();
        let mut window = vec![0; WINDOW];
        let mut number = 0_u32;
        loop {
            ctx.check()?;
            let start = u64::from(number) * u64::from(size.bytes());
            let filled = file.read_into(start, &mut window)?;
            let pages = window.get_mut(..filled).unwrap_or_default();
            for bytes in pages.chunks_exact_mut(size.len()) {
                let offset = u64::from(number) * u64::from(size.bytes());
                let verdict = judge(file, offset, PageNo(number), bytes, &context, &mut scratch)?;
                self.count(PageNo(number), bytes, verdict).map_err(format(file.path))?;
                number = number.saturating_add(1);
            }
            ctx.progress.advance(u64::try_from(filled).unwrap_or(0));
            if filled < WINDOW {
                return Ok(());
            }
        }
    }

    fn count(&mut self, page: PageNo, bytes: &[u8], verdict: Verdict) -> Result<(), FormatError> {
        let kind = u16_at(bytes, fil::TYPE, "page header")?;
        let line = self.types.entry(kind).or_insert_with(|| TypeLine {
            name: PageType::try_from(kind).map_or_else(|_| format!("unknown {kind}"), |kind| format!("{kind:?}")),
            good: 0,
            empty: 0,
            encrypted: 0,
            bad: 0,
        });
        match verdict {
            Verdict::Good => line.good += 1,
            // Whatever it holds, nobody reads it: as good as empty.
            Verdict::Empty | Verdict::Unused => {
                line.empty += 1;
                return Ok(());
            }
            Verdict::Encrypted => line.encrypted += 1,
            Verdict::Bad { why } => {
                line.bad += 1;
                self.fault_count += 1;
                if self.faults.len() < MOST_FAULTS {
                    self.faults.push(FaultLine { page, why });
                }
                return Ok(());
            }
        }
        self.newest = self.newest.max(Lsn::new(u64_at(bytes, fil::LSN, "page header")?));
        Ok(())
    }
}

fn report(file: &Opened<'_>, geometry: Geometry, census: Census) -> SpaceInspection {
    let flags = geometry.flags;
    let page_bytes = u64::from(flags.physical_size().bytes());
    let (version, pages_by_header) =
        geometry.header.as_ref().map_or((0, 0), |header| (header.server_version, header.size_pages));
    SpaceInspection {
        path: file.path.to_path_buf(),
        bytes: file.bytes,
        space: geometry.space,
        flags: format!("{:#06x}", flags.raw()),
        flag_names: flag_names(flags),
        page_size: flags.physical_size(),
        logical_page_size: flags.logical_size(),
        server_version: format!("{}.{}.{}", version / 10000, version / 100 % 100, version % 100),
        pages_by_header,
        pages_in_file: file.bytes / page_bytes,
        surplus_bytes: file.bytes % page_bytes,
        encryption: geometry.encryption,
        newest_lsn: census.newest,
        types: census.types.into_values().collect(),
        faults: census.faults,
        fault_count: census.fault_count,
    }
}

fn flag_names(flags: TablespaceFlags) -> Vec<&'static str> {
    let names = [
        (flags.zip_size().is_some(), "compressed rows"),
        (flags.has_data_dir(), "data directory"),
        (flags.is_shared(), "shared"),
        (flags.is_temporary(), "temporary"),
        (flags.is_encrypted(), "encrypted"),
        (flags.has_sdi(), "sdi"),
    ];
    names.into_iter().filter(|(set, _)| *set).map(|(_, name)| name).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use std::fs;

    use super::*;
    use crate::innodb::checksum::stamp_page;

    pub(in super::super) const PAGE: usize = 16384;

    fn page(number: u32, kind: u16) -> Vec<u8> {
        let mut page = vec![0_u8; PAGE];
        page[4..8].copy_from_slice(&number.to_be_bytes());
        page[8..12].copy_from_slice(&u32::MAX.to_be_bytes());
        page[12..16].copy_from_slice(&7_u32.to_be_bytes());
        page[16..24].copy_from_slice(&1234_u64.to_be_bytes());
        page[24..26].copy_from_slice(&kind.to_be_bytes());
        page[34..38].copy_from_slice(&5_u32.to_be_bytes());
        page[PAGE - 4..].copy_from_slice(&1234_u32.to_be_bytes());
        page
    }

    /// A tablespace file of so many pages: page 0, index pages, and an empty last one.
    pub(in super::super) fn space_file(pages: u32) -> Vec<u8> {
        let mut first = page(0, 8);
        first[8..12].copy_from_slice(&90704_u32.to_be_bytes());
        first[38..42].copy_from_slice(&5_u32.to_be_bytes());
        first[46..50].copy_from_slice(&pages.to_be_bytes());
        first[54..58].copy_from_slice(&0x4021_u32.to_be_bytes());
        stamp_page(&mut first).unwrap();
        let mut file = first;
        for number in 1..pages - 1 {
            let mut index = page(number, 17855);
            stamp_page(&mut index).unwrap();
            file.extend_from_slice(&index);
        }
        file.resize(file.len() + PAGE, 0);
        file
    }

    #[test]
    fn every_page_is_counted_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.ibd");
        let mut file = space_file(300);
        file[280 * PAGE + 9000] ^= 1;
        file.extend_from_slice(&[0; 100]);
        fs::write(&path, &file).unwrap();
        let report = inspect(&Context::silent(), &path, None).unwrap();
        assert_eq!(
            (report.space, report.flags.as_str(), report.server_version.as_str()),
            (SpaceId(5), "0x4021", "9.7.4")
        );
        assert_eq!((report.pages_by_header, report.pages_in_file, report.surplus_bytes), (300, 300, 100));
        assert_eq!(report.newest_lsn, Lsn::new(1234));
        let all: u64 = report.types.iter().map(|line| line.good + line.empty + line.encrypted + line.bad).sum();
        assert_eq!(all, 300);
        let index = report.types.iter().find(|line| line.name == "Index").unwrap();
        assert_eq!((index.good, index.bad), (297, 1));
        assert_eq!(report.types.iter().find(|line| line.name == "Allocated").unwrap().empty, 1);
        assert_eq!((report.fault_count, report.faults[0].page), (1, PageNo(280)));
    }

    #[test]
    fn other_files_are_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ibdata2");
        let mut later = page(768, 6);
        stamp_page(&mut later).unwrap();
        fs::write(&path, &later).unwrap();
        let error = inspect(&Context::silent(), &path, None).unwrap_err();
        assert!(error.message.contains("begins with page 768"), "{error}");
        fs::write(&path, b"").unwrap();
        assert_eq!(inspect(&Context::silent(), &path, None).unwrap_err().kind, ErrorKind::UnsupportedFormat);
        assert_eq!(inspect(&Context::silent(), dir.path(), None).unwrap_err().kind, ErrorKind::LocalIo);
    }

    #[test]
    fn it_can_be_stopped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.ibd");
        fs::write(&path, space_file(4)).unwrap();
        let ctx = Context::silent();
        ctx.cancel.cancel();
        assert_eq!(inspect(&ctx, &path, None).unwrap_err().kind, ErrorKind::Cancelled);
    }

    #[test]
    fn assumed_sizes_are_the_sizes_in_the_file() {
        for bytes in [1024, 2048, 4096, 8192, 16384, 32768, 65536] {
            let geometry = Geometry::assumed(PageSize::new(bytes).unwrap()).unwrap();
            assert_eq!(geometry.flags.physical_size().bytes(), bytes);
        }
    }
}
