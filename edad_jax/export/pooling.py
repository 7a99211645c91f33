# SPDX-License-Identifier: Apache-2.0
"""How an encoder's own files say that a text's vector is made, as sentence-transformers has them.

modules.json                 Transformer, Pooling, and perhaps Normalize
1_Pooling/config.json        mean, [CLS], largest numbers, ...
sentence_bert_config.json    how many pieces are read
"""

import shutil
from pathlib import Path
from typing import Any

from edad_jax.files import read_json
from edad_jax.runtime.readings import POOLINGS

MODULES_FILE = "modules.json"
_LENGTH_FILE = "sentence_bert_config.json"
FILES = (MODULES_FILE, _LENGTH_FILE, "config_sentence_transformers.json")
_MODES = {f"pooling_mode_{name.removesuffix('_tokens')}_tokens": name for name in POOLINGS}
_MODES |= {"pooling_mode_cls_token": "cls"}
_AS_IT_IS = f"take {MODULES_FILE} out of the folder to export the encoder alone"


def read_pooling(folder: Path, *, positions: int) -> dict[str, Any] | None:
    """Returns {"mode", "normalize", "max_length"} of a sentence encoder; None of any other.

    Args:
      folder: of the model.
      positions: that the model has.

    Raises:
      ValueError: a file is missing or damaged, or the vector is made in another way than the
        runtime knows (another mode, several modes at once, a layer behind).
    """
    path = folder / MODULES_FILE
    if not path.is_file():
        return None
    modules = read_json(path, expected="a list of modules")
    try:
        kinds = [module["type"].rpartition(".")[2] for module in modules]
        places = [module["path"] for module in modules]
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path}: expected a list of modules with type and path") from error
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise ValueError(
            f"{path} names {', '.join(kinds)}, expected Transformer, Pooling and perhaps "
            f"Normalize; {_AS_IT_IS}"
        )
    said = folder / _LENGTH_FILE
    length = None
    if said.is_file():
        length = read_json(said, expected="settings").get("max_seq_length")
    return {
        "mode": _mode(folder / places[1] / "config.json"),
        "normalize": kinds[-1] == "Normalize",
        "max_length": min(length or positions, positions),
    }


def _mode(path):
    if not path.is_file():
        raise ValueError(f"{path} is missing, which says how the vector is made; {_AS_IT_IS}")
    values = read_json(path, expected="settings of pooling")
    chosen = [key for key, is_on in values.items() if key.startswith("pooling_mode_") and is_on]
    named = values.get("pooling_mode")  # of newer files
    modes = [named] if named else [_MODES.get(key, key) for key in chosen]
    if len(modes) != 1 or modes[0] not in POOLINGS:
        raise ValueError(
            f"{path} says {', '.join(map(str, modes)) or 'no mode'}, expected one of "
            f"{', '.join(POOLINGS)}; {_AS_IT_IS}"
        )
    return modes[0]


def copy_pooling(folder: Path, out: Path) -> None:
    """Copies the files that `read_pooling` reads, so that a copy of the model has them too."""
    for name in FILES:
        if (folder / name).is_file():
            shutil.copyfile(folder / name, out / name)
    for place in sorted(folder.glob("[0-9]_*")):
        if (place / "config.json").is_file():
            (out / place.name).mkdir(exist_ok=True)
            shutil.copyfile(place / "config.json", out / place.name / "config.json")
