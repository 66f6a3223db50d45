//! Retention: a table for people, and what must hold whatever the rules and backups are.

use proptest::prelude::*;

use super::*;
use crate::api::backup::DeletionPolicy;

const NO_RULES: RetentionSpec = RetentionSpec {
    keep_last: None,
    keep_daily: None,
    keep_weekly: None,
    keep_monthly: None,
    keep_within_seconds: None,
    deletion_policy: DeletionPolicy::Delete,
};

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn full(name: &str, time: &str) -> Candidate {
    Candidate { name: name.into(), id: format!("id-{name}"), time: at(time), parent: None, pinned: false }
}

fn on(base: &str, name: &str, time: &str) -> Candidate {
    Candidate { parent: Some(format!("id-{base}")), ..full(name, time) }
}

fn removed(rules: &RetentionSpec, candidates: &[Candidate]) -> Vec<String> {
    plan_retention(rules, &TimeZone::UTC, at("2026-03-15T00:00:00Z"), candidates.to_vec(), &Needs::default()).remove
}

fn week() -> Vec<Candidate> {
    (9..=14).map(|day| full(&format!("d{day}"), &format!("2026-03-{day:02}T02:30:00Z"))).collect()
}

#[test]
fn each_rule_keeps_its_own() {
    let last = RetentionSpec { keep_last: Some(2), ..NO_RULES };
    assert_eq!(removed(&last, &week()), ["d9", "d10", "d11", "d12"]);
    let within = RetentionSpec { keep_within_seconds: Some(3 * 86_400), ..NO_RULES };
    assert_eq!(removed(&within, &week()), ["d9", "d10", "d11"]);
    let both = RetentionSpec { keep_last: Some(1), keep_within_seconds: Some(3 * 86_400), ..NO_RULES };
    assert_eq!(removed(&both, &week()), ["d9", "d10", "d11"], "what any rule wants stays");

    let mut hourly: Vec<Candidate> = week();
    hourly.push(full("d13b", "2026-03-13T14:30:00Z"));
    let daily = RetentionSpec { keep_daily: Some(2), ..NO_RULES };
    assert_eq!(removed(&daily, &hourly), ["d9", "d10", "d11", "d12", "d13"], "the newest of a day");

    let months: Vec<Candidate> =
        ["01-10", "01-20", "02-10", "03-01"].iter().map(|day| full(day, &format!("2026-{day}T00:00:00Z"))).collect();
    let monthly = RetentionSpec { keep_monthly: Some(3), ..NO_RULES };
    assert_eq!(removed(&monthly, &months), ["01-10"]);
    // 8 March 2026 is a Sunday, the 9th a Monday.
    let weeks =
        [full("su", "2026-03-08T00:00:00Z"), full("mo", "2026-03-09T00:00:00Z"), full("tu", "2026-03-10T00:00:00Z")];
    let weekly = RetentionSpec { keep_weekly: Some(9), ..NO_RULES };
    assert_eq!(removed(&weekly, &weeks), ["mo"]);
}

#[test]
fn days_are_those_of_the_schedules_zone() {
    let candidates = vec![full("a", "2026-03-13T22:30:00Z"), full("b", "2026-03-13T23:30:00Z")];
    let rules = RetentionSpec { keep_daily: Some(5), ..NO_RULES };
    assert_eq!(removed(&rules, &candidates), ["a"]);
    let vienna = TimeZone::get("Europe/Vienna").unwrap();
    let plan = plan_retention(&rules, &vienna, at("2026-03-15T00:00:00Z"), candidates, &Needs::default());
    assert_eq!(plan.remove, [""; 0], "half past midnight there");
}

#[test]
fn what_is_needed_stays_and_says_why() {
    let base = full("base", "2026-03-01T00:00:00Z");
    let middle = on("base", "middle", "2026-03-02T00:00:00Z");
    let newest = on("middle", "newest", "2026-03-03T00:00:00Z");
    let pinned = Candidate { pinned: true, ..full("pinned", "2026-02-01T00:00:00Z") };
    let old = [full("old", "2026-02-02T00:00:00Z"), on("old", "older-child", "2026-02-03T00:00:00Z")];
    let mut all = vec![base, middle, newest, pinned];
    all.extend(old);
    let rules = RetentionSpec { keep_last: Some(1), ..NO_RULES };
    let plan = plan_retention(&rules, &TimeZone::UTC, at("2026-03-15T00:00:00Z"), all, &Needs::default());
    assert_eq!(plan.remove, ["older-child", "old"], "an increment before its base");
    assert_eq!(plan.keep["pinned"], Keep::Pinned);
    assert_eq!(plan.keep["middle"], Keep::Needed(Need::Increment("newest".into())));
    assert_eq!(plan.keep["base"], Keep::Needed(Need::Increment("middle".into())));
}

#[test]
fn the_last_good_one_outlives_every_rule() {
    let rules = RetentionSpec { keep_within_seconds: Some(60), ..NO_RULES };
    let plan = plan_retention(&rules, &TimeZone::UTC, at("2030-01-01T00:00:00Z"), week(), &Needs::default());
    assert_eq!(plan.keep, BTreeMap::from([("d14".to_owned(), Keep::LastGood)]));
}

#[test]
fn only_good_backups_are_counted() {
    let backup = |status: serde_json::Value| -> MySQLBackup {
        serde_json::from_value(serde_json::json!({
            "apiVersion": "stillframe.dev/v1alpha1", "kind": "MySQLBackup",
            "metadata": {"name": "b", "creationTimestamp": "2026-03-14T15:09:26Z",
                "annotations": {"stillframe.dev/scheduled-time": "2026-03-14T15:09:00Z"}},
            "spec": {}, "status": status,
        }))
        .unwrap()
    };
    let said = |succeeded: &str, restorable: &str| {
        let one = |type_: &str, status: &str| {
            serde_json::json!({"type": type_, "status": status, "reason": "R", "message": "m",
                "lastTransitionTime": "1970-01-01T00:00:00Z"})
        };
        serde_json::json!({"backupId": "id",
            "conditions": [one("Succeeded", succeeded), one("Restorable", restorable)]})
    };
    let good = Candidate::of(&backup(said("True", "True"))).unwrap();
    assert_eq!((good.id.as_str(), good.time), ("id", at("2026-03-14T15:09:00Z")));
    assert_eq!(Candidate::of(&backup(said("True", "False"))), None, "gone from its storage, or so it seems");
    assert_eq!(Candidate::of(&backup(said("False", "False"))), None);
    assert_eq!(Candidate::of(&backup(said("Unknown", "Unknown"))), None);
    let mut leaving = backup(said("True", "True"));
    leaving.metadata.deletion_timestamp = leaving.metadata.creation_timestamp.clone();
    assert_eq!(Candidate::of(&leaving), None);
}

fn any_rules() -> impl Strategy<Value = RetentionSpec> {
    let few = || prop::option::of(1..6_i32);
    (few(), few(), few(), few(), prop::option::of(60..5_000_000_i64)).prop_map(
        |(last, daily, weekly, monthly, within)| RetentionSpec {
            keep_last: last,
            keep_daily: daily,
            keep_weekly: weekly,
            keep_monthly: monthly,
            keep_within_seconds: within,
            deletion_policy: DeletionPolicy::Delete,
        },
    )
}

/// Backups at any times, some pinned, some building on an earlier one of the list.
fn any_candidates() -> impl Strategy<Value = Vec<Candidate>> {
    let one = (1_760_000_000..1_775_000_000_i64, prop::bool::weighted(0.1), prop::option::of(0..40_usize));
    prop::collection::vec(one, 0..40).prop_map(|all| {
        let candidate = |(at, (second, pinned, parent)): (usize, (i64, bool, Option<usize>))| Candidate {
            name: format!("b{at}"),
            id: format!("id-{at}"),
            time: Timestamp::from_second(second).unwrap(),
            parent: parent.filter(|&parent| parent < at).map(|parent| format!("id-{parent}")),
            pinned,
        };
        all.into_iter().enumerate().map(candidate).collect()
    })
}

const NOW: i64 = 1_775_000_000;

proptest! {
    #[test]
    fn nothing_that_must_stay_goes(rules in any_rules(), all in any_candidates(), needed in 0..40_usize) {
        let now = Timestamp::from_second(NOW).unwrap();
        let restore: crate::api::MySQLRestore = serde_json::from_value(serde_json::json!({
            "apiVersion": "stillframe.dev/v1alpha1", "kind": "MySQLRestore", "metadata": {"name": "r", "namespace": "n"},
            "spec": {"source": {"backupRef": {"name": format!("b{needed}")}}, "target": {"dataSource": {}}},
        })).unwrap();
        let needs = Needs::gather("n", [], [&restore]);
        let plan = plan_retention(&rules, &TimeZone::UTC, now, all.clone(), &needs);

        prop_assert_eq!(plan.keep.len() + plan.remove.len(), all.len(), "each either stays or goes");
        let goes: BTreeSet<&str> = plan.remove.iter().map(String::as_str).collect();
        if let Some(last) = all.iter().max_by_key(|candidate| (candidate.time, &candidate.name)) {
            prop_assert!(!goes.contains(last.name.as_str()), "the last good one");
            prop_assert!(!plan.keep.is_empty(), "never all");
        }
        for candidate in &all {
            let parent = all.iter().find(|found| candidate.parent.as_deref() == Some(&found.id));
            if goes.contains(candidate.name.as_str()) {
                prop_assert!(!candidate.pinned);
                let read = format!("b{needed}");
                prop_assert!(candidate.name != read);
            } else if let Some(parent) = parent {
                prop_assert!(!goes.contains(parent.name.as_str()), "{} builds on {}", candidate.name, parent.name);
            }
            if let (Some(parent), Some(at)) = (parent, plan.remove.iter().position(|name| *name == candidate.name)) {
                let below = plan.remove.iter().position(|name| *name == parent.name);
                prop_assert!(below.is_none_or(|below| at < below), "increments first");
            }
        }
    }

    #[test]
    fn what_stays_stays_the_next_time(rules in any_rules(), all in any_candidates()) {
        let now = Timestamp::from_second(NOW).unwrap();
        let plan = |all| plan_retention(&rules, &TimeZone::UTC, now, all, &Needs::default());
        let first = plan(all.clone());
        let left = all.into_iter().filter(|candidate| first.keep.contains_key(&candidate.name)).collect();
        prop_assert_eq!(plan(left).remove, Vec::<String>::new());
    }

    #[test]
    fn a_larger_rule_never_removes_more(rules in any_rules(), all in any_candidates()) {
        let now = Timestamp::from_second(NOW).unwrap();
        let more = RetentionSpec { keep_last: rules.keep_last.map(|last| last + 1), ..rules.clone() };
        let plan = |rules| plan_retention(rules, &TimeZone::UTC, now, all.clone(), &Needs::default());
        let (few, many) = (plan(&rules), plan(&more));
        prop_assert!(many.remove.iter().all(|name| few.remove.contains(name)));
    }
}
