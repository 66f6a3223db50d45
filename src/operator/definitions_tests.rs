//! The definitions that this program makes, with something changed as an older or newer version would have it.

use std::sync::atomic::{AtomicUsize, Ordering};

use hyper::{Request, Response};
use kube::client::Body;
use serde_json::{Value, json};

use super::*;

/// A definition as an API server has it.
fn installed(plural: &str) -> Value {
    let own = own(plural);
    let mut there = serde_json::to_value(own).unwrap();
    there["status"] = json!({"conditions": [{"type": "NamesAccepted", "status": "True", "reason": "R", "message": "m"},
                                            {"type": "Established", "status": "True", "reason": "R", "message": "m"}]});
    there
}

fn own(plural: &str) -> CustomResourceDefinition {
    api::crds().into_iter().find(|definition| definition.spec.names.plural == plural).unwrap()
}

/// What is said of `plural`'s definition once `change` was done to the one that is there.
fn said(plural: &str, change: impl FnOnce(&mut Value)) -> Option<String> {
    let mut there = installed(plural);
    change(&mut there);
    let there: CustomResourceDefinition = serde_json::from_value(there).unwrap();
    compare(&own(plural), Some(&there)).map(|unfit| unfit.to_string())
}

/// The properties of a schema, by the path to it.
fn fields<'a>(definition: &'a mut Value, path: &str) -> &'a mut serde_json::Map<String, Value> {
    let path = format!("/spec/versions/0/schema/openAPIV3Schema/properties/{path}");
    definition.pointer_mut(&path).unwrap_or_else(|| panic!("{path}")).as_object_mut().unwrap()
}

#[test]
fn those_of_this_version_are_in_order() {
    for definition in api::crds() {
        let plural = &definition.spec.names.plural;
        assert_eq!(said(plural, |_| {}), None, "{plural}");
        let missing = compare(&definition, None).unwrap().to_string();
        assert_eq!(missing, format!("the definition {plural}.stillframe.dev is missing"));
    }
}

#[test]
fn an_older_one_is_told_by_what_it_lacks() {
    let lacks = |plural: &str, path: &str, field: &str| {
        let said = said(plural, |there| drop(fields(there, path).remove(field).unwrap())).unwrap();
        let older = format!("the definition {plural}.stillframe.dev is older than this operator: it lacks ");
        said.strip_prefix(&older).unwrap_or_else(|| panic!("{said}")).to_owned()
    };
    assert_eq!(lacks("cronbackups", "spec/properties", "jitterSeconds"), "spec.jitterSeconds");
    assert_eq!(lacks("mysqlbackups", "status/properties", "gtidExecuted"), "status.gtidExecuted");
    let nested = "spec/properties/source/properties";
    assert_eq!(lacks("mysqlbackups", nested, "allowEphemeralContainer"), "spec.source.allowEphemeralContainer");
    let claims = "status/properties/claims/items/properties";
    assert_eq!(lacks("mysqlrestores", claims, "podUID"), "status.claims[].podUID");
    let said = said("mysqlrestores", |there| {
        let states = fields(there, "status/properties/claims/items/properties/state");
        states["enum"].as_array_mut().unwrap().retain(|state| state != "HandingOver");
    });
    assert!(said.unwrap().ends_with("it lacks status.claims[].state: \"HandingOver\""));
}

#[test]
fn what_is_not_served_or_not_established_is_of_no_use() {
    let version = |there: &mut Value, field: &str, value: Value| there["spec"]["versions"][0][field] = value;
    let unserved = said("backupstorages", |there| version(there, "served", json!(false)));
    assert_eq!(unserved.unwrap(), "the definition backupstorages.stillframe.dev does not serve v1alpha1");
    let other = said("backupstorages", |there| version(there, "name", json!("v1")));
    assert_eq!(other.unwrap(), "the definition backupstorages.stillframe.dev does not serve v1alpha1");
    let fresh = said("backupstorages", |there| there["status"] = json!({}));
    assert_eq!(fresh.unwrap(), "the definition backupstorages.stillframe.dev is not established");
    let no_status = said("backupstorages", |there| version(there, "subresources", json!({})));
    assert!(no_status.unwrap().ends_with("it lacks the subresource status"));
}

#[test]
fn a_newer_one_will_do() {
    let newer = |there: &mut Value| {
        drop(fields(there, "spec/properties").insert("later".to_owned(), json!({"type": "string"})));
        let policies = fields(there, "spec/properties/deletionPolicy");
        policies["enum"].as_array_mut().unwrap().push(json!("Later"));
        let mut v1 = there["spec"]["versions"][0].clone();
        v1["name"] = json!("v1");
        there["spec"]["versions"].as_array_mut().unwrap().insert(0, v1);
    };
    assert_eq!(said("mysqlbackups", newer), None);
    let open = |there: &mut Value| {
        let spec = fields(there, "spec");
        drop(spec.remove("properties"));
        drop(spec.insert("x-kubernetes-preserve-unknown-fields".to_owned(), json!(true)));
    };
    assert_eq!(said("mysqlbackups", open), None, "nothing is dropped there");
}

#[test]
fn all_that_is_wrong_is_said_with_what_to_do() {
    assert_eq!(advice(&[]), None);
    let unfit = [Unfit::Missing { name: "a".into() }, Unfit::NotServed { name: "b".into() }];
    assert_eq!(
        advice(&unfit).unwrap(),
        "the definition a is missing; the definition b does not serve v1alpha1; apply those of this version: \
         kubectl apply --server-side -f crds/"
    );
}

/// An API server that answers as many requests as there are definitions with the first of these codes, and all others with
/// the second.
fn refusing(first: u16, then: u16) -> Client {
    let (asked, first_look) = (AtomicUsize::new(0), api::crds().len());
    Client::new(
        tower::service_fn(move |_: Request<Body>| {
            let code = if asked.fetch_add(1, Ordering::Relaxed) < first_look { first } else { then };
            let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": "m",
                                "reason": if code == 404 { "NotFound" } else { "Forbidden" }});
            let body = Body::from(serde_json::to_vec(&status).unwrap());
            async move { Ok::<_, tower::BoxError>(Response::builder().status(code).body(body)?) }
        }),
        "shop",
    )
}

#[tokio::test]
async fn one_that_may_not_look_goes_on_and_says_no_more_what_it_saw() {
    let (pulse, stop) = (Pulse::default(), CancellationToken::new());
    let client = refusing(404, 403);
    let looks = wait(&client, &pulse, &stop);
    let seen = async {
        while !pulse.readiness(clock::now()).is_err_and(|why| why.contains("is missing")) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let (goes_on, ()) = tokio::join!(looks, seen);
    assert!(goes_on);
    assert_eq!(pulse.readiness(clock::now()), Ok(()));
}
