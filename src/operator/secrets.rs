//! Reading Secrets: by name, each once, and only those that a spec names.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use kube::api::Api;

use super::error::{During, OperatorError};

/// Adds the Secrets of these names to `known`. One that is not there is left out: whoever needs a key says so.
pub(crate) async fn read_secrets(
    client: &Client,
    namespace: &str,
    names: &BTreeSet<String>,
    known: &mut BTreeMap<String, Secret>,
) -> Result<(), OperatorError> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    for name in names {
        if !known.contains_key(name) {
            let secret = secrets.get_opt(name).await.during(|| format!("read secret {namespace}/{name}"))?;
            known.extend(secret.map(|secret| (name.clone(), secret)));
        }
    }
    Ok(())
}
