//! The short set: what must work before anything else is worth a look.

mod backup_and_restore;
pub mod chart;
mod docs;
pub mod plain_pods;
