//! What every verb is given besides its options: a way to be stopped, and someone to tell how far it is.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::error::Error;
use super::progress::{Progress, Silent};

/// The surroundings of one run of a verb. Cheap to clone; all clones are the same run.
#[derive(Clone)]
pub struct Context {
    /// Cancelled when the run must stop: locks released, nothing left that looks like a result.
    pub cancel: CancellationToken,
    /// Whom to tell about steps and bytes.
    pub progress: Arc<dyn Progress>,
}

impl Context {
    /// A context that reports to `progress`.
    pub fn new(cancel: CancellationToken, progress: Arc<dyn Progress>) -> Self {
        Self { cancel, progress }
    }

    /// A context that nobody watches.
    pub fn silent() -> Self {
        Self::new(CancellationToken::new(), Arc::new(Silent))
    }

    /// Fails once the run was cancelled. For the seams between two steps.
    pub fn check(&self) -> Result<(), Error> {
        if self.cancel.is_cancelled() { Err(Error::cancelled()) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::error::ErrorKind;

    #[test]
    fn a_cancelled_context_stops_at_the_next_seam() {
        let context = Context::silent();
        assert!(context.check().is_ok());
        context.clone().cancel.cancel();
        assert_eq!(context.check().unwrap_err().kind, ErrorKind::Cancelled);
    }
}
