"""A storage module as an operator has it: configured by `init --plugins` and `destination add`, run by each command, gone after it."""

from __future__ import annotations

import os
from pathlib import Path

from tests.support.modules import Workshop
from tests.support.place import Place


def test_a_repository_at_a_module_and_a_second_store_of_it(workshop: Workshop, tmp_path: Path) -> None:
    place = Place(tmp_path)
    command = ", ".join(f'"{word}"' for word in workshop.example("py").command)
    plugins = tmp_path / "plugins.toml"
    plugins.write_text(
        f'[[plugin]]\nname = "tape"\ncommand = [{command}]\ndirectory = "{workshop.data}"\nenvironment = {{ TOKEN = "hush" }}\n'
    )
    plugins.chmod(0o600)
    place.run("init", "--to", f"near={tmp_path}/near", "--to", "vault=plugin:tape/vms", "--plugins", plugins)
    (tmp_path / "disk.img").write_bytes(os.urandom(2 << 20))
    snapshot = place.json("export", "disk.img", "--volume", "v")
    assert sorted(snapshot["acknowledged"]) == ["near", "vault"]
    assert (workshop.data / "vms/config").exists()
    place.run("destination", "add", "second=plugin:tape/other")
    place.run("destination", "sync", "second")
    (tmp_path / "near").rename(tmp_path / "away")
    place.run("restore", "v", "restored.img", "--from", "second")
    assert (tmp_path / "restored.img").read_bytes() == (tmp_path / "disk.img").read_bytes()
    shown = place.run("config", "show", "--origin").stdout
    assert "plugin.tape.memory" in shown
    assert "hush" not in shown
    # The file names a command: it is not read when others can write it.
    (tmp_path / "snapferry.toml").chmod(0o666)
    assert "names a command to run" in place.run("list", code=12).stderr
