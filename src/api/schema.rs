//! Pieces of JSON schema that the derive cannot say, and the finish that every generated schema gets.
//!
//! ```text
//!   Rust type ──derive──► schema ──finish()──► structural, no "nullable", no unsigned formats, one-line descriptions
//!                                 ──freeze()──► one CEL rule per immutable field of spec
//! ```

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool, ValidationRule,
};
use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

/// CEL rules with what a person reads when one is broken: `[(rule, message)]`.
pub(super) fn rules(rules: &[(&str, &str)]) -> Value {
    rules.iter().map(|(rule, message)| json!({"rule": rule, "message": message})).collect()
}

/// The name of an object: a DNS subdomain.
pub(super) fn object_name(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "minLength": 1,
        "maxLength": 253,
        "pattern": "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$",
    })
}

/// A key of a Secret or ConfigMap.
pub(super) fn data_key(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "minLength": 1, "maxLength": 253, "pattern": "^[-._a-zA-Z0-9]+$"})
}

/// An amount, as Kubernetes writes it.
pub(super) fn quantity(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "x-kubernetes-int-or-string": true,
        "anyOf": [{"type": "integer"}, {"type": "string"}],
        "pattern": "^([0-9]+|[0-9]*\\.[0-9]+)(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$",
    })
}

/// Amounts by the name of a resource.
pub(super) fn quantity_map(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "maxProperties": 16, "additionalProperties": quantity(generator)})
}

/// Labels or annotations.
pub(super) fn label_map(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 64,
        "additionalProperties": {"type": "string", "maxLength": 4096},
    })
}

/// Which pods: as in any selector of Kubernetes.
pub(super) fn pod_selector(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "properties": {
            "matchLabels": {
                "type": "object",
                "description": "Labels that a pod must have, each with this value.",
                "maxProperties": 32,
                "additionalProperties": {"type": "string", "maxLength": 63},
            },
            "matchExpressions": {
                "type": "array",
                "description": "Further requirements on a pod's labels. All must hold.",
                "maxItems": 16,
                "items": {
                    "type": "object",
                    "required": ["key", "operator"],
                    "properties": {
                        "key": {"type": "string", "maxLength": 317, "description": "The label."},
                        "operator": {
                            "type": "string",
                            "enum": ["In", "NotIn", "Exists", "DoesNotExist"],
                            "description": "How the label's value is compared.",
                        },
                        "values": {
                            "type": "array",
                            "maxItems": 64,
                            "items": {"type": "string", "maxLength": 63},
                            "description": "The values, for In and NotIn.",
                        },
                    },
                },
            },
        },
        "x-kubernetes-map-type": "atomic",
        "x-kubernetes-validations": rules(&[(
            "(has(self.matchLabels) && size(self.matchLabels) > 0) \
             || (has(self.matchExpressions) && size(self.matchExpressions) > 0)",
            "an empty selector would choose any pod: set matchLabels or matchExpressions",
        )]),
    })
}

/// Conditions: one of each type, merged by type.
pub(super) fn conditions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 16,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "required": ["type", "status", "reason", "message", "lastTransitionTime"],
            "properties": {
                "type": {"type": "string", "maxLength": 316, "description": "What the condition is about."},
                "status": {
                    "type": "string",
                    "enum": ["True", "False", "Unknown"],
                    "description": "Whether it holds.",
                },
                "reason": {
                    "type": "string",
                    "minLength": 1,
                    "maxLength": 1024,
                    "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
                    "description": "Why, in one word. The runbook has a page on each.",
                },
                "message": {"type": "string", "maxLength": 32768, "description": "Why, and what to do, for people."},
                "lastTransitionTime": {
                    "type": "string",
                    "format": "date-time",
                    "description": "When the status last changed.",
                },
                "observedGeneration": {
                    "type": "integer",
                    "format": "int64",
                    "description": "The generation of the object that this was said about.",
                },
            },
        },
    })
}

/// Makes a derived definition what this API promises.
///
/// `nullable` goes because a null would count as set in CEL; unsigned formats go because Kubernetes knows none;
/// line breaks of the source go because they are not the reader's.
pub(super) fn finish(definition: &mut CustomResourceDefinition) {
    for version in &mut definition.spec.versions {
        if let Some(root) = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut()) {
            finish_node(root);
        }
    }
}

fn finish_node(node: &mut JSONSchemaProps) {
    node.nullable = None;
    node.title = None;
    if node.format.as_deref().is_some_and(|format| format.starts_with("uint")) {
        node.format = None;
    }
    if let Some(description) = &mut node.description {
        *description = unwrapped(description);
    }
    for child in node.properties.iter_mut().flat_map(|properties| properties.values_mut()) {
        finish_node(child);
    }
    match &mut node.items {
        Some(JSONSchemaPropsOrArray::Schema(items)) => finish_node(items),
        Some(JSONSchemaPropsOrArray::Schemas(items)) => items.iter_mut().for_each(finish_node),
        None => {}
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut node.additional_properties {
        finish_node(values);
    }
}

/// Joins the lines of a paragraph; blank lines still part paragraphs.
fn unwrapped(text: &str) -> String {
    let paragraphs: Vec<String> = text
        .split("\n\n")
        .map(|paragraph| paragraph.lines().map(str::trim).collect::<Vec<_>>().join(" ").trim().to_owned())
        .filter(|paragraph| !paragraph.is_empty())
        .collect();
    paragraphs.join("\n\n")
}

/// Makes every field of `spec` immutable that is not in `mutable`. A field that a later version adds is immutable
/// unless someone says otherwise.
pub(super) fn freeze(definition: &mut CustomResourceDefinition, mutable: &[&str], what_instead: &str) {
    for version in &mut definition.spec.versions {
        let root = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut());
        let Some(spec) = root.and_then(|root| root.properties.as_mut()?.get_mut("spec")) else { continue };
        let fields = spec.properties.iter().flat_map(|properties| properties.keys());
        let frozen: Vec<ValidationRule> = fields
            .filter(|field| !mutable.contains(&field.as_str()))
            .map(|field| ValidationRule {
                rule: format!(
                    "has(self.{field}) == has(oldSelf.{field}) && (!has(self.{field}) || self.{field} == oldSelf.{field})"
                ),
                message: Some(format!("spec.{field} cannot be changed: {what_instead}")),
                ..ValidationRule::default()
            })
            .collect();
        spec.x_kubernetes_validations.get_or_insert_default().extend(frozen);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_paragraph_are_joined() {
        assert_eq!(unwrapped("one\n two\n\n three \n\n\n"), "one two\n\nthree");
    }
}
