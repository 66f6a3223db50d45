//! From the modules' errors to those of the verbs: which kind each is, and nothing else.
//!
//! Every match names all variants, so that a new one must be sorted here before it compiles.

use crate::archive::ArchiveError;
use crate::archive::object::ObjectError;
use crate::capture::CaptureError;
use crate::innodb::FormatError;
use crate::innodb::page::PageFault;
use crate::innodb::redo::RedoError;
use crate::mysql::MysqlError;
use crate::ops::error::{Error, ErrorKind};
use crate::prepare::PrepareError;
use crate::store::{StoreError, ToldKind};

impl From<CaptureError> for Error {
    fn from(error: CaptureError) -> Self {
        let kind = match &error {
            CaptureError::Io { .. } => ErrorKind::LocalIo,
            CaptureError::Format { source, .. } => format_kind(source),
            CaptureError::CorruptPage { fault: PageFault::Format(FormatError::Unsupported { .. }), .. } => {
                ErrorKind::UnsupportedFormat
            }
            CaptureError::CorruptPage { .. } => ErrorKind::CorruptPage,
            CaptureError::KeyMissing { .. } => ErrorKind::KeyMissing,
            CaptureError::MissingFile { .. } | CaptureError::DuplicateSpace { .. } => ErrorKind::ServerMismatch,
            CaptureError::FileShrank { .. } | CaptureError::RedoReplaced { .. } => ErrorKind::SourceChanged,
            CaptureError::RedoOverwritten { .. } => ErrorKind::RedoOverwritten,
            CaptureError::RedoDisabled { .. } | CaptureError::UndoUnderConstruction { .. } => ErrorKind::Preflight,
            CaptureError::SpoolFull { .. } => ErrorKind::SpoolFull,
            CaptureError::Cancelled => return Self::cancelled(),
            CaptureError::RedoStalled { .. } | CaptureError::Panicked => ErrorKind::Failed,
            CaptureError::Sink(_) => return from_sink(error),
        };
        caused(kind, error)
    }
}

/// A sink fails with an error of the archive; that one says what a person can do.
fn from_sink(error: CaptureError) -> Error {
    match error {
        CaptureError::Sink(source) => match source.downcast::<ArchiveError>() {
            Ok(archive) => Error::from(*archive),
            Err(source) => Error::new(ErrorKind::Failed, source.to_string()).caused_by(source),
        },
        other => caused(ErrorKind::Failed, other),
    }
}

impl From<ArchiveError> for Error {
    fn from(error: ArchiveError) -> Self {
        let kind = match &error {
            ArchiveError::Object(ObjectError::NotFound { .. }) | ArchiveError::Damaged { .. } => {
                ErrorKind::DamagedBackup
            }
            ArchiveError::Unsupported { .. } => ErrorKind::UnsupportedFormat,
            ArchiveError::WrongKey { .. } | ArchiveError::NotEncrypted { .. } => ErrorKind::WrongKey,
            ArchiveError::BadKey { .. } => ErrorKind::Usage,
            ArchiveError::RedoGap { .. } => ErrorKind::DamagedBackup,
            ArchiveError::Cancelled | ArchiveError::Object(ObjectError::Cancelled) => return Self::cancelled(),
            ArchiveError::Object(ObjectError::Failed { .. }) => return from_object(error),
            ArchiveError::Consumer(_) => return from_consumer(error),
            ArchiveError::BadInput { .. } | ArchiveError::Incomplete { .. } | ArchiveError::Machine { .. } => {
                ErrorKind::Failed
            }
        };
        caused(kind, error)
    }
}

/// Failures of objects are the store's.
fn from_object(error: ArchiveError) -> Error {
    match error {
        ArchiveError::Object(ObjectError::Failed { name, act, source }) => match source.downcast::<StoreError>() {
            Ok(store) => Error::from(*store),
            Err(source) => Error::new(ErrorKind::Store, format!("cannot {act} object {name}")).caused_by(source),
        },
        other => caused(ErrorKind::Store, other),
    }
}

/// What a consumer of frames failed with is an error of a verb already.
fn from_consumer(error: ArchiveError) -> Error {
    match error {
        ArchiveError::Consumer(source) => match source.downcast::<Error>() {
            Ok(ours) => *ours,
            Err(source) => Error::new(ErrorKind::Failed, source.to_string()).caused_by(source),
        },
        other => caused(ErrorKind::Failed, other),
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        let kind = match &error {
            StoreError::BadUrl { .. } | StoreError::Settings { .. } => ErrorKind::Usage,
            StoreError::NoCreateOnly { .. } | StoreError::Foreign { .. } => ErrorKind::Preflight,
            StoreError::Directory { .. }
            | StoreError::NoBucket { .. }
            | StoreError::Failed { .. }
            | StoreError::LeaseLost { .. }
            | StoreError::Stopped => ErrorKind::Store,
            StoreError::Denied { .. } => ErrorKind::StoreDenied,
            StoreError::UnknownFormat { .. } => ErrorKind::UnsupportedFormat,
            StoreError::NotFound { .. } | StoreError::Deleted { .. } => ErrorKind::NotFound,
            StoreError::Incomplete { .. } => ErrorKind::IncompleteBackup,
            StoreError::Complete { .. } | StoreError::Protected { .. } | StoreError::Pinned { .. } => {
                ErrorKind::Protected
            }
            StoreError::Missing { .. } | StoreError::Damaged { .. } => ErrorKind::DamagedBackup,
            StoreError::Claimed { .. } => ErrorKind::Cancelled,
            StoreError::Committed { .. } => ErrorKind::Failed,
            StoreError::Elsewhere(told) => match told.kind {
                ToldKind::NotFound | ToldKind::Deleted => ErrorKind::NotFound,
                ToldKind::Incomplete => ErrorKind::IncompleteBackup,
                ToldKind::Damaged => ErrorKind::DamagedBackup,
                ToldKind::Pinned => ErrorKind::Protected,
                ToldKind::Denied => ErrorKind::StoreDenied,
                ToldKind::Unfit => ErrorKind::Preflight,
                ToldKind::UnknownFormat => ErrorKind::UnsupportedFormat,
                ToldKind::Settings => ErrorKind::Usage,
                ToldKind::Other => ErrorKind::Store,
            },
            StoreError::Cancelled => return Self::cancelled(),
        };
        caused(kind, error)
    }
}

impl From<MysqlError> for Error {
    fn from(error: MysqlError) -> Self {
        let kind = match &error {
            MysqlError::Connection { .. } => ErrorKind::Connection,
            MysqlError::Privileges { .. } => ErrorKind::Privileges,
            MysqlError::Preflight { .. } => ErrorKind::Preflight,
            MysqlError::UnsupportedServer { .. } => ErrorKind::UnsupportedServer,
            MysqlError::LockTimeout { .. } => ErrorKind::LockTimeout,
            MysqlError::DdlWaitBudget { .. } => ErrorKind::DdlWaitBudget,
            MysqlError::SourceChanged { .. } => ErrorKind::SourceChanged,
            MysqlError::Cancelled { .. } => return Self::cancelled(),
            MysqlError::Failed { .. } => ErrorKind::Failed,
        };
        let advice = match &error {
            MysqlError::Preflight { advice, .. } => Some(advice.clone()),
            _ => None,
        };
        let converted = caused(kind, error);
        match advice {
            Some(advice) => converted.advise(advice),
            None => converted,
        }
    }
}

fn format_kind(error: &FormatError) -> ErrorKind {
    match error {
        FormatError::KeyMissing { .. } => ErrorKind::KeyMissing,
        FormatError::Unsupported { .. } => ErrorKind::UnsupportedFormat,
        FormatError::Truncated { .. } | FormatError::Checksum { .. } | FormatError::Invalid { .. } => {
            ErrorKind::CorruptPage
        }
    }
}

impl From<RedoError> for Error {
    fn from(error: RedoError) -> Self {
        caused(format_kind(&error.source), error)
    }
}

/// How to go on where the redo itself is not understood, which no way of recovery here can do without.
const LATER_VERSION: &str =
    "restore it with the version of stillframe that took it, or a later one: that knows its redo";
/// How to go on where native recovery cannot.
const OTHER_RECOVERY: &str = "let MySQL apply the redo: --recovery server";
/// The same where it has begun to write.
const OTHER_RECOVERY_AGAIN: &str =
    "report it with the message, and let MySQL apply the redo: --recovery server --overwrite-incomplete";

impl From<PrepareError> for Error {
    fn from(error: PrepareError) -> Self {
        let (kind, advice) = match &error {
            PrepareError::Redo(RedoError { source: FormatError::Unsupported { .. }, .. }) => {
                (ErrorKind::UnsupportedFormat, Some(LATER_VERSION))
            }
            PrepareError::Key { .. }
            | PrepareError::Redo(RedoError { source: FormatError::KeyMissing { .. }, .. })
            | PrepareError::BadPage { fault: PageFault::Format(FormatError::KeyMissing { .. }), .. } => {
                (ErrorKind::KeyMissing, None)
            }
            PrepareError::Redo(_) | PrepareError::WrongEnd { .. } | PrepareError::BadPage { .. } => {
                (ErrorKind::DamagedBackup, None)
            }
            PrepareError::MissingSpace { .. } | PrepareError::Deleted { .. } | PrepareError::BehindEnd { .. } => {
                (ErrorKind::DamagedBackup, Some(OTHER_RECOVERY))
            }
            PrepareError::NotNative { .. } => (ErrorKind::Unsupported, Some(OTHER_RECOVERY)),
            PrepareError::NewerThanLog { .. } | PrepareError::Apply(_) => {
                (ErrorKind::RecoveryFailed, Some(OTHER_RECOVERY_AGAIN))
            }
            PrepareError::Spill { .. } | PrepareError::Memory { .. } => (ErrorKind::LocalIo, None),
            PrepareError::Finish { .. } => (ErrorKind::Failed, None),
        };
        let converted = caused(kind, error);
        match advice {
            Some(advice) => converted.advise(advice),
            None => converted,
        }
    }
}

/// Keeps the error as the cause of one that says the same.
fn caused(kind: ErrorKind, error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(kind, error.to_string()).caused_by(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_error_decides_the_kind() {
        let store = StoreError::NoBucket { url: "s3://b/p".into() };
        let object = ObjectError::Failed { name: "pack-000001".into(), act: "write", source: Box::new(store) };
        let sink = CaptureError::Sink(Box::new(ArchiveError::Object(object)));
        let error = Error::from(sink);
        assert_eq!(error.kind, ErrorKind::Store);
        assert!(error.message.contains("s3://b/p"), "{}", error.message);
        let cancelled = CaptureError::Sink(Box::new(ArchiveError::Cancelled));
        assert_eq!(Error::from(cancelled).kind, ErrorKind::Cancelled);
        let own = ArchiveError::consumer(Error::new(ErrorKind::LocalIo, "disk full"));
        assert_eq!(Error::from(own).kind, ErrorKind::LocalIo);
    }
}
