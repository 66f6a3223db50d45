//! The manifest: one small JSON document that makes a backup of a heap of objects. (docs/format/manifest.md.)
//!
//! ```text
//!   encode ─► JSON, "hmac" or "digest": 64 zeros ─► HMAC or SHA-256 over the bytes ─► digits in their place
//!   decode ─► size · format number · JSON · digest · sanity
//!             the HMAC is checked by whoever has the key: ArchiveReader::open
//! ```

use std::collections::BTreeMap;

use aws_lc_rs::{digest, hmac};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::codec::Codec;
use super::id::{AttemptId, BackupId};
use super::keys::{ArchiveKeys, Salt, random_salt};
use super::redo::RedoRef;
use super::table::TableRef;
use super::{ArchiveError, FORMAT};
use crate::innodb::ids::PageSize;
use crate::innodb::lsn::Lsn;

/// The manifest is below this size, whatever the backup's.
pub const MAX_MANIFEST_BYTES: usize = 1 << 20;
const OBJECT: &str = "manifest.json";
/// Stands in for the HMAC or the digest while that is computed.
const NO_DIGITS: &str = "0000000000000000000000000000000000000000000000000000000000000000";
const CIPHER: &str = "AES-256-GCM";

/// What a backup is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Number of the stored format.
    pub format: u32,
    /// The name given; several backups may share it.
    pub name: String,
    /// The id, unique forever.
    pub id: BackupId,
    /// The run that made it: part of its objects' keys.
    pub attempt: AttemptId,
    /// What a user attached.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// What had it made.
    #[serde(default)]
    pub origin: Origin,
    /// Full or incremental.
    #[serde(rename = "type")]
    pub backup_type: BackupType,
    /// The backup that it builds on.
    pub parent: Option<BackupId>,
    /// Where it comes from.
    pub server: Server,
    /// The redo range.
    pub lsn: LsnRange,
    /// The redo log.
    pub redo: RedoInfo,
    /// The binary log at the cut.
    pub binlog: Option<BinlogPosition>,
    /// Every transaction that the backup holds.
    pub gtid_executed: String,
    /// Those of them that the server's binary logs do not have any more.
    #[serde(default)]
    pub gtid_purged: String,
    /// When it began.
    pub start_time: Timestamp,
    /// When it was complete.
    pub completion_time: Timestamp,
    /// From the first connection to the commit.
    #[serde(default)]
    pub duration_seconds: u64,
    /// How long the backup lock was held.
    #[serde(default)]
    pub lock_held_milliseconds: u64,
    /// How long the global read lock was held.
    #[serde(default)]
    pub global_read_lock_milliseconds: u64,
    /// How long DDL was seen waiting.
    #[serde(default)]
    pub ddl_wait_milliseconds: u64,
    /// Sizes.
    pub bytes: ByteCounts,
    /// Pages.
    pub pages: PageCounts,
    /// How blocks are compressed.
    pub codec: Codec,
    /// How blocks are sealed.
    pub cipher: Option<CipherInfo>,
    /// The tables that lead to everything else.
    pub contents: Contents,
    /// What a person should know.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// HMAC of the document; set by [`Manifest::encode`], kept by [`Manifest::decode`].
    #[serde(default, skip_serializing_if = "Digits::is_none")]
    pub hmac: Digits,
    /// SHA-256 of a document without cipher, which has no HMAC; set and kept in the same way.
    #[serde(default, skip_serializing_if = "Digits::is_none")]
    pub digest: Digits,
}

/// What had a backup made; all empty for a person with a shell.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Origin {
    /// The cluster's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_id: Option<String>,
    /// The namespace of the object that asked for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The schedule that asked for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,
    /// The uid of the object that asked for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
}

/// Whether a backup stands alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum BackupType {
    /// Holds every page.
    Full,
    /// Holds what changed since its parent.
    Incremental,
}

/// The server that was backed up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Server {
    /// As the server says it.
    pub version: String,
    /// As the server says it: who built it.
    #[serde(default)]
    pub version_comment: String,
    /// `server_uuid`.
    pub uuid: String,
    /// Size of its pages.
    pub page_size: PageSize,
    /// Its variable of that name, which a restore must match.
    pub lower_case_table_names: u32,
    /// Variables that a restore must match or that one wants to know.
    #[serde(default)]
    pub settings: BTreeMap<String, String>,
    /// No recorded test run covers this version.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub untested: bool,
    /// Names of the keyring's keys that the server's encrypted files and logs open with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub master_keys: Vec<String>,
    /// What it was among its kind when the backup began. Unset: nobody asked it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// The channels by which it followed others at the cut; the default one has an empty name. Its tables know of them,
    /// and their relay logs are in no backup.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub channels: Vec<String>,
}

/// What a server is among its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// It takes writes.
    Primary,
    /// It follows another one.
    Replica,
}

/// The LSNs of a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LsnRange {
    /// Where recovery starts.
    pub checkpoint: Lsn,
    /// The point in time that the backup is.
    pub end: Lsn,
    /// Since when the server kept track of changed pages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page_tracking_start: Option<Lsn>,
}

/// The redo log that was captured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RedoInfo {
    /// Its uuid.
    pub log_uuid: u32,
    /// Who wrote it.
    pub creator: String,
    /// The encryption block of its files' headers, in hex, where it is encrypted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption_block: Option<String>,
}

/// A place in the binary log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BinlogPosition {
    /// The file's name, without directory.
    pub file: String,
    /// The byte in it.
    pub position: u64,
}

/// What went in and what it takes in the store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ByteCounts {
    /// Read from the server's files, redo included.
    pub read: u64,
    /// Written to the store.
    pub stored: u64,
}

/// The pages of a backup.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PageCounts {
    /// Copied, each with a good checksum.
    pub copied: u64,
    /// All zero.
    pub zero: u64,
    /// Read more than once.
    pub reread: u64,
    /// Encrypted by the server and copied without a look inside.
    #[serde(default)]
    pub unverified: u64,
}

/// How an archive is sealed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CipherInfo {
    /// The cipher's name.
    pub algorithm: String,
    /// Ids of the keys that opened it when it was made.
    pub key_ids: Vec<String>,
    /// Salt of the HMAC's key, in hex.
    pub salt: String,
}

impl CipherInfo {
    pub(super) fn new(key_ids: Vec<String>) -> Result<Self, ArchiveError> {
        Ok(Self { algorithm: CIPHER.to_owned(), key_ids, salt: hex::encode(random_salt()?) })
    }

    fn salt(&self) -> Option<Salt> {
        let mut salt = [0; 32];
        hex::decode_to_slice(&self.salt, &mut salt).ok()?;
        Some(salt)
    }
}

/// The LSNs that the stored redo spans.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RedoRange {
    /// Where its first block begins.
    pub start: Lsn,
    /// Where it was cut.
    pub end: Lsn,
    /// Number of segments.
    pub segments: u64,
}

impl RedoRange {
    pub(super) fn of(segments: &[RedoRef]) -> Option<Self> {
        let (first, last) = (segments.first()?, segments.last()?);
        Some(Self { start: first.start, end: last.end, segments: super::wire::to_u64(segments.len()) })
    }
}

/// What the archive consists of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Contents {
    /// The index, in order of names.
    pub index: Vec<TableRef>,
    /// The list of packs.
    pub objects: TableRef,
    /// The list of redo segments.
    pub redo_table: TableRef,
    /// The file table.
    pub files: TableRef,
    /// Number of packs.
    pub pack_count: u64,
    /// Number of redo packs.
    pub redo_pack_count: u64,
    /// Number of objects, tables included; keys and manifest not.
    pub object_count: u64,
    /// Number of frames in packs.
    pub frame_count: u64,
    /// Bytes of all these objects.
    pub total_bytes: u64,
    /// The redo in them.
    pub redo: Option<RedoRange>,
}

/// The HMAC or the digest of a manifest, with the bytes that it covers.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(from = "Option<String>", into = "Option<String>")]
pub struct Digits {
    digits: Option<String>,
    covered: Vec<u8>,
}

impl Digits {
    fn is_none(&self) -> bool {
        self.digits.is_none()
    }
}

impl Digits {
    /// Keeps what the digits cover: the document with zeros in their place.
    fn cover(&mut self, document: &[u8]) -> Option<()> {
        let at = place_of_digits(document, self.digits.as_ref()?)?;
        self.covered = document.to_vec();
        for (to, from) in self.covered.iter_mut().skip(at).zip(NO_DIGITS.bytes()) {
            *to = from;
        }
        Some(())
    }

    /// Takes the digits for a digest, and compares.
    fn verify(&self) -> Result<(), String> {
        let found = hex::encode(digest::digest(&digest::SHA256, &self.covered));
        if self.digits.as_ref().is_some_and(|digits| *digits == found) {
            return Ok(());
        }
        Err("its digest is wrong: it was changed after it was written".to_owned())
    }
}

impl PartialEq for Digits {
    fn eq(&self, other: &Self) -> bool {
        self.digits == other.digits
    }
}

impl Eq for Digits {}

impl From<Option<String>> for Digits {
    fn from(digits: Option<String>) -> Self {
        Self { digits, covered: Vec::new() }
    }
}

impl From<Digits> for Option<String> {
    fn from(own: Digits) -> Self {
        own.digits
    }
}

/// The one member that every format has.
#[derive(Deserialize)]
struct FormatOnly {
    format: u32,
}

impl Manifest {
    /// The document as it is stored. `keys` are the archive's where it is encrypted.
    pub fn encode(&self, keys: Option<&ArchiveKeys>) -> Result<Vec<u8>, ArchiveError> {
        let bad = |why: String| ArchiveError::BadInput { what: "the manifest".to_owned(), why };
        self.check().map_err(bad)?;
        let key = match (&self.cipher, keys) {
            (None, None) => None,
            (Some(cipher), Some(keys)) => {
                let salt = cipher.salt().ok_or_else(|| bad("its salt is no hex".to_owned()))?;
                Some(keys.manifest_key(&salt)?)
            }
            _ => return Err(bad("its cipher and the keys given do not go together".to_owned())),
        };
        let (none, place) = (Digits::default(), Digits::from(Some(NO_DIGITS.to_owned())));
        let (hmac, digest) = if key.is_some() { (place, none) } else { (none, place) };
        let document = Self { hmac, digest, ..self.clone() };
        let mut bytes = serde_json::to_vec_pretty(&document).map_err(|error| bad(error.to_string()))?;
        let digits = match key {
            Some(key) => hex::encode(hmac::sign(&key, &bytes)),
            None => hex::encode(digest::digest(&digest::SHA256, &bytes)),
        };
        let at = place_of_no_digits(&bytes).ok_or_else(|| bad("it has no place for its digits".to_owned()))?;
        for (to, from) in bytes.iter_mut().skip(at).zip(digits.bytes()) {
            *to = from;
        }
        if bytes.len() >= MAX_MANIFEST_BYTES {
            return Err(bad(format!("it would have {} bytes, 1 MiB is the most", bytes.len())));
        }
        Ok(bytes)
    }

    /// Reads a manifest. Its HMAC, where it has one, is checked when the archive is opened.
    pub fn decode(bytes: &[u8]) -> Result<Self, ArchiveError> {
        let damaged = |what: String| ArchiveError::damaged(OBJECT, what);
        if bytes.len() >= MAX_MANIFEST_BYTES {
            return Err(damaged(format!("it has {} bytes, 1 MiB is the most", bytes.len())));
        }
        let FormatOnly { format } = serde_json::from_slice(bytes).map_err(|error| damaged(error.to_string()))?;
        if format != u32::from(FORMAT) {
            let what = format!("format number {format}; this version reads {FORMAT}");
            return Err(ArchiveError::Unsupported { object: OBJECT.to_owned(), what });
        }
        let mut manifest: Self = serde_json::from_slice(bytes).map_err(|error| damaged(error.to_string()))?;
        if let Some(cipher) = &manifest.cipher
            && cipher.algorithm != CIPHER
        {
            let what = format!("cipher {}", cipher.algorithm);
            return Err(ArchiveError::Unsupported { object: OBJECT.to_owned(), what });
        }
        let Self { cipher, hmac, digest, .. } = &mut manifest;
        let unclear = || damaged("its HMAC or digest is not 64 hex digits that are there once".to_owned());
        match cipher {
            None => {
                digest.cover(bytes).ok_or_else(unclear)?;
                digest.verify().map_err(damaged)?;
            }
            // Whoever has the key checks it, and that it is there.
            Some(_) if hmac.is_none() => {}
            Some(_) => hmac.cover(bytes).ok_or_else(unclear)?,
        }
        manifest.check().map_err(damaged)?;
        Ok(manifest)
    }

    /// Checks that the document is the one that was made with these keys.
    pub(super) fn verify_hmac(&self, keys: &ArchiveKeys) -> Result<(), ArchiveError> {
        let damaged = |what: &str| ArchiveError::damaged(OBJECT, what);
        let salt = self.cipher.as_ref().and_then(CipherInfo::salt).ok_or_else(|| damaged("its salt is no hex"))?;
        let digits = self.hmac.digits.as_ref().ok_or_else(|| damaged("it is encrypted but has no HMAC"))?;
        let tag = hex::decode(digits).map_err(|_| damaged("its HMAC is no hex"))?;
        hmac::verify(&keys.manifest_key(&salt)?, &self.hmac.covered, &tag)
            .map_err(|_| damaged("its HMAC is wrong: it was changed after it was written"))
    }

    fn check(&self) -> Result<(), String> {
        if self.name != self.id.name() {
            return Err(format!("its name is {}, its id {}", self.name, self.id));
        }
        if self.lsn.checkpoint > self.lsn.end {
            return Err(format!(
                "its checkpoint, LSN {}, is behind its end, LSN {}",
                self.lsn.checkpoint, self.lsn.end
            ));
        }
        if (self.backup_type == BackupType::Incremental) != self.parent.is_some() {
            return Err("an increment has a parent, a full backup has none".to_owned());
        }
        let redo = self.contents.redo.as_ref().ok_or("it has no redo")?;
        if redo.start > self.lsn.checkpoint || redo.end != self.lsn.end {
            return Err(format!(
                "its redo goes from LSN {} to {}, needed is {} to {}",
                redo.start, redo.end, self.lsn.checkpoint, self.lsn.end
            ));
        }
        if self.redo.encryption_block.as_ref().is_some_and(|block| hex::decode(block).is_err()) {
            return Err("the encryption block of its redo is no hex".to_owned());
        }
        Ok(())
    }
}

/// Where the zeros stand that are to become the HMAC or the digest: the last member. Other members may have as many
/// zeros, as the encryption block of a redo log has.
fn place_of_no_digits(bytes: &[u8]) -> Option<usize> {
    let zeros = bytes.windows(NO_DIGITS.len()).rposition(|window| window == NO_DIGITS.as_bytes())?;
    let before = bytes.get(..zeros)?;
    (before.ends_with(b"\"hmac\": \"") || before.ends_with(b"\"digest\": \"")).then_some(zeros)
}

/// Where the 64 digits stand, if that is clear.
fn place_of_digits(bytes: &[u8], digits: &str) -> Option<usize> {
    let digits = digits.as_bytes();
    if digits.len() != NO_DIGITS.len() || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let mut places = bytes.windows(digits.len()).enumerate().filter(|(_, window)| *window == digits);
    let (at, _) = places.next()?;
    places.next().is_none().then_some(at)
}
