# SPDX-License-Identifier: Apache-2.0
"""Students in their teacher's own family: they begin as its layers, and are what torch opens.

Teachers are the models of tests/golden_exports.py, of which torch has read the files: a student of
the same sizes must be the same folder, bit for bit, and give what torch gave.
"""

import dataclasses
import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from edad_jax import types
from edad_jax.data.tokenizer import load_tokenizer
from edad_jax.distillation.preflight import check_run
from edad_jax.distillation.settings import check_settings, resolve_config
from edad_jax.export import huggingface
from edad_jax.models import convert, pretrained
from edad_jax.models.config_json import family_of
from tests.golden_exports import CARD, check_read, describe, load_exports, write_and_check
from tests.tiny_models import assert_parity, assert_trees_equal
from tests.tiny_run import run_of, tiny_config

SEGMENTS = {"roberta": 1, "xlm-roberta": 1, "electra": 2, "mpnet": 0}
FAMILIES = tuple(SEGMENTS)
ADDED = 5


def write_teacher(folder, name, *, left_out=()):
    """Returns (a folder as others publish it, what torch made of it)."""
    read = write_and_check(name, folder)
    (folder / "corpus.txt").write_text("Nobody reads this.")
    values = json.loads((read.folder / "config.json").read_text())
    del values["extension_vocab_size"]  # else it is one that this project exported
    (read.folder / "config.json").write_text(json.dumps(values))
    (read.folder / "SHA256SUMS").unlink()
    if left_out:
        params = {part: tree for part, tree in read.params.items() if part not in left_out}
        save_file(convert.to_torch_names(params, read.config), read.folder / "model.safetensors")
    return read


def family_config(teacher, family, **changes):
    """Returns a run whose student has its teacher's family, sizes and parameters; all learns."""
    student = {
        "family": family,
        "type_vocab_size": SEGMENTS.get(family, 2),
        "has_pooler": False,
        "init": "teacher",
        "num_hidden_layers": 2,
        "hidden_size": 24,
        "intermediate_size": 40,
        "max_position_embeddings": 20,
        "embedding_size": 16 if family == "electra" else 0,
        "initializer_range": 0.2,
        "extension__hidden_size": 0,
    }
    options = {
        "teacher__checkpoint": str(teacher),
        "teacher__extension__hidden_size": 0,
        "teacher__frozen": (),
        "vocabulary__size": 0,
        "rows__mode": "single",
        "rows__max_length": 20,
        **{f"student__{name}": value for name, value in student.items()},
    }
    return tiny_config(teacher.parent, **(options | changes))


def begin(config, *, added=0):
    """Returns the run as it begins, on a tokenizer of 68 pieces and so many added words."""
    return run_of(config, types.Vocabulary(68, 68 + added, 4, 2, 3), total_steps=1)


def parts(run, net="student"):
    """Returns the net's parameters as they are written."""
    params = run.all_params(run.trained, net)
    return {part: tree for part, tree in params.items() if part != "projection"}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_student_of_all_layers_is_the_folder_that_torch_opened(tmp_path, family):
    read = write_teacher(tmp_path, family)
    run = begin(family_config(read.folder, family))
    student = run.nets.student.config
    assert student == read.config
    assert_trees_equal(parts(run), read.params)
    assert_parity(student, parts(run), read.outputs)
    out = tmp_path / "student"
    huggingface.save_model(out, parts(run), student, read.folder, card=CARD)
    # Which torch opened by its Auto class, without code of ours: tests/golden_exports.py.
    check_read(describe(out, parts(run)), load_exports()[family]["read"])
    config, params = pretrained.load_model(out)
    assert config == student
    assert_trees_equal(params, read.params)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_smaller_student_begins_as_a_layer_of_a_teacher_that_is_adapted(tmp_path, family):
    """The teacher is an exBERT by then, and its checkpoint alone says what it was."""
    name = "electra, wide table" if family == "electra" else family  # tables that extensions allow
    read = write_teacher(tmp_path, name)
    sizes = {"num_hidden_layers": 1, "intermediate_size": 12, "embedding_size": 0}
    config = family_config(
        read.folder,
        family,
        teacher__extension__hidden_size=12,
        teacher__frozen=("base", "pooler"),
        **{f"student__{size}": value for size, value in sizes.items()},
    )
    run = begin(config, added=ADDED)
    teacher, student = run.nets.teacher.config, run.nets.student.config
    assert teacher.extension and not teacher.base.family
    assert student.base == dataclasses.replace(read.config.base, **sizes)
    assert family_of(student.base, extended=False) == family
    ours = parts(run)
    theirs = parts(run, "teacher")
    assert_trees_equal(ours["base"]["embeddings"], read.params["base"]["embeddings"])
    assert_trees_equal(ours["extension"], {"word": theirs["extension"]["word"]})
    assert_trees_equal(
        ours["base"]["layers_0"]["attention"], read.params["base"]["layers_1"]["attention"]
    )
    assert ("relative" in ours["base"]) == (family == "mpnet")
    if family == "mpnet":
        assert_trees_equal(ours["base"]["relative"], read.params["base"]["relative"])
    tensors = convert.to_torch_names(ours, student)
    before = convert.to_torch_names(read.params, read.config)
    assert set(tensors) == {tensor for tensor in before if ".layer.1." not in tensor}


def test_a_student_of_an_exbert_that_was_exported_counts_its_positions_as_its_tokenizer(tmp_path):
    """In two stages the adapted teacher no longer names its family; its sizes must fit."""
    read = write_and_check("exbert on mpnet", tmp_path)
    config = family_config(read.folder, "mpnet", teacher__frozen=("base", "pooler"))
    words = types.Vocabulary(61, 68, 4, 2, 3)
    run = run_of(config, words, total_steps=1)
    student = run.nets.student.config
    assert (student.base.position_offset, student.extension_vocab_size) == (2, 7)
    assert_trees_equal(parts(run)["base"], read.params["base"])
    config.student.update({"family": "roberta", "type_vocab_size": 1})
    with pytest.raises(ValueError, match="'roberta', and the adapted teacher was never of it: got"):
        run_of(config, words, total_steps=1)


def test_a_student_of_a_discriminator_begins_as_it_does_with_the_teachers_fresh_head(tmp_path):
    read = write_teacher(tmp_path, "electra", left_out=("mlm",))
    run = begin(family_config(read.folder, "electra", teacher__random_heads=("mlm",)))
    assert_trees_equal(parts(run)["base"], read.params["base"])
    assert_trees_equal(parts(run)["mlm"], parts(run, "teacher")["mlm"])
    assert np.abs(parts(run)["mlm"]["transform"]["kernel"]).max() > 0


@pytest.fixture(scope="module")
def roberta(tmp_path_factory):
    """The folder of a RoBERTa, which nobody may change."""
    return write_teacher(tmp_path_factory.mktemp("roberta"), "roberta").folder


@pytest.mark.parametrize(
    ("family", "changes", "message"),
    [
        ("gpt2", {}, "student.family='gpt2' is not one of .*'roberta'.*'mpnet'"),
        ("xlm-roberta", {}, "'xlm-roberta' and the teacher is of the family 'roberta'.*empty"),
        ("electra", {"embedding_size": 16}, "'electra' and the teacher is of the family 'roberta'"),
        ("mpnet", {"init": "random"}, "'mpnet' and the teacher is of the family 'roberta'"),
        ("modernbert", {"type_vocab_size": 0}, "one of student and teacher has ModernBERT's"),
        (
            "roberta",
            {"extension__hidden_size": 6, "has_pooler": True},
            "no place .*student.extension.hidden_size=0 --config.student.has_pooler=False, or",
        ),
        ("mpnet", {"type_vocab_size": 1}, "no place .*set --config.student.type_vocab_size=0"),
        ("roberta", {"type_vocab_size": 2}, "teacher 1: .*set --config.student.type_vocab_size=1"),
        ("roberta", {"hidden_size": 48}, "48 wide and the teacher 24"),
        ("roberta", {"num_attention_heads": 4}, "num_attention_heads=3"),
        ("roberta", {"embedding_size": 16}, "got family='roberta' with embedding_size=16"),
        ("roberta", {"num_hidden_layers": 3}, "3 layers cannot"),
    ],
)
def test_what_no_student_of_the_teacher_can_be_is_said_before_text_is_read(
    roberta, tmp_path, family, changes, message
):
    changes = {f"student__{name}": value for name, value in changes.items()}
    with pytest.raises(ValueError, match=message):
        look(family_config(roberta, family, **changes), tmp_path)


def look(config, folder):
    """Does what a run does before it reads text."""
    settings = check_settings(config)
    check_run(resolve_config(config, settings), settings, str(folder / "run"))


def test_a_bert_has_no_student_of_another_family(tmp_path):
    read = write_teacher(tmp_path, "bert without pooler")
    config = family_config(read.folder, "roberta")
    with pytest.raises(ValueError, match="'roberta' and the teacher is of the family 'bert'"):
        look(config, tmp_path)
    config.student.update({"family": "", "type_vocab_size": 2})
    look(config, tmp_path)


def test_a_tokenizer_that_pads_with_another_piece_is_told_before_text_is_read(roberta, tmp_path):
    config = family_config(roberta, "roberta")
    look(config, tmp_path)
    pieces = (roberta / "vocab.txt").read_text().splitlines()
    (tmp_path / "other").mkdir()
    text = "\n".join([pieces[1], pieces[0], *pieces[2:]]) + "\n"
    (tmp_path / "other" / "vocab.txt").write_text(text)
    assert load_tokenizer(tmp_path / "other").pad_token_id == 1
    config.vocabulary.base = str(tmp_path / "other")
    with pytest.raises(ValueError, match="pads with piece 1, expected 0: a roberta counts"):
        look(config, tmp_path)
