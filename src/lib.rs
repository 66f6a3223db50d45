//! Stillframe: physical hot backups of MySQL.
//!
//! ```text
//!   cli ──────────────► ops (the verbs: backup, restore, verify, …)
//!                        │
//!        ┌───────────┬───────────┬┴───────────┬──────────┬──────────┐
//!     capture     prepare     archive       store      mysql      innodb
//!   (hot copy)  (recovery)  (stored form) (buckets)   (SQL)    (formats, pure)
//! ```
//!
//! [`innodb`] turns bytes into types and knows no I/O. [`capture`] copies a live data directory and follows its
//! redo log; [`prepare`] applies that redo to the copy. [`archive`] is the backup's own format, [`store`] is where archives live, [`mysql`] is the live
//! server over SQL. [`ops`] puts them together, one verb a file; start reading at `ops/backup/mod.rs`.

#[cfg(feature = "operator")]
pub mod api;
pub mod archive;
pub mod capture;
pub mod cli;
pub mod innodb;
pub mod mysql;
pub mod obs;
#[cfg(feature = "operator")]
pub mod operator;
pub mod ops;
pub mod prepare;
#[cfg(feature = "operator")]
pub mod runner;
pub mod store;
pub mod util;
