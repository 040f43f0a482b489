"""Writing: nothing of anybody else's is touched."""

from __future__ import annotations

from pathlib import Path

import pytest

from planner.emit import write
from planner.errors import InputError

FILES = {"README.md": "one\n", "vllm/serve.sh": "#!/bin/sh\n"}


def test_files_and_folders_are_made(tmp_path: Path) -> None:
    write(FILES, tmp_path / "out")
    assert (tmp_path / "out" / "README.md").read_text() == "one\n"
    assert (tmp_path / "out" / "vllm" / "serve.sh").stat().st_mode & 0o111


def test_a_directory_with_content_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="isn't empty"):
        write(FILES, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_an_earlier_emission_is_replaced_only_when_asked(tmp_path: Path) -> None:
    write(FILES, tmp_path)
    with pytest.raises(InputError, match="--force"):
        write(FILES, tmp_path)
    (tmp_path / "mine.txt").write_text("mine")
    write({"README.md": "two\n"}, tmp_path, force=True)
    assert (tmp_path / "README.md").read_text() == "two\n"
    assert not (tmp_path / "vllm" / "serve.sh").exists()
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_force_never_replaces_a_file_that_somebody_else_wrote(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(InputError, match=r"README\.md wasn't written by plan emit"):
        write(FILES, tmp_path, force=True)
    assert (tmp_path / "README.md").read_text() == "mine"


def test_the_index_can_not_reach_outside(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    out = tmp_path / "out"
    write(FILES, out)
    (out / ".plan-files").write_text("../victim\nREADME.md\nvllm/serve.sh\n")
    write(FILES, out, force=True)
    assert victim.read_text() == "mine"


def test_what_cannot_be_written_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        write(FILES, tmp_path / "file")
    with pytest.raises(ValueError, match="outside"):
        write({"../x": ""}, tmp_path / "out")
