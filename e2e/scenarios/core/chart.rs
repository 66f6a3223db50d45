//! The chart by itself: it is well-formed, refuses values that make no sense, and what is made of it is up to date.

use std::process::{Command, Output};

use anyhow::{Context as _, Result, ensure};

use crate::harness::{say, scenario};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Runs helm: `$HELM`, which `e2e/run` sets.
pub fn helm(args: &[&str]) -> Result<Output> {
    let helm = std::env::var("HELM").unwrap_or_else(|_| format!("{ROOT}/e2e/cluster/helm"));
    Command::new(&helm).args(args).current_dir(ROOT).output().with_context(|| format!("run {helm}"))
}

/// What the chart makes with some values, or why it does not.
fn template(values: &[&str]) -> Result<Result<String, String>> {
    template_in("there", values)
}

fn template_in(namespace: &str, values: &[&str]) -> Result<Result<String, String>> {
    let mut args = vec!["template", "release", "helm/stillframe", "--namespace", namespace];
    for value in values {
        args.extend(["--set", value]);
    }
    let output = helm(&args)?;
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(if output.status.success() { Ok(said(&output.stdout)) } else { Err(said(&output.stderr)) })
}

fn made(values: &[&str]) -> Result<String> {
    template(values)?.map_err(|why| anyhow::anyhow!("{values:?}: {why}"))
}

#[test]
fn the_chart_has_no_fault_that_lint_finds() -> Result<()> {
    let output = helm(&["lint", "--strict", "helm/stillframe"])?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    Ok(())
}

#[test]
fn values_that_make_no_sense_are_refused() -> Result<()> {
    for (value, wanted) in [
        ("replicas=6", "replicas"),
        ("image.tag=latest", "tag"),
        ("image.pullPolicy=Sometimes", "pullPolicy"),
        ("log.format=xml", "format"),
        ("port=80", "port"),
        ("watchNamespace=UPPER", "watchNamespace"),
        ("metrics.alerts.backupAgeSeconds=1", "backupAgeSeconds"),
        ("unheardOf=1", "unheardOf"),
        ("serviceAccount.create=false", "serviceAccount.name is needed"),
        ("metrics.enabled=false,metrics.serviceMonitor.enabled=true", "needs metrics.enabled"),
        ("metrics.enabled=false,metrics.alerts.enabled=true", "needs metrics.enabled"),
    ] {
        let Err(why) = template(&[value])? else { anyhow::bail!("{value} was taken") };
        ensure!(why.contains(wanted), "{value}: {why}");
    }
    Ok(())
}

#[test]
fn what_is_off_is_not_there() -> Result<()> {
    let plain = made(&[])?;
    for absent in ["ephemeralcontainers", "ServiceMonitor", "PrometheusRule", "cluster-admin", "privileged", "hostPath"]
    {
        ensure!(!plain.contains(absent), "the plain chart has {absent}");
    }
    for present in [
        "runAsNonRoot: true",
        "readOnlyRootFilesystem: true",
        "allowPrivilegeEscalation: false",
        "drop: [ALL]",
        "RuntimeDefault",
    ] {
        ensure!(plain.contains(present), "the plain chart lacks {present}");
    }
    Ok(())
}

#[test]
fn monitoring_is_there_when_it_is_on() -> Result<()> {
    let on = made(&["metrics.serviceMonitor.enabled=true", "metrics.alerts.enabled=true"])?;
    let of =
        |kind: &str| on.split("\n---\n").filter(|text| text.contains(&format!("kind: {kind}\n"))).collect::<Vec<_>>();
    let (monitors, rules) = (of("ServiceMonitor"), of("PrometheusRule"));
    ensure!(monitors.len() == 1 && monitors.iter().all(|text| text.contains("port: http, interval: ")), "{monitors:?}");
    // Without it, "namespace" is the operator's own for every schedule, and one that works hides one that does not.
    ensure!(monitors.iter().all(|text| text.contains("honorLabels: true")), "{monitors:?}");
    ensure!(rules.len() == 1, "{rules:?}");
    // Those that the page names are those that are rendered: a test of the metrics compares the two.
    let page = std::fs::read_to_string(format!("{ROOT}/docs/metrics.md"))?;
    let mut metrics = 0;
    for line in rules.iter().flat_map(|text| text.lines()).filter(|line| line.trim_start().starts_with("expr: ")) {
        let words = line.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
        for metric in words.filter(|word| word.starts_with("stillframe_")) {
            ensure!(page.contains(&format!("| `{metric}` |")), "no metric {metric}: {line}");
            metrics += 1;
        }
    }
    ensure!(metrics >= 5, "the alerts are about {metrics} metrics: {rules:?}");
    for line in rules.iter().flat_map(|text| text.lines()) {
        let Some((_, alert)) = line.split_once("- alert: ") else { continue };
        ensure!(page.contains(&format!("`{alert}`")), "docs/metrics.md does not name the alert {alert}");
    }
    Ok(())
}

#[test]
fn ephemeral_containers_are_a_right_of_their_own() -> Result<()> {
    let allowed = made(&["allowEphemeralContainers=true"])?;
    let rights: Vec<&str> = allowed.split("\n---\n").filter(|text| text.contains("ephemeralcontainers")).collect();
    ensure!(rights.len() == 1 && rights.iter().all(|role| role.contains("-ephemeral-containers")), "{rights:?}");
    Ok(())
}

#[test]
fn a_cluster_that_checks_data_sources_is_told_of_restores() -> Result<()> {
    let populators = ["--api-versions", "populator.storage.k8s.io/v1beta1"];
    let output = helm(&[&["template", "release", "helm/stillframe"], &populators[..]].concat())?;
    let made = String::from_utf8_lossy(&output.stdout);
    ensure!(made.contains("sourceKind: {group: stillframe.dev, kind: MySQLRestore}"), "{output:?}");
    ensure!(!self::made(&[])?.contains("VolumePopulator"), "a cluster that knows no such kind would refuse it");
    Ok(())
}

#[test]
fn rights_stay_in_the_namespace_that_is_watched() -> Result<()> {
    let narrow = made(&["watchNamespace=one"])?;
    let documents: Vec<&str> = narrow.split("\n---\n").collect();
    let bound = |kind: &str| {
        let of_kind = documents.iter().filter(|text| text.contains(&format!("kind: {kind}\n")));
        of_kind.filter(|text| text.contains("name: release-stillframe-operator")).count()
    };
    ensure!(bound("RoleBinding") == 1 && bound("ClusterRoleBinding") == 0, "{narrow}");
    ensure!(narrow.contains("--namespace=one"), "{narrow}");
    // No rule may speak of everything.
    let rules: Vec<&str> = narrow.lines().filter(|line| line.contains("verbs:")).collect();
    let all = |line: &&&str| line.contains('*') && !line.contains("stillframe.dev");
    ensure!(!rules.is_empty() && !rules.iter().any(|line| all(&line)), "{rules:?}");
    Ok(())
}

#[test]
fn what_is_generated_is_up_to_date() -> Result<()> {
    let output = Command::new(format!("{ROOT}/helm/generate")).arg("--check").output()?;
    ensure!(
        output.status.success(),
        "run helm/generate:\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_takes_all_that_is_installed() -> Result<()> {
    scenario("install", |space| async move {
        let manifest = std::fs::read_to_string(format!("{ROOT}/manifests/install.yaml"))?;
        let narrow = format!("watchNamespace={}", space.name);
        let rendered = |values: &[&str]| template_in(&space.name, values)?.map_err(|why| anyhow::anyhow!("{why}"));
        // Monitoring is of kinds that a plain cluster does not know.
        let all = rendered(&[&narrow, "replicas=3", "allowEphemeralContainers=true"])?;
        for (what, yaml) in
            [("manifests/install.yaml", manifest), ("the chart", rendered(&[])?), ("the chart with all on", all)]
        {
            let taken =
                space.cluster.apply(&space.name, &yaml, "reader", true).await.with_context(|| what.to_owned())?;
            let of = |kind: &str| {
                taken.iter().filter(|object| object.types.as_ref().is_some_and(|types| types.kind == kind)).count()
            };
            let (definitions, operators) = (of("CustomResourceDefinition"), of("Deployment"));
            ensure!(definitions == 4 && operators == 1, "{what}: {definitions} definitions, {operators} operators");
            say(format!("{what}: {} objects are accepted", taken.len()));
        }
        Ok(())
    })
    .await
}
