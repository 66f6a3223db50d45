//! The header that every page begins with (tablespace-files reference, section 2).
//!
//! ```text
//!   0 checksum │ 4 page no │ 8 prev │ 12 next │ 16 LSN (8) │ 24 type (2) │ 26 flush LSN or: │ 34 space id │ 38 body
//!                                                             26 version │ 27 algorithm │ 28 original type
//!                                                             30 original size │ 32 compressed size
//! ```

/// Offset of the page number.
pub const PAGE_NO: usize = 4;
/// Offset of the number of the next page of its list or level.
pub const NEXT: usize = 12;
/// Offset of the page LSN.
pub const LSN: usize = 16;
/// Offset of the low half of the page LSN.
pub const LSN_LOW: usize = 20;
/// Offset of the page type.
pub const TYPE: usize = 24;
/// Offset of the flush LSN, and of the header of a page-compressed page.
pub const FLUSH_LSN: usize = 26;
/// Offset of the compression algorithm.
pub const COMPRESSION_ALGORITHM: usize = 27;
/// Offset of the page type before compression or encryption.
pub const ORIGINAL_TYPE: usize = 28;
/// Offset of the body's size before compression.
pub const ORIGINAL_SIZE: usize = 30;
/// Offset of the body's size after compression.
pub const COMPRESSED_SIZE: usize = 32;
/// Offset of the space id.
pub const SPACE_ID: usize = 34;
/// Offset of the body.
pub const BODY: usize = 38;
/// Size of the low half of the LSN at a page's very end.
pub const TRAILER_LSN: usize = 4;
