//! What is shown on the cluster, a story each. `core` is the short set.

pub mod core;

mod deaths;
mod demo;
mod encrypted;
mod gitops;
mod identity;
mod import;
mod killed;
mod limits;
mod measure;
mod members;
mod new_cluster;
mod restores;
mod schedule;
mod storage_faults;
mod upgrade;
mod volume_storage;
mod volumes;
