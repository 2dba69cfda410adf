"""What opens the repository, as the configuration says where it is."""

from __future__ import annotations

import os

from snapferry.config import RepositoryConfig
from snapferry.errors import ConfigurationError
from snapferry.repository.keyfile import create_key_file, host_public_key, read_key_file
from snapferry.repository.secret import Secret, read_passphrase_file, run_passphrase_command


async def read_secret(repository: RepositoryConfig) -> Secret:
    """The key file's bytes, or the passphrase out of a file or a command. ``AccessDenied`` if it is not to be had."""
    if repository.passphrase_command is not None:
        return await run_passphrase_command(repository.passphrase_command)
    if repository.passphrase_file is not None:
        return read_passphrase_file(repository.passphrase_file)
    if repository.key_file is not None:
        return read_key_file(repository.key_file)
    raise ConfigurationError("nothing says what opens the repository: set repository.key_file, passphrase_file or passphrase_command")


async def read_or_create_secret(repository: RepositoryConfig) -> Secret:
    """As ``read_secret``; a key file that is not there is made."""
    if repository.key_file is not None and not os.path.lexists(repository.key_file):
        return create_key_file(repository.key_file)
    return await read_secret(repository)


def check_passphrase_file(path: str | os.PathLike[str]) -> None:
    """``AccessDenied`` if there is no passphrase in it that can be used."""
    read_passphrase_file(path)


def public_key(key_file: str | os.PathLike[str]) -> str:
    """The public key of a key file, as text for ``Keys.add``; the file is made if it is not there. ``AccessDenied`` if it is no key file."""
    return host_public_key(read_key_file(key_file) if os.path.lexists(key_file) else create_key_file(key_file))
