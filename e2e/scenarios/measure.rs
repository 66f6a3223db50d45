//! Numbers: what the operator costs when nothing happens and when there is much to know.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures::StreamExt as _;
use serde_json::{Value, json};

use crate::harness::operator::{self, metrics};
use crate::harness::{Space, say, scenario, until};

/// How many backups, unless STILLFRAME_E2E_OBJECTS says another number.
const OBJECTS: usize = 10_000;
const MIB: f64 = 1_048_576.0;

/// All samples of a metric, of which there must be some.
fn samples(pages: &str, name: &str) -> Result<Vec<f64>> {
    let numbers = operator::samples(pages, name, "")?;
    ensure!(!numbers.is_empty(), "no metric {name}");
    Ok(numbers)
}

/// Of the one that works, which is the larger one.
fn memory(pages: &str) -> Result<f64> {
    Ok(samples(pages, "process_resident_memory_bytes")?.into_iter().fold(0.0, f64::max))
}

fn calls(pages: &str) -> Result<f64> {
    Ok(samples(pages, "stillframe_kubernetes_requests_total")?.into_iter().sum())
}

/// Waits until the operator has looked at everything: it asks less than ten times a second.
async fn at_rest(space: &Space) -> Result<()> {
    let started = Instant::now();
    until("the operator to come to rest", Duration::from_mins(10), || async {
        let before = calls(&metrics(space).await?)?;
        tokio::time::sleep(Duration::from_secs(15)).await;
        let asked = calls(&metrics(space).await?)? - before;
        Ok(if asked < 150.0 { Ok(()) } else { Err(format!("{asked} requests in 15 s")) })
    })
    .await?;
    say(format!("it had looked at all of them after {} s", started.elapsed().as_secs()));
    Ok(())
}

fn objects() -> Result<usize> {
    std::env::var("STILLFRAME_E2E_OBJECTS").map_or(Ok(OBJECTS), |number| Ok(number.parse()?))
}

/// A backup that cannot be taken. A suspended one is known, and there is nothing to do about it.
fn waiting(name: &str, suspend: bool) -> Value {
    json!({
        "apiVersion": "stillframe.dev/v1alpha1", "kind": "MySQLBackup", "metadata": { "name": name },
        "spec": {
            "suspend": suspend, "storageRef": { "name": "none" },
            "source": { "podName": "none", "credentials": { "secretRef": { "name": "none" } } },
        },
    })
}

/// One that has work to do, behind all those that have none.
async fn newcomer(space: &Space) -> Result<()> {
    let applied = Instant::now();
    space.apply_object(&waiting("newcomer", false)).await?;
    let within = Duration::from_mins(5);
    space.reason("MySQLBackup", "newcomer", "Succeeded", "WaitingForReference", within).await?;
    let waited = applied.elapsed().as_secs_f64();
    say(format!("a new one with work to do waited {waited:.1} s behind them"));
    ensure!(waited < 60.0, "it waited behind those that have no work to do");
    space.delete("MySQLBackup", "newcomer").await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "alone, since it gives the operator more to do than others could wait for: e2e/run does, at the end of all"]
async fn the_operator_with_ten_thousand_backups() -> Result<()> {
    scenario("measure", |space| async move {
        let objects = objects()?;
        let before = metrics(&space).await?;
        let started = Instant::now();
        let backups = (0..objects).map(|number| {
            let space = space.clone();
            async move { space.apply_object(&waiting(&format!("b{number}"), true)).await }
        });
        let made: Vec<Result<()>> = futures::stream::iter(backups).buffer_unordered(16).collect().await;
        made.into_iter().collect::<Result<Vec<()>>>()?;
        say(format!("{objects} were made in {} s", started.elapsed().as_secs()));
        newcomer(&space).await?;
        at_rest(&space).await?;
        let full = metrics(&space).await?;
        tokio::time::sleep(Duration::from_mins(2)).await;
        let idle = metrics(&space).await?;

        say(format!(
            "operator memory: {:.0} MiB, with {objects} backups {:.0} MiB; API calls per idle hour: {:.0}",
            memory(&before)? / MIB,
            memory(&full)? / MIB,
            (calls(&idle)? - calls(&full)?) * 30.0
        ));
        ensure!(memory(&full)? < 256.0 * MIB, "it no longer fits its memory limit");
        let started = Instant::now();
        space.delete_each("MySQLBackup", Duration::from_mins(10)).await?;
        say(format!("all of them were deleted after {} s", started.elapsed().as_secs()));
        // What was said about them goes with the namespace, in requests of a minute each.
        space.delete_each("Event", Duration::from_mins(10)).await
    })
    .await
}
