//! How the rows of an index are laid out, from the description that redo records carry (redo-records reference,
//! section 4; record-format reference, sections 3 and 4).
//!
//! ```text
//!   compact     … lengths │ nulls │ [version] or [fields] │ info, owned │ heap no, status │ next ║ origin: fields …
//!               ◄──────────── read from the origin down ─────────────── 5 bytes ─────────►
//!   redundant   … ends of fields │ [version] │ info, owned │ heap no, fields, size of ends │ next ║ origin: fields …
//!                                               ◄──────────── 6 bytes ───────────────────►
//! ```
//! Few different descriptions are repeated millions of times: [`Layouts`] keeps what was made of them.

use std::collections::HashMap;
use std::sync::Arc;

use crate::innodb::FormatError;
use crate::innodb::cursor::{u8_at, u16_at};
use crate::innodb::redo::body::index::{FieldWidth, IndexInfo};

const WHAT: &str = "row";
/// Bytes of a compact row between its origin and what describes its fields.
pub const COMPACT_HEADER: usize = 5;
/// Likewise of a redundant one.
pub const REDUNDANT_HEADER: usize = 6;
/// The row is the smallest of its level, whatever its fields say.
pub const INFO_MIN: u8 = 0x10;
/// The row is marked as deleted, and still there.
pub const INFO_DELETED: u8 = 0x20;
/// The row says which version of its table it was written under.
pub const INFO_VERSION: u8 = 0x40;
/// The row says how many fields it has.
pub const INFO_INSTANT: u8 = 0x80;
/// Bytes of the number of a child page, behind the fields of a node pointer.
pub const CHILD: usize = 4;
/// Infimum and supremum have this much data.
const BOUND: usize = 8;

/// A field in its place in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayoutField {
    /// It can be NULL.
    pub nullable: bool,
    /// How it is stored.
    pub width: FieldWidth,
    /// The row version that brought it.
    added: Option<u8>,
    /// The row version that took it away.
    dropped: Option<u8>,
}

impl LayoutField {
    /// A field that was always there.
    pub(super) const fn new(nullable: bool, width: FieldWidth) -> Self {
        Self { nullable, width, added: None, dropped: None }
    }

    /// A row of this version has it.
    fn is_in(&self, version: u8) -> bool {
        self.dropped.is_none_or(|dropped| dropped > version) && self.added.is_none_or(|added| added <= version)
    }
}

/// The layout of an index's rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowLayout {
    compact: bool,
    versioned: bool,
    instant: bool,
    clustered: bool,
    unique: usize,
    core: usize,
    /// In the order of the rows, dropped ones included.
    fields: Vec<LayoutField>,
    /// Places of the fields in the description's order.
    places: Vec<usize>,
}

/// Where a field of a row ends, counted from the origin, and what is known of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FieldEnd {
    /// End of its bytes.
    pub end: usize,
    /// It is NULL.
    pub null: bool,
    /// Its last 20 bytes point to the rest of it.
    pub external: bool,
    /// The row has it: else it was written under a version without.
    pub present: bool,
}

/// A row's size and its fields, used again for each row.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RowShape {
    /// Bytes before the origin.
    pub extra: usize,
    /// Bytes from the origin on.
    pub data: usize,
    /// Fields in the order of the row; none for infimum and supremum. A node pointer's child is not among them.
    pub fields: Vec<FieldEnd>,
}

impl RowShape {
    /// All its bytes.
    pub const fn size(&self) -> usize {
        self.extra.saturating_add(self.data)
    }

    /// Start and length of a field, from the origin on.
    pub fn field(&self, place: usize) -> Result<(usize, usize, FieldEnd), FormatError> {
        let count = self.fields.len();
        let field = self.fields.get(place).ok_or_else(|| invalid(format!("it has {count} fields, not {place}")))?;
        let start = match place.checked_sub(1) {
            Some(before) => self.fields.get(before).map_or(0, |field| field.end),
            None => 0,
        };
        let len =
            field.end.checked_sub(start).ok_or_else(|| invalid(format!("field {place} ends before it starts")))?;
        Ok((start, len, *field))
    }
}

/// What a compact row says of itself.
struct CompactHead {
    /// Lowest byte read so far.
    at: usize,
    nulls: usize,
    fields: Present,
}

/// Which fields a row has.
#[derive(Clone, Copy)]
enum Present {
    /// The first so many.
    First(usize),
    /// Those of a version.
    OfVersion(u8),
}

impl RowLayout {
    /// The layout that a description means.
    pub fn new(info: &IndexInfo<'_>) -> Result<Self, FormatError> {
        let count = usize::from(info.field_count);
        let described: Vec<_> = info.fields().collect();
        let mut fields: Vec<Option<LayoutField>> = vec![None; count];
        let mut places = vec![0; count];
        let field = |logical: usize| match described.get(logical) {
            Some(field) => (field.nullable, field.width),
            // Rows in the old format tell where their fields end, and whether they are NULL.
            None => (true, FieldWidth::Variable),
        };
        let mut put = |logical: usize, place: usize, added, dropped| {
            let (nullable, width) = field(logical);
            let slot = fields.get_mut(place).filter(|slot| slot.is_none());
            let slot = slot.ok_or_else(|| description(format!("no place {place} for field {logical}")))?;
            *slot = Some(LayoutField { nullable, width, added, dropped });
            *places.get_mut(logical).ok_or_else(|| description(format!("no field {logical}")))? = place;
            Ok::<(), FormatError>(())
        };
        let mut listed = vec![None; count];
        for versioned in info.versioned_fields() {
            let (logical, place) = (usize::from(versioned.logical), usize::from(versioned.physical));
            put(logical, place, versioned.added, versioned.dropped)?;
            *listed.get_mut(logical).ok_or_else(|| description(format!("no field {logical}")))? = Some(versioned);
        }
        let mut used: Vec<bool> = vec![false; count];
        for versioned in listed.iter().flatten() {
            if let Some(used) = used.get_mut(usize::from(versioned.physical)) {
                *used = true;
            }
        }
        // The others keep their order; those that were added at once do not count, since they stand further behind.
        let mut shift = 0_usize;
        for (logical, listed) in listed.iter().enumerate() {
            if let Some(versioned) = listed {
                if versioned.added.is_some() && versioned.dropped.is_none() {
                    shift = shift.saturating_add(1);
                }
                continue;
            }
            let mut place = logical.saturating_sub(shift);
            while used.get(place).copied().unwrap_or(false) {
                place = place.saturating_add(1);
            }
            put(logical, place, None, None)?;
            if let Some(used) = used.get_mut(place) {
                *used = true;
            }
        }
        let fields: Option<Vec<LayoutField>> = fields.into_iter().collect();
        Ok(Self {
            compact: info.flags.is_compact(),
            versioned: info.flags.is_versioned(),
            instant: info.flags.is_instant(),
            clustered: info.is_clustered(),
            unique: usize::from(info.unique_count),
            core: info.core_count.map_or(count, usize::from),
            fields: fields.ok_or_else(|| description("its places have gaps".into()))?,
            places,
        })
    }

    /// Compact rows of these fields, of which the first `unique` are in node pointers.
    pub(super) fn plain(fields: Vec<LayoutField>, unique: usize) -> Self {
        let (core, places) = (fields.len(), (0..fields.len()).collect());
        Self { compact: true, versioned: false, instant: false, clustered: true, unique, core, fields, places }
    }

    /// Rows are in the new format.
    pub const fn is_compact(&self) -> bool {
        self.compact
    }

    /// No field ever came or went.
    pub(super) const fn is_plain(&self) -> bool {
        self.compact && !self.versioned && !self.instant
    }

    /// As far as the description tells: one in the old format looks like a secondary index.
    pub const fn is_clustered(&self) -> bool {
        self.clustered
    }

    /// Number of fields that make a row unique.
    pub const fn unique(&self) -> usize {
        self.unique
    }

    /// All fields in the order of the rows; meaningless for rows in the old format.
    pub fn fields(&self) -> &[LayoutField] {
        &self.fields
    }

    /// The place in a row of a field that a record names by its number in the description. The number is the place
    /// itself where fields never moved.
    pub fn place_of(&self, field: u32) -> Result<usize, FormatError> {
        let field = usize::try_from(field).unwrap_or(usize::MAX);
        if !self.versioned {
            return Ok(field);
        }
        let known = self.places.get(field).copied();
        known.ok_or_else(|| description(format!("field {field} of {}", self.places.len())))
    }

    /// Which of the ends of a row belongs to the field at `place`: rows in the old format have none for fields that
    /// they were written without.
    pub fn entry_of(&self, place: usize, row_version: Option<u8>) -> usize {
        if self.compact || !self.versioned {
            return place;
        }
        let version = row_version.unwrap_or(0);
        self.fields.iter().take(place).filter(|field| field.is_in(version)).count()
    }

    /// Measures the row at `origin` of `bytes`, which may be a page or a copy of one row.
    pub fn measure(&self, bytes: &[u8], origin: usize, shape: &mut RowShape) -> Result<(), FormatError> {
        shape.fields.clear();
        if self.compact { self.measure_compact(bytes, origin, shape) } else { measure_redundant(bytes, origin, shape) }
    }

    fn measure_compact(&self, bytes: &[u8], origin: usize, shape: &mut RowShape) -> Result<(), FormatError> {
        let status = u8_at(bytes, below(origin, 3)?, WHAT)? & 7;
        let node = match status {
            0 => false,
            1 => true,
            2 | 3 => {
                (shape.extra, shape.data) = (COMPACT_HEADER, BOUND);
                return Ok(());
            }
            other => return Err(invalid(format!("its status is {other}"))),
        };
        let head = if node { self.node_head(origin)? } else { self.leaf_head(bytes, origin)? };
        let mut lengths = below(head.at, head.nulls.div_ceil(8))?;
        let (mut end, mut null_no) = (0_usize, 0_usize);
        for (place, field) in self.fields.iter().enumerate() {
            let present = match head.fields {
                Present::First(count) if place >= count => break,
                Present::First(_) => true,
                Present::OfVersion(version) => field.is_in(version),
            };
            let mut null = false;
            if present && field.nullable {
                let byte = u8_at(bytes, below(head.at, null_no.saturating_div(8).saturating_add(1))?, WHAT)?;
                null = byte.checked_shr(u32::try_from(null_no % 8).unwrap_or(0)).unwrap_or(0) & 1 != 0;
                null_no = null_no.saturating_add(1);
                if null_no > head.nulls {
                    return Err(invalid(format!("it has more than {} fields that can be NULL", head.nulls)));
                }
            }
            let mut external = false;
            if present && !null {
                let (len, bytes_read, outside) = field_length(field.width, bytes, lengths)?;
                external = outside;
                lengths = below(lengths, bytes_read)?;
                end = end.saturating_add(len);
            }
            shape.fields.push(FieldEnd { end, null, external, present });
        }
        shape.extra = origin.saturating_sub(lengths);
        shape.data = if node { end.saturating_add(CHILD) } else { end };
        Ok(())
    }

    fn node_head(&self, origin: usize) -> Result<CompactHead, FormatError> {
        let count = if self.clustered { self.unique } else { self.fields.len() };
        // The bits are there for all fields of the index, though a node pointer holds few of them.
        let nulls = if self.instant {
            self.nullable_among(self.core)
        } else if self.versioned {
            self.nullable_in(0)
        } else {
            self.nullable_among(self.fields.len())
        };
        Ok(CompactHead { at: below(origin, COMPACT_HEADER)?, nulls, fields: Present::First(count) })
    }

    fn leaf_head(&self, bytes: &[u8], origin: usize) -> Result<CompactHead, FormatError> {
        let at = below(origin, COMPACT_HEADER)?;
        let info = u8_at(bytes, at, WHAT)?;
        if info & INFO_VERSION != 0 {
            let at = below(at, 1)?;
            let version = u8_at(bytes, at, WHAT)?;
            if !self.versioned && version != 0 {
                return Err(invalid(format!("it has version {version}, and its index has none")));
            }
            return Ok(CompactHead { at, nulls: self.nullable_in(version), fields: Present::OfVersion(version) });
        }
        if info & INFO_INSTANT != 0 {
            let first = u8_at(bytes, below(at, 1)?, WHAT)?;
            let (count, read) = if first & 0x80 == 0 {
                (usize::from(first), 1)
            } else {
                let low = u8_at(bytes, below(at, 2)?, WHAT)?;
                (usize::from(u16::from_be_bytes([first & 0x7F, low])), 2)
            };
            if !self.instant || count > self.fields.len() {
                return Err(invalid(format!("it has {count} fields of {}", self.fields.len())));
            }
            let at = below(at, read)?;
            return Ok(CompactHead { at, nulls: self.nullable_among(count), fields: Present::First(count) });
        }
        if self.instant {
            return Ok(CompactHead { at, nulls: self.nullable_among(self.core), fields: Present::First(self.core) });
        }
        if self.versioned {
            return Ok(CompactHead { at, nulls: self.nullable_in(0), fields: Present::OfVersion(0) });
        }
        let count = self.fields.len();
        Ok(CompactHead { at, nulls: self.nullable_among(count), fields: Present::First(count) })
    }

    fn nullable_among(&self, count: usize) -> usize {
        self.fields.iter().take(count).filter(|field| field.nullable).count()
    }

    fn nullable_in(&self, version: u8) -> usize {
        self.fields.iter().filter(|field| field.nullable && field.is_in(version)).count()
    }
}

/// Length of a field, bytes that its length took, and whether the field goes on elsewhere. `at` is the byte above them.
fn field_length(width: FieldWidth, bytes: &[u8], at: usize) -> Result<(usize, usize, bool), FormatError> {
    match width {
        FieldWidth::Fixed(len) => Ok((usize::from(len), 0, false)),
        FieldWidth::Variable => Ok((usize::from(u8_at(bytes, below(at, 1)?, WHAT)?), 1, false)),
        FieldWidth::Big => {
            let first = u8_at(bytes, below(at, 1)?, WHAT)?;
            if first & 0x80 == 0 {
                return Ok((usize::from(first), 1, false));
            }
            let low = u8_at(bytes, below(at, 2)?, WHAT)?;
            Ok((usize::from(u16::from_be_bytes([first & 0x3F, low])), 2, first & 0x40 != 0))
        }
    }
}

/// Where the list of ends of a redundant row begins, counted down from it, and the row's version.
pub fn redundant_ends(bytes: &[u8], origin: usize) -> Result<(usize, Option<u8>), FormatError> {
    let base = below(origin, REDUNDANT_HEADER)?;
    if u8_at(bytes, base, WHAT)? & INFO_VERSION == 0 {
        return Ok((base, None));
    }
    let base = below(base, 1)?;
    Ok((base, Some(u8_at(bytes, base, WHAT)?)))
}

/// True when the ends of a redundant row's fields take one byte each.
pub fn has_short_ends(bytes: &[u8], origin: usize) -> Result<bool, FormatError> {
    Ok(u8_at(bytes, below(origin, 3)?, WHAT)? & 1 != 0)
}

fn measure_redundant(bytes: &[u8], origin: usize, shape: &mut RowShape) -> Result<(), FormatError> {
    let count = usize::from((u16_at(bytes, below(origin, 4)?, WHAT)? & 0x07FE) >> 1);
    let short = has_short_ends(bytes, origin)?;
    let (mut at, _) = redundant_ends(bytes, origin)?;
    let mut last = 0;
    for _ in 0..count {
        let field = if short {
            at = below(at, 1)?;
            let raw = u8_at(bytes, at, WHAT)?;
            FieldEnd { end: usize::from(raw & 0x7F), null: raw & 0x80 != 0, external: false, present: true }
        } else {
            at = below(at, 2)?;
            let raw = u16_at(bytes, at, WHAT)?;
            let (null, external) = (raw & 0x8000 != 0, raw & 0x4000 != 0);
            FieldEnd { end: usize::from(raw & 0x3FFF), null, external, present: true }
        };
        last = field.end;
        shape.fields.push(field);
    }
    shape.extra = origin.saturating_sub(at);
    shape.data = last;
    Ok(())
}

fn below(at: usize, bytes: usize) -> Result<usize, FormatError> {
    at.checked_sub(bytes).ok_or_else(|| invalid(format!("it would begin {bytes} bytes before byte {at} of its page")))
}

fn invalid(why: String) -> FormatError {
    FormatError::Invalid { what: WHAT, why }
}

fn description(why: String) -> FormatError {
    FormatError::Invalid { what: "index description", why }
}

/// Layouts by their descriptions. One per thread.
#[derive(Debug, Default)]
pub struct Layouts {
    known: HashMap<Vec<u8>, Arc<RowLayout>>,
    last: Option<(Vec<u8>, Arc<RowLayout>)>,
}

impl Layouts {
    /// More than any database has in use at once; beyond it the cache starts anew.
    const MOST: usize = 4096;

    /// The layout that a description means.
    pub fn get(&mut self, info: &IndexInfo<'_>) -> Result<Arc<RowLayout>, FormatError> {
        if let Some((bytes, layout)) = &self.last
            && bytes == info.bytes
        {
            return Ok(Arc::clone(layout));
        }
        let layout = if let Some(layout) = self.known.get(info.bytes) {
            Arc::clone(layout)
        } else {
            let layout = Arc::new(RowLayout::new(info)?);
            if self.known.len() >= Self::MOST {
                self.known.clear();
            }
            self.known.insert(info.bytes.to_vec(), Arc::clone(&layout));
            layout
        };
        self.last = Some((info.bytes.to_vec(), Arc::clone(&layout)));
        Ok(layout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::innodb::redo::body::reader::Reader;

    fn layout(bytes: &[u8]) -> RowLayout {
        RowLayout::new(&IndexInfo::decode(&mut Reader::new(bytes)).unwrap()).unwrap()
    }

    /// id INT, trx id, roll pointer, name VARCHAR(20) NULL, note TEXT NULL.
    const CLUSTERED: &[u8] = &[1, 1, 0, 5, 0, 1, 0x80, 4, 0x80, 6, 0x80, 7, 0, 0, 0x7F, 0xFF];

    fn measured(layout: &RowLayout, extra: &[u8], data: usize) -> RowShape {
        let bytes = [extra, &vec![7; data]].concat();
        let mut shape = RowShape::default();
        layout.measure(&bytes, extra.len(), &mut shape).unwrap();
        shape
    }

    #[test]
    fn compact_rows() {
        let layout = layout(CLUSTERED);
        assert!(layout.is_clustered());
        let shape = measured(&layout, &[0x01, 0x83, 3, 0b00, 0, 0, 0x10, 0, 0], 300);
        assert_eq!((shape.extra, shape.data), (9, 17 + 3 + 0x301));
        assert_eq!(shape.field(3).unwrap().0..shape.fields[3].end, 17..20);
        let shape = measured(&layout, &[2, 0b01, 0, 0, 0x10, 0, 0], 300);
        assert_eq!((shape.extra, shape.data), (7, 19), "the fourth is NULL");
        let outside = measured(&layout, &[20, 0xC0, 0b01, 0, 0, 0x10, 0, 0], 300);
        assert!(outside.fields[4].external);
        let node = measured(&layout, &[0b00, 0, 0, 0x11, 0, 0], 300);
        assert_eq!((node.extra, node.data, node.fields.len()), (6, 8, 1), "with the bits of all its index's fields");
        let infimum = measured(&layout, &[1, 0, 2, 0, 0], 8);
        assert_eq!((infimum.extra, infimum.data), (5, 8));
    }

    #[test]
    fn rows_of_versions() {
        // The fifth field was added by version 1, the fourth dropped by version 2.
        let bytes = [CLUSTERED, &[0, 2, 0, 4, 0x80, 4, 1, 0, 3, 0x40, 3, 2]].concat();
        let mut bytes = bytes;
        bytes[1] = 3;
        let layout = layout(&bytes);
        let old = measured(&layout, &[3, 0, 0, 0, 0x10, 0, 0], 300);
        assert_eq!((old.data, old.fields[4].present), (20, false));
        let one = measured(&layout, &[5, 3, 0, 1, 0x40, 0, 0x10, 0, 0], 300);
        assert_eq!((one.extra, one.data), (9, 25));
        let two = measured(&layout, &[5, 0, 2, 0x40, 0, 0x10, 0, 0], 300);
        assert_eq!((two.extra, two.data, two.fields[3].present), (8, 22, false));
    }

    #[test]
    fn redundant_rows() {
        let layout = layout(&[1, 0]);
        let short = measured(&layout, &[0x8A, 10, 4, 0, 0, 0x10, 7, 0, 0], 20);
        assert_eq!((short.extra, short.data, short.fields[2].null), (9, 10, true));
        let long = measured(&layout, &[0x40, 30, 0, 4, 0, 0, 0x10, 4, 0, 0], 40);
        assert_eq!((long.extra, long.data, long.fields[1].external), (10, 30, true));
    }
}
