//! The controllers: a folder for each kind, and what they share.
//!
//! ```text
//!   watch ─► reconcile ─► gather ─► validate ─► build ─► apply ─► status
//!              driver     client     pure       pure     client    pure words, one patch
//! ```
//!
//! One process of all that run leads (`leader`): the others wait. None does before the cluster has the definitions that
//! it needs (`definitions`).
//!
//! Owns what objects of the cluster are made, and every word of every status: it is the only writer of them. Touches
//! no database and no file of one; that is the runner's work. Believes nothing about a backup but what the storage
//! says.

pub(crate) mod backup;
pub(crate) mod backup_storage;
pub(crate) mod cron;
mod definitions;
mod drive;
pub(crate) mod error;
pub(crate) mod inside;
mod leader;
pub(crate) mod names;
pub(crate) mod pods;
pub(crate) mod quantity;
pub(crate) mod restore;
pub(crate) mod retention;
pub(crate) mod runners;
pub(crate) mod secrets;
pub(crate) mod storage;
pub(crate) mod store_access;
mod store_pod;
pub(crate) mod watched;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::Api;
use kube::client::ClientBuilder;
use kube::core::NamespaceResourceScope;
use kube::runtime::events::{Recorder, Reporter};
use kube::{Client, Config, Resource};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::util::MapRequestLayer;

use crate::obs::http::{self, Pages};
use crate::obs::metrics::Metrics;
use crate::util::clock;
use leader::{Election, Pulse};
use store_access::Manifests;
use watched::Caches;

pub use error::OperatorError;

/// How long the cluster's id is waited for.
const CLUSTER_ID_PATIENCE: Duration = Duration::from_secs(5);

/// What the operator is told.
#[derive(Debug, Clone)]
pub struct OperatorOptions {
    /// The image of runners: the operator's own.
    pub image: String,
    /// Looks after this namespace only. Unset: after all.
    pub namespace: Option<String>,
    /// The log filter of runners.
    pub runner_log: Option<String>,
    /// Where health and metrics are served. Unset: nowhere.
    pub listen: Option<SocketAddr>,
    /// The namespace of the Lease. Unset: the one looked after, or else the client's own.
    pub lease_namespace: Option<String>,
    /// The name of the Lease: operators of the same name take turns.
    pub lease_name: String,
}

/// What all controllers share.
pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) recorder: Recorder,
    pub(crate) options: OperatorOptions,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) caches: Arc<Caches>,
    pub(crate) manifests: Manifests,
    /// Which cluster this is, where that could be read.
    pub(crate) cluster_id: Option<String>,
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

    /// Does a controller's look at an object, and counts it.
    pub(crate) async fn counted<T>(
        &self,
        controller: &'static str,
        look: impl Future<Output = Result<T, OperatorError>>,
    ) -> Result<T, OperatorError> {
        let began = std::time::Instant::now();
        let outcome = look.await;
        // That somebody else was faster is no fault of anybody.
        let well = outcome.as_ref().err().is_none_or(OperatorError::is_conflict);
        self.metrics.reconciled(controller, began.elapsed(), well);
        outcome
    }
}

/// Waits for its turn, then runs all controllers until told to stop. An error: the turn was lost, or never came.
pub async fn run(options: OperatorOptions, stop: CancellationToken) -> Result<(), OperatorError> {
    let (metrics, caches) = (Arc::new(Metrics::new()), Arc::new(Caches::default()));
    let client = connect(&metrics).await?;
    let pulse = Arc::new(Pulse::new(clock::now()));
    // Pages end with the turn, however it ends.
    let serving = stop.child_token();
    let mut pages = serve_pages(&options, &metrics, &pulse, &serving).await?;
    let ended = lead(options, client, metrics, caches, &pulse, stop).await;
    serving.cancel();
    while let Some(served) = pages.join_next().await {
        if let Err(error) = served {
            tracing::error!(%error, "health and metrics were served no more");
        }
    }
    ended
}

/// Waits for its turn, and runs all controllers while it lasts.
async fn lead(
    options: OperatorOptions,
    client: Client,
    metrics: Arc<Metrics>,
    caches: Arc<Caches>,
    pulse: &Arc<Pulse>,
    stop: CancellationToken,
) -> Result<(), OperatorError> {
    let lease_namespace = options.lease_namespace.clone().or_else(|| options.namespace.clone());
    let lease_namespace = lease_namespace.unwrap_or_else(|| client.default_namespace().to_owned());
    let me = identity(clock::now());
    let reporter = Reporter { controller: names::MANAGER.to_owned(), instance: Some(me.clone()) };
    let recorder = Recorder::new(client.clone(), reporter);
    if !definitions::wait(&client, pulse, &stop).await {
        return Ok(());
    }
    let cluster_id = cluster_id(&client).await;
    let mut election = Election::new(&client, &lease_namespace, &options.lease_name, me, pulse);
    if !election.win(&stop).await {
        return Ok(());
    }
    let looked = Arc::clone(&caches);
    metrics.look_with(move || looked.look());
    let leads = Arc::clone(&metrics);
    let context =
        Arc::new(Context { client, recorder, options, metrics, caches, manifests: Manifests::default(), cluster_id });
    // The lease is kept until the last controller has come to rest. When it is lost, they are dropped where they are.
    let ended = tokio::select! {
        () = work(context, pulse, stop) => Ok(()),
        lost = election.keep() => Err(lost),
    };
    leads.leads(false);
    if ended.is_ok() {
        election.release().await;
    }
    ended
}

/// What tells this cluster from others that use the same bucket: the uid of a namespace that every cluster has and none
/// shares. It cannot be read where rights end at one namespace; backups then do not say it.
async fn cluster_id(client: &Client) -> Option<String> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    match tokio::time::timeout(CLUSTER_ID_PATIENCE, namespaces.get("kube-system")).await {
        Ok(Ok(namespace)) => namespace.metadata.uid,
        Ok(Err(error)) => {
            tracing::info!(%error, "backups will not say which cluster made them");
            None
        }
        Err(_) => {
            let seconds = CLUSTER_ID_PATIENCE.as_secs();
            tracing::warn!(seconds, "the API server did not answer: backups will not say which cluster made them");
            None
        }
    }
}

/// A turn may come long after the definitions were looked at.
async fn work(context: Arc<Context>, pulse: &Pulse, stop: CancellationToken) {
    if definitions::wait(&context.client, pulse, &stop).await {
        context.metrics.leads(true);
        run_controllers(context, stop).await;
    }
}

/// Each ends only when told to: one that ended by itself is no operator any more.
async fn run_controllers(context: Arc<Context>, stop: CancellationToken) {
    let backups = backup::run(Arc::clone(&context), stop.clone());
    let restores = restore::run(Arc::clone(&context), stop.clone());
    let schedules = cron::run(Arc::clone(&context), stop.clone());
    let storages = backup_storage::run(context, stop);
    let _ = tokio::join!(backups, restores, schedules, storages);
}

/// A client whose requests are counted.
async fn connect(metrics: &Arc<Metrics>) -> Result<Client, OperatorError> {
    let infer = |error| OperatorError::connect(kube::Error::InferConfig(error));
    let config = Config::infer().await.map_err(infer)?;
    let counts = Arc::clone(metrics);
    let count = MapRequestLayer::new(move |request: hyper::Request<kube::client::Body>| {
        counts.requested(request.method().as_str());
        request
    });
    Ok(ClientBuilder::try_from(config).map_err(OperatorError::connect)?.with_layer(&count).build())
}

/// Who this process is in its Lease: its pod or machine, and when it began, since a pod's containers come and go.
fn identity(now: Timestamp) -> String {
    let host = std::env::var("HOSTNAME").unwrap_or_else(|_| "operator".to_owned());
    format!("{host}_{}_{:x}", std::process::id(), now.as_millisecond())
}

/// The task that serves them: it is dropped with the set.
async fn serve_pages(
    options: &OperatorOptions,
    metrics: &Arc<Metrics>,
    pulse: &Arc<Pulse>,
    stop: &CancellationToken,
) -> Result<JoinSet<()>, OperatorError> {
    let mut pages = JoinSet::new();
    let Some(address) = options.listen else { return Ok(pages) };
    let listener = http::listen(address).await.map_err(|source| OperatorError::Listen { address, source })?;
    let told = Told { metrics: Arc::clone(metrics), pulse: Arc::clone(pulse) };
    pages.spawn(http::serve(listener, Arc::new(told), stop.clone()));
    Ok(pages)
}

struct Told {
    metrics: Arc<Metrics>,
    pulse: Arc<Pulse>,
}

impl Pages for Told {
    fn health(&self) -> Result<(), String> {
        self.pulse.health(clock::now())
    }

    fn readiness(&self) -> Result<(), String> {
        self.pulse.readiness(clock::now())
    }

    fn metrics(&self) -> String {
        self.metrics.render()
    }
}
