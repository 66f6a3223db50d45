//! Windows: the unit in which a copy is handed over.
//!
//! ```text
//!   a tablespace   |0 ───── 4 MiB|───── 8 MiB|──── …
//!                   window 0      window 1        by position, whatever the page size
//! ```

use crate::innodb::ids::{PageNo, PageSize, SpaceId};

/// Raw bytes of a tablespace that a window spans; a multiple of every page size.
pub const WINDOW_BYTES: u64 = 4 << 20;

/// What a [`WindowSink`] fails with.
pub type SinkError = Box<dyn std::error::Error + Send + Sync>;

/// A run of verified pages.
#[derive(Debug, Clone, Copy)]
pub struct Window<'a> {
    /// The tablespace.
    pub space: SpaceId,
    /// Which window of it: position divided by [`WINDOW_BYTES`].
    pub window_no: u32,
    /// Size of a page in the file.
    pub page_size: PageSize,
    /// Number of the first page.
    pub first_page: PageNo,
    /// The pages, one after another, zero ones included.
    pub pages: &'a [u8],
    /// For each page, whether it is all zero.
    pub zero: &'a [bool],
}

/// Takes windows. Each copying thread has one of its own.
pub trait WindowSink: Send {
    /// Takes a window; blocks while there is no room.
    fn window(&mut self, window: &Window<'_>) -> Result<(), SinkError>;

    /// No window follows.
    fn finish(self: Box<Self>) -> Result<(), SinkError>;
}
