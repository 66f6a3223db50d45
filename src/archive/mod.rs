//! The backup's own format.
