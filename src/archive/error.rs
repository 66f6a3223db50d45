//! Why an archive could not be written or read.

use super::object::ObjectError;
use super::wire::Malformed;
use crate::innodb::lsn::Lsn;

/// Why an archive could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The store failed.
    #[error(transparent)]
    Object(ObjectError),
    /// Stored bytes are not those that were written.
    #[error("object {object} is damaged: {what}")]
    Damaged {
        /// The object.
        object: String,
        /// What is wrong: where, what was expected, what was found.
        what: String,
    },
    /// A later version wrote this.
    #[error("object {object} has a form that is not known here: {what}")]
    Unsupported {
        /// The object.
        object: String,
        /// What is not known.
        what: String,
    },
    /// None of the keys given opens the backup.
    #[error(
        "the backup opens with one of the keys {}; given {}",
        wanted.join(", "),
        if given.is_empty() { "none".to_owned() } else { given.join(", ") }
    )]
    WrongKey {
        /// Ids of the keys that do.
        wanted: Vec<String>,
        /// Ids of the keys given.
        given: Vec<String>,
    },
    /// Keys were given for a backup that says of itself that it is not encrypted. To accept that, give none.
    #[error("the backup is not encrypted, but the keys {} were given; give none to accept that", given.join(", "))]
    NotEncrypted {
        /// Ids of the keys given.
        given: Vec<String>,
    },
    /// Text or bytes are no key.
    #[error("not a key: {why}")]
    BadKey {
        /// Why.
        why: &'static str,
    },
    /// Redo does not follow on what is there.
    #[error("the redo has a gap: LSN {expected} should follow, found LSN {found}")]
    RedoGap {
        /// Where the next segment must begin.
        expected: Lsn,
        /// Where it begins.
        found: Lsn,
    },
    /// What is to be stored contradicts itself.
    #[error("cannot store {what}: {why}")]
    BadInput {
        /// What.
        what: String,
        /// Why.
        why: String,
    },
    /// Something given to the writer did not get to its end, so nothing may be called complete.
    #[error("the archive is incomplete: {what}")]
    Incomplete {
        /// What is missing.
        what: String,
    },
    /// A compressor or cipher failed, which none does for want of anything but memory or randomness.
    #[error("cannot {act}")]
    Machine {
        /// What was tried.
        act: &'static str,
    },
    /// Whoever takes what is read failed.
    #[error("cannot take what was read")]
    Consumer(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The run was told to stop.
    #[error("cancelled")]
    Cancelled,
}

impl ArchiveError {
    /// For consumers of frames: wraps their own failure.
    pub fn consumer(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Consumer(source.into())
    }

    /// The object that is at fault, where it is one.
    pub fn object(&self) -> Option<&str> {
        match self {
            Self::Damaged { object, .. } | Self::Unsupported { object, .. } => Some(object),
            Self::Object(ObjectError::NotFound { name } | ObjectError::Failed { name, .. }) => Some(name),
            _ => None,
        }
    }

    /// True when it says something of the backup. A store that does not answer, or an end that was asked for, does not.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Object(ObjectError::NotFound { .. }) => true,
            Self::Object(_) | Self::Cancelled | Self::Machine { .. } | Self::Consumer(_) => false,
            _ => true,
        }
    }

    pub(super) fn damaged(object: &str, what: impl Into<String>) -> Self {
        Self::Damaged { object: object.to_owned(), what: what.into() }
    }

    /// For `map_err`: says in which object the bytes are, and in which part of it.
    pub(super) fn malformed(object: &str, part: impl std::fmt::Display) -> impl FnOnce(Malformed) -> Self {
        move |malformed| {
            let object = object.to_owned();
            let part = part.to_string();
            let what =
                if part.is_empty() { malformed.what.into_owned() } else { format!("{part}: {}", malformed.what) };
            if malformed.unsupported { Self::Unsupported { object, what } } else { Self::Damaged { object, what } }
        }
    }
}

impl From<ObjectError> for ArchiveError {
    fn from(error: ObjectError) -> Self {
        match error {
            ObjectError::Cancelled => Self::Cancelled,
            other => Self::Object(other),
        }
    }
}
