//! Fewer segments of the same content: what a collection stores in place of those that name packs it deletes.

use std::collections::HashSet;
use std::path::Path;

use super::segment::{self, Row, Segment};
use crate::bytes::{Id, hex};
use crate::envelope::{self, Kind};
use crate::error::{Error, Result};
use crate::keys::Keyring;
use crate::outside::Mapped;

/// Entries of one segment: some 28 MiB.
const SEGMENT_ENTRIES: usize = 1 << 20;

/// A segment, ready to be sent and to be added to an index.
pub struct NewSegment {
    /// BLAKE3 of `data`, which names it.
    pub id: Id,
    /// The sealed object.
    pub data: Vec<u8>,
    /// What is in it.
    pub plain: Vec<u8>,
}

/// Seals a plain segment.
pub fn seal_plain(keys: &Keyring, plain: Vec<u8>) -> Result<NewSegment> {
    // Its name is the hash of its bytes, which cannot be bound into them.
    let data = envelope::seal(keys, Kind::Segment, "index", &plain)?;
    Ok(NewSegment { id: *blake3::hash(&data).as_bytes(), data, plain })
}

/// Segments that say together what the plain segments of `paths` say, but for the packs of `drop`; each names all that
/// they replace, so those may go once every one of these is stored. A file's name is the id of its segment.
///
/// A pack that several of them name is taken from the last. Nothing comes of segments that name no pack that stays.
pub fn merge_segments(keys: &Keyring, paths: &[&Path], drop: &HashSet<Id>) -> Result<Vec<NewSegment>> {
    let replaces = paths.iter().map(|path| segment_id(path)).collect::<Result<Vec<Id>>>()?;
    let mut named: HashSet<Id> = HashSet::new();
    let mut rows: Vec<Row> = Vec::new();
    for path in paths.iter().rev() {
        let mapped = Mapped::open(path)?;
        let segment = Segment::parse(mapped.bytes())?;
        rows.extend(segment.rows(mapped.bytes(), |pack| !drop.contains(pack) && named.insert(*pack))?);
    }
    rows.sort_unstable_by_key(|row| row.pack);
    seal_rows(keys, &rows, &replaces)
}

/// As many segments as it takes for these packs.
pub fn seal_rows(keys: &Keyring, rows: &[Row], replaces: &[Id]) -> Result<Vec<NewSegment>> {
    let mut rest = rows;
    let mut segments = Vec::new();
    while !rest.is_empty() {
        let (now, later) = rest.split_at(fitting(rest.iter().map(|row| row.entries.len())));
        segments.push(seal_plain(keys, segment::build_rows(now, replaces))?);
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

fn segment_id(path: &Path) -> Result<Id> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let id = blake3::Hash::from_hex(name).map(|hash| *hash.as_bytes()).ok();
    id.filter(|id| hex(id) == name)
        .ok_or_else(|| Error::Usage(format!("{} is not called by a segment's id", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::tests::{id, pack};
    use crate::index::{IndexedPack, Prefix, build, prefix};
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::path::PathBuf;

    type Said = BTreeMap<Id, (u64, Vec<(Prefix, u32, u32)>)>;

    fn said(plain: &[u8], into: &mut Said) {
        let segment = Segment::parse(plain).unwrap();
        for mut row in segment.rows(plain, |_| true).unwrap() {
            row.entries.sort_unstable();
            assert!(into.insert(row.pack, (row.size, row.entries)).is_none(), "a pack is named twice");
        }
    }

    fn write(directory: &Path, keys: &Keyring, packs: &[IndexedPack]) -> PathBuf {
        let sealed = seal_plain(keys, build(packs, &[])).unwrap();
        let path = directory.join(hex(&sealed.id));
        std::fs::write(&path, &sealed.plain).unwrap();
        path
    }

    proptest! {
        #[test]
        fn says_what_they_said_but_for_what_is_dropped(
            packs in prop::collection::vec(prop::collection::vec(0u16..900, 0..50), 1..9),
            dropped in prop::collection::hash_set(0u16..9, 0..9),
            twice in 0usize..9,
        ) {
            let keys = Keyring::generate().unwrap();
            let packs: Vec<_> = (10_000..).zip(&packs).map(|(number, blocks)| pack(number, blocks)).collect();
            let dropped: HashSet<Id> = dropped.iter().map(|number| id(10_000 + number)).collect();
            let directory = tempfile::tempdir().unwrap();
            let mut paths: Vec<_> = packs.chunks(2).map(|group| write(directory.path(), &keys, group)).collect();
            if let Some(pack) = packs.get(twice) {
                paths.push(write(directory.path(), &keys, std::slice::from_ref(pack)));
            }
            let borrowed: Vec<&Path> = paths.iter().map(PathBuf::as_path).collect();
            let merged = merge_segments(&keys, &borrowed, &dropped).unwrap();
            let mut got = Said::new();
            for segment in &merged {
                prop_assert_eq!(*blake3::hash(&segment.data).as_bytes(), segment.id);
                prop_assert_eq!(&envelope::open(&keys, Kind::Segment, "index", &segment.data).unwrap(), &segment.plain);
                said(&segment.plain, &mut got);
                let parsed = Segment::parse(&segment.plain).unwrap();
                let replaces: Vec<String> = parsed.replaces(&segment.plain).map(|id| hex(&id)).collect();
                let names: Vec<_> = paths.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
                prop_assert_eq!(replaces, names);
            }
            let mut expected = Said::new();
            for pack in packs.iter().filter(|pack| !dropped.contains(&pack.id)) {
                let mut entries: Vec<_> =
                    pack.entries.iter().map(|entry| (prefix(&entry.id), entry.offset, entry.length)).collect();
                entries.sort_unstable();
                expected.insert(pack.id, (pack.size, entries));
            }
            prop_assert_eq!(got, expected);
        }
    }

    #[test]
    fn a_segment_takes_as_many_packs_as_can_be_read_back_whole_and_at_least_one() {
        assert_eq!(fitting([3, 4, 5].into_iter()), 3);
        assert_eq!(fitting([SEGMENT_ENTRIES * 2, 4].into_iter()), 1);
        assert_eq!(fitting([SEGMENT_ENTRIES / 2 - 1, SEGMENT_ENTRIES / 2 - 1, 1].into_iter()), 2);
        assert_eq!(fitting(std::iter::repeat_n(0, SEGMENT_ENTRIES + 9)), SEGMENT_ENTRIES);
    }

    #[test]
    fn refuses_a_file_that_is_torn_or_not_called_by_an_id() {
        let keys = Keyring::generate().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let path = write(directory.path(), &keys, &[pack(1, &[2, 3])]);
        let odd = directory.path().join("odd");
        std::fs::copy(&path, &odd).unwrap();
        assert!(matches!(merge_segments(&keys, &[&odd], &HashSet::new()), Err(Error::Usage(_))));
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[40] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        assert!(matches!(merge_segments(&keys, &[&path], &HashSet::new()), Err(Error::Damaged(_))));
    }
}
