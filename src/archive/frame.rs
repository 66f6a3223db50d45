//! Frames: one window of a stream, any subset of its units.
//!
//! ```text
//!   window 4 MiB   │unit 0│unit 1│unit 2│ … │          units: pages, or 4096 bytes of another file
//!   present         1      0      0              bytes are in the body
//!   zero            0      1      0              all zero, not in the body
//!                                 └── neither: this frame says nothing of it
//!   stored         head · present bitmap · zero bitmap │ present units, one after another (compressed)
//! ```
//! (docs/format/pack.md.) Bytes to types only; what seals and stores them is `object_writer`.

use bytes::Bytes;

use super::bitmap::{Bitmap, Runs};
use super::codec::MAX_RAW_BYTES;
use super::wire::{Input, Malformed, Output, to_len, to_u32, to_u64};
use super::{ArchiveError, StreamId};
use crate::innodb::ids::SpaceId;

/// Raw bytes of a stream that a window spans.
pub const WINDOW_BYTES: u32 = 4 << 20;
/// Unit of a stream that is no tablespace.
pub const FILE_UNIT: u32 = 4096;

const HEAD_BYTES: usize = 16;
/// Bytes of a frame's key: stream, pass, window.
pub const KEY_BYTES: usize = 12;

/// A frame's key: sorts by stream, then window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrameKey {
    /// The stream.
    pub stream: StreamId,
    /// The window in it.
    pub window_no: u32,
}

impl FrameKey {
    /// Bytes that sort as the key does. `unit_shift` has its place in a frame's head and is zero elsewhere.
    pub fn encode(self, unit_shift: u8) -> [u8; KEY_BYTES] {
        let (kind, id) = match self.stream {
            StreamId::Space(space) => (1, space.0),
            StreamId::File(number) => (2, number),
        };
        let tail = id.to_be_bytes().into_iter().chain(self.window_no.to_be_bytes());
        let mut key = [kind, unit_shift, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        for (to, from) in key.iter_mut().skip(4).zip(tail) {
            *to = from;
        }
        key
    }

    /// Reads the key and the unit's shift.
    pub fn decode(input: &mut Input<'_>) -> Result<(Self, u8), Malformed> {
        let (kind, shift, pass) = (input.u8()?, input.u8()?, input.u16()?);
        let (id, window_no) = (input.u32()?, input.u32()?);
        if pass != 0 {
            return Err(Malformed::unsupported(format!("copy pass {pass}")));
        }
        let stream = match kind {
            1 => StreamId::Space(SpaceId(id)),
            2 => StreamId::File(id),
            other => return Err(Malformed::unsupported(format!("stream kind {other}"))),
        };
        Ok((Self { stream, window_no }, shift))
    }
}

impl std::fmt::Display for FrameKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "window {} of {}", self.window_no, self.stream)
    }
}

/// A window that is to be stored.
#[derive(Debug, Clone, Copy)]
pub struct FrameInput<'a> {
    /// What it is a window of.
    pub stream: StreamId,
    /// Its position in the stream, divided by [`WINDOW_BYTES`].
    pub window_no: u32,
    /// Bytes of a unit: a page, or [`FILE_UNIT`].
    pub unit_size: u32,
    /// The window, zero units included; whole units, but for the end of a file.
    pub bytes: &'a [u8],
    /// For each unit, whether it is all zero.
    pub zero: &'a [bool],
}

/// What a frame is made of before compression.
pub struct FramePlan<'a> {
    /// Head and bitmaps.
    pub meta: Vec<u8>,
    /// What the directory and the index are sorted by.
    pub key: FrameKey,
    /// Units that the frame speaks of.
    pub units: u32,
    /// The present units.
    pub body: &'a [u8],
}

/// Lays a frame out. `present` says which units it speaks of; `None` is all. `scratch` takes the units where they
/// do not stand together already.
pub fn plan_frame<'a>(
    input: &FrameInput<'a>,
    present: Option<&[bool]>,
    scratch: &'a mut Vec<u8>,
) -> Result<FramePlan<'a>, ArchiveError> {
    let key = FrameKey { stream: input.stream, window_no: input.window_no };
    let bad = |why: &str| ArchiveError::BadInput { what: key.to_string(), why: why.to_owned() };
    let shift = unit_shift(input.unit_size).ok_or_else(|| bad("its unit is no power of two from 1024 to 65536"))?;
    let bytes = u32::try_from(input.bytes.len()).unwrap_or(u32::MAX);
    check_shape(key.stream, input.unit_size, bytes).map_err(bad)?;
    let unit_len = to_len(input.unit_size);
    let units = input.bytes.len().div_ceil(unit_len);
    if input.zero.len() != units || present.is_some_and(|present| present.len() != units) {
        return Err(bad("its flags are not as many as its units"));
    }
    let mut stored = Bitmap::new(units);
    let mut zero = Bitmap::new(units);
    for (unit, (bytes, is_zero)) in input.bytes.chunks(unit_len).zip(input.zero).enumerate() {
        if present.is_some_and(|present| present.get(unit) != Some(&true)) {
            continue;
        }
        if !is_zero {
            stored.set(unit);
        } else if all_zero(bytes) {
            zero.set(unit);
        } else {
            return Err(bad("a unit that is called zero is not"));
        }
    }
    let mut meta = Vec::with_capacity(HEAD_BYTES + 2 * stored.0.len());
    meta.extend_from_slice(&key.encode(shift));
    meta.put_u32(bytes);
    meta.extend_from_slice(&stored.0);
    meta.extend_from_slice(&zero.0);
    let spoken = stored.count() + zero.count();
    Ok(FramePlan { meta, key, units: spoken, body: gather(input.bytes, unit_len, &stored, units, scratch) })
}

/// The stored units in one piece: where they stand if that is one, else copied together.
fn gather<'a>(bytes: &'a [u8], unit_len: usize, stored: &Bitmap, units: usize, scratch: &'a mut Vec<u8>) -> &'a [u8] {
    let mut runs = Runs::new(stored, units);
    let Some((first, count)) = runs.next() else { return &[] };
    let slice = |first: usize, count: usize| {
        let start = first * unit_len;
        bytes.get(start..(start + count * unit_len).min(bytes.len())).unwrap_or_default()
    };
    if runs.clone().next().is_none() {
        return slice(first, count);
    }
    scratch.clear();
    scratch.extend_from_slice(slice(first, count));
    for (first, count) in runs {
        scratch.extend_from_slice(slice(first, count));
    }
    scratch
}

/// A window that was read back. Its bytes may share memory with the range of up to 8 MiB that they came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What it is a window of.
    pub stream: StreamId,
    /// Its position in the stream, divided by [`WINDOW_BYTES`].
    pub window_no: u32,
    /// Bytes of a unit.
    pub unit_size: u32,
    bytes: u32,
    present: Bitmap,
    zero: Bitmap,
    body: Bytes,
}

/// Units that stand together in a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run<'a> {
    /// Where it begins, in bytes from the beginning of the stream.
    pub position: u64,
    /// Number of its first unit in the window.
    pub first_unit: u32,
    /// Its bytes.
    pub bytes: &'a [u8],
}

/// Zero units that stand together in a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ZeroRun {
    /// Where it begins, in bytes from the beginning of the stream.
    pub position: u64,
    /// Number of its first unit in the window.
    pub first_unit: u32,
    /// How many bytes of zeros.
    pub bytes: u32,
}

impl Frame {
    /// Where the window begins, in bytes from the beginning of the stream.
    pub fn position(&self) -> u64 {
        u64::from(self.window_no) * u64::from(WINDOW_BYTES)
    }

    /// Bytes of the stream that the frame spans, zero and unknown units included.
    pub fn span_bytes(&self) -> u32 {
        self.bytes
    }

    /// Number of units that it spans.
    pub fn unit_count(&self) -> u32 {
        self.bytes.div_ceil(self.unit_size)
    }

    /// Number of the window's first unit in the stream: for a tablespace, its first page's number.
    pub fn first_unit(&self) -> u64 {
        self.position() / u64::from(self.unit_size)
    }

    /// Number of units whose bytes are here.
    pub fn present_count(&self) -> u32 {
        self.present.count()
    }

    /// Number of units that are all zero.
    pub fn zero_count(&self) -> u32 {
        self.zero.count()
    }

    /// True when no unit of the span is left out.
    pub fn is_whole(&self) -> bool {
        self.present_count() + self.zero_count() == self.unit_count()
    }

    /// True when this unit of the window is all zero.
    pub fn is_zero(&self, unit: u32) -> bool {
        self.zero.get(to_len(unit))
    }

    /// The bytes of the units that are here, one after another.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// The units whose bytes are here: number in the window, bytes.
    pub fn units(&self) -> impl Iterator<Item = (u32, &[u8])> {
        let count = to_len(self.unit_count());
        let numbers = (0..count).filter(|unit| self.present.get(*unit)).map(to_u32);
        numbers.zip(self.body.chunks(to_len(self.unit_size).max(1)))
    }

    /// The units whose bytes are here, neighbours together: few writes.
    pub fn runs(&self) -> impl Iterator<Item = Run<'_>> {
        let unit_len = to_len(self.unit_size);
        let mut rest: &[u8] = &self.body;
        let runs = Runs::new(&self.present, to_len(self.unit_count()));
        runs.map(move |(first, count)| {
            let (bytes, behind) = rest.split_at(rest.len().min(count * unit_len));
            rest = behind;
            Run { position: self.position() + to_u64(first * unit_len), first_unit: to_u32(first), bytes }
        })
    }

    /// The zero units, neighbours together: holes.
    pub fn zero_runs(&self) -> impl Iterator<Item = ZeroRun> {
        let unit_len = to_len(self.unit_size);
        let runs = Runs::new(&self.zero, to_len(self.unit_count()));
        runs.map(move |(first, count)| {
            let start = first * unit_len;
            let end = (start + count * unit_len).min(to_len(self.bytes));
            ZeroRun {
                position: self.position() + to_u64(start),
                first_unit: to_u32(first),
                bytes: to_u32(end.saturating_sub(start)),
            }
        })
    }

    /// The frame's key.
    pub(super) fn key(&self) -> FrameKey {
        FrameKey { stream: self.stream, window_no: self.window_no }
    }
}

/// What a frame's meta says: everything but the body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameHead {
    frame: Frame,
    body_bytes: usize,
}

impl FrameHead {
    /// Reads head and bitmaps.
    pub fn decode(meta: &[u8]) -> Result<Self, Malformed> {
        let mut input = Input::new(meta, "frame head");
        let (key, shift) = FrameKey::decode(&mut input)?;
        let bytes = input.u32()?;
        let unit_size = 1_u32.checked_shl(shift.into()).unwrap_or_default();
        if unit_shift(unit_size).is_none() {
            return Err(Malformed::damaged(format!("a unit of 2^{shift} bytes")));
        }
        check_shape(key.stream, unit_size, bytes).map_err(Malformed::damaged)?;
        let units = to_len(bytes.div_ceil(unit_size));
        let present = Bitmap::decode(input.take(units.div_ceil(8))?, units)?;
        let zero = Bitmap::decode(input.take(units.div_ceil(8))?, units)?;
        input.end()?;
        if present.0.iter().zip(&zero.0).any(|(present, zero)| present & zero != 0) {
            return Err(Malformed::damaged("a unit is both present and zero"));
        }
        let mut body_bytes = to_len(present.count()) * to_len(unit_size);
        if units.checked_sub(1).is_some_and(|last| present.get(last)) {
            // The last unit of a file may be short.
            body_bytes -= units * to_len(unit_size) - to_len(bytes);
        }
        let (stream, window_no) = (key.stream, key.window_no);
        let frame = Frame { stream, window_no, unit_size, bytes, present, zero, body: Bytes::new() };
        Ok(Self { frame, body_bytes })
    }

    /// Adds the body, which must have as many bytes as the bitmaps ask for.
    pub fn with_body(self, body: Bytes) -> Result<Frame, Malformed> {
        if body.len() != self.body_bytes {
            let what = format!("its bitmaps ask for {} bytes, its body has {}", self.body_bytes, body.len());
            return Err(Malformed::damaged(what));
        }
        Ok(Frame { body, ..self.frame })
    }
}

fn unit_shift(unit_size: u32) -> Option<u8> {
    let shift = unit_size.is_power_of_two().then(|| unit_size.trailing_zeros())?;
    (10..=16).contains(&shift).then_some(shift).and_then(|shift| u8::try_from(shift).ok())
}

fn check_shape(stream: StreamId, unit_size: u32, bytes: u32) -> Result<(), &'static str> {
    match stream {
        _ if bytes == 0 || to_len(bytes) > MAX_RAW_BYTES => Err("its window is empty or has more than 4 MiB"),
        StreamId::Space(_) if !bytes.is_multiple_of(unit_size) => Err("it has a part of a page"),
        StreamId::File(_) if unit_size != FILE_UNIT => Err("the unit of a file is 4096 bytes"),
        _ => Ok(()),
    }
}

fn all_zero(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<32>();
    words.iter().all(|word| *word == [0; 32]) && rest.iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn round_trip(input: &FrameInput<'_>, present: Option<&[bool]>) -> Frame {
        let mut scratch = Vec::new();
        let plan = plan_frame(input, present, &mut scratch).unwrap();
        let body = Bytes::copy_from_slice(plan.body);
        let frame = FrameHead::decode(&plan.meta).unwrap().with_body(body).unwrap();
        assert_eq!(frame.present_count() + frame.zero_count(), plan.units);
        frame
    }

    proptest! {
        #[test]
        fn any_subset_of_any_window_comes_back(
            shift in 10_u32..=16,
            kinds in prop::collection::vec(0_u8..3, 1..70),
            cut in 0_usize..4096,
            is_file in any::<bool>(),
            id in any::<u32>(),
            window_no in any::<u32>(),
        ) {
            let unit_size = if is_file { FILE_UNIT } else { 1 << shift };
            let unit_len = to_len(unit_size);
            let kinds = &kinds[..kinds.len().min((4 << 20) / unit_len)];
            let mut bytes = Vec::new();
            for (unit, kind) in kinds.iter().enumerate() {
                bytes.resize(bytes.len() + unit_len, if *kind == 1 { 0 } else { u8::try_from(unit).unwrap() | 0x80 });
            }
            if is_file {
                bytes.truncate(bytes.len() - cut);
            }
            let zero: Vec<bool> = kinds.iter().map(|kind| *kind == 1).collect();
            let present: Vec<bool> = kinds.iter().map(|kind| *kind != 2).collect();
            let stream = if is_file { StreamId::File(id) } else { StreamId::Space(SpaceId(id)) };
            let input = FrameInput { stream, window_no, unit_size, bytes: &bytes, zero: &zero };
            let frame = round_trip(&input, Some(&present));

            prop_assert_eq!((frame.stream, frame.window_no, frame.unit_size), (stream, window_no, unit_size));
            // Built again from what is there, units that are left out taken from the input.
            let mut again: Vec<u8> = bytes.clone();
            for (unit, kind) in kinds.iter().enumerate() {
                let end = ((unit + 1) * unit_len).min(again.len());
                if *kind != 2 {
                    again[unit * unit_len..end].fill(0xEE);
                }
            }
            let base = frame.position();
            for run in frame.runs() {
                let at = usize::try_from(run.position - base).unwrap();
                again[at..at + run.bytes.len()].copy_from_slice(run.bytes);
            }
            for run in frame.zero_runs() {
                let at = usize::try_from(run.position - base).unwrap();
                again[at..at + to_len(run.bytes)].fill(0);
            }
            prop_assert_eq!(&again, &bytes);
            for (unit, content) in frame.units() {
                let at = to_len(unit) * unit_len;
                prop_assert_eq!(content, &bytes[at..at + content.len()]);
                prop_assert_eq!(kinds[to_len(unit)], 0);
            }
            prop_assert_eq!(frame.is_whole(), !kinds.contains(&2));
        }
    }

    #[test]
    fn neighbours_are_not_copied() {
        let bytes = [vec![0; 4096], vec![5; 8192], vec![0; 4096]].concat();
        let zero = [true, false, false, true];
        let input = FrameInput {
            stream: StreamId::Space(SpaceId(1)),
            window_no: 0,
            unit_size: 4096,
            bytes: &bytes,
            zero: &zero,
        };
        let mut scratch = Vec::new();
        assert_eq!(plan_frame(&input, None, &mut scratch).unwrap().body, &bytes[4096..12288]);
        assert_eq!(scratch.capacity(), 0);
    }

    #[test]
    fn input_that_contradicts_itself_is_refused() {
        let bytes = vec![1; 8192];
        let good = FrameInput {
            stream: StreamId::Space(SpaceId(1)),
            window_no: 0,
            unit_size: 4096,
            bytes: &bytes,
            zero: &[false, false],
        };
        let large = vec![1; (4 << 20) + 4096];
        let flags = vec![false; 1025];
        for bad in [
            FrameInput { zero: &[false, true], ..good },
            FrameInput { zero: &[false], ..good },
            FrameInput { unit_size: 512, ..good },
            FrameInput { unit_size: 12288, ..good },
            FrameInput { bytes: &bytes[..5000], ..good },
            FrameInput { bytes: &[], zero: &[], ..good },
            FrameInput { bytes: &large, zero: &flags, ..good },
            FrameInput { stream: StreamId::File(1), unit_size: 8192, zero: &[false], ..good },
        ] {
            let error = plan_frame(&bad, None, &mut Vec::new()).err().unwrap();
            assert!(matches!(error, ArchiveError::BadInput { .. }), "{error}");
        }
        assert!(plan_frame(&good, Some(&[true]), &mut Vec::new()).is_err());
    }

    #[test]
    fn a_pass_is_reserved_for_later() {
        let input = FrameInput {
            stream: StreamId::Space(SpaceId(1)),
            window_no: 0,
            unit_size: 4096,
            bytes: &[1; 4096],
            zero: &[false],
        };
        let mut meta = plan_frame(&input, None, &mut Vec::new()).unwrap().meta;
        meta[3] = 1;
        assert!(FrameHead::decode(&meta).unwrap_err().unsupported);
    }
}
