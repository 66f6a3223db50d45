//! The operator is upgraded from a former chart, uninstalled and installed again, for once beside a definition that is too
//! old for it: objects and data stay, and what runs goes on.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::core::plain_pods::loaded_server;
use crate::harness::objects::{MINUTES, backup, with};
use crate::harness::operator;
use crate::harness::space::text;
use crate::harness::{Bucket, Space, say, scenario, until};

const CHART: &str = "helm/stillframe";
const WAIT: [&str; 3] = ["--wait", "--timeout", "120s"];

/// From version 4 on, helm asks who owns a field: somebody may have applied the definitions by hand.
fn force() -> Result<&'static [&'static str]> {
    Ok(if helm(&["version", "--short"])?.starts_with("v4") { &["--force-conflicts"] } else { &[] })
}

fn helm(arguments: &[&str]) -> Result<String> {
    let all: Vec<&str> = ["--namespace", operator::NAMESPACE].iter().chain(arguments).copied().collect();
    let output = super::core::chart::helm(&all)?;
    ensure!(output.status.success(), "helm {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

/// The chart as its former revision may have been: an older version, whose definitions show a column less.
fn former_chart(folder: &Path) -> Result<()> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(CHART);
    let copied = Command::new("cp").arg("-r").arg(source).arg(folder).status()?;
    ensure!(copied.success(), "the chart cannot be copied");
    let chart = folder.join("stillframe");
    let named = std::fs::read_to_string(chart.join("Chart.yaml"))?;
    let older = named.replace("\nversion: 0.1.0", "\nversion: 0.0.9");
    ensure!(older != named, "the chart's version has changed: change it here, too");
    std::fs::write(chart.join("Chart.yaml"), older)?;
    let file = chart.join("files/crds/mysqlbackups.yaml");
    let mut definition: Value = serde_yaml::from_str(&std::fs::read_to_string(&file)?)?;
    let columns = definition.pointer_mut("/spec/versions/0/additionalPrinterColumns").and_then(Value::as_array_mut);
    columns.context("the definition has no columns")?.pop();
    Ok(std::fs::write(&file, serde_yaml::to_string(&definition)?)?)
}

async fn columns(space: &Space) -> Result<usize> {
    let definition = space.get("CustomResourceDefinition", "mysqlbackups.stillframe.dev").await?;
    let columns = definition.pointer("/spec/versions/0/additionalPrinterColumns").and_then(Value::as_array);
    Ok(columns.map(Vec::len).unwrap_or_default())
}

async fn operators(space: &Space) -> Result<i64> {
    let operator = operator::system(space).get("Deployment", "stillframe").await?;
    Ok(operator.pointer("/status/readyReplicas").and_then(Value::as_i64).unwrap_or_default())
}

/// A definition of the cluster's as a former version had it: without one of its fields.
async fn former_definition(space: &Space) -> Result<()> {
    let mut definition: Value = serde_yaml::from_str(&std::fs::read_to_string(definition_file())?)?;
    let fields = definition.pointer_mut("/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties");
    let removed = fields.and_then(Value::as_object_mut).and_then(|fields| fields.remove("jitterSeconds"));
    ensure!(removed.is_some(), "the field that a former version had not is there no more");
    space.apply_object(&definition).await
}

fn definition_file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("crds/cronbackups.yaml")
}

/// What the operators say of whether they are ready, by the uid of their pods; `None`: that they are.
async fn readiness(space: &Space) -> Result<BTreeMap<String, Option<String>>> {
    let mut all = BTreeMap::new();
    for pod in operator::pods(space).await? {
        let said = operator::page(text(&pod, "/metadata/name"), "readyz").await;
        all.insert(text(&pod, "/metadata/uid").to_owned(), said.err().map(|error| format!("{error:#}")));
    }
    Ok(all)
}

/// Installed where a definition is an old one, the operators say so and touch nothing, and go on once it is mended.
async fn wait_for_their_definitions(space: &Space, after: &Value, install: &[&str]) -> Result<()> {
    former_definition(space).await?;
    helm(&[install, &["--set", "crds.install=false"]].concat())?;
    space.apply_object(after).await?;
    let old = "cronbackups.stillframe.dev is older than this operator: it lacks spec.jitterSeconds";
    let waiting = until("two operators to say what is wrong", MINUTES, || async {
        let said = readiness(space).await?;
        let tells = |said: &Option<String>| {
            let said = said.as_deref().unwrap_or_default();
            said.contains(old) && said.contains("kubectl apply --server-side -f crds/")
        };
        Ok(if said.len() == 2 && said.values().all(tells) { Ok(said) } else { Err(format!("{said:?}")) })
    })
    .await?;
    say(format!("not ready: {}", waiting.values().flatten().next().cloned().unwrap_or_default()));
    // Longer than any of them waits before it looks again.
    tokio::time::sleep(Duration::from_secs(25)).await;
    let untouched = space.get("MySQLBackup", text(after, "/metadata/name")).await?;
    ensure!(untouched.get("status").is_none(), "an operator works with a definition that is too old: {untouched}");
    ensure!(readiness(space).await? == waiting, "they say something else, or are others");

    space.apply(&std::fs::read_to_string(definition_file())?).await?;
    let ready = until("two operators to be ready", MINUTES, || async {
        let said = readiness(space).await?;
        Ok(if said.values().all(Option::is_none) && operators(space).await? == 2 {
            Ok(said)
        } else {
            Err(format!("{said:?}"))
        })
    })
    .await?;
    ensure!(ready.keys().eq(waiting.keys()), "other operators: {waiting:?} became {ready:?}");
    for pod in operator::pods(space).await? {
        let restarts = pod.pointer("/status/containerStatuses/0/restartCount").and_then(Value::as_i64);
        ensure!(restarts == Some(0), "it died of it: {pod}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_and_data_outlive_the_operator() -> Result<()> {
    scenario("upgrade", |space| async move {
        let _alone = operator::ALONE.lock().await;
        let folder = tempfile::tempdir()?;
        former_chart(folder.path())?;
        let former = folder.path().join("stillframe").to_string_lossy().into_owned();
        let now = columns(&space).await?;
        helm(
            &[&["upgrade", "stillframe", &former, "--reuse-values", "--set", "replicas=1"], &WAIT[..], force()?]
                .concat(),
        )?;
        ensure!(columns(&space).await? == now - 1, "the former chart's definitions are not there");

        let (bucket, (mysql, _load)) = tokio::try_join!(Bucket::start(&space, "s3"), loaded_server(&space, "mysql"))?;
        space.ready_storage("bucket", &bucket, "shop").await?;
        space.apply_object(&backup("before", "bucket", &mysql)).await?;
        let before = space.succeeded("MySQLBackup", "before").await?;

        let slow = json!({ "spec": { "throttle": { "maxBytesPerSecond": 2_000_000 } } });
        space.apply_object(&with(backup("meanwhile", "bucket", &mysql), &slow)).await?;
        let runner = space.copying("meanwhile").await?;
        let changes = [
            "upgrade",
            "stillframe",
            CHART,
            "--reuse-values",
            "--set",
            "replicas=2",
            "--set-string",
            "podAnnotations.upgraded=yes",
        ];
        helm(&[&changes, &WAIT[..], force()?].concat())?;
        ensure!(columns(&space).await? == now, "the upgrade left the former definitions");
        ensure!(operators(&space).await? == 2, "the upgrade left the former number of operators");
        let done = space.succeeded("MySQLBackup", "meanwhile").await?;
        ensure!(text(&done, "/status/runner/podName") == runner, "the upgrade started another runner: {done}");
        say("a backup went on through an upgrade, which brought the new definitions and values");

        let values = helm(&["get", "values", "stillframe", "-o", "json"])?;
        let held = bucket.objects("shop").await?;
        helm(&["uninstall", "stillframe", "--wait"])?;
        let kept = space.get("MySQLBackup", "before").await?;
        ensure!(text(&kept, "/metadata/uid") == text(&before, "/metadata/uid"), "uninstalling took a backup object");
        ensure!(kept.pointer("/metadata/deletionTimestamp").is_none(), "uninstalling deletes a backup object: {kept}");
        ensure!(bucket.objects("shop").await? == held, "uninstalling changed what is in the bucket");
        let file = folder.path().join("values.json");
        std::fs::write(&file, values)?;
        let file = file.to_string_lossy();
        let install = ["install", "stillframe", CHART, "--values", &file, "--take-ownership"];
        let after = backup("after", "bucket", &mysql);
        wait_for_their_definitions(&space, &after, &[&install, force()?].concat()).await?;
        space.succeeded("MySQLBackup", "after").await?;
        let status = space.get("MySQLBackup", "before").await?;
        ensure!(status.get("status") == kept.get("status"), "a finished backup changed: {status}");
        say("uninstalled: objects and data stay; installed again: it goes on");
        Ok(())
    })
    .await
}
