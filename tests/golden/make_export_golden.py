# SPDX-License-Identifier: Apache-2.0
"""Has transformers open tests/golden_exports.py's models, and writes what it computes to exports/.

    python -m tests.golden.make_export_golden

Needs torch. Every folder is opened by its AutoModel class, ours with the code that it brings.
"""

import contextlib
import json
import os
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch  # noqa: E402  (after the environment, which transformers reads once)
import transformers  # noqa: E402
from transformers import dynamic_module_utils  # noqa: E402

from edad_jax.models import init  # noqa: E402
from edad_jax.models.hf_files import load_checkpoint  # noqa: E402
from tests import golden_exports  # noqa: E402
from tests.golden_exports import FOLDER, Export  # noqa: E402
from tests.tiny_models import GOLDEN, tiny_batch  # noqa: E402

AUTO_CLASSES = {
    "ForPreTraining": "AutoModelForPreTraining",
    "ForMaskedLM": "AutoModelForMaskedLM",
    "ForTokenClassification": "AutoModelForTokenClassification",
    "ForSequenceClassification": "AutoModelForSequenceClassification",
    "ForQuestionAnswering": "AutoModelForQuestionAnswering",
}
_ROWS, _LENGTH = 2, 7
# Fields that a BERT's config.json does not have.
_OURS = {
    "shares_layers",
    "embedding_size",
    "has_pooler",
    "family",
    "position_offset",
    "relative_attention_num_buckets",
    "modern",
}


def open_model(folder: Path, auto_class: str) -> transformers.PreTrainedModel:
    """Returns a model by transformers' own means; nothing may be missing or left over."""
    code = (folder / "modeling_exbert.py").is_file()
    model, info = getattr(transformers, auto_class).from_pretrained(
        folder,
        output_loading_info=True,
        **({"trust_remote_code": True} if code else {"attn_implementation": "eager"}),
    )
    if auto_class != "AutoModel":  # which leaves heads behind
        assert not any(info.values()), info
    assert not info["missing_keys"], info
    return model.eval()


@contextlib.contextmanager
def code_cache(folder: Path) -> Iterator[None]:
    """Lets transformers keep a model's code in `folder`, which must stay while it is in use."""
    with (
        mock.patch.object(dynamic_module_utils, "HF_MODULES_CACHE", str(folder)),
        mock.patch.object(sys, "path", [str(folder), *sys.path]),
    ):
        yield


def torch_says(name: str, folder: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Returns a model's entry in exports.json, and its arrays; works in an empty folder."""
    export = golden_exports.build(name)
    if export.by_torch:
        model, read = _new_bert(export), {"parameters": init.checksum(export.params)[:16]}
    else:
        golden_exports.write(name, folder)
        read = golden_exports.describe(folder / "model", export.params)
        (architecture,) = read["config.json"]["architectures"]
        auto_class = next(each for end, each in AUTO_CLASSES.items() if architecture.endswith(end))
        model = open_model(folder / "model", auto_class)
        assert type(model).__name__ == architecture
    says = {"class": type(model).__name__, "read": read}
    if name in golden_exports.SAVED_AGAIN:
        model.save_pretrained(folder / "again")
        again = golden_exports.describe(folder / "again", export.params)
        says["saved again"] = {part: again[part] for part in ("model.safetensors", "config.json")}
    arrays = _outputs(export, model)
    if name == "exbert":
        arrays |= _more_of_exbert(folder / "model", arrays)
    return says, arrays


def _new_bert(export: Export):
    """Returns transformers' own fine-tuned BERT, configured by it alone, with our parameters."""
    labels = dict(enumerate(export.task.labels))
    config = transformers.BertConfig(
        **{key: value for key, value in vars(export.config.base).items() if key not in _OURS},
        id2label=labels,
        label2id={label: number for number, label in labels.items()},
    )
    end = golden_exports.KINDS[export.task.kind].architecture
    model = getattr(transformers, f"Bert{end}")(config)
    tensors = golden_exports.torch_tensors(export)
    found = model.load_state_dict({name: torch.tensor(array) for name, array in tensors.items()})
    assert not found.missing_keys and not found.unexpected_keys
    return model.eval()


def _outputs(export, model):
    """Returns inputs and outputs; of a task's model its logits, of others all in between too."""
    if not export.task:
        from tests.golden import make_bert_golden, make_modernbert_golden

        family = make_modernbert_golden if export.config.base.modern else make_bert_golden
        arrays = family.run(model, rows=_ROWS, length=_LENGTH)
        return {name: array for name, array in arrays.items() if "/" not in name}  # no gradients
    batch = tiny_batch(export.config.vocab_size)
    arrays = {name: getattr(batch, name) for name in ("ids_bt", "segments_bt", "mask_bt")}
    if export.config.base.family == "mpnet":  # no piece of a text is the padding piece, 1
        arrays["ids_bt"] = np.where(batch.mask_bt, np.maximum(batch.ids_bt, 2), 1)
    inputs = as_torch(arrays)
    if export.config.base.type_vocab_size < 2:
        del inputs["token_type_ids"]
    with torch.no_grad():
        output = model(**inputs)
    if export.task.kind == "answering":
        logits = torch.stack([output.start_logits, output.end_logits], -1)
    else:
        logits = output.logits
    return arrays | {"logits": logits.numpy()}


def as_torch(arrays: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """Returns inputs as a torch model wants them."""
    return {
        "input_ids": torch.from_numpy(arrays["ids_bt"]).long(),
        "token_type_ids": torch.from_numpy(arrays["segments_bt"]).long(),
        "attention_mask": torch.from_numpy(arrays["mask_bt"]).long(),
    }


def _more_of_exbert(folder, arrays):
    """Returns what else the modelling file computes: losses, attention, pooled vectors."""
    inputs = as_torch(arrays)
    labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
    with torch.no_grad():
        output = open_model(folder, "AutoModel")(**inputs, output_attentions=True)
        masked = open_model(folder, "AutoModelForMaskedLM")(**inputs, labels=labels)
        both = open_model(folder, "AutoModelForPreTraining")(
            **inputs, labels=labels, next_sentence_label=torch.arange(_ROWS)
        )
    return {
        "pooled_bd": output.pooler_output.numpy(),
        "mlm_loss": masked.loss.numpy(),
        "pretraining_loss": both.loss.numpy(),
        **{f"weights_{n}_bhts": each.numpy() for n, each in enumerate(output.attentions)},
    }


def torch_says_of_poolers() -> dict[str, np.ndarray]:
    """Returns what transformers' bare encoders make of tests/golden/bert and albert."""
    random = np.random.default_rng(0)
    ids_bt = np.arange(1, 13, dtype=np.int32).reshape(2, 6)
    hidden_btd = random.standard_normal((3, 2, 24), np.float32)
    bert, albert = transformers.BertModel, transformers.AlbertModel
    bert, albert = (
        _golden_encoder(model_class, name)
        for model_class, name in ((bert, "bert"), (albert, "albert"))
    )
    with torch.no_grad():
        output = bert(torch.from_numpy(ids_bt).long())
        pooled_bd = torch.tanh(albert.pooler(torch.from_numpy(hidden_btd[:, 0])))
    return {
        "poolers/bert_ids_bt": ids_bt,
        "poolers/bert_last_hidden_btd": output.last_hidden_state.numpy(),
        "poolers/bert_pooled_bd": output.pooler_output.numpy(),
        "poolers/albert_hidden_btd": hidden_btd,
        "poolers/albert_pooled_bd": pooled_bd.numpy(),
    }


def _golden_encoder(model_class, name):
    """Returns the encoder of tests/golden/NAME, by names without prefix, as it has them itself."""
    checkpoint = load_checkpoint(str(GOLDEN / name))
    config = model_class.config_class(**checkpoint.config)
    config._attn_implementation = "eager"
    model = model_class(config)
    found = model.load_state_dict(
        {
            tensor.removeprefix(f"{name}."): torch.tensor(array)
            for tensor, array in checkpoint.tensors.items()
            if tensor.startswith(f"{name}.")
        },
        strict=False,
    )
    assert not found.unexpected_keys
    assert all("_ids" in key for key in found.missing_keys), found
    return model.eval()


def main() -> None:
    """Writes exports.json and outputs.npz, and those of single families."""
    entries, arrays = defaultdict(dict), defaultdict(dict)
    arrays["outputs.npz"] = torch_says_of_poolers()
    with tempfile.TemporaryDirectory() as folder, code_cache(Path(folder) / "code"):
        for number, name in enumerate(golden_exports.EXPORTS):
            place = Path(folder) / str(number)
            place.mkdir()
            entries_file, arrays_file = golden_exports.files_of(name)
            entries[entries_file][name], made = torch_says(name, place)
            for key, array in made.items():
                is_input = key in golden_exports.INPUTS
                place = golden_exports.inputs_of(name) if is_input else name
                known = arrays[arrays_file].setdefault(f"{place}/{key}", array)
                np.testing.assert_array_equal(known, array)
    FOLDER.mkdir(exist_ok=True)
    for file, said in entries.items():
        text = json.dumps(said, indent=1, sort_keys=True)
        (FOLDER / file).write_text(text + "\n", encoding="utf-8")
    for file, made in arrays.items():
        np.savez_compressed(FOLDER / file, **made)


if __name__ == "__main__":
    main()
