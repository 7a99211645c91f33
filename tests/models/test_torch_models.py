# SPDX-License-Identifier: Apache-2.0
"""What only torch can run: the golden files made anew, and code and files that need torch itself.

What torch computes, the golden files say everywhere: see tests/golden_exports.py. Here torch says
it once more, and runs what travels with a model (its other auto classes, a training step, its
tokenizer) and what the library itself reads with torch (pytorch_model.bin).
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from edad_jax.models import config_json, convert, hf_files
from tests import golden_exports
from tests.golden_exports import check_read, load_exports, load_outputs
from tests.tasks import test_step_parity
from tests.tiny_models import GOLDEN, assert_trees_equal, load_golden

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
from tests.golden import (  # noqa: E402  (they import torch)
    make_bert_golden,
    make_export_golden,
    make_modernbert_golden,
)


@pytest.fixture(scope="module")
def code_folder(tmp_path_factory):
    """Lets transformers run a model's code, from a cache of its own."""
    folder = tmp_path_factory.mktemp("code")
    with make_export_golden.code_cache(folder):
        yield folder


@pytest.fixture
def bert_directory(tmp_path):
    """A copy of the golden BERT that a test may change."""
    shutil.copytree(GOLDEN / "bert", tmp_path / "bert")
    return tmp_path / "bert"


def load(directory):
    """Returns the parameters of a BERT checkpoint."""
    checkpoint = hf_files.load_checkpoint(str(directory))
    return convert.bert_params(checkpoint, config_json.bert_config(checkpoint.config))


# The golden files


@pytest.mark.parametrize("name", golden_exports.EXPORTS)
def test_golden_exports_are_what_torch_says(tmp_path, code_folder, name):
    says, arrays = make_export_golden.torch_says(name, tmp_path)
    expected = load_exports()[name]
    assert says["class"] == expected["class"]
    check_read(says["read"], expected["read"])
    saved, before = says.get("saved again", {}), expected.get("saved again", {})
    for each in (saved, before):
        each.get("config.json", {}).pop("transformers_version", None)
    check_read(saved, before)
    golden = load_outputs(name)
    assert set(arrays) == set(golden)
    for key, array in arrays.items():
        np.testing.assert_allclose(array, golden[key], rtol=1e-5, atol=1e-5, err_msg=key)


def test_golden_poolers_are_what_torch_says():
    golden = load_outputs("poolers")
    for key, array in make_export_golden.torch_says_of_poolers().items():
        np.testing.assert_allclose(array, golden[key.removeprefix("poolers/")], atol=1e-6)


@pytest.mark.parametrize(
    "name", ["bert", "distilbert", "albert", "exbert", "roberta", "electra", "modernbert"]
)
def test_golden_models_are_what_torch_says(name):
    maker = make_modernbert_golden if name == "modernbert" else make_bert_golden
    model = getattr(maker, f"make_{name}")()
    tensors = load_file(GOLDEN / name / "model.safetensors")
    for tensor, array in tensors.items():
        np.testing.assert_array_equal(model.state_dict()[tensor], array, err_msg=tensor)
    golden = load_golden(name)
    for key, array in maker.run(model).items():
        np.testing.assert_allclose(array, golden[key], rtol=1e-5, atol=1e-5, err_msg=key)


def test_golden_losses_of_fine_tuning_are_what_torch_says():
    golden = json.loads(test_step_parity.FILE.read_text(encoding="utf-8"))
    np.testing.assert_allclose(test_step_parity.torch_losses(), golden, rtol=1e-4)


# The code that travels with a model


def test_modelling_file_serves_every_auto_class(tmp_path, code_folder):
    golden_exports.write("exbert", tmp_path)
    outputs = load_outputs("exbert")
    inputs = make_export_golden.as_torch(outputs)
    labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
    next_sentence = torch.tensor([0, 1])

    def load(auto_class):
        model, info = getattr(transformers, auto_class).from_pretrained(
            tmp_path / "model", output_loading_info=True, trust_remote_code=True
        )
        return model.eval(), info

    encoder, _ = load("AutoModel")
    output = encoder(**inputs, output_attentions=True, output_hidden_states=True)
    assert len(output.hidden_states) == 3
    torch.testing.assert_close(output.attentions[0].sum(-1), torch.ones(2, 6, 7))
    by_position = encoder(**inputs, return_dict=False)
    torch.testing.assert_close(by_position[0], output.last_hidden_state)

    pretraining, _ = load("AutoModelForPreTraining")
    assert pretraining.cls.predictions.decoder.weight is pretraining.get_input_embeddings().weight
    logits = load("AutoModelForMaskedLM")[0](**inputs).logits
    torch.testing.assert_close(pretraining(**inputs).prediction_logits, logits)

    tagger, info = load("AutoModelForTokenClassification")
    assert info["missing_keys"] == {"classifier.weight", "classifier.bias"}
    tagger(**inputs, labels=labels.clamp(max=1)).loss.backward()
    assert tagger.classifier.weight.grad.abs().sum() > 0
    classifier, info = load("AutoModelForSequenceClassification")
    assert info["missing_keys"] == {"classifier.weight", "classifier.bias"}
    assert classifier(**inputs, labels=next_sentence).logits.shape == (2, 2)


@pytest.mark.parametrize(
    "name",
    [
        *("distilbert", "albert", "exbert on distilbert"),
        *("roberta", "xlm-roberta", "electra", "mpnet"),
    ],
)
def test_bare_encoders_are_opened_without_their_heads(tmp_path, code_folder, name):
    golden_exports.write(name, tmp_path)
    model, info = transformers.AutoModel.from_pretrained(
        tmp_path / "model", output_loading_info=True, trust_remote_code=name.startswith("exbert")
    )
    assert not {key for key in info["missing_keys"] if "pooler" not in key}
    outputs = load_outputs(name)
    inputs = make_export_golden.as_torch(outputs)
    if name not in ("albert", "electra"):
        del inputs["token_type_ids"]
    with torch.no_grad():
        last_btd = model.eval()(**inputs).last_hidden_state.numpy()
    mask_bt = outputs["mask_bt"]
    expected_btd = outputs["hidden_2_btd"]
    np.testing.assert_allclose(last_btd[mask_bt], expected_btd[mask_bt], atol=1e-5)


def test_auto_tokenizer_reads_the_vocabulary_beside_an_exberts_code(tmp_path, code_folder):
    golden_exports.write("exbert", tmp_path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(
        tmp_path / "model", trust_remote_code=True
    )
    assert tokenizer("Word0 word62")["input_ids"] == [2, 5, 67, 3]


# What the library reads with torch


def test_torch_files_are_read_as_plain_tensors(bert_directory):
    expected = load(bert_directory)
    tensors = load_file(bert_directory / "model.safetensors")
    (bert_directory / "model.safetensors").unlink()
    state = {name: torch.from_numpy(tensor) for name, tensor in tensors.items()}
    torch.save(state, bert_directory / "pytorch_model.bin")
    assert_trees_equal(load(bert_directory), expected)
    torch.save({"code": Path("x")}, bert_directory / "pytorch_model.bin")  # needs code to read
    with pytest.raises(ValueError, match="pytorch_model.bin cannot be read as plain tensors"):
        load(bert_directory)


def test_the_advised_conversion_works(bert_directory, monkeypatch):
    expected = load(bert_directory)
    tensors = load_file(bert_directory / "model.safetensors")
    (bert_directory / "model.safetensors").unlink()
    state = {name: torch.from_numpy(tensor) for name, tensor in tensors.items()}
    torch.save(state, bert_directory / "pytorch_model.bin")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "torch", None)
        with pytest.raises(ValueError) as error:
            load(bert_directory)
    code = str(error.value).split('python -c "')[1].rsplit('"', 1)[0]
    subprocess.run([sys.executable, "-c", code], cwd=bert_directory, check=True)
    (bert_directory / "pytorch_model.bin").unlink()
    assert_trees_equal(load(bert_directory), expected)


def test_a_training_programs_checkpoint_is_unwrapped_and_other_things_are_named(tmp_path):
    shutil.copyfile(GOLDEN / "bert" / "config.json", tmp_path / "config.json")
    path = tmp_path / "pytorch_model.bin"
    torch.save({"model": {"a": torch.nn.Parameter(torch.ones(2))}}, path)
    np.testing.assert_array_equal(hf_files.load_checkpoint(str(tmp_path)).tensors["a"], [1, 1])
    for content, named in (({"a": torch.ones(2), "step": 3}, "step"), ([torch.ones(1)], "all")):
        torch.save(content, path)
        with pytest.raises(ValueError, match=rf"something else than tensors \({named}\)"):
            hf_files.load_checkpoint(str(tmp_path))
