//! Reading one attempt's objects from plain threads: exactly the bytes asked for, or an error that names the object.

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use crate::archive::id::{AttemptId, BackupId};
use crate::archive::object::{ObjectError, ObjectSource};

use super::bridge::wait;
use super::error::StoreError;
use super::explain::Class;
use super::repository::Repository;
use super::retry::Failed;

/// The objects of one attempt.
pub(super) struct Source {
    repository: Repository,
    id: BackupId,
    attempt: AttemptId,
    cancel: CancellationToken,
}

impl Source {
    pub(super) fn new(repository: Repository, id: BackupId, attempt: AttemptId, cancel: CancellationToken) -> Self {
        Self { repository, id, attempt, cancel }
    }
}

impl ObjectSource for Source {
    fn read(&self, name: &str, offset: u64, length: u64) -> Result<Bytes, ObjectError> {
        let client = self.repository.client.clone();
        let key = self.repository.layout.object(&self.id, &self.attempt, name);
        let patience = client.patient(&self.cancel);
        let done =
            wait(
                self.repository.client.runtime(),
                async move { client.get_range(&key, offset, length, &patience).await },
            );
        flatten(done, name, "read")
    }

    fn size(&self, name: &str) -> Result<u64, ObjectError> {
        let client = self.repository.client.clone();
        let key = self.repository.layout.object(&self.id, &self.attempt, name);
        let patience = client.steady(&self.cancel);
        let done = wait(self.repository.client.runtime(), async move { client.stat(&key, &patience).await });
        flatten(done, name, "look at").map(|stat| stat.size)
    }
}

fn flatten<T>(done: Result<Result<T, Failed>, StoreError>, name: &str, act: &'static str) -> Result<T, ObjectError> {
    match done {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(failed)) if failed.is(Class::Missing) => Err(ObjectError::NotFound { name: name.to_owned() }),
        Ok(Err(failed)) => Err(object_error(failed.into(), name, act)),
        Err(error) => Err(object_error(error, name, act)),
    }
}

/// A store's failure as the archive knows it.
pub(super) fn object_error(error: StoreError, name: &str, act: &'static str) -> ObjectError {
    match error {
        StoreError::Cancelled => ObjectError::Cancelled,
        error => ObjectError::Failed { name: name.to_owned(), act, source: Box::new(error) },
    }
}
