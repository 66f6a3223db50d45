//! Where archives live.
