//! The small JSON objects that the store itself writes and reads.
//!
//! The manifest belongs to the archive; here only the few fields are read by which a commit is told from a tombstone
//! and one attempt's commit from another's.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::archive::id::{AttemptId, BackupId};

/// The format of a repository: keys and the records of this file.
pub(super) const FORMAT: u64 = 1;
/// No record or manifest is larger.
pub(super) const MAX_RECORD: u64 = 1 << 20;

const PRODUCT: &str = "stillframe";

/// Says whose prefix it is. Created once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RepositoryRecord {
    product: String,
    pub(super) format: u64,
    created: Timestamp,
    /// Differs each time it is written, so that a store which replaces it is caught.
    nonce: String,
}

impl RepositoryRecord {
    pub(super) fn new(created: Timestamp) -> Self {
        let nonce = AttemptId::generate().to_string();
        Self { product: PRODUCT.to_owned(), format: FORMAT, created, nonce }
    }

    /// Reads one; `None` if it is somebody else's.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok().filter(|record: &Self| record.product == PRODUCT)
    }
}

/// What a store allows beyond creating and reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Capabilities {
    /// Objects can be listed: needed for `list` and for names in place of ids.
    pub list: bool,
    /// Objects can be deleted: without it `delete` and `prune` report that the data stays.
    pub delete: bool,
}

/// A run is at work on a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LeaseRecord {
    pub(super) id: BackupId,
    pub(super) attempt: AttemptId,
    /// The backup that this one builds on, which must stay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) parent: Option<BackupId>,
    /// Counts the renewals, so that no two are the same bytes.
    pub(super) sequence: u64,
    /// How long after its last write it holds, by the store's clock.
    pub(super) valid_seconds: u64,
    /// Uploads that have begun: a killed run cannot end them, and no store lists them for us.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) uploads: Vec<OpenUpload>,
}

/// An upload in parts that has begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct OpenUpload {
    pub(super) name: String,
    pub(super) upload: String,
}

/// Says that an id is gone for good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Tombstone {
    #[serde(rename = "tombstone")]
    dead: bool,
    /// Beside a manifest: nothing speaks against it, and nobody takes it back any more.
    #[serde(default, rename = "final", skip_serializing_if = "std::ops::Not::not")]
    last: bool,
    id: BackupId,
    /// Why: "deleted", "stale" or "abandoned".
    reason: String,
    time: Timestamp,
    nonce: String,
}

impl Tombstone {
    pub(super) fn new(id: &BackupId, reason: &str, time: Timestamp) -> Self {
        let nonce = AttemptId::generate().to_string();
        Self { dead: true, last: false, id: id.clone(), reason: reason.to_owned(), time, nonce }
    }

    /// What a tombstone beside a manifest becomes when the deletion found the backup in use.
    pub(super) fn withdrawn(id: &BackupId, time: Timestamp) -> Self {
        Self { dead: false, ..Self::new(id, "withdrawn", time) }
    }

    /// What a tombstone beside a manifest becomes when nothing was found that speaks against the deletion.
    pub(super) fn last(id: &BackupId, time: Timestamp) -> Self {
        Self { last: true, ..Self::new(id, "deleted", time) }
    }

    /// Whether these bytes are those of a deletion that nobody takes back any more.
    pub(super) fn is_last(bytes: &[u8]) -> bool {
        serde_json::from_slice::<Self>(bytes).is_ok_and(|found| found.dead && found.last)
    }

    /// Whether these bytes, found beside a manifest, condemn it. What cannot be read does: a tombstone once was there.
    pub(super) fn condemns(bytes: &[u8]) -> bool {
        serde_json::from_slice::<Self>(bytes).map_or(true, |found| found.dead)
    }
}

/// What is at a manifest's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Head {
    Tombstone,
    Manifest { attempt: AttemptId, parent: Option<BackupId> },
}

impl Head {
    /// Looks at the bytes found at the manifest's key of `id`.
    pub(super) fn decode(id: &BackupId, bytes: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Fields {
            #[serde(default)]
            tombstone: bool,
            id: BackupId,
            attempt: Option<AttemptId>,
            parent: Option<BackupId>,
        }
        let fields: Fields = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if fields.id != *id {
            return Err(format!("it is that of backup {}", fields.id));
        }
        match fields.attempt {
            _ if fields.tombstone => Ok(Self::Tombstone),
            Some(attempt) => Ok(Self::Manifest { attempt, parent: fields.parent }),
            None => Err("it names no attempt".to_owned()),
        }
    }
}

/// As JSON. These records hold nothing that JSON could not take.
pub(super) fn encode<T: Serialize>(record: &T) -> Vec<u8> {
    serde_json::to_vec_pretty(record).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::util::clock;

    fn id() -> BackupId {
        "n-20260314T150926Z-1a2b3c4d".parse().unwrap()
    }

    #[test]
    fn a_repository_record_is_told_from_other_json() {
        let record = RepositoryRecord::new(clock::now());
        assert_eq!(RepositoryRecord::decode(&encode(&record)), Some(record));
        assert_eq!(RepositoryRecord::decode(b"{}"), None);
        assert_eq!(RepositoryRecord::decode(b"not json"), None);
        let other = br#"{"product":"other","format":1,"created":"2026-03-14T15:09:26Z","nonce":""}"#;
        assert_eq!(RepositoryRecord::decode(other), None);
    }

    #[test]
    fn a_tombstone_is_told_from_a_manifest() {
        let tombstone = encode(&Tombstone::new(&id(), "stale", clock::now()));
        assert_eq!(Head::decode(&id(), &tombstone), Ok(Head::Tombstone));
        let attempt = AttemptId::generate();
        let manifest = format!(r#"{{"format":1,"id":"{}","attempt":"{attempt}","parent":null,"lsn":{{}}}}"#, id());
        assert_eq!(Head::decode(&id(), manifest.as_bytes()), Ok(Head::Manifest { attempt, parent: None }));
    }

    #[test]
    fn what_is_neither_says_why() {
        for bytes in ["", "{}", "[]", r#"{"id":"n-20260314T150926Z-1a2b3c4d"}"#, r#"{"id":"../x","attempt":"1"}"#] {
            assert!(Head::decode(&id(), bytes.as_bytes()).is_err(), "{bytes}");
        }
        let other = r#"{"id":"m-20260314T150926Z-1a2b3c4d","attempt":"0123456789abcdef"}"#;
        assert!(Head::decode(&id(), other.as_bytes()).unwrap_err().contains("m-2026"));
    }

    #[test]
    fn a_lease_goes_both_ways() {
        let lease = LeaseRecord {
            id: id(),
            attempt: AttemptId::generate(),
            parent: Some(id()),
            sequence: 7,
            valid_seconds: 60,
            uploads: vec![OpenUpload { name: "pack-000001".into(), upload: "u".into() }],
        };
        assert_eq!(serde_json::from_slice::<LeaseRecord>(&encode(&lease)).unwrap(), lease);
    }
}
