//! From plain threads to the network runtime and back.
//!
//! ```text
//!   plain thread  ── spawn(future) ──►  runtime
//!        └────── waits on a channel ◄── result
//! ```
//!
//! `Handle::block_on` would panic if a blocking call were made on the runtime by mistake; a channel only waits.

use std::future::Future;

use tokio::runtime::Handle;

use super::error::StoreError;

/// Runs a future on the runtime and waits for it. Fails if the runtime ends before.
pub(super) fn wait<T: Send + 'static>(
    runtime: &Handle,
    future: impl Future<Output = T> + Send + 'static,
) -> Result<T, StoreError> {
    let (send, receive) = std::sync::mpsc::sync_channel(1);
    drop(runtime.spawn(async move {
        // Nobody listens any more only if the waiting thread is gone.
        let _ = send.send(future.await);
    }));
    receive.recv().map_err(|_| StoreError::Stopped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_comes_back_and_an_ended_runtime_is_an_error() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let handle = runtime.handle().clone();
        assert_eq!(wait(&handle, async { 7 }).unwrap(), 7);
        runtime.shutdown_background();
        assert!(matches!(wait(&handle, async { 7 }), Err(StoreError::Stopped)));
    }
}
