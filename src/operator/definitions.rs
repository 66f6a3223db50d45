//! Are the cluster's definitions of our kinds those that this program needs? Asked before it takes its turn in the
//! election, so that an old operator goes on at work when a new one came without its definitions; and once more when it
//! leads, for it may have waited for months.
//!
//! ```text
//!   read each ─► compare ─┬─ no field of ours is missing ─► on
//!                         └─ not there, not served, older ─► not ready, and said; looked at again, ever more seldom
//! ```
//! A definition may be newer: what it has more is another operator's. What an older one lacks, the API server would drop
//! from every object that is written, and nobody would know. Touches no definition: whoever installs does.

use std::time::Duration;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, CustomResourceDefinitionVersion, JSONSchemaProps, JSONSchemaPropsOrArray,
    JSONSchemaPropsOrBool,
};
use kube::api::Api;
use kube::{Client, ResourceExt};
use tokio_util::sync::CancellationToken;

use super::error::{During, OperatorError};
use super::leader::Pulse;
use crate::api;
use crate::util::backoff::Backoff;
use crate::util::clock;

/// The first wait at most, then twice that, and so on.
const FIRST: Duration = Duration::from_secs(2);
/// The longest wait: below what health takes for stuck.
const LONGEST: Duration = Duration::from_secs(20);
/// How long one request may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is wrong with a definition.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unfit {
    /// It is not there.
    #[error("the definition {name} is missing")]
    Missing { name: String },
    /// It was made a moment ago, or its names are somebody else's.
    #[error("the definition {name} is not established")]
    NotEstablished { name: String },
    /// It has no such version, or does not serve it.
    #[error("the definition {name} does not serve {}", api::VERSION)]
    NotServed { name: String },
    /// It is an older one.
    #[error("the definition {name} is older than this operator: it lacks {what}")]
    Lacks { name: String, what: String },
}

/// Waits until the definitions are what this program needs. False if it was told to stop before.
pub(crate) async fn wait(client: &Client, pulse: &Pulse, stop: &CancellationToken) -> bool {
    let (api, ours) = (Api::all(client.clone()), api::crds());
    let mut backoff = Backoff::new(FIRST, LONGEST);
    let mut said = None;
    loop {
        pulse.took_turn(clock::now());
        match look(&api, &ours).await {
            Ok(unfit) => {
                let wrong = advice(&unfit);
                pulse.was_answered(clock::now());
                pulse.definitions_are(wrong.clone());
                let Some(wrong) = wrong else {
                    if said.is_some() {
                        tracing::info!("the definitions are what they should be: going on");
                    }
                    return true;
                };
                if said.as_ref() != Some(&wrong) {
                    tracing::error!("not ready: {wrong}");
                }
                said = Some(wrong);
            }
            Err(error) if error.is_forbidden() => {
                tracing::warn!(%error, "it cannot be seen whether the definitions are those of this version: going on");
                // Whatever was wrong before: it is not known to be any more.
                pulse.definitions_are(None);
                return true;
            }
            Err(error) => tracing::warn!(%error, "the definitions cannot be looked at yet"),
        }
        tokio::select! {
            () = stop.cancelled() => return false,
            () = tokio::time::sleep(backoff.next_delay()) => {}
        }
    }
}

/// Everything that is wrong, and what to do about it.
fn advice(unfit: &[Unfit]) -> Option<String> {
    if unfit.is_empty() {
        return None;
    }
    let all: Vec<String> = unfit.iter().map(ToString::to_string).collect();
    Some(format!("{}; apply those of this version: kubectl apply --server-side -f crds/", all.join("; ")))
}

async fn look(
    api: &Api<CustomResourceDefinition>,
    ours: &[CustomResourceDefinition],
) -> Result<Vec<Unfit>, OperatorError> {
    let mut unfit = Vec::new();
    for own in ours {
        let name = own.name_any();
        let read = tokio::time::timeout(PATIENCE, api.get_opt(&name)).await;
        let read = read.unwrap_or_else(|_| Err(kube::Error::Service("no answer in time".into())));
        unfit.extend(compare(own, read.during(|| format!("read the definition {name}"))?.as_ref()));
    }
    Ok(unfit)
}

/// Compares a definition with the one that is there.
fn compare(own: &CustomResourceDefinition, there: Option<&CustomResourceDefinition>) -> Option<Unfit> {
    let name = own.name_any();
    let Some(there) = there else { return Some(Unfit::Missing { name }) };
    let (Some(own), Some(served)) = (served_by(own), served_by(there)) else { return Some(Unfit::NotServed { name }) };
    if let Some(what) = lacking(own, served) {
        return Some(Unfit::Lacks { name, what });
    }
    let mut conditions = there.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let established = conditions.any(|condition| condition.type_ == "Established" && condition.status == "True");
    (!established).then_some(Unfit::NotEstablished { name })
}

/// Our version of a definition.
fn served_by(definition: &CustomResourceDefinition) -> Option<&CustomResourceDefinitionVersion> {
    definition.spec.versions.iter().find(|version| version.name == api::VERSION && version.served)
}

fn schema_of(version: &CustomResourceDefinitionVersion) -> Option<&JSONSchemaProps> {
    version.schema.as_ref()?.open_api_v3_schema.as_ref()
}

/// What a version lacks that ours has: the first of it.
fn lacking(own: &CustomResourceDefinitionVersion, there: &CustomResourceDefinitionVersion) -> Option<String> {
    let has_status = |version: &CustomResourceDefinitionVersion| {
        version.subresources.as_ref().is_some_and(|all| all.status.is_some())
    };
    if has_status(own) && !has_status(there) {
        return Some("the subresource status".to_owned());
    }
    match (schema_of(own), schema_of(there)) {
        (Some(own), Some(there)) => lacking_field(own, there, ""),
        (Some(_), None) => Some("its schema".to_owned()),
        (None, _) => None,
    }
}

/// The path of the first field, or value of a field, that a schema lacks.
fn lacking_field(own: &JSONSchemaProps, there: &JSONSchemaProps, path: &str) -> Option<String> {
    if there.x_kubernetes_preserve_unknown_fields == Some(true) {
        return None;
    }
    // Where any value may be, every one of ours may.
    let values = own.enum_.iter().flatten().filter(|_| there.enum_.is_some());
    let mut values = values.filter(|value| !there.enum_.iter().flatten().any(|known| known == *value));
    if let Some(value) = values.next() {
        return Some(format!("{path}: {}", value.0));
    }
    let mut fields = own.properties.iter().flatten();
    let field = fields.find_map(|(name, own)| {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        match there.properties.as_ref().and_then(|fields| fields.get(name)) {
            Some(there) => lacking_field(own, there, &path),
            None => Some(path),
        }
    });
    field
        .or_else(|| match (&own.items, &there.items) {
            (Some(JSONSchemaPropsOrArray::Schema(own)), Some(JSONSchemaPropsOrArray::Schema(there))) => {
                lacking_field(own, there, &format!("{path}[]"))
            }
            _ => None,
        })
        .or_else(|| match (&own.additional_properties, &there.additional_properties) {
            (Some(JSONSchemaPropsOrBool::Schema(own)), Some(JSONSchemaPropsOrBool::Schema(there))) => {
                lacking_field(own, there, &format!("{path}.*"))
            }
            _ => None,
        })
}

#[cfg(test)]
#[path = "definitions_tests.rs"]
mod tests;
