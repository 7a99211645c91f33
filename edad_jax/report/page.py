# SPDX-License-Identifier: Apache-2.0
"""The story of a pipeline as one page that needs no network, no script and no other file.

It forbids itself everything but its own style, so that a browser would refuse to fetch anything.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from edad_jax.report import story_figures
from edad_jax.report.glossary import WORDS
from edad_jax.report.markup import (
    definitions,
    facts,
    figure,
    figures,
    folded,
    folds,
    paragraph,
    safe,
    section,
    table,
)
from edad_jax.report.sentences import entity_sentences, gap_sentences
from edad_jax.report.story_figures import name_of
from edad_jax.runtime.page import read_style

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_MOST_WORDS = 10  # new words that are shown unfolded


def render_page(story: Mapping[str, Any], lines: Sequence[Mapping[str, float]]) -> str:
    """Returns the page as HTML.

    Args:
      story: of `chain.story.make_story`, which is what report.json holds.
      lines: of the training's metrics.jsonl.
    """
    parts = {
        "text": ("Text and vocabulary", _text(story)),
        "training": ("Training", _training(story, lines)),
        "gaps": ("Hidden words, guessed", _gaps(story)),
        "scores": ("Scores", _scores(story)),
        "entities": ("Entities, right and wrong", _entities(story)),
        "service": ("In service: speed, size, verification", _service(story)),
        "stages": ("Stages and their commands", _stages(story)),
        "settings": ("Every setting", _settings(story)),
    }
    links = "".join(
        f'<li><a href="#{name}">{safe(title)}</a></li>' for name, (title, _) in parts.items()
    )
    body = "".join(section(name, title, *content) for name, (title, content) in parts.items())
    made = story["made"]
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{safe(_POLICY)}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{safe(story['title'])}</title>"
        f'<style>{read_style()}</style></head><body><a class="skip" href="#main">Skip the list of '
        f"parts</a><header><h1>{safe(story['title'])}</h1>"
        + paragraph(
            "A small model, the student, was trained on plain text beside a large one, its "
            "teacher; then both learned from labelled sentences to find entities, and the student "
            "was made smaller still (int8) to be served. This page shows how that went, how good "
            "each model is, and how fast."
        )
        + paragraph(f"{made['when']}. {made['versions']}. {made['machine']}.", "soft")
        + f'<nav aria-label="Parts of this page"><ul>{links}</ul></nav></header>'
        f'<main id="main">{_summary(story)}{body}</main></body></html>\n'
    )


def _summary(story):
    """Returns the numbers that one looks for first, and what they are of."""
    scores, sizes = story["scores"], story["sizes"]
    int8 = scores["int8"]
    boxes = {
        "Entity F1 of the int8 student": (
            f"{int8['f1']:.1%}",
            f"95% interval {int8['low']:.1%} to {int8['high']:.1%}",
        ),
        "Against the base model": (
            _points(int8["difference"]["f1"]),
            f"points of F1; 95% interval {_between(int8['difference'])}",
        ),
        "Size of the file": (
            f"{sizes['int8']:.1f} MB",
            f"base model: {sizes['base']:.1f} MB",
        ),
    }
    speed = _one_row(story)
    if {"int8", "base"} <= speed.keys():
        times = speed["base"]["median_ms"] / speed["int8"]["median_ms"]
        boxes["Speed against the base model"] = (
            f"{times:.1f} times",
            f"{speed['int8']['median_ms']:.1f} ms for a text of {speed['int8']['length']} pieces; "
            f"base model, in float32: {speed['base']['median_ms']:.1f} ms",
        )
    seconds = sum(stage["seconds"] for stage in story["stages"])
    boxes["All stages took"] = (_duration(seconds), f"{len(story['stages'])} stages")
    rule = ""
    if story["labels_by_rule"]:
        rule = paragraph(
            "The labels are made by rule: names of parameters, types and functions that the "
            f"docstrings of {', '.join(story['labels_by_rule'])} mark up themselves. No person "
            "has labelled or checked them, so these scores say how well a model learns the rule."
        )
    return facts(boxes) + rule + folded("Words on this page", definitions(WORDS))


def _text(story):
    facts, rows = story["vocabulary"], story["rows"]
    sizes = paragraph(
        f"{rows['documents']:,} documents gave {rows['train']:,} rows to train on, and "
        f"{rows['heldout']:,} were held out. The teacher's vocabulary had {facts['base_size']:,} "
        f"pieces and got {facts['added']:,} more, of which {facts['whole_words']:,} are words or "
        "begin one."
    )
    if facts["pieces_per_word_before"] is None:
        return sizes, paragraph("Pieces per word were not measured: there are too few lines.")
    drawn = story_figures.before_after_figure(
        f"Pieces per word, on {facts['heldout_words']:,} held-out words",
        facts["pieces_per_word_before"],
        facts["pieces_per_word_after"],
    )
    unknown = paragraph(
        "Words that the tokenizer could not read at all: "
        f"{facts['unknown_before']:.2%} before, {facts['unknown_after']:.2%} after."
    )
    words = [
        {"new word": each["word"], "was cut into": " · ".join(map(_bare, each["before"]))}
        for each in facts["longest"]
    ]
    shown = table(
        words[:_MOST_WORDS], ["new word", "was cut into"], "The longest words that are pieces now"
    )
    rest = words[_MOST_WORDS:]
    if rest:
        shown += folded(f"{len(rest)} more", table(rest, list(rest[0]), "More new words"))
    return sizes, figures([figure("pieces", *drawn)]), unknown, shown


def _bare(piece):
    """Returns a piece without the mark that it goes on a word."""
    return piece.removeprefix("##")


def _training(story, lines):
    training = story["training"]
    start, end = training["heldout"]["start"], training["heldout"]["end"]
    rows = [
        {
            "model": net,
            "parameters": values["parameters"],
            "rows a second": values["rows_per_second"],
        }
        | {
            "held-out accuracy": f"{start[f'heldout/{net}_mlm_accuracy']:.1%} → "
            f"{end[f'heldout/{net}_mlm_accuracy']:.1%}",
            "held-out loss": f"{start[f'heldout/{net}_mlm_loss']:.2f} → "
            f"{end[f'heldout/{net}_mlm_loss']:.2f}",
        }
        for net, values in training["nets"].items()
    ]
    told = paragraph(
        f"{training['steps']:,} updates by the method {training['method']}. Accuracy and loss are "
        "of guessing masked pieces in held-out text: before training → after it."
    )
    drawn = story_figures.training_figures(lines)
    return (
        told,
        table(rows, list(rows[0]), "Teacher and student"),
        figures(figure(f"training{n}", *each) for n, each in enumerate(drawn)),
    )


def _gaps(story):
    gaps = story["gaps"]
    if not gaps:
        return (paragraph("None were asked for (config.heldout.examples=0)."),)
    told = paragraph(
        "The first of the held-out text, not picked by hand. Each model guesses one piece for the "
        "gap; it read the rest of the row, too."
    )
    return told, gap_sentences(gaps)


def _scores(story):
    rows = [
        {
            "model": name_of(name),
            "F1": f"{each['f1']:.2%}",
            "95% interval": f"{each['low']:.2%} to {each['high']:.2%}",
            "precision": f"{each['precision']:.2%}",
            "recall": f"{each['recall']:.2%}",
            "points against base model": _difference(each["difference"]),
            "seeds": each["seeds"],
        }
        for name, each in story["scores"].items()
    ]
    first = story["scores"]["int8"]
    counts = story["examples"]["student"]
    told = paragraph(
        f"Measured on the {story['split']} split: {first['sentences']:,} sentences with "
        f"{first['entities']:,} entities, all types counted together (micro F1). Every model was "
        f"fine-tuned on {counts['train']:,} sentences. The intervals come from drawing the test "
        "sentences again at random (bootstrap), the same ones for all models. Where there are "
        "several seeds, scores are their mean, and int8 is made from the one that did best on the "
        "validation split."
    )
    drawn = story_figures.scores_figure(story["scores"])
    return (
        told,
        figures([figure("scores", *drawn)]),
        table(rows, list(rows[0]), "Entity F1 of every model"),
    )


def _entities(story):
    told = paragraph(
        "What the int8 student says of test sentences: the first ones, not picked by hand. Each "
        "mark says in words what it is: found; missed, with what the model said instead, if "
        "anything; or not there, where it saw an entity and the labels have none."
    )
    kinds = (("right", "All entities found, and no other"), ("wrong", "With a mistake"))
    lists = (
        f"<h3>{title}</h3>{entity_sentences(story['entities'][kind])}" for kind, title in kinds
    )
    return told, *lists


def _service(story):
    names = {name: name_of(name) for name in story["sizes"]}
    measured: dict[str, dict[str, float]] = {"size (MB)": {}}
    for name, size in story["sizes"].items():
        measured["size (MB)"][names[name]] = round(size, 1)
        timed = story["speed"].get(name, {"cells": ()})
        for cell in timed["cells"]:
            key, title = "rows_per_second", f"texts a second, {cell['batch']} at once"
            if cell["batch"] == 1:
                key, title = "median_ms", "one text (ms)"
            measured.setdefault(title, {})[names[name]] = round(cell[key], 1)
        for key, title, digits in (
            ("cold_start", "cold start (s)", 2),
            ("peak_memory_mb", "most memory (MB)", None),
        ):
            if key in timed:
                measured.setdefault(title, {})[names[name]] = round(timed[key], digits)
    rows = [{"what": title} | values for title, values in measured.items()]
    drawn = [story_figures.bars_figure("Size of the file", story["sizes"], "MB")]
    caption = "What each model costs"
    if speed := _one_row(story):
        times = {name: cell["median_ms"] for name, cell in speed.items()}
        length = next(iter(speed.values()))["length"]
        title = f"Time for one text of {length} pieces"
        drawn.append(story_figures.bars_figure(title, times, "ms (median)"))
        caption += (
            f", with texts of {length} pieces: ONNX files on the machine named above. A dash: it "
            "is not served, and was not timed"
        )
    difference = story["int8_against_its_source"]
    agreed = story["agreement"]["int8"]
    told = [
        f"int8 and the student it was made from agree on {agreed:.1%} of the entities of the test "
        f"split (F1 of the one against the other). Its own F1 differs by {_difference(difference)} "
        f"points. The float32 file agrees to {story['agreement']['student']:.1%}."
    ]
    if agreed < 0.98:
        told.append(
            "That is under 98%: eight bits cost this model something. Try calibration "
            "(launch/export.py --calibrate), or serve the float32 file."
        )
    told += [
        f"Said at the export of {name_of(name)}: {line}."
        for name, line in story["verified"].items()
        if line
    ]
    return (
        figures(figure(f"service{n}", *each) for n, each in enumerate(drawn)),
        table(rows, ["what", *names.values()], caption),
        "<h3>Verification</h3>",
        *map(paragraph, told),
    )


def _stages(story):
    rows = [
        {"stage": stage["title"], "time": _duration(stage["seconds"])} for stage in story["stages"]
    ]
    commands = "".join(
        f"<h3>{safe(stage['title'])}</h3><pre>{safe(stage['command'])}</pre>"
        for stage in story["stages"]
    )
    stand_for = paragraph(
        "They run in the folder of the project. Capitals such as WORKDIR, TEACHER, TEXT and DATA "
        "stand for the folders and files that were given."
    )
    return (
        table(rows, ["stage", "time"], "How long each stage ran"),
        folded("The command of each stage, to run it by hand", stand_for + commands),
    )


def _settings(story):
    groups: dict[str, list] = {}
    for key, value in story["settings"].items():
        head = key.partition(".")[0] if "." in key else "general"
        groups.setdefault(head, []).append({"setting": key, "value": value})
    return (
        folds(
            folded(f"{name} ({len(rows)})", table(rows, ["setting", "value"], f"Settings: {name}"))
            for name, rows in groups.items()
        ),
    )


def _one_row(story):
    """Returns {model: the timing of one row at a time}, of those that were timed."""
    return {
        name: next(cell for cell in measured["cells"] if cell["batch"] == 1)
        for name, measured in story["speed"].items()
    }


def _points(value):
    """Returns -0.0123 as −1.2, with a minus that is as wide as the plus."""
    return f"{100 * value:+.1f}".replace("-", "−")


def _difference(interval):
    if interval is None:
        return None
    return f"{_points(interval['f1'])} ({_between(interval)})"


def _between(interval):
    return f"{_points(interval['low'])} to {_points(interval['high'])}"


def _duration(seconds):
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
