//! The collector, one operation of the store at a time: marks, condemns, waits or fences, marks again, decides, deletes, and tidies up.

use crate::explore::{Party, Step};
use crate::marking::{condemn, mark_sessions, mark_snapshots, rescue, start_mark};
use crate::setting::{Broken, Setting};
use crate::state::{Collection, Collector, Do, End, Ids, REPACKED, State, WRITERS};
use crate::tidying;

/// All steps that collector `index` can take. The first one is what a collector does that has no choice to make.
pub fn steps(setting: &Setting, state: &State, index: usize, emit: &mut dyn FnMut(Step, State)) {
    match state.collectors[index].to {
        Do::Rest => {}
        to if to >= Do::Finish => tidying::steps(setting, state, index, emit),
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
            if setting.plain_collectors {
                mark_sessions(setting, state, me);
            }
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
        _ => unreachable!("not here"),
    };
    emit(Step(Party::Collector(index), what), next);
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

pub fn after_decision(setting: &Setting, me: &Collector) -> Do {
    if me.list == 0 || setting.breaks(Broken::DoneBeforeDeletes) { Do::Done } else { Do::Delete }
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
