//! `stillframe operator`, `stillframe runner`, `stillframe crds`: what Kubernetes needs of this binary.

use std::net::SocketAddr;

use clap::Args as ClapArgs;

use super::output::Output;
use crate::ops::{Context, Error, ErrorKind};
use crate::{api, operator, runner};

/// The options of the operator.
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// The image of the pods that do the work: the operator's own
    #[arg(long, value_name = "IMAGE", env = "STILLFRAME_IMAGE")]
    image: String,
    /// Look after this namespace only
    #[arg(long, value_name = "NAME", env = "STILLFRAME_NAMESPACE")]
    namespace: Option<String>,
    /// Serve /healthz, /readyz and /metrics there, as in 0.0.0.0:8080; nowhere without it
    #[arg(long, value_name = "ADDRESS", env = "STILLFRAME_LISTEN")]
    listen: Option<SocketAddr>,
    /// The Lease's namespace; the one that is looked after, or the own one, without it
    #[arg(long, value_name = "NAME", env = "POD_NAMESPACE")]
    lease_namespace: Option<String>,
    /// The Lease: operators with the same one take turns
    #[arg(long, value_name = "NAME", default_value = "stillframe-operator")]
    lease_name: String,
}

/// Runs the controllers until told to stop.
pub(super) async fn run(args: Args, context: &Context) -> Result<Output, Error> {
    let options = operator::OperatorOptions {
        image: args.image,
        namespace: args.namespace.filter(|name| !name.is_empty()),
        runner_log: std::env::var(crate::obs::FILTER_VARIABLE).ok(),
        listen: args.listen,
        lease_namespace: args.lease_namespace.filter(|name| !name.is_empty()),
        lease_name: args.lease_name,
    };
    let ended = operator::run(options, context.cancel.clone()).await;
    ended.map(|()| Output::report(String::new())).map_err(|error| {
        Error::new(ErrorKind::Failed, "the operator cannot work").caused_by(error).advise(
            "check that it runs in a cluster, or that KUBECONFIG names one, and that it may read and write its Lease",
        )
    })
}

/// Does one piece of work for the operator.
pub(super) async fn run_runner(context: &Context) -> Result<Output, Error> {
    runner::run(context).await.map(|()| Output::report(String::new()))
}

/// Prints the definitions of all kinds.
pub(super) fn crds() -> Result<Output, Error> {
    let text = api::crds_yaml()
        .map_err(|error| Error::new(ErrorKind::Failed, "the definitions cannot be written").caused_by(error))?;
    Ok(Output::report(text))
}
