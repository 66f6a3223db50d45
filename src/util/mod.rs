//! Leaf helpers.
