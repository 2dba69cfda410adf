//! Everybody else: who forgets, who finishes commits, who collects unseen, and the store itself where its listings lag.

use crate::collector;
use crate::explore::{Party, Step};
use crate::setting::{Broken, Setting};
use crate::state::{Collection, Collector, Do, End, Ids, NUMBERS, State, Store, WRITERS, bits};

pub fn steps(setting: &Setting, state: &State, emit: &mut dyn FnMut(Step, State)) {
    forget(setting, state, emit);
    if setting.finisher {
        finish(setting, state, emit);
    }
    if state.others > 0 {
        collect(setting, state, emit);
    }
    settle(state, emit);
}

/// Forgetting: the note, then the copy. Whoever forgets may stop in between for ever.
fn forget(setting: &Setting, state: &State, emit: &mut dyn FnMut(Step, State)) {
    let copy_first = setting.breaks(Broken::ForgetDeletesFirst);
    let listed = state.store.copies & !state.store.notes;
    for id in bits((setting.forgets & listed & !state.forgetting & !state.forgotten).into()) {
        let mut next = *state;
        next.forgetting |= 1 << id;
        if copy_first {
            next.store.copies &= !(1 << id);
            emit(Step(Party::Forget(id), "deletes the copy"), next);
        } else {
            next.store.notes |= 1 << id;
            next.forgotten |= 1 << id;
            if setting.plain_collectors {
                next.store.copies &= !(1 << id);
                next.forgetting &= !(1 << id);
            }
            emit(Step(Party::Forget(id), "creates the note"), next);
        }
    }
    for id in bits(state.forgetting.into()) {
        let mut next = *state;
        next.forgetting &= !(1 << id);
        if copy_first {
            next.store.notes |= 1 << id;
            next.forgotten |= 1 << id;
            emit(Step(Party::Forget(id), "creates the note"), next);
        } else {
            next.store.copies &= !(1 << id);
            emit(Step(Party::Forget(id), "deletes the copy"), next);
        }
    }
}

/// Lists sessions, then snapshots and notes, and creates the copies that are missing. That a beat 0 is there is looked up after the end was
/// read; as one step here, because a beat 0 that is there then was there when the end was created.
fn finish(setting: &Setting, state: &State, emit: &mut dyn FnMut(Step, State)) {
    let mut next = *state;
    let me = &mut next.finisher;
    match me.at {
        0 => {
            for index in 0..WRITERS {
                if let Some(commit) = setting.committed(&state.store, index) {
                    me.ids |= 1 << (index + 1);
                    me.commits[index] = commit;
                }
            }
            if me.ids != 0 {
                me.at = 1;
                emit(Step(Party::Finisher, "lists sessions/"), next);
            }
        }
        1 => {
            let noted = if setting.breaks(Broken::FinisherIgnoresNotes) { 0 } else { state.store.notes };
            me.ids &= !(state.store.copies | noted);
            me.at = 2;
            emit(Step(Party::Finisher, "lists snapshots/ and forgotten/"), next);
        }
        _ => {
            let Some(id) = bits(me.ids.into()).next() else { return };
            me.ids &= !(1 << id);
            if state.store.copies >> id & 1 == 0 {
                next.store.copies |= 1 << id;
                next.store.copied[id - 1] = me.commits[id - 1];
                next.counted |= 1 << id;
            }
            next.finisher.commits[id - 1] = Default::default();
            emit(Step(Party::Finisher, "creates a copy that was missing"), next);
        }
    }
}

/// One whole collection by somebody whom nobody disturbs, who fences all that have not accepted it, or waits until they have.
fn collect(setting: &Setting, state: &State, emit: &mut dyn FnMut(Step, State)) {
    let newest = state.store.newest();
    if newest == setting.collections && state.store.collection(newest).done {
        return;
    }
    let mut alone = alone(state);
    if run(setting, &mut alone, false) {
        emit(Step(Party::Other, "makes a whole collection, waiting for nobody"), merged(state, &alone));
    } else {
        let mut alone = self::alone(state);
        run(setting, &mut alone, true);
        emit(
            Step(Party::Other, "makes a whole collection, fencing those that have not accepted it"),
            merged(state, &alone),
        );
    }
}

fn merged(state: &State, alone: &State) -> State {
    State { store: alone.store, counted: alone.counted, others: state.others - 1, ..*state }
}

/// The same objects, and nobody but one collector.
pub fn alone(state: &State) -> State {
    let mut alone =
        State { store: state.store, counted: state.counted, forgotten: state.forgotten, ..State::default() };
    alone.collectors[0] = Collector { to: Do::Look, ..Collector::default() };
    alone
}

/// Runs the only collector through one collection, the open one if there is one. False if it would have to wait for a session and may
/// not fence.
pub fn run(setting: &Setting, alone: &mut State, fences: bool) -> bool {
    loop {
        let waits = alone.collectors[0].to == Do::Wait;
        let mut first = None;
        collector::steps(setting, alone, 0, &mut |step, next| {
            let fencing = waits && next.collectors[0].to == Do::Wait;
            if first.is_none() && (!fencing || fences) {
                first = Some((step, next));
            }
        });
        let Some((_, next)) = first else { return false };
        let began = alone.collectors[0].to;
        *alone = next;
        if began == Do::RemoveCollections || alone.collectors[0].to == Do::Rest {
            return true;
        }
    }
}

/// Numbers count from one again, so that there is always a next one. Nobody is left who remembers another.
pub fn renumber(store: &mut Store) {
    let newest = store.newest();
    if newest > 1 {
        let kept = *store.collection(newest);
        store.collections = [Collection::default(); NUMBERS];
        store.collections[0] = kept;
    }
}

/// What was created is listed at last, where the store lags.
fn settle(state: &State, emit: &mut dyn FnMut(Step, State)) {
    for index in 0..WRITERS {
        if state.store.sessions[index].unlisted {
            let mut next = *state;
            next.store.sessions[index].unlisted = false;
            emit(Step(Party::Store, "lists a session"), next);
        }
    }
    for n in 0..NUMBERS {
        if state.store.collections[n].unlisted {
            let mut next = *state;
            next.store.collections[n].unlisted = false;
            emit(Step(Party::Store, "lists a collection"), next);
        }
    }
}

/// Sessions that are open are fenced: whoever runs them is gone for good.
pub fn fence_all(store: &mut Store) -> Ids {
    let mut fenced = 0;
    for index in 0..WRITERS {
        let session = &mut store.sessions[index];
        session.unlisted = false;
        if session.begun && session.end == End::Open {
            session.end = End::Fenced;
            session.named = 0;
            fenced |= 1 << index;
        }
    }
    fenced
}
