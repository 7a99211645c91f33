# SPDX-License-Identifier: Apache-2.0
"""What a run leaves: nets in Hugging Face layout, a summary, a picture, a few lines to read."""

from pathlib import Path

import jax
from ml_collections import ConfigDict

from edad_jax import __version__
from edad_jax.data.prepare import Prepared
from edad_jax.data.rows import is_next_sentence_task, random_next_share
from edad_jax.distillation import evaluate
from edad_jax.distillation.build import Run
from edad_jax.distillation.examples import fill_gaps
from edad_jax.distillation.method import Method
from edad_jax.export.card import ModelCard, is_hub_id, origin, public
from edad_jax.export.huggingface import save_model
from edad_jax.files import write_json
from edad_jax.models import init
from edad_jax.report import training
from edad_jax.report.summary import Summary
from edad_jax.report.tables import markdown_table
from edad_jax.training import state
from edad_jax.training.metrics import read_metrics
from edad_jax.training.progress import TIME_COSTS

_USE = (
    "To be fine-tuned for tasks on texts like those it was trained on; as it is, it fills gaps. It "
    "writes no text. What the teacher has learned wrongly of people or facts, it may have too. "
    "The figures are of held-out text of the same corpus: on other text expect less."
)


def leave_result(
    config: ConfigDict,
    method: Method,
    workdir: Path,
    prepared: Prepared,
    run: Run,
    train_state: state.TrainState,
) -> Summary:
    """Returns the summary, after writing all that a run leaves; to be called by process 0.

    Writes workdir/student and, where the teacher learned, workdir/teacher (Hugging Face layout),
    summary.json and training.png, and prints the figures.
    """
    trained = state.unpack(jax.device_get(train_state.params))
    params = {
        net: {
            part: tree
            for part, tree in run.all_params(trained, net).items()
            if part != "projection"  # serves distillation, and is no part of the student
        }
        for net in run.models
    }
    logged = read_metrics(workdir / "metrics.jsonl")
    lines = [line for line in logged if any(_is_heldout(k) for k in line)]
    newest = {name: value for line in logged for name, value in line.items()}
    nets = {net: (model, params[net]) for net, model in run.models.items()}
    speed = evaluate.measure_speed(nets, length=config.rows.max_length)
    summary = {
        "method": config.method,
        "steps": int(train_state.step),
        "time_cost": {name: newest[name] for name in TIME_COSTS if name in newest},
        "heldout": {"start": lines[0], "middle": lines[len(lines) // 2], "end": lines[-1]},
        "nets": {
            net: {
                "parameters": init.count_parameters(params[net]),
                "parameters_trained": init.count_parameters(trained.get(net, {})),
                "rows_per_second": speed[net],
            }
            for net in run.models
        },
        "examples": fill_gaps(nets, prepared, config.heldout.examples),
        "data": prepared.facts,
    }
    for net in run.trained:
        save_model(
            workdir / net,
            params[net],
            run.models[net].config,
            prepared.tokenizer_dir,
            card=_card(config, method, net, summary),
        )
    write_json(workdir / "summary.json", summary)
    picture = training.plot_training(workdir)
    text = _result_text(workdir, summary, picture)
    print(text, flush=True)
    return Summary(summary, workdir, text, picture)


def _is_heldout(name):
    return name.startswith("heldout/")


def _card(config, method, net, summary):
    end = summary["heldout"]["end"]
    figures = {
        name: value
        for name, value in end.items()
        if _is_heldout(name) and net in name and (_has_nsp(summary) or "nsp" not in name)
    }
    if "heldout/agreement" in end:
        figures["heldout/agreement"] = end["heldout/agreement"]
    untrained = _untrained(config, method) if net == "student" else {}
    settings = {
        name: section.to_dict() if isinstance(section, ConfigDict) else section
        for name, section in config.items()
        if name not in ("corpus", "vocabulary", "parallel", "checkpoint", "progress", "prepared")
    }
    example = next(iter(summary["examples"]), None)
    return ModelCard(
        **origin(config.teacher.checkpoint),
        datasets=[config.corpus.dataset] if is_hub_id(config.corpus.dataset) else [],
        example=(example["text"], {net: example[net]}) if net in (example or {}) else None,
        use=_USE,
        made=_steps(config, method, net, summary),
        title=f"{net} of an edad-jax run ({config.method})",
        summary={
            "student": "A small domain encoder, distilled and adapted to its domain by edad-jax.",
            "teacher": "A BERT with an exBERT extension, adapted to its domain by edad-jax.",
        }[net],
        data={
            "corpus": {k: v for k, v in config.corpus.items() if v},
            "vocabulary": summary["data"]["vocabulary"],
            "rows": summary["data"]["rows"]["train"],
            "teacher checkpoint": Path(config.teacher.checkpoint).name,
        },
        settings=settings,
        measured=untrained | figures | {"steps": summary["steps"]} | summary["nets"][net],
    )


def _steps(config, method, net, summary):
    """Returns how a net was made, in five lines at most."""
    vocabulary, rows = summary["data"]["vocabulary"], summary["data"]["rows"]["train"]
    steps = [
        f"Teacher: {public(config.teacher.checkpoint)}; {vocabulary.get('added', 0):,} words of "
        "the domain were added to its vocabulary.",
        f"Text: {rows['rows']:,} rows of at most {config.rows.max_length} pieces.",
        f"Method {config.method}: {summary['steps']:,} updates of {config.batch_size} rows, "
        f"seed {config.seed}.",
        f"Written by edad-jax {__version__}.",
    ]
    if net == "student":
        layers, width = config.student.num_hidden_layers, config.student.hidden_size
        steps.insert(
            2, f"Student: {layers} layers of width {width}, begun from: {config.student.init}."
        )
    return steps


def _untrained(config, method):
    """Returns words for the card: what of the exported student never had a loss."""
    learned = method.learned_heads(config)
    if config.rows.mode != "pairs":
        learned = learned - {"NSP"}
    told = dict(method.note)
    there = ("MLM", "NSP") if config.student.has_pooler else ("MLM",)
    if untrained := [head for head in there if head not in learned]:
        told["heads"] = f"untrained, no loss of this run reached them: {', '.join(untrained)}"
    return told


def _has_nsp(summary):
    """Returns whether the held-out rows ask for both answers; else an accuracy means nothing."""
    share = random_next_share(summary["data"]["rows"]["heldout"])
    return share is not None and is_next_sentence_task(share)


def _show_examples(examples):
    names = {"text": "held-out text", "word": "what stands there"}
    rows = [{names.get(name, name): value for name, value in each.items()} for each in examples]
    return markdown_table(rows, list(rows[0]))


def _result_text(workdir, summary, picture):
    """Returns the few lines that a run ends with."""
    start, end = summary["heldout"]["start"], summary["heldout"]["end"]
    rows = []
    for net, facts in summary["nets"].items():
        rows.append(
            {
                "": net,
                "parameters": f"{facts['parameters'] / 1e6:.1f}M",
                "rows/s": f"{facts['rows_per_second']:.1f}",
                "held-out MLM accuracy": f"{start[f'heldout/{net}_mlm_accuracy']:.1%} -> "
                f"{end[f'heldout/{net}_mlm_accuracy']:.1%}",
                "held-out MLM loss": f"{start[f'heldout/{net}_mlm_loss']:.2f} -> "
                f"{end[f'heldout/{net}_mlm_loss']:.2f}",
            }
        )
        if _has_nsp(summary) and any(name.endswith("nsp_accuracy") for name in end):
            nsp = end.get(f"heldout/{net}_nsp_accuracy")  # a net without pooler has none
            rows[-1]["NSP accuracy"] = None if nsp is None else f"{nsp:.1%}"
    text = f"\n{markdown_table(rows, list(rows[0]))}\n"
    if len(rows) == 2:
        teacher, student = (summary["nets"][net] for net in ("teacher", "student"))
        size = student["parameters"] / teacher["parameters"]
        speed = student["rows_per_second"] / teacher["rows_per_second"]
        text += (
            f"student against teacher: {size:.2f} of the size, {speed:.1f} times the speed; "
            f"they agree on {end['heldout/agreement']:.1%} of the masked pieces\n"
        )
    if summary["examples"]:
        text += f"\n{_show_examples(summary['examples'])}\n"
    left = ", ".join(
        f"{workdir.name}/{net}/" for net in summary["nets"] if (workdir / net).exists()
    )
    return (
        text + f"left in {workdir.parent}: {left}, {workdir.name}/{picture.name}, metrics.jsonl\n"
    )
