//! What a collector finds needed: it lists what counts, then packs, and decides what to condemn, and later what to rescue.

use crate::collector::after_decision;
use crate::explore::{Party, Step};
use crate::setting::{Broken, Listing, Setting};
use crate::state::{A, B, Blocks, Collector, DATA, Do, End, Packs, REPACKED, State, WRITERS, WRITTEN, bits};

/// Where a mark begins: the first, or the second.
pub fn start_mark(setting: &Setting, me: &mut Collector, again: bool) {
    me.page = 0;
    me.to = match (again, setting.breaks(Broken::SessionsBeforeSnapshots)) {
        (false, false) => Do::MarkSnapshots,
        (false, true) => Do::MarkSessions,
        (true, false) => Do::MarkSnapshotsAgain,
        (true, true) => Do::MarkSessionsAgain,
    };
}

/// The items that one step of a listing shows, and the page that comes next; 0 once it is complete.
fn page(listing: Listing, page: u8, items: u8) -> (std::ops::Range<u8>, u8) {
    match listing {
        Listing::Atomic => (0..items, 0),
        Listing::Forward => (page..page + 1, (page + 1) % items),
        Listing::Backward => (items - 1 - page..items - page, (page + 1) % items),
    }
}

pub fn mark_snapshots(setting: &Setting, state: &State, me: &mut Collector) {
    let (shown, next) = page(setting.listing, me.page, 1 + WRITERS as u8);
    me.page = next;
    for id in shown.map(usize::from) {
        if (state.store.copies & !state.store.notes) >> id & 1 != 0 {
            let commit = if id == 0 { Default::default() } else { state.store.copied[id - 1] };
            mark(me, setting.needs(id, commit));
        }
    }
    if next == 0 {
        me.to = match (me.to, setting.breaks(Broken::SessionsBeforeSnapshots)) {
            (Do::MarkSnapshots, false) => Do::MarkSessions,
            (Do::MarkSnapshots, true) => Do::MarkPacks,
            (_, false) => Do::MarkSessionsAgain,
            (_, true) => Do::MarkPacksAgain,
        };
    }
}

pub fn mark_sessions(setting: &Setting, state: &State, me: &mut Collector) {
    let (shown, next) = page(setting.listing, me.page, WRITERS as u8);
    me.page = next;
    for index in shown.map(usize::from) {
        let session = &state.store.sessions[index];
        if session.unlisted {
            continue;
        }
        if session.end != End::Open {
            me.ended |= 1 << index;
        } else if session.begun {
            if setting.breaks(Broken::WaitsForEarlierList) {
                me.open |= 1 << index;
            }
            if session.pins {
                mark(me, setting.needs(0, Default::default()));
            }
        }
        if let Some(commit) =
            setting.committed(&state.store, index).filter(|_| state.store.notes >> (index + 1) & 1 == 0)
        {
            mark(me, setting.needs(index + 1, commit));
        }
    }
    if next == 0 {
        me.to = match (me.to, setting.breaks(Broken::SessionsBeforeSnapshots)) {
            (Do::MarkSessions, false) => Do::MarkPacks,
            (Do::MarkSessions, true) => Do::MarkSnapshots,
            (_, false) => Do::MarkPacksAgain,
            (_, true) => Do::MarkSnapshotsAgain,
        };
        if me.to >= Do::MarkSnapshotsAgain {
            me.ended = 0;
        }
    }
}

fn mark(me: &mut Collector, (pages, blocks): (Packs, Blocks)) {
    me.pages |= pages;
    me.blocks |= blocks;
}

/// The ways to keep the needed blocks: one present pack for each. The lowest comes first.
fn ways(state: &State, among: Packs, needed: Blocks) -> Vec<[Packs; 2]> {
    let holders = |block: Blocks| -> Vec<Packs> {
        let packs = if needed & block == 0 { 0 } else { state.store.holders(among, block) };
        if packs == 0 { vec![0] } else { bits(packs.into()).map(|pack| 1 << pack).collect() }
    };
    let of_b = holders(B);
    holders(A).into_iter().flat_map(|for_a| of_b.iter().map(move |&for_b| [for_a, for_b])).collect()
}

/// Lists packs and condemns all but those that hold a marked page and one of those that hold a marked block; or repacks, too.
pub fn condemn(setting: &Setting, state: &State, index: usize, emit: &mut dyn FnMut(Step, State)) {
    let party = Party::Collector(index);
    let present = state.store.packs;
    let mut next = *state;
    let me = &mut next.collectors[index];
    let ways = ways(state, present, me.blocks);
    let pages = me.pages;
    let condemned = |[for_a, for_b]: [Packs; 2]| present & !(pages | for_a | for_b);
    let mut lists: Vec<Packs> = ways.iter().map(|&way| condemned(way)).collect();
    let first = lists[0];
    lists.sort_unstable();
    lists.dedup();
    lists.retain(|&list| list != first);
    lists.insert(0, first);
    *me = Collector { to: Do::Publish, pages: 0, blocks: 0, ..*me };
    if setting.plain_collectors {
        lists.truncate(1);
    }
    for list in lists {
        next.collectors[index].list = list;
        emit(Step(party, "lists packs and chooses"), next);
    }
    let made = state.store.content >> (2 * (REPACKED + index - WRITTEN)) & 3 != 0;
    if !setting.repacks || made {
        return;
    }
    for [for_a, for_b] in ways {
        let data: Packs = 1 << DATA;
        let live = if for_a == data { A } else { 0 } | if for_b == data { B } else { 0 };
        if live == A || live == B {
            let me = &mut next.collectors[index];
            me.list = condemned([for_a, for_b]) | data;
            me.repacks = live;
            me.to = Do::Repack;
            emit(Step(party, "lists packs and chooses to repack"), next);
        }
    }
}

/// Lists packs again: of what is condemned, a pack with a marked page stays, and one that holds a marked block that no other pack holds.
pub fn rescue(setting: &Setting, state: &State, index: usize, emit: &mut dyn FnMut(Step, State)) {
    let me = &state.collectors[index];
    let present = state.store.packs;
    let safe = present & !me.list;
    let mut lost: Blocks = 0;
    for block in [A, B] {
        let elsewhere = if setting.breaks(Broken::RescueCountsCondemned) {
            let all = state.store.holders(present, block);
            all & all.wrapping_sub(1)
        } else {
            state.store.holders(safe, block)
        };
        if me.blocks & block != 0 && elsewhere == 0 {
            lost |= block;
        }
    }
    let mut seen = Vec::new();
    for [for_a, for_b] in ways(state, present & me.list, lost) {
        let list = me.list & present & !(me.pages | for_a | for_b);
        if seen.contains(&list) || setting.plain_collectors && !seen.is_empty() {
            continue;
        }
        seen.push(list);
        let mut next = *state;
        let me = &mut next.collectors[index];
        *me = Collector { to: Do::Decide, list, pages: 0, blocks: 0, ended: 0, ..*me };
        if setting.breaks(Broken::NoDecision) {
            me.to = after_decision(setting, me);
        }
        emit(Step(Party::Collector(index), "lists packs and rescues"), next);
    }
}
