//! Where archives live: a directory, or part of a bucket. The only place that names `object_store`.
//!
//! ```text
//!   StoreUrl ──► Repository ──┬─ probe      does this store keep its word? whose prefix is it?
//!                             ├─ begin ───► Run ── sink (uploads) ── put_key ── prove ── commit ── finish
//!                             │              └ lease, renewed while it works         └─ or abandon
//!                             ├─ list, resolve, read_manifest, read_keys, objects (downloads)
//!                             ├─ read_marks, update_marks, set_pinned
//!                             ├─ survey, answer (for those who cannot reach it)
//!                             └─ delete, remove_stale
//! ```
//!
//! Owns keys, commits, leases, tombstones, retries, uploads and downloads. Never looks into an object of the archive,
//! but for the id, attempt and parent in a manifest. Everything is async but [`crate::archive::object::ObjectSink`]
//! and `ObjectSource`, which block and are called from plain threads.
//!
//! Two rules make it safe. A backup exists only once its manifest does, which is created by one PUT that fails if
//! anything is at its key. And whoever takes a backup away first puts a tombstone at that key: a run that was thought
//! dead and wakes up later cannot commit any more. Leases only say who is alive; no safety rests on a clock.

mod ask;
mod bridge;
mod client;
mod connect;
mod download;
mod error;
mod explain;
mod file;
mod layout;
mod lease;
mod local;
mod marks;
mod probe;
mod record;
mod remove;
mod repository;
mod retry;
mod run;
mod settings;
mod upload;
mod url;

pub use self::ask::{Answer, Content, Listed, Look, PackError, Question, Told, ToldKind, explain, tell};
pub use self::error::StoreError;
pub use self::explain::Cause;
pub use self::marks::Marks;
pub use self::record::Capabilities;
pub use self::remove::Removal;
pub use self::repository::{BackupState, Repository, StoredBackup};
pub use self::run::{Run, RunOptions};
pub use self::settings::StoreSettings;
pub use self::url::StoreUrl;
