//! What damage, and others who share the directory, do to folds.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::tests::{id, pack};
use super::*;

const SHAPE: Shape = Shape { unsorted: 300, ratio: 2, small: 20, bundle: 120 };

fn fold(index: &Arc<Index>, directory: &Path) -> Result<()> {
    let Some(mut fold) = Fold::begin(index, directory, SHAPE, true)? else { return Ok(()) };
    while fold.step()? {}
    Ok(())
}

/// What the destinations say.
struct Said {
    keys: Keyring,
    segments: Vec<(Id, Vec<u8>)>,
    packs: Vec<Id>,
}

impl Said {
    fn new(segments: u16, blocks: u16) -> Self {
        let mut said = Self { keys: Keyring::generate().unwrap(), segments: Vec::new(), packs: Vec::new() };
        (0..segments).for_each(|number| said.say(number, number * blocks..(number + 1) * blocks));
        said
    }

    fn say(&mut self, number: u16, blocks: std::ops::Range<u16>) {
        let pack = pack(10_000 + number, &blocks.collect::<Vec<_>>());
        let sealed = seal_plain(&self.keys, build(std::slice::from_ref(&pack), &[])).unwrap();
        self.packs.push(pack.id);
        self.segments.push((sealed.id, sealed.plain));
    }

    fn add_last(&self, index: &Index) {
        let (id, plain) = self.segments.last().unwrap().clone();
        index.add_segment(id, plain).unwrap();
    }

    /// Opens it, and tells which packs count; without fetching what is missing.
    fn open(&self, directory: &Path, whole: bool) -> (Arc<Index>, Vec<Id>) {
        let index = Arc::new(Index::default());
        let missing = index.open(directory, self.segments.iter().map(|it| it.0).collect(), whole);
        index.declare_usable(self.packs.iter().copied().collect());
        (index, missing)
    }

    /// As a command does: opens, fetches what is missing, folds. The index, how much was fetched, and what came of the fold.
    fn load(&self, directory: &Path, whole: bool) -> (Arc<Index>, usize, Result<()>) {
        let (index, missing) = self.open(directory, whole);
        for (id, plain) in self.segments.iter().filter(|it| missing.contains(&it.0)) {
            index.add_segment(*id, plain.clone()).unwrap();
        }
        let folded = fold(&index, directory);
        (index, missing.len(), folded)
    }
}

const NONE: [u16; 0] = [];

fn missed(index: &Index, blocks: std::ops::Range<u16>) -> Vec<u16> {
    blocks.filter(|block| index.find(&id(*block)).is_none()).collect()
}

fn is_sound(index: &Index) -> bool {
    (0..).find_map(|number| match index.verify(number) {
        Ok(true) => None,
        other => Some(other.is_ok()),
    }) == Some(true)
}

/// Changes bits of one byte.
fn flip(path: &Path, at: usize, bits: u8) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= bits;
    std::fs::write(path, bytes).unwrap();
}

/// The one table, its bytes, and where its entries and its fan-out are.
fn table(directory: &Path) -> (PathBuf, Vec<u8>, usize, usize) {
    let is_table = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with("table-");
    let path = std::fs::read_dir(directory).unwrap().map(|it| it.unwrap().path()).find(is_table).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let number = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    let entries_at = 32 + number(20) * 24;
    let fanout_at = entries_at + number(8) * 8;
    (path, bytes, entries_at, fanout_at)
}

/// In a table that is merged, an entry counts to the wrong group: it would never be found again, in a file in good order.
#[test]
fn a_border_of_groups_that_moved_by_one_is_not_merged() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let mut said = Said::new(1, 60);
    said.load(directory, true).2.unwrap();
    let (path, bytes, _, fanout) = table(directory);
    let border = |group: usize| u32::from_le_bytes(bytes[fanout + group * 4..][..4].try_into().unwrap());
    let moved = |group: &usize| {
        let (before, here, after) = (border(group - 1), border(*group), border(group + 1));
        before % 2 == 0 && here == before + 1 && after == here
    };
    let group = (30_000..65_535).find(moved).unwrap();
    flip(&path, fanout + group * 4, 1);
    said.say(1, 100..160);
    assert!(said.load(directory, true).2.is_err());
    let (index, ..) = said.load(directory, true);
    assert!(is_sound(&index));
    assert_eq!(missed(&index, 0..60), NONE);
}

#[test]
fn damage_in_the_fan_out_fails_one_fold_and_no_more() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let mut said = Said::new(1, 60);
    said.load(directory, true).2.unwrap();
    let (path, _, _, fanout) = table(directory);
    flip(&path, fanout + 30_000 * 4, 64);
    said.say(1, 100..160);
    assert!(said.load(directory, true).2.is_err());
    assert!(!path.exists());
    let (index, _, folded) = said.load(directory, true);
    folded.unwrap();
    assert_eq!(missed(&index, 0..60), NONE);
    assert_eq!(said.load(directory, true).1, 0);
}

#[test]
fn after_damage_in_a_table_the_same_index_folds_again() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let mut said = Said::new(10, 1000);
    said.load(directory, true).2.unwrap();
    let (path, _, entries, _) = table(directory);
    flip(&path, entries + 9000 * 8, 1);
    let (index, _) = said.open(directory, true);
    let folded: Vec<bool> = (1..4)
        .map(|number| {
            said.say(100 + number, 10_000 + number * 6000..10_000 + number * 6000 + 6000);
            said.add_last(&index);
            fold(&index, directory).is_ok()
        })
        .collect();
    assert_eq!(folded, [false, true, true]);
    assert!(!is_sound(&index)); // What the table alone found is lost until all is opened anew.
    let (index, ..) = said.load(directory, true);
    assert_eq!(missed(&index, 0..10_000), NONE);
}

#[test]
fn a_cleared_directory_moves_nothing_into_memory_and_is_filled_again() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let mut said = Said::new(20, 300);
    let (index, ..) = said.load(directory, true);
    for entry in std::fs::read_dir(directory).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
    said.say(50, 9000..9010);
    said.add_last(&index);
    index.declare_usable(said.packs.iter().copied().collect());
    let begun = Fold::begin(&index, directory, SHAPE, false).unwrap();
    assert_eq!(index.read().recent.entries(), 10);
    assert_eq!(missed(&index, 0..6000), NONE);
    let mut begun = begun.unwrap();
    while begun.step().unwrap() {}
    assert_eq!((missed(&index, 0..6000), missed(&index, 9000..9010)), (Vec::<u16>::new(), Vec::<u16>::new()));
    assert!(is_sound(&index));
    let (again, missing) = said.open(directory, true);
    assert_eq!((missing.len(), missed(&again, 0..6000)), (0, Vec::<u16>::new()));
}

/// A look-up of another thread meets the damage after the fold has looked for some.
#[test]
fn damage_that_is_met_while_a_fold_begins_is_not_forgotten() {
    let mut said = Said::new(1, 0);
    (1..1000).for_each(|number| said.say(number, 0..0));
    let first = said.segments.len();
    said.say(4000, 0..300);
    let second = said.segments.len();
    said.say(4001, 5000..5200);
    for round in 0..32u32 {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path();
        let index = Arc::new(Index::default());
        for (from, until) in [(0, first), (first, second)] {
            said.segments[from..until]
                .iter()
                .for_each(|(id, plain)| index.add_segment(*id, plain.clone()).unwrap());
            fold(&index, directory).unwrap();
        }
        let name = index.with_state(|layers, _, _| {
            let laid = layers.levels.iter().flat_map(Level::laid).find(|laid| laid.live_entries() == 300);
            laid.unwrap().bundle.name
        });
        drop(index);
        let path = directory.join(bundle_file(&name));
        flip(&path, std::fs::metadata(&path).unwrap().len() as usize / 2, 1);
        let (index, _) = said.open(directory, true);
        said.add_last(&index);
        let (other, go) = (index.clone(), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !go.load(Relaxed) {
                    std::hint::spin_loop();
                }
                let begun = Instant::now();
                while begun.elapsed() < Duration::from_micros(30) * round {
                    std::hint::spin_loop();
                }
                (0..300).for_each(|block| _ = other.find(&id(block)));
            });
            go.store(true, Relaxed);
            let _ = fold(&index, directory);
        });
        if is_sound(&index) && index.look(|_| ()).is_ok() {
            assert_eq!(missed(&index, 0..300), NONE);
        }
    }
}

#[test]
fn who_asks_one_destination_throws_away_nothing_of_the_others() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let mut said = Said::new(20, 300);
    said.load(directory, true).2.unwrap();
    let mut one = Said::new(0, 0);
    one.say(60, 9000..9010);
    one.segments.push(said.segments[3].clone());
    let (index, fetched, folded) = one.load(directory, false);
    folded.unwrap();
    assert_eq!((fetched, missed(&index, 9000..9010)), (1, Vec::<u16>::new()));
    assert!(is_sound(&index));
    said.segments.push(one.segments[0].clone());
    said.packs.extend(&one.packs);
    let (index, missing) = said.open(directory, true);
    assert_eq!(
        (missing.len(), missed(&index, 0..6000), missed(&index, 9000..9010)),
        (0, Vec::<u16>::new(), Vec::<u16>::new())
    );
    // Who asks all of them, and is told of none but that, drops the others.
    one.load(directory, true).2.unwrap();
    one.say(61, 9100..9110);
    one.load(directory, true).2.unwrap();
    assert!(said.open(directory, true).1.len() > 10);
}

#[test]
fn every_damaged_file_is_found_in_one_go_over_all() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let said = Said::new(6, 300);
    said.load(directory, true).2.unwrap();
    let entries = std::fs::read_dir(directory).unwrap().map(|it| it.unwrap().path());
    let mut bundles: Vec<PathBuf> =
        entries.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("bundle-")).collect();
    bundles.truncate(4);
    bundles.iter().for_each(|path| flip(path, 6000, 1));
    let (index, _) = said.open(directory, true);
    let found = (0..index.files().len()).filter(|number| index.verify(*number).is_err()).count();
    assert!(found >= bundles.len() && !bundles.iter().any(|path| path.exists()));
    assert!(is_sound(&said.load(directory, true).0));
}

#[test]
fn the_same_packs_make_the_same_segment_in_whatever_order_they_were_read() {
    let keys = Keyring::generate().unwrap();
    let packs: Vec<IndexedPack> = (0..5).map(|number| pack(number, &[number, number + 50])).collect();
    let made = |order: [usize; 5]| {
        let index = Index::default();
        order.iter().for_each(|number| index.add_pack(&packs[*number]).unwrap());
        index.take_added(&keys).unwrap().into_iter().map(|segment| segment.id).collect::<Vec<_>>()
    };
    assert_eq!(made([0, 1, 2, 3, 4]), made([3, 1, 4, 0, 2]));
}
