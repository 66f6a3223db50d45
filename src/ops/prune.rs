//! `stillframe prune`: removes what no rule keeps, and the remains of runs that died.
//!
//! ```text
//!   list ─► plan_prune (pure): for each name  newest N, newest of each hour, day, week … ─► keep
//!                              the newest of all, pinned ones, parents of what is kept   ─► keep
//!                              all else                                                  ─► remove, increments first
//!           --stale:           runs without manifest whose lease has run out             ─► remove
//! ```
//! Backups of one name that were asked for in different namespaces, or clusters, are counted by themselves. Times are UTC.
//! Running backups and those that cannot be read are never touched by a rule.

use std::collections::{BTreeMap, HashMap, HashSet};

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::archive::id::BackupId;
use crate::archive::manifest::Manifest;
use crate::ops::context::Context;
use crate::ops::error::{Error, ErrorKind};
use crate::ops::options::{KeepRules, PruneOptions};
use crate::ops::report::{PruneLine, PruneReport, Removal};
use crate::ops::stored;
use crate::store::{BackupState as StoredState, Repository, StoredBackup};
use crate::util::clock;

/// Prunes a store. One backup that cannot be removed does not keep the others.
pub async fn run(ctx: &Context, options: PruneOptions) -> Result<PruneReport, Error> {
    if options.keep.is_empty() && !options.stale {
        return Err(Error::new(ErrorKind::Usage, "prune needs a rule (--keep-last 7, --keep-daily 14, …) or --stale"));
    }
    ctx.check()?;
    let repository = stored::open_existing(&options.store).await?;
    let mut report = PruneReport { dry_run: options.dry_run, ..PruneReport::default() };
    let mut complete = Vec::new();
    let mut stale = Vec::new();
    let sort = |stored: StoredBackup| {
        if options.name.as_deref().is_some_and(|name| name != stored.id.name()) {
            return;
        }
        match stored.state {
            StoredState::Complete { manifest } => {
                // One that this version cannot read is kept: it may be a newer format.
                if let Ok(manifest) = Manifest::decode(&manifest) {
                    let namespace = manifest.origin.namespace;
                    complete.push(Candidate {
                        id: stored.id,
                        parent: manifest.parent,
                        namespace,
                        cluster: manifest.origin.cluster_id,
                        pinned: stored.marks.pinned,
                    });
                }
            }
            // A deletion that was interrupted is finished, too.
            StoredState::Stale | StoredState::Deleted { remains: true } => stale.push(stored.id),
            StoredState::Running | StoredState::Deleted { remains: false } | StoredState::Damaged { .. } => {}
        }
    };
    repository.list_each(sort).await?;
    if !options.keep.is_empty() {
        let plan = plan_prune(complete, options.keep, clock::now());
        report.kept.extend(plan.keep.into_iter().map(|(id, reason)| line(&id, None, reason)));
        for id in plan.remove {
            ctx.check()?;
            remove(&repository, &mut report, &id, options.dry_run, false).await;
        }
    }
    if options.stale {
        for id in stale {
            ctx.check()?;
            remove(&repository, &mut report, &id, options.dry_run, true).await;
        }
    }
    Ok(report)
}

async fn remove(repository: &Repository, report: &mut PruneReport, id: &BackupId, dry_run: bool, stale: bool) {
    let reason = if stale { "its run died, or its deletion was interrupted" } else { "no rule keeps it" };
    let outcome = match (dry_run, stale) {
        (true, _) => Ok(Removal::WouldRemove),
        (false, true) => repository.remove_stale(id).await.map(Removal::from),
        (false, false) => repository.delete(id).await.map(Removal::from),
    };
    match outcome {
        Ok(result) => {
            let lines = if stale { &mut report.stale } else { &mut report.removed };
            lines.push(line(id, Some(result), reason.to_owned()));
        }
        Err(error) => report.failed.push(line(id, None, error.to_string())),
    }
}

fn line(id: &BackupId, result: Option<Removal>, reason: String) -> PruneLine {
    PruneLine { id: id.to_string(), result, reason }
}

/// A complete backup that may go.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// Its id.
    pub id: BackupId,
    /// What it builds on.
    pub parent: Option<BackupId>,
    /// The namespace that it was asked for in, if any.
    pub namespace: Option<String>,
    /// The cluster of that namespace, where it is known.
    pub cluster: Option<String>,
    /// It must not be deleted.
    pub pinned: bool,
}

/// What stays, with the reason, and what goes, in the order in which it may go.
#[derive(Debug, Default)]
pub struct PrunePlan {
    /// Stays.
    pub keep: Vec<(BackupId, String)>,
    /// Goes: increments before what they build on.
    pub remove: Vec<BackupId>,
}

/// Applies the rules to each name by itself; pure.
pub fn plan_prune(mut candidates: Vec<Candidate>, rules: KeepRules, now: Timestamp) -> PrunePlan {
    candidates.sort_by(|a, b| (b.id.start(), &b.id).cmp(&(a.id.start(), &a.id)));
    let mut reasons: HashMap<BackupId, String> = HashMap::new();
    let mut names: BTreeMap<_, Vec<&BackupId>> = BTreeMap::new();
    for candidate in &candidates {
        let name = (candidate.id.name(), candidate.namespace.as_deref(), candidate.cluster.as_deref());
        names.entry(name).or_default().push(&candidate.id);
    }
    for ids in names.values() {
        keep_of_one_name(ids, rules, now, &mut reasons);
    }
    for candidate in candidates.iter().filter(|candidate| candidate.pinned) {
        let _ = reasons.entry(candidate.id.clone()).or_insert_with(|| "it is pinned".to_owned());
    }
    // Newest first, so that a chain is walked from its end.
    for candidate in &candidates {
        if let (true, Some(parent)) = (reasons.contains_key(&candidate.id), &candidate.parent) {
            let _ = reasons.entry(parent.clone()).or_insert_with(|| format!("{} builds on it", candidate.id));
        }
    }
    let mut plan = PrunePlan::default();
    for Candidate { id, .. } in candidates {
        match reasons.remove(&id) {
            Some(reason) => plan.keep.push((id, reason)),
            None => plan.remove.push(id),
        }
    }
    plan
}

/// `ids` newest first.
fn keep_of_one_name(ids: &[&BackupId], rules: KeepRules, now: Timestamp, reasons: &mut HashMap<BackupId, String>) {
    let mut keep = |id: &BackupId, reason: String| {
        let _ = reasons.entry(id.clone()).or_insert(reason);
    };
    for (nth, id) in (1..=rules.last).zip(ids) {
        keep(id, if nth == 1 { "the newest".into() } else { format!("one of the newest {}", rules.last) });
    }
    let KeepRules { last: _, hourly, daily, weekly, monthly, yearly, within_seconds } = rules;
    let periods = [
        (hourly, "hour", "%Y-%m-%d %H"),
        (daily, "day", "%Y-%m-%d"),
        (weekly, "week", "%G-W%V"),
        (monthly, "month", "%Y-%m"),
        (yearly, "year", "%Y"),
    ];
    for (count, what, format) in periods {
        let mut seen = HashSet::new();
        for id in ids {
            let period = period_of(id.start(), format);
            if seen.len() < usize::try_from(count).unwrap_or(usize::MAX) && seen.insert(period.clone()) {
                keep(id, format!("the newest of {what} {period}"));
            }
        }
    }
    if let Some(seconds) = within_seconds {
        let age = |id: &BackupId| u64::try_from(now.duration_since(id.start()).as_secs()).unwrap_or(0);
        for id in ids.iter().filter(|id| age(id) <= seconds) {
            keep(id, format!("not older than {seconds} s"));
        }
    }
    // Whatever the rules say, there is one to go back to.
    if let Some(newest) = ids.first() {
        keep(newest, "the newest".to_owned());
    }
}

fn period_of(time: Timestamp, format: &str) -> String {
    time.to_zoned(TimeZone::UTC).strftime(format).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str, time: &str) -> BackupId {
        format!("{name}-{time}-00000000").parse().unwrap()
    }

    fn full(name: &str, time: &str) -> Candidate {
        Candidate { id: id(name, time), parent: None, namespace: None, cluster: None, pinned: false }
    }

    fn removed(plan: &PrunePlan) -> Vec<String> {
        plan.remove.iter().map(|id| id.as_str().split('-').nth(1).unwrap_or_default().to_owned()).collect()
    }

    fn planned(candidates: Vec<Candidate>, rules: KeepRules) -> PrunePlan {
        plan_prune(candidates, rules, "2026-03-04T00:00:00Z".parse().unwrap())
    }

    #[test]
    fn the_newest_of_each_name_stay() {
        let all = vec![
            full("a", "20260301T000000Z"),
            full("a", "20260302T000000Z"),
            full("a", "20260303T000000Z"),
            full("b", "20260101T000000Z"),
        ];
        let plan = planned(all, KeepRules { last: 2, ..KeepRules::default() });
        assert_eq!(removed(&plan), ["20260301T000000Z"], "b is the newest of its name");
    }

    #[test]
    fn the_newest_of_each_period_stays() {
        let all = vec![
            full("a", "20260301T010000Z"),
            full("a", "20260301T020000Z"),
            full("a", "20260302T010000Z"),
            full("a", "20260302T230000Z"),
            full("a", "20260303T010000Z"),
        ];
        let plan = planned(all.clone(), KeepRules { daily: 2, ..KeepRules::default() });
        assert_eq!(removed(&plan), ["20260302T010000Z", "20260301T020000Z", "20260301T010000Z"]);
        let plan = planned(all, KeepRules { daily: 3, hourly: 9, ..KeepRules::default() });
        assert!(plan.remove.is_empty());
    }

    #[test]
    fn weeks_are_those_of_the_calendar() {
        // 28 February 2026 is a Saturday, 1 March a Sunday: one week. 2 March begins the next.
        let all = vec![full("a", "20260228T000000Z"), full("a", "20260301T000000Z"), full("a", "20260302T000000Z")];
        let plan = planned(all, KeepRules { weekly: 5, ..KeepRules::default() });
        assert_eq!(removed(&plan), ["20260228T000000Z"]);
    }

    #[test]
    fn a_parent_stays_as_long_as_its_increment() {
        let base = full("a", "20260301T000000Z");
        let middle = Candidate { parent: Some(base.id.clone()), ..full("a", "20260302T000000Z") };
        let newest = Candidate { parent: Some(middle.id.clone()), ..full("a", "20260303T000000Z") };
        let old = full("a", "20260228T000000Z");
        let plan = planned(vec![base, middle, newest, old], KeepRules { last: 1, ..KeepRules::default() });
        assert_eq!(removed(&plan), ["20260228T000000Z"]);
        assert_eq!(plan.keep.len(), 3);
    }

    #[test]
    fn the_newest_and_pinned_ones_stay_whatever_the_rules_say() {
        let all = vec![
            full("a", "20260101T000000Z"),
            Candidate { pinned: true, ..full("a", "20260102T000000Z") },
            full("a", "20260103T000000Z"),
        ];
        let plan = planned(all.clone(), KeepRules { within_seconds: Some(60), ..KeepRules::default() });
        assert_eq!(removed(&plan), ["20260101T000000Z"]);
        let plan = planned(all, KeepRules { within_seconds: Some(61 * 86_400), ..KeepRules::default() });
        assert_eq!(removed(&plan), ["20260101T000000Z"], "the others are not older than that, or pinned");
    }

    #[test]
    fn a_name_in_two_namespaces_is_two() {
        let of = |namespace: &str, time| Candidate { namespace: Some(namespace.into()), ..full("nightly", time) };
        let all = vec![of("shop", "20260301T000000Z"), of("shop", "20260302T000000Z"), of("bank", "20260228T000000Z")];
        let plan = planned(all, KeepRules { last: 1, ..KeepRules::default() });
        assert_eq!(removed(&plan), ["20260301T000000Z"]);
        let cluster = |cluster: &str, candidate| Candidate { cluster: Some(cluster.into()), ..candidate };
        let all = vec![cluster("a", of("shop", "20260301T000000Z")), cluster("b", of("shop", "20260302T000000Z"))];
        let plan = planned(all, KeepRules { last: 1, ..KeepRules::default() });
        assert_eq!(removed(&plan), [""; 0], "one namespace of two clusters is two");
    }
}
