# SPDX-License-Identifier: Apache-2.0
"""What a student takes of its teacher: exact where sizes are equal, by stated rules elsewhere."""

import copy
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from edad_jax.distillation import student_init
from edad_jax.distillation.student_init import InitSettings, Rules
from edad_jax.models import factorised, narrowing
from edad_jax.models.config import ExBertConfig
from edad_jax.models.exbert import ExBert
from tests.tiny_models import (
    assert_trees_equal,
    random_params,
    tiny_batch,
    tiny_bert_config,
    tiny_exbert_config,
)

ALBERT = {"shares_layers": True, "embedding_size": 16}


def plain(**changes):
    return ExBertConfig(tiny_bert_config(**changes), extension=None, extension_vocab_size=0)


def begin(student, teacher, teacher_params=None, **rules):
    """Returns (the teacher's parameters, those of a student that begins with them)."""
    theirs = random_params(teacher, seed=1) if teacher_params is None else teacher_params
    before = copy.deepcopy(theirs)
    rules.setdefault("layers", tuple(range(student.base.num_hidden_layers)))
    ours = student_init.inherit(random_params(student), student, theirs, teacher, Rules(**rules))
    assert_trees_equal(theirs, before)  # nothing is done to the teacher
    assert jax.tree.structure(ours) == jax.tree.structure(random_params(student))
    return theirs, ours


def run(config, params, *, segments=True):
    batch = tiny_batch(61)
    if not segments:
        batch = batch._replace(segments_bt=np.zeros_like(batch.segments_bt))
    output, mlm_logits, _ = ExBert(config, jnp.float32).apply({"params": params}, batch)
    return np.asarray(output.last_hidden_btd)[batch.mask_bt], np.concatenate(mlm_logits, axis=-1)


@pytest.mark.parametrize(
    ("depths", "expected"),
    [
        ((12, 6), (0, 2, 4, 7, 9, 11)),
        ((12, 4), (0, 4, 7, 11)),
        ((12, 3), (0, 6, 11)),
        ((12, 1), (0,)),
        ((12, 12), tuple(range(12))),
        ((6, 3), (0, 3, 5)),
        ((1, 1), (0,)),
    ],
)
def test_distilberts_layers_go_from_first_to_last(depths, expected):
    assert student_init.distilbert_layers(*depths) == expected


def test_a_student_deeper_than_its_teacher_has_no_layers_to_begin_with():
    with pytest.raises(ValueError, match="student of 3 layers cannot .*teacher that has 2"):
        student_init.distilbert_layers(2, 3)


@pytest.mark.parametrize("layers", [(0,), (0, 4), (-1, 0)])
def test_listed_layers_must_be_the_teachers_and_as_many_as_the_students(layers):
    settings = {"init": "teacher", "num_hidden_layers": 2, "layer_rule": "listed"}
    assert InitSettings(**settings, layers=(3, 1)).rules(4).layers == (3, 1)
    with pytest.raises(ValueError, match="inherit.layers=.*the student's 2"):
        InitSettings(**settings, layers=layers).rules(4)


def test_a_student_of_equal_sizes_is_a_copy():
    config = tiny_exbert_config()
    theirs, ours = begin(config, config)
    assert_trees_equal(ours, theirs)


@pytest.mark.parametrize("layers", [(0, 3), (2, 1)])
def test_layers_and_gates_are_those_that_are_named(layers):
    theirs, ours = begin(
        tiny_exbert_config(), tiny_exbert_config(num_hidden_layers=4), layers=layers
    )
    for number, layer in enumerate(layers):
        for part, kind in (("base", "layers"), ("extension", "layers"), ("extension", "gates")):
            assert_trees_equal(ours[part][f"{kind}_{number}"], theirs[part][f"{kind}_{layer}"])
    for head in ("pooler", "mlm", "nsp"):
        assert_trees_equal(ours[head], theirs[head])


def test_a_narrower_feed_forward_keeps_the_units_that_weigh_most():
    teacher, student = plain(), plain(intermediate_size=10)
    theirs, ours = begin(student, teacher)
    for layer in ("layers_0", "layers_1"):
        inner, outer = theirs["base"][layer]["intermediate"], theirs["base"][layer]["output"]
        weights = [
            np.sqrt((inner["kernel"][:, unit] ** 2).sum() * (outer["kernel"][unit] ** 2).sum())
            for unit in range(40)
        ]
        kept = sorted(range(40), key=lambda unit: -weights[unit])[:10]
        expected = inner["kernel"][:, sorted(kept)]
        np.testing.assert_array_equal(ours["base"][layer]["intermediate"]["kernel"], expected)
        expected = outer["kernel"][sorted(kept)]
        np.testing.assert_array_equal(ours["base"][layer]["output"]["kernel"], expected)
        np.testing.assert_array_equal(ours["base"][layer]["output"]["bias"], outer["bias"])


def test_dropped_units_that_say_nothing_are_not_missed():
    teacher, student = plain(), plain(intermediate_size=10)
    params = random_params(teacher)
    for number in range(2):
        params["base"][f"layers_{number}"]["output"]["kernel"][5:35] = 0.0
    _, ours = begin(student, teacher, params)
    for got, expected in zip(run(student, ours), run(teacher, params), strict=True):
        np.testing.assert_allclose(got, expected, atol=2e-5)


def test_feed_forward_layers_may_begin_at_random():
    teacher, student = plain(), plain(intermediate_size=48)
    with pytest.raises(ValueError, match="48 units .*teacher's 40.*feed_forward='random'"):
        begin(student, teacher)
    theirs, ours = begin(student, teacher, feed_forward="random")
    block, fresh = ours["base"]["layers_1"], random_params(student)["base"]["layers_1"]
    assert_trees_equal(block["intermediate"], fresh["intermediate"])
    assert_trees_equal(block["output"], fresh["output"])
    assert_trees_equal(block["attention"], theirs["base"]["layers_1"]["attention"])


def test_a_narrower_student_must_be_asked_for():
    with pytest.raises(ValueError, match="hidden_size=24, or less with .*width='energetic'"):
        begin(plain(hidden_size=12), plain())
    with pytest.raises(ValueError, match="hidden_size=24, or less"):
        begin(plain(hidden_size=48), plain(), width="energetic")


def test_a_narrower_student_keeps_the_same_coordinates_everywhere():
    teacher = tiny_exbert_config()
    student = tiny_exbert_config(hidden_size=12)
    extension = dataclasses.replace(student.extension, hidden_size=6, intermediate_size=8)
    student = dataclasses.replace(student, extension=extension)
    theirs, ours = begin(student, teacher, width="energetic")
    kept = narrowing.strongest(narrowing.coordinate_energy(theirs["base"]), 12)
    tables, cut = theirs["base"]["embeddings"], ours["base"]["embeddings"]
    for name in ("word", "position", "token_type"):
        expected = tables[name]["embedding"][:, kept]
        np.testing.assert_array_equal(cut[name]["embedding"], expected)
    np.testing.assert_array_equal(cut["norm"]["scale"], tables["norm"]["scale"][kept])
    added = theirs["extension"]["word"]["embedding"][:, kept]
    np.testing.assert_array_equal(ours["extension"]["word"]["embedding"], added)
    dense = theirs["pooler"]["dense"]["kernel"][np.ix_(kept, kept)]
    np.testing.assert_array_equal(ours["pooler"]["dense"]["kernel"], dense)
    gate = theirs["extension"]["gates_1"]["kernel"][kept]
    np.testing.assert_array_equal(ours["extension"]["gates_1"]["kernel"], gate)
    hidden, logits = run(student, ours)
    assert np.isfinite(hidden).all()
    assert np.isfinite(logits).all()


def test_coordinates_that_nothing_writes_or_reads_are_dropped():
    teacher, student = plain(), plain(hidden_size=12)
    params = random_params(teacher)
    silent = np.arange(24) % 2 == 1
    for part in jax.tree.leaves(params["base"]["embeddings"]):
        part[..., silent] = 0.0
    for number in range(2):
        block = params["base"][f"layers_{number}"]
        for name in ("attention_norm", "output_norm"):
            for leaf in block[name].values():
                leaf[silent] = 0.0
        for dense in (block["attention"]["output"], block["output"]):
            dense["kernel"][:, silent], dense["bias"][silent] = 0.0, 0.0
    _, ours = begin(student, teacher, params, width="energetic")
    expected = params["base"]["embeddings"]["word"]["embedding"][:, ~silent]
    np.testing.assert_array_equal(ours["base"]["embeddings"]["word"]["embedding"], expected)


def test_heads_keep_their_strongest_numbers_and_scores_their_size():
    teacher, student = plain(), plain(hidden_size=12)
    params = random_params(teacher)
    attention = params["base"]["layers_0"]["attention"]
    weak = np.arange(24) % 2 == 0  # half of each head of eight
    for name in ("query", "key"):
        attention[name]["kernel"][:, weak], attention[name]["bias"][weak] = 0.0, 0.0
    rules = {"layers": (0, 1), "width": "energetic"}
    _, ours = begin(student, teacher, params, **rules)
    kept = narrowing.strongest(narrowing.coordinate_energy(params["base"]), 12)
    cut = ours["base"]["layers_0"]["attention"]
    expected = attention["key"]["kernel"][np.ix_(kept, ~weak)]
    np.testing.assert_array_equal(cut["key"]["kernel"], expected)
    # Scores of any hidden states that are zero elsewhere: those of the teacher.
    some = np.random.default_rng(0).standard_normal((5, 12)).astype(np.float32)
    wide = np.zeros((5, 24), np.float32)
    wide[:, kept] = some

    def scores(hidden, attention, head_size):
        query, key = (
            hidden @ attention[n]["kernel"] + attention[n]["bias"] for n in ("query", "key")
        )
        return query[:, :head_size] @ key[:, :head_size].T / np.sqrt(head_size)

    np.testing.assert_allclose(scores(some, cut, 4), scores(wide, attention, 8), rtol=1e-4)


def test_each_layer_takes_the_one_block_of_a_teacher_that_shares():
    teacher = plain(num_hidden_layers=6, **ALBERT)
    theirs, ours = begin(plain(num_hidden_layers=2), teacher, layers=(2, 5))
    for layer in ("layers_0", "layers_1"):
        assert_trees_equal(ours["base"][layer], theirs["base"]["layers_0"])


def test_a_student_of_the_same_kind_as_an_albert_is_a_copy():
    teacher, student = plain(num_hidden_layers=6, **ALBERT), plain(num_hidden_layers=2, **ALBERT)
    theirs, ours = begin(student, teacher, layers=(2, 5))
    assert_trees_equal(ours, theirs)
    with pytest.raises(ValueError, match="student shares its layers and the teacher does not"):
        begin(plain(shares_layers=True), plain())
    with pytest.raises(ValueError, match="embedding_size=8 and the teacher 16"):
        begin(plain(embedding_size=8), teacher, layers=(0, 1))


def test_a_full_student_of_a_factorised_teacher_begins_with_the_product_table():
    teacher, student = plain(num_hidden_layers=2, **ALBERT), plain(num_hidden_layers=2)
    theirs, ours = begin(student, teacher)
    tables = theirs["base"]["embeddings"]
    word_ve = tables["word"]["embedding"]
    centred_ve = word_ve - word_ve.mean(1, keepdims=True)
    kernel_ed = tables["norm"]["scale"][:, None] * tables["projection"]["kernel"]
    np.testing.assert_allclose(
        ours["base"]["embeddings"]["word"]["embedding"], centred_ve @ kernel_ed, atol=1e-6
    )
    batch = tiny_batch(61)
    embedded = [
        np.asarray(ExBert(config, jnp.float32).apply({"params": params}, batch)[0].embedding_btd)[
            batch.mask_bt
        ]
        for config, params in ((teacher, theirs), (student, ours))
    ]
    centred = [x - x.mean(axis=1, keepdims=True) for x in embedded]
    cosines = (centred[0] * centred[1]).sum(1) / np.prod(
        [np.linalg.norm(x, axis=1) for x in centred], axis=0
    )
    assert cosines.min() > 0.95
    sizes = [np.linalg.norm(x, axis=1).mean() for x in centred]
    assert 0.8 < sizes[1] / sizes[0] < 1.25
    np.testing.assert_array_equal(ours["mlm"]["bias"], theirs["mlm"]["bias"])


@pytest.mark.parametrize(("bias", "least"), [(0.0, 0.8), (9.0, 0.9)])
def test_a_full_student_predicts_what_its_factorised_teacher_does(bias, least):
    """The larger the bias of the teacher's transform, the nearer its gelu is to a line."""
    teacher = plain(num_hidden_layers=2, vocab_size=500, **ALBERT)
    student = plain(num_hidden_layers=2, vocab_size=500)
    theirs, ours = begin(student, teacher)
    hidden_btd = 0.3 + 0.8 * np.random.default_rng(2).standard_normal((4, 25, 24))
    norm = theirs["base"]["layers_0"]["output_norm"]
    norm |= {"scale": np.full(24, 0.8, np.float32), "bias": np.full(24, 0.3, np.float32)}
    theirs["mlm"]["transform"]["bias"] += np.float32(bias)
    theirs, ours = begin(student, teacher, theirs)

    def logits(config, params):
        positions_bm = np.tile(np.arange(25), (4, 1))
        net = ExBert(config, jnp.float32)
        options = {"method": "mlm_logits"}
        logits_bmv = net.apply({"params": params}, hidden_btd, positions_bm, **options)
        return np.asarray(logits_bmv).reshape(100, -1)

    wanted, got = logits(teacher, theirs), logits(student, ours)
    random = logits(student, ours | {"mlm": random_params(student)["mlm"]})
    near, far = (
        np.mean([np.corrcoef(*pair)[0, 1] for pair in zip(wanted, other, strict=True)])
        for other in (got, random)
    )
    assert near > least > 0.4 > far
    assert 0.7 < got.std() / wanted.std() < 1.4


@pytest.mark.parametrize(("mean", "deviation"), [(0.0, 1.0), (-1.5, 0.4), (2.0, 3.0)])
def test_the_line_of_a_gelu_is_that_of_least_squares(mean, deviation):
    x = mean + deviation * np.random.default_rng(0).standard_normal(400_000)
    y = np.asarray(jax.nn.gelu(x, approximate=False))
    slope, value = factorised.fit_gelu(np.array([mean]), np.array([deviation**2]))
    np.testing.assert_allclose(slope[0], np.polyfit(x, y, 1)[0], atol=0.01)
    np.testing.assert_allclose(value[0], y.mean(), atol=0.01)


def test_a_student_without_segments_reads_as_its_teacher_reads_segment_a():
    teacher, student = plain(), plain(type_vocab_size=0, has_pooler=False)
    theirs, ours = begin(student, teacher)
    assert set(ours) == {"base", "mlm"}
    expected = run(teacher, theirs, segments=False)
    for got, wanted in zip(run(student, ours), expected, strict=True):
        np.testing.assert_allclose(got, wanted, atol=2e-5)


def test_positions_are_taken_as_far_as_they_go():
    theirs, ours = begin(plain(max_position_embeddings=30), plain())
    position = ours["base"]["embeddings"]["position"]["embedding"]
    np.testing.assert_array_equal(
        position[:20], theirs["base"]["embeddings"]["position"]["embedding"]
    )
    fresh = random_params(plain(max_position_embeddings=30))["base"]["embeddings"]["position"]
    np.testing.assert_array_equal(position[20:], fresh["embedding"][20:])


@pytest.mark.parametrize("changes", [{"hidden_size": 15}, {"intermediate_size": 20}])
def test_extension_blocks_of_more_numbers_than_the_teachers_stay_random(changes):
    teacher = tiny_exbert_config()
    student = dataclasses.replace(
        teacher, extension=dataclasses.replace(teacher.extension, **changes)
    )
    theirs, ours = begin(student, teacher)
    fresh = random_params(student)["extension"]
    assert_trees_equal(ours["extension"]["layers_0"], fresh["layers_0"])
    assert_trees_equal(ours["extension"]["word"], theirs["extension"]["word"])


@pytest.mark.parametrize(
    ("student", "message"),
    [
        (plain(vocab_size=60), "60 words and 0 added ones, the teacher 61 and 0"),
        (plain(num_attention_heads=4), "num_attention_heads=3"),
    ],
)
def test_nets_that_do_not_go_together_are_an_error(student, message):
    with pytest.raises(ValueError, match=message):
        begin(student, plain())
