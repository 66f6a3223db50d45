//! Whole archives: round trips, tampering, golden bytes.
