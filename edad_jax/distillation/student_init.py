# SPDX-License-Identifier: Apache-2.0
"""A student that begins with what its teacher knows, as far as it fits.

    layers         student layer m begins as teacher layer layers[m]; the blocks of a teacher that
                   shares its layers are all the same one
    embeddings     are copied; of a factorised teacher, a full student takes the product tables
    heads          are copied, where both nets have them; the MLM head of a factorised teacher as
                   the linear map nearest to it (`factorised`)
    feed-forward   where narrower: the units that weigh most, or none (random)
    extension      where it has the teacher's sizes; or made anew, as narrow copies of the student's
                   own blocks (`models.block_copy`)
    width          where narrower: the coordinates with most energy (`narrowing`)

With equal sizes all of this is a plain copy. DistilBERT (Sanh et al. 2019, section 3) begins so,
with every other layer; how to cut a net that is too wide no paper of ours says.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from edad_jax.distillation.nets import layer_map
from edad_jax.models import factorised, narrowing
from edad_jax.models.config import ExBertConfig
from edad_jax.training.sections import read_section

STUDENT_INITS = ("random", "teacher")
LAYER_RULES = ("uniform", "distilbert", "listed")
FEED_FORWARD_RULES = ("largest", "random")
WIDTH_RULES = ("equal", "energetic")
EXTENSION_RULES = ("teacher", "copy")


@dataclasses.dataclass(frozen=True)
class Rules:
    """What a student takes of its teacher; see the top of this file."""

    layers: tuple[int, ...]  # for each student layer a teacher layer, from 0
    feed_forward: str = "largest"  # of a narrower one: those units, or random
    width: str = "equal"  # a narrower student: an error, or its most energetic coordinates


@dataclasses.dataclass(frozen=True)
class InitSettings:
    """config.student.init, and the config.student.inherit section."""

    init: str
    num_hidden_layers: int  # of the student
    layer_rule: str = "uniform"  # TinyBERT's | distilbert | listed
    layers: tuple[int, ...] = ()  # teacher layers from 0, for listed
    feed_forward: str = "largest"
    width: str = "equal"
    extension: str = "teacher"

    def __post_init__(self):
        for option, value, choices in (
            ("init", self.init, STUDENT_INITS),
            ("inherit.layer_rule", self.layer_rule, LAYER_RULES),
            ("inherit.feed_forward", self.feed_forward, FEED_FORWARD_RULES),
            ("inherit.width", self.width, WIDTH_RULES),
            ("inherit.extension", self.extension, EXTENSION_RULES),
        ):
            if value not in choices:
                raise ValueError(
                    f"config.student.{option}={value!r} is not one of {', '.join(choices)}"
                )
        if len(self.layers) != (self.num_hidden_layers if self.layer_rule == "listed" else 0):
            raise ValueError(
                f"config.student.inherit.layers={tuple(self.layers)} with layer_rule="
                f"{self.layer_rule!r}: expected one teacher layer for each of the student's "
                f"{self.num_hidden_layers} with layer_rule='listed', and () with the other rules"
            )

    def rules(self, teacher_layers: int) -> Rules:
        """Returns what the student takes of a teacher of so many layers.

        Raises:
          ValueError: layers that the teacher has not, or not as many as the student.
        """
        layers = tuple(self.layers)
        if self.layer_rule != "listed":
            choose = layer_map if self.layer_rule == "uniform" else distilbert_layers
            layers = choose(teacher_layers, self.num_hidden_layers)
        elif not all(0 <= m < teacher_layers for m in layers):
            raise ValueError(
                f"config.student.inherit.layers={layers}: expected one teacher layer, from 0 to "
                f"{teacher_layers - 1}, for each of the student's {self.num_hidden_layers}"
            )
        return Rules(layers, self.feed_forward, self.width)


def read_init(section: ConfigDict) -> InitSettings:
    """Returns how a config.student section says that the student begins."""
    return read_section(
        InitSettings,
        section.inherit,
        init=section.init,
        num_hidden_layers=section.num_hidden_layers,
    )


def distilbert_layers(teacher_layers: int, student_layers: int) -> tuple[int, ...]:
    """Returns teacher layers evenly spread from the first to the last, rounded half up.

    12 -> 6 gives DistilBERT's 0, 2, 4, 7, 9, 11; 12 -> 4 gives 0, 4, 7, 11 and 12 -> 3 gives
    0, 6, 11. A student of one layer takes the first.

    Raises:
      ValueError: where the student has more layers than the teacher.
    """
    if not 0 < student_layers <= teacher_layers:
        raise ValueError(
            f"a student of {student_layers} layers cannot begin with those of a teacher that has "
            f"{teacher_layers}; config.student.num_hidden_layers must be between 1 and those"
        )
    steps = max(1, student_layers - 1)
    return tuple(
        (2 * m * (teacher_layers - 1) + steps) // (2 * steps) for m in range(student_layers)
    )


def inherit(
    params: Mapping[str, Any],
    student: ExBertConfig,
    teacher_params: Mapping[str, Any],
    teacher: ExBertConfig,
    rules: Rules,
) -> dict[str, Any]:
    """Returns the student's params with the teacher's in place of random ones.

    Random stay: the map to the teacher's width; extension blocks that have other heads than the
    teacher's, or more numbers; positions and heads that the teacher has not.

    Args:
      params: of the student, random.
      student: its sizes.
      teacher_params: all of the teacher's parameters.
      teacher: its sizes.
      rules: what to take.

    Raises:
      ValueError: the student is wider than the teacher, or has other heads or other words; names
        the option.
    """
    check_sizes(student, teacher, rules)
    theirs = jax.tree.map(
        lambda x: np.asarray(x, np.float32), _chosen(teacher_params, teacher, rules)
    )
    if student.base.shares_layers:
        theirs["base"] = {name: theirs["base"][name] for name in ("embeddings", "layers_0")}
    if teacher.base.embedding_size and not student.base.embedding_size:
        theirs = factorised.full_tables(theirs)
    if teacher.base.type_vocab_size and not student.base.type_vocab_size:
        theirs["base"]["embeddings"] = _without_segments(theirs["base"]["embeddings"])
    if student.base.modern:
        units = student.base.intermediate_size
        cut = narrowing.narrow_modern(theirs, units, random_units=rules.feed_forward == "random")
        return _laid_over(params, cut)
    kept = np.arange(teacher.base.hidden_size)
    if student.base.hidden_size < len(kept):
        kept = narrowing.strongest(
            narrowing.coordinate_energy(theirs["base"]), student.base.hidden_size
        )
    cut = narrowing.narrow(
        theirs, kept, student, teacher, random_units=rules.feed_forward == "random"
    )
    return _laid_over(params, cut)


def check_sizes(student: ExBertConfig, teacher: ExBertConfig, rules: Rules) -> None:
    """Raises ValueError where the student cannot begin with its teacher's parameters."""
    ours, theirs = student.base, teacher.base
    if bool(ours.modern) != bool(theirs.modern):
        raise ValueError(
            "one of student and teacher has ModernBERT's blocks and the other BERT's: with "
            "config.student.init='teacher' both need the same; set --config.student.init=random, "
            "or config.student.family to the teacher's"
        )
    if theirs.modern:
        _check_modern(ours, theirs, rules)
    if ours.hidden_size > theirs.hidden_size or (
        ours.hidden_size < theirs.hidden_size and rules.width == "equal"
    ):
        raise ValueError(
            f"the student is {ours.hidden_size} wide and the teacher {theirs.hidden_size}: "
            f"config.student.init='teacher' needs config.student.hidden_size={theirs.hidden_size}, "
            "or less with config.student.inherit.width='energetic'"
        )
    if (ours.vocab_size, student.extension_vocab_size) != (
        theirs.vocab_size,
        teacher.extension_vocab_size,
    ):
        raise ValueError(
            f"the student has {ours.vocab_size} words and {student.extension_vocab_size} added "
            f"ones, the teacher {theirs.vocab_size} and {teacher.extension_vocab_size}; "
            "config.student.init='teacher' needs the same words in both"
        )
    if ours.num_attention_heads != theirs.num_attention_heads:
        raise ValueError(
            f"the student has {ours.num_attention_heads} attention heads and the teacher "
            f"{theirs.num_attention_heads}: config.student.init='teacher' needs "
            f"config.student.num_attention_heads={theirs.num_attention_heads}"
        )
    if ours.intermediate_size > theirs.intermediate_size and rules.feed_forward != "random":
        raise ValueError(
            f"the student's feed-forward layers have {ours.intermediate_size} units and the "
            f"teacher's {theirs.intermediate_size}: take no more, or let them begin at random, "
            "config.student.inherit.feed_forward='random'"
        )
    if ours.embedding_size not in (0, theirs.embedding_size):
        raise ValueError(
            f"the student has embedding_size={ours.embedding_size} and the teacher "
            f"{theirs.embedding_size}: config.student.init='teacher' needs the same, or 0"
        )
    if ours.shares_layers and not theirs.shares_layers:
        raise ValueError(
            "the student shares its layers and the teacher does not: with "
            "config.student.init='teacher' set config.student.shares_layers=False"
        )


def _check_modern(ours, theirs, rules):
    """Raises ValueError where a ModernBERT cannot begin as these layers of another."""
    if ours.hidden_size != theirs.hidden_size:
        raise ValueError(
            f"the student is {ours.hidden_size} wide and the teacher {theirs.hidden_size}: heads "
            "with rotary positions are not cut; with config.student.init='teacher' set "
            f"config.student.hidden_size={theirs.hidden_size}"
        )
    if 0 not in rules.layers[:1] or 0 in rules.layers[1:]:
        raise ValueError(
            f"the student's layers begin as the teacher's {rules.layers} (from 0): a ModernBERT's "
            "first layer has no norm in front, so that the student's first must begin as that one "
            "and no other may; set config.student.inherit.layer_rule='distilbert', or 'listed'"
        )


def _chosen(params, config, rules):
    """Returns the teacher's parameters with the student's layers, under the student's numbers."""
    chosen = {part: dict(tree) for part, tree in params.items()}
    for part in ("base", "extension"):
        tree = chosen.get(part, {})
        shared = part == "base" and config.base.shares_layers
        for name in list(tree):
            if name.startswith(("layers_", "gates_")):
                del tree[name]
        for ours, theirs in enumerate(rules.layers):
            for kind in ("layers", "gates"):
                source = f"{kind}_{0 if shared else theirs}"
                if source in params.get(part, {}):
                    tree[f"{kind}_{ours}"] = params[part][source]
    return chosen


def _without_segments(tables):
    """Returns embeddings whose positions have the vector of segment A in them.

    Deviation: DistilBERT's published extraction drops the segment vectors. Its student then begins
    from sums that its teacher never saw.
    """
    tables = dict(tables)
    first_d = tables.pop("token_type")["embedding"][0]
    tables["position"] = {"embedding": tables["position"]["embedding"] + first_d}
    return tables


def _laid_over(params, theirs):
    """Returns params in which `theirs` stand where there are such; of tables the known rows."""

    def leaf(path, mine):
        node = theirs
        for key in path:
            node = node.get(key.key) if isinstance(node, Mapping) else None
        if node is None:
            return mine
        if path[-1].key == "embedding":  # positions or segments may be more or fewer
            rows = min(len(mine), len(node))
            node = np.concatenate([node[:rows], mine[rows:]])
        assert node.shape == mine.shape, (path, node.shape, mine.shape)
        return node.astype(mine.dtype)

    return jax.tree_util.tree_map_with_path(leaf, params)
