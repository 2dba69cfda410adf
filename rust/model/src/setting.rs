//! What is explored: how many parties there are, what they may do, and which rule is broken.

use crate::state::{A, At, B, Blocks, Commit, DATA, Do, Ids, ORPHAN, PAGES, Packs, State, Store, WRITTEN};

/// A rule that is left out or turned round. The doc comment says what happens instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// The writer does not read its parent's commit again once it has pinned it.
    ParentReadOnce,
    /// Beat 0 pins nothing.
    NoPin,
    /// The writer does not read what open collections condemn.
    TakesCondemned,
    /// A copy to a destination that is behind takes a condemned pack as present.
    CopierTakesCondemned,
    /// The writer names a collection although it relies on something that it condemns.
    AcceptsAlways,
    /// What the writer accepts is taken out of its index only once the beat is there.
    AcceptsBeforeRefusing,
    /// Packs count as relied on once their upload is acknowledged, not once it has begun.
    CountsAcknowledgedUploads,
    /// The writer lists packs before it opens its session.
    PacksBeforeSession,
    /// The writer lists packs before it reads what is condemned.
    PacksBeforeCondemned,
    /// No beat directly before `end`.
    NoLastBeat,
    /// The writer does not look at beat 0 once it has created `end`.
    NoLookAtBeatZero,
    /// The writer commits without a session's `end`.
    CommitWithoutEnd,
    /// An `end` counts without beat 0.
    EndAloneCounts,
    /// `end` is removed before beat 0.
    EndRemovedFirst,
    /// Each mark lists sessions, then snapshots.
    SessionsBeforeSnapshots,
    /// `condemned` is published though the number is taken.
    PublishNotExclusive,
    /// Having published, the collector does not look whether its number is the newest.
    NoLookAfterPublish,
    /// The collector waits for nobody.
    NoWait,
    /// The collector waits only for sessions that it saw before it published.
    WaitsForEarlierList,
    /// No second mark: what is condemned is deleted.
    NoSecondMark,
    /// In the second mark a condemned pack counts as another place of a block.
    RescueCountsCondemned,
    /// Each collector deletes what its own second mark says.
    NoDecision,
    /// Having decided, the collector does not look whether its number is the newest.
    NoLookAfterDecision,
    /// It never looks whether its number is the newest.
    NoLook,
    /// `done` is created before packs are deleted.
    DoneBeforeDeletes,
    /// Sessions go as soon as they have ended.
    SessionsRemovedAtOnce,
    /// Sessions go although the commit has no copy.
    SessionsRemovedWithoutCopy,
    /// Notes go once neither copy nor session is left.
    NotesRemoved,
    /// The newest collection goes too.
    NewestRemoved,
    /// The copy is deleted, then the note is created.
    ForgetDeletesFirst,
    /// The finisher does not look for a note at all.
    FinisherIgnoresNotes,
    /// The writer takes and puts back what the newest collection has deleted.
    TakesDeleted,
    /// A delete may come so late that there is a newer collection, and hit a copy.
    DeletesAtAnyTime,
    /// A copier commits a snapshot without a session for it.
    CopierWithoutSession,
    /// The store lists a session some time after it was created.
    SessionsListLags,
    /// The store lists a collection some time after it was published.
    CollectionsListLags,
}

impl Broken {
    pub const ALL: [Self; 36] = [
        Self::ParentReadOnce,
        Self::NoPin,
        Self::TakesCondemned,
        Self::CopierTakesCondemned,
        Self::AcceptsAlways,
        Self::AcceptsBeforeRefusing,
        Self::CountsAcknowledgedUploads,
        Self::PacksBeforeSession,
        Self::PacksBeforeCondemned,
        Self::NoLastBeat,
        Self::NoLookAtBeatZero,
        Self::CommitWithoutEnd,
        Self::EndAloneCounts,
        Self::EndRemovedFirst,
        Self::SessionsBeforeSnapshots,
        Self::PublishNotExclusive,
        Self::NoLookAfterPublish,
        Self::NoWait,
        Self::WaitsForEarlierList,
        Self::NoSecondMark,
        Self::RescueCountsCondemned,
        Self::NoDecision,
        Self::NoLookAfterDecision,
        Self::NoLook,
        Self::DoneBeforeDeletes,
        Self::SessionsRemovedAtOnce,
        Self::SessionsRemovedWithoutCopy,
        Self::NotesRemoved,
        Self::NewestRemoved,
        Self::ForgetDeletesFirst,
        Self::FinisherIgnoresNotes,
        Self::TakesDeleted,
        Self::DeletesAtAnyTime,
        Self::CopierWithoutSession,
        Self::SessionsListLags,
        Self::CollectionsListLags,
    ];
}

/// How a listing of several objects comes about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Listing {
    /// All at one time.
    #[default]
    Atomic,
    /// One by one, by name.
    Forward,
    /// One by one, in the opposite order: a directory promises none.
    Backward,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Setting {
    pub name: &'static str,
    pub writers: u8,
    /// The second writer is a copy of the first, made at some time while it runs.
    pub cloned: bool,
    /// Writers bring a snapshot from another destination instead of making one.
    pub copiers: bool,
    pub collectors: u8,
    /// The highest number that a collection gets.
    pub collections: u8,
    /// How many of them may be made by others, each in one step.
    pub others: u8,
    /// Collectors may repack.
    pub repacks: bool,
    /// There is a pack that belongs to an interrupted export.
    pub orphan: bool,
    /// Snapshot 0 exists.
    pub parent: bool,
    /// Which snapshots may be forgotten.
    pub forgets: Ids,
    pub finisher: bool,
    pub listing: Listing,
    /// Writers also store again what they know.
    pub stores_known: bool,
    pub broken: Option<Broken>,
    /// Coarser steps, each of which smaller settings take apart: collectors make the first choice there is, list snapshots and sessions at
    /// once, and tidy up at once; forgetting is one step.
    pub plain_collectors: bool,
    /// Parties of a kind are not told apart.
    pub symmetric: bool,
}

impl Setting {
    pub fn breaks(&self, broken: Broken) -> bool {
        self.broken == Some(broken)
    }

    pub fn with(self, broken: Broken) -> Self {
        Self { broken: Some(broken), ..self }
    }

    pub fn first_state(&self) -> State {
        let mut state = State { others: self.others, ..State::default() };
        if self.parent {
            state.store.copies = 1;
            state.counted = 1;
            state.store.packs = 1 << PAGES | 1 << DATA;
        }
        if self.orphan {
            state.store.packs |= 1 << ORPHAN;
        }
        let running = if self.cloned { 1 } else { self.writers };
        for index in 0..running {
            let writer = &mut state.writers[usize::from(index)];
            writer.session = index;
            writer.own = index;
            writer.at = match self.broken {
                Some(Broken::ParentReadOnce) => At::ReadParent,
                Some(Broken::PacksBeforeSession | Broken::CopierWithoutSession) => At::ListPacks,
                _ => At::ListCollections,
            };
        }
        for index in 0..self.collectors {
            state.collectors[usize::from(index)].to = Do::Look;
        }
        state
    }

    /// What snapshot `id` needs: packs with its pages, and blocks.
    pub fn needs(&self, id: usize, commit: Commit) -> (Packs, Blocks) {
        if id == 0 {
            (1 << PAGES, A)
        } else if self.copiers {
            (0, A)
        } else {
            let own = if self.cloned { usize::from(commit.own) } else { id - 1 };
            (1 << (WRITTEN + own) | Packs::from(commit.shares) << PAGES, A | B)
        }
    }

    /// The commit that session `index` ended with, if it counts.
    pub fn committed(&self, store: &Store, index: usize) -> Option<Commit> {
        let session = &store.sessions[index];
        let counts = session.begun || self.breaks(Broken::EndAloneCounts);
        (session.end == crate::state::End::Committed && counts).then_some(session.commit)
    }
}
