//! Memory that is filled from front to back, and never moves.
//!
//! ```text
//!   │ filled ─────────► │ given by the system │ address space only: costs nothing │
//!                       └── a step at a time, in one call: not a page fault for each 4 KiB
//! ```
//! A vector that grows so far is moved by the system now and then, for which all processors must be stopped, and gets its
//! memory page by page.

use std::io;

use memmap2::{Advice, MmapMut, MmapOptions};

/// What the system is asked for at a time, at most.
const STEP: usize = 4 << 20;
/// A smaller step would be less than a page on some systems.
const LEAST_STEP: usize = 64 << 10;

/// Bytes, one behind the other.
#[derive(Debug)]
pub struct Arena {
    memory: MmapMut,
    /// Bytes that the system gave.
    given: usize,
    filled: usize,
}

impl Arena {
    /// Room for `bytes` bytes.
    pub fn new(bytes: usize) -> io::Result<Self> {
        // It is given when it is used: the system need not have as much now.
        let memory = MmapOptions::new().len(bytes.max(1)).no_reserve_swap().map_anon()?;
        Ok(Self { memory, given: 0, filled: 0 })
    }

    /// Room in all.
    pub fn room(&self) -> usize {
        self.memory.len()
    }

    /// Adds `len` bytes and gives them, to be written; `None` where there is no more room.
    pub fn add(&mut self, len: usize) -> Option<&mut [u8]> {
        let end = self.filled.checked_add(len).filter(|end| *end <= self.memory.len())?;
        if end > self.given {
            let step = (self.memory.len() / 8).clamp(LEAST_STEP, STEP).next_multiple_of(LEAST_STEP);
            let more = (end - self.given).next_multiple_of(step).min(self.memory.len() - self.given);
            // Where this is not known (before Linux 5.14), pages are given as they are touched.
            let _ = self.memory.advise_range(Advice::PopulateWrite, self.given, more);
            self.given += more;
        }
        let added = self.memory.get_mut(self.filled..end)?;
        self.filled = end;
        Some(added)
    }

    /// What was filled.
    pub fn bytes(&self) -> &[u8] {
        self.memory.get(..self.filled).unwrap_or_default()
    }

    /// Memory that it takes.
    pub fn memory_bytes(&self) -> usize {
        self.given
    }

    /// Forgets what was filled, and keeps the memory for more.
    pub fn clear(&mut self) {
        self.filled = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_filled_up_to_its_room_and_takes_what_it_needs() {
        let mut arena = Arena::new(10 << 20).unwrap();
        assert_eq!((arena.memory_bytes(), arena.bytes().len()), (0, 0));
        let mut expected = Vec::new();
        for number in 0..100_u8 {
            arena.add(100_000).unwrap().fill(number);
            expected.extend(std::iter::repeat_n(number, 100_000));
            let taken = arena.memory_bytes();
            assert!(taken >= expected.len() && taken < expected.len() + (2 << 20), "{taken} for {}", expected.len());
        }
        assert!(arena.bytes() == expected);
        assert!(arena.add((10 << 20) - 9_999_999).is_none());
        arena.add((10 << 20) - 10_000_000).unwrap().fill(7);
        assert!(arena.add(1).is_none());
        arena.clear();
        assert!(arena.bytes().is_empty() && arena.memory_bytes() == 10 << 20, "it is kept");
        arena.add(3).unwrap().copy_from_slice(b"abc");
        assert_eq!(arena.bytes(), b"abc");
    }

    #[test]
    fn little_and_nothing_are_room_too() {
        let mut arena = Arena::new(5).unwrap();
        arena.add(5).unwrap().copy_from_slice(b"abcde");
        assert!(arena.add(1).is_none() && arena.add(usize::MAX).is_none());
        assert_eq!(arena.bytes(), b"abcde");
        assert!(Arena::new(0).unwrap().add(2).is_none());
    }
}
