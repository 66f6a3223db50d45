//! Faults and bad inputs, seen from outside: what the built binary says, how it ends, and what it leaves behind.
//!
//! ```text
//!   server.rs   redo that is lost, servers that die, restart or are reset, damaged pages
//!   locks.rs    who waits for whom, and for how long
//!   consumer.rs the redo consumer, given up before the server stalls
//!   cancel.rs   signals at every step: locks go at once, nothing stays that could be taken for a backup
//!   commit.rs   what must be true before a backup exists
//!   damage.rs   stored objects that are cut short, missing, swapped or altered; keys; two servers in one repository
//!   target.rs   restores that are refused before a byte is written, and those that were interrupted
//!   recovery.rs a server that was to finish a restore and does not
//!   retries.rs  uploads that take several tries
//!   options.rs  what is refused before the copy, and what each option promises
//! ```
//! All backups are taken as the minimal user that `stillframe grants` prints.

#![allow(clippy::unwrap_used, clippy::panic, reason = "what fails, fails the test")]

#[path = "../support/mod.rs"]
mod support;

mod cancel;
mod commit;
mod consumer;
mod damage;
mod help;
mod locks;
mod options;
mod recovery;
mod retries;
mod server;
mod target;
