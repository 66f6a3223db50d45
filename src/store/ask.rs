//! Questions about a store as documents, so that a process which can reach it answers for one that cannot.
//!
//! ```text
//!   here                         in a pod that has the volume, or the identity
//!   Question ─► JSON ──────────► Repository::answer ─► Answer ─► packed (zstd, base64)
//!   Result<T, StoreError> ◄───── Told (an error, with what callers tell apart) ◄┘
//! ```
//!
//! An answer is as good as the process that gives it: it is asked by a request of its own, for one purpose.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::archive::id::BackupId;
use crate::archive::manifest::{BackupType, Manifest};

use super::error::StoreError;
use super::explain::whole_text;
use super::marks::Marks;
use super::record::Capabilities;
use super::remove::Removal;
use super::repository::{BackupState, Repository, StoredBackup};

/// Longest packed answer: it must fit into an object of Kubernetes, beside others.
const MOST_PACKED: usize = 900 << 10;
/// Longest answer when unpacked: a list of a hundred thousand backups is a tenth of it.
const MOST_UNPACKED: u64 = 128 << 20;

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Question {
    /// Can backups go there, and what is there?
    Look {
        /// Whether something may be written to find out.
        write: bool,
    },
    /// A backup's manifest.
    Manifest {
        /// Which.
        id: BackupId,
    },
    /// What is there of a backup.
    State {
        /// Which.
        id: BackupId,
    },
    /// A backup is to go.
    Delete {
        /// Which.
        id: BackupId,
    },
    /// A run at work is to give up.
    CallOff {
        /// Which.
        id: BackupId,
    },
    /// What is said of a backup.
    ReadMarks {
        /// Which.
        id: BackupId,
    },
    /// Something else is to be said of it, if this is what is said now.
    SwapMarks {
        /// Which.
        id: BackupId,
        /// What is said now.
        before: Marks,
        /// What is to be said.
        after: Marks,
    },
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Answer {
    /// To `Look`.
    Look(Look),
    /// To `Manifest`: the text as stored.
    Manifest(String),
    /// To `State`.
    State(Option<BackupState>),
    /// To `Delete`: the store keeps the data.
    Deleted {
        /// True if it does.
        retained: bool,
    },
    /// To `CallOff`: it was not complete yet.
    CalledOff {
        /// True if it was not.
        in_time: bool,
    },
    /// To `ReadMarks`, and to `SwapMarks`: what they are then.
    Marks(Marks),
    /// It could not be done.
    Failed(Told),
}

/// What a look into a store found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Look {
    /// What is allowed there.
    pub capabilities: Capabilities,
    /// What is there; absent where it may not be listed.
    pub content: Option<Content>,
}

/// What a store holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// Complete backups whose manifest can be read.
    pub complete: Vec<Listed>,
    /// Ids that have a tombstone: nothing can ever be there again.
    pub deleted: Vec<BackupId>,
}

/// A complete backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// Its id.
    pub id: BackupId,
    /// What it takes.
    pub stored_bytes: u64,
    /// Of which type it is.
    pub backup_type: BackupType,
    /// What is said of it.
    pub marks: Marks,
}

/// An error as a document: what callers tell apart, and the words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// Which kind.
    pub kind: ToldKind,
    /// What it said, with its causes.
    pub text: String,
}

/// The kinds of errors that callers tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToldKind {
    /// No such backup.
    NotFound,
    /// It was deleted.
    Deleted,
    /// It was never completed.
    Incomplete,
    /// It, or something of it, is damaged or missing.
    Damaged,
    /// It is pinned.
    Pinned,
    /// The store refused.
    Denied,
    /// The store, or what is in it, is none that backups can be in.
    Unfit,
    /// It is of a later format.
    UnknownFormat,
    /// The settings make no sense.
    Settings,
    /// Anything else.
    Other,
}

impl Repository {
    /// Looks whether backups can go there and what is there.
    pub async fn survey(&self, write: bool) -> Result<Look, StoreError> {
        // Nothing is written to one that is only read, not even to find out.
        let capabilities = if write { self.probe().await? } else { Capabilities { list: true, delete: false } };
        if !capabilities.list {
            return Ok(Look { capabilities, content: None });
        }
        let mut content = Content::default();
        let note = |StoredBackup { id, state, marks }: StoredBackup| match state {
            BackupState::Complete { manifest } => {
                let Ok(manifest) = Manifest::decode(&manifest) else { return };
                let (stored_bytes, backup_type) = (manifest.bytes.stored, manifest.backup_type);
                content.complete.push(Listed { id, stored_bytes, backup_type, marks });
            }
            BackupState::Deleted { .. } => content.deleted.push(id),
            BackupState::Running | BackupState::Stale | BackupState::Damaged { .. } => {}
        };
        self.list_each(note).await?;
        Ok(Look { capabilities, content: Some(content) })
    }

    /// Answers a question. That it could not be done is an answer, too.
    pub async fn answer(&self, question: Question) -> Answer {
        self.try_answer(question).await.unwrap_or_else(|error| Answer::Failed(tell(&error)))
    }

    /// As [`Self::answer`], with the error as it is.
    pub async fn try_answer(&self, question: Question) -> Result<Answer, StoreError> {
        Ok(match question {
            Question::Look { write } => Answer::Look(self.survey(write).await?),
            Question::Manifest { id } => Answer::Manifest(text(self.read_manifest(&id).await?)),
            Question::State { id } => Answer::State(self.state(&id).await?),
            Question::Delete { id } => Answer::Deleted { retained: self.delete(&id).await? == Removal::Retained },
            Question::CallOff { id } => Answer::CalledOff { in_time: self.call_off(&id).await? },
            Question::ReadMarks { id } => Answer::Marks(self.read_marks(&id).await?),
            Question::SwapMarks { id, before, after } => {
                let swap = |now: &Marks| if *now == before { after.clone() } else { now.clone() };
                Answer::Marks(self.update_marks(&id, swap).await?)
            }
        })
    }
}

/// A manifest that is no text will not decode as one either, and says so then.
fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

/// Manifests in documents: as the text that they are.
pub(super) mod manifest_text {
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&String::from_utf8_lossy(bytes))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        String::deserialize(from).map(String::into_bytes)
    }
}

/// An error as a document.
pub fn tell(error: &StoreError) -> Told {
    let kind = match error {
        StoreError::NotFound { .. } => ToldKind::NotFound,
        StoreError::Deleted { .. } => ToldKind::Deleted,
        StoreError::Incomplete { .. } => ToldKind::Incomplete,
        StoreError::Damaged { .. } | StoreError::Missing { .. } => ToldKind::Damaged,
        StoreError::Pinned { .. } => ToldKind::Pinned,
        StoreError::Denied { .. } => ToldKind::Denied,
        StoreError::NoCreateOnly { .. } | StoreError::Foreign { .. } => ToldKind::Unfit,
        StoreError::UnknownFormat { .. } => ToldKind::UnknownFormat,
        StoreError::BadUrl { .. } | StoreError::Settings { .. } => ToldKind::Settings,
        StoreError::Elsewhere(told) => return told.clone(),
        StoreError::Directory { .. }
        | StoreError::NoBucket { .. }
        | StoreError::Failed { .. }
        | StoreError::Complete { .. }
        | StoreError::Protected { .. }
        | StoreError::Claimed { .. }
        | StoreError::Committed { .. }
        | StoreError::LeaseLost { .. }
        | StoreError::Cancelled
        | StoreError::Stopped => ToldKind::Other,
    };
    Told { kind, text: explain(error) }
}

impl From<Told> for StoreError {
    fn from(told: Told) -> Self {
        Self::Elsewhere(told)
    }
}

/// An error with its causes, those left out that only repeat the one above.
pub fn explain(error: &StoreError) -> String {
    whole_text(error)
}

impl StoreError {
    /// True if there is nothing usable under an id, and waiting does not change that.
    pub fn is_nothing(&self) -> bool {
        let kind = tell(self).kind;
        matches!(kind, ToldKind::NotFound | ToldKind::Deleted | ToldKind::Incomplete | ToldKind::Damaged)
    }
}

/// What is wrong with a packed answer.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// It is too long to be handed over.
    #[error(
        "the answer takes {bytes} bytes, more than can be handed over: give the backups of this store several ones"
    )]
    TooLong {
        /// How long it is.
        bytes: usize,
    },
    /// It cannot be read or written.
    #[error("the answer cannot be read: {why}")]
    Unreadable {
        /// Why.
        why: String,
    },
}

impl Answer {
    /// The answer as a text that fits into an object of Kubernetes.
    pub fn pack(&self) -> Result<String, PackError> {
        let unreadable = |why: String| PackError::Unreadable { why };
        let json = serde_json::to_vec(self).map_err(|error| unreadable(error.to_string()))?;
        let packed = zstd::bulk::compress(&json, 3).map_err(|error| unreadable(error.to_string()))?;
        let text = STANDARD.encode(packed);
        if text.len() > MOST_PACKED {
            return Err(PackError::TooLong { bytes: text.len() });
        }
        Ok(text)
    }

    /// Reads a packed answer.
    pub fn unpack(text: &str) -> Result<Self, PackError> {
        let unreadable = |why: String| PackError::Unreadable { why };
        let packed = STANDARD.decode(text).map_err(|error| unreadable(error.to_string()))?;
        let decoder = zstd::stream::Decoder::new(packed.as_slice()).map_err(|error| unreadable(error.to_string()))?;
        // Whoever packed it may be wrong, or not who he should be.
        let bounded = std::io::Read::take(decoder, MOST_UNPACKED);
        serde_json::from_reader(bounded).map_err(|error| unreadable(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: usize) -> BackupId {
        format!("nightly-20260314T150926Z-{number:08x}").parse().unwrap()
    }

    #[test]
    fn questions_and_answers_survive_the_way() {
        let marks = Marks { pinned: true, expiration_time: None };
        for question in [
            Question::Look { write: true },
            Question::SwapMarks { id: id(1), before: Marks::default(), after: marks.clone() },
        ] {
            let text = serde_json::to_string(&question).unwrap();
            assert_eq!(serde_json::from_str::<Question>(&text).unwrap(), question);
        }
        for answer in [
            Answer::Manifest("{}".into()),
            Answer::State(None),
            Answer::State(Some(BackupState::Complete { manifest: "m".into() })),
            Answer::Failed(tell(&StoreError::Deleted { id: id(1) })),
            Answer::Marks(marks),
        ] {
            assert_eq!(Answer::unpack(&answer.pack().unwrap()).unwrap(), answer);
        }
        assert!(Answer::unpack("no answer").is_err());
    }

    #[test]
    fn a_list_of_twenty_thousand_backups_can_be_handed_over() {
        let mut content = Content::default();
        for number in 0..20_000_usize {
            // What an id has of chance is what cannot be packed.
            let chance = number.wrapping_mul(2_654_435_761) & 0xffff_ffff;
            content.complete.push(Listed {
                id: id(chance),
                stored_bytes: u64::try_from(chance).unwrap(),
                backup_type: BackupType::Full,
                marks: Marks::default(),
            });
        }
        let capabilities = Capabilities { list: true, delete: true };
        let answer = Answer::Look(Look { capabilities, content: Some(content) });
        assert_eq!(Answer::unpack(&answer.pack().unwrap()).unwrap(), answer);
    }
}
