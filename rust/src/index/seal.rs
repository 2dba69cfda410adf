//! Segments of many packs, none larger than can be read back whole.

use super::segment::{self, Row};
use crate::bytes::Id;
use crate::envelope::{self, Kind};
use crate::error::Result;
use crate::keys::Keyring;

/// Entries of one segment: some 28 MiB.
const SEGMENT_ENTRIES: usize = 1 << 20;

/// A segment, ready to be sent.
pub struct NewSegment {
    /// BLAKE3 of `data`, which names it.
    pub id: Id,
    /// The sealed object.
    pub data: Vec<u8>,
}

/// Seals a plain segment.
pub fn seal_plain(keys: &Keyring, plain: &[u8]) -> Result<NewSegment> {
    // Its name is the hash of its bytes, which cannot be bound into them.
    let data = envelope::seal(keys, Kind::Segment, "index", plain)?;
    Ok(NewSegment { id: *blake3::hash(&data).as_bytes(), data })
}

/// As many segments, with their plain bytes, as it takes for these packs.
pub fn seal_rows(keys: &Keyring, rows: &[Row], replaces: &[Id]) -> Result<Vec<(NewSegment, Vec<u8>)>> {
    let mut segments = Vec::new();
    let mut rest = rows;
    while !rest.is_empty() {
        let (now, later) = rest.split_at(fitting(rest.iter().map(|row| row.entries.len())));
        let plain = segment::build_rows(now, replaces);
        segments.push((seal_plain(keys, &plain)?, plain));
        rest = later;
    }
    Ok(segments)
}

/// How many packs with so many entries each go into one segment, so that each can be read back whole; at least one.
fn fitting(entries: impl Iterator<Item = usize>) -> usize {
    let mut all = 0;
    let fits = |count: &usize| {
        all += count + 1;
        all <= SEGMENT_ENTRIES
    };
    entries.take_while(fits).count().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_takes_as_many_packs_as_can_be_read_back_whole_and_at_least_one() {
        assert_eq!(fitting([3, 4, 5].into_iter()), 3);
        assert_eq!(fitting([SEGMENT_ENTRIES * 2, 4].into_iter()), 1);
        assert_eq!(fitting([SEGMENT_ENTRIES / 2 - 1, SEGMENT_ENTRIES / 2 - 1, 1].into_iter()), 2);
        assert_eq!(fitting(std::iter::repeat_n(0, SEGMENT_ENTRIES + 9)), SEGMENT_ENTRIES);
    }
}
