# SPDX-License-Identifier: Apache-2.0
"""What holds for every table: its commands can run, in their order, and its inputs are checked."""

import dataclasses
import importlib
import re
from pathlib import Path

import pytest
from absl import flags
from ml_collections import config_flags

from edad_jax.distillation.methods import find_method
from edad_jax.distillation.settings import check_unread
from edad_jax.tasks import setup
from reproduction.driver import TABLES, reproduce
from tests.reproduction.conftest import plan_of
from tests.test_launch import assert_dies
from tests.tiny_run import run_command

ROOT = Path(__file__).parents[2]
SCALES = ("paper", "small")
PROBE_FLAGS = set(re.findall(r'DEFINE_\w+\(\s*"(\w+)"', (ROOT / "launch/probe.py").read_text()))


def check_cells(cells):
    """Checks every command's flags by its configuration: keys, values, and who reads them."""
    for cell in cells:
        script, name, *changes = cell.words
        assert (ROOT / script).is_file()
        assert all(change.partition("=")[2] for change in changes), cell.words
        if script == "launch/probe.py":  # has flags of its own
            given = (word.removeprefix("--").partition("=")[0] for word in cell.words[1:])
            assert set(given) <= PROBE_FLAGS
            continue
        name = name.removeprefix("--config=configs/").removesuffix(".py")
        words, values = [script, *changes], flags.FlagValues()
        config = importlib.import_module(f"configs.{name}").get_config()
        config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=words)
        values(words)
        if script == "launch/finetune.py":
            setup.resolve_settings(values.config)
        elif script == "launch/train.py":
            check_unread(values.config, find_method(values.config.method))
        else:
            assert script == "launch/prepare.py"  # which reads none of the options


@pytest.fixture
def make_full_run(make_run, models):
    """Returns a function that asks for a table with all its rows."""
    others = {"biobert": str(models / "bio"), "scibert": str(models / "sci")}
    pi = {"soft_labels_of": "big", "scoring": "korquad"}
    return lambda table, scale: make_run(
        table, scale=scale, **others, **(pi if table == "pi-2" else {})
    )


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("paper", sorted({paper for paper, _ in TABLES.values()}))
def test_every_command_of_a_papers_tables_is_one_that_its_configuration_takes(
    make_full_run, paper, scale
):
    tables = [table for table, (of, _) in TABLES.items() if of == paper]
    cells = {cell for table in tables for cell in plan_of(make_full_run(table, scale)).cells}
    assert cells
    check_cells(cells)


def test_a_command_with_an_option_of_none_or_of_another_method_would_be_found(make_full_run):
    cells = plan_of(make_full_run("2", "small")).cells
    (cell,) = (cell for cell in cells if cell.name == "adaptation")
    with pytest.raises(ValueError, match="config.alpha='cosine' is read with config.method=edad"):
        check_cells([cell._replace(words=(*cell.words, "--config.alpha=cosine"))])
    with pytest.raises(AttributeError, match="alfa"):
        check_cells([cell._replace(words=(*cell.words, "--config.alfa=cosine"))])


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("table", TABLES)
def test_what_a_cell_reads_was_made_by_a_cell_before_it(make_full_run, table, scale):
    run = make_full_run(table, scale)
    made = set()
    for cell in plan_of(run).cells:
        for word in cell.words:
            path = word.partition("=")[2]
            if path.startswith(f"{run.folder}/"):
                assert Path(path).relative_to(run.folder).parts[0] in made, (cell.name, word)
        assert cell.name not in made
        made.add(cell.name)


@pytest.mark.parametrize("table", TABLES)
def test_flags_for_every_run_are_in_every_run(make_full_run, table):
    run = make_full_run(table, "small")
    more = dataclasses.replace(run, train=["--config.seed=7"], tune=["--config.epochs=7"])
    for before, cell in zip(plan_of(run).cells, plan_of(more).cells, strict=True):
        assert cell.name == before.name
        new = {"launch/train.py": "--config.seed=7", "launch/finetune.py": "--config.epochs=7"}
        if cell.words[0] in new:
            assert new[cell.words[0]] in set(cell.words) - set(before.words)


@pytest.mark.parametrize(
    ("table", "changes", "message"),
    [
        ("2", {"teacher": ""}, "--teacher is empty, expected the model to begin with for table 2"),
        ("triple", {"corpus": ""}, "--corpus is empty, expected text for table triple"),
        ("2", {"ner": ""}, "--ner is empty, expected the folder of the three data sets for tab"),
        ("kcbert-5", {"sentiment": ""}, "--sentiment is empty, expected labelled texts for table"),
        ("kcbert-5", {"sentiment": "/n.csv"}, "/n.csv: got no such file or folder; .* --sentiment"),
        ("pi-2", {"squad": ""}, "--squad is empty, expected questions and their contexts for tab"),
        (
            "kcbert-4",
            {"lengths": ["16", "64"]},
            "got --lengths=16,64, expected numbers from 1 to 40",
        ),
        ("kcbert-4", {"lengths": []}, "got --lengths=, expected numbers from 1 to 40"),
        ("kcbert-4", {"models": ["m"]}, "got --models=m, expected NAME=FOLDER_OR_HUB_ID"),
        ("1", {"datasets": ["NCBI"]}, "got .'NCBI'., expected out of .'BC5CDR', 'BioNLP09'"),
        ("2", {"rows": ["ExBERT"]}, r"--rows: got \['ExBERT'\], expected out of \['BERT'"),
        ("2", {"biobert": "/none/b"}, "/none/b.* --teacher, --biobert or --scibert"),
    ],
)
@pytest.mark.parametrize("only_report", [True, False])
def test_what_is_missing_or_wrong_is_named_before_anything_runs(
    make_run, table, changes, message, only_report
):
    run = make_run(table, only_report=only_report, **changes)
    with pytest.raises(ValueError, match=message):
        reproduce(run)
    assert not run.folder.exists() and not run.out.exists()


def test_the_command_tells_its_tables_and_what_is_missing():
    done = run_command("--table", "7", script="reproduce.py")
    assert f"should be one of <{'|'.join(TABLES)}>" in done.stderr
    done = run_command("--table=pi-2", "--models", "a=/none", script="reproduce.py")
    assert_dies(done, "--squad is empty, expected questions and their contexts for table pi-2")
