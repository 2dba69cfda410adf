//! The collector, one operation of the store at a time: marks, condemns, waits or fences, marks again, decides, deletes, and tidies up.

use crate::explore::{Party, Step};
use crate::setting::{Broken, Listing, Setting};
use crate::state::{
    A, B, Blocks, Collection, Collector, DATA, Do, End, Ids, Packs, REPACKED, State, WRITERS, WRITTEN, bits,
};

/// All steps that collector `index` can take. The first one is what a collector does that has no choice to make.
pub fn steps(setting: &Setting, state: &State, index: usize, emit: &mut dyn FnMut(Step, State)) {
    match state.collectors[index].to {
        Do::Rest => {}
        Do::Finish if setting.plain_collectors => tidy(setting, state, index, emit),
        Do::MarkPacks => condemn(setting, state, index, emit),
        Do::MarkPacksAgain => rescue(setting, state, index, emit),
        Do::Wait => wait(setting, state, index, emit),
        _ => proceed(setting, state, index, emit),
    }
}

fn proceed(setting: &Setting, state: &State, index: usize, emit: &mut dyn FnMut(Step, State)) {
    let mut next = *state;
    let store = &mut next.store;
    let me = &mut next.collectors[index];
    let what = match me.to {
        Do::Look => {
            let newest = state.store.newest();
            if newest > 0 && !state.store.collection(newest).done {
                take_over(me, newest, state.store.collection(newest), setting);
                "takes over the newest collection"
            } else if newest < setting.collections {
                *me = Collector { n: newest + 1, ..Collector::default() };
                start_mark(setting, me, false);
                "lists collect/"
            } else {
                *me = Collector::default();
                "rests"
            }
        }
        Do::MarkSnapshots | Do::MarkSnapshotsAgain => {
            mark_snapshots(setting, state, me);
            "lists snapshots/ and forgotten/"
        }
        Do::MarkSessions | Do::MarkSessionsAgain => {
            mark_sessions(setting, state, me);
            "lists sessions/"
        }
        Do::Repack => {
            store.fill(REPACKED + index, me.repacks);
            me.repacks = 0;
            me.to = Do::Publish;
            "creates a pack of what lives in the one it condemns"
        }
        Do::Publish
            if state.store.collection(me.n).published && !setting.breaks(Broken::PublishNotExclusive) =>
        {
            *me = Collector { to: Do::Look, ..Collector::default() };
            "finds its number taken"
        }
        Do::Publish => {
            let collection = store.collection_mut(me.n);
            if !collection.published {
                collection.published = true;
                collection.condemned = me.list;
                collection.ended = me.ended;
                collection.unlisted = setting.breaks(Broken::CollectionsListLags);
            }
            me.ended = 0;
            me.to = if matches!(setting.broken, Some(Broken::NoLookAfterPublish | Broken::NoLook)) {
                Do::Wait
            } else {
                Do::LookAgain
            };
            "publishes what it condemns"
        }
        Do::LookAgain | Do::LookOnceMore => {
            // A store that lags shows at least what one has created oneself.
            if state.store.newest().max(if setting.breaks(Broken::CollectionsListLags) { me.n } else { 0 })
                == me.n
            {
                me.to = match me.to {
                    Do::LookAgain => Do::Wait,
                    _ => after_decision(setting, me),
                };
                "lists collect/: its number is the newest"
            } else {
                *me = Collector { to: Do::Look, ..Collector::default() };
                "lists collect/: its number is not the newest"
            }
        }
        Do::Decide => {
            let collection = store.collection_mut(me.n);
            if collection.decided {
                me.list = collection.delete;
            } else {
                collection.decided = true;
                collection.delete = me.list;
            }
            me.to = if matches!(setting.broken, Some(Broken::NoLookAfterDecision | Broken::NoLook)) {
                after_decision(setting, me)
            } else {
                Do::LookOnceMore
            };
            "decides what is deleted"
        }
        Do::Delete => {
            // Lowest first: the order of deletions is nobody's business, as what is on the list is needed by nobody.
            let pack = me.list & me.list.wrapping_neg();
            // Where names come back it may be late, but not so late that there is another collection by now.
            let late = !setting.copiers || setting.breaks(Broken::DeletesAtAnyTime);
            if late || state.store.newest() == me.n {
                store.packs &= !pack;
            }
            me.list &= !pack;
            if me.list == 0 {
                me.to = if setting.breaks(Broken::DoneBeforeDeletes) { Do::Finish } else { Do::Done };
            }
            "deletes a pack"
        }
        Do::Done => {
            let collection = store.collection_mut(me.n);
            collection.done = collection.published;
            collection.condemned = 0; // Of a collection that is done nobody reads it.
            let late = setting.breaks(Broken::DoneBeforeDeletes) && me.list != 0;
            me.to = if late { Do::Delete } else { Do::Finish };
            "creates done"
        }
        Do::Finish => finish(setting, &mut next, index),
        Do::RemoveBeats | Do::RemoveEnds => remove_sessions(setting, &mut next, index),
        Do::RemoveCopies => {
            let noted = store.copies & store.notes;
            if noted != 0 {
                store.copies &= !(noted & noted.wrapping_neg());
                "deletes a copy that has a note"
            } else {
                me.to = if setting.breaks(Broken::NotesRemoved) {
                    Do::RemoveNotes
                } else {
                    Do::RemoveCollections
                };
                "lists snapshots/ and forgotten/"
            }
        }
        Do::RemoveNotes => {
            for id in bits(store.notes.into()) {
                let left =
                    id > 0 && (store.sessions[id - 1].begun || store.sessions[id - 1].end != End::Open);
                if store.copies >> id & 1 == 0 && !left {
                    store.notes &= !(1 << id);
                }
            }
            me.to = Do::RemoveCollections;
            "deletes notes of which nothing else is left"
        }
        Do::RemoveCollections => {
            // One step: whatever lies below the newest number means nothing to anybody.
            let last = if setting.breaks(Broken::NewestRemoved) { me.n } else { me.n - 1 };
            for n in 1..=last {
                *store.collection_mut(n) = Collection::default();
            }
            *me = Collector { to: Do::Look, ..Collector::default() };
            "deletes older collections"
        }
        Do::Rest | Do::MarkPacks | Do::MarkPacksAgain | Do::Wait => unreachable!("not here"),
    };
    emit(Step(Party::Collector(index), what), next);
}

/// All that comes after `done`, in one step.
fn tidy(setting: &Setting, state: &State, index: usize, emit: &mut dyn FnMut(Step, State)) {
    let mut tidied = *state;
    while tidied.collectors[index].to >= Do::Finish {
        let before = tidied;
        proceed(setting, &before, index, &mut |_, next| tidied = next);
    }
    emit(Step(Party::Collector(index), "tidies up"), tidied);
}

fn take_over(me: &mut Collector, n: u8, collection: &Collection, setting: &Setting) {
    *me = Collector { to: Do::Wait, n, list: collection.condemned, ..Collector::default() };
    if setting.breaks(Broken::WaitsForEarlierList) {
        me.open = Ids::MAX;
    }
    if collection.decided {
        me.list = collection.delete;
        me.to = after_decision(setting, me);
    }
}

fn after_decision(setting: &Setting, me: &Collector) -> Do {
    if me.list == 0 || setting.breaks(Broken::DoneBeforeDeletes) { Do::Done } else { Do::Delete }
}

fn start_mark(setting: &Setting, me: &mut Collector, again: bool) {
    me.page = 0;
    me.to = match (again, setting.breaks(Broken::SessionsBeforeSnapshots)) {
        (false, false) => Do::MarkSnapshots,
        (false, true) => Do::MarkSessions,
        (true, false) => Do::MarkSnapshotsAgain,
        (true, true) => Do::MarkSessionsAgain,
    };
}

/// The items that one step of a listing shows, and the page that comes next; 0 once it is complete.
pub fn page(listing: Listing, page: u8, items: u8) -> (std::ops::Range<u8>, u8) {
    match listing {
        Listing::Atomic => (0..items, 0),
        Listing::Forward => (page..page + 1, (page + 1) % items),
        Listing::Backward => (items - 1 - page..items - page, (page + 1) % items),
    }
}

fn mark_snapshots(setting: &Setting, state: &State, me: &mut Collector) {
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

fn mark_sessions(setting: &Setting, state: &State, me: &mut Collector) {
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
fn condemn(setting: &Setting, state: &State, index: usize, emit: &mut dyn FnMut(Step, State)) {
    let party = Party::Collector(index);
    let present = state.store.packs;
    let mut next = *state;
    let me = &mut next.collectors[index];
    let ways = ways(state, present, me.blocks);
    let condemned = |[for_a, for_b]: [Packs; 2]| present & !(me.pages | for_a | for_b);
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
            me.list = condemned_with(present, state.collectors[index].pages, for_a, for_b) | data;
            me.repacks = live;
            me.to = Do::Repack;
            emit(Step(party, "lists packs and chooses to repack"), next);
        }
    }
}

fn condemned_with(present: Packs, pages: Packs, for_a: Packs, for_b: Packs) -> Packs {
    present & !(pages | for_a | for_b)
}

/// Lists packs again: of what is condemned, a pack with a marked page stays, and one that holds a marked block that no other pack holds.
fn rescue(setting: &Setting, state: &State, index: usize, emit: &mut dyn FnMut(Step, State)) {
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

/// Goes on once every session that is open has accepted the collection. Any that is open may be fenced: the lease is a matter of clocks.
fn wait(setting: &Setting, state: &State, index: usize, emit: &mut dyn FnMut(Step, State)) {
    let party = Party::Collector(index);
    let n = state.collectors[index].n;
    let open = |session: usize| {
        let one = &state.store.sessions[session];
        let seen =
            !setting.breaks(Broken::WaitsForEarlierList) || state.collectors[index].open >> session & 1 != 0;
        one.begun && one.end == End::Open && !one.unlisted && seen
    };
    let free = |session: usize| !open(session) || state.store.sessions[session].named >= n;
    if setting.breaks(Broken::NoWait) || (0..WRITERS).all(free) {
        let mut next = *state;
        let me = &mut next.collectors[index];
        me.open = 0;
        if setting.breaks(Broken::NoSecondMark) {
            me.to = Do::Decide;
        } else {
            start_mark(setting, me, true);
        }
        emit(Step(party, "lists sessions/: all have ended or accepted"), next);
    }
    for session in (0..WRITERS).filter(|&session| open(session)) {
        let mut next = *state;
        next.store.sessions[session].end = End::Fenced;
        next.store.sessions[session].named = 0;
        emit(Step(party, "fences a session"), next);
    }
}

/// Creates the copies that are missing of those commits whose sessions are about to go.
fn finish(setting: &Setting, next: &mut State, index: usize) -> &'static str {
    let me = &mut next.collectors[index];
    let store = &mut next.store;
    let ended: Ids = if setting.breaks(Broken::SessionsRemovedAtOnce) {
        (0..WRITERS)
            .filter(|&session| store.sessions[session].end != End::Open)
            .fold(0, |all, session| all | 1 << session)
    } else if me.n > 1 {
        store.collection(me.n - 1).ended
    } else {
        0
    };
    let unfinished = bits(ended.into()).find_map(|session| {
        let commit = setting.committed(store, session)?;
        let there = (store.copies | store.notes) >> (session + 1) & 1 != 0;
        (!there).then_some((session, commit))
    });
    match unfinished {
        Some((session, commit)) if !setting.breaks(Broken::SessionsRemovedWithoutCopy) => {
            store.copies |= 1 << (session + 1);
            store.copied[session] = commit;
            next.counted |= 1 << (session + 1);
            "creates a copy that is missing"
        }
        _ => {
            me.ended = ended;
            me.to = match (ended, setting.breaks(Broken::EndRemovedFirst)) {
                (0, _) => Do::RemoveCopies,
                (_, false) => Do::RemoveBeats,
                (_, true) => Do::RemoveEnds,
            };
            "lists sessions/, snapshots/ and forgotten/"
        }
    }
}

/// Removes one beat 0 or one end.
fn remove_sessions(setting: &Setting, next: &mut State, index: usize) -> &'static str {
    let me = &mut next.collectors[index];
    let beats = me.to == Do::RemoveBeats;
    let left = bits(me.ended.into()).find(|&index| {
        let session = &next.store.sessions[index];
        if beats { session.begun } else { session.end != End::Open }
    });
    if let Some(left) = left {
        let session = &mut next.store.sessions[left];
        if beats {
            session.begun = false;
            session.pins = false;
            session.beats = 0;
            session.named = 0;
            return "deletes the beats of a session, beat 0 first";
        }
        session.end = End::Open;
        session.commit = Default::default();
        return "deletes the end of a session";
    }
    let order = if setting.breaks(Broken::EndRemovedFirst) {
        [Do::RemoveEnds, Do::RemoveBeats]
    } else {
        [Do::RemoveBeats, Do::RemoveEnds]
    };
    if me.to == order[0] {
        me.to = order[1];
    } else {
        me.to = Do::RemoveCopies;
        me.ended = 0;
    }
    "has deleted them"
}
