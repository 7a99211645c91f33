# SPDX-License-Identifier: Apache-2.0
"""The story of a pipeline as one page that needs no network, no script and no other file.

It forbids itself everything but its own style, so that a browser would refuse to fetch anything.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edad_jax.report import story_figures
from edad_jax.report.markup import (
    facts,
    figure,
    figures,
    folded,
    paragraph,
    safe,
    section,
    table,
)
from edad_jax.report.story_figures import name_of

_STYLE = Path(__file__).with_name("static") / "page.css"
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_KINDS = {"found": "found", "missed": "missed", "wrong": "not there"}


def render_page(story: Mapping[str, Any], lines: Sequence[Mapping[str, float]]) -> str:
    """Returns the page as HTML.

    Args:
      story: of `chain.story.make_story`, which is what report.json holds.
      lines: of the training's metrics.jsonl.
    """
    parts = {
        "text": ("Text and vocabulary", _text(story)),
        "training": ("Training", _training(story, lines)),
        "gaps": ("Gaps in held-out text, filled", _gaps(story)),
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
        f"<title>{safe(story['title'])}</title><style>{_STYLE.read_text(encoding='utf-8')}</style>"
        '</head><body><a class="skip" href="#main">To the text</a>'
        f"<header><h1>{safe(story['title'])}</h1>"
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
        "Against the base model, fine-tuned alike": (
            _points(int8["difference"]["f1"]),
            f"points, {_between(int8['difference'])}",
        ),
        "Size": (
            f"{sizes['int8']:.1f} MB",
            f"the base model's weights have {sizes['base']:.1f} MB",
        ),
    }
    speed = _one_row(story)
    if {"int8", "base"} <= speed.keys():
        times = speed["base"]["median_ms"] / speed["int8"]["median_ms"]
        boxes["Speed, one row at a time"] = (
            f"{times:.1f} times",
            f"the base model's in float32 ONNX: {speed['int8']['median_ms']:.1f} ms against "
            f"{speed['base']['median_ms']:.1f} ms for {speed['int8']['length']} pieces",
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
    return facts(boxes) + rule


def _text(story):
    facts, rows = story["vocabulary"], story["rows"]
    sizes = paragraph(
        f"{rows['documents']:,} documents gave {rows['train']:,} rows to train on and "
        f"{rows['heldout']:,} held out. The vocabulary had {facts['base_size']:,} pieces and got "
        f"{facts['added']:,} more, of which {facts['whole_words']:,} are whole words or begin one."
    )
    if facts["pieces_per_word_before"] is None:
        return sizes, paragraph("Pieces per word were not measured: there are too few lines.")
    drawn = story_figures.before_after_figure(
        f"Pieces per word, on {facts['heldout_words']:,} held-out words",
        facts["pieces_per_word_before"],
        facts["pieces_per_word_after"],
    )
    unknown = paragraph(
        f"Words with a piece that the tokenizer does not know: {facts['unknown_before']:.2%} "
        f"before, {facts['unknown_after']:.2%} after."
    )
    words = [
        {"new word": each["word"], "pieces before": len(each["before"]) or None}
        | {"was": " ".join(each["before"])}
        for each in facts["longest"]
    ]
    longest = table(
        words, ["new word", "pieces before", "was"], f"The {len(words)} longest new words"
    )
    return sizes, figures([figure("pieces", *drawn)]), unknown, longest


def _training(story, lines):
    training = story["training"]
    start, end = training["heldout"]["start"], training["heldout"]["end"]
    rows = [
        {"net": net, "parameters": values["parameters"], "rows a second": values["rows_per_second"]}
        | {
            "held-out accuracy": f"{start[f'heldout/{net}_mlm_accuracy']:.1%} → "
            f"{end[f'heldout/{net}_mlm_accuracy']:.1%}",
            "held-out loss": f"{start[f'heldout/{net}_mlm_loss']:.2f} → "
            f"{end[f'heldout/{net}_mlm_loss']:.2f}",
        }
        for net, values in training["nets"].items()
    ]
    told = paragraph(
        f"{training['steps']:,} updates by the method {training['method']}; accuracy and loss are "
        "of masked pieces in text that was held out, before and after."
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
    names = {"text": "held-out text", "word": "what stands there"}
    rows = [{names.get(key, key): value for key, value in each.items()} for each in gaps]
    told = paragraph("The first gaps that come, chosen by nobody; each net puts in one piece.")
    return told, table(rows, list(rows[0]), "Gaps, and what was put in")


def _scores(story):
    rows = [
        {
            "model": name_of(name),
            "F1": f"{each['f1']:.2%}",
            "95% interval": f"{each['low']:.2%} to {each['high']:.2%}",
            "precision": f"{each['precision']:.2%}",
            "recall": f"{each['recall']:.2%}",
            "seeds": each["seeds"],
            "points against base": _difference(each["difference"]),
        }
        for name, each in story["scores"].items()
    ]
    first = story["scores"]["int8"]
    counts = story["examples"]["student"]
    told = paragraph(
        f"Micro F1 over whole entities on the {story['split']} split: {first['sentences']:,} "
        f"sentences with {first['entities']:,} entities. All were fine-tuned on "
        f"{counts['train']:,} sentences. Intervals are by a bootstrap over test sentences, "
        "the same draws for all; "
        "differences are paired. int8 is the student of the seed that did best on the validation "
        "split, so it may differ from the mean over several seeds."
    )
    drawn = story_figures.scores_figure(story["scores"])
    return (
        told,
        figures([figure("scores", *drawn)]),
        table(rows, list(rows[0]), "Entity F1 of every model"),
    )


def _entities(story):
    told = paragraph(
        "What the int8 student says of test sentences: the first that come, chosen by nobody. "
        "Each mark says in words what it is: found; missed, with what was said instead if "
        "anything was; or not there, where the model saw an entity and the labels have none."
    )
    kinds = (("right", "All entities found, and no other"), ("wrong", "With a mistake"))
    lists = [f"<h3>{title}</h3>" + _sentences(story["entities"][kind]) for kind, title in kinds]
    return told, *lists


def _sentences(sentences):
    if not sentences:
        return paragraph("There is no such sentence.")
    return f'<ol class="sentences">{"".join(map(_sentence, sentences))}</ol>'


def _sentence(sentence):
    return f"<li>{' '.join(_part(part) for part in sentence['parts'])}</li>"


def _part(part):
    if not part["kind"]:
        return safe(part["text"])
    said = f"; said: {part['said']}" if part["said"] else ""
    return (
        f'<mark class="{safe(part["kind"])}">{safe(part["text"])}<small>'
        f"[{safe(_KINDS[part['kind']])}: {safe(part['type'])}{safe(said)}]</small></mark>"
    )


def _service(story):
    rows = []
    for name, size in story["sizes"].items():
        row = {"model": name_of(name), "MB": round(size, 1)}
        if name in story["speed"]:
            measured = story["speed"][name]
            for cell in measured["cells"]:
                title = f"{cell['batch']} x {cell['length']} pieces"
                row[f"{title}: ms"] = round(cell["median_ms"], 1)
                row[f"{title}: rows/s"] = round(cell["rows_per_second"], 1)
            row["cold start (s)"] = round(measured["cold_start"], 2)
            row["peak memory (MB)"] = round(measured["peak_memory_mb"])
        rows.append(row)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    drawn = [story_figures.bars_figure("Size on disk", story["sizes"], "MB")]
    if speed := _one_row(story):
        times = {name: cell["median_ms"] for name, cell in speed.items()}
        length = next(iter(speed.values()))["length"]
        title = f"Time for one row of {length} pieces"
        drawn.append(story_figures.bars_figure(title, times, "ms (median)"))
    difference = story["int8_against_its_source"]
    agreed = story["agreement"]["int8"]
    told = [
        f"int8 and the student it was made from agree on {agreed:.1%} of their entities (F1 of "
        f"the one against the other). Its F1 differs by {_difference(difference)} points. The "
        f"float32 file agrees to {story['agreement']['student']:.1%}."
    ]
    if agreed < 0.98:
        told.append(
            "That is under 98%: eight bits cost this model something. Try calibration "
            "(launch/export.py --calibrate), or serve the float32 file."
        )
    told += [f"{name_of(name)}: {line}." for name, line in story["verified"].items() if line]
    return (
        figures(figure(f"service{n}", *each) for n, each in enumerate(drawn)),
        table(rows, columns, "What is served of each model; times are of ONNX files"),
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
    return (
        table(rows, ["stage", "time"], "How long each stage ran"),
        folded("The command of each stage, as it can be given by hand", commands),
    )


def _settings(story):
    groups: dict[str, list] = {}
    for key, value in story["settings"].items():
        head = key.partition(".")[0] if "." in key else "general"
        groups.setdefault(head, []).append({"setting": key, "value": value})
    return tuple(
        folded(f"{name} ({len(rows)})", table(rows, ["setting", "value"], f"Settings: {name}"))
        for name, rows in groups.items()
    )


def _one_row(story):
    """Returns {model: the timing of one row at a time}, of those that were timed."""
    return {
        name: next(cell for cell in measured["cells"] if cell["batch"] == 1)
        for name, measured in story["speed"].items()
    }


def _points(value):
    """Returns 0.0123 as +1.2."""
    return f"{100 * value:+.1f}"


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
