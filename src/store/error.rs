//! What a store can fail with. Messages name the act and the object's address, never a credential.

use crate::archive::id::{AttemptId, BackupId};

use super::ask::Told;
use super::explain::Cause;

/// A failure of the store, or of what it was asked to do.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The text is no store's address.
    #[error("{why}")]
    BadUrl {
        /// What is wrong with it.
        why: &'static str,
    },
    /// The environment's settings for this store make no sense together.
    #[error("the settings for {url} are wrong: {why}")]
    Settings {
        /// The store.
        url: String,
        /// What is wrong.
        why: String,
    },
    /// The directory of a file store cannot be made or used.
    #[error("cannot use {url}: {why}")]
    Directory {
        /// The store.
        url: String,
        /// What is wrong.
        why: String,
    },
    /// The bucket or container does not exist.
    #[error("{url} is in a bucket that does not exist")]
    NoBucket {
        /// The store.
        url: String,
    },
    /// The store refused: credentials or permissions.
    #[error("not allowed to {act} {object}")]
    Denied {
        /// What was tried.
        act: &'static str,
        /// On what.
        object: String,
        /// What the store said.
        source: Cause,
    },
    /// The store could not be reached, or kept failing.
    #[error("cannot {act} {object}")]
    Failed {
        /// What was tried.
        act: &'static str,
        /// On what.
        object: String,
        /// What was seen last.
        source: Cause,
    },
    /// The store replaces objects that it was told to create only, so no commit in it is safe.
    #[error("{url} does not refuse to create an object that exists: {why}")]
    NoCreateOnly {
        /// The store.
        url: String,
        /// What it did.
        why: String,
    },
    /// The prefix holds things of others.
    #[error("{url} is not empty and no repository of stillframe: it holds {found}")]
    Foreign {
        /// The store.
        url: String,
        /// The first that was found.
        found: String,
    },
    /// The repository was made by a later version.
    #[error("{url} has format {format}, which this version does not know")]
    UnknownFormat {
        /// The store.
        url: String,
        /// Its format.
        format: u64,
    },
    /// There is no such backup.
    #[error("there is no backup {backup} in {url}")]
    NotFound {
        /// Name or id.
        backup: String,
        /// The store.
        url: String,
    },
    /// The backup was deleted.
    #[error("backup {id} was deleted")]
    Deleted {
        /// Which.
        id: BackupId,
    },
    /// The backup was never completed.
    #[error("backup {id} is not complete: {state}")]
    Incomplete {
        /// Which.
        id: BackupId,
        /// Whether its run goes on or died.
        state: &'static str,
    },
    /// The backup is complete, so it has no remains of a dead run.
    #[error("backup {id} is complete")]
    Complete {
        /// Which.
        id: BackupId,
    },
    /// An object that must be there is not.
    #[error("{object} is missing")]
    Missing {
        /// Which.
        object: String,
    },
    /// An object is not what it must be.
    #[error("{object} is damaged: {why}")]
    Damaged {
        /// Which.
        object: String,
        /// In which way.
        why: String,
    },
    /// The backup is in use.
    #[error("backup {id} is in use: {why}")]
    Protected {
        /// Which.
        id: BackupId,
        /// By what.
        why: String,
    },
    /// The backup is pinned.
    #[error("backup {id} is pinned: take the pin away first")]
    Pinned {
        /// Which.
        id: BackupId,
    },
    /// Somebody else deleted or gave up this run's backup while it was going on.
    #[error("backup {id} was cancelled by somebody else")]
    Claimed {
        /// Which.
        id: BackupId,
    },
    /// Another attempt committed this id first.
    #[error("backup {id} was committed by attempt {attempt}")]
    Committed {
        /// Which.
        id: BackupId,
        /// Whose.
        attempt: AttemptId,
    },
    /// The run can no longer say that it is alive.
    #[error("the lease of backup {id} was lost: {why}")]
    LeaseLost {
        /// Which.
        id: BackupId,
        /// How.
        why: String,
    },
    /// It failed in another process, which was asked because it can reach the store.
    #[error("{}", .0.text)]
    Elsewhere(Told),
    /// Told to stop.
    #[error("cancelled")]
    Cancelled,
    /// The network runtime is gone, or a task of it died.
    #[error("the store's tasks ended early")]
    Stopped,
}
