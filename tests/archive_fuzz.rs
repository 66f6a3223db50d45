//! Drives the fuzz targets, the archive's and those of InnoDB's redo, over their seeds and over mutations of these, for
//! a bounded number of rounds.
//!
//! Each target must return for any bytes: no panic, no time that is felt, and no memory that the bytes do not pay for.
//! The latter is seen by the process's peak of address space, so this is the only test of its process.

#![allow(clippy::unwrap_used, reason = "what fails, fails the test")]

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use stillframe::{archive, innodb};

/// A frame, its raw bytes, its compressed bytes and their contexts; several times over.
const MEMORY_BOUND_KIB: u64 = 128 << 10;

/// For one input of some KiB, which takes less than a thousandth of it.
const SLOWEST: Duration = Duration::from_secs(5);
/// A machine that stands still meanwhile does not do so every time.
const TIMES: u32 = 3;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(bound.max(1)).unwrap()).unwrap()
    }
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

fn peak_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmPeak:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut paths: Vec<_> = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    // Beside them a fuzzer keeps what was of interest to it.
    paths.retain(|path| path.file_name().unwrap().to_str().unwrap().starts_with("seed-"));
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// Values that lengths and counts go wrong with.
const EDGES: [u32; 8] = [0, 1, 0x7F, 0xFFFF, 0x40_0000, 0x40_0001, 0x7FFF_FFFF, u32::MAX];

fn mutate(bytes: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len());
        match random.below(7) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
            1 if !bytes.is_empty() => bytes[at] = u8::try_from(random.below(256)).unwrap(),
            2 => bytes.truncate(at),
            3 => {
                let edge = EDGES[random.below(EDGES.len())].to_be_bytes();
                let end = (at + 4).min(bytes.len());
                bytes[at..end].copy_from_slice(&edge[..end - at]);
            }
            4 => {
                let from = random.below(other.len());
                let len = random.below(64).min(other.len() - from);
                bytes.splice(at..at, other[from..from + len].iter().copied());
            }
            5 if !bytes.is_empty() => drop(bytes.drain(at..(at + 1 + random.below(32)).min(bytes.len()))),
            _ => bytes.extend((0..random.below(16)).map(|_| 0xFF_u8)),
        }
    }
}

#[test]
fn no_target_panics_or_takes_memory_for_nothing() {
    let rounds = setting("STILLFRAME_FUZZ_ROUNDS", 50_000);
    let before = peak_kib();
    for (target, run) in archive::fuzzing::TARGETS.iter().chain(innodb::fuzzing::TARGETS) {
        let seeds = seeds(target);
        assert!(!seeds.is_empty(), "{target} has no seeds");
        run(&[]);
        for seed in &seeds {
            run(seed);
        }
        let mut random = Random(setting("STILLFRAME_FUZZ_SEED", 1) | 1 << 40);
        for _ in 0..rounds {
            let mut bytes = seeds[random.below(seeds.len())].clone();
            mutate(&mut bytes, &seeds[random.below(seeds.len())], &mut random);
            let in_time = (0..TIMES).any(|_| {
                let started = Instant::now();
                run(&bytes);
                started.elapsed() < SLOWEST
            });
            assert!(in_time, "{target} takes more than {SLOWEST:?} for {}", hex::encode(&bytes));
        }
        let taken = peak_kib() - before;
        assert!(taken < MEMORY_BOUND_KIB, "{target} took {taken} KiB");
    }
    // The check must be able to see what it is there for: a length that is believed.
    let believed: Vec<u8> = Vec::with_capacity(usize::try_from(2 * MEMORY_BOUND_KIB * 1024).unwrap());
    assert!(std::hint::black_box(believed).capacity() > 0 && peak_kib() - before >= MEMORY_BOUND_KIB);
}
