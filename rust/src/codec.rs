//! Compression of one block, with a probe before it, and decompression bounded by what was declared.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::thread::LocalKey;

use crate::error::{Error, Result, damaged};

/// How a record's bytes are stored; its number stands in the record's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Codec {
    /// As they are.
    Raw = 0,
    /// One zstd frame.
    Zstd = 1,
    /// One lz4 block.
    Lz4 = 2,
}

impl Codec {
    /// The codec of that number.
    pub fn from_number(number: u8) -> Result<Self> {
        match number {
            0 => Ok(Self::Raw),
            1 => Ok(Self::Zstd),
            2 => Ok(Self::Lz4),
            other => Err(Error::Unsupported(format!("codec {other} is not known to this program"))),
        }
    }

    /// The codec that a configuration names.
    pub fn from_name(name: &str) -> Result<Self> {
        match name {
            "none" => Ok(Self::Raw),
            "zstd" => Ok(Self::Zstd),
            "lz4" => Ok(Self::Lz4),
            other => Err(Error::Usage(format!("no codec is called {other:?}; zstd, lz4 or none"))),
        }
    }
}

/// A level and its context.
type Compressor = (i32, zstd::bulk::Compressor<'static>);

thread_local! {
    // Contexts hold hundreds of KiB of tables, so each thread keeps its own.
    static COMPRESSOR: RefCell<Option<Compressor>> = const { RefCell::new(None) };
    // Of another level, so that probing a block does not throw away the tables of compressing it.
    static PROBE: RefCell<Option<Compressor>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
}

fn zstd_into(
    context: &'static LocalKey<RefCell<Option<Compressor>>>,
    level: i32,
    data: &[u8],
    out: &mut [u8],
) -> Result<Option<usize>> {
    context.with_borrow_mut(|slot| {
        if slot.as_ref().is_none_or(|(have, _)| *have != level) {
            let mut compressor = zstd::bulk::Compressor::new(level)?;
            if level == 1 {
                // Matches of 7 bytes and more: measured on files of a system, 8 % faster than level 1 as it comes, for 2 % more bytes.
                compressor.set_parameter(zstd::zstd_safe::CParameter::MinMatch(7))?;
            }
            *slot = Some((level, compressor));
        }
        // Just set; the error is for the reader of this line.
        let Some((_, compressor)) = slot.as_mut() else {
            return Err(Error::Usage("no compressor".into()));
        };
        // It fails where `out` is too small, which means: not worth it.
        Ok(compressor.compress_to_buffer(data, out).ok())
    })
}

/// Compresses the blocks of one export and remembers how it went, so that a run of dense blocks is not probed one by one.
pub struct Encoder {
    codec: Codec,
    level: i32,
    misses: AtomicU32,
    skip: AtomicU32,
}

/// A block is stored compressed if that saves this part of it: one twentieth.
const WORTH: usize = 20;
const SAMPLE: usize = 4096;
/// After so many dense blocks in a row, as many are stored without a probe before the next is probed.
const PATIENCE: u32 = 8;

impl Encoder {
    /// For blocks of one volume.
    pub fn new(codec: Codec, level: i32) -> Self {
        Self { codec, level, misses: AtomicU32::new(0), skip: AtomicU32::new(0) }
    }

    /// Compresses `data` into `out` (cleared first; grown to little more than the block's length at most).
    ///
    /// Returns the codec used; `Raw` leaves `out` empty: the block is then stored as it is.
    pub fn encode(&self, data: &[u8], out: &mut Vec<u8>) -> Result<Codec> {
        out.clear();
        if self.codec == Codec::Raw || self.skipped() || !self.probe(data)? {
            return Ok(Codec::Raw);
        }
        let limit = data.len() - data.len() / WORTH;
        let length = match self.codec {
            Codec::Zstd => {
                out.resize(limit, 0);
                zstd_into(&COMPRESSOR, self.level, data, out)?
            }
            Codec::Lz4 => lz4_into(data, out).filter(|length| *length <= limit),
            Codec::Raw => None,
        };
        out.truncate(length.unwrap_or(0));
        Ok(if length.is_some() { self.codec } else { Codec::Raw })
    }

    fn skipped(&self) -> bool {
        // Races between threads shift by a block or two what is probed; nothing depends on it.
        let left = self.skip.load(Relaxed);
        if left > 0 {
            self.skip.store(left - 1, Relaxed);
        }
        left > 0
    }

    /// Compresses three pages of the block: if even together they do not shrink, the rest is taken to be alike.
    fn probe(&self, data: &[u8]) -> Result<bool> {
        if data.len() < 16 * SAMPLE {
            return Ok(true);
        }
        let mut sample = [0; 3 * SAMPLE];
        for (piece, at) in sample.chunks_mut(SAMPLE).zip([0, data.len() / 2, data.len() - SAMPLE]) {
            piece.copy_from_slice(&data[at..at + SAMPLE]);
        }
        let mut out = [0; 3 * SAMPLE - SAMPLE / 8];
        if zstd_into(&PROBE, -5, &sample, &mut out)?.is_some() {
            self.misses.store(0, Relaxed);
            return Ok(true);
        }
        if self.misses.fetch_add(1, Relaxed) + 1 >= PATIENCE {
            self.misses.store(0, Relaxed);
            self.skip.store(PATIENCE, Relaxed);
        }
        Ok(false)
    }
}

fn lz4_into(data: &[u8], out: &mut Vec<u8>) -> Option<usize> {
    // It refuses at once any room that would not do for the worst case.
    out.resize(lz4_flex::block::get_maximum_output_size(data.len()), 0);
    lz4_flex::block::compress_into(data, out).ok()
}

/// Decompresses `stored` into `out`, whose length is the plain length the header declares.
pub fn decode(codec: Codec, stored: &[u8], out: &mut [u8]) -> Result<()> {
    let length = match codec {
        Codec::Raw => {
            if stored.len() != out.len() {
                return damaged("a raw record whose two lengths differ");
            }
            out.copy_from_slice(stored);
            out.len()
        }
        Codec::Zstd => DECOMPRESSOR.with_borrow_mut(|slot| {
            if slot.is_none() {
                *slot = Some(zstd::bulk::Decompressor::new()?);
            }
            match slot.as_mut().map(|it| it.decompress_to_buffer(stored, out)) {
                Some(Ok(length)) => Ok(length),
                _ => damaged("a record that does not decompress"),
            }
        })?,
        Codec::Lz4 => match lz4_flex::block::decompress_into(stored, out) {
            Ok(length) => length,
            Err(_) => return damaged("a record that does not decompress"),
        },
    };
    if length != out.len() {
        return damaged("a record that decompresses to another length than it declares");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn dense(length: usize, seed: u64) -> Vec<u8> {
        let mut out = vec![0; length];
        blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
        out
    }

    #[test]
    fn dense_blocks_stay_raw_and_are_not_all_probed() {
        let encoder = Encoder::new(Codec::Zstd, 1);
        let mut out = Vec::new();
        for seed in 0..40 {
            let codec = encoder.encode(&dense(1 << 18, seed), &mut out).unwrap();
            assert_eq!(codec, Codec::Raw);
            assert!(out.is_empty());
        }
        assert!(encoder.skip.load(Relaxed) > 0 || encoder.misses.load(Relaxed) < PATIENCE);
    }

    #[test]
    fn each_codec_compresses_what_can_be() {
        let text = b"the same line again\n".repeat(13_108);
        for codec in [Codec::Zstd, Codec::Lz4] {
            let mut out = Vec::new();
            assert_eq!(Encoder::new(codec, 1).encode(&text, &mut out).unwrap(), codec);
            assert!(out.len() < text.len() / 20, "{codec:?}: {} bytes", out.len());
            let mut out = Vec::new();
            let short = dense(8000, 1);
            assert_eq!(Encoder::new(codec, 1).encode(&short, &mut out).unwrap(), Codec::Raw);
            assert!(out.is_empty());
        }
    }

    #[test]
    fn text_after_dense_blocks_is_compressed_again() {
        let encoder = Encoder::new(Codec::Zstd, 1);
        let mut out = Vec::new();
        for seed in 0..PATIENCE as u64 {
            encoder.encode(&dense(1 << 18, seed), &mut out).unwrap();
        }
        let text = b"the same line again\n".repeat(13_108);
        let codecs: Vec<_> = (0..=PATIENCE).map(|_| encoder.encode(&text, &mut out).unwrap()).collect();
        assert_eq!(codecs.last(), Some(&Codec::Zstd));
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out(
            codec in prop_oneof![Just(Codec::Raw), Just(Codec::Zstd), Just(Codec::Lz4)],
            runs in prop::collection::vec((any::<u8>(), 1usize..30_000), 1..20),
        ) {
            let data: Vec<u8> = runs.iter().flat_map(|(byte, count)| std::iter::repeat_n(*byte, *count)).collect();
            let mut out = Vec::new();
            let used = Encoder::new(codec, 1).encode(&data, &mut out).unwrap();
            let stored = if used == Codec::Raw { &data } else { &out };
            prop_assert!(used == Codec::Raw || stored.len() <= data.len() - data.len() / WORTH);
            let mut back = vec![1; data.len()];
            decode(used, stored, &mut back).unwrap();
            prop_assert_eq!(back, data);
        }

        #[test]
        fn hostile_bytes_never_panic(codec in 0u8..3, stored in prop::collection::vec(any::<u8>(), 0..2000), length in 0usize..100_000) {
            let mut out = vec![0; length];
            let _ = decode(Codec::from_number(codec).unwrap(), &stored, &mut out);
        }
    }
}
