//! What a reconciliation can fail with: the failed act, its object, and why.

/// A failed act of the operator.
#[derive(Debug, thiserror::Error)]
#[error("cannot {act}: {source}")]
pub struct OperatorError {
    /// What was tried, and on what.
    act: String,
    /// Why it failed.
    source: Box<kube::Error>,
}

impl OperatorError {
    pub(crate) fn connect(source: kube::Error) -> Self {
        Self { act: "reach Kubernetes".to_owned(), source: Box::new(source) }
    }

    /// True if somebody else changed the object meanwhile: the next look will see it.
    pub(crate) fn is_conflict(&self) -> bool {
        matches!(&*self.source, kube::Error::Api(status) if status.code == 409)
    }

    /// What the API server said, if it refused: quota, limits, policy.
    pub(crate) fn refusal(&self) -> Option<&str> {
        match &*self.source {
            kube::Error::Api(status) if matches!(status.code, 400 | 403 | 422) => Some(&status.message),
            _ => None,
        }
    }
}

/// Adds the act to an error of the client.
pub(crate) trait During<T> {
    /// `act` is what was tried: "list pods of shop".
    fn during(self, act: impl FnOnce() -> String) -> Result<T, OperatorError>;
}

impl<T> During<T> for Result<T, kube::Error> {
    fn during(self, act: impl FnOnce() -> String) -> Result<T, OperatorError> {
        self.map_err(|source| OperatorError { act: act(), source: Box::new(source) })
    }
}
