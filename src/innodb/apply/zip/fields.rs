//! How a compressed page describes its rows, so that it can be decompressed without its table.
//!
//! ```text
//!   0, 1      variable, at most 255 bytes: may be NULL, may not        2·n, 2·n+1   n bytes, always: likewise
//!   126, 127  variable, more than that: likewise                       (1 byte below 126, else 0x80|high, low)
//!   last      place of the transaction id; 0 in secondary leaves; in node pointers the number of fields that may be NULL
//! ```
//! Fields of fixed size that may not be NULL are taken together as one, but the transaction id begins a new one.

use super::super::layout::{LayoutField, RowLayout, RowShape};
use super::{HEADER, WHAT, invalid};
use crate::innodb::FormatError;
use crate::innodb::cursor::u8_at;
use crate::innodb::redo::body::index::FieldWidth;

/// Bytes of transaction id and roll pointer.
pub const SYSTEM: usize = 13;
/// Bytes of a child's page number.
pub const CHILD: usize = 4;
/// The largest field that others are taken together to.
const MOST_TOGETHER: usize = 768;
const BIG: u8 = 126;
const TWO_BYTES: u8 = 0x80;

/// What of its rows a page keeps outside of the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// Nothing: leaves of secondary indexes.
    Nothing,
    /// Transaction id and roll pointer, at this place among the fields: leaves of clustered indexes.
    System(usize),
    /// The child: node pointers.
    Child,
}

impl Kept {
    /// Of an index's pages.
    pub fn of(layout: &RowLayout, leaf: bool) -> Self {
        match (leaf, layout.is_clustered()) {
            (false, _) => Self::Child,
            (true, true) => Self::System(layout.unique()),
            (true, false) => Self::Nothing,
        }
    }

    /// Bytes of each row.
    pub const fn width(self) -> usize {
        match self {
            Self::Nothing => 0,
            Self::System(_) => SYSTEM,
            Self::Child => CHILD,
        }
    }

    /// Where in a row that is.
    pub fn place(self, shape: &RowShape) -> Result<usize, FormatError> {
        let start = match self {
            Self::Nothing => shape.data,
            Self::System(place) => shape.field(place)?.0,
            Self::Child => shape.data.saturating_sub(CHILD),
        };
        if start.saturating_add(self.width()) > shape.data {
            return Err(invalid(format!("a row of {} bytes lacks its system columns", shape.data)));
        }
        Ok(start)
    }

    /// The parts of a row that are in stream and log, by start and end, in their order: all but what is kept, and but
    /// for off-page pointers.
    pub fn parts(self, shape: &RowShape) -> Result<Vec<(usize, usize)>, FormatError> {
        let kept = self.place(shape)?;
        let mut holes = vec![(kept, self.width())];
        holes.extend(pointers(shape)?.into_iter().map(|at| (at, super::POINTER)));
        if !matches!(self, Self::System(_)) && holes.len() > 1 {
            return Err(invalid("a row outside of clustered leaves has off-page columns".into()));
        }
        holes.sort_unstable();
        let (mut parts, mut at) = (Vec::with_capacity(holes.len().saturating_add(1)), 0);
        for (hole, len) in holes {
            if hole < at {
                return Err(invalid("the columns of a row overlap".into()));
            }
            parts.push((at, hole));
            at = hole.saturating_add(len);
        }
        parts.push((at, shape.data));
        Ok(parts)
    }
}

/// Where in a row the pointers to off-page columns are, in the columns' order.
pub fn pointers(shape: &RowShape) -> Result<Vec<usize>, FormatError> {
    let mut found = Vec::new();
    for (place, _) in shape.fields.iter().enumerate().filter(|(_, field)| field.external) {
        let (start, len, _) = shape.field(place)?;
        let before = len.checked_sub(super::POINTER);
        let before = before.ok_or_else(|| invalid(format!("an off-page column has {len} bytes")))?;
        found.push(start.saturating_add(before));
    }
    Ok(found)
}

/// The rows of a page, as it describes them.
#[derive(Debug)]
pub struct Described {
    /// Their layout.
    pub layout: RowLayout,
    /// What is kept of them.
    pub kept: Kept,
    /// The most bytes before a row's origin.
    pub most_extra: usize,
}

/// Describes rows of an index.
pub fn encode(layout: &RowLayout, leaf: bool) -> Vec<u8> {
    let kept = Kept::of(layout, leaf);
    let fields = layout.fields();
    let count = if !leaf && layout.is_clustered() { layout.unique() } else { fields.len() };
    let (mut out, mut together, mut described, mut transaction) = (Vec::new(), 0_usize, 0_usize, 0_usize);
    for (place, field) in fields.iter().take(count).enumerate() {
        let fixed = match field.width {
            FieldWidth::Fixed(len) => Some(usize::from(len)),
            FieldWidth::Variable | FieldWidth::Big => None,
        };
        if let (Some(len), false) = (fixed, field.nullable) {
            let is_transaction = kept == Kept::System(place) && place != 0;
            if together != 0 && (is_transaction || together.saturating_add(len) > MOST_TOGETHER) {
                put_fixed(&mut out, together, false);
                (together, described) = (0, described.saturating_add(1));
            }
            if is_transaction {
                transaction = described;
            }
            together = together.saturating_add(len);
            continue;
        }
        if together != 0 {
            put_fixed(&mut out, together, false);
            (together, described) = (0, described.saturating_add(1));
        }
        match (fixed, field.width) {
            (Some(len), _) => put_fixed(&mut out, len, true),
            (None, FieldWidth::Big) => out.push(BIG | u8::from(!field.nullable)),
            (None, _) => out.push(u8::from(!field.nullable)),
        }
        described = described.saturating_add(1);
    }
    if together != 0 {
        put_fixed(&mut out, together, false);
    }
    let last = if leaf { transaction } else { fields.iter().filter(|field| field.nullable).count() };
    put(&mut out, last, usize::from(TWO_BYTES));
    out
}

fn put_fixed(out: &mut Vec<u8>, len: usize, nullable: bool) {
    put(out, len.saturating_mul(2).saturating_add(usize::from(!nullable)), usize::from(BIG));
}

/// Numbers below `two_from` take one byte.
fn put(out: &mut Vec<u8>, number: usize, two_from: usize) {
    let [.., middle, low] = number.to_be_bytes();
    if number < two_from {
        out.push(low);
    } else {
        out.extend_from_slice(&[TWO_BYTES | middle, low]);
    }
}

/// Reads a number. Gives it, and where it ends.
fn number(bytes: &[u8], at: usize) -> Result<(usize, usize, bool), FormatError> {
    let first = u8_at(bytes, at, WHAT)?;
    if first & TWO_BYTES == 0 {
        return Ok((usize::from(first), at.saturating_add(1), false));
    }
    let low = u8_at(bytes, at.saturating_add(1), WHAT)?;
    let value = u16::from_be_bytes([first & !TWO_BYTES, low]);
    Ok((usize::from(value), at.saturating_add(2), true))
}

/// Reads a description.
pub fn decode(bytes: &[u8], leaf: bool) -> Result<Described, FormatError> {
    let (mut fields, mut at) = (Vec::new(), 0);
    let last = loop {
        let (value, next, long) = number(bytes, at)?;
        if next >= bytes.len() {
            break value;
        }
        at = next;
        let width = match value {
            _ if long => FieldWidth::Fixed(width_of(value >> 1)?),
            126 | 127 => FieldWidth::Big,
            0 | 1 => FieldWidth::Variable,
            fixed => FieldWidth::Fixed(width_of(fixed >> 1)?),
        };
        fields.push(LayoutField::new(value & 1 == 0, width));
    };
    let count = fields.len();
    let kept = match (leaf, last) {
        (false, _) => Kept::Child,
        (true, 0) => Kept::Nothing,
        (true, place) if place < count => Kept::System(place),
        (true, place) => return Err(invalid(format!("the transaction id is field {place} of {count}"))),
    };
    if !leaf {
        // Node pointers have the bits of all fields of their index, most of which they lack.
        let nullable = fields.iter().filter(|field| field.nullable).count();
        let lacking = last.checked_sub(nullable);
        let lacking = lacking.ok_or_else(|| invalid(format!("{nullable} fields can be NULL, not {last}")))?;
        fields.extend((0..lacking).map(|_| LayoutField::new(true, FieldWidth::Variable)));
    }
    let nulls = fields.iter().filter(|field| field.nullable).count();
    let most_extra = HEADER.saturating_add(nulls.div_ceil(8)).saturating_add(count.saturating_mul(2));
    Ok(Described { layout: RowLayout::plain(fields, count), kept, most_extra })
}

fn width_of(len: usize) -> Result<u16, FormatError> {
    let width = u16::try_from(len).ok().filter(|len| *len != 0);
    width.ok_or_else(|| invalid(format!("a field has {len} bytes")))
}
