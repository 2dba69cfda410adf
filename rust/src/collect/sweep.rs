//! The needed blocks joined with the index: which packs are dead, how much of the others is, and where each needed block is kept.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};

use super::marker::Marker;
use super::needed::Sorted;
use crate::bytes::{Id, hex};
use crate::error::{Result, damaged};
use crate::index::{Index, Prefix, SegmentEntries};

/// A record: its pack by number, offset and length.
type Record = (u32, u32, u32);

/// (prefix, number of the segment, record).
type Head = (Prefix, usize, Record);

/// The (offset, length) of records, by pack.
pub type Records = HashMap<Id, Vec<(u32, u32)>>;

/// One pack, as far as the index describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Its id.
    pub pack: Id,
    /// Bytes of its records of blocks that are kept there.
    pub live: u64,
    /// Bytes of all its records of blocks.
    pub total: u64,
    /// It holds pages that are reached.
    pub pages: bool,
}

/// What a sweep found.
pub struct Sweep {
    /// Every pack that is present and described by the index.
    pub packs: Vec<Usage>,
}

/// The present packs, numbered as they are met.
struct Numbers<'a> {
    present: &'a HashSet<Id>,
    numbers: HashMap<Id, u32>,
    ids: Vec<Id>,
}

impl Numbers<'_> {
    fn of(&mut self, pack: &Id) -> Option<u32> {
        if !self.present.contains(pack) {
            return None;
        }
        if let Some(number) = self.numbers.get(pack) {
            return Some(*number);
        }
        let number = self.ids.len() as u32;
        self.numbers.insert(*pack, number);
        self.ids.push(*pack);
        Some(number)
    }
}

/// All records of the present packs, grouped by prefix in ascending order; each record once, however many segments name it.
struct Groups<'a> {
    segments: Vec<(SegmentEntries<'a>, Vec<Option<u32>>)>,
    next: BinaryHeap<Reverse<Head>>,
}

impl<'a> Groups<'a> {
    fn new(segments: Vec<(SegmentEntries<'a>, Vec<Option<u32>>)>) -> Self {
        let mut groups = Self { segments, next: BinaryHeap::new() };
        for number in 0..groups.segments.len() {
            groups.pull(number);
        }
        groups
    }

    fn pull(&mut self, segment: usize) {
        let (entries, packs) = &mut self.segments[segment];
        for (prefix, ordinal, offset, length) in entries {
            if let Some(Some(pack)) = packs.get(ordinal as usize) {
                self.next.push(Reverse((prefix, segment, (*pack, offset, length))));
                return;
            }
        }
    }

    fn next(&mut self, group: &mut Vec<Record>) -> Option<Prefix> {
        group.clear();
        let Reverse((first, ..)) = *self.next.peek()?;
        while let Some(Reverse((prefix, segment, record))) = self.next.peek().copied() {
            if prefix != first {
                break;
            }
            self.next.pop();
            self.pull(segment);
            group.push(record);
        }
        group.sort_unstable();
        group.dedup();
        Some(first)
    }
}

/// Calls `with` with every group and whether it is needed. Fails if a needed block lies in no present pack, unless it is `in_parts`.
fn join(
    needed: &mut Sorted<'_>,
    in_parts: bool,
    groups: &mut Groups<'_>,
    mut with: impl FnMut(&[Record], bool) -> Result<()>,
) -> Result<()> {
    let (mut lost, mut example) = (0u64, None);
    let mut group = Vec::new();
    let mut wanted = needed.pop()?;
    let mut miss = |prefix: Prefix| {
        lost += 1;
        example.get_or_insert(prefix);
    };
    while let Some(prefix) = groups.next(&mut group) {
        while let Some(before) = wanted.filter(|it| *it < prefix) {
            miss(before);
            wanted = needed.pop()?;
        }
        let is_needed = wanted == Some(prefix);
        if is_needed {
            wanted = needed.pop()?;
        }
        with(&group, is_needed)?;
    }
    while let Some(rest) = wanted {
        miss(rest);
        wanted = needed.pop()?;
    }
    match example.filter(|_| !in_parts) {
        None => Ok(()),
        Some(prefix) => damaged(format!(
            "{lost} blocks that snapshots need are in no pack that is there (the first begins with {})",
            hex(&prefix[..8])
        )),
    }
}

/// What each pack came to so far.
#[derive(Clone, Copy, Default)]
struct Sums {
    total: u64,
    wanted: u64,
    live: u64,
}

/// Of several records of one block the one that is kept: in a preferred pack, and of those in the one of which most is wanted
/// anyway; ties by id.
fn chosen(group: &[Record], sums: &[Sums], ids: &[Id], preferred: &HashSet<Id>) -> Record {
    let score = |record: &&Record| {
        let sum = sums[record.0 as usize];
        // As 32-bit fixed point, so that the order does not hang on rounding.
        let share = ((u128::from(sum.wanted) << 32) / u128::from(sum.total.max(1))) as u64;
        let id = ids[record.0 as usize];
        (preferred.contains(&id), share, id, record.1)
    };
    *group.iter().max_by_key(score).unwrap_or(&group[0])
}

/// One look at all packs in `present`: for every needed block one record is chosen to be kept, in a `preferred` pack if there is one.
///
/// Returns what each pack comes to, and the chosen records of the packs in `of`, by pack.
pub fn sweep(
    marker: &Marker,
    index: &Index,
    present: &HashSet<Id>,
    preferred: &HashSet<Id>,
    of: &HashSet<Id>,
) -> Result<(Sweep, Records)> {
    let mut marked = marker.needed()?;
    let in_parts = marked.in_parts();
    index.look(|segments| {
        let mut numbers = Numbers { present, numbers: HashMap::new(), ids: Vec::new() };
        let views: Vec<_> = segments
            .iter()
            .map(|view| (view.clone(), view.packs().map(|pack| numbers.of(&pack)).collect::<Vec<_>>()))
            .collect();
        let groups =
            || Groups::new(views.iter().map(|(view, packs)| (view.entries(), packs.clone())).collect());
        let ids = &numbers.ids;
        let mut sums = vec![Sums::default(); ids.len()];
        join(&mut marked.needed().sorted()?, in_parts, &mut groups(), |group, needed| {
            for (pack, _, length) in group {
                let sum = &mut sums[*pack as usize];
                sum.total += u64::from(*length);
                sum.wanted += if needed { u64::from(*length) } else { 0 };
            }
            Ok(())
        })?;
        let scores = sums.clone();
        let mut records = Records::new();
        join(&mut marked.needed().sorted()?, in_parts, &mut groups(), |group, needed| {
            if needed {
                let (pack, offset, length) = chosen(group, &scores, ids, preferred);
                sums[pack as usize].live += u64::from(length);
                if of.contains(&ids[pack as usize]) {
                    records.entry(ids[pack as usize]).or_default().push((offset, length));
                }
            }
            Ok(())
        })?;
        for of_pack in records.values_mut() {
            of_pack.sort_unstable();
        }
        let usage = |(id, sum): (&Id, &Sums)| Usage {
            pack: *id,
            live: sum.live,
            total: sum.total,
            pages: marked.holds_pages(id),
        };
        Ok((Sweep { packs: ids.iter().zip(&sums).map(usage).collect() }, records))
    })?
}

/// Which of the packs in `condemned` must stay after all: those with pages that are reached, and one for every needed block that
/// lies in no other present pack.
pub fn rescued(
    marker: &Marker,
    index: &Index,
    present: &HashSet<Id>,
    condemned: &HashSet<Id>,
) -> Result<HashSet<Id>> {
    let mut marked = marker.needed()?;
    let in_parts = marked.in_parts();
    let mut kept: HashSet<Id> = condemned.iter().filter(|pack| marked.holds_pages(pack)).copied().collect();
    index.look(|segments| {
        let mut numbers = Numbers { present, numbers: HashMap::new(), ids: Vec::new() };
        let views: Vec<_> = segments
            .iter()
            .map(|view| (view.entries(), view.packs().map(|pack| numbers.of(&pack)).collect::<Vec<_>>()))
            .collect();
        join(&mut marked.needed().sorted()?, in_parts, &mut Groups::new(views), |group, needed| {
            let stays = |record: &Record| {
                let id = &numbers.ids[record.0 as usize];
                !condemned.contains(id) || kept.contains(id)
            };
            if needed && !group.iter().any(stays) {
                kept.insert(numbers.ids[group[0].0 as usize]);
            }
            Ok(())
        })
    })??;
    Ok(kept)
}
