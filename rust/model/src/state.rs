//! The state of the model: what lies on one destination, and where each party is.
//!
//! The world is small, and each thing in it stands for a kind. Packs: `PAGES` holds the pages of snapshot 0, `DATA` the blocks `A` and
//! `B` (snapshot 0 needs `A` alone, so `DATA` is worth repacking), `ORPHAN` holds `B` and belongs to an interrupted export. A writer makes
//! one pack, with its pages and the blocks that it did not find; a collector makes one when it repacks. A writer that brings a
//! snapshot from another destination copies `DATA`, under its name: the only name that can come back. A snapshot of a writer has the id of its session.

/// A set of pack names, one bit each.
pub type Packs = u16;
/// A set of blocks, one bit each.
pub type Blocks = u8;
/// A set of snapshots or sessions, one bit each; bit 0 is snapshot 0, which was there from the beginning.
pub type Ids = u8;

pub const PAGES: usize = 0;
pub const DATA: usize = 1;
pub const ORPHAN: usize = 2;
/// The packs of the writers.
pub const WRITTEN: usize = 3;
/// The packs of the collectors.
pub const REPACKED: usize = 5;
pub const PACKS: usize = 7;

pub const A: Blocks = 1;
pub const B: Blocks = 2;

/// Collections are numbered from 1 to this.
pub const NUMBERS: usize = 4;

pub const WRITERS: usize = 2;
pub const COLLECTORS: usize = 2;

/// How a session ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum End {
    #[default]
    Open,
    Committed,
    Fenced,
}

/// What a commit holds, as far as it is not the same for every snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Commit {
    /// Which writer's pack its pages lie in, where one is a clone; else they lie in that of the snapshot's writer.
    pub own: u8,
    /// It shares pages with snapshot 0.
    pub shares: bool,
}

/// `sessions/<id>/…`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Session {
    /// Beat 0 is there.
    pub begun: bool,
    /// It pins snapshot 0.
    pub pins: bool,
    /// The beats that are there.
    pub beats: u8,
    /// The newest collection that a beat names.
    pub named: u8,
    pub end: End,
    pub commit: Commit,
    /// Only where listings lag: beat 0 is not listed yet.
    pub unlisted: bool,
}

/// `collect/<n>/…`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Collection {
    pub published: bool,
    pub decided: bool,
    pub done: bool,
    pub condemned: Packs,
    pub delete: Packs,
    /// The sessions that had ended when it was published.
    pub ended: Ids,
    /// Only where listings lag: it is not listed yet.
    pub unlisted: bool,
}

/// The objects on the destination.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Store {
    pub packs: Packs,
    /// Blocks in the packs that writers and collectors made, two bits each, from `WRITTEN` on.
    pub content: u8,
    /// Sessions 1 and 2.
    pub sessions: [Session; WRITERS],
    /// `snapshots/<id>`, and what those of the writers hold.
    pub copies: Ids,
    pub copied: [Commit; WRITERS],
    /// `forgotten/<id>`
    pub notes: Ids,
    pub collections: [Collection; NUMBERS],
}

/// Where a writer is; each is the next thing it does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum At {
    #[default]
    Absent,
    ReadParent,
    ListCollections,
    Begin,
    ReadParentAgain,
    ListCollectionsAgain,
    ListPacks,
    Choose,
    Upload,
    Acknowledge,
    LastBeat,
    End,
    LookAtBeatZero,
    Copy,
    /// It has committed, failed or stopped.
    Ended,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Writer {
    pub at: At,
    /// Which session it runs: an index into `Store::sessions`. Only a clone runs another one's.
    pub session: u8,
    /// Which pack it writes.
    pub own: u8,
    /// The number of its next beat.
    pub beat: u8,
    /// The newest collection it has named, or will name in the beat it is about to create.
    pub named: u8,
    /// It has looked at a newer collection, accepts it, and is about to beat.
    pub beating: bool,
    /// It has a parent, as far as it knows.
    pub parent: bool,
    pub shares: bool,
    /// Packs it has listed and may take, until it has chosen.
    pub usable: Packs,
    /// Condemned packs that it will not take, until it lists packs.
    pub refused: Packs,
    pub relies: Packs,
    /// Blocks that it stores itself.
    pub stores: Blocks,
}

/// Where a collector is; each is the next thing it does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Do {
    #[default]
    Rest,
    Look,
    MarkSnapshots,
    MarkSessions,
    MarkPacks,
    Repack,
    Publish,
    LookAgain,
    Wait,
    MarkSnapshotsAgain,
    MarkSessionsAgain,
    MarkPacksAgain,
    Decide,
    LookOnceMore,
    Delete,
    Done,
    Finish,
    RemoveBeats,
    RemoveEnds,
    RemoveCopies,
    RemoveNotes,
    RemoveCollections,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Collector {
    pub to: Do,
    /// The collection it works on.
    pub n: u8,
    /// Where a listing in pages has come to.
    pub page: u8,
    /// Pages and blocks that it has marked.
    pub pages: Packs,
    pub blocks: Blocks,
    /// What it will condemn; later what it will delete; what is left to delete.
    pub list: Packs,
    /// Sessions that it saw ended; later those that it removes.
    pub ended: Ids,
    /// Blocks that it is about to repack.
    pub repacks: Blocks,
    /// Sessions that were open in its first mark; kept only where that rule is broken.
    pub open: Ids,
}

/// Somebody who finishes commits that have no copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finisher {
    /// 0: has not begun; 1: has listed sessions; 2: has listed snapshots and notes, and creates.
    pub at: u8,
    pub ids: Ids,
    pub commits: [Commit; WRITERS],
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct State {
    pub store: Store,
    pub writers: [Writer; WRITERS],
    pub collectors: [Collector; COLLECTORS],
    pub finisher: Finisher,
    /// Snapshots that are being forgotten: the note is there, and the copy is still to be deleted.
    pub forgetting: Ids,
    /// Not objects but what is remembered for the invariants: snapshots that were listed once, or acknowledged to a writer's caller …
    pub counted: Ids,
    /// … and those that were forgotten.
    pub forgotten: Ids,
    /// Collections that others may still make, each in one step.
    pub others: u8,
}

impl Store {
    /// The blocks in one pack.
    pub fn blocks(&self, pack: usize) -> Blocks {
        match pack {
            PAGES => 0,
            DATA => A | B,
            ORPHAN => B,
            _ => self.content >> (2 * (pack - WRITTEN)) & 3,
        }
    }

    /// The packs among `packs` that hold a block.
    pub fn holders(&self, packs: Packs, block: Blocks) -> Packs {
        bits(packs.into()).filter(|&pack| self.blocks(pack) & block != 0).fold(0, |all, pack| all | 1 << pack)
    }

    pub fn fill(&mut self, pack: usize, blocks: Blocks) {
        self.content |= blocks << (2 * (pack - WRITTEN));
        self.packs |= 1 << pack;
    }

    pub fn collection(&self, n: u8) -> &Collection {
        &self.collections[usize::from(n) - 1]
    }

    pub fn collection_mut(&mut self, n: u8) -> &mut Collection {
        &mut self.collections[usize::from(n) - 1]
    }

    /// The newest collection that a listing shows; 0 if there is none.
    pub fn newest(&self) -> u8 {
        (1..=NUMBERS as u8)
            .rev()
            .find(|&n| self.collection(n).published && !self.collection(n).unlisted)
            .unwrap_or(0)
    }

    /// What a writer that looks now must neither take nor put there: what the newest collection condemns; once it is done, what it deleted.
    pub fn avoided(&self) -> Packs {
        match self.newest() {
            0 => 0,
            n if self.collection(n).done => self.collection(n).delete,
            n => self.collection(n).condemned,
        }
    }
}

/// The bits that are set, lowest first.
pub fn bits(mut set: u32) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let bit = set.trailing_zeros();
        set &= set.wrapping_sub(1);
        (bit < 32).then_some(bit as usize)
    })
}
