//! The verbs: what a person, a script or a pod asks for, each `XxxOptions -> run(&Context) -> XxxReport`.
//!
//! ```text
//!   options ──► run(context, options) ──► report
//!                 │ progress, cancel        or Error { kind }
//! ```
//!
//! Knows the engine's modules and puts them together. Knows no command line, no terminal and no cluster.

pub mod context;
pub mod error;
pub mod progress;
pub mod report;

pub use context::Context;
pub use error::{Error, ErrorKind};
pub use progress::Progress;
