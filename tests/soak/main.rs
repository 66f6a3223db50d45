//! `make soak`: what takes too long for `make test`.
//!
//! The tool is killed at random moments, again and again, in lock waits too. Never may a killed run be a backup, never
//! may a lock outlive it, and nobody may be left queueing; and a restore that was killed is no database, and the next
//! one over it is as good as one that nobody disturbed.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "what fails, fails the test")]

#[path = "../support/mod.rs"]
mod support;

mod kill;
mod restore;
