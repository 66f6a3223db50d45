//! What all integration tests share: real servers, a workload, a replica, the built binary.
//!
//! ```text
//!   Server ──► mysqld (tests/setup/mysql.sh finds or installs it; without one the tests fail)
//!     ▲  ▲
//!     │  └── Workload: many kinds of tables, concurrent writers, invariants
//!     └───── Replica: a second server that catches up; checksums compared
//!   Cli ───► target/…/stillframe, in the foreground or to be killed
//! ```
//!
//! Everything that a test starts dies with it: dropping a [`server::Server`] kills it, and a watchdog does so when the
//! test process itself is killed.

#![allow(dead_code, unused_imports, reason = "each test uses a part of it")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "it is part of tests: what fails, fails them"
)]

pub mod certificate;
pub mod cli;
pub mod files;
pub mod proxy;
pub mod replica;
pub mod round;
pub mod s3;
pub mod server;
pub mod wait;
pub mod workload;
