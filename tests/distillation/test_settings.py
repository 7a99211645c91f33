# SPDX-License-Identifier: Apache-2.0
"""Options that a run would not read: an error, but in none of the commands that we ship."""

import importlib
from pathlib import Path

import pytest
from absl import flags
from ml_collections import config_flags

from configs import classify, edad, ner, quickstart, squad
from edad_jax.distillation import build, settings
from edad_jax.tasks import setup
from reproduction import kcbert
from reproduction.edad import SCALES, TITLES
from reproduction.raspberry_pi import PI_SCALES, plan_pi
from reproduction.triple_loss import ABLATION_SCALES, plan_ablation
from tests.reproduction.test_edad import ALL_INPUTS, all_cells
from tests.reproduction.test_kcbert import INPUTS
from tests.tiny_run import write_teacher

ROOT = Path(__file__).parents[2]
CONFIGURATIONS = sorted(path.stem for path in (ROOT / "configs").glob("*.py"))


def value_of(config, name):
    for part in name.split("."):
        config = config[part]
    return config


def test_the_defaults_are_those_of_the_configurations():
    config = edad.get_config()
    for defaults in settings.TRAINING.values():
        assert {name: value_of(config, name) for name in defaults} == defaults


def test_every_option_of_a_section_is_looked_at():
    config = edad.get_config()
    names = {name for defaults in settings.TRAINING.values() for name in defaults}
    for section in ("triple", "minilm", "student.inherit"):
        found = {name for name in names if name.rpartition(".")[0] == section}
        assert found == {f"{section}.{key}" for key in value_of(config, section)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"triple.soft": 0.5, "triple.mlm": 0.375}, "triple.soft=0.5.*method=triple or triple_ad"),
        ({"triple.temperature": 4.0}, "triple.temperature=4.0.*method='edad'.*leave it at 2.0"),
        ({"triple.schedule": "linear"}, "triple.schedule='linear'.*leave it at 'constant'"),
        ({"minilm.relation_heads": 6}, "minilm.relation_heads=6.*method=minilm only"),
        ({"method": "adaptation", "alpha": "cosine"}, "alpha='cosine'.*method=edad only"),
        ({"method": "triple_adaptation", "alpha": "same"}, "alpha='same'.*'triple_adaptation'"),
        (
            {"student.inherit.layer_rule": "distilbert"},
            "student.inherit.layer_rule='distilbert'.*student.init=teacher only.*leave it at 'unif",
        ),
        (
            {"student.inherit.width": "energetic"},
            "student.inherit.width='energetic'.*init='random'",
        ),
    ],
)
def test_an_option_that_the_method_does_not_read_is_an_error(changes, message):
    config = edad.get_config()
    config.update_from_flattened_dict(changes)
    with pytest.raises(ValueError, match=f"config.{message}"):
        build.check_settings(config)


@pytest.mark.parametrize(
    ("module", "changes", "message"),
    [
        (ner, {"temperature": 2.0}, "temperature=2.0.*a teacher only.*leave it out"),
        (classify, {"soft_weight": 1.0}, "soft_weight=1.0.*--config.teacher=FOLDER"),
        (squad, {"temperature": 2.0}, "temperature=2.0.*leave it out"),
    ],
)
def test_soft_labels_without_a_teacher_are_an_error(module, changes, message):
    config = module.get_config()
    config.update({"model": "/m", "data": "/d"} | changes)
    with pytest.raises(ValueError, match=f"config.{message}"):
        setup.resolve_settings(config)
    config.teacher = "/t"
    resolved = setup.resolve_settings(config)
    defaults = {"soft_weight": 0.5, "temperature": 2.0 if module is squad else 1.0}
    assert {name: resolved[name] for name in defaults} == defaults | changes
    assert resolved.model == "/m" and config.soft_weight == changes.get("soft_weight")


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_every_configuration_passes(name, monkeypatch):
    monkeypatch.setattr(quickstart, "_find_teacher", lambda: "/models/minilm")
    config = importlib.import_module(f"configs.{name}").get_config()
    if "task" in config:
        config.update({"model": "/m", "data": "/d"})
        setup.resolve_settings(config)
    else:
        settings.check_training(config)


def check_cells(cells):
    """Checks what the flags of every command make of its configuration."""
    for cell in cells:
        script, name, *changes = cell.words
        name = name.removeprefix("--config=configs/").removesuffix(".py")
        words, values = [script, *changes], flags.FlagValues()
        config = importlib.import_module(f"configs.{name}").get_config()
        config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=words)
        values(words)
        if script == "launch/finetune.py":
            setup.resolve_settings(values.config)
        elif script == "launch/train.py":
            settings.check_training(values.config)
        else:
            assert script == "launch/prepare.py"  # which reads none of the options


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("number", TITLES)
def test_every_command_of_the_papers_tables_passes(number, scale):
    check_cells(all_cells(number, scale, ALL_INPUTS)[1])


@pytest.mark.parametrize("scale", kcbert.KC_SCALES.values(), ids=kcbert.KC_SCALES)
def test_every_command_of_the_thesiss_tables_passes(scale):
    check_cells(kcbert.plan_kcbert(6, scale, INPUTS, "/cells").cells)


def test_every_command_of_the_other_tables_passes(tmp_path):
    teacher = str(write_teacher(tmp_path / "teacher"))
    for scale in ABLATION_SCALES.values():
        check_cells(plan_ablation(scale, teacher, "/d/*.txt", "/n", "/cells").cells)
    models = {"big": teacher, "small": teacher}
    for tune in PI_SCALES.values():
        check_cells(plan_pi(models, "/squad", "/cells", tune, "big", "korquad").cells)


def test_a_command_with_an_option_of_another_method_would_be_found():
    (cell,) = (cell for cell in all_cells(2, "small")[1] if cell.name == "adaptation")
    with pytest.raises(ValueError, match="config.alpha='cosine' is read with config.method=edad"):
        check_cells([cell._replace(words=(*cell.words, "--config.alpha=cosine"))])
