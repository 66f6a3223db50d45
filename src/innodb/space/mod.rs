//! Tablespaces: what page 0 says of a file.

pub mod encryption;
pub mod flags;
pub mod header;

pub use encryption::{EncryptionInfo, TablespaceKey};
pub use flags::TablespaceFlags;
pub use header::SpaceHeader;
