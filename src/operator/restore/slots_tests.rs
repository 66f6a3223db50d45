//! Which claims are filled, and when one may be begun.

use serde_json::{Value, json};

use super::*;

const UID: &str = "restore-uid";

fn claim(change: &Value) -> PersistentVolumeClaim {
    let mut claim = json!({"metadata": {"name": "data", "uid": "claim-uid"}, "spec": {"storageClassName": "fast"}});
    for (part, fields) in change.as_object().unwrap() {
        for (key, value) in fields.as_object().unwrap() {
            claim[part][key] = value.clone();
        }
    }
    serde_json::from_value(claim).unwrap()
}

fn source() -> Value {
    json!({"apiGroup": "stillframe.dev", "kind": "MySQLRestore", "name": "seed"})
}

fn world(claims: &[PersistentVolumeClaim]) -> World {
    World {
        claims: claims.iter().map(|claim| (claim.name_any(), claim.clone())).collect(),
        delayed: [("fast".to_owned(), Some(false)), ("late".to_owned(), Some(true)), ("gone".to_owned(), None)].into(),
        ..World::default()
    }
}

fn slots(target: &Value, world: &World) -> Vec<Slot> {
    wanted(&serde_json::from_value(target.clone()).unwrap(), "seed", "shop", &world.claims)
}

fn start(target: &Value, world: &World) -> Result<(), &'static str> {
    match may_start(&slots(target, world)[0], world, UID) {
        Start::Go => Ok(()),
        Start::Done => Err("Done"),
        Start::Wait { reason, .. } | Start::Never { reason, .. } => Err(reason),
    }
}

#[test]
fn a_target_names_its_claims() {
    let empty = world(&[]);
    let template = json!({"storage": "1Gi"});
    let cluster = json!({"newCluster": {"statefulSetName": "shop2", "replicas": 2, "template": template}});
    let names: Vec<String> = slots(&cluster, &empty).into_iter().map(|slot| slot.name).collect();
    assert_eq!(names, ["data-shop2-0", "data-shop2-1"]);
    let new = slots(&json!({"newClaim": {"name": "a", "template": template}}), &empty);
    assert!(new[0].is_staged());
    let existing = slots(&json!({"existingClaim": {"name": "a"}}), &empty);
    assert!(!existing[0].is_staged());
    assert_eq!(new[0].key, existing[0].key, "always the same for the same claim");
}

#[test]
fn a_data_source_serves_those_that_name_it() {
    let mine = claim(&json!({"spec": {"dataSourceRef": source()}}));
    let mut others = Vec::new();
    for (number, (key, value)) in
        [("name", "other"), ("kind", "MySQLBackup"), ("apiGroup", "example.com"), ("namespace", "elsewhere")]
            .into_iter()
            .enumerate()
    {
        let mut source = source();
        source[key] = json!(value);
        let name = json!({"name": format!("other-{number}")});
        others.push(claim(&json!({"metadata": name, "spec": {"dataSourceRef": source}})));
    }
    let going = json!({"name": "going", "deletionTimestamp": "2026-03-14T15:09:26Z"});
    others.push(claim(&json!({"metadata": going, "spec": {"dataSourceRef": source()}})));
    others.push(mine);
    let served = slots(&json!({"dataSource": {}}), &world(&others));
    assert_eq!(served.len(), 1, "{served:?}");
    assert_eq!((served[0].name.as_str(), served[0].claim_uid()), ("data", Some("claim-uid")));
}

#[test]
fn another_claim_of_the_same_name_is_another_one_to_fill() {
    let served = slots(&json!({"dataSource": {}}), &world(&[claim(&json!({"spec": {"dataSourceRef": source()}}))]));
    let known = vec![ClaimStatus { attempt: 3, ..ClaimStatus::new("data", Some("former-uid".into())) }];
    assert_eq!(served[0].known(&known).attempt, 0);
    let known = vec![ClaimStatus { attempt: 3, ..ClaimStatus::new("data", Some("claim-uid".into())) }];
    assert_eq!(served[0].known(&known).attempt, 3);
}

#[test]
fn new_claims_are_never_there_before() {
    let new = json!({"newClaim": {"name": "data", "template": {"storage": "1Gi"}}});
    assert_eq!(start(&new, &world(&[])), Ok(()));
    assert_eq!(start(&new, &world(&[claim(&json!({}))])), Err("TargetExists"));
    let going = claim(&json!({"metadata": {"deletionTimestamp": "2026-03-14T15:09:26Z"}}));
    assert!(matches!(may_start(&slots(&new, &world(&[]))[0], &world(&[going]), UID), Start::Wait { .. }));
    let own = claim(&json!({"metadata": {"annotations": {RESTORED_BY: UID}}}));
    assert_eq!(start(&new, &world(&[own])), Err("Done"), "made by this restore before it forgot");
}

#[test]
fn nothing_uses_an_existing_claim() {
    let existing = json!({"existingClaim": {"name": "data", "overwrite": true}});
    assert_eq!(start(&existing, &world(&[])), Err("WaitingForReference"));
    let mut there = world(&[claim(&json!({}))]);
    assert_eq!(start(&existing, &there), Ok(()));
    there.users.insert("data".into(), vec!["shop-0".into()]);
    assert_eq!(start(&existing, &there), Err("TargetInUse"));
    let block = claim(&json!({"spec": {"volumeMode": "Block"}}));
    assert_eq!(start(&existing, &world(&[block])), Err("ClaimUnusable"));
    let done = claim(&json!({"metadata": {"annotations": {RESTORED_BY: UID}}}));
    assert_eq!(start(&existing, &world(&[done])), Err("Done"), "an overwrite is never repeated");
}

#[test]
fn a_claim_that_waits_is_served_where_its_pod_will_be() {
    let target = json!({"dataSource": {}});
    let waits = |spec: Value, annotations: Value| {
        let mut spec = spec;
        spec["dataSourceRef"] = source();
        claim(&json!({"spec": spec, "metadata": {"annotations": annotations}}))
    };
    let start = |claim| start(&target, &world(&[claim]));
    assert_eq!(start(waits(json!({}), json!({}))), Ok(()));
    assert_eq!(start(waits(json!({"storageClassName": "late"}), json!({}))), Err("WaitingForConsumer"));
    let chosen = json!({"volume.kubernetes.io/selected-node": "n1"});
    assert_eq!(start(waits(json!({"storageClassName": "late"}), chosen)), Ok(()));
    assert_eq!(start(waits(json!({"storageClassName": "gone"}), json!({}))), Err("WaitingForReference"));
    assert_eq!(start(waits(json!({"volumeMode": "Block"}), json!({}))), Err("ClaimUnusable"));
}

#[test]
fn a_volume_that_came_from_elsewhere_is_told_loudly() {
    let target = json!({"dataSource": {}});
    let bound = claim(&json!({"spec": {"dataSourceRef": source(), "volumeName": "pv"}}));
    let mut there = world(&[bound]);
    assert_eq!(start(&target, &there), Err("ProvisionedEmpty"));
    let filled = json!({"metadata": {"name": "pv", "annotations": {RESTORED_BY: "an earlier restore"}}});
    there.volumes.insert("pv".into(), serde_json::from_value(filled).unwrap());
    assert_eq!(start(&target, &there), Err("Done"));
}

#[test]
fn a_stateful_set_that_runs_would_make_its_own_claims() {
    let target = json!({"newCluster": {"statefulSetName": "shop2", "template": {"storage": "1Gi"}}});
    let target: RestoreTarget = serde_json::from_value(target).unwrap();
    let with = |spec: Value| World {
        stateful_set: Some(serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap()),
        ..World::default()
    };
    let spec = |replicas: Value| json!({"replicas": replicas, "selector": {}, "template": {}, "serviceName": "s"});
    assert!(stateful_set_in_the_way(&target, &World::default()).is_none());
    assert!(stateful_set_in_the_way(&target, &with(spec(json!(0)))).is_none());
    assert!(stateful_set_in_the_way(&target, &with(spec(Value::Null))).unwrap().contains("shop2"));
}
