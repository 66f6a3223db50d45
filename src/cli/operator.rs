//! `stillframe operator`, `stillframe runner`, `stillframe crds`: what Kubernetes needs of this binary.

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
}

/// Runs the controllers until told to stop.
pub(super) async fn run(args: Args, context: &Context) -> Result<Output, Error> {
    let options = operator::OperatorOptions {
        image: args.image,
        namespace: args.namespace.filter(|name| !name.is_empty()),
        runner_log: std::env::var(crate::obs::FILTER_VARIABLE).ok(),
    };
    let ended = operator::run(options, context.cancel.clone()).await;
    ended.map(|()| Output::report(String::new())).map_err(|error| {
        Error::new(ErrorKind::Failed, "the operator cannot work")
            .caused_by(error)
            .advise("check that it runs in a cluster, or that KUBECONFIG names one")
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
