//! One operator at work at a time, others in wait: a Lease that one holds and renews.
//!
//! ```text
//!   win ──► (nobody has it, or its holder has not renewed it while we watched for as long as it is valid) ──► held
//!   held ──► renewed every EVERY ──► not renewed for DEADLINE, or somebody else's ──► lost: the work is dropped
//!                                └─► told to stop ──► work ends in peace ──► released, so that the next need not wait
//! ```
//!
//! Times are measured by this process's own clock from the moment at which it saw a change, never by comparing clocks
//! of machines: `DEADLINE` is shorter than `VALID`, so a holder that cannot renew stops before anybody else begins.
//! A process that is frozen and thawed may do one more step before it notices; names that are always the same and
//! writes that are bound to a version make that harmless.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::Client;
use kube::api::{Api, PostParams};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::error::{During, OperatorError};
use super::names::MANAGED_BY;
use crate::util::clock;

/// How long a lease is good without being renewed.
const VALID: Duration = Duration::from_secs(15);
/// How long its holder works without having renewed it.
const DEADLINE: Duration = Duration::from_secs(10);
/// How often it is renewed, or looked at.
const EVERY: Duration = Duration::from_secs(2);
/// How long one request may take.
const PATIENCE: Duration = Duration::from_secs(4);
/// How old the last turn of the election may be before the process is taken for stuck.
const STUCK: Duration = Duration::from_mins(1);

/// When the election, or what comes before it, last took a turn, when the API server last answered, and what is wrong with
/// the cluster's definitions: what health is told by.
#[derive(Debug, Default)]
pub(crate) struct Pulse {
    turn: AtomicI64,
    answer: AtomicI64,
    definitions: Mutex<Option<String>>,
}

impl Pulse {
    pub(crate) fn new(now: Timestamp) -> Self {
        Self { turn: AtomicI64::new(now.as_second()), ..Self::default() }
    }

    /// The process is not stuck.
    pub(crate) fn took_turn(&self, now: Timestamp) {
        self.turn.store(now.as_second(), Ordering::Relaxed);
    }

    /// The API server answered.
    pub(crate) fn was_answered(&self, now: Timestamp) {
        self.answer.store(now.as_second(), Ordering::Relaxed);
    }

    /// What is wrong with the definitions, if anything is.
    pub(crate) fn definitions_are(&self, wrong: Option<String>) {
        *self.definitions.lock().unwrap_or_else(PoisonError::into_inner) = wrong;
    }

    /// Why this process should be started anew, if it should.
    pub(crate) fn health(&self, now: Timestamp) -> Result<(), String> {
        within("the election took its last turn", self.turn.load(Ordering::Relaxed), now, STUCK)
    }

    /// Why it can do nothing now, if it cannot. One that waits for its turn is as ready as the one that has it.
    pub(crate) fn readiness(&self, now: Timestamp) -> Result<(), String> {
        if let Some(wrong) = &*self.definitions.lock().unwrap_or_else(PoisonError::into_inner) {
            return Err(wrong.clone());
        }
        within("the API server last answered", self.answer.load(Ordering::Relaxed), now, VALID)
    }
}

fn within(what: &str, then: i64, now: Timestamp, most: Duration) -> Result<(), String> {
    let seconds = now.as_second().saturating_sub(then);
    if i64::try_from(most.as_secs()).is_ok_and(|most| seconds <= most) {
        return Ok(());
    }
    Err(if then == 0 { format!("never: {what}") } else { format!("{what} {seconds} s ago") })
}

/// What is to be done about the lease as it was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// It is ours, or free, or its holder is gone: write it.
    Write,
    /// Somebody else holds it.
    Wait,
}

/// Decides. `unchanged_for` is how long this process has seen the lease as it is.
fn decide(lease: Option<&LeaseSpec>, me: &str, unchanged_for: Duration) -> Turn {
    let Some(lease) = lease else { return Turn::Write };
    let holder = lease.holder_identity.as_deref().unwrap_or_default();
    let valid = lease.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or(0);
    if holder.is_empty() || holder == me || unchanged_for > Duration::from_secs(valid) {
        return Turn::Write;
    }
    Turn::Wait
}

/// The lease as it is written by `me`.
fn renewed(old: Option<&LeaseSpec>, me: &str, now: Timestamp) -> LeaseSpec {
    let same = old.filter(|old| old.holder_identity.as_deref() == Some(me));
    let before = old.and_then(|old| old.lease_transitions).unwrap_or(0);
    LeaseSpec {
        holder_identity: Some(me.to_owned()),
        lease_duration_seconds: i32::try_from(VALID.as_secs()).ok(),
        acquire_time: same.and_then(|old| old.acquire_time.clone()).or(Some(MicroTime(now))),
        renew_time: Some(MicroTime(now)),
        lease_transitions: Some(if same.is_some() || old.is_none() { before } else { before.saturating_add(1) }),
        ..LeaseSpec::default()
    }
}

/// This process as a candidate.
pub(crate) struct Election<'a> {
    api: Api<Lease>,
    namespace: String,
    name: String,
    me: String,
    pulse: &'a Pulse,
    /// The lease as it was last seen, and since when it is so.
    seen: Option<(LeaseSpec, Instant)>,
    /// The lease as this process wrote it last: renewed without being read again.
    held: Option<Lease>,
}

impl<'a> Election<'a> {
    pub(crate) fn new(client: &Client, namespace: &str, name: &str, me: String, pulse: &'a Pulse) -> Self {
        Self {
            api: Api::namespaced(client.clone(), namespace),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            me,
            pulse,
            seen: None,
            held: None,
        }
    }

    /// Waits until the lease is this process's. False if it was told to stop first.
    pub(crate) async fn win(&mut self, stop: &CancellationToken) -> bool {
        tracing::info!(object = %self.key(), me = %self.me, "waits for its turn to lead");
        loop {
            match self.turn().await {
                Ok(true) => {
                    tracing::info!(object = %self.key(), me = %self.me, "leads");
                    return true;
                }
                Ok(false) => {}
                Err(error) => tracing::warn!(object = %self.key(), %error, "cannot ask who leads"),
            }
            tokio::select! {
                () = stop.cancelled() => return false,
                () = tokio::time::sleep(EVERY) => {}
            }
        }
    }

    /// Renews the lease for as long as that goes well. Returns why it did not.
    pub(crate) async fn keep(&mut self) -> OperatorError {
        let mut renewed_at = Instant::now();
        loop {
            tokio::time::sleep(EVERY).await;
            let began = Instant::now();
            let left = DEADLINE.saturating_sub(began.duration_since(renewed_at));
            let why = match tokio::time::timeout(left, self.turn()).await {
                Ok(Ok(true)) => {
                    renewed_at = began;
                    continue;
                }
                Ok(Ok(false)) => {
                    let holder = self.seen.as_ref().and_then(|(lease, _)| lease.holder_identity.clone());
                    return self.lost(format!("{} holds it now", holder.unwrap_or_default()));
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => "no answer".to_owned(),
            };
            tracing::warn!(object = %self.key(), why, "the lease was not renewed");
            if renewed_at.elapsed() + EVERY >= DEADLINE {
                return self.lost(format!("it could not be renewed for {} s: {why}", DEADLINE.as_secs()));
            }
        }
    }

    /// Gives the lease back, so that the next one need not wait until it runs out.
    pub(crate) async fn release(&mut self) {
        let given_back = async {
            let lease = self.get().await?;
            let Some(mut lease) = lease else { return Ok(()) };
            let Some(spec) = lease.spec.as_mut().filter(|spec| spec.holder_identity.as_ref() == Some(&self.me)) else {
                return Ok(());
            };
            spec.holder_identity = None;
            spec.lease_duration_seconds = Some(1);
            self.replace(&lease).await.map(drop)
        };
        if let Err(error) = given_back.await {
            tracing::warn!(object = %self.key(), %error, "the lease was not given back: the next leader waits for its end");
        }
    }

    /// One look, and one write if the lease is ours to write. True: this process holds it.
    async fn turn(&mut self) -> Result<bool, OperatorError> {
        self.pulse.took_turn(clock::now());
        if let Some(held) = self.held.take() {
            let new = renewed(held.spec.as_ref(), &self.me, clock::now());
            match self.replace(&Lease { spec: Some(new), ..held }).await {
                Ok(written) => return Ok(self.has(written)),
                // Somebody changed it: who, is in it.
                Err(error) if error.is_conflict() => {}
                Err(error) => return Err(error),
            }
        }
        let lease = self.get().await?;
        self.pulse.was_answered(clock::now());
        let spec = lease.as_ref().and_then(|lease| lease.spec.clone());
        let unchanged_for = self.watch(spec.as_ref());
        if decide(spec.as_ref(), &self.me, unchanged_for) == Turn::Wait {
            return Ok(false);
        }
        let new = renewed(spec.as_ref(), &self.me, clock::now());
        let written = match lease {
            Some(lease) => self.replace(&Lease { spec: Some(new), ..lease }).await,
            None => self.create(new).await,
        };
        match written {
            Ok(written) => Ok(self.has(written)),
            // Somebody else was faster: what he wrote is seen next time.
            Err(error) if error.is_conflict() => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn has(&mut self, written: Lease) -> bool {
        self.pulse.was_answered(clock::now());
        self.held = Some(written);
        true
    }

    fn watch(&mut self, spec: Option<&LeaseSpec>) -> Duration {
        let Some(spec) = spec else { return Duration::ZERO };
        match &self.seen {
            Some((seen, since)) if seen == spec => since.elapsed(),
            _ => {
                self.seen = Some((spec.clone(), Instant::now()));
                Duration::ZERO
            }
        }
    }

    async fn get(&self) -> Result<Option<Lease>, OperatorError> {
        self.in_time(self.api.get_opt(&self.name)).await.during(|| format!("read the lease {}", self.key()))
    }

    async fn create(&self, spec: LeaseSpec) -> Result<Lease, OperatorError> {
        let labels = [(MANAGED_BY.0.to_owned(), MANAGED_BY.1.to_owned())].into();
        let metadata = ObjectMeta { name: Some(self.name.clone()), labels: Some(labels), ..ObjectMeta::default() };
        let lease = Lease { metadata, spec: Some(spec) };
        let (params, made) = (PostParams::default(), lease);
        self.in_time(self.api.create(&params, &made)).await.during(|| format!("make the lease {}", self.key()))
    }

    /// Refused if the lease was changed since it was read.
    async fn replace(&self, lease: &Lease) -> Result<Lease, OperatorError> {
        let params = PostParams::default();
        self.in_time(self.api.replace(&self.name, &params, lease))
            .await
            .during(|| format!("write the lease {}", self.key()))
    }

    async fn in_time<T>(&self, request: impl Future<Output = Result<T, kube::Error>>) -> Result<T, kube::Error> {
        match tokio::time::timeout(PATIENCE, request).await {
            Ok(answered) => answered,
            Err(_) => Err(kube::Error::Service("no answer in time".into())),
        }
    }

    fn lost(&self, why: String) -> OperatorError {
        OperatorError::LeaseLost { lease: self.key(), why }
    }

    fn key(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(by: &str) -> LeaseSpec {
        renewed(None, by, Timestamp::from_second(1000).unwrap())
    }

    #[test]
    fn a_lease_is_taken_when_its_holder_is_silent_for_as_long_as_it_is_valid() {
        let lease = held("a");
        let after = |seconds| decide(Some(&lease), "b", Duration::from_secs(seconds));
        assert_eq!(after(0), Turn::Wait);
        assert_eq!(after(15), Turn::Wait);
        assert_eq!(after(16), Turn::Write);
        assert_eq!(decide(Some(&lease), "a", Duration::ZERO), Turn::Write, "its own");
        assert_eq!(decide(None, "b", Duration::ZERO), Turn::Write, "nobody ever had it");
        let released = LeaseSpec { holder_identity: None, ..lease };
        assert_eq!(decide(Some(&released), "b", Duration::ZERO), Turn::Write);
    }

    #[test]
    fn a_holder_stops_before_another_one_begins() {
        assert!(DEADLINE + EVERY < VALID && PATIENCE + EVERY < DEADLINE);
    }

    #[test]
    fn transitions_count_holders_and_not_renewals() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let first = held("a");
        assert_eq!(first.lease_transitions, Some(0));
        let again = renewed(Some(&first), "a", at(1002));
        assert_eq!((again.lease_transitions, again.acquire_time.clone()), (Some(0), first.acquire_time.clone()));
        let other = renewed(Some(&again), "b", at(1100));
        assert_eq!(other.lease_transitions, Some(1));
        assert_eq!(other.acquire_time.unwrap().0, at(1100));
    }

    #[test]
    fn health_and_readiness_differ() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let pulse = Pulse::new(at(1000));
        assert_eq!(pulse.health(at(1060)), Ok(()));
        assert!(pulse.health(at(1061)).unwrap_err().contains("61 s ago"));
        assert!(pulse.readiness(at(1001)).unwrap_err().starts_with("never"));
        pulse.was_answered(at(1000));
        assert_eq!(pulse.readiness(at(1015)), Ok(()));
        assert!(pulse.readiness(at(1016)).is_err());
        pulse.definitions_are(Some("the definition d is missing".to_owned()));
        assert_eq!(pulse.readiness(at(1015)).unwrap_err(), "the definition d is missing");
        assert_eq!(pulse.health(at(1015)), Ok(()), "starting it anew would not help");
        pulse.definitions_are(None);
        assert_eq!(pulse.readiness(at(1015)), Ok(()));
    }
}
