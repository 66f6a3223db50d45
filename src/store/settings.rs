//! What a repository's connection may cost and how long it tries. A user gives URL and environment; the rest are
//! constants here, and fields so that tests need not wait minutes.
//!
//! ```text
//!   memory of uploads  <=  bytes_in_flight                       parts on their way, all writers together
//!                        + writers x part_bytes                  the part that each is filling
//!                        + writers x 2 MiB                       a file store's buffer for direct writes
//!   defaults, 8 writers:   40 MiB + 8 x (8 + 2) MiB = 120 MiB    (the process's bound is 256 MiB)
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

/// The settings of a connection.
#[derive(Clone)]
pub struct StoreSettings {
    /// The variables by which clouds are configured: `AWS_…`, `GOOGLE_…`, `AZURE_…`.
    pub environment: BTreeMap<String, String>,
    /// How long one request is tried once a backup or restore is going on.
    pub patience: Duration,
    /// How long one request is tried before: a wrong endpoint or key shows in seconds.
    pub first_patience: Duration,
    /// How long one request that carries data may take: then it is given up, and sent again.
    pub data_request: Duration,
    /// How often a run says that it is alive.
    pub lease_every: Duration,
    /// How long after that others must believe it, by the store's clock. Whole seconds.
    pub lease_valid: Duration,
    /// The size of an upload's first parts.
    pub part_bytes: usize,
    /// Parts that one object may have on their way.
    pub parts_in_flight: usize,
    /// Bytes that all uploads together may have on their way.
    pub bytes_in_flight: usize,
}

impl StoreSettings {
    /// How long one request is tried once a backup or restore is going on.
    pub const PATIENCE: Duration = Duration::from_mins(5);
    /// How long one request is tried before that.
    pub const FIRST_PATIENCE: Duration = Duration::from_secs(6);
    /// How long one request that carries data may take.
    pub const DATA_REQUEST: Duration = Duration::from_secs(150);
    /// How often a run says that it is alive.
    pub const LEASE_EVERY: Duration = Duration::from_secs(10);
    /// How long after that others must believe it.
    pub const LEASE_VALID: Duration = Duration::from_mins(1);
    /// The size of an upload's first parts: above every store's least (5 MiB), small enough to send again.
    pub const PART_BYTES: usize = 8 << 20;
    /// Parts that one object may have on their way.
    pub const PARTS_IN_FLIGHT: usize = 4;
    /// Bytes that all uploads together may have on their way.
    pub const BYTES_IN_FLIGHT: usize = 40 << 20;

    /// The defaults, with this process's environment.
    pub fn from_env() -> Self {
        Self::new(
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))),
        )
    }

    /// The defaults, with these variables in place of the environment.
    pub fn new<N: Into<String>, V: Into<String>>(environment: impl IntoIterator<Item = (N, V)>) -> Self {
        let wanted =
            |name: &str| ["AWS_", "GOOGLE_", "AZURE_", "STORAGE_EMULATOR_HOST"].iter().any(|p| name.starts_with(p));
        let environment = environment.into_iter().map(|(name, value)| (name.into(), value.into()));
        Self {
            // A variable that is set but empty means the same as none: pods often have such.
            environment: environment
                .filter(|(name, value): &(String, String)| wanted(name) && !value.is_empty())
                .collect(),
            patience: Self::PATIENCE,
            first_patience: Self::FIRST_PATIENCE,
            data_request: Self::DATA_REQUEST,
            lease_every: Self::LEASE_EVERY,
            lease_valid: Self::LEASE_VALID,
            part_bytes: Self::PART_BYTES,
            parts_in_flight: Self::PARTS_IN_FLIGHT,
            bytes_in_flight: Self::BYTES_IN_FLIGHT,
        }
    }

    pub(super) fn variable(&self, names: &[&str]) -> Option<&str> {
        names.iter().find_map(|name| self.environment.get(*name)).map(String::as_str)
    }
}

/// Shows no values: some are secrets.
impl std::fmt::Debug for StoreSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreSettings").field("environment", &self.environment.keys()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_concerns_stores_is_taken_and_never_shown() {
        let settings = StoreSettings::new([
            ("AWS_SECRET_ACCESS_KEY", "hunter2"),
            ("AWS_REGION", ""),
            ("HOME", "/home/x"),
            ("AZURE_STORAGE_ACCOUNT_NAME", "a"),
        ]);
        assert_eq!(
            settings.environment.keys().collect::<Vec<_>>(),
            ["AWS_SECRET_ACCESS_KEY", "AZURE_STORAGE_ACCOUNT_NAME"]
        );
        assert!(!format!("{settings:?}").contains("hunter2"));
        assert_eq!(settings.variable(&["AWS_REGION", "AZURE_STORAGE_ACCOUNT_NAME"]), Some("a"));
    }
}
