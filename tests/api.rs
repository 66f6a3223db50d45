//! The Kubernetes API as files: generated ones do not drift, schemas keep the promises of the API, examples are true.
//!
//! After a change of `src/api`, write the generated files anew:
//! `STILLFRAME_BLESS=1 cargo test --features operator --test api`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::core::crd::CustomResourceExt;
use serde::Deserialize;
use serde_json::Value;
use stillframe::api::{
    self, BackupStorage, CronBackup, MySQLBackup, MySQLRestore, conditions::events, conditions::reasons,
};
use stillframe::ops::ErrorKind;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Compares a generated file with what lies in the repository, or writes it when asked to.
fn check_generated(path: &Path, made: &str) {
    if std::env::var_os("STILLFRAME_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, made).unwrap();
    }
    let there = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        there == made,
        "{} is not what the source says; STILLFRAME_BLESS=1 cargo test --features operator --test api writes it anew",
        path.display()
    );
}

#[test]
fn definitions_do_not_drift() {
    let mut expected = BTreeSet::new();
    for definition in api::crds() {
        let file = format!("{}.yaml", definition.spec.names.plural);
        check_generated(&root().join("crds").join(&file), &api::crd_yaml(&definition).unwrap());
        expected.insert(file);
    }
    let there: BTreeSet<String> = std::fs::read_dir(root().join("crds"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(there, expected, "crds/ holds the generated definitions and nothing else");
}

/// What is installed is what the source says: the chart's copies, and those in the manifest for installations without it.
#[test]
fn installed_definitions_do_not_drift() {
    let install = std::fs::read_to_string(root().join("manifests/install.yaml")).unwrap();
    let installed: Vec<Value> = serde_yaml::Deserializer::from_str(&install)
        .map(|document| Value::deserialize(document).unwrap())
        .filter(|document| document["kind"] == "CustomResourceDefinition")
        .collect();
    assert_eq!(installed.len(), api::crds().len(), "manifests/install.yaml has other definitions: run helm/generate");
    for definition in api::crds() {
        let name = definition.metadata.name.clone().unwrap();
        let file = format!("{}.yaml", definition.spec.names.plural);
        let copy = std::fs::read_to_string(root().join("helm/stillframe/files/crds").join(&file)).unwrap_or_default();
        assert!(copy == api::crd_yaml(&definition).unwrap(), "the chart's copy of {file} is old: run helm/generate");
        let there = installed.iter().find(|document| document["metadata"]["name"] == name.as_str()).unwrap();
        let there: CustomResourceDefinition = serde_json::from_value(there.clone()).unwrap();
        // The chart adds an annotation to each.
        assert!(there.spec == definition.spec, "manifests/install.yaml has an old {name}: run helm/generate");
    }
    let copies = std::fs::read_dir(root().join("helm/stillframe/files/crds")).unwrap().count();
    assert_eq!(copies, api::crds().len(), "the chart has a definition too many");
}

/// What `kubectl get` shows, and behind the bar what `-o wide` adds.
#[test]
fn kinds_show_their_columns() {
    let shown: Vec<String> = api::crds()
        .iter()
        .map(|definition| {
            let columns = definition.spec.versions[0].additional_printer_columns.as_deref().unwrap();
            let of = |wide: bool| -> Vec<&str> {
                let wanted = columns.iter().filter(|column| (column.priority.unwrap_or(0) > 0) == wide);
                wanted.map(|column| column.name.as_str()).collect()
            };
            format!("{}: {} | {}", definition.spec.names.kind, of(false).join(", "), of(true).join(", "))
        })
        .collect();
    assert_eq!(
        shown,
        [
            "MySQLBackup: Type, Status, Progress, Size, End LSN, Age | GTID, Binlog, Binlog Position, Seconds, Storage",
            "MySQLRestore: Backup, Status, Ready, Progress, Claims, Age | Size, End LSN, GTID, Seconds",
            "CronBackup: Schedule, Suspend, Ready, Last Success, Next, Age | Time Zone, Last Backup, Storage",
            "BackupStorage: Ready, Reason, Destination, Backups, Age | Probed, Deletes",
        ]
    );
    let backup = api::crds().remove(0);
    let columns = backup.spec.versions[0].additional_printer_columns.clone().unwrap();
    let status = columns.iter().find(|column| column.name == "Status").unwrap();
    assert_eq!(status.json_path, ".status.conditions[?(@.type==\"Succeeded\")].reason");
}

#[test]
fn the_reference_does_not_drift() {
    check_generated(&root().join("docs/api.md"), &api::reference::markdown(&api::crds()));
}

#[test]
fn kinds_have_their_names() {
    let names: Vec<(String, String, String)> = api::crds()
        .into_iter()
        .map(|definition| {
            let names = definition.spec.names;
            assert_eq!(definition.spec.group, api::GROUP);
            assert_eq!(definition.spec.scope, "Namespaced");
            assert_eq!(names.categories.unwrap(), ["stillframe"]);
            assert_eq!(definition.spec.versions.len(), 1);
            assert_eq!(definition.spec.versions[0].name, api::VERSION);
            assert!(definition.spec.versions[0].subresources.as_ref().unwrap().status.is_some());
            (names.kind, names.plural, names.short_names.unwrap().join(","))
        })
        .collect();
    let names: Vec<(&str, &str, &str)> = names.iter().map(|(a, b, c)| (a.as_str(), b.as_str(), c.as_str())).collect();
    assert_eq!(
        names,
        [
            ("MySQLBackup", "mysqlbackups", "sfb"),
            ("MySQLRestore", "mysqlrestores", "sfr"),
            ("CronBackup", "cronbackups", "sfc"),
            ("BackupStorage", "backupstorages", "sfs"),
        ]
    );
}

/// Calls `each` with the path and schema of every field below the root, list items and map values included.
fn walk(path: &str, node: &Value, each: &mut dyn FnMut(&str, &Value)) {
    for (name, child) in node["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        each(&path, child);
        walk(&path, child, each);
    }
    for (key, mark) in [("items", "[]"), ("additionalProperties", "{}")] {
        if let Some(child) = node.get(key) {
            let path = format!("{path}{mark}");
            each(&path, child);
            walk(&path, child, each);
        }
    }
}

fn each_field(each: &mut dyn FnMut(&str, &Value)) {
    for definition in api::crds() {
        let schema = serde_json::to_value(&definition.spec.versions[0].schema).unwrap();
        walk(&definition.spec.names.kind, &schema["openAPIV3Schema"], each);
    }
}

#[test]
fn every_field_is_described() {
    let mut fields = 0;
    each_field(&mut |path, node| {
        // The items of a list of plain values are described by the list.
        if path.ends_with("[]") || path.ends_with("{}") {
            return;
        }
        fields += 1;
        let text = node["description"].as_str().unwrap_or_default();
        assert!(text.len() > 8 && text.ends_with('.'), "{path}: {text:?}");
        assert!(!text.contains('\n'), "{path}: {text:?}");
    });
    assert!(fields > 200, "only {fields} fields were looked at");
}

#[test]
fn schemas_are_structural_and_plain() {
    each_field(&mut |path, node| {
        let any = node["x-kubernetes-int-or-string"] == true;
        assert!(any || node["type"].is_string(), "{path} has no type");
        for forbidden in ["oneOf", "allOf", "not", "$ref", "nullable", "title", "x-kubernetes-preserve-unknown-fields"]
        {
            assert!(node.get(forbidden).is_none(), "{path} has {forbidden}");
        }
        assert!(any || node.get("anyOf").is_none(), "{path} has anyOf");
        assert!(node.get("default").is_none_or(|value| !value.is_null()), "{path} defaults to null");
        let format = node["format"].as_str().unwrap_or("none");
        assert!(["none", "int32", "int64", "date-time"].contains(&format), "{path} has format {format}");
        for value in node["enum"].as_array().into_iter().flatten() {
            let value = value.as_str().unwrap();
            assert!(
                value.starts_with(|c: char| c.is_ascii_uppercase()) || path.ends_with(".operator"),
                "{path}: {value}"
            );
            assert!(!is_yaml_boolean(value) || path.ends_with(".status"), "{path}: {value} must be quoted by everyone");
        }
        for rule in node["x-kubernetes-validations"].as_array().into_iter().flatten() {
            assert!(rule["message"].as_str().is_some_and(|text| text.len() > 20), "{path}: {rule}");
        }
    });
}

/// A hand-written schema must not make an optional field a required one.
#[test]
fn required_is_only_what_has_no_default() {
    let mut required = BTreeSet::new();
    each_field(&mut |path, node| {
        for name in node["required"].as_array().into_iter().flatten() {
            required.insert(format!("{path}.{}", name.as_str().unwrap()));
        }
    });
    let of_spec: Vec<&str> = required
        .iter()
        .filter_map(|path| path.strip_prefix("MySQLBackup.spec."))
        .filter(|path| !path.ends_with("Ref.name") && !path.ends_with("Ref.key") && !path.contains("[]"))
        .collect();
    assert_eq!(
        of_spec,
        [
            "encryption.keyRefs",
            "existing.backupId",
            "existing.storageRef",
            "source.credentials",
            "source.credentials.secretRef",
            "source.keyring.secretRef",
            "throttle.maxBytesPerSecond",
        ]
    );
}

#[test]
fn conditions_are_a_map_by_type() {
    let mut kinds = 0;
    each_field(&mut |path, node| {
        if path.ends_with(".status.conditions") {
            kinds += 1;
            assert_eq!(node["x-kubernetes-list-type"], "map", "{path}");
            assert_eq!(node["x-kubernetes-list-map-keys"][0], "type", "{path}");
        }
    });
    assert_eq!(kinds, 4);
}

#[test]
fn what_a_backup_is_made_of_cannot_be_changed() {
    let definition = api::crds().remove(0);
    let schema = serde_json::to_value(&definition.spec.versions[0].schema).unwrap();
    let spec = &schema["openAPIV3Schema"]["properties"]["spec"];
    let rules: Vec<&str> = spec["x-kubernetes-validations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|rule| rule["message"].as_str().unwrap())
        .collect();
    for field in spec["properties"].as_object().unwrap().keys() {
        let frozen = rules.iter().any(|text| text.starts_with(&format!("spec.{field} cannot be changed")));
        let mutable = ["deletionPolicy", "pinned", "expirationTime", "suspend"].contains(&field.as_str());
        assert!(frozen != mutable, "spec.{field}");
    }
}

fn is_yaml_boolean(text: &str) -> bool {
    matches!(text.to_ascii_lowercase().as_str(), "y" | "yes" | "n" | "no" | "on" | "off" | "true" | "false")
}

/// Readers of YAML 1.1, of which Kubernetes' own is one, take a bare `no` or `On` for a boolean.
#[test]
fn no_text_looks_like_a_boolean() {
    for definition in api::crds() {
        let text = api::crd_yaml(&definition).unwrap();
        for (number, line) in text.lines().enumerate() {
            let bare = line.trim_start().trim_start_matches("- ");
            let value = bare.rsplit(": ").next().unwrap_or_default().trim();
            let boolean = is_yaml_boolean(value) && !["true", "false"].contains(&value);
            assert!(!boolean, "{} line {}: {line}", definition.spec.names.plural, number + 1);
            let key = bare.split(':').next().unwrap_or_default();
            assert!(
                !is_yaml_boolean(key) || bare == key,
                "{} line {}: {line}",
                definition.spec.names.plural,
                number + 1
            );
        }
        // Read back, it is what was written: True and False of conditions above all.
        let mut back =
            serde_yaml::Deserializer::from_str(&text).map(|one| CustomResourceDefinition::deserialize(one).unwrap());
        assert_eq!(back.next().as_ref(), Some(&definition));
    }
    let quoted = serde_yaml::to_string(&serde_json::json!(["True", "no"])).unwrap();
    assert!(quoted.contains("'True'") || quoted.contains("\"True\""), "{quoted}");
}

/// Every document of `manifests/examples`, with the file that it is in.
fn examples() -> Vec<(String, Value)> {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(root().join("manifests/examples")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
        .iter()
        .flat_map(|path| {
            let text = std::fs::read_to_string(path).unwrap();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            serde_yaml::Deserializer::from_str(&text)
                .map(|document| (name.clone(), Value::deserialize(document).unwrap()))
                .collect::<Vec<_>>()
        })
        .filter(|(_, document)| document["apiVersion"] == "stillframe.dev/v1alpha1")
        .collect()
}

fn round_trip<K>(document: &Value) -> Value
where
    K: CustomResourceExt + for<'de> Deserialize<'de> + serde::Serialize,
{
    let typed: K = serde_json::from_value(document.clone()).unwrap_or_else(|e| panic!("{e}: {document}"));
    serde_json::to_value(typed).unwrap()
}

/// Everything in `part` is in `whole`, and equal.
fn assert_within(path: &str, part: &Value, whole: &Value) {
    match (part, whole) {
        (Value::Object(part), Value::Object(whole)) => {
            for (key, value) in part {
                let path = format!("{path}.{key}");
                let found = whole.get(key).unwrap_or_else(|| panic!("{path} was lost: no such field"));
                assert_within(&path, value, found);
            }
        }
        (Value::Array(part), Value::Array(whole)) => {
            assert_eq!(part.len(), whole.len(), "{path}");
            part.iter().zip(whole).for_each(|(one, other)| assert_within(path, one, other));
        }
        _ => assert_eq!(part, whole, "{path}"),
    }
}

#[test]
fn examples_say_what_the_types_understand() {
    let mut kinds = BTreeSet::new();
    for (file, document) in examples() {
        let kind = document["kind"].as_str().unwrap().to_owned();
        let back = match kind.as_str() {
            "MySQLBackup" => round_trip::<MySQLBackup>(&document),
            "MySQLRestore" => round_trip::<MySQLRestore>(&document),
            "CronBackup" => round_trip::<CronBackup>(&document),
            "BackupStorage" => round_trip::<BackupStorage>(&document),
            other => panic!("{file}: unknown kind {other}"),
        };
        let name = document["metadata"]["name"].as_str().unwrap();
        assert_within(&format!("{file} {kind} {name}"), &document, &back);
        kinds.insert(kind);
    }
    assert_eq!(kinds.len(), 4, "an example of every kind");
}

#[test]
fn every_member_of_a_union_has_an_example() {
    let documents: Vec<Value> = examples().into_iter().map(|(_, document)| document).collect();
    let shown = |kind: &str, pointer: &str| {
        documents.iter().any(|document| document["kind"] == kind && document.pointer(pointer).is_some())
    };
    for (kind, pointer) in [
        ("MySQLBackup", "/spec/source/selector"),
        ("MySQLBackup", "/spec/source/podName"),
        ("MySQLBackup", "/spec/existing"),
        ("MySQLRestore", "/spec/source/backupRef"),
        ("MySQLRestore", "/spec/source/storage"),
        ("MySQLRestore", "/spec/target/existingClaim"),
        ("MySQLRestore", "/spec/target/newClaim"),
        ("MySQLRestore", "/spec/target/newCluster"),
        ("MySQLRestore", "/spec/target/dataSource"),
        ("BackupStorage", "/spec/s3"),
        ("BackupStorage", "/spec/gcs"),
        ("BackupStorage", "/spec/azure"),
        ("BackupStorage", "/spec/persistentVolumeClaim"),
    ] {
        assert!(shown(kind, pointer), "no example of {kind} {pointer}");
    }
}

#[test]
fn defaults_of_the_types_are_those_of_the_schema() {
    // A member of the API server's is filled in by the schema, one of a test or an old object by the type.
    let minimal = serde_json::json!({
        "source": {"podName": "p", "credentials": {"secretRef": {"name": "s"}}}, "storageRef": {"name": "b"},
    });
    let spec: api::MySQLBackupSpec = serde_json::from_value(minimal).unwrap();
    let filled = serde_json::to_value(spec).unwrap();
    let definition = api::crds().remove(0);
    let schema = serde_json::to_value(&definition.spec.versions[0].schema).unwrap();
    let fields = schema["openAPIV3Schema"]["properties"]["spec"]["properties"].as_object().unwrap();
    let mut defaults = 0;
    for (name, field) in fields {
        if let Some(default) = field.get("default") {
            defaults += 1;
            assert_eq!(filled.get(name), Some(default), "spec.{name}");
        }
    }
    assert!(defaults >= 8, "only {defaults} defaults were compared");
    assert_eq!(filled["source"]["port"], 3306);
    assert_eq!(filled["source"]["dataDir"], "/var/lib/mysql");
    assert_eq!(filled["deletionPolicy"], "Retain");
    assert_eq!(filled["backoffLimit"], 3);
}

#[test]
fn the_operators_reasons_are_not_the_engines() {
    // A runner's failure brings the reason of its ErrorKind into a condition; one word must not mean two things.
    let engine: BTreeSet<&str> = ErrorKind::ALL.iter().map(|kind| kind.reason()).collect();
    let operator: BTreeSet<&str> = reasons::ALL.iter().copied().collect();
    let both: Vec<_> = engine.intersection(&operator).collect();
    assert!(both.is_empty(), "{both:?}");
}

/// The names in code that headings of the pages below `docs/runbooks/` begin with.
fn runbook_headings(page: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(page).unwrap();
    let headings = text.lines().filter(|line| line.starts_with("## ") || line.starts_with("### "));
    // Text in code is every second piece; a field (`spec.pinned`) is no reason.
    headings
        .flat_map(|line| line.split('`').skip(1).step_by(2).map(str::to_owned))
        .filter(|name| name.starts_with(|letter: char| letter.is_ascii_uppercase()))
        .collect()
}

#[test]
fn every_reason_of_the_operator_has_its_section_and_says_what_to_do() {
    let page = root().join("docs/runbooks/operator.md");
    let wanted: BTreeSet<String> = reasons::ALL.iter().map(|&reason| reason.to_owned()).collect();
    let headings = runbook_headings(&page);
    let found: BTreeSet<String> = headings.iter().cloned().collect();
    assert_eq!(found.len(), headings.len(), "a reason has two sections");
    assert_eq!(found, wanted, "docs/runbooks/operator.md and reasons::ALL differ");

    let text = std::fs::read_to_string(&page).unwrap();
    for section in text.split("\n## ").skip(1) {
        let (heading, body) = section.split_once('\n').unwrap();
        let body = body.split_whitespace().collect::<Vec<_>>().join(" ");
        let acts = ["ook ", "othing is to be done", "et it to false", "tart it"];
        assert!(body.len() > 60 && acts.iter().any(|act| body.contains(act)), "{heading} does not say what to do");
    }
}

#[test]
fn no_runbook_names_a_reason_that_is_none() {
    let types = ["Ready", "Succeeded", "Restorable", "Expired", "Recorded"];
    let known: BTreeSet<&str> =
        reasons::ALL.iter().copied().chain(ErrorKind::ALL.iter().map(|kind| kind.reason())).chain(types).collect();
    let mut pages = 0;
    for entry in std::fs::read_dir(root().join("docs/runbooks")).unwrap() {
        let page = entry.unwrap().path();
        for name in runbook_headings(&page) {
            assert!(known.contains(name.as_str()), "{} has a section on {name}", page.display());
        }
        pages += 1;
    }
    assert!(pages > 10, "only {pages} pages");
}

#[test]
fn every_event_of_a_backup_is_in_the_tables_of_its_runbook() {
    let text = std::fs::read_to_string(root().join("docs/runbooks/schedules.md")).unwrap();
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `Backup")?.split_once("` | "));
    let told: Vec<String> = rows.map(|(name, _)| format!("Backup{name}")).collect();
    let found: BTreeSet<&str> = told.iter().map(String::as_str).collect();
    assert_eq!(found.len(), told.len(), "an event has two lines");
    assert_eq!(found, events::ALL.iter().copied().collect(), "docs/runbooks/schedules.md and events::ALL differ");
}
