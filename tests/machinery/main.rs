//! The test machinery itself, proven on the real server without a backup in sight.

#[path = "../support/mod.rs"]
mod support;

mod replica;
mod server;
mod workload;
