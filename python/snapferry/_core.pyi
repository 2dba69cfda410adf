"""The native core: hashing, packing, manifests, index, and writing verified blocks. Synchronous; knows no destination.

Calls that touch more than a page of data release the GIL and share the work among the threads of a ``Workers`` pool.
Ids are ``bytes`` of 32 (pages, blocks, packs) or 16 (repository, session); positions and lengths are in bytes, ``block``
numbers count blocks of the volume's block size. A *fetch* is a tuple ``(pack id, offset, length)``: read that range of
``packs/<id>`` and hand the bytes to the object that asked.
"""

from typing import Final, final

from typing_extensions import Buffer

FORMAT_VERSION: Final[int]
PACK_HEADER_LENGTH: Final[int]
MAX_PACK_LENGTH: Final[int]
"""No pack is longer, in bytes."""
RECORD_OVERHEAD: Final[int]
MAX_LABEL_LENGTH: Final[int]
"""No label of a key slot is longer, in bytes of UTF-8."""

Fetch = tuple[bytes, int, int]
PlaceTuple = tuple[bytes, int, int]
RootTuple = tuple[bytes, PlaceTuple]
RootsTuple = tuple[int, RootTuple | None, RootTuple | None]

class CoreError(Exception):
    """The root of what this module raises on purpose."""

class DamagedError(CoreError):
    """Bytes that are torn, altered or not what their name promises."""

class KeyMismatchError(CoreError):
    """The key does not fit what it is meant to open."""

class WriteOnlyError(CoreError):
    """The key may write, and not do this: read data, or manage keys."""

class UnsupportedError(CoreError):
    """A version, suite or codec that this program does not know, by name."""

class BuiltWrongError(CoreError):
    """What was just built does not decode to what went in: memory or processor are not to be trusted."""

def blake3(data: Buffer) -> bytes:
    """The plain BLAKE3 of ``data``, 32 bytes: what packs and segments are named by. Needs no key."""

def check_object(data: Buffer) -> None:
    """Checks without any key that a small object (all but packs) ends in its own hash; ``DamagedError`` if not."""

def peek(kind: str, data: Buffer) -> bytes:
    """The payload of a plain object (``destination`` or ``config``) by its hash alone, before a key is at hand.

    Raises ``DamagedError`` where the hash does not fit, ``UnsupportedError`` for a version or suite unknown here.
    """

@final
class Workers:
    """A thread pool of the core's own."""

    def __new__(cls, threads: int) -> Workers: ...
    @property
    def threads(self) -> int: ...
    @property
    def allocated(self) -> int:
        """Bytes of pack buffers now alive, free ones kept for reuse included."""
    def trim(self) -> None:
        """Gives the free pack buffers back to the system."""

@final
class Slot:
    """A key slot, its hash and the signature of its repository's authority verified. Its contents stay sealed."""

    def __new__(cls, data: Buffer) -> Slot:
        """``DamagedError`` for what is torn, altered, or not signed; ``UnsupportedError`` for a version or kind unknown here."""
    @property
    def id(self) -> bytes:
        """16 bytes, the same in every copy of the slot."""
    @property
    def kind(self) -> str:
        """``key file``, ``passphrase`` or ``public key``."""
    @property
    def role(self) -> str:
        """``full``, ``write-only``, or ``removed``: a note that the slot of that id is no more."""
    @property
    def label(self) -> str: ...
    @property
    def created(self) -> int:
        """Unix seconds."""
    @property
    def repository_id(self) -> bytes: ...
    @property
    def public_key(self) -> bytes:
        """The holder's, 32 bytes."""
    @property
    def epochs(self) -> list[bytes]:
        """The tags (16 bytes) of the epochs that its sealer knew, in order."""
    @property
    def epoch(self) -> int:
        """The number of the newest."""
    @property
    def data(self) -> bytes:
        """The object; its name is ``blake3(data)[:16]`` in hex."""
    def unlock(self, *, key_file: Buffer | None = None, passphrase: Buffer | None = None) -> SlotKey | None:
        """The private half of its key if that is its secret, else None. A passphrase is stretched, which takes memory and time.

        ``DamagedError`` if its holder never made it for this repository; ``ValueError`` if the memory is not to be had.
        """

@final
class SlotKey:
    """The private half of one slot's key; the same for every copy of the slot."""

def host_public_key(key_file: Buffer) -> bytes:
    """The public half (32 bytes) of a key file's 32 bytes, for a slot of kind ``public key``."""

@final
class Keyring:
    """The unwrapped keys of one repository. Secrets stay in here. Safe to share between threads."""

    @staticmethod
    def generate() -> Keyring:
        """A new repository: random secrets, its id a hash of one of them, and its first epoch."""
    @staticmethod
    def unlock(slot: Slot, key: SlotKey) -> Keyring:
        """Opens a slot; ``KeyMismatchError`` for another slot's key, or a removed slot; ``DamagedError`` if its contents make no sense."""
    def adopt(self, slot: Slot) -> bool:
        """Takes over the epochs of another copy of the slot it was opened with; whether there were new ones."""
    def snapshot(self) -> Keyring:
        """The same keys as they are now: what is adopted or chosen later does not touch them."""
    def with_new_epoch(self) -> Keyring:
        """The same keys with one more epoch, under which its new packs are; ``WriteOnlyError``."""
    def new_slot(
        self,
        role: str,
        label: str,
        created: int,
        *,
        key_file: Buffer | None = None,
        passphrase: Buffer | None = None,
        public_key: bytes | None = None,
        stretch: tuple[int, int, int] | None = None,
    ) -> bytes:
        """A new key slot object (``full`` or ``write-only``) for one of: a key file's bytes, a passphrase, a public key.

        ``stretch``: Argon2id's KiB of memory, passes and lanes, unless they are to be the usual ones. ``WriteOnlyError``.
        """
    def seal_again(self, slot: Slot) -> bytes:
        """The same slot, sealed anew for its holder with all epochs of this keyring; ``WriteOnlyError``."""
    def remove(self, slot: Slot) -> bytes:
        """The note that a slot was removed, itself a slot object; ``WriteOnlyError``."""
    @property
    def repository_id(self) -> bytes: ...
    @property
    def reads_data(self) -> bool:
        """False for a key that may write and not read."""
    @property
    def slot_id(self) -> bytes | None:
        """The id of the slot that it was opened with."""
    @property
    def epochs(self) -> list[bytes]:
        """The tags (16 bytes) of the epochs that it knows, in order."""
    @property
    def current_epoch(self) -> bytes | None:
        """The tag of the epoch that new data packs are sealed under."""
    def choose_epoch(self, allowed: list[bytes]) -> bool:
        """Seals new packs under the newest of these epochs; False, and nothing changes, if it can write with none of them."""
    def lacks_epoch_of(self, header: Buffer) -> bool:
        """Whether a pack's header, which proves nothing by itself, names an epoch that is not held here."""
    def seal(self, kind: str, name: str, payload: Buffer) -> bytes:
        """A small object. ``kind``: destination, config (both authenticated, in the clear), session, end, commit, forgotten,
        damaged, segment, condemned, delete, done (all encrypted; all but damaged and segment also signed). ``name`` is bound to it."""
    def open(self, kind: str, name: str, data: Buffer) -> bytes:
        """The payload of an object sealed with the same kind and name. ``DamagedError``, ``KeyMismatchError``, ``UnsupportedError``."""

@final
class Pack:
    """A finished pack: immutable bytes (buffer protocol, read-only), shared by reference; its memory is used again when it is dropped."""

    @property
    def id(self) -> bytes: ...
    @property
    def group(self) -> int:
        """That of the blocks in it; 0 for pages."""
    @property
    def capacity(self) -> int:
        """What was reserved for it, at least ``len``."""
    def __len__(self) -> int: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...

@final
class Segment:
    """A new index segment. ``id`` names it (hex of blake3 of ``data``), ``data`` goes to the destinations, ``plain`` is what an index takes."""

    @property
    def id(self) -> str: ...
    @property
    def data(self) -> bytes: ...
    @property
    def plain(self) -> bytes: ...

@final
class Index:
    """Block id prefix -> place, over what was folded into a local directory and segments in memory. Safe to share between threads.

    A block is found only in a pack that was declared usable. Ids of packs and segments are given and returned as ``bytes``, 32 for
    each, one after another, where there may be many. No call costs more with the number of entries, but ``verify``; those that say
    so cost with the number of packs.
    """

    def __new__(cls) -> Index: ...
    def open(self, directory: str, wanted: Buffer, whole: bool) -> bytes:
        """Maps what was folded in ``directory``. Of its segments only the ``wanted`` count; returns those of them that are not in it.

        A fold drops the others only if these are the ``whole`` of what any destination lists.
        """
    @property
    def files(self) -> list[str]:
        """Names of the files in that directory that count. Others belong to nobody, but for those being written."""
    @property
    def crowded(self) -> bool:
        """Whether so much is in memory that it should be folded (see ``Fold``)."""
    def verify(self, number: int) -> bool:
        """Reads one file of all that was folded, from 0 on; False past the last. ``DamagedError`` where one is damaged: it is
        removed then, and the directory to be opened anew.

        A look-up checks what it takes. What it finds is there; what it does not find may be there where the cache is damaged. Who
        concludes from that (a collection) verifies first.
        """
    def add_segment(self, segment: bytes, plain: Buffer) -> None:
        """Adds a plain segment by its id, in memory until it is folded; ``DamagedError`` if it fails its checksum."""
    def add_pack(self, keyring: Keyring, pack: bytes, size: int, tail: Buffer) -> int:
        """Adds the records of a pack that no segment names, from its last bytes; returns how many.

        ``DamagedError`` if the tail is torn; a tail too short for the footer raises ``ValueError`` naming the length needed.
        """
    @property
    def added(self) -> int:
        """How many packs ``add_pack`` has added since ``take_added``."""
    def take_added(self, keyring: Keyring) -> list[Segment]:
        """Segments of all that ``add_pack`` added since the last call, so that the packs need not be read again. They are in the index."""
    def packs(self) -> list[tuple[bytes, int]]:
        """Every pack that is named, with its size in bytes: a Python object for each, which a large repository has millions of."""
    def packs_of(self, segments: Buffer) -> bytes:
        """The packs that these segments name, each once. Costs with the number of their packs."""
    def segments_naming(self, packs: Buffer) -> bytes:
        """The segments that name one of these packs. Costs with the number of all packs."""
    def named(self, packs: Buffer) -> bytes:
        """Those of these packs that are named. Costs with the number of all packs."""
    def misfits(self, packs: Buffer, sizes: list[int]) -> list[tuple[bytes, int]]:
        """Of packs listed with these sizes, those named with another one, and that one. Costs with the number of all packs."""
    def declare_usable(self, packs: Buffer) -> None:
        """Replaces the set of packs whose blocks count as known. Costs with the number of all packs."""
    def declare_groups(self, groups: list[bytes]) -> None:
        """As ``declare_usable``, where not every pack counts for every block: the packs of group 0 for pages, of the others for the blocks of each."""
    def is_usable(self, pack: bytes, group: int = 0) -> bool: ...
    def all_usable(self, packs: Buffer) -> bool:
        """Whether all of these count, for every group; ``packs`` is their ids, one after another."""
    def find(self, block_id: bytes) -> PlaceTuple | None: ...
    def __len__(self) -> int:
        """How many entries there are, those included that do not count."""

def merge_segments(keyring: Keyring, paths: list[str], drop_packs: Buffer) -> list[Segment]:
    """Segments that say together what the plain segments at ``paths`` say, but for the packs of ``drop_packs`` (ids, one after another).

    Each file is called by the id of its segment. Each result names all of these as replaced: they may be deleted once every result
    is stored. Empty where no pack stays. Holds all entries in memory, twice: give it some at a time. ``DamagedError`` for a bad file.
    """

@final
class Fold:
    """Folds what an index holds in memory into files of ``directory``, step by step. One at a time in a directory.

    Dropped or killed before its end it leaves nothing that counts. Look-ups and additions may go on meanwhile.
    """

    def __new__(cls, index: Index, directory: str, last: bool) -> Fold:
        """``last``: nothing more will come soon, so that all is sorted now. ``DamagedError``, ``OSError``."""
    def step(self) -> bool:
        """Does some tens of milliseconds of it; False once all is done. ``OSError``; ``DamagedError`` where the cache is damaged."""

@final
class Manifest:
    """One snapshot's two trees, read page by page. It asks for what it lacks (``missing``) and is fed (``feed``)."""

    def __new__(cls, keyring: Keyring, roots: RootsTuple, size: int, block_size: int) -> Manifest: ...
    @property
    def blocks(self) -> int:
        """How many blocks the volume has."""
    def missing(self, first: int, end: int, places: bool = True) -> list[Fetch]:
        """What must be fetched next to know the blocks ``first`` to ``end - 1``; empty when all is there or lost. Call until empty.

        Each call replaces what was asked for before: one task at a time asks and feeds.
        """
    def missing_of(self, runs: list[tuple[int, int]], places: bool = True) -> list[Fetch]:
        """As ``missing``, for many (first, count) runs of blocks at once."""
    def differing(self, workers: Workers, first: int, data: Buffer) -> list[tuple[int, int]]:
        """(first, count) runs of the blocks in ``data``, from number ``first`` on, that are not what this manifest says.

        Unreadable ones never are. The pages of ids must be loaded: ``DamagedError`` if one is lost.
        """
    def feed(self, pack: bytes, offset: int, data: Buffer) -> int:
        """Verifies the asked-for pages in ``data``, which begins at ``offset`` of ``pack``; returns how many failed (0: all well)."""
    def give_up(self, pack: bytes, offset: int, length: int) -> None:
        """No replica has that range in good order: its pages are lost, and the blocks below them."""
    def lost(self, first: int, end: int) -> list[tuple[int, int]]:
        """(first, count) runs of blocks in the range whose pages were given up."""
    def evict(self, until: int) -> None:
        """Forgets the pages that only blocks below ``until`` need."""
    def next_data(self, first: int) -> int:
        """The first block from ``first`` on that is not below a page known to hold only zeros; ``blocks`` if there is none.

        Costs no more than the pages there are. A page that is not loaded counts as data.
        """
    def ids(self, first: int, end: int) -> bytes:
        """The ids of loaded blocks, 32 bytes each, one after another; zeros for holes. ``ValueError`` if a page is missing."""
    def packs(self, first: int, end: int) -> bytes:
        """The ids of all packs (data and manifest) that the loaded range names, one after another, each once."""
    def page_packs(self, first: int, end: int) -> bytes:
        """Of ``packs`` those with pages: the ids of the manifest packs."""
    def any_lost(self) -> bool:
        """Whether any page was given up."""
    def resolve(self, index: Index, present: PackSet, first: int, end: int) -> tuple[bytes, bytes, list[tuple[int, int]]]:
        """Where the loaded range lies now: where a place names a pack that is not ``present``, the index is asked for another one that is.

        Returns (ids of the packs that hold its blocks and pages; ids of packs that are gone and held blocks which no other one holds;
        (first, count) runs of those blocks). The index must have all of ``present`` declared usable.
        """

@final
class PackSet:
    """A set of packs, handed over once as ids of 32 bytes, one after another."""

    def __new__(cls, ids: Buffer) -> PackSet: ...
    def __len__(self) -> int: ...
    def __contains__(self, key: bytes, /) -> bool: ...

@final
class Marker:
    """What is reached from the roots of snapshots: packs with pages, and blocks. Shared subtrees are walked once."""

    def __new__(cls, directory: str, in_parts: bool = False) -> Marker:
        """``directory`` takes, in files without a name, what does not fit into memory.

        ``in_parts``: some of the snapshots have blocks at other destinations only, so that one which is in no present pack is no damage.
        """
    def manifest(self, keyring: Keyring, roots: RootsTuple, size: int, block_size: int) -> Manifest:
        """The trees of one more snapshot, to be loaded once from end to end (``missing`` with ``places=False``); what was met before counts as zeros."""
    def page_packs(self) -> bytes:
        """The ids of the packs that hold pages that were reached, one after another."""
    def sweep(self, index: Index, present: PackSet, preferred: PackSet) -> list[tuple[bytes, int, int, bool]]:
        """(pack, live bytes, all bytes, holds pages that are reached) of every pack in ``present`` that the index describes; bytes of records.

        For each needed block one record is chosen to be live, in a ``preferred`` pack if there is one. Packs added with ``add_pack`` and not mapped as a segment are not looked at.
        ``DamagedError`` if a needed block lies in no pack that is present; ``ValueError`` if the marking is not complete.
        """
    def live_records(self, index: Index, present: PackSet, preferred: PackSet, of: PackSet) -> list[tuple[bytes, list[tuple[int, int]]]]:
        """By pack in ``of`` the (offset, length) of its live records, as ``sweep`` chooses them."""
    def rescued(self, index: Index, present: PackSet, condemned: PackSet) -> bytes:
        """The ids of the condemned packs that are needed after all. Raises as ``sweep``."""

@final
class Repacker:
    """Copies live records into new packs: opened, proven, sealed anew."""

    def __new__(cls, keyring: Keyring, workers: Workers, *, session: bytes, capacity: int) -> Repacker: ...
    def take(self, header: Buffer, start: int, data: Buffer, records: list[tuple[int, int]]) -> list[Pack]:
        """Copies the records (offset, length) of the pack with that header out of ``data``, which begins at ``start`` of it; returns full packs.

        ``DamagedError`` if a record is not what its id promises; nothing was copied then.
        """
    def finish(self) -> list[Pack]:
        """The last pack, if anything is in it."""
    def segments(self) -> list[Segment]:
        """Index segments of all packs finished so far."""

def missing_for_diff(a: Manifest, b: Manifest, first: int, end: int) -> tuple[list[Fetch], list[Fetch]]:
    """What each must be fed to compare the range; equal subtrees are never asked for. Both empty: ready."""

def diff(a: Manifest, b: Manifest, first: int, end: int) -> list[tuple[int, int]]:
    """(first, count) runs of blocks that differ, in order; ``end`` may lie past the shorter one, whose missing blocks are zeros."""

@final
class ManifestWriter:
    """Builds a snapshot's trees as blocks are recorded, page by page, sharing the parent's unchanged pages.

    ``size`` is None where only the end of the volume tells: ``set_size`` comes before the last block is processed.
    """

    def __new__(
        cls,
        keyring: Keyring,
        workers: Workers,
        index: Index,
        *,
        session: bytes,
        size: int | None,
        block_size: int,
        parent: Manifest | None,
        check: str,
        areas: list[tuple[int, int]] = ...,
    ) -> ManifestWriter:
        """``areas``: (first block, group) of each stretch of the volume, in order; blocks of different groups are never in one pack. Pages are of group 0."""
    def set_size(self, size: int) -> None:
        """The volume's size in bytes, which nobody knew; ``ValueError`` if somebody did, or blocks past it are recorded."""
    def inherit(self) -> None:
        """Begins as the parent: what is not recorded is as there, its pages taken over unread. Past the parent's end are zeros.

        Only where every pack that the parent names is usable. Where the two differ in their number of blocks, the parent's pages
        for this volume's last block must be loaded.
        """
    def clear(self, first: int, count: int) -> None:
        """These blocks are zeros, where the writer inherits. The parent's pages of the first and the last of them must be loaded."""
    def packs(self) -> bytes:
        """The ids of the packs that the pages written or shared so far lie in or name, one after another, each once.

        Pages that were inherited unread are not among them.
        """
    def mark_unreadable(self, first: int, count: int) -> None:
        """These blocks could not be read. Must come before ``advance`` passes them."""
    def advance(self, until: int) -> list[Pack]:
        """All blocks below ``until`` are recorded or holes; returns manifest packs that became full.

        The parent's pages for the recorded blocks must be loaded; what nobody needs any more of them is evicted here.
        """
    def finish(self) -> tuple[RootsTuple, list[Pack]]:
        """After the packer's ``finish``: the roots, and the last manifest packs. Nothing may be called after it."""

@final
class Packer:
    """Blocks in, packs out: hash, zero test, comparison with the parent, index, compression, sealing, self-check."""

    def __new__(
        cls,
        keyring: Keyring,
        workers: Workers,
        index: Index,
        manifest: ManifestWriter,
        *,
        session: bytes,
        codec: str,
        level: int,
        check: str,
        dry_run: bool = False,
    ) -> Packer:
        """``codec``: zstd, lz4 or none. ``check``: full or sample. A dry run hashes and counts, and builds nothing."""
    @property
    def room(self) -> int:
        """Bytes of pack buffers provided and not yet filled."""
    def provide(self, capacity: int) -> None:
        """Adds an empty pack buffer of ``capacity`` bytes (4 MiB or more, and one block with 64 KiB to spare), already reserved by the caller."""
    def process(self, first: int, data: Buffer) -> list[Pack]:
        """Takes the blocks from number ``first`` on; returns packs that became full. Several calls may run side by side.

        ``data`` is whole blocks, but at the volume's end, where the last is taken as padded with zeros.
        ``room`` must be at least ``len(data)`` and ``RECORD_OVERHEAD`` a block more, and one block more, less what other calls
        now running may use. The parent's pages for the range must be loaded.
        """
    def take_over(self, first: int, count: int) -> list[tuple[int, int]]:
        """Records the parent's blocks as this snapshot's, without reading them; its pages must be loaded, or lost.

        Returns the (first, count) runs of those that must be processed after all: unreadable then, their page lost, or in no usable pack.
        """
    def finish(self) -> list[Pack]:
        """The last pack, if anything is in it. No ``process`` may run."""
    def segment(self, packs: list[bytes]) -> Segment | None:
        """An index segment of these finished packs, which count as usable from now on; None if there is nothing new.

        It names the manifest packs finished so far too (they hold no blocks), so that none looks like one that lost its
        segment. Ids of other packs are passed over.
        """
    def counts(self) -> tuple[int, int, int, int]:
        """(bytes new, blocks new, blocks zero among those processed, blocks unchanged or known)."""

@final
class Plan:
    """How to bring a range of blocks back: ranged reads by pack, and where each record goes. For one window of the volume."""

    def __new__(cls, keyring: Keyring, workers: Workers, manifest: Manifest, first: int, end: int, max_extent: int) -> Plan:
        """The manifest must be loaded for the range (ids and places). ``max_extent``: the longest ranged read, in bytes."""
    def headers(self) -> list[Fetch]:
        """Headers to be read before the extents, and again after ``relocate``: those of packs met for the first time."""
    def learn(self, pack: bytes, header: Buffer) -> bool:
        """Takes the header of a pack; False if it is not good. Without it every record of the pack fails."""
    def extents(self) -> list[tuple[int, Fetch]]:
        """(number, fetch) of the ranged reads whose blocks are not all done, in the order of the volume."""
    def zeros(self) -> list[tuple[int, int]]:
        """(offset, length) of the ranges that are zeros, in bytes of the volume."""
    def unreadable(self) -> list[tuple[int, int]]:
        """(offset, length) of the ranges recorded as unreadable."""
    def lost(self) -> list[tuple[int, int]]:
        """(offset, length) of the ranges whose pages are lost, or whose records were not delivered; in bytes."""
    def compare(self, fd: int) -> int:
        """Reads the target and marks done what it already holds; returns the bytes of blocks that are right."""
    def write(self, extent: int, data: Buffer, fd: int) -> tuple[int, int]:
        """Verifies the records of an extent in ``data`` and writes their blocks to ``fd`` at their place.

        Returns (bytes written, records that failed); those that failed can be written from another replica's bytes.
        ``OSError`` as ``pwrite`` raises it. Blocks already done are passed over.
        """
    def copy(self, extent: int, data: Buffer, out: Buffer, out_offset: int) -> int:
        """As ``write``, into memory: ``out`` (writable) begins at byte ``out_offset`` of the volume; returns how many records failed."""
    def relocate(self, index: Index) -> list[tuple[int, Fetch]]:
        """Looks for other usable places of what is not done; returns the extents added for them, as ``extents`` does."""
    def extents_in(self, packs: Buffer) -> list[tuple[int, int]]:
        """(offset, length) of what lies in one of these packs, their ids one after another; in bytes of the volume."""

def zero_range(fd: int, offset: int, length: int, block_device: bool) -> int:
    """Makes the range of a file or device read as zeros, changing only what is not; returns the bytes changed."""

def check_pack(keyring: Keyring, workers: Workers, pack: bytes, data: Buffer) -> list[str]:
    """Every way in which ``data`` is not the pack of that id: name, header, footer, each record's tag and id. Empty: good."""
