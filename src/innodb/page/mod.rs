//! Pages: from bytes that nobody has looked at to a page whose checksum, place and kind are right.
//!
//! ```text
//!   UnverifiedPage ──verify──► Zero               never written: nothing to store
//!        (bytes)          ├──► Page(PageView)     checksum, page number, space id and LSN fit
//!                         ├──► Opaque(PageView)   encrypted and no key given: header only
//!                         └──► PageFault          torn, damaged, misplaced, or of an unknown kind
//! ```
//! Does no I/O: reading again when a page is torn is the copier's work.

pub mod compress;
pub mod crypt;
pub mod fil;
pub mod types;

use std::fmt;

use super::FormatError;
use super::checksum::{Outcome, check_page, check_zip_page};
use super::cursor::{u16_at, u32_at, u64_at};
use super::ids::{PageNo, SpaceId};
use super::lsn::Lsn;
use super::space::header::extent_pages;
use super::space::{TablespaceFlags, TablespaceKey};

pub use types::PageType;

const WHAT: &str = "page header";

/// What must be known of a tablespace to judge its pages.
#[derive(Debug, Clone, Copy)]
pub struct PageContext<'k> {
    /// Its id.
    pub space: SpaceId,
    /// Its flags.
    pub flags: TablespaceFlags,
    /// Its key, where it is encrypted and the key is at hand.
    pub key: Option<&'k TablespaceKey>,
}

/// Buffers for decryption and decompression, used again for each page.
#[derive(Default)]
pub struct PageScratch {
    plain: Vec<u8>,
    inflated: Vec<u8>,
}

impl fmt::Debug for PageScratch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PageScratch")
    }
}

/// Why bytes are not the page they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PageFault {
    /// The checksum does not fit: torn while it was read, or damaged.
    #[error("checksum {stored:#010x} does not fit its bytes ({computed:#010x})")]
    Checksum {
        /// As stored.
        stored: u32,
        /// As computed.
        computed: u32,
    },
    /// The LSN differs between front and end: torn while it was read, or damaged.
    #[error("the LSN at its front and that at its end differ")]
    LsnMismatch,
    /// Checksum and LSN are zero, other bytes are not.
    #[error("it has neither checksum nor LSN, but is not empty")]
    NotAllZero,
    /// It says that it is another page.
    #[error("it says that it is page {found}")]
    WrongPage {
        /// The number on it.
        found: PageNo,
    },
    /// It says that it belongs to another tablespace.
    #[error("it says that it belongs to space {found}")]
    WrongSpace {
        /// The id on it.
        found: SpaceId,
    },
    /// Its kind is unknown, or it does not decrypt or decompress.
    #[error(transparent)]
    Format(#[from] FormatError),
}

/// Bytes that should be a page.
#[derive(Debug, Clone, Copy)]
pub struct UnverifiedPage<'a> {
    bytes: &'a [u8],
    page: PageNo,
}

/// What bytes turned out to be.
#[derive(Debug, Clone, Copy)]
pub enum Verified<'a> {
    /// All zero: allocated by extension, never written.
    Zero,
    /// A good page.
    Page(PageView<'a>),
    /// An encrypted page whose key is not at hand: only its header was looked at.
    Opaque(PageView<'a>),
}

/// A good page as it was before the server encrypted and compressed it.
#[derive(Debug, Clone, Copy)]
pub struct PlainPage<'a> {
    /// Its bytes.
    pub bytes: &'a [u8],
    /// It was encrypted.
    pub was_encrypted: bool,
}

impl<'a> UnverifiedPage<'a> {
    /// Bytes read from the place of `page`.
    pub const fn new(bytes: &'a [u8], page: PageNo) -> Self {
        Self { bytes, page }
    }

    /// Judges the bytes. A fault may be a torn read: read again before accusing the disk.
    pub fn verify(self, ctx: &PageContext<'_>, scratch: &mut PageScratch) -> Result<Verified<'a>, PageFault> {
        let size = ctx.flags.physical_size().len();
        if self.bytes.len() != size {
            return Err(FormatError::Truncated { what: "page", needed: size, got: self.bytes.len() }.into());
        }
        if self.is_unwritten()? {
            return if self.is_zero() { Ok(Verified::Zero) } else { Err(PageFault::NotAllZero) };
        }
        let view = PageView { bytes: self.bytes };
        self.check_place(view, ctx)?;
        let kind = view.page_type()?;
        match (kind.is_encrypted(), ctx.key) {
            (true, None) => Ok(Verified::Opaque(view)),
            (true, Some(key)) => {
                scratch.plain.clear();
                scratch.plain.extend_from_slice(self.bytes);
                crypt::decrypt_page(&mut scratch.plain, kind, key)?;
                let plain = std::mem::take(&mut scratch.plain);
                let outcome = check_plain(&plain, ctx, scratch);
                scratch.plain = plain;
                outcome.map(|()| Verified::Page(view))
            }
            (false, _) => check_plain(self.bytes, ctx, scratch).map(|()| Verified::Page(view)),
        }
    }

    /// Judges the bytes as [`Self::verify`] does, and gives the page as it was before the server encrypted and
    /// compressed it; `None` where it is all zero. What is encrypted needs its key.
    pub fn open<'s>(
        self,
        ctx: &PageContext<'_>,
        scratch: &'s mut PageScratch,
    ) -> Result<Option<PlainPage<'s>>, PageFault>
    where
        'a: 's,
    {
        match self.verify(ctx, scratch)? {
            Verified::Zero => Ok(None),
            Verified::Opaque(_) => Err(FormatError::KeyMissing { key_id: format!("of space {}", ctx.space) }.into()),
            Verified::Page(view) => {
                let kind = view.page_type()?;
                let (was_encrypted, decrypted) = (kind.is_encrypted(), &scratch.plain);
                let stored = if was_encrypted { decrypted.as_slice() } else { self.bytes };
                let was_compressed = u16_at(stored, fil::TYPE, WHAT)? == PageType::Compressed.id();
                let bytes = if was_compressed { scratch.inflated.as_slice() } else { stored };
                Ok(Some(PlainPage { bytes, was_encrypted }))
            }
        }
    }

    /// Neither checksum nor LSN: a page that was never flushed.
    fn is_unwritten(self) -> Result<bool, FormatError> {
        Ok(u32_at(self.bytes, 0, WHAT)? == 0 && u64_at(self.bytes, fil::LSN, WHAT)? == 0)
    }

    /// All zero but for the eight bytes at 26, which the server ignores here, too.
    fn is_zero(self) -> bool {
        let (front, rest) = self.bytes.split_at(fil::FLUSH_LSN.min(self.bytes.len()));
        let behind = rest.get(8..).unwrap_or_default();
        all_zero(front) && all_zero(behind)
    }

    fn check_place(self, view: PageView<'_>, ctx: &PageContext<'_>) -> Result<(), PageFault> {
        let (page, space) = (view.page_no()?, view.space()?);
        if page != self.page {
            return Err(PageFault::WrongPage { found: page });
        }
        if space != ctx.space {
            return Err(PageFault::WrongSpace { found: space });
        }
        Ok(())
    }
}

/// A page whose place was checked. Fields are read from the header, which is never encrypted or compressed.
#[derive(Debug, Clone, Copy)]
pub struct PageView<'a> {
    bytes: &'a [u8],
}

impl<'a> PageView<'a> {
    /// The page as stored.
    pub const fn bytes(self) -> &'a [u8] {
        self.bytes
    }

    /// LSN of the newest change on it.
    pub fn lsn(self) -> Lsn {
        u64_at(self.bytes, fil::LSN, WHAT).map_or(Lsn::ZERO, Lsn::new)
    }

    /// Its kind.
    pub fn page_type(self) -> Result<PageType, FormatError> {
        u16_at(self.bytes, fil::TYPE, WHAT)?.try_into()
    }

    /// Its number.
    pub fn page_no(self) -> Result<PageNo, FormatError> {
        u32_at(self.bytes, fil::PAGE_NO, WHAT).map(PageNo)
    }

    /// Its tablespace.
    pub fn space(self) -> Result<SpaceId, FormatError> {
        u32_at(self.bytes, fil::SPACE_ID, WHAT).map(SpaceId)
    }
}

/// True for the two extents after the first of the system tablespace: the doublewrite area of servers before 8.0.20,
/// whose content means nothing and is not verified (MySQL 9.7; tablespace-files reference, section 6).
pub fn is_legacy_doublewrite(space: SpaceId, flags: TablespaceFlags, page: PageNo) -> bool {
    let extent = extent_pages(flags.logical_size());
    space == SpaceId::SYSTEM && (extent..extent.saturating_mul(3)).contains(&page.0)
}

/// True when every byte is zero. In chunks without early exits, which compilers turn into wide loads.
pub fn all_zero(bytes: &[u8]) -> bool {
    let chunks = bytes.chunks_exact(64);
    let rest = chunks.remainder();
    let is_zero = |chunk: &[u8]| chunk.iter().fold(0, |sum, byte| sum | byte) == 0;
    chunks.into_iter().all(is_zero) && is_zero(rest)
}

/// Checks a decrypted page: decompresses it where it must, then checksum and LSN.
fn check_plain(page: &[u8], ctx: &PageContext<'_>, scratch: &mut PageScratch) -> Result<(), PageFault> {
    let kind: PageType = u16_at(page, fil::TYPE, WHAT)?.try_into()?;
    if kind == PageType::Compressed {
        compress::decompress_page(page, &mut scratch.inflated)?;
        let _: PageType = u16_at(&scratch.inflated, fil::TYPE, WHAT)?.try_into()?;
        return check_sums(&scratch.inflated, ctx);
    }
    check_sums(page, ctx)
}

fn check_sums(page: &[u8], ctx: &PageContext<'_>) -> Result<(), PageFault> {
    let zip = ctx.flags.zip_size().is_some();
    let outcome = if zip { check_zip_page(page)? } else { check_page(page)? };
    if let Outcome::Bad { stored, computed } = outcome {
        return Err(PageFault::Checksum { stored, computed });
    }
    if zip {
        return Ok(());
    }
    let trailer = page.len().saturating_sub(fil::TRAILER_LSN);
    if u32_at(page, fil::LSN_LOW, WHAT)? == u32_at(page, trailer, WHAT)? { Ok(()) } else { Err(PageFault::LsnMismatch) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::innodb::checksum::stamp_page;

    fn context(raw: u32) -> PageContext<'static> {
        PageContext { space: SpaceId(5), flags: TablespaceFlags::decode(raw).unwrap(), key: None }
    }

    fn page(number: u32) -> Vec<u8> {
        let mut page = vec![0_u8; 16384];
        page[4..8].copy_from_slice(&number.to_be_bytes());
        page[16..24].copy_from_slice(&0x1234_5678_9abc_u64.to_be_bytes());
        page[24..26].copy_from_slice(&17855_u16.to_be_bytes());
        page[34..38].copy_from_slice(&5_u32.to_be_bytes());
        page[100] = 1;
        page[16380..].copy_from_slice(&0x5678_9abc_u32.to_be_bytes());
        stamp_page(&mut page).unwrap();
        page
    }

    fn verify(bytes: &[u8], number: u32) -> Result<Verified<'_>, PageFault> {
        UnverifiedPage::new(bytes, PageNo(number)).verify(&context(0x4021), &mut PageScratch::default())
    }

    #[test]
    fn a_good_page_is_good_in_its_place_only() {
        let good = page(3);
        let Ok(Verified::Page(view)) = verify(&good, 3) else { panic!("not good") };
        assert_eq!(view.lsn(), Lsn::new(0x1234_5678_9abc));
        assert_eq!(view.page_type(), Ok(PageType::Index));
        assert_eq!(verify(&good, 4).unwrap_err(), PageFault::WrongPage { found: PageNo(3) });
        let mut elsewhere = context(0x4021);
        elsewhere.space = SpaceId(6);
        let fault = UnverifiedPage::new(&good, PageNo(3)).verify(&elsewhere, &mut PageScratch::default()).unwrap_err();
        assert_eq!(fault, PageFault::WrongSpace { found: SpaceId(5) });
    }

    #[test]
    fn half_written_pages_are_faults() {
        let (old, new) = (page(3), {
            let mut new = page(3);
            new[16..24].copy_from_slice(&0x1234_5678_9abd_u64.to_be_bytes());
            new[9000..9100].fill(7);
            new[16380..].copy_from_slice(&0x5678_9abd_u32.to_be_bytes());
            stamp_page(&mut new).unwrap();
            new
        });
        for cut in (512..16384).step_by(512) {
            let torn = [&new[..cut], &old[cut..]].concat();
            assert!(verify(&torn, 3).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn zero_pages_are_zero_or_faults() {
        let mut zero = vec![0_u8; 16384];
        assert!(matches!(verify(&zero, 9), Ok(Verified::Zero)));
        zero[26..34].fill(1);
        assert!(matches!(verify(&zero, 9), Ok(Verified::Zero)));
        zero[16383] = 1;
        assert_eq!(verify(&zero, 9).unwrap_err(), PageFault::NotAllZero);
        assert!(verify(&zero[..100], 9).is_err());
    }

    #[test]
    fn pages_without_their_key_are_opaque() {
        let mut encrypted = page(3);
        encrypted[24..26].copy_from_slice(&15_u16.to_be_bytes());
        assert!(matches!(verify(&encrypted, 3), Ok(Verified::Opaque(_))));
    }

    proptest! {
        #[test]
        fn mutated_pages_never_panic(kind in 0_u16..30, at in 0_usize..16384, bytes in proptest::collection::vec(any::<u8>(), 1..64)) {
            let mut page = page(3);
            page[24..26].copy_from_slice(&kind.to_be_bytes());
            let end = (at + bytes.len()).min(page.len());
            page[at..end].copy_from_slice(&bytes[..end - at]);
            let key = TablespaceKey::new([1; 32], [2; 16]);
            for raw in [0x4021, 0x6021, 0x402b] {
                for key in [None, Some(&key)] {
                    let ctx = PageContext { key, ..context(raw) };
                    let _ = UnverifiedPage::new(&page, PageNo(3)).verify(&ctx, &mut PageScratch::default());
                }
            }
        }
    }
}
