//! The description of an index that its redo records would carry, made from what the dictionary says of its columns
//! (redo-records reference, section 4; checked against the rows of every table of the tests).

use super::dictionary::{Column, private};

const NOT_NULL: u16 = 0x8000;
const VARIABLE: u16 = 0;
const BIG: u16 = 0x7FFF;
const ADDED: u16 = 0x8000;
const DROPPED: u16 = 0x4000;
/// Fields up to this length have lengths of one byte.
const SMALL: u64 = 255;
/// The length of a field that is no prefix.
pub(super) const WHOLE: u64 = 0xFFFF_FFFF;

/// Kinds of columns, as the dictionary numbers them.
pub(super) mod kind {
    pub const TINY: u32 = 2;
    pub const SHORT: u32 = 3;
    pub const LONG: u32 = 4;
    pub const FLOAT: u32 = 5;
    pub const DOUBLE: u32 = 6;
    pub const LONGLONG: u32 = 9;
    pub const INT24: u32 = 10;
    pub const YEAR: u32 = 14;
    pub const DATE: u32 = 15;
    pub const VARCHAR: u32 = 16;
    pub const BIT: u32 = 17;
    pub const TIMESTAMP: u32 = 18;
    pub const DATETIME: u32 = 19;
    pub const TIME: u32 = 20;
    pub const DECIMAL: u32 = 21;
    pub const ENUM: u32 = 22;
    pub const SET: u32 = 23;
    pub const BLOBS: [u32; 4] = [24, 25, 26, 27];
    pub const STRING: u32 = 29;
    pub const GEOMETRY: u32 = 30;
    pub const JSON: u32 = 31;
    pub const VECTOR: u32 = 32;
}

/// The description of an index with these columns. `None` when a column is of a kind that is not known here.
pub(super) fn describe(all: &[Column], columns: &[(u64, &Column)], unique: usize, clustered: bool) -> Option<Vec<u8>> {
    let dropped: Vec<&Column> = if clustered {
        all.iter().filter(|column| version(column, "version_dropped").is_some()).collect()
    } else {
        Vec::new()
    };
    let versioned = clustered && all.iter().any(|column| private(&column.se_private_data, "physical_pos").is_some());
    let count = columns.len().checked_add(dropped.len())?;
    let mut bytes = vec![1, if versioned { 3 } else { 1 }];
    push(&mut bytes, u16::try_from(count).ok()?);
    push(&mut bytes, u16::try_from(unique).ok()?);
    for (prefix, column) in columns {
        push(&mut bytes, width(column, *prefix)? | null_bit(column));
    }
    for column in &dropped {
        push(&mut bytes, width(column, WHOLE)? | null_bit(column));
    }
    if versioned {
        let fields = columns.iter().map(|(_, column)| *column).chain(dropped.iter().copied());
        let mut listed = Vec::new();
        for (logical, column) in fields.enumerate() {
            let place = u16::try_from(private(&column.se_private_data, "physical_pos")?).ok()?;
            let (added, gone) = (version(column, "version_added"), version(column, "version_dropped"));
            let flags = if added.is_some() { ADDED } else { 0 } | if gone.is_some() { DROPPED } else { 0 };
            push(&mut listed, u16::try_from(logical).ok()?);
            push(&mut listed, place | flags);
            listed.extend(added);
            listed.extend(gone);
        }
        push(&mut bytes, u16::try_from(count).ok()?);
        bytes.extend(listed);
    }
    Some(bytes)
}

fn push(bytes: &mut Vec<u8>, number: u16) {
    bytes.extend_from_slice(&number.to_be_bytes());
}

fn null_bit(column: &Column) -> u16 {
    if column.is_nullable { 0 } else { NOT_NULL }
}

fn version(column: &Column, name: &str) -> Option<u8> {
    private(&column.se_private_data, name).and_then(|version| u8::try_from(version).ok())
}

/// How a column is stored: a length, or one of the two kinds of variable ones.
fn width(column: &Column, prefix: u64) -> Option<u16> {
    let fraction = column.datetime_precision.checked_add(1)?.checked_div(2)?;
    let fixed = match column.name.as_str() {
        "DB_ROW_ID" | "DB_TRX_ID" => Some(6),
        "DB_ROLL_PTR" => Some(7),
        _ => match column.kind {
            kind::TINY | kind::YEAR => Some(1),
            kind::SHORT => Some(2),
            kind::INT24 | kind::DATE => Some(3),
            kind::LONG | kind::FLOAT => Some(4),
            kind::LONGLONG | kind::DOUBLE => Some(8),
            kind::TIME => Some(fraction.checked_add(3)?),
            kind::TIMESTAMP => Some(fraction.checked_add(4)?),
            kind::DATETIME => Some(fraction.checked_add(5)?),
            kind::DECIMAL => Some(decimal_bytes(column.numeric_precision, column.numeric_scale)?),
            kind::BIT => Some(column.char_length.checked_add(7)?.checked_div(8)?),
            kind::ENUM => Some(if column.elements.len() > 255 { 2 } else { 1 }),
            kind::SET => Some(set_bytes(column.elements.len())),
            kind::STRING if is_fixed_string(column) => Some(if prefix == WHOLE { column.char_length } else { prefix }),
            kind::STRING | kind::VARCHAR => None,
            kind::GEOMETRY | kind::JSON | kind::VECTOR => return Some(BIG),
            other if kind::BLOBS.contains(&other) => return Some(BIG),
            _ => return None,
        },
    };
    match fixed {
        Some(bytes) => u16::try_from(bytes).ok(),
        None => Some(if column.char_length > SMALL { BIG } else { VARIABLE }),
    }
}

/// A CHAR or BINARY takes its full length, unless its character set has characters of different lengths.
fn is_fixed_string(column: &Column) -> bool {
    /// Collations of character sets of two or four bytes for each character: ucs2 and utf32.
    const WIDE: [std::ops::RangeInclusive<u64>; 6] = [35..=35, 60..=61, 90..=90, 128..=151, 159..=159, 160..=183];
    let declared = column.declared.split(['(', ')']).nth(1).and_then(|text| text.parse::<u64>().ok());
    let characters = declared.unwrap_or(1);
    column.char_length == characters || WIDE.iter().any(|ids| ids.contains(&column.collation_id))
}

/// Nine digits take four bytes, fewer take fewer.
fn decimal_bytes(precision: u64, scale: u64) -> Option<u64> {
    let part = |digits: u64| {
        let rest = usize::try_from(digits % 9).ok()?;
        digits.checked_div(9)?.checked_mul(4)?.checked_add(*[0, 1, 1, 2, 2, 3, 3, 4, 4].get(rest)?)
    };
    part(precision.checked_sub(scale)?)?.checked_add(part(scale)?)
}

fn set_bytes(elements: usize) -> u64 {
    match elements.div_ceil(8) {
        bytes @ 0..=4 => u64::try_from(bytes.max(1)).unwrap_or(1),
        _ => 8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_take_what_a_server_gives_them() {
        assert_eq!(decimal_bytes(10, 3), Some(6));
        assert_eq!(decimal_bytes(65, 30), Some(30));
        assert_eq!(decimal_bytes(9, 0), Some(4));
        assert_eq!(decimal_bytes(3, 4), None);
    }
}
