//! States that differ only in which writer or which collector is which are one; and a state as plain words.
//!
//! Writers are interchangeable with their sessions, snapshots and packs, collectors with theirs, because no rule asks who somebody is. What
//! does depend on it is the order in which a list is gone through (the lowest pack is deleted first, or kept), which stands for any order.

use crate::setting::Setting;
use crate::state::{Collector, Do, Ids, Packs, REPACKED, State, WRITTEN};

/// The one that stands for all states that are one with this one.
pub fn canonical(setting: &Setting, state: &State) -> State {
    let state = &forgetful(state);
    if !setting.symmetric {
        return *state;
    }
    let both_writers = setting.writers == 2 && !setting.cloned;
    let mut best = *state;
    if both_writers {
        best = best.min(swap_writers(state));
    }
    if setting.collectors == 2 {
        let swapped = swap_collectors(state);
        best = best.min(swapped);
        if both_writers {
            best = best.min(swap_writers(&swapped));
        }
    }
    best
}

/// Without what nobody will read again: what a collection below the newest deleted, unless somebody may still decide it.
fn forgetful(state: &State) -> State {
    let mut other = *state;
    let newest = state.store.newest();
    for (n, collection) in (1..newest).zip(&mut other.store.collections) {
        let decides = |collector: &Collector| collector.n == n && collector.to < Do::LookOnceMore;
        if collection.done && !state.collectors.iter().any(decides) {
            collection.delete = 0;
        }
    }
    other
}

fn swap_writers(state: &State) -> State {
    let mut other = map_packs(state, |packs| swap(packs, WRITTEN));
    let store = &mut other.store;
    store.content =
        state.store.content & 0xf0 | (state.store.content & 0x3) << 2 | (state.store.content & 0xc) >> 2;
    store.sessions.swap(0, 1);
    store.copied.swap(0, 1);
    other.finisher.commits.swap(0, 1);
    other.writers.swap(0, 1);
    for (index, writer) in (0..).zip(&mut other.writers) {
        writer.session = index;
        writer.own = index;
    }
    let snapshots = [
        &mut store.copies,
        &mut store.notes,
        &mut other.counted,
        &mut other.forgotten,
        &mut other.forgetting,
    ];
    for ids in snapshots.into_iter().chain([&mut other.finisher.ids]) {
        *ids = swap_ids(*ids, 1);
    }
    for collection in &mut store.collections {
        collection.ended = swap_ids(collection.ended, 0);
    }
    for collector in &mut other.collectors {
        collector.ended = swap_ids(collector.ended, 0);
        collector.open = swap_ids(collector.open, 0);
    }
    other
}

fn swap_collectors(state: &State) -> State {
    let mut other = map_packs(state, |packs| swap(packs, REPACKED));
    other.store.content =
        state.store.content & 0x0f | (state.store.content & 0x30) << 2 | (state.store.content & 0xc0) >> 2;
    other.collectors.swap(0, 1);
    other
}

fn map_packs(state: &State, map: impl Fn(Packs) -> Packs) -> State {
    let mut other = *state;
    let store = &mut other.store;
    store.packs = map(store.packs);
    for collection in &mut store.collections {
        collection.condemned = map(collection.condemned);
        collection.delete = map(collection.delete);
    }
    for writer in &mut other.writers {
        writer.usable = map(writer.usable);
        writer.refused = map(writer.refused);
        writer.relies = map(writer.relies);
    }
    for collector in &mut other.collectors {
        collector.pages = map(collector.pages);
        collector.list = map(collector.list);
    }
    other
}

/// The packs `at` and `at + 1` in each other's place.
fn swap(packs: Packs, at: usize) -> Packs {
    packs & !(3 << at) | (packs >> at & 1) << (at + 1) | (packs >> (at + 1) & 1) << at
}

fn swap_ids(ids: Ids, at: usize) -> Ids {
    ids & !(3 << at) | (ids >> at & 1) << (at + 1) | (ids >> (at + 1) & 1) << at
}

/// The state in words: every field has bits of its own.
pub fn words(state: &State) -> [u64; 14] {
    let mut out = Words { words: [0; 14], at: 0 };
    let store = &state.store;
    out.put(
        u64::from(store.packs)
            | u64::from(store.content) << 16
            | u64::from(store.copies) << 24
            | u64::from(store.notes) << 32,
    );
    let mut sessions = 0;
    for (session, copied) in store.sessions.iter().zip(&store.copied) {
        let one = u64::from(session.begun)
            | u64::from(session.unlisted) << 1
            | (session.end as u64) << 2
            | u64::from(session.commit.own) << 4
            | u64::from(session.commit.shares) << 5
            | u64::from(copied.own) << 6
            | u64::from(copied.shares) << 7
            | u64::from(session.named) << 8
            | u64::from(session.beats) << 16
            | u64::from(session.pins) << 22;
        sessions = sessions << 32 | one;
    }
    out.put(sessions);
    for collection in &store.collections {
        let flags = u64::from(collection.published)
            | u64::from(collection.decided) << 1
            | u64::from(collection.done) << 2
            | u64::from(collection.unlisted) << 3;
        out.put(
            flags
                | u64::from(collection.ended) << 8
                | u64::from(collection.condemned) << 16
                | u64::from(collection.delete) << 32,
        );
    }
    for writer in &state.writers {
        let flags = u64::from(writer.beating) | u64::from(writer.parent) << 1 | u64::from(writer.shares) << 2;
        let numbers = u64::from(writer.session) | u64::from(writer.own) << 1 | u64::from(writer.beat) << 2;
        out.put(
            writer.at as u64
                | flags << 8
                | numbers << 16
                | u64::from(writer.named) << 32
                | u64::from(writer.stores) << 40,
        );
        out.put(u64::from(writer.usable) | u64::from(writer.refused) << 16 | u64::from(writer.relies) << 32);
    }
    for collector in &state.collectors {
        out.put(
            collector.to as u64
                | u64::from(collector.n) << 5
                | u64::from(collector.page) << 9
                | u64::from(collector.blocks) << 13
                | u64::from(collector.repacks) << 15
                | u64::from(collector.ended) << 17
                | u64::from(collector.open & 3) << 19
                | u64::from(collector.pages) << 21
                | u64::from(collector.list) << 37,
        );
    }
    let finisher = &state.finisher;
    let commits = finisher
        .commits
        .iter()
        .fold(0, |all, one| all << 2 | u64::from(one.own) << 1 | u64::from(one.shares));
    out.put(
        u64::from(state.forgetting)
            | u64::from(state.counted) << 8
            | u64::from(state.forgotten) << 16
            | u64::from(state.others) << 24
            | u64::from(finisher.at) << 32
            | u64::from(finisher.ids) << 40
            | commits << 48,
    );
    out.words
}

struct Words {
    words: [u64; 14],
    at: usize,
}

impl Words {
    fn put(&mut self, word: u64) {
        self.words[self.at] = word;
        self.at += 1;
    }
}
