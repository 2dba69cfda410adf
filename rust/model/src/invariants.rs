//! What must hold in every state, and what must come of it if everybody but one collector is gone from then on.

use crate::explore::fingerprint;
use crate::others::{alone, fence_all, renumber, run};
use crate::seen::Seen;
use crate::setting::{Broken, Setting};
use crate::state::{A, At, B, Blocks, Commit, End, NUMBERS, Packs, State, Store, WRITERS, bits};

/// The first invariant that the state breaks, if any.
///
/// `recovered` remembers from which destinations recovery was tried, as it depends on nothing else.
pub fn broken(setting: &Setting, state: &State, recovered: &Seen) -> Option<&'static str> {
    for (id, commit) in counting(setting, &state.store) {
        if !restorable(setting, &state.store, id, commit) {
            return Some("I1: a snapshot that counts needs a pack that is gone");
        }
    }
    if bits((state.counted & !state.forgotten & !state.forgetting).into())
        .any(|id| !kept(setting, &state.store, id))
    {
        return Some("I2: a snapshot is gone that nobody forgot");
    }
    let half_forgotten = state.forgetting & !state.forgotten;
    if bits(half_forgotten.into()).any(|id| !kept(setting, &state.store, id)) {
        return Some("I2: a snapshot is gone without a note");
    }
    if state.forgotten & state.store.copies & !state.store.notes != 0 {
        return Some("I3: a forgotten snapshot is back");
    }
    if state.writers.iter().any(|writer| lost_parent(setting, state, writer.session, writer)) {
        return Some("I6: a writer's parent is gone while it runs");
    }
    let alone = State { forgetting: state.forgetting, ..alone(state) };
    if recovered.add(fingerprint(&alone), 0) { recovers(setting, &alone) } else { None }
}

/// The snapshots that exist: those with a copy, and those that anybody may finish, without a note.
fn counting<'a>(setting: &'a Setting, store: &'a Store) -> impl Iterator<Item = (usize, Commit)> + 'a {
    let listed = store.copies & !store.notes;
    let copied =
        bits(listed.into()).map(|id| (id, if id == 0 { Commit::default() } else { store.copied[id - 1] }));
    let decided = (0..WRITERS)
        .filter(|index| (store.notes | store.copies) >> (index + 1) & 1 == 0)
        .filter_map(|index| Some((index + 1, setting.committed(store, index)?)));
    copied.chain(decided)
}

fn restorable(setting: &Setting, store: &Store, id: usize, commit: Commit) -> bool {
    let (pages, blocks) = setting.needs(id, commit);
    pages & !store.packs == 0
        && [A, B].iter().all(|&block| blocks & block == 0 || store.holders(store.packs, block) != 0)
}

fn kept(setting: &Setting, store: &Store, id: usize) -> bool {
    (store.copies | store.notes) >> id & 1 != 0 || id > 0 && setting.committed(store, id - 1).is_some()
}

/// A writer that has begun with a parent must be able to read it until its session ends.
fn lost_parent(setting: &Setting, state: &State, session: u8, writer: &crate::state::Writer) -> bool {
    let session = &state.store.sessions[usize::from(session)];
    let lists_first = setting.breaks(Broken::PacksBeforeCondemned) && writer.at == At::ListPacks;
    let runs = !lists_first && writer.at > At::ReadParentAgain && writer.at <= At::End && writer.parent;
    let its_own = session.begun && session.end == End::Open;
    runs && its_own && !restorable(setting, &state.store, 0, Commit::default())
}

/// I4 and I5: whatever has happened so far, if everybody stops for ever, one collector brings the destination to rest, and two collections
/// leave exactly the packs that are needed.
fn recovers(setting: &Setting, state: &State) -> Option<&'static str> {
    // There is always a next number.
    let lags = matches!(setting.broken, Some(Broken::SessionsListLags | Broken::CollectionsListLags));
    let broken = setting.broken.filter(|_| !lags);
    let setting = &Setting { collections: NUMBERS as u8, broken, ..*setting };
    let mut alone = alone(state);
    for collection in &mut alone.store.collections {
        collection.unlisted = false;
    }
    let newest = alone.store.newest();
    let finishing = newest > 0 && !alone.store.collection(newest).done;
    let collect = |alone: &mut State| {
        if alone.store.newest() > 0 && alone.store.collection(alone.store.newest()).done {
            renumber(&mut alone.store);
        }
        alone.collectors[0] = crate::others::alone(alone).collectors[0];
        run(setting, alone, true)
    };
    if finishing && !collect(&mut alone) {
        return Some("I4: the open collection cannot be finished");
    }
    fence_all(&mut alone.store);
    if !(collect(&mut alone) && collect(&mut alone)) {
        return Some("I4: no collection can be made");
    }
    let store = &alone.store;
    if bits((state.counted & !state.forgotten & !state.forgetting).into()).any(|id| !kept(setting, store, id))
    {
        return Some("I2: a snapshot is gone that nobody forgot, after recovery");
    }
    if let Some(what) = remains(setting, store) {
        return Some(what);
    }
    if !collect(&mut alone) {
        return Some("I4: no collection can be made");
    }
    let left = alone.store.sessions.iter().any(|session| session.begun || session.end != End::Open);
    let collections =
        alone.store.collections.iter().filter(|collection| **collection != Default::default()).count();
    if !setting.breaks(Broken::NewestRemoved)
        && (left || collections > 1 || alone.store.copies & alone.store.notes != 0)
    {
        return Some("I5: sessions, copies or old collections stay for ever");
    }
    None
}

/// After two collections: all that counts can be restored, and no pack could be left out.
fn remains(setting: &Setting, store: &Store) -> Option<&'static str> {
    let mut pages: Packs = 0;
    let mut blocks: Blocks = 0;
    for (id, commit) in counting(setting, store) {
        if !restorable(setting, store, id, commit) {
            return Some("I1: a snapshot that counts needs a pack that is gone, after recovery");
        }
        let needs = setting.needs(id, commit);
        pages |= needs.0;
        blocks |= needs.1;
    }
    // The commit of a clone, whose snapshot is another's, is kept as long as its end is there.
    for index in (0..WRITERS).filter(|index| store.notes >> (index + 1) & 1 == 0) {
        if let Some(commit) = setting.committed(store, index) {
            pages |= setting.needs(index + 1, commit).0;
            blocks |= setting.needs(index + 1, commit).1;
        }
    }
    let chosen = [A, B].iter().fold(0, |all, &block| {
        let holders = if blocks & block == 0 { 0 } else { store.holders(store.packs, block) };
        all | holders & holders.wrapping_neg()
    });
    (store.packs != pages | chosen).then_some("I5: a pack stays for ever that nothing needs")
}
