# SPDX-License-Identifier: Apache-2.0
"""What is damaged after it was written is found: folders by SHA256SUMS, JSON objects by a seal."""

import json
import subprocess

import pytest

from edad_jax.files import (
    SUMS,
    check_sums,
    is_whole,
    read_json,
    read_json_or_none,
    replaced_folder,
    seal,
    unsealed,
    write_sums,
)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(bytes(1000))
    (tmp_path / "config.json").write_text('{"a": 1}')
    (tmp_path / "README.md").write_text("a card")
    write_sums(tmp_path)
    return tmp_path


def test_the_sums_of_a_folder_are_those_that_sha256sum_checks(folder):
    check_sums(folder, "*")
    done = subprocess.run(["sha256sum", "-c", SUMS], cwd=folder, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["config.json: OK", "model.safetensors: OK"]


def test_every_flipped_bit_is_named_and_only_in_the_files_that_are_asked_for(folder):
    path = folder / "model.safetensors"
    for place in (0, 500, 999):
        content = bytearray(1000)
        content[place] ^= 4
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"{path}: got sha256 .*; fetch or export it again"):
            check_sums(folder, "config.json", "*.safetensors")
        check_sums(folder, "config.json")


def test_a_card_may_be_written_on_and_a_folder_without_sums_is_taken_as_it_is(folder):
    (folder / "README.md").write_text("another card")
    check_sums(folder, "*")
    (folder / "config.json").write_text("{}")
    (folder / SUMS).unlink()
    check_sums(folder, "*")


def test_damaged_sums_are_named_with_their_line(folder):
    path = folder / SUMS
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ValueError, match=rf"{SUMS}:2: got .*, expected a sha256|sha256 .* says"):
        check_sums(folder, "*")


def test_a_sealed_object_tells_any_other_value_from_its_own():
    sealed = json.loads(json.dumps(seal({"rows": 12, "share": 0.1, "name": "é"})))
    assert is_whole(sealed) and unsealed(sealed) == {"rows": 12, "share": 0.1, "name": "é"}
    assert is_whole({"rows": 12})  # of before there were seals
    for change in ({"rows": 13}, {"share": 0.11}, {"name": "e"}, {"more": 1}):
        assert not is_whole(sealed | change)
    assert not is_whole([sealed]) and not is_whole(None)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": 1,\n}', "a.json:2: got damaged JSON .*; expected a list"),
        (b'{"a": "\xff"}', "a.json: got no text .*; expected a list"),
        (b"[" * 100_000, "a.json: got JSON that is nested too deep; expected a list"),
        (None, "a.json: No such file or directory; expected a list"),
    ],
)
def test_json_that_cannot_be_read_is_named_or_nothing(tmp_path, content, message):
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_json(path, expected="a list")
    assert read_json_or_none(path) is None


def test_a_folder_that_another_program_writes_is_left_to_it(tmp_path):
    """Else the first to end would put into place what the other has of it by then."""
    with replaced_folder(tmp_path / "model") as first:
        (first / "one").write_text("1")
        with pytest.raises(OSError, match="another program is writing .*model; wait"):
            with replaced_folder(tmp_path / "model"):
                pass
        (first / "two").write_text("2")
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == ["one", "two"]
    (tmp_path / ".model.new").mkdir()  # as a kill leaves it
    (tmp_path / ".model.new" / "half").write_text("")
    with replaced_folder(tmp_path / "model") as beside:
        assert not list(beside.iterdir())
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
