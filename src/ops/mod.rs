//! The verbs: what a person, a script or a pod asks for, each `XxxOptions -> run(&Context) -> XxxReport`.
//!
//! ```text
//!   options ──► run(context, options) ──► report
//!                 │ progress, cancel        or Error { kind }
//! ```
//!
//! Knows the engine's modules and puts them together. Knows no command line, no terminal and no cluster.

pub mod backup;
pub mod context;
mod convert;
pub mod delete;
pub mod error;
pub mod grants;
#[cfg(test)]
mod handmade;
pub mod inspect;
mod keyring;
pub mod list;
pub mod options;
pub mod pin;
pub mod progress;
pub mod prune;
pub mod report;
pub mod restore;
pub mod role;
mod segments;
pub mod show;
pub mod storage;
mod stored;
mod structure;
pub mod verify;

pub use context::Context;
pub use error::{Error, ErrorKind};
pub use progress::Progress;

/// Runs work that blocks (files, compression) where it stops nobody, and hands back its outcome.
async fn blocking<T, F>(work: F) -> Result<T, Error>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, Error> + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(error) => Err(Error::new(ErrorKind::Failed, "a working thread ended without a word").caused_by(error)),
    }
}
