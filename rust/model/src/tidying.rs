//! What comes after a collection is done: commits get their copies, sessions that ended long ago go, and older collections.

use crate::explore::{Party, Step};
use crate::setting::{Broken, Setting};
use crate::state::{Collection, Collector, Do, End, Ids, State, WRITERS, bits};

/// One step, or all in one where that is asked for.
pub fn steps(setting: &Setting, state: &State, index: usize, emit: &mut dyn FnMut(Step, State)) {
    let (mut next, what) = step(setting, state, index);
    if !setting.plain_collectors {
        return emit(Step(Party::Collector(index), what), next);
    }
    while next.collectors[index].to >= Do::Finish {
        next = step(setting, &next, index).0;
    }
    emit(Step(Party::Collector(index), "tidies up"), next);
}

fn step(setting: &Setting, state: &State, index: usize) -> (State, &'static str) {
    let mut next = *state;
    let store = &mut next.store;
    let me = &mut next.collectors[index];
    let what = match me.to {
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
        _ => unreachable!("not here"),
    };
    (next, what)
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
