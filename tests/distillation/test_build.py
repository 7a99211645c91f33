# SPDX-License-Identifier: Apache-2.0
import dataclasses
import json
import logging
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from edad_jax import machine, types
from edad_jax.data.prepare import prepare
from edad_jax.distillation import nets
from edad_jax.distillation.settings import check_settings
from edad_jax.models import precision, pretrained
from edad_jax.models.config import ExBertConfig
from tests.tiny_models import assert_trees_equal, tiny_bert_config
from tests.tiny_run import (
    ADDED_WORDS,
    change_teacher,
    make_inputs,
    run_of,
    tiny_config,
    write_teacher,
)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return make_inputs(tmp_path_factory.mktemp("build"))


def vocabulary(inputs, **changes):
    base_size = len((inputs / "teacher" / "vocab.txt").read_text("utf-8").splitlines())
    sizes = {"base_size": base_size, "size": base_size + ADDED_WORDS}
    return types.Vocabulary(**sizes | changes, mask_id=4, cls_id=2, sep_id=3)


def build_run(inputs, added_words=ADDED_WORDS, **changes):
    words = vocabulary(inputs)
    words = dataclasses.replace(words, size=words.base_size + added_words)
    return run_of(tiny_config(inputs, **changes), words, total_steps=10)


@pytest.mark.parametrize(
    ("name", "has_units", "expected"),
    [
        ("auto", True, "bfloat16_matmul"),
        ("auto", False, "float32"),
        ("bfloat16_matmul", True, "bfloat16_matmul"),
        ("bfloat16_matmul", False, "float32"),
        ("float32", True, "float32"),
        ("bfloat16", False, "bfloat16"),
    ],
)
def test_products_are_bfloat16_only_on_cpus_that_have_units_for_it(
    name, has_units, expected, monkeypatch
):
    monkeypatch.setattr(precision, "has_bfloat16_units", lambda: has_units)
    assert precision.resolve_precision(name).name == expected


def test_units_for_bfloat16_are_read_from_what_linux_tells(monkeypatch, tmp_path):
    for flags, expected in (("fpu avx512_bf16", True), ("amx_bf16", True), ("avx512f", False)):
        (tmp_path / "cpuinfo").write_text(f"model name\t: X\nflags\t\t: {flags} sse\n")
        monkeypatch.setattr(
            "builtins.open", lambda path, *_, **__: (tmp_path / "cpuinfo").open(encoding="utf-8")
        )
        assert machine.has_bfloat16_units() is expected
        monkeypatch.undo()


def test_auto_is_bfloat16_on_an_accelerator(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert precision.resolve_precision("auto").dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("method", "trained", "frozen"),
    [
        (
            "edad",
            {
                "teacher": {"extension", "mlm", "nsp"},
                "student": {"base", "extension", "pooler", "mlm", "nsp", "projection"},
            },
            {"base", "pooler"},
        ),
        ("adaptation", {"teacher": {"extension", "mlm", "nsp"}}, {"base", "pooler"}),
    ],
)
def test_what_each_method_trains_and_what_it_only_reads(inputs, method, trained, frozen):
    run = build_run(inputs, method=method)
    assert {net: set(params) for net, params in run.trained.items()} == trained
    assert set(run.frozen["teacher"]) == frozen
    assert set(run.settings.optimizers) == set(trained)
    assert set(run.all_params(run.trained, "teacher")) == {
        "base",
        "pooler",
        "extension",
        "mlm",
        "nsp",
    }


def test_distillation_freezes_all_of_a_plain_teacher(inputs):
    run = build_run(
        inputs, 0, method="distillation", vocabulary__size=0, teacher__extension__hidden_size=0
    )
    assert set(run.trained) == set(run.settings.optimizers) == {"student"}
    assert set(run.frozen["teacher"]) == {"base", "pooler", "mlm", "nsp"}


@pytest.mark.parametrize(
    ("changes", "resting"),
    [
        ({"alpha": "linear"}, set()),
        ({"alpha": "only_distillation"}, {"mlm", "nsp", "pooler"}),
        ({"rows__mode": "single"}, {"nsp", "pooler"}),
        ({"method": "triple_adaptation"}, {"nsp", "pooler"}),
    ],
)
def test_heads_of_a_student_that_no_loss_reaches_rest_and_so_do_not_decay(inputs, changes, resting):
    run = build_run(inputs, **changes)
    assert set(run.frozen.get("student", {})) == resting
    assert set(run.trained["student"]) == {
        *{"base", "extension", "mlm", "nsp", "pooler"} - resting,
        *({"projection"} & run.trained["student"].keys()),
    }
    whole = run.all_params(run.trained, "student")
    assert {"base", "extension", "mlm", "nsp", "pooler"} <= set(whole)


@pytest.mark.parametrize(
    "changes", [{}, {"added_words": 0}, {"teacher__extension__hidden_size": 0}]
)
def test_distillation_from_blocks_or_words_that_never_learned_is_an_error(inputs, changes):
    with pytest.raises(ValueError, match="Adapt it first .--config.method=adaptation"):
        build_run(inputs, method="distillation", **changes)


def test_the_teacher_begins_with_the_checkpoint_and_fresh_added_words(inputs):
    run = build_run(inputs)
    tensors = load_file(inputs / "teacher" / "model.safetensors")
    params = run.all_params(run.trained, "teacher")
    embeddings = params["base"]["embeddings"]
    np.testing.assert_array_equal(
        embeddings["word"]["embedding"], tensors["bert.embeddings.word_embeddings.weight"]
    )
    np.testing.assert_array_equal(
        params["base"]["layers_1"]["intermediate"]["kernel"],
        tensors["bert.encoder.layer.1.intermediate.dense.weight"].T,
    )
    words = len(tensors["cls.predictions.bias"])
    np.testing.assert_array_equal(params["mlm"]["bias"][:words], tensors["cls.predictions.bias"])
    np.testing.assert_array_equal(params["mlm"]["bias"][words:], np.zeros(ADDED_WORDS))
    added = params["extension"]["word"]["embedding"]
    assert added.shape == (ADDED_WORDS, 24)
    assert 0.01 < added.std() < 0.03  # N(0, initializer_range = 0.02)


def test_gates_begin_where_the_configuration_says(inputs):
    run = build_run(inputs, teacher__gate_bias=2.0, student__gate_bias=-1.0)
    for net, bias in (("teacher", 2.0), ("student", -1.0)):
        np.testing.assert_array_equal(run.trained[net]["extension"]["gates_0"]["bias"], [bias])


def test_dropout_of_the_teacher_is_the_checkpoints_unless_given(inputs):
    assert build_run(inputs).nets.teacher.config.base.hidden_dropout_prob == 0.1
    base = build_run(inputs, teacher__hidden_dropout_prob=0.0).nets.teacher.config.base
    assert (base.hidden_dropout_prob, base.attention_probs_dropout_prob) == (0.0, 0.1)


def test_another_seed_draws_another_student_and_the_same_seed_the_same(inputs):
    first, again, other = (build_run(inputs, seed=seed).trained["student"] for seed in (0, 0, 1))
    assert_trees_equal(first, again)
    table = lambda params: params["base"]["embeddings"]["word"]["embedding"]  # noqa: E731
    assert (table(first) != table(other)).any()


def test_teacher_and_student_are_drawn_apart(inputs):
    run = build_run(inputs, student__hidden_size=24, student__extension__hidden_size=12)
    ours, theirs = (run.trained[net]["extension"]["word"]["embedding"] for net in run.trained)
    assert ours.shape == theirs.shape
    assert (ours != theirs).all()


def test_a_fresh_head_is_trained_even_where_it_is_named_frozen(inputs, tmp_path):
    teacher = write_teacher(tmp_path / "teacher")
    change_teacher(teacher, {"bert.pooler.dense.weight": None, "bert.pooler.dense.bias": None})
    message = "(?s)missing.*pooler.dense.weight.*--config.teacher.random_heads=\"\\('pooler',"
    with pytest.raises(ValueError, match=message):
        build_run(inputs, teacher__checkpoint=str(teacher))
    run = build_run(inputs, teacher__checkpoint=str(teacher), teacher__random_heads=("pooler",))
    assert "pooler" in run.trained["teacher"]
    assert set(run.frozen["teacher"]) == {"base"}


def test_the_whole_teacher_can_be_trained(inputs):
    run = build_run(inputs, teacher__frozen=())
    assert "base" in run.trained["teacher"]
    assert run.frozen["teacher"] == {}


def test_a_misspelt_part_to_freeze_is_an_error(inputs):
    """Otherwise the original BERT would be trained, and nobody told."""
    with pytest.raises(ValueError, match=r"config.teacher.frozen names \['bse'\].*base, "):
        build_run(inputs, teacher__frozen=("bse", "pooler"))


def test_unknown_pieces_are_masked_unless_pieces_have_weights(inputs):
    words = vocabulary(inputs, unk_id=1)
    words = dataclasses.replace(words, token_counts=np.ones(words.size, np.int64))
    special_ids = [
        run_of(
            tiny_config(inputs, masking__smoothing=smoothing), words, total_steps=10
        ).settings.masking.special_ids
        for smoothing in (0.0, 0.7)
    ]
    assert special_ids == [(2, 3), (2, 3, 1)]


def test_alpha_and_learning_rates_follow_the_configuration(inputs):
    settings = build_run(
        inputs,
        alpha="linear_reverse",
        optimizer__schedule="warmup_linear",
        optimizer__warmup_ratio=0.2,
        optimizer__student_learning_rate=3.0,
        optimizer__teacher_learning_rate=1.0,
    ).settings
    assert float(settings.alpha(0)) == 0.0
    assert float(settings.learning_rate["student"](2)) == pytest.approx(3.0)  # 20% of ten steps
    assert float(settings.learning_rate["teacher"](2)) == pytest.approx(1.0)
    assert float(settings.learning_rate["teacher"](6)) == pytest.approx(0.5)


def test_a_hidden_size_that_heads_do_not_divide_is_an_error(inputs):
    with pytest.raises(ValueError, match="hidden_size=13.*num_attention_heads=3"):
        build_run(inputs, student__hidden_size=13)


def test_a_tokenizer_that_does_not_fit_is_an_error_before_anything_is_trained(inputs):
    config = tiny_config(inputs)
    with pytest.raises(ValueError, match="tokenizer has 7 pieces"):
        run_of(config, vocabulary(inputs, base_size=7), total_steps=1)


@pytest.mark.parametrize("text", [None, "{}", '{"model_type": "bert"}'])
def test_a_plain_bert_is_not_taken_for_an_export(tmp_path, text):
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    assert not nets.is_exported(str(tmp_path))


def test_added_words_begin_as_the_mean_of_their_base_pieces_where_asked(inputs):
    words = vocabulary(inputs)
    pieces = [(7, 9), (), *[(8,)] * (ADDED_WORDS - 2)]
    words = dataclasses.replace(words, added_pieces=pieces)
    runs = {
        how: run_of(tiny_config(inputs, teacher__added_word_init=how), words, total_steps=10)
        for how in ("random", "pieces")
    }
    tables = {
        how: run.trained["teacher"]["extension"]["word"]["embedding"] for how, run in runs.items()
    }
    base_vd = runs["pieces"].frozen["teacher"]["base"]["embeddings"]["word"]["embedding"]
    np.testing.assert_array_equal(tables["pieces"][0], (base_vd[7] + base_vd[9]) / 2)
    np.testing.assert_array_equal(tables["pieces"][1], tables["random"][1])
    np.testing.assert_array_equal(tables["pieces"][2], base_vd[8])
    with pytest.raises(ValueError, match="got the pieces of 3 added words, expected 20"):
        run_of(
            tiny_config(inputs, teacher__added_word_init="pieces"),
            dataclasses.replace(words, added_pieces=pieces[:3]),
            total_steps=10,
        )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"teacher__added_word_init": "zeros"},
            "config.teacher.added_word_init='zeros' is not one of",
        ),
        ({"student__init": "copy"}, "config.student.init='copy' is not one of random, teacher"),
        ({"student__inherit__layer_rule": "every"}, "layer_rule='every' is not one of uniform, "),
        ({"student__inherit__feed_forward": "all"}, "feed_forward='all' is not one of largest, r"),
        ({"student__inherit__width": "any"}, "width='any' is not one of equal, energetic"),
        ({"student__inherit__layers": (1,)}, r"layers=\(1,\) with layer_rule='uniform': expected"),
        ({"student__inherit__layer_rule": "listed"}, r"layers=\(\) with .*one teacher layer for"),
        (
            {"student__type_vocab_size": 0, "student__extension__hidden_size": 0},
            "has_pooler=True.*no kind of checkpoint can hold",
        ),
        ({"vocabulary__from_scratch": True}, "set config.teacher.from_scratch too"),
        ({"dtype": "float16"}, "is not one of auto, float32, bfloat16, bfloat16_matmul"),
    ],
)
def test_settings_that_do_not_go_together_are_named_at_once(inputs, changes, message):
    with pytest.raises(ValueError, match=message):
        check_settings(tiny_config(inputs, **changes))


def test_a_student_may_begin_with_its_teachers_layers(inputs):
    sizes = {"hidden_size": 24, "num_attention_heads": 3, "intermediate_size": 40}
    extension = {"hidden_size": 12, "intermediate_size": 16, "num_attention_heads": 3}
    changes = {f"student__{name}": size for name, size in sizes.items()}
    changes |= {f"student__extension__{name}": size for name, size in extension.items()}
    run = build_run(inputs, student__init="teacher", **changes)
    student = run.trained["student"]
    teacher = run.all_params(run.trained, "teacher")
    for part, layer in (("base", "layers_0"), ("extension", "layers_0"), ("extension", "gates_0")):
        taught = layer.replace("0", "1")  # one layer: it imitates the teacher's last, of two
        assert_trees_equal(student[part][layer], teacher[part][taught])
    np.testing.assert_array_equal(
        student["base"]["embeddings"]["word"]["embedding"],
        teacher["base"]["embeddings"]["word"]["embedding"],
    )
    assert_trees_equal(student["mlm"], teacher["mlm"])


@pytest.mark.parametrize(
    ("changes", "layer"),
    [({"layer_rule": "distilbert"}, 0), ({"layer_rule": "listed", "layers": (1,)}, 1)],
)
def test_the_teachers_layers_are_chosen_by_the_rule(inputs, changes, layer):
    sizes = {
        "hidden_size": 24,
        "num_attention_heads": 3,
        "intermediate_size": 40,
        "init": "teacher",
    }
    changes = {f"student__inherit__{name}": value for name, value in changes.items()}
    run = build_run(inputs, **changes, **{f"student__{name}": size for name, size in sizes.items()})
    taught = run.all_params(run.trained, "teacher")["base"][f"layers_{layer}"]
    assert_trees_equal(run.trained["student"]["base"]["layers_0"], taught)


def test_a_narrower_student_may_begin_with_parts_of_its_teacher(inputs):
    changes = {"student__init": "teacher", "student__inherit__width": "energetic"}
    run = build_run(inputs, **changes, student__intermediate_size=8)
    word = run.trained["student"]["base"]["embeddings"]["word"]["embedding"]
    teacher = run.frozen["teacher"]["base"]["embeddings"]["word"]["embedding"]
    assert word.shape[1] < teacher.shape[1]
    assert all(any((column == other).all() for other in teacher.T) for column in word.T)


def test_a_student_of_another_width_cannot_begin_with_its_teachers_layers(inputs):
    with pytest.raises(ValueError, match="config.student.hidden_size=24"):
        build_run(inputs, student__init="teacher")


def test_a_teacher_from_scratch_has_only_the_sizes_of_its_checkpoint(inputs):
    words = dataclasses.replace(vocabulary(inputs), base_size=50, size=50)
    config = tiny_config(
        inputs,
        method="adaptation",
        teacher__from_scratch=True,
        vocabulary__from_scratch=True,
        teacher__extension__hidden_size=0,
        teacher__frozen=(),
    )
    check_settings(config)
    run = run_of(config, words, total_steps=10)
    assert run.frozen["teacher"] == {}
    params = run.trained["teacher"]
    assert params["base"]["embeddings"]["word"]["embedding"].shape == (50, 24)
    tensors = load_file(inputs / "teacher" / "model.safetensors")
    position = tensors["bert.embeddings.position_embeddings.weight"]
    assert not np.allclose(params["base"]["embeddings"]["position"]["embedding"], position)


def test_extension_blocks_may_begin_as_copies_of_the_blocks_beside_them(finished, tmp_path):
    prepared = prepare(tiny_config(finished.inputs, prepared=str(finished.workdir)), tmp_path)
    begun = {}
    for name, changes in {
        "random": {},
        "copy": {"teacher__extension_init": "copy"},
        "both": {
            "teacher__extension_init": "copy",
            "student__init": "teacher",
            "student__inherit__extension": "copy",
            "student__hidden_size": 24,
            "student__intermediate_size": 40,
        },
    }.items():
        config = tiny_config(finished.inputs, **changes)
        given = {"total_steps": 10, "rows": prepared.train}
        begun[name] = run_of(config, prepared.vocabulary, **given)
    random, copy, both = (each.trained["teacher"]["extension"] for each in begun.values())
    base = begun["copy"].frozen["teacher"]["base"]
    for layer in ("layers_0", "layers_1"):
        assert_trees_equal(copy[layer]["output_norm"], base[layer]["output_norm"])
        assert not np.allclose(copy[layer]["output"]["kernel"], random[layer]["output"]["kernel"])
        assert_trees_equal(copy[layer], both[layer])
    assert_trees_equal(copy["gates_0"], random["gates_0"])
    student = begun["both"].trained["student"]
    # Its one layer is the teacher's last, and its extension a copy of that.
    assert_trees_equal(student["base"]["layers_0"], base["layers_1"])
    assert_trees_equal(
        student["extension"]["layers_0"]["output_norm"], base["layers_1"]["output_norm"]
    )


def test_where_only_shapes_are_asked_for_nothing_is_copied(inputs):
    run = build_run(inputs, teacher__extension_init="copy")
    assert_trees_equal(run.trained["teacher"], build_run(inputs).trained["teacher"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"teacher__extension_init": "svd"}, "extension_init='svd' is not one of random, copy"),
        (
            {"student__init": "teacher", "student__inherit__extension": "random"},
            "inherit.extension='random' is not one of teacher, copy",
        ),
    ],
)
def test_another_beginning_of_an_extension_is_an_error(inputs, changes, message):
    with pytest.raises(ValueError, match=message):
        check_settings(tiny_config(inputs, **changes))


def test_a_fresh_mlm_head_may_begin_with_how_often_pieces_occur(inputs):
    words = vocabulary(inputs)
    counts = np.arange(words.size, dtype=np.int64)
    words = dataclasses.replace(words, token_counts=counts)
    fresh = {"mlm_head_init": "frequencies", "teacher__random_heads": ("mlm",)}
    run = run_of(tiny_config(inputs, **fresh), words, total_steps=10)
    bias = run.trained["student"]["mlm"]["bias"]
    np.testing.assert_array_equal(bias, run.trained["teacher"]["mlm"]["bias"])
    seen = np.where(np.isin(counts, (words.cls_id, words.sep_id)), 1, counts + 1)
    shares = np.exp(bias) / np.exp(bias).sum()
    np.testing.assert_allclose(shares, seen / seen.sum(), rtol=1e-5)

    # A head that has learned keeps what it knows.
    learned = run_of(
        tiny_config(inputs, mlm_head_init="frequencies"), words, total_steps=10
    ).trained["teacher"]["mlm"]["bias"]
    plain = run_of(tiny_config(inputs), words, total_steps=10).trained
    np.testing.assert_array_equal(learned, plain["teacher"]["mlm"]["bias"])
    np.testing.assert_array_equal(plain["student"]["mlm"]["bias"], 0.0)
    with pytest.raises(ValueError, match="mlm_head_init='ones' is not one of random, frequencies"):
        check_settings(tiny_config(inputs, mlm_head_init="ones"))


def test_mlm_heads_by_regression_are_those_that_start_afresh(finished, tmp_path, caplog):
    changes = {"mlm_head_init": "regression", "prepared": str(finished.workdir)}
    prepared = prepare(tiny_config(finished.inputs, **changes), tmp_path)

    def fitted_to_text(**more):
        caplog.clear()
        config = tiny_config(finished.inputs, **changes, **more)
        run = run_of(config, prepared.vocabulary, total_steps=10, rows=prepared.train)
        nets = [name for name in ("teacher", "student") if f"{name}: an MLM head" in caplog.text]
        return nets, {net: tree["mlm"]["bias"] for net, tree in run.trained.items()}

    with caplog.at_level(logging.INFO):
        nets, bias = fitted_to_text(teacher__random_heads=("mlm",))
        assert nets == ["teacher", "student"]
        np.testing.assert_array_equal(bias["teacher"], bias["student"])
        assert np.ptp(bias["student"]) > 1
        nets, _ = fitted_to_text()  # the teacher's head has learned
        assert nets == ["student"]


def test_a_word_table_that_is_rounded_up_is_cut_to_its_tokenizer(inputs, tmp_path, caplog):
    shutil.copytree(inputs / "teacher", tmp_path / "teacher")
    words = vocabulary(inputs)
    tensors = load_file(tmp_path / "teacher" / "model.safetensors")
    named = next(name for name in tensors if name.endswith("word_embeddings.weight"))
    whole = tensors[named]
    padded = {named: np.concatenate([whole, np.full((3, whole.shape[1]), 9.0, np.float32)])}
    for name in tensors:
        if name.endswith(("predictions.bias", "decoder.bias")):
            padded[name] = np.append(tensors[name], np.zeros(3, np.float32))
    change_teacher(tmp_path / "teacher", padded)
    sizes = json.loads((tmp_path / "teacher" / "config.json").read_text())
    sizes["vocab_size"] += 3
    (tmp_path / "teacher" / "config.json").write_text(json.dumps(sizes))
    with caplog.at_level(logging.INFO):
        run = build_run(inputs, teacher__checkpoint=str(tmp_path / "teacher"))
    assert "the last 3 are padding; they are left out" in caplog.text
    assert run.nets.teacher.config.base.vocab_size == words.base_size
    table = run.frozen["teacher"]["base"]["embeddings"]["word"]["embedding"]
    np.testing.assert_array_equal(table, whole)
    assert_trees_equal(run.trained["teacher"]["mlm"], build_run(inputs).trained["teacher"]["mlm"])


def test_a_word_table_of_another_vocabulary_is_still_an_error():
    config = ExBertConfig(tiny_bert_config(vocab_size=61 + 129), None, 0)
    params = {"base": {"embeddings": {"word": {"embedding": np.zeros((190, 24))}}}}
    for size in (61, 200):  # 129 rows too many; 10 too few
        assert pretrained.cut_padding(config, params, size, "x")[0] is config
    cut, _ = pretrained.cut_padding(config, params, 62, "x")
    assert cut.vocab_size == 62
