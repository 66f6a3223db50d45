//! What the operator can fail with: the failed act, its object, and why.

use std::net::SocketAddr;

/// A failed act of the operator.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// Kubernetes refused, or did not answer.
    #[error("cannot {act}: {source}")]
    Kubernetes {
        /// What was tried, and on what.
        act: String,
        /// Why it failed.
        source: Box<kube::Error>,
    },
    /// Health and metrics cannot be served.
    #[error("cannot listen at {address}: {source}; choose another --listen")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// Somebody else leads, or nobody can say who does.
    #[error("the lease {lease} is lost: {why}; all work was dropped, so that another process can go on with it")]
    LeaseLost {
        /// Namespace and name.
        lease: String,
        /// How.
        why: String,
    },
}

impl OperatorError {
    pub(crate) fn connect(source: kube::Error) -> Self {
        Self::Kubernetes { act: "reach Kubernetes".to_owned(), source: Box::new(source) }
    }

    fn answer(&self) -> Option<&kube::core::Status> {
        match self {
            Self::Kubernetes { source, .. } => match &**source {
                kube::Error::Api(status) => Some(status),
                _ => None,
            },
            Self::Listen { .. } | Self::LeaseLost { .. } => None,
        }
    }

    /// True if somebody else changed the object meanwhile: the next look will see it.
    pub(crate) fn is_conflict(&self) -> bool {
        self.answer().is_some_and(|status| status.code == 409)
    }

    /// True if this operator has no right to it.
    pub(crate) fn is_forbidden(&self) -> bool {
        self.answer().is_some_and(|status| status.code == 403)
    }

    /// What the API server said, if it refused: quota, limits, policy.
    pub(crate) fn refusal(&self) -> Option<&str> {
        self.answer().filter(|status| matches!(status.code, 400 | 403 | 422)).map(|status| status.message.as_str())
    }
}

/// Adds the act to an error of the client.
pub(crate) trait During<T> {
    /// `act` is what was tried: "list pods of shop".
    fn during(self, act: impl FnOnce() -> String) -> Result<T, OperatorError>;
}

impl<T> During<T> for Result<T, kube::Error> {
    fn during(self, act: impl FnOnce() -> String) -> Result<T, OperatorError> {
        self.map_err(|source| OperatorError::Kubernetes { act: act(), source: Box::new(source) })
    }
}
