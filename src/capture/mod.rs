//! The hot copy of a live data directory.
