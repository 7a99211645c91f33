# SPDX-License-Identifier: Apache-2.0
"""A plan as lines to read, with advice on words, epochs and batch."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from ml_collections import ConfigDict

from edad_jax.models.hf_files import read_model_json
from planning.plan import Plan, Updates, make_plan
from planning.vocabulary_curve import Point, plot_curve

_LEAST_SAVED = 0.01  # of the pieces, for twice as many words
_SEEN = 20  # times that an added word should have been a gap to fill, on average
_LARGE = 2  # times the batch: worth a word that so much more fits
_SIZES = ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size")


def tell(
    config: ConfigDict,
    *,
    with_updates: bool,
    picture: str,
    config_file: str,
    overrides: Sequence[str],
) -> tuple[str, Plan]:
    """Returns all that `--plan` says, and the plan.

    Args:
      config: of the command.
      with_updates: whether training is planned too, or the text alone.
      picture: file for the curve of pieces per word against added words; "": none.
      config_file: as --config names it.
      overrides: flags that change it.

    Raises:
      ValueError: as `make_plan`; or a picture of a curve that could not be measured.
    """
    plan = make_plan(config, with_updates=with_updates)
    said = describe(config, plan)
    if with_updates:
        said += "\nelsewhere: time and memory on an accelerator that need not be here, from the "
        said += "program compiled for it (minutes; pip install -e '.[aot-gpu]'):\n  "
        said += compile_command(config, plan, config_file, overrides)
    if picture:
        if not plan.text or not plan.text.curve:
            raise ValueError(
                f"--plan_out={picture}: got no curve to draw, since no words are added, or the "
                f"text has too few lines to measure it; leave --plan_out out\n{said}"
            )
        said += f"\ndrawn: {plot_curve(picture, plan.text.curve)}"
    return said, plan


def describe(config: ConfigDict, plan: Plan) -> str:
    """Returns lines about text, rows, time, memory and disk, and advice.

    Args:
      config: of the run.
      plan: of `make_plan`.
    """
    lines = _text_lines(config, plan.text) if plan.text else [f"rows: {plan.train_rows:,} there"]
    if plan.updates:
        lines += _update_lines(plan.updates)
    lines += _time_lines(plan)
    lines.append(f"disk: {shown_bytes(plan.disk_bytes)} at the end")
    advice = advise_words(plan.text.curve) if plan.text and plan.text.curve else []
    if plan.updates:
        advice += advise_updates(config, plan)
    return "\n".join([*lines, *(f"advice: {each}" for each in advice)])


def _text_lines(config, text):
    whole = "all of the text" if text.share == 1 else f"{text.share:.2%} of the text"
    lines = [
        f"read: {text.characters / 1e6:.1f} million characters, {whole}",
        f"rows: {_about(text)}{text.train_rows:,} of {config.rows.max_length} pieces to train on, "
        f"{text.heldout_rows:,} held out",
        f"pieces: {_about(text)}{text.pieces:,} in the rows to train on, padding aside",
    ]
    if text.added_words < text.asked_words:
        lines.append(
            f"words: the sample has {text.added_words:,} new ones of the {text.asked_words:,}; "
            "with all of them rows and pieces are somewhat fewer"
        )
    if text.curve:
        lines.append("added words -> pieces per word, on lines of the sample that taught nothing:")
        lines += [f"  {point.size:>9,}  {point.pieces_per_word:.3f}" for point in text.curve]
    return lines


def _about(text):
    return "" if text.share == 1 else "about "


def _update_lines(updates: Updates) -> list[str]:
    lines = [
        f"updates: {updates.count:,} of {updates.batch_size:,} rows, {updates.epochs:.2f} epochs",
        f"memory: {updates.memory_gb:.2f} GB at the peak of the {updates.memory_of}",
    ]
    if updates.largest_batch is not None:
        lines.append(
            f"largest batch: about {updates.largest_batch:,} rows, in {updates.budget_gb:.1f} GB"
        )
    return lines


def _time_lines(plan: Plan) -> list[str]:
    wall, cores = plan.part_seconds("seconds"), plan.part_seconds("cpu_seconds")
    lines = [
        f"time: {shown_time(plan.seconds)} on this machine, as busy as it is now; "
        f"{shown_time(plan.cpu_seconds)} of its cores' time; both by part:"
    ]
    lines += _part_lines({name: (wall[name], cores[name]) for name in wall})
    if plan.updates:
        lines.append(f"  an update takes {plan.updates.update_seconds:.3g} s")
    return lines


def _part_lines(parts: Mapping[str, tuple[float, float]]) -> list[str]:
    """Returns lines of parts with the clock's time and the cores'."""
    width = max(map(len, parts))
    return [
        f"  {name:{width}}  {shown_time(wall):>8}  {shown_time(cores):>8}"
        for name, (wall, cores) in parts.items()
    ]


def advise_words(curve: Sequence[Point], least: float = _LEAST_SAVED) -> list[str]:
    """Returns up to where more words shorten text by `least` or more for twice as many."""
    for point, following in zip(curve[1:], curve[2:], strict=False):
        doublings = following.size / point.size - 1
        saved = (1 - following.pieces_per_word / point.pieces_per_word) / doublings
        if saved < least:
            return [
                f"{point.size:,} words (--config.vocabulary.size={point.size}): from there on "
                f"twice as many shorten the text by {saved:.1%} only"
            ]
    if len(curve) < 3:
        return []
    return [
        f"up to {curve[-1].size:,} words, twice as many shorten the text by {least:.0%} or more; "
        "the sample has no more to tell"
    ]


def advise_updates(config: ConfigDict, plan: Plan) -> list[str]:
    """Returns advice on epochs, on batch and memory."""
    found, updates, text = [], plan.updates, plan.text
    if text and text.added_words:
        seen = text.pieces * updates.epochs * text.added_share / text.added_words
        gaps = seen * config.masking.mlm_probability
        told = (
            f"the updates read each added word {seen:,.0f} times on average, {gaps:,.0f} times as "
            "a gap to fill"
        )
        if gaps < _SEEN:
            told += (
                f"; under {_SEEN} it stays close to its first vector: fewer words "
                "(--config.vocabulary.size) or more updates"
            )
        found.append(told)
    if updates.epochs < 1 and config.max_steps:
        found.append(
            f"the updates read {updates.epochs:.1%} of the rows; all of them once: "
            f"--config.max_steps={-(-plan.train_rows // updates.batch_size)}"
        )
    elif updates.epochs > 10:
        found.append(
            f"{updates.epochs:.0f} epochs: watch that the held-out loss does not rise; fewer: "
            "--config.epochs, --config.max_steps"
        )
    if updates.budget_gb is not None and updates.memory_gb > updates.budget_gb:
        found.append(
            f"the batch takes more than the {updates.budget_gb:.1f} GB that there are: "
            "--config.accumulate_steps=4 or --config.remat=blocks take less for the same batch"
        )
    elif updates.largest_batch and updates.largest_batch >= _LARGE * updates.batch_size:
        found.append(
            f"a batch of up to {updates.largest_batch:,} rows would fit "
            "(--config.batch_size); it makes fewer updates of the same text, and wants learning "
            "rates of its own"
        )
    return found


def compile_command(
    config: ConfigDict, plan: Plan, config_file: str, overrides: Sequence[str]
) -> str:
    """Returns the command that tells time and memory on an accelerator that is not here.

    Args:
      config: of the run.
      plan: of its updates.
      config_file: as --config names it.
      overrides: flags that change it.
    """
    words = ["python", "launch/compile.py", "--target=h100x1", "--config", config_file]
    folder = Path(config.teacher.checkpoint).expanduser()
    if (folder / "config.json").is_file():
        sizes = read_model_json(folder / "config.json")
        if all(name in sizes for name in _SIZES):
            words.append(f"--teacher={','.join(str(sizes[name]) for name in _SIZES)}")
        words.append(f"--words={sizes['vocab_size']}")
    tokens = plan.updates.count * plan.updates.batch_size * config.rows.max_length
    return shlex.join([*words, f"--tokens={tokens}", "--fit", *overrides, "--config.epochs=1"])


def describe_stages(work: Mapping[str, float], updates: Updates) -> str:
    """Returns lines about a pipeline's other stages, by their share of the work.

    Args:
      work: of `chain.work.stage_work`, by stage.
      updates: what training takes.
    """
    trained = [sum(each.values()) for each in (updates.seconds, updates.cpu_seconds)]
    parts = {
        name: tuple(seconds * each / work["train"] for seconds in trained)
        for name, each in work.items()
        if name not in ("rows", "train")
    }
    told = "after it, by their share of the work, good to a factor of two:"
    rest = "  exports and timing, and labels where they are made by rule: some minutes each"
    return "\n".join([told, *_part_lines(parts), rest])


def shown_time(seconds: float) -> str:
    """Returns 30 as "30 s", 600 as "10.0 min", 7200 as "2.0 h"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6_000 else f"{seconds / 3_600:.1f} h"


def shown_bytes(count: float) -> str:
    """Returns bytes as megabytes or gigabytes."""
    return f"{count / 1e6:.1f} MB" if count < 1e9 else f"{count / 1e9:.2f} GB"
