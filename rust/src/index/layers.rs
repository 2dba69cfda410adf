//! What was folded: a few sorted tables, each of the bundles whose entries it finds, oldest first; and bundles that no table finds
//! yet. A file `current` names them.
//!
//! `current` is replaced as a whole, so that whoever opens the cache sees one state of it, before a fold or after. What it does
//! not name belongs to nobody. It is text: a sentence, the names of tables and of bundles without one, and the BLAKE3 of these
//! lines.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use super::bundle::Bundle;
use super::ids::IdSet;
use super::pages::random_name;
use super::segment::Prefix;
use super::table::{Key, Table, bundle_name};
use crate::bytes::Id;
use crate::error::Result;
use crate::pack::Place;

const CURRENT: &str = "current";
const SENTENCE: &str = "snapferry local index, format 1";
/// How often `current` is read again because what it names has gone meanwhile.
const ATTEMPTS: usize = 4;
/// So many tables are asked at once.
const AT_ONCE: usize = 8;

/// A bundle, which of its segments some destination lists, and which of its packs count.
#[derive(Clone)]
pub struct Laid {
    /// Shared with whoever folds it.
    pub bundle: Arc<Bundle>,
    live: Vec<bool>,
    usable: Vec<u64>,
}

impl Laid {
    /// Nothing of it counts yet.
    pub fn new(bundle: Arc<Bundle>) -> Self {
        let live = vec![false; bundle.parts.len()];
        Self { bundle, live, usable: Vec::new() }
    }

    /// Decides which segments count: those that `is_live` takes.
    pub fn settle(&mut self, mut is_live: impl FnMut(&Id) -> bool) {
        self.live = self.bundle.parts.iter().map(|part| is_live(&part.id)).collect();
    }

    /// Of the segments that count, only those that `stays` takes go on to; whether there are any.
    pub fn narrow(&mut self, mut stays: impl FnMut(&Id) -> bool) -> bool {
        for (part, live) in self.bundle.parts.iter().zip(&mut self.live) {
            *live = *live && stays(&part.id);
        }
        self.live.contains(&true)
    }

    /// Marks which packs count.
    pub fn mark(&mut self, usable: &IdSet) {
        let mut marks = vec![0; self.bundle.packs().div_ceil(64)];
        if usable.is_empty() {
            self.usable = marks; // Without a look at the packs: so it is whenever an index is opened.
            return;
        }
        for part in self.live_parts() {
            let packs = part.packs.clone();
            for (number, (id, _)) in packs.clone().zip(self.bundle.pack_rows(packs)) {
                marks[number / 64] |= u64::from(usable.contains(&id)) << (number % 64);
            }
        }
        self.usable = marks;
    }

    fn counts(&self, pack: usize) -> bool {
        self.usable.get(pack / 64).is_some_and(|word| word >> (pack % 64) & 1 == 1)
    }

    /// The place of an entry if it is of that prefix and in a pack that counts.
    pub fn place(&self, number: usize, wanted: &Prefix) -> Option<Place> {
        self.bundle.place(number, wanted, |pack| self.counts(pack))
    }

    /// All its segments, and which of them count.
    pub fn parts(&self) -> impl Iterator<Item = (&super::bundle::Part, bool)> {
        self.bundle.parts.iter().zip(self.live.iter().copied())
    }

    /// Whether segments that count are in it, and it was found damaged.
    pub fn is_lost(&self) -> bool {
        self.bundle.is_bad() && self.live.contains(&true)
    }

    /// Its segments that count; none once it was found damaged.
    pub fn live_parts(&self) -> impl Iterator<Item = &super::bundle::Part> {
        let good = !self.bundle.is_bad();
        self.bundle.parts.iter().zip(&self.live).filter(move |(_, live)| good && **live).map(|(part, _)| part)
    }

    /// How many entries its segments that count have.
    pub fn live_entries(&self) -> usize {
        self.live_parts().map(|part| part.entries.len()).sum()
    }
}

/// A table and its bundles.
pub struct Level {
    /// What a look-up asks first; shared with whoever folds it.
    pub table: Arc<Table>,
    /// None for one that is missing or damaged: what it held is not found.
    pub bundles: Vec<Option<Laid>>,
    /// The first number of each bundle.
    pub firsts: Vec<usize>,
    /// Whether `current` names it no more: somebody else left it out, and it is mapped here alone.
    pub left_out: bool,
}

impl Level {
    /// A table with what could be opened of its bundles.
    pub fn new(table: Table, bundles: Vec<Option<Laid>>) -> Self {
        let mut next = 0;
        let mut firsts = Vec::new();
        for named in &table.bundles {
            firsts.push(next);
            next += named.entries as usize;
        }
        Self { table: Arc::new(table), bundles, firsts, left_out: false }
    }

    fn place(&self, number: usize, wanted: &Prefix) -> Option<Place> {
        let at = self.firsts.partition_point(|first| *first <= number).checked_sub(1)?;
        let laid = self.bundles.get(at)?.as_ref()?;
        laid.place(number - self.firsts[at], wanted)
    }

    /// The bundles that are there.
    pub fn laid(&self) -> impl Iterator<Item = &Laid> {
        self.bundles.iter().flatten()
    }
}

/// All tables, oldest first.
#[derive(Default)]
pub struct Layers {
    /// What `current` said.
    pub text: String,
    /// From old to new.
    pub levels: Vec<Level>,
}

/// What `current` names, as far as it is there: tables, and bundles newer than them that no table finds. Nothing where it is
/// missing or damaged. Settled: each of the wanted segments counts once; those that are there are told too.
pub fn open(directory: &Path, wanted: &IdSet) -> (Layers, Vec<Laid>, HashSet<Id>) {
    let mut text = read_current(directory);
    let mut opened = open_named(directory, &text);
    for _ in 1..ATTEMPTS {
        let now = read_current(directory);
        if opened.2 || now == text {
            break;
        }
        text = now; // Somebody folded in between, and removed what we were about to open.
        opened = open_named(directory, &text);
    }
    let (mut levels, mut unsorted, _) = opened;
    let mut seen = HashSet::new();
    for laid in levels.iter_mut().flat_map(|level| level.bundles.iter_mut().flatten()).chain(&mut unsorted) {
        laid.settle(|id| wanted.contains(id) && seen.insert(*id));
    }
    (Layers { text, levels }, unsorted, seen)
}

impl Layers {
    /// A usable place of that prefix that `accept` takes, from the newest table that has one.
    pub fn find(&self, wanted: &Prefix, accept: &impl Fn(&Place) -> bool) -> Option<Place> {
        let key = Key::of(wanted);
        for levels in self.levels.rchunks(AT_ONCE) {
            // Each loop's reads wait for memory together, instead of one table's after another's.
            let mut spans = [(0, 0); AT_ONCE];
            for (span, level) in spans.iter_mut().zip(levels) {
                *span = level.table.span(key);
            }
            let mut guesses = [(0, 0); AT_ONCE];
            for ((guess, span), level) in guesses.iter_mut().zip(spans).zip(levels) {
                *guess = level.table.guess(key, span);
            }
            let mut equal = [const { 0..0 }; AT_ONCE];
            for (((equal, span), guess), level) in equal.iter_mut().zip(spans).zip(guesses).zip(levels) {
                *equal = level.table.equal(key, span, guess);
            }
            for (equal, level) in equal.into_iter().zip(levels).rev() {
                let numbers = equal.rev().map(|at| level.table.number(at) as usize);
                let place = numbers.filter_map(|number| level.place(number, wanted)).find(accept);
                if place.is_some() {
                    return place;
                }
            }
        }
        None
    }

    /// Every bundle that is there.
    pub fn laid(&self) -> impl Iterator<Item = &Laid> {
        self.levels.iter().flat_map(Level::laid)
    }

    /// Marks which packs count.
    pub fn mark(&mut self, usable: &IdSet) {
        self.levels
            .iter_mut()
            .flat_map(|level| level.bundles.iter_mut().flatten())
            .for_each(|it| it.mark(usable));
    }
}

/// Tables, bundles without one, and whether all that is named is there.
fn open_named(directory: &Path, text: &str) -> (Vec<Level>, Vec<Laid>, bool) {
    let mut whole = true;
    let mut levels = Vec::new();
    for name in names(text, "table-") {
        let Ok(table) = Table::open(directory, name) else {
            whole = false;
            continue;
        };
        let bundles: Vec<Option<Laid>> = table
            .bundles
            .iter()
            .map(|named| {
                let bundle = Bundle::open(directory, named.name).ok()?;
                (bundle.entries == named.entries as usize).then(|| Laid::new(Arc::new(bundle)))
            })
            .collect();
        whole &= bundles.iter().all(Option::is_some);
        levels.push(Level::new(table, bundles));
    }
    let mut unsorted = Vec::new();
    for name in names(text, "bundle-") {
        let bundle = bundle_name(name).and_then(|name| Bundle::open(directory, name).ok());
        whole &= bundle.is_some();
        unsorted.extend(bundle.map(|bundle| Laid::new(Arc::new(bundle))));
    }
    (levels, unsorted, whole)
}

/// What `current` says; nothing if it is missing, or not what was written.
pub fn read_current(directory: &Path) -> String {
    let text = std::fs::read_to_string(directory.join(CURRENT)).unwrap_or_default();
    let whole =
        text.strip_suffix('\n').and_then(|text| text.rsplit_once('\n')).is_some_and(|(lines, hash)| {
            lines.starts_with(SENTENCE) && blake3::hash(lines.as_bytes()).to_hex().as_str() == hash
        });
    if whole { text } else { String::new() }
}

/// The files of that kind that it names.
fn names<'a>(text: &'a str, kind: &'a str) -> impl Iterator<Item = &'a str> {
    text.lines().skip(1).filter(move |line| line.starts_with(kind))
}

/// All the files that it names.
pub fn all_names(text: &str) -> impl Iterator<Item = &str> {
    names(text, "table-").chain(names(text, "bundle-"))
}

/// Makes `current` name these files. Not synced: an older one names files that are gone, a torn one nothing, and both are made
/// up for by fetching.
pub fn write_current(directory: &Path, files: &[String]) -> Result<String> {
    let lines =
        std::iter::once(SENTENCE).chain(files.iter().map(String::as_str)).collect::<Vec<_>>().join("\n");
    let text = format!("{lines}\n{}\n", blake3::hash(lines.as_bytes()).to_hex());
    let temporary = directory.join(format!(".{}", random_name()?));
    let written =
        std::fs::write(&temporary, &text).and_then(|()| std::fs::rename(&temporary, directory.join(CURRENT)));
    if let Err(error) = written {
        let _ = std::fs::remove_file(&temporary);
        return Err(error.into());
    }
    Ok(text)
}
