//! What the looks into local files share: opening, reading at a place, keys, and the verdict on a page.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use serde::Serialize;

use crate::innodb::FormatError;
use crate::innodb::ids::PageNo;
use crate::innodb::keyring::Keyring;
use crate::innodb::page::{PageContext, PageScratch, UnverifiedPage, Verified, is_legacy_doublewrite};
use crate::innodb::space::{EncryptionInfo, TablespaceKey};
use crate::ops::error::{Error, ErrorKind};
use crate::util::fs::FsError;

/// How often a page that looks bad is read: a running server may just be writing it.
const READS: u32 = 5;
const PAUSE: std::time::Duration = std::time::Duration::from_millis(20);

/// A file with its name and size.
pub(super) struct Opened<'p> {
    pub(super) path: &'p Path,
    pub(super) bytes: u64,
    file: File,
}

impl<'p> Opened<'p> {
    pub(super) fn open(path: &'p Path) -> Result<Self, Error> {
        let file = File::open(path).map_err(local("open", path))?;
        let data = file.metadata().map_err(local("look at", path))?;
        if !data.is_file() {
            return Err(Error::new(ErrorKind::LocalIo, format!("{} is no file", path.display())));
        }
        Ok(Self { path, bytes: data.len(), file })
    }

    /// Reads up to `length` bytes at `offset`; fewer at the file's end.
    pub(super) fn read(&self, offset: u64, length: usize) -> Result<Vec<u8>, Error> {
        let mut buffer = vec![0; length];
        let filled = self.read_into(offset, &mut buffer)?;
        buffer.truncate(filled);
        Ok(buffer)
    }

    /// Fills `buffer` from `offset` on, as far as the file goes; says how far.
    pub(super) fn read_into(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, Error> {
        let mut filled = 0_usize;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            let at = offset.saturating_add(u64::try_from(filled).unwrap_or(u64::MAX));
            match self.file.read_at(rest, at) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(local("read", self.path)(error)),
            }
        }
        Ok(filled)
    }
}

/// For `map_err`: a local failure with act and path.
pub(super) fn local(act: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let wrap = FsError::of(act, path);
    move |source| {
        let error = wrap(source);
        Error::new(ErrorKind::LocalIo, error.to_string()).caused_by(error.source)
    }
}

/// For `map_err`: bytes of a file that are not what they should be.
pub(super) fn format(path: &Path) -> impl FnOnce(FormatError) -> Error {
    let name = path.display().to_string();
    move |error| {
        let kind = match error {
            FormatError::KeyMissing { .. } => ErrorKind::KeyMissing,
            _ => ErrorKind::UnsupportedFormat,
        };
        Error::new(kind, format!("{name}: {error}"))
            .advise("check that this is the file that was meant; inspect takes redo and tablespace files of MySQL 8.0.30 and later")
    }
}

/// The wrapped key of a file, for a report. Nothing secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EncryptionLine {
    /// The id in the server's keyring of the master key that wraps it.
    pub master_key: String,
    /// Whether the keyring given opens it; absent when none was given.
    pub opens: Option<bool>,
}

/// Describes the wrapped key and opens it, where the keyring can. One that it cannot open is described as such.
pub(super) fn unwrap(
    info: Option<&EncryptionInfo>,
    keyring: Option<&Keyring>,
) -> (Option<EncryptionLine>, Option<TablespaceKey>) {
    let Some(info) = info else { return (None, None) };
    let key = keyring.map(|keyring| info.unwrap_key(keyring));
    let opens = key.as_ref().map(Result::is_ok);
    (Some(EncryptionLine { master_key: info.master_key_name(), opens }), key.and_then(Result::ok))
}

/// What a page turned out to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "camelCase")]
pub enum Verdict {
    /// Checksum, place and LSN are right.
    Good,
    /// Never written.
    Empty,
    /// Encrypted, and its key is not at hand.
    Encrypted,
    /// In the doublewrite area that older servers kept inside of the system tablespace: its content means nothing.
    Unused,
    /// Something is wrong.
    Bad {
        /// What.
        why: String,
    },
}

/// Judges the page at `offset`, reading again while it looks bad. `bytes` is what was read first, and holds what was
/// read last afterwards.
pub(super) fn judge(
    file: &Opened<'_>,
    offset: u64,
    page: PageNo,
    bytes: &mut [u8],
    context: &PageContext<'_>,
    scratch: &mut PageScratch,
) -> Result<Verdict, Error> {
    let mut reads = 1;
    let unused = is_legacy_doublewrite(context.space, context.flags, page);
    loop {
        let why = match UnverifiedPage::new(bytes, page).verify(context, scratch) {
            Ok(Verified::Zero) => return Ok(Verdict::Empty),
            Ok(Verified::Page(_)) => return Ok(Verdict::Good),
            Ok(Verified::Opaque(_)) => return Ok(Verdict::Encrypted),
            Err(fault) => fault.to_string(),
        };
        if unused {
            return Ok(Verdict::Unused);
        }
        if reads >= READS {
            return Ok(Verdict::Bad { why });
        }
        reads += 1;
        std::thread::sleep(PAUSE);
        let _ = file.read_into(offset, bytes)?;
    }
}
