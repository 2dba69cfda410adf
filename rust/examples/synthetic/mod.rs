//! What the measurements at scale share: blocks that are numbers, and what the system says of this process.

#![allow(dead_code)] // Each of them uses its own part of it.

use snapferry_core::bytes::Id;

/// Bytes of a block.
pub const BLOCK: usize = 256 << 10;
/// Blocks of 256 KiB in a pack of 32 MiB.
pub const PACK_BLOCKS: u64 = 128;
/// Bytes of each one's record.
pub const RECORD: u32 = 200_000;

/// 32 bytes that look like a hash of the number; other ones for each kind.
pub fn id(kind: u64, number: u64) -> Id {
    let mut out = [0; 32];
    let mut state = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ kind.wrapping_mul(0xD134_2543_DE82_EF95);
    for word in out.chunks_exact_mut(8) {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        word.copy_from_slice(&(mixed ^ (mixed >> 31)).to_be_bytes());
    }
    out
}

/// A number that looks drawn.
pub fn drawn(kind: u64, number: u64) -> u64 {
    id(kind, number)[..8].iter().fold(0, |all, byte| all << 8 | u64::from(*byte))
}

fn status(field: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with(field)).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).unwrap_or(0) * 1024
}

/// The most anonymous and shared memory that was seen, in bytes.
#[derive(Default)]
pub struct Memory(pub u64);

impl Memory {
    /// Looks once.
    pub fn look(&mut self) {
        self.0 = self.0.max(status("RssAnon:") + status("RssShmem:"));
    }
}

/// Seconds of all processors that this process has taken.
pub fn processor() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = text.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}
