//! The store against real backends: a directory, and a real S3 server, with and without a proxy that makes requests
//! fail.

#![allow(missing_docs, dead_code, reason = "each test uses a part of it")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "what fails, fails the test")]

mod support {
    #[path = "../support/certificate.rs"]
    pub mod certificate;
    #[path = "../support/proxy.rs"]
    pub mod proxy;
    #[path = "../support/s3.rs"]
    pub mod s3;
    #[path = "../support/wait.rs"]
    pub mod wait;
}

#[path = "store/conformance.rs"]
mod conformance;
#[path = "store/faults.rs"]
mod faults;
#[path = "store/fencing.rs"]
mod fencing;
#[path = "store/help.rs"]
mod help;
#[path = "store/identity.rs"]
mod identity;
#[path = "store/many.rs"]
mod many;
#[path = "store/marks.rs"]
mod marks;
#[path = "store/preflight.rs"]
mod preflight;
#[path = "store/removal.rs"]
mod removal;
