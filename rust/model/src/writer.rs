//! The writer: what an export does at one destination, one operation of the store at a time.
//!
//! A copier is a writer that brings a snapshot from another destination. Beats run beside the rest, as they do in an export. What a
//! writer knows of its parent before it begins may come from anywhere (its catalog), so it is no operation here.

use crate::explore::{Party, Step};
use crate::setting::{Broken, Setting};
use crate::state::{
    A, At, B, Blocks, Commit, DATA, End, PACKS, PAGES, Packs, Session, State, WRITTEN, Writer, bits,
};

/// All steps that writer `index` can take.
pub fn steps(setting: &Setting, state: &State, index: usize, emit: &mut dyn FnMut(Step, State)) {
    let writer = &state.writers[index];
    if matches!(writer.at, At::Absent | At::Ended) {
        return;
    }
    match writer.at {
        At::Choose if setting.copiers => choose_copy(setting, state, index, emit),
        At::Choose => choose(setting, state, index, emit),
        // Beats and the end are created one after the other.
        At::LastBeat | At::End if writer.beating => {}
        _ => proceed(setting, state, index, emit),
    }
    if writer.beating {
        beat(setting, state, index, emit);
    } else {
        look(setting, state, index, emit);
    }
    // From beat 0 on: a session's id is drawn, and used at once.
    if setting.cloned && index == 0 && writer.beat > 0 && state.writers[1].at == At::Absent {
        let mut next = *state;
        next.writers[1] = *writer;
        if writer.at <= At::Choose {
            next.writers[1].own = 1;
        }
        emit(Step(Party::Writer(0), "is cloned"), next);
    }
}

fn proceed(setting: &Setting, state: &State, index: usize, emit: &mut dyn FnMut(Step, State)) {
    let mut next = *state;
    let store = &mut next.store;
    let me = &mut next.writers[index];
    let id = usize::from(me.session) + 1;
    let session = &mut store.sessions[id - 1];
    let commit = Commit { own: if setting.cloned { me.own } else { 0 }, shares: me.shares };
    let what = match me.at {
        At::ReadParent => {
            me.parent = has_parent(state);
            me.at = At::ListCollections;
            "reads its parent's commit"
        }
        At::ListCollections => {
            let begins_with = setting.parent && !setting.copiers && !setting.breaks(Broken::ParentReadOnce);
            if begins_with && !me.parent {
                let mut with_parent = *state;
                with_parent.writers[index].parent = true;
                proceed(setting, &with_parent, index, emit);
            }
            me.named = state.store.newest();
            me.at = At::Begin;
            "lists collect/"
        }
        At::Begin if session.begun => {
            stop(me);
            "finds beat 0 taken"
        }
        At::Begin => {
            me.beat = 1;
            me.at = match setting.broken {
                Some(Broken::ParentReadOnce) => At::ListCollectionsAgain,
                Some(Broken::PacksBeforeCondemned) => At::ListPacks,
                _ => after_begin(me),
            };
            session.begun = true;
            session.pins = me.parent && !setting.breaks(Broken::NoPin);
            session.beats = 1;
            session.named = me.named;
            session.unlisted = setting.breaks(Broken::SessionsListLags);
            "creates beat 0"
        }
        At::ReadParentAgain => {
            me.parent = has_parent(state);
            me.at = At::ListCollectionsAgain;
            "reads its parent's commit, having pinned it"
        }
        At::ListCollectionsAgain => {
            if !setting.breaks(Broken::TakesCondemned) {
                refuse(setting, me, avoided(setting, state));
            }
            if state.store.newest() > me.named {
                me.named = state.store.newest();
                me.beating = true;
            }
            let listed =
                matches!(setting.broken, Some(Broken::PacksBeforeSession | Broken::PacksBeforeCondemned));
            me.at = if listed { At::Choose } else { At::ListPacks };
            me.refused = if listed { 0 } else { me.refused };
            "lists collect/ again and reads what is condemned"
        }
        At::ListPacks => {
            me.usable = state.store.packs & !me.refused & useful(setting, me);
            if !setting.copiers {
                me.refused = 0;
            }
            me.at = match setting.broken {
                Some(Broken::PacksBeforeSession) => At::ListCollections,
                Some(Broken::PacksBeforeCondemned) => after_begin(me),
                _ => At::Choose,
            };
            "lists packs"
        }
        At::Upload => {
            if setting.copiers {
                store.packs |= me.relies;
            } else {
                store.fill(WRITTEN + usize::from(me.own), me.stores);
            }
            me.stores = 0;
            me.at = if setting.breaks(Broken::CountsAcknowledgedUploads) {
                At::Acknowledge
            } else {
                committing(setting)
            };
            "creates its pack"
        }
        At::Acknowledge => {
            me.relies |= 1 << (WRITTEN + usize::from(me.own));
            me.at = committing(setting);
            "has the upload acknowledged"
        }
        At::LastBeat => {
            me.at = At::End;
            if !create_beat(session, me) {
                stop(me);
            }
            "creates its last beat"
        }
        At::End if session.end != End::Open => {
            stop(me);
            "finds end taken"
        }
        At::End => {
            session.end = End::Committed;
            session.named = 0;
            session.commit = commit;
            session.named = 0;
            if session.begun {
                next.counted |= 1 << id;
            }
            me.relies = 0;
            me.at = if setting.breaks(Broken::NoLookAtBeatZero) { At::Copy } else { At::LookAtBeatZero };
            "creates end, with its commit"
        }
        At::LookAtBeatZero => {
            me.at = At::Copy;
            if !session.begun {
                stop(me);
            }
            "looks for beat 0"
        }
        At::Copy => {
            let there = store.copies >> id & 1 != 0;
            if !there {
                store.copies |= 1 << id;
                store.copied[id - 1] = commit;
            }
            if !there || store.copied[id - 1] == commit {
                next.counted |= 1 << id;
            }
            stop(me);
            "creates snapshots/ and acknowledges"
        }
        At::Absent | At::Choose | At::Ended => unreachable!("not here"),
    };
    emit(Step(Party::Writer(index), what), next);
}

/// The next beat, which names a collection that was looked at.
fn beat(setting: &Setting, state: &State, index: usize, emit: &mut dyn FnMut(Step, State)) {
    let mut next = *state;
    let me = &mut next.writers[index];
    me.beating = false;
    if setting.breaks(Broken::AcceptsBeforeRefusing) && me.at <= At::Choose {
        refuse(setting, me, avoided(setting, state));
    }
    // Which beat it is matters only to a clone.
    let session = &mut next.store.sessions[usize::from(me.session)];
    let created = if setting.cloned {
        create_beat(session, me)
    } else {
        name(session, me);
        true
    };
    if !created {
        stop(me);
    }
    emit(Step(Party::Writer(index), "beats, naming the collection"), next);
}

/// Looks for a newer collection and accepts it, unless it condemns what this writer relies on.
fn look(setting: &Setting, state: &State, index: usize, emit: &mut dyn FnMut(Step, State)) {
    let writer = &state.writers[index];
    let newest = state.store.newest();
    let beats = writer.beat > 0
        && !matches!(writer.at, At::ReadParentAgain | At::ListCollectionsAgain)
        && writer.at <= At::End;
    let condemned = avoided(setting, state);
    if !beats
        || newest <= writer.named
        || condemned & writer.relies != 0 && !setting.breaks(Broken::AcceptsAlways)
    {
        return;
    }
    let mut next = *state;
    let me = &mut next.writers[index];
    me.named = newest;
    me.beating = true;
    let refuses = !matches!(setting.broken, Some(Broken::AcceptsBeforeRefusing | Broken::TakesCondemned));
    if me.at <= At::Choose && refuses {
        refuse(setting, me, condemned);
    }
    emit(Step(Party::Writer(index), "finds a newer collection and accepts it"), next);
}

/// Decides where each block comes from and whether pages are shared: every way there is.
fn choose(setting: &Setting, state: &State, index: usize, emit: &mut dyn FnMut(Step, State)) {
    let writer = &state.writers[index];
    let usable = writer.usable;
    let own: Packs = 1 << (WRITTEN + usize::from(writer.own));
    let ways = |block: Blocks| -> Vec<Packs> {
        let holders = state.store.holders(usable & !own, block);
        let mut ways: Vec<Packs> = bits(holders.into()).map(|pack| 1 << pack).collect();
        if ways.is_empty() || setting.stores_known {
            ways.push(0);
        }
        ways
    };
    let shares_too = writer.parent && usable >> PAGES & 1 != 0;
    for from_a in ways(A) {
        for from_b in ways(B) {
            for shares in [false, true] {
                if shares && !shares_too {
                    continue;
                }
                let mut next = *state;
                let me = &mut next.writers[index];
                me.relies = from_a | from_b | Packs::from(shares) << PAGES;
                if !setting.breaks(Broken::CountsAcknowledgedUploads) {
                    me.relies |= own;
                }
                me.stores = if from_a == 0 { A } else { 0 } | if from_b == 0 { B } else { 0 };
                me.shares = shares;
                me.usable = 0;
                me.at = At::Upload;
                emit(Step(Party::Writer(index), "decides which packs it builds on"), next);
            }
        }
    }
}

/// A copier takes the pack that is there, or copies it.
fn choose_copy(setting: &Setting, state: &State, index: usize, emit: &mut dyn FnMut(Step, State)) {
    let writer = &state.writers[index];
    let mut next = *state;
    let me = &mut next.writers[index];
    me.usable = 0;
    me.refused = 0;
    let what = if writer.usable != 0 {
        me.relies = writer.usable;
        me.at = committing(setting);
        "finds the pack it needs"
    } else if writer.refused >> DATA & 1 != 0 {
        stop(me);
        "puts nothing back that is being deleted, or was by the newest collection"
    } else {
        me.relies = 1 << DATA;
        me.at = At::Upload;
        "does not find the pack it needs"
    };
    emit(Step(Party::Writer(index), what), next);
}

/// The packs that a writer has a use for; others need not be remembered.
fn useful(setting: &Setting, me: &Writer) -> Packs {
    if setting.copiers {
        1 << DATA
    } else {
        ((1 << PACKS) - 1) & !(1 << (WRITTEN + usize::from(me.own)) | Packs::from(!me.parent) << PAGES)
    }
}

/// What is not to be taken: what the newest collection has condemned, until it is done. After that a copier puts nothing back that it deleted.
/// (So does every writer, which makes no difference: no other name comes back.)
fn avoided(setting: &Setting, state: &State) -> Packs {
    let newest = state.store.newest();
    let done = newest > 0 && state.store.collection(newest).done;
    if done && (!setting.copiers || setting.breaks(Broken::TakesDeleted)) {
        return 0;
    }
    state.store.avoided()
}

/// From now on nothing of what is condemned is taken. Before packs are listed it is remembered, after that it is taken out of them.
fn refuse(setting: &Setting, me: &mut Writer, condemned: Packs) {
    if setting.breaks(Broken::CopierTakesCondemned) && setting.copiers {
        return;
    }
    if me.at <= At::ListPacks || setting.copiers {
        me.refused |= condemned;
    }
    me.usable &= !condemned;
}

/// What comes after all packs are there. The last beat matters only to a clone, and is left out where there is none.
fn committing(setting: &Setting) -> At {
    match setting.broken {
        Some(Broken::CommitWithoutEnd | Broken::CopierWithoutSession) => At::Copy,
        Some(Broken::NoLastBeat) => At::End,
        _ if setting.cloned => At::LastBeat,
        _ => At::End,
    }
}

fn after_begin(me: &Writer) -> At {
    if me.parent { At::ReadParentAgain } else { At::ListCollectionsAgain }
}

/// Whether the parent's commit is there, and no note. Notes stay, so that reading the two one after the other, the note last, says the same.
fn has_parent(state: &State) -> bool {
    state.store.copies & 1 != 0 && state.store.notes & 1 == 0
}

/// False if the name is taken. A beat of a session whose beat 0 is gone counts for nothing.
fn create_beat(session: &mut Session, me: &mut Writer) -> bool {
    let number = me.beat;
    me.beat += 1;
    if session.begun {
        if number < session.beats {
            return false;
        }
        session.beats = number + 1;
        name(session, me);
    }
    true
}

/// What a session that has ended, or whose beat 0 is gone, has accepted is nobody's business.
fn name(session: &mut Session, me: &Writer) {
    if session.begun && session.end == End::Open {
        session.named = me.named;
    }
}

fn stop(me: &mut Writer) {
    *me = Writer { at: At::Ended, session: me.session, own: me.own, ..Writer::default() };
}
