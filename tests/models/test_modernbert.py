# SPDX-License-Identifier: Apache-2.0
"""ModernBERT: parity with torch, its config.json, and its checkpoints in and out."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime
import pytest
from safetensors.numpy import load_file

from edad_jax.export import formats
from edad_jax.export.graph import INPUTS
from edad_jax.export.onnx import build_onnx
from edad_jax.models import convert, pretrained
from edad_jax.models.config import ExBertConfig, Execution, ModernConfig
from edad_jax.models.config_json import bert_config, family_of, sizes_json
from edad_jax.models.exbert import ExBert
from edad_jax.models.hf_files import load_checkpoint
from tests.golden_exports import MODERN, write_and_check
from tests.tiny_models import (
    GOLDEN,
    assert_parity,
    assert_trees_equal,
    load_golden,
    tiny_batch,
    tiny_bert_config,
)

FOLDER = GOLDEN / "modernbert"
NEW = {
    "model_type": "modernbert",
    "num_hidden_layers": 3,
    "layer_types": ["full_attention", "sliding_attention", "sliding_attention"],
    "rope_parameters": {
        "full_attention": {"rope_type": "default", "rope_theta": 80_000.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 5_000.0},
    },
}


@pytest.fixture(scope="module")
def golden():
    """Sizes and parameters of the golden checkpoint."""
    checkpoint = load_checkpoint(str(FOLDER))
    config = bert_config(checkpoint.config)
    return ExBertConfig(config, None, 0), convert.bert_params(checkpoint, config)


# Parity


def test_golden_torch_is_matched(golden):
    assert_parity(*golden, load_golden("modernbert"))


def test_gradients_are_as_large_as_torchs(golden):
    config, params = golden
    torchs = load_golden("modernbert")
    ids_bt, mask_bt = torchs["ids_bt"], torchs["mask_bt"]
    # On a CPU fused attention is the compiler's; local layers have their own form beside it.
    model = ExBert(config, jnp.float32, None, Execution(remat="blocks", attention="fused"))
    positions_bt = np.broadcast_to(np.arange(ids_bt.shape[1]), ids_bt.shape)
    asked_bt = mask_bt & (ids_bt % 3 == 0)

    @jax.jit
    @jax.value_and_grad
    def loss(params):
        variables = {"params": params}
        output = model.apply(variables, ids_bt, torchs["segments_bt"], mask_bt, method="encode")
        logits_btv = model.apply(
            variables, output.last_hidden_btd, positions_bt, method="mlm_logits"
        )
        log_btv = jax.nn.log_softmax(logits_btv)
        loss_bt = -jnp.take_along_axis(log_btv, ids_bt[..., None], axis=-1)[..., 0]
        return jnp.where(asked_bt, loss_bt, 0).sum() / asked_bt.sum()

    value, gradients = loss(params)
    np.testing.assert_allclose(value, torchs["mlm_loss"], rtol=1e-5)
    norms = {
        f"gradient_norm/{name}": float(np.linalg.norm(gradient))
        for name, gradient in convert.to_torch_names(gradients, config).items()
    }
    expected = {name: float(torchs[name]) for name in torchs if name.startswith("gradient_norm/")}
    assert norms == pytest.approx(expected, rel=1e-5)


def test_rows_longer_than_the_positions_are_an_error(golden):
    model, batch = ExBert(golden[0], jnp.float32), tiny_batch(68, length=21)
    with pytest.raises(ValueError, match="rows of 21 pieces do not fit max_position_embeddings=20"):
        jax.eval_shape(lambda params: model.apply({"params": params}, batch), golden[1])


def test_heads_of_an_odd_width_cannot_rotate():
    with pytest.raises(ValueError, match="heads of 5 numbers, and rotary positions need an even"):
        tiny_bert_config(**MODERN, hidden_size=15)


# config.json


def test_the_words_of_both_generations_of_transformers_are_read():
    new = bert_config(NEW).modern
    assert new == ModernConfig(64, (0,), 80_000.0, 5_000.0)
    old = {"model_type": "modernbert", "global_rope_theta": 80_000.0, "local_rope_theta": 5_000.0}
    config = bert_config(old | {"num_hidden_layers": 3})
    assert config.modern == new
    assert (config.max_position_embeddings, config.layer_norm_eps) == (8192, 1e-5)
    # null is no silence here: then local layers turn as global ones do.
    assert bert_config(old | {"local_rope_theta": None}).modern.local_theta == 80_000.0
    base = bert_config({"model_type": "modernbert"})
    assert base.modern.global_layers == (0, 3, 6, 9, 12, 15, 18, 21)
    assert (base.modern.global_theta, base.modern.local_theta) == (160_000.0, 10_000.0)


@pytest.mark.parametrize("layers", [(0,), (0, 1), (1,), ()])
def test_sizes_survive_config_json(layers):
    modern = ModernConfig(3, layers, 1e5, 2e4, pooling="mean")
    config = tiny_bert_config(**(MODERN | {"modern": modern}))
    values = json.loads(json.dumps(sizes_json(config, extended=False)))
    assert bert_config(values) == config
    assert values["model_type"] == family_of(config, extended=False) == "modernbert"
    assert ("global_attn_every_n_layers" in values) == (0 in layers)
    if "global_attn_every_n_layers" in values:  # the old words say the same
        del values["layer_types"], values["rope_parameters"]
        assert bert_config(values) == config


def rotated(**settings):
    return {"full_attention": {"rope_theta": 1e4} | settings}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rope_parameters": rotated(rope_type="yarn", factor=4.0)}, "rope_type='yarn' for full_"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_type='linear'.*no.* scaled"),
        ({"rope_scaling": "linear"}, "rope_scaling='linear', expected 'settings of rotary"),
        ({"rope_parameters": {"rope_theta": 1e4}}, "rope_parameters=.*expected .settings of full"),
        ({"rope_parameters": rotated(rope_theta="1e4")}, "rope_theta='1e4', expected 'a number'"),
        ({"layer_types": ["full_attention"]}, "layer_types=.*expected .for each of 22 layers"),
        ({"layer_types": ["linear_attention"] * 22}, "layer_types=.*full_attention or sliding"),
        ({"layer_types": [["full_attention"]] * 22}, "layer_types=.*full_attention or sliding"),
        ({"attention_dropout": 1.5}, "attention_probs_dropout_prob=1.5, expected a share from 0"),
        ({"global_attn_every_n_layers": 0}, "global_attn_every_n_layers=0, expected '1 or more'"),
        ({"local_attention": 128.5}, "local_attention=128.5, expected 'a whole number'"),
        ({"local_attention": 1}, "got window=0, expected more than 0"),
        ({"norm_bias": True}, "norm_bias=True, expected False"),
        ({"attention_bias": True}, "attention_bias=True, expected False"),
        ({"hidden_activation": "silu"}, "hidden_activation='silu', expected 'gelu'"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings=False, expected True"),
        ({"classifier_pooling": "max"}, "classifier_pooling='max', expected 'cls or mean'"),
        ({"mlp_dropout": 0.1}, "embedding_dropout=0.0 and mlp_dropout=0.1, expected one rate"),
        ({"is_decoder": True}, "is_decoder=true"),
    ],
)
def test_a_config_json_of_another_net_is_an_error(values, message):
    with pytest.raises(ValueError, match=message):
        bert_config({"model_type": "modernbert"} | values)


def test_dropout_rates_may_be_set_from_outside():
    config = bert_config({"model_type": "modernbert", "mlp_dropout": 0.1}, hidden_dropout_prob=0.2)
    assert (config.hidden_dropout_prob, config.attention_probs_dropout_prob) == (0.2, 0.0)


@pytest.mark.parametrize(
    "options",
    [
        {"family": ""},
        {"has_pooler": True},
        {"type_vocab_size": 2},
        {"embedding_size": 8},
        {"hidden_act": "gelu_new"},
    ],
)
def test_sizes_that_no_checkpoint_can_hold_are_an_error(options):
    with pytest.raises(ValueError, match="got ModernBERT's blocks with .*no kind of checkpoint"):
        family_of(tiny_bert_config(**(MODERN | options)), extended=False)


# Checkpoints


def test_a_checkpoint_comes_back_as_it_was(golden):
    config, params = golden
    tensors = load_file(FOLDER / "model.safetensors")
    ours = convert.to_torch_names(params, config)
    assert_trees_equal(dict(sorted(ours.items())), dict(sorted(tensors.items())))
    assert_trees_equal(convert.from_torch_names(tensors, config), params)
    # As ModernBertModel has them, and with the tied decoder beside them.
    bare = {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
    bare["decoder.weight"] = bare["embeddings.tok_embeddings.weight"].copy()
    assert_trees_equal(convert.from_torch_names(bare, config), params)
    with pytest.raises(ValueError, match="decoder.weight differs from embeddings.tok_embeddings"):
        convert.from_torch_names(bare | {"decoder.weight": bare["decoder.weight"] + 1}, config)
    del bare["layers.1.attn.Wqkv.weight"]
    with pytest.raises(ValueError, match="missing .3.:\n *layers.1.attn.Wqkv.0.weight"):
        convert.from_torch_names(bare, config)


def test_torch_computes_ours_from_what_is_saved(tmp_path):
    read = write_and_check("modernbert, other layers", tmp_path)
    assert read.opened_by == "ModernBertForMaskedLM"
    assert_parity(read.config, read.params, read.outputs)
    (hidden_btd,) = run_onnx(read)
    where = read.outputs["mask_bt"]
    np.testing.assert_allclose(hidden_btd[where], read.outputs["hidden_2_btd"][where], atol=1e-5)


@pytest.mark.parametrize(
    "name",
    [
        "modernbert for tagging",
        "modernbert, mean for classification",
        "modernbert for answering",
    ],
)
def test_fine_tuned_models_go_there_and_back(tmp_path, name):
    read = write_and_check(name, tmp_path)
    assert read.opened_by.startswith("ModernBertFor")
    loaded_config, loaded, task = pretrained.load_task_model(read.folder)
    assert (loaded_config, task) == (read.config, read.task)
    assert_trees_equal(loaded, read.params)
    model = formats.Model("", read.config, read.params, read.task)
    inputs = (read.outputs[part] for part in ("ids_bt", "mask_bt", "segments_bt"))
    forward = jax.jit(lambda params, *inputs: formats.forward(model, params, *inputs))
    ours = np.stack(forward(read.params, *inputs), -1)
    where = slice(None) if task.kind == "classification" else read.outputs["mask_bt"]
    ours = ours if task.kind == "answering" else ours[..., 0]
    expected = read.outputs["logits"][where]
    limit = 5e-6 * np.abs(expected).max()
    np.testing.assert_allclose(ours[where], expected, atol=limit)
    in_onnx = np.stack(run_onnx(read), -1)
    in_onnx = in_onnx if task.kind == "answering" else in_onnx[..., 0]
    np.testing.assert_allclose(in_onnx[where], expected, atol=limit)
    rounded = np.stack(run_onnx(read, int8=True), -1)
    rounded = rounded if task.kind == "answering" else rounded[..., 0]
    assert np.corrcoef(rounded[where].ravel(), expected.ravel())[0, 1] > 0.99


def run_onnx(read, **options):
    """Returns what onnxruntime makes of a model's graph and of torch's inputs."""
    graph = build_onnx(read.config, read.params, read.task, **options)
    session = onnxruntime.InferenceSession(
        graph.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    inputs = (read.outputs[part] for part in ("ids_bt", "mask_bt", "segments_bt"))
    feed = {name: each.astype(np.int64) for name, each in zip(INPUTS, inputs, strict=True)}
    return session.run(None, feed)
