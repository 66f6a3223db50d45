//! A store in memory, for tests of whatever writes and reads archives.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::object::{ObjectError, ObjectSink, ObjectSource, ObjectWriter};

/// Objects by name. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore {
    objects: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
}

impl MemoryStore {
    /// The objects, to look at or to damage.
    pub fn objects(&self) -> MutexGuard<'_, BTreeMap<String, Vec<u8>>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Writer {
    store: MemoryStore,
    name: String,
    bytes: Vec<u8>,
}

impl ObjectSink for MemoryStore {
    fn create(&self, name: &str) -> Result<Box<dyn ObjectWriter>, ObjectError> {
        Ok(Box::new(Writer { store: self.clone(), name: name.to_owned(), bytes: Vec::new() }))
    }
}

impl ObjectWriter for Writer {
    fn write(&mut self, bytes: Bytes) -> Result<(), ObjectError> {
        self.bytes.extend_from_slice(&bytes);
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<(), ObjectError> {
        let Self { store, name, bytes } = *self;
        let _ = store.objects().insert(name, bytes);
        Ok(())
    }
}

impl ObjectSource for MemoryStore {
    fn read(&self, name: &str, offset: u64, length: u64) -> Result<Bytes, ObjectError> {
        let objects = self.objects();
        let object = objects.get(name).ok_or_else(|| ObjectError::NotFound { name: name.to_owned() })?;
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let end = start.saturating_add(usize::try_from(length).unwrap_or(usize::MAX));
        object.get(start..end).map(Bytes::copy_from_slice).ok_or_else(|| ObjectError::Failed {
            name: name.to_owned(),
            act: "read",
            source: format!("it has {} bytes, {offset}+{length} were wanted", object.len()).into(),
        })
    }

    fn size(&self, name: &str) -> Result<u64, ObjectError> {
        let objects = self.objects();
        let object = objects.get(name).ok_or_else(|| ObjectError::NotFound { name: name.to_owned() })?;
        Ok(u64::try_from(object.len()).unwrap_or(u64::MAX))
    }
}
