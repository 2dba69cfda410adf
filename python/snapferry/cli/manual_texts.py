"""What the manual pages say beyond what the commands say of themselves. Data only."""

from __future__ import annotations

DATE = "2026-11-24"
"""Of these texts; changed with them, so that the same commands make the same pages."""

DESCRIPTION = """
snapferry is a data plane for volume snapshots. An export reads a volume once and streams what is new to every destination at once,
compressed, encrypted and deduplicated. A restore reads from whichever destination answers best and goes on with another where one fails or
lies; every block is checked before it is written.

A repository is one key and the destinations that hold it. snapferry init makes one; keep a copy of the key file away from the
destinations: without it no backup can be read.
"""

NAMES = (
    "A snapshot is named by VOLUME (its latest), VOLUME~2 (two before the latest), VOLUME@2026-11-22T10:00 (the latest at that time), "
    "or by 8 or more digits of its id."
)

MEANINGS = {
    "0": "Done: what was written is synced.",
    "1": "Failed: a bad source, an unknown or ambiguous snapshot, a target that is not empty, a repository that exists already.",
    "2": "Usage: an unknown command, option, key, scheme, policy or size. Nothing was started.",
    "3": "Done in part: fewer copies than asked for, extents of a source that could not be read, or some of several sources.",
    "4": "Damage: verification found some, or a restore met blocks that no replica can supply.",
    "10": "There is no repository there, or no configuration.",
    "11": "Fenced: somebody else ended this session.",
    "12": "The key does not open it, or a permission is missing.",
    "13": "No destination can be reached; worth trying again.",
    "14": "No space is left.",
    "130/143": "Interrupted by SIGINT or SIGTERM. The repository is in order; the same command goes on where it was.",
}

FILES = (
    ("snapferry.toml", "The configuration, in the working directory."),
    ("$XDG_CONFIG_HOME/snapferry/snapferry.toml", "The configuration where there is none in the working directory."),
    ("/etc/snapferry/snapferry.toml", "The configuration where there is no other."),
    ("snapferry.key", "The key, beside the configuration unless repository.key_file says otherwise."),
    ("$XDG_CACHE_HOME/snapferry", "The index of what the destinations hold; made anew when it is lost."),
    ("$XDG_DATA_HOME/snapferry", "The catalog of what this machine has seen; made anew when it is lost."),
    ("$XDG_STATE_HOME/snapferry", "Journals of restores under way."),
)

ENVIRONMENT = (
    ("SNAPFERRY_CONFIG", "The configuration file, where --config names none."),
    (
        "XDG_CONFIG_HOME, XDG_CACHE_HOME, XDG_DATA_HOME, XDG_STATE_HOME",
        "Base directories; by default ~/.config, ~/.cache, ~/.local/share and ~/.local/state.",
    ),
    ("NO_COLOR", "If set, progress on a terminal has no colors."),
)

EXAMPLES: dict[str, tuple[tuple[str, str], ...]] = {
    "": (
        ("Two destinations, a backup, and the volume brought back:", "snapferry init --to near=/srv/backup --to far=/mnt/far/backup"),
        ("Then:", "snapferry export /srv/images/vm-42.img --volume vm-42/root"),
        ("And:", "snapferry restore vm-42/root /srv/images/recovered.img"),
    ),
    "init": (("A repository on two directories, which are made:", "snapferry init --to near=/srv/backup --to far=/mnt/far/backup"),),
    "connect": (("On a blank machine, with the key:", "snapferry connect --from far=/mnt/far/backup --key-file snapferry.key"),),
    "export": (
        ("One image, under a name of its own:", "snapferry export /srv/images/vm-42.img --volume vm-42/root --tag why=upgrade"),
        ("Many images, eight at a time, no faster than 100 MiB a second:", "snapferry export /srv/images/*.img -j 8 --limit-rate 100MiB"),
        ("What a jobs file describes:", "snapferry export --jobs nightly.toml --json"),
    ),
    "restore": (
        ("The latest snapshot of a volume:", "snapferry restore vm-42/root /srv/images/recovered.img"),
        ("The one before, over a device that is not empty:", "snapferry restore vm-42/root~1 /dev/vg0/root --force"),
    ),
    "cat": (("The first MiB:", "snapferry cat vm-42/root --range 0-1MiB > head.bin"),),
    "list": (("The snapshots of one volume, for a program:", "snapferry list vm-42/root --json"),),
    "show": (("The latest snapshot of a volume, and who holds it:", "snapferry show vm-42/root"),),
    "diff": (("What the last backup changed:", "snapferry diff vm-42/root~1 vm-42/root"),),
    "verify": (
        ("Structure and presence of everything:", "snapferry verify"),
        ("A tenth of all data too, at one destination:", "snapferry verify --read-data 10% --destination far"),
    ),
    "repair": (
        ("What is broken or missing anywhere, from whoever has it whole:", "snapferry repair"),
        ("Inside of packs too, at one destination:", "snapferry repair --read-data 100 --destination far"),
    ),
    "destination": (
        ("One more copy of everything, in a bucket:", "snapferry destination add cloud=s3://bucket/backups --sync"),
        ("What a destination that was away has missed, and what that would cost:", "snapferry destination sync cloud --dry-run"),
    ),
    "rebuild": (("After the cache or the catalog was lost or damaged:", "snapferry rebuild"),),
    "config": (("Every value, and where it came from:", "snapferry config show --origin"),),
    "demo": (("Everything, on files of this machine:", "snapferry demo"),),
    "completion": (
        ("For bash, in ~/.bashrc:", 'eval "$(snapferry completion bash)"'),
        ("For zsh, in ~/.zshrc after compinit:", 'eval "$(snapferry completion zsh)"'),
        ("For fish:", "snapferry completion fish > ~/.config/fish/completions/snapferry.fish"),
    ),
    "man": (
        ("One page:", "snapferry man export | man -l -"),
        ("All, for everybody:", "snapferry man --directory /usr/local/share/man/man1"),
    ),
}
