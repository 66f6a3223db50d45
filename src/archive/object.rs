//! Where an archive's bytes go and come from: what this module asks of a store.
//!
//! Names are those of one attempt's objects: `pack-000001`, `index`. The store puts its own prefix before them.

use bytes::Bytes;

/// Why an object could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// It is not there.
    #[error("object {name} is missing")]
    NotFound {
        /// Its name.
        name: String,
    },
    /// The run was told to stop.
    #[error("cancelled")]
    Cancelled,
    /// The store failed, retries included.
    #[error("cannot {act} object {name}")]
    Failed {
        /// Its name.
        name: String,
        /// What was tried.
        act: &'static str,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Takes the objects of one attempt. Blocking; called from plain threads.
pub trait ObjectSink: Send + Sync {
    /// Begins an object of unknown size.
    fn create(&self, name: &str) -> Result<Box<dyn ObjectWriter>, ObjectError>;
}

/// An object that is being written. Dropped unfinished, it is given up.
pub trait ObjectWriter: Send {
    /// Takes the next bytes; blocks while too much is on its way.
    fn write(&mut self, bytes: Bytes) -> Result<(), ObjectError>;

    /// Completes the object: when this returns, the store has it whole.
    fn finish(self: Box<Self>) -> Result<(), ObjectError>;
}

/// Gives the objects of one attempt. Blocking; called from plain threads, several at a time.
pub trait ObjectSource: Send + Sync {
    /// Bytes `offset..offset + length`; an object that ends before is an error.
    fn read(&self, name: &str, offset: u64, length: u64) -> Result<Bytes, ObjectError>;

    /// The object's size in bytes.
    fn size(&self, name: &str) -> Result<u64, ObjectError>;
}
