# SPDX-License-Identifier: Apache-2.0
"""Writes tiny torch models and what torch computes with them, for tests without torch.

    python tests/golden/make_bert_golden.py

`bert/` is transformers' BertForPreTraining, `distilbert/`, `roberta/` and `electra/` its classes
ForMaskedLM, `albert/` its AlbertForPreTraining, and `exbert/` the modelling file that exported
models bring along. Each has
config.json, model.safetensors and outputs.npz (inputs, all hidden states, scores before mask and
softmax, MLM and NSP logits); `mpnet/` also gradients.npz. Needs torch and transformers.
"""

import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.torch import save_file

GOLDEN = Path(__file__).resolve().parent
_SIZES = {
    "vocab_size": 68,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "max_position_embeddings": 20,
    "type_vocab_size": 2,
    "initializer_range": 0.2,
}
_QUERY_KEY = ("query", "key")


def exbert_module():
    """Returns the modelling file of the package, imported by its path."""
    path = GOLDEN.parents[1] / "edad_jax" / "export" / "modeling_exbert.py"
    spec = importlib.util.spec_from_file_location("modeling_exbert", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make_bert(**changes) -> transformers.BertForPreTraining:
    """Returns transformers' BERT with random weights."""
    config = transformers.BertConfig(**(_SIZES | changes), attn_implementation="eager")
    return _randomised(transformers.BertForPreTraining(config))


def make_distilbert(**changes) -> transformers.DistilBertForMaskedLM:
    """Returns transformers' DistilBERT with random weights."""
    sizes = {"dim": 24, "n_layers": 2, "n_heads": 3, "hidden_dim": 40, "vocab_size": 68}
    sizes |= {"max_position_embeddings": 20, "attn_implementation": "eager"}
    config = transformers.DistilBertConfig(**(sizes | changes))
    return _randomised(transformers.DistilBertForMaskedLM(config))


def make_albert(name: str = "AlbertForPreTraining", **changes) -> transformers.PreTrainedModel:
    """Returns one of transformers' ALBERTs with random weights: three layers of one block."""
    sizes = _SIZES | {"num_hidden_layers": 3, "embedding_size": 16, "attn_implementation": "eager"}
    return _randomised(getattr(transformers, name)(transformers.AlbertConfig(**(sizes | changes))))


def make_roberta(**changes) -> transformers.RobertaForMaskedLM:
    """Returns transformers' RoBERTa with random weights: positions from 2 on, one segment."""
    sizes = _SIZES | {"type_vocab_size": 1, "layer_norm_eps": 1e-5, "attn_implementation": "eager"}
    return _randomised(
        transformers.RobertaForMaskedLM(transformers.RobertaConfig(**(sizes | changes)))
    )


def make_electra(**changes) -> transformers.ElectraForMaskedLM:
    """Returns transformers' ELECTRA with random weights: a generator with narrow tables."""
    sizes = _SIZES | {"embedding_size": 16, "attn_implementation": "eager"}
    return _randomised(
        transformers.ElectraForMaskedLM(transformers.ElectraConfig(**(sizes | changes)))
    )


def make_mpnet(**changes) -> transformers.MPNetForMaskedLM:
    """Returns transformers' MPNet with random weights: positions from 2 on, a bias of scores."""
    sizes = _SIZES | {"max_position_embeddings": 26, "layer_norm_eps": 1e-5}
    del sizes["type_vocab_size"]
    config = transformers.MPNetConfig(**(sizes | changes), attn_implementation="eager")
    return _randomised(transformers.MPNetForMaskedLM(config))


def make_exbert():
    """Returns our torch exBERT with random weights: 61 base words and 7 added ones."""
    module = exbert_module()
    config = module.ExBertConfig(
        **_SIZES,
        extension_vocab_size=7,
        extension_hidden_size=12,
        extension_num_attention_heads=3,
        extension_intermediate_size=16,
        hidden_act="gelu",
    )
    return _randomised(module.ExBertForPreTraining(config))


def _randomised(model):
    """Gives biases and norms values too, so that a swapped name cannot stay unseen."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            centre = 1.0 if re.search("(LayerN|layer_n)orm.weight$", name) else 0.0
            parameter.copy_(centre + 0.2 * torch.randn_like(parameter))
    return model.eval()


def run(model, *, rows: int = 2, length: int = 10) -> dict[str, np.ndarray]:
    """Returns padded inputs and what the model makes of them, as NumPy arrays."""
    random = np.random.default_rng(0)
    lengths_b = length - 3 * np.arange(rows)
    positions_1t = np.arange(length)[None]
    mask_bt = positions_1t < lengths_b[:, None]
    padding = model.config.pad_token_id or 0  # RoBERTa's positions count what is another piece
    ids_bt = random.integers(padding + 1, model.config.vocab_size, mask_bt.shape)
    ids_bt = np.where(mask_bt, ids_bt, padding)
    segments_bt = ((positions_1t >= 5) & mask_bt).astype(np.int32)
    scores, hooks = _record_scores(model)
    inputs = {"input_ids": ids_bt, "token_type_ids": segments_bt, "attention_mask": mask_bt}
    if getattr(model.config, "type_vocab_size", 0) < 2:
        del inputs["token_type_ids"]
    with torch.no_grad():
        output = model(
            **{name: torch.from_numpy(array).long() for name, array in inputs.items()},
            output_hidden_states=True,
        )
    for hook in hooks:
        hook.remove()
    arrays = {
        "ids_bt": ids_bt.astype(np.int32),
        "segments_bt": segments_bt,
        "mask_bt": mask_bt,
        "mlm_logits_btv": output.get("logits", output.get("prediction_logits")).numpy(),
    }
    if "seq_relationship_logits" in output:
        arrays["nsp_logits_bc"] = output.seq_relationship_logits.numpy()
    for number, hidden in enumerate(output.hidden_states):
        arrays[f"hidden_{number}_btd"] = hidden.numpy()
    for layer in scores:
        arrays[f"scores_{layer}_bhts"] = np.concatenate(scores[layer], axis=1)
    return arrays


def torch_buckets() -> np.ndarray:
    """Returns MPNet's bucket of each distance, from 600 pieces behind to 600 ahead."""
    encoder = transformers.models.mpnet.modeling_mpnet.MPNetEncoder
    return encoder.relative_position_bucket(torch.arange(-600, 601)).numpy().astype(np.int8)


def gradients(model, outputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the gradient of the mean cross-entropy of all real pieces, under torch's names."""
    ids, mask = (torch.from_numpy(outputs[name]).long() for name in ("ids_bt", "mask_bt"))
    model.zero_grad()
    logits = model(input_ids=ids, attention_mask=mask).logits
    torch.nn.functional.cross_entropy(logits[mask > 0], ids[mask > 0]).backward()
    return {
        name: parameter.grad.numpy()
        for name, parameter in model.named_parameters()  # each tied one once
    }


def _record_scores(model):
    """Returns a dict that fills with each layer's scores, original heads first, and hooks."""
    scores, queries, hooks = {}, {}, []

    def record(layer, heads, attention):
        def split(projected):
            return projected.unflatten(-1, (heads, -1)).transpose(1, 2)

        def after_query(module, inputs, output):
            queries[layer] = split(output)

        def after_key(module, inputs, output):
            query, key = queries[layer], split(output)
            raw = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
            if getattr(encoder, "relative_attention_bias", None) is not None:
                raw = raw + encoder.compute_position_bias(inputs[0])
            place = len(scores) if config.model_type == "albert" else layer  # one block, many calls
            scores.setdefault(place, []).append(raw.detach().numpy())

        names = (("q_lin", "k_lin"), ("q", "k"), _QUERY_KEY)
        query_name, key_name = next(each for each in names if hasattr(attention, each[0]))
        hooks.append(getattr(attention, query_name).register_forward_hook(after_query))
        hooks.append(getattr(attention, key_name).register_forward_hook(after_key))

    config, encoder = model.config, None
    if config.model_type == "distilbert":
        for layer, block in enumerate(model.distilbert.transformer.layer):
            record(layer, config.n_heads, block.attention)
        return scores, hooks
    if config.model_type == "albert":
        (block,) = model.albert.encoder.albert_layer_groups[0].albert_layers
        record(0, config.num_attention_heads, block.attention)
        return scores, hooks
    encoder = getattr(model, model.base_model_prefix).encoder
    for layer, block in enumerate(encoder.layer):
        inner = block.attention.attn if config.model_type == "mpnet" else block.attention.self
        record(layer, config.num_attention_heads, inner)
    for layer, block in enumerate(getattr(encoder, "extension_layer", ())):
        record(layer, config.extension_num_attention_heads, block.attention.self)
    return scores, hooks


def save(model, directory: Path) -> None:
    """Writes config.json, model.safetensors and outputs.npz."""
    directory.mkdir(exist_ok=True)
    config = {
        key: value
        for key, value in model.config.to_dict().items()
        if isinstance(value, (int, float, str)) and not key.startswith("_")
    }
    (directory / "config.json").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
    tensors = {
        name: tensor.contiguous()
        for name, tensor in model.state_dict().items()
        if name not in model._tied_weights_keys
    }
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    (directory / "model.safetensors").chmod(0o644)
    np.savez_compressed(directory / "outputs.npz", **run(model))


if __name__ == "__main__":
    save(make_bert(), GOLDEN / "bert")
    save(make_exbert(), GOLDEN / "exbert")
    save(make_distilbert(), GOLDEN / "distilbert")
    save(make_albert(), GOLDEN / "albert")
    save(make_roberta(), GOLDEN / "roberta")
    save(make_electra(), GOLDEN / "electra")
    mpnet = make_mpnet()
    save(mpnet, GOLDEN / "mpnet")
    outputs = run(mpnet, length=24) | {"buckets": torch_buckets()}
    np.savez_compressed(GOLDEN / "mpnet" / "outputs.npz", **outputs)
    np.savez_compressed(GOLDEN / "mpnet" / "gradients.npz", **gradients(mpnet, outputs))
