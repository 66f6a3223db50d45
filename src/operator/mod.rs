//! The controllers: a folder for each kind, and what they share.
//!
//! ```text
//!   watch ─► reconcile ─► gather ─► validate ─► build ─► apply ─► status
//!              driver     client     pure       pure     client    pure words, one patch
//! ```
//!
//! Owns what objects of the cluster are made, and every word of every status: it is the only writer of them. Touches
//! no database and no file of one; that is the runner's work. Believes nothing about a backup but what the storage
//! says.

pub(crate) mod backup;
pub(crate) mod backup_storage;
pub(crate) mod cron;
pub(crate) mod error;
pub(crate) mod names;
pub(crate) mod pods;
pub(crate) mod quantity;
pub(crate) mod retention;
pub(crate) mod secrets;
pub(crate) mod storage;

use std::sync::Arc;

use kube::api::Api;
use kube::core::NamespaceResourceScope;
use kube::runtime::events::{Recorder, Reporter};
use kube::{Client, Resource};
use tokio_util::sync::CancellationToken;

pub use error::OperatorError;

/// What the operator is told.
#[derive(Debug, Clone)]
pub struct OperatorOptions {
    /// The image of runners: the operator's own.
    pub image: String,
    /// Looks after this namespace only. Unset: after all.
    pub namespace: Option<String>,
    /// The log filter of runners.
    pub runner_log: Option<String>,
}

/// What all controllers share.
pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) recorder: Recorder,
    pub(crate) options: OperatorOptions,
}

impl Context {
    /// The objects of a kind that this operator looks after.
    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        match &self.options.namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        }
    }
}

/// Runs all controllers until told to stop.
pub async fn run(options: OperatorOptions, stop: CancellationToken) -> Result<(), OperatorError> {
    let client = Client::try_default().await.map_err(OperatorError::connect)?;
    let reporter = Reporter { controller: names::MANAGER.to_owned(), instance: std::env::var("HOSTNAME").ok() };
    let recorder = Recorder::new(client.clone(), reporter);
    let context = Arc::new(Context { client, recorder, options });
    // Each ends only when told to: one that ended by itself is no operator any more.
    let backups = backup::run(Arc::clone(&context), stop.clone());
    let schedules = cron::run(Arc::clone(&context), stop.clone());
    let storages = backup_storage::run(context, stop);
    let _ = tokio::join!(backups, schedules, storages);
    Ok(())
}
