//! The index against its naive twin: a list of segments, and for each look-up a walk over all of it.

use std::collections::HashSet;
use std::path::PathBuf;

use proptest::prelude::*;

use super::*;
use crate::pack::{HEADER, OVERHEAD, RecordKind};

const BLOCKS: u16 = 300;
/// Small, so that there come to be several tables and bundles.
const SHAPE: Shape = Shape { unsorted: 300, ratio: 2, small: 20, bundle: 120 };

pub(super) fn id(seed: u16) -> Id {
    *blake3::hash(&seed.to_le_bytes()).as_bytes()
}

pub(super) fn pack(number: u16, blocks: &[u16]) -> IndexedPack {
    let entry = |(at, block): (usize, &u16)| Entry {
        id: id(*block),
        offset: (HEADER + at * 1000) as u32,
        length: (OVERHEAD + 900) as u32,
        kind: RecordKind::Block,
    };
    IndexedPack {
        id: id(number),
        size: u64::from(number),
        entries: blocks.iter().enumerate().map(entry).collect(),
    }
}

/// What is done to an index, one after the other.
#[derive(Clone, Debug)]
enum Act {
    /// A segment of some packs (numbers from 0) that hold these blocks.
    Add(Vec<(u16, Vec<u16>)>),
    /// A pack that no segment names.
    AddPack(u16, Vec<u16>),
    TakeAdded,
    /// With a table, or only if there is much.
    Fold(bool),
    /// A fold that is stopped after so many steps.
    Stop(usize),
    Declare(HashSet<u16>),
    /// Another process begins, and finds that some segments (every so many) are listed no more.
    Reopen(usize),
    /// Another process folds in the same directory; it wants all segments but every so manieth, and takes them for all or not.
    FoldElsewhere(usize, bool),
}

fn act() -> impl Strategy<Value = Act> {
    let packs = prop::collection::vec((0u16..40, prop::collection::vec(0..BLOCKS, 0..40)), 1..4);
    prop_oneof![
        8 => packs.prop_map(Act::Add),
        2 => (0u16..40, prop::collection::vec(0..BLOCKS, 0..40)).prop_map(|(number, blocks)| Act::AddPack(number, blocks)),
        1 => Just(Act::TakeAdded),
        4 => any::<bool>().prop_map(Act::Fold),
        1 => (0usize..5).prop_map(Act::Stop),
        2 => prop::collection::hash_set(0u16..40, 0..40).prop_map(Act::Declare),
        2 => (2usize..9).prop_map(Act::Reopen),
        3 => (prop_oneof![Just(usize::MAX), 2usize..4], any::<bool>()).prop_map(|(but, whole)| Act::FoldElsewhere(but, whole)),
    ]
}

/// A segment as the twin keeps it: (block, place) in the order of its entries.
struct Said {
    id: Id,
    packs: Vec<(Id, u64)>,
    places: Vec<(Prefix, Place)>,
    /// Lies as a file somewhere, so that it is still there for the next process.
    plain: Option<Vec<u8>>,
}

struct Twins {
    directory: tempfile::TempDir,
    keys: Keyring,
    index: Arc<Index>,
    said: Vec<Said>,
    usable: HashSet<Id>,
    added: Vec<IndexedPack>,
}

impl Twins {
    fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            keys: Keyring::generate().unwrap(),
            index: Arc::default(),
            said: Vec::new(),
            usable: HashSet::new(),
            added: Vec::new(),
        }
    }

    fn say(&mut self, id: Id, plain: &[u8], lasts: bool) {
        let segment = Segment::parse(plain).unwrap();
        let rows = segment.rows(plain, |_| true).unwrap();
        let packs: Vec<(Id, u64)> = rows.iter().map(|row| (row.pack, row.size)).collect();
        let mut places: Vec<(Prefix, usize, Place)> = Vec::new();
        for (ordinal, row) in rows.iter().enumerate() {
            places.extend(row.entries.iter().map(|(prefix, offset, length)| {
                (*prefix, ordinal, Place { pack: row.pack, offset: *offset, length: *length })
            }));
        }
        places.sort_by_key(|(prefix, ordinal, place)| {
            (*prefix, (*ordinal as u32).to_le_bytes(), place.offset.to_le_bytes())
        });
        let places = places.into_iter().map(|(prefix, _, place)| (prefix, place)).collect();
        self.said.push(Said { id, packs, places, plain: lasts.then(|| plain.to_vec()) });
    }

    fn add(&mut self, packs: &[IndexedPack]) {
        let sealed = seal_plain(&self.keys, build(packs, &[])).unwrap();
        let ids: Vec<Id> = packs.iter().map(|pack| pack.id).collect();
        self.usable.extend(&ids);
        self.index.add_usable(sealed.id, sealed.plain.clone(), &ids).unwrap();
        let blocks = packs.iter().flat_map(|pack| &pack.entries).map(|entry| entry.id);
        blocks.for_each(|block| assert!(self.index.find(&block).is_some()));
        // Segments that were there before and name one of these packs too are only marked by this.
        self.index.declare_usable(self.usable.iter().copied().collect());
        self.say(sealed.id, &sealed.plain, true);
    }

    fn act(&mut self, act: &Act) {
        match act {
            Act::Add(packs) => {
                let mut numbers = HashSet::new();
                let packs: Vec<IndexedPack> = packs
                    .iter()
                    .filter(|(number, _)| numbers.insert(*number))
                    .map(|(number, blocks)| pack(10_000 + number, blocks))
                    .collect();
                self.add(&packs);
            }
            Act::AddPack(number, blocks) => {
                let pack = pack(10_000 + number, blocks);
                let plain = build(std::slice::from_ref(&pack), &[]);
                self.index.add_pack(&pack).unwrap();
                let id = *blake3::hash(&plain).as_bytes();
                if self.said.iter().all(|said| said.id != id) {
                    self.say(id, &plain, false);
                    self.added.push(pack);
                }
            }
            Act::TakeAdded => self.take_added(),
            Act::Fold(last) => {
                self.take_added();
                fold(&self.index, self.directory.path(), *last, usize::MAX);
            }
            Act::Stop(steps) => {
                self.take_added();
                fold(&self.index, self.directory.path(), true, *steps);
            }
            Act::Declare(packs) => {
                self.usable = packs.iter().map(|number| id(10_000 + number)).collect();
                self.index.declare_usable(self.usable.iter().copied().collect());
            }
            Act::Reopen(gone) => self.reopen(*gone),
            Act::FoldElsewhere(but, whole) => {
                self.take_added();
                let other = Arc::new(Index::default());
                let wanted = |at: &usize| (at + 1) % but != 0;
                let wanted: IdSet = (0..self.said.len()).filter(wanted).map(|at| self.said[at].id).collect();
                // It fetches every other one of those that are not there.
                for missing in other.open(self.directory.path(), wanted, *whole).iter().step_by(2) {
                    let said = self.said.iter().find(|said| said.id == *missing).unwrap();
                    other.add_segment(*missing, said.plain.clone().unwrap()).unwrap();
                }
                fold(&other, self.directory.path(), *but != usize::MAX, usize::MAX);
            }
        }
    }

    fn take_added(&mut self) {
        let segments = self.index.take_added(&self.keys).unwrap();
        self.said.retain(|said| said.plain.is_some());
        for segment in &segments {
            self.say(segment.id, &segment.plain, true);
        }
        self.added.clear();
    }

    fn reopen(&mut self, gone: usize) {
        self.take_added();
        let mut number = 0;
        self.said.retain(|_| {
            number += 1;
            number % gone != 0
        });
        self.index = Arc::default();
        let wanted: IdSet = self.said.iter().map(|said| said.id).collect();
        let missing = self.index.open(self.directory.path(), wanted, true);
        for id in &missing {
            let at = self.said.iter().position(|said| said.id == *id).unwrap();
            let said = self.said.remove(at);
            self.index.add_segment(*id, said.plain.clone().unwrap()).unwrap();
            self.said.push(said);
        }
        self.index.declare_usable(self.usable.iter().copied().collect());
    }

    /// The newest usable place of a block that is not `but`.
    fn naive(&self, block: u16, but: Option<Place>) -> Option<Place> {
        let wanted = prefix(&id(block));
        let good = |place: &&(Prefix, Place)| {
            place.0 == wanted && self.usable.contains(&place.1.pack) && Some(place.1) != but
        };
        self.said.iter().rev().find_map(|said| said.places.iter().rev().find(good)).map(|(_, place)| *place)
    }

    fn compare(&self, exactly: bool) {
        for block in 0..BLOCKS {
            let found = self.index.find(&id(block));
            let other = self.index.find_where(&id(block), |place| Some(*place) != found);
            if exactly {
                assert_eq!(found, self.naive(block, None), "block {block}");
                assert_eq!(other, found.and_then(|_| self.naive(block, found)), "other place of {block}");
            } else {
                assert_eq!(found.is_some(), self.naive(block, None).is_some(), "block {block}");
            }
        }
        let named: HashSet<Id> = self.said.iter().flat_map(|said| &said.packs).map(|(id, _)| *id).collect();
        assert_eq!(self.index.packs().into_keys().collect::<HashSet<_>>(), named);
        for said in &self.said {
            let mut packs = Vec::new();
            self.index.each_pack(Some(&IdSet::from_iter([said.id])), |id, size| packs.push((id, size)));
            assert_eq!(packs, said.packs);
            let naming = self.index.segments_naming(&said.packs.iter().map(|(id, _)| *id).collect());
            let expected = self
                .said
                .iter()
                .filter(|it| it.packs.iter().any(|pack| said.packs.iter().any(|(id, _)| *id == pack.0)));
            assert_eq!(
                naming.into_iter().collect::<HashSet<_>>(),
                expected.map(|it| it.id).collect::<HashSet<_>>()
            );
        }
    }
}

fn fold(index: &Arc<Index>, directory: &Path, last: bool, steps: usize) {
    try_fold(index, directory, last, steps).unwrap();
}

fn try_fold(index: &Arc<Index>, directory: &Path, last: bool, steps: usize) -> Result<()> {
    let Some(mut fold) = Fold::begin(index, directory, SHAPE, last)? else { return Ok(()) };
    for _ in 0..steps {
        if !fold.step()? {
            break;
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn finds_what_a_walk_over_all_segments_finds(acts in prop::collection::vec(act(), 1..30)) {
        let mut twins = Twins::new();
        // Who adopts another's fold may order segments that were added side by side in another way.
        let exactly = !acts.iter().any(|act| matches!(act, Act::FoldElsewhere(..)));
        for act in &acts {
            twins.act(act);
            twins.compare(exactly);
        }
        (0..).find(|number| !twins.index.verify(*number).unwrap()).unwrap();
        let mut walked: Vec<(Prefix, Place)> = Vec::new();
        twins.index.look(|views| for view in views {
            let packs: Vec<Id> = view.packs().collect();
            let place = |(prefix, pack, offset, length)| (prefix, Place { pack: packs[pack as usize], offset, length });
            assert!(view.entries().is_sorted_by_key(|(prefix, ..)| prefix));
            walked.extend(view.entries().map(place));
        }).unwrap();
        let order = |place: &(Prefix, Place)| (place.0, place.1.pack, place.1.offset);
        let mut expected: Vec<(Prefix, Place)> = twins.said.iter().flat_map(|said| said.places.clone()).collect();
        walked.sort_unstable_by_key(order);
        expected.sort_unstable_by_key(order);
        prop_assert_eq!(walked, expected);
        // Nothing is left lying about.
        twins.reopen(usize::MAX);
        fold(&twins.index, twins.directory.path(), true, usize::MAX);
        let files = std::fs::read_dir(twins.directory.path()).unwrap().map(|it| it.unwrap().file_name().into_string().unwrap());
        let (tables, bundles) = twins.index.with_state(|layers, _, _| (layers.levels.len(), layers.laid().count()));
        prop_assert_eq!(files.filter(|name| name != "current").count(), tables + bundles);
        prop_assert!(tables <= 8, "{} tables", tables);
    }

    /// A flipped bit anywhere in what was folded: what is found is right, and once it is opened again all is found.
    #[test]
    fn damage_in_the_cache_leads_to_nothing_wrong(groups in 1usize..5, file: prop::sample::Index, at: prop::sample::Index, bit in 0u8..8) {
        let mut twins = Twins::new();
        for group in 0..groups as u16 {
            let blocks: Vec<u16> = (group * 60..(group + 1) * 60).collect();
            twins.add(&[pack(10_000 + group, &blocks)]);
            fold(&twins.index, twins.directory.path(), group % 2 == 0, usize::MAX);
        }
        twins.compare(true);
        let mut files: Vec<PathBuf> = std::fs::read_dir(twins.directory.path()).unwrap().map(|it| it.unwrap().path()).collect();
        files.sort();
        let path = &files[file.index(files.len())];
        let mut bytes = std::fs::read(path).unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        std::fs::write(path, bytes).unwrap();

        let index = Index::default();
        index.declare_usable(twins.usable.iter().copied().collect());
        index.open(twins.directory.path(), twins.said.iter().map(|said| said.id).collect(), true);
        for block in 0..BLOCKS {
            let found = index.find(&id(block));
            prop_assert!(found.is_none() || found == twins.naive(block, None));
        }
        // What is damaged is seen now, also by who adopts another's fold, or when it was opened; and no longer there for the next one.
        let seen = index.read().is_bad();
        let index = Arc::new(index);
        let _ = try_fold(&index, twins.directory.path(), true, usize::MAX); // It may be the first to see it.
        if seen && index.verify(0).is_ok() {
            (0..BLOCKS).for_each(|block| assert_eq!(index.find(&id(block)).is_some(), twins.naive(block, None).is_some()));
        }
        (0..).find(|number| !matches!(index.verify(*number), Ok(true))).unwrap();
        twins.reopen(usize::MAX);
        twins.compare(false);
    }
}
