# SPDX-License-Identifier: Apache-2.0
"""Checkpoints as they lie in a folder or on the Hugging Face hub: config.json and tensors."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from edad_jax.files import check_sums, read_json

_SAFETENSORS, _TORCH_FILE = "model.safetensors", "pytorch_model.bin"
_SIDE_FILES = ["*.json", "vocab.txt", "merges.txt", "*.model"]  # config.json and the tokenizer
_HUB_TIMEOUT_SECONDS = 10.0
_LFS = b"version https://git-lfs"  # how a pointer begins
_WRAPPERS = ("model", "state_dict", "model_state_dict")  # keys of what training programs save


class Checkpoint(NamedTuple):
    """A model as it lies on disk: what config.json says, and its tensors under torch's names."""

    config: dict[str, Any]
    tensors: dict[str, np.ndarray]  # floating-point tensors are float32
    directory: Path


def load_checkpoint(
    path_or_hub_id: str, *, option: str = "--config.teacher.checkpoint=DIR"
) -> Checkpoint:
    """Returns the checkpoint in a local directory, or of a model on the Hugging Face hub.

    Reads config.json with model.safetensors, its sharded form, or pytorch_model.bin (with
    torch, tensors only: no code in the file is run). Half-precision tensors become float32.

    Args:
      path_or_hub_id: the model.
      option: how an error says where the user named it.

    Raises:
      ValueError: no such directory and the hub does not answer; no weights; unreadable weights, or
        some that are no numbers.
    """
    directory = local_folder(path_or_hub_id, option=option)
    for path in directory.glob("*.safetensors"):
        _check_fetched(path)  # what it says helps more than another checksum
    check_sums(directory, "config.json", "*.safetensors", "*.py")
    config = read_model_json(directory / "config.json")
    tensors = {
        name: tensor.astype(np.float32) if is_floating(tensor) else tensor
        for name, tensor in _read_tensors(directory).items()
    }
    _check_finite(tensors, directory)
    return Checkpoint(config, tensors, directory)


def local_folder(path_or_hub_id: str, *, option: str) -> Path:
    """Returns the local directory of a model, fetched from the hub where it is not one yet.

    Raises:
      ValueError: no such directory and the hub does not answer; tells to use `option`.
    """
    directory = Path(path_or_hub_id).expanduser()
    return directory if directory.is_dir() else _download(path_or_hub_id, option)


def is_floating(array: np.ndarray) -> bool:
    """Returns whether an array holds floating-point numbers, bfloat16 included."""
    return array.dtype.kind == "f" or array.dtype.name == "bfloat16"


def read_model_json(path: Path) -> dict[str, Any]:
    """Returns a JSON file of a model's folder.

    Raises:
      ValueError: it is not there, or no JSON object; says what such a folder has.
    """
    expected = f"a model in Hugging Face layout (config.json beside {_SAFETENSORS})"
    said = read_json(path, expected=expected)
    if not isinstance(said, dict):
        raise ValueError(
            f"{path}: got a JSON {type(said).__name__}, expected an object of {expected}"
        )
    return said


def _read_tensors(directory):
    for name, read in ((_SAFETENSORS, _read_safetensors), (_TORCH_FILE, _read_torch_file)):
        if (directory / name).is_file():
            return read(directory / name)
        index = directory / f"{name}.index.json"
        if index.is_file():
            tensors = {}
            for shard in _shards(index):
                tensors |= read(directory / shard)
            return tensors
    raise ValueError(
        f"{directory} has neither {_SAFETENSORS} (or its index) nor {_TORCH_FILE}; "
        "expected a model in Hugging Face layout"
    )


def _check_finite(tensors, directory):
    """Raises ValueError for weights that a run which went astray has left."""
    with np.errstate(over="ignore", invalid="ignore"):
        # A sum is quick to make; where it is none of a number, so is an element of it.
        odd = [
            name
            for name, tensor in tensors.items()
            if is_floating(tensor) and not np.isfinite(tensor.sum(dtype=np.float64))
        ]
    if odd:
        raise ValueError(
            f"{directory}: got NaN or infinity in {len(odd):,} tensors ({', '.join(odd[:3])}), "
            "expected numbers; the run that wrote them diverged: take an earlier checkpoint"
        )


def _shards(index):
    """Returns the files that an index names, all of which lie beside it."""
    said = read_model_json(index)
    named = said.get("weight_map")
    files = sorted(set(map(str, named.values()))) if isinstance(named, dict) else []
    if not files:
        raise ValueError(
            f"{index} names no file of weights, expected a weight_map of tensors and files; fetch "
            "the checkpoint again"
        )
    for file in files:
        if Path(file).name != file or not _is_there(index.parent / file):
            raise ValueError(
                f"{index} names the file {file!r}, which does not lie beside it; fetch the "
                "checkpoint again"
            )
    return files


def _is_there(path):
    try:
        return path.is_file()
    except OSError:  # a name that no file can have
        return False


def _check_fetched(path):
    """Raises ValueError for what git leaves in a file's place where Git LFS is not installed."""
    with open(path, "rb") as file:
        if file.read(len(_LFS)) == _LFS:
            raise ValueError(
                f"{path} is a Git LFS pointer and not the file itself: run git lfs pull in its "
                "folder, or fetch the file from the hub"
            )


def _read_safetensors(path):
    _check_fetched(path)
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path} cannot be read: {error}; fetch the checkpoint again") from error
    except AttributeError as error:  # safetensors asks numpy for a kind of number by its name
        raise ValueError(
            f"{path}: got numbers that numpy does not have ({error}), expected some of 16 or 32 "
            "bits: take the checkpoint that was not made for 8 bits"
        ) from error


def _read_torch_file(path):
    try:
        import torch
    except ImportError as error:
        raise ValueError(
            f"{path} is a torch file and torch is not installed here. Where it is, run in that "
            'directory: python -c "import torch, safetensors.torch as s; s.save_file({k: '
            "v.contiguous().clone() for k, v in torch.load('pytorch_model.bin', "
            "weights_only=True).items()}, 'model.safetensors')\""
        ) from error
    _check_fetched(path)
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds here
        raise ValueError(f"{path} cannot be read as plain tensors: {error}") from error
    for wrapper in _WRAPPERS:  # a training program's own checkpoint
        if isinstance(tensors, dict) and isinstance(tensors.get(wrapper), dict):
            tensors = tensors[wrapper]
    others = [
        str(name)
        for name, tensor in (tensors.items() if isinstance(tensors, dict) else [("all", None)])
        if not isinstance(tensor, torch.Tensor)
    ]
    if others:
        raise ValueError(
            f"{path}: got something else than tensors ({', '.join(others[:5])}), expected a "
            "state_dict; save model.state_dict() alone"
        )
    return {
        name: (tensor.float() if tensor.is_floating_point() else tensor).detach().numpy()
        for name, tensor in tensors.items()
    }


def _download(hub_id, option):
    """Returns the local directory of a model from the hub, or from its cache where offline."""
    import huggingface_hub

    patterns = [*_SIDE_FILES, _SAFETENSORS, "model-*.safetensors"]
    try:
        # snapshot_download itself knows no time limit, so ask something small first.
        model = huggingface_hub.HfApi().model_info(hub_id, timeout=_HUB_TIMEOUT_SECONDS)
        if not any(file.rfilename.endswith(".safetensors") for file in model.siblings or ()):
            patterns = [*_SIDE_FILES, _TORCH_FILE, "pytorch_model-*.bin"]
        directory = huggingface_hub.snapshot_download(hub_id, allow_patterns=patterns)
    except Exception as error:  # offline, no such model, no access: the cache may have it
        try:
            directory = huggingface_hub.snapshot_download(
                hub_id, allow_patterns=patterns, local_files_only=True
            )
        except Exception:
            reason = (str(error).strip() or "no answer").splitlines()[0]
            raise ValueError(
                f"{hub_id!r} is neither a directory here nor a model that the Hugging Face hub "
                f"hands out ({type(error).__name__}: {reason}); pass a local directory: "
                f"{option}"
            ) from error
    return Path(directory)
