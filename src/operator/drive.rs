//! How every controller runs: its watches become looks at objects, and a look that failed is taken again.
//!
//! ```text
//!   Controller (watches) ─► look, so many side by side ─┬─ when to look again
//!                           logged with the object's key,├─ somebody else was faster ─► soon
//!                           counted                      └─ an error, said ─► a little later
//! ```
//! Owns no decision about any object.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use kube::core::NamespaceResourceScope;
use kube::runtime::controller::{Action, Config, Controller};
use kube::{Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::Context;
use super::error::OperatorError;
use super::names::key;

/// How soon after an error.
const AFTER_ERROR: Duration = Duration::from_secs(5);
/// How soon after somebody else was faster.
const AFTER_CONFLICT: Duration = Duration::from_millis(500);

/// Runs a controller until told to stop. `name` is its name in logs and metrics.
pub(super) async fn drive<K, L, F>(
    name: &'static str,
    controller: Controller<K>,
    concurrency: u16,
    context: Arc<Context>,
    stop: CancellationToken,
    look: L,
) where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned
        + Send
        + Sync
        + 'static,
    L: Fn(Arc<K>, Arc<Context>) -> F,
    F: Future<Output = Result<Action, OperatorError>> + Send + 'static,
{
    let reconcile = |object: Arc<K>, context: Arc<Context>| {
        let span = tracing::info_span!("look", controller = name, object = %key(object.as_ref()));
        let look = Box::pin(look(object, Arc::clone(&context)));
        async move { context.counted(name, look).await }.instrument(span)
    };
    controller
        .with_config(Config::default().concurrency(concurrency))
        .graceful_shutdown_on(stop.cancelled_owned())
        .run(reconcile, after_error, context)
        .for_each(async |done| {
            if let Err(error) = done {
                tracing::debug!(%error, "a reconciliation did not end well");
            }
        })
        .await;
}

#[expect(clippy::needless_pass_by_value, reason = "the controller hands it over")]
fn after_error<K: ResourceExt>(object: Arc<K>, error: &OperatorError, _: Arc<Context>) -> Action {
    if error.is_conflict() {
        return Action::requeue(AFTER_CONFLICT);
    }
    tracing::warn!(object = %key(object.as_ref()), %error, "will be tried again");
    Action::requeue(AFTER_ERROR)
}
