# SPDX-License-Identifier: Apache-2.0
"""What travels to a borrowed machine arrives whole, or is named."""

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from benchmarks import field_pack
from edad_jax.files import read_json


@pytest.fixture
def sources(tmp_path):
    """Returns a teacher, rows and data sets, as far as a pack looks at them."""
    random = np.random.default_rng(0)
    teacher = tmp_path / "bert"
    teacher.mkdir()
    (teacher / "config.json").write_text('{"model_type": "bert"}')
    (teacher / "vocab.txt").write_text("[PAD]\n")
    tensors = {
        "word": random.standard_normal((300, 40)).astype(np.float32),
        "bias": random.standard_normal(40).astype(np.float32),
    }
    save_file(tensors, teacher / "model.safetensors")
    rows = tmp_path / "prepared"
    for name in ("vocabulary", "rows"):
        (rows / name).mkdir(parents=True)
        (rows / f"{name}.stage.json").write_text("{}")
    (rows / "rows" / "manifest.json").write_text("{}")
    (rows / "rows" / "rows-00000.npy").write_bytes(random.bytes(9_000))
    for name in field_pack.SETS:
        (tmp_path / "ner" / name).mkdir(parents=True)
        (tmp_path / "ner" / name / "train.tsv").write_bytes(random.bytes(5_000))
    return teacher, rows, tmp_path / "ner"


@pytest.fixture
def packed(sources, tmp_path):
    """Returns a folder with some parts."""
    field_pack.gather(*sources, tmp_path / "stage")
    field_pack.pack(tmp_path / "stage", tmp_path / "parts", limit=35_000)
    assert len(list((tmp_path / "parts").glob("part-*.tar"))) > 1
    return tmp_path / "parts"


def test_parts_are_below_the_limit_and_all_that_was_packed_arrives(packed, sources, tmp_path):
    assert all(path.stat().st_size <= 35_000 for path in packed.glob("*.tar"))
    assert field_pack.arrive(packed, tmp_path / "place") == []
    teacher, rows, ner = sources
    for source, name in ((rows, "rows"), (ner, "ner")):
        for path in (path for path in source.rglob("*") if path.is_file()):
            there = tmp_path / "place" / name / path.relative_to(source)
            assert there.read_bytes() == path.read_bytes()


def test_weights_of_eight_bits_are_near_and_vectors_are_the_same(packed, sources, tmp_path):
    field_pack.arrive(packed, tmp_path / "place")
    before = load_file(sources[0] / "model.safetensors")
    after = load_file(tmp_path / "place" / "teacher" / "model.safetensors")
    assert after.keys() == before.keys()
    np.testing.assert_array_equal(after["bias"], before["bias"])
    step = np.abs(before["word"]).max(axis=1, keepdims=True) / 127
    assert (np.abs(after["word"] - before["word"]) <= 0.51 * step).all()
    assert after["word"].dtype == np.float32


def test_parts_may_come_one_after_the_other_and_those_that_lack_are_named(packed, tmp_path):
    place, van = tmp_path / "place", tmp_path / "van"
    van.mkdir()
    (van / "manifest.json").write_bytes((packed / "manifest.json").read_bytes())
    parts = sorted(path.name for path in packed.glob("*.tar"))
    for number, name in enumerate(parts):
        (van / name).write_bytes((packed / name).read_bytes())
        missing = field_pack.arrive(van, place)
        assert missing == parts[number + 1 :]
        if missing:
            told = field_pack.describe(missing, van, place)
            assert f"got {', '.join(parts[: number + 1])}, expected {missing[0]}" in told
            assert "give the same command again" in told
        (van / name).unlink()  # only one fits at a time
    assert (place / "teacher" / "model.safetensors").is_file()


def test_a_damaged_part_is_named_and_nothing_of_it_is_taken(packed, tmp_path):
    part = packed / "part-0.tar"
    content = bytearray(part.read_bytes())
    content[5_000] ^= 1
    part.write_bytes(content)
    with pytest.raises(ValueError, match=r"part-0\.tar: got sha256 \w+, expected \w+ .*bring this"):
        field_pack.arrive(packed, tmp_path / "place")
    assert not (tmp_path / "place" / "arrived.json").exists()


def test_no_manifest_is_told(tmp_path):
    with pytest.raises(ValueError, match="expected what benchmarks/field_pack.sh writes"):
        field_pack.arrive(tmp_path, tmp_path / "place")


def test_what_is_too_large_for_a_part_is_named(sources, tmp_path):
    field_pack.gather(*sources, tmp_path / "stage")
    with pytest.raises(ValueError, match=r"got rows/rows/rows-00000.npy .*expected less than"):
        field_pack.pack(tmp_path / "stage", tmp_path / "parts", limit=19_000)
    assert not (tmp_path / "parts").exists()


def test_a_data_set_that_lacks_is_named_before_anything_is_packed(sources, tmp_path):
    teacher, rows, ner = sources
    (ner / "BC5CDR-IOB" / "train.tsv").unlink()
    (ner / "BC5CDR-IOB").rmdir()
    with pytest.raises(ValueError, match="got no BC5CDR-IOB in"):
        field_pack.gather(teacher, rows, ner, tmp_path / "stage")


def test_checksums_are_those_of_the_files(packed, sources):
    manifest = read_json(packed / "manifest.json", expected="a manifest")
    assert manifest["parts"].keys() == {path.name for path in packed.glob("*.tar")}
    assert sorted(manifest["files"]) == sorted(
        name for part in manifest["parts"].values() for name in part["files"]
    )
