//! `docs/api.md`: every field of every kind, made from the schemas, so that it cannot say anything else than they do.

use std::fmt::Write;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};

const HEAD: &str = "# API reference: stillframe.dev/v1alpha1

Every field of every kind, as `kubectl explain` tells it too. Commented examples are in
[manifests/examples](../manifests/examples). This page is generated from the source; changes to it are overwritten.

All kinds are namespaced and of the category `stillframe`: `kubectl get stillframe` lists them all. Other operators
have kinds of similar names, so write the full ones in scripts, for example `mysqlbackups.stillframe.dev`.
";

/// The whole page.
pub fn markdown(definitions: &[CustomResourceDefinition]) -> String {
    let mut page = HEAD.to_owned();
    for definition in definitions {
        kind(&mut page, definition);
    }
    page
}

fn kind(page: &mut String, definition: &CustomResourceDefinition) {
    let names = &definition.spec.names;
    let short = names.short_names.as_deref().unwrap_or_default().join(", ");
    let schema = definition.spec.versions.first().and_then(|v| v.schema.as_ref()?.open_api_v3_schema.as_ref());
    let Some(schema) = schema else { return };
    line(page, &format!("\n## {} (`{short}`)\n", names.kind));
    line(page, schema.description.as_deref().unwrap_or_default());
    for part in ["spec", "status"] {
        let Some(node) = schema.properties.as_ref().and_then(|properties| properties.get(part)) else { continue };
        line(page, &format!("\n### {}.{part}\n", names.kind));
        if part == "spec" {
            rules(page, node);
        }
        line(page, "| Field | Type | Default | Meaning |\n| --- | --- | --- | --- |");
        fields(page, node, "");
    }
}

fn rules(page: &mut String, node: &JSONSchemaProps) {
    let rules = node.x_kubernetes_validations.as_deref().unwrap_or_default();
    let messages: Vec<&str> = rules.iter().filter_map(|rule| rule.message.as_deref()).collect();
    let (frozen, checked): (Vec<&str>, Vec<&str>) =
        messages.iter().partition(|text| text.contains("cannot be changed"));
    let frozen: Vec<&str> = frozen.iter().filter_map(|text| text.split(" cannot").next()).collect();
    if !frozen.is_empty() {
        let list: Vec<String> = frozen.iter().map(|field| format!("`{field}`")).collect();
        line(page, &format!("Cannot be changed after creation: {}.\n", list.join(", ")));
    }
    if !checked.is_empty() {
        line(page, "Checked by the API server:\n");
        for text in checked {
            line(page, &format!("- {text}"));
        }
        line(page, "");
    }
}

fn fields(page: &mut String, node: &JSONSchemaProps, above: &str) {
    let Some(properties) = &node.properties else { return };
    let required = node.required.as_deref().unwrap_or_default();
    for (name, field) in properties {
        let path = if above.is_empty() { name.clone() } else { format!("{above}.{name}") };
        // The template of a schedule is a whole backup spec: told once is enough.
        let told_elsewhere = path == "backupTemplate.spec";
        let default = match &field.default {
            Some(value) if is_scalar(&value.0) => {
                format!("`{}`", value.0.as_str().map_or(value.0.to_string(), str::to_owned))
            }
            _ if required.contains(name) => "required".to_owned(),
            _ => String::new(),
        };
        let meaning = field.description.as_deref().unwrap_or_default().replace('\n', " ").replace('|', "\\|");
        line(page, &format!("| `{path}` | {} | {default} | {meaning} |", type_of(field)));
        if !told_elsewhere {
            let (inner, suffix) = inside(field);
            fields(page, inner, &format!("{path}{suffix}"));
        }
    }
}

/// What is below a field: its own members, or those of a list's items.
fn inside(field: &JSONSchemaProps) -> (&JSONSchemaProps, &'static str) {
    match &field.items {
        Some(JSONSchemaPropsOrArray::Schema(items)) => (items, "[]"),
        _ => (field, ""),
    }
}

fn type_of(field: &JSONSchemaProps) -> String {
    if let Some(values) = &field.enum_ {
        let values: Vec<String> = values.iter().filter_map(|v| Some(format!("`{}`", v.0.as_str()?))).collect();
        return values.join(", ");
    }
    if field.x_kubernetes_int_or_string == Some(true) {
        return "quantity".to_owned();
    }
    let name = field.type_.as_deref().unwrap_or("any");
    match (&field.items, &field.additional_properties) {
        (Some(JSONSchemaPropsOrArray::Schema(items)), _) => format!("list of {}", type_of(items)),
        (_, Some(JSONSchemaPropsOrBool::Schema(values))) => format!("map of {}", type_of(values)),
        _ if field.format.as_deref() == Some("date-time") => "time".to_owned(),
        _ => match bounds(field) {
            Some(bounds) => format!("{name}, {bounds}"),
            None => name.to_owned(),
        },
    }
}

fn bounds(field: &JSONSchemaProps) -> Option<String> {
    match (field.minimum, field.maximum) {
        (Some(least), Some(most)) => Some(format!("{least} to {most}")),
        (Some(least), None) => Some(format!("{least} or more")),
        (None, Some(most)) => Some(format!("{most} or less")),
        (None, None) => None,
    }
}

fn is_scalar(value: &serde_json::Value) -> bool {
    !value.is_object() && !value.is_array() && !value.is_null()
}

fn line(page: &mut String, text: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(page, "{text}");
}
