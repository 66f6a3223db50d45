//! Scenarios on a real cluster, with a real MySQL under writes and a real S3 server in it.
//!
//! ```text
//!   e2e/run ── cluster up, images built and loaded, operator installed by Helm
//!     └─► this program, against $KUBECONFIG
//!           scenario ─► Space (a namespace) ─► Mysql, Bucket, Load ─► what is to be shown ─► compare data
//! ```
//!
//! A scenario is a test function in `scenarios/`; what it stands on is in `harness/`. Each one has a namespace of its
//! own, which goes when it ends. A scenario that fails first prints what Kubernetes knows about it;
//! `STILLFRAME_E2E_KEEP=1` leaves its namespace. Those in `scenarios::core` are the short set that `make test` runs.

mod harness;
mod scenarios;
