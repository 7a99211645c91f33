# SPDX-License-Identifier: Apache-2.0
"""Options that a run would not read: an error, but in none of the commands that we ship."""

import functools
import importlib
import operator
from pathlib import Path

import jax
import pytest

from configs import classify, edad, ner, quickstart, squad
from edad_jax.distillation.settings import read_settings, resolve_config
from edad_jax.tasks import setup

ROOT = Path(__file__).parents[2]
CONFIGURATIONS = sorted(path.stem for path in (ROOT / "configs").glob("*.py"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"triple.soft": 0.5, "triple.mlm": 0.375}, "triple.mlm=0.375.*method=triple or triple_ad"),
        ({"triple.temperature": 4.0}, "triple.temperature=4.0.*method='edad'.*leave it out"),
        ({"triple.schedule": "linear"}, "triple.schedule='linear'.*leave it out"),
        ({"minilm.relation_heads": 6}, "minilm.relation_heads=6.*method=minilm only"),
        ({"method": "adaptation", "alpha": "cosine"}, "alpha='cosine'.*method=edad only"),
        ({"method": "triple_adaptation", "alpha": "same"}, "alpha='same'.*'triple_adaptation'"),
        (
            {"student.inherit.layer_rule": "distilbert"},
            "student.inherit.layer_rule='distilbert'.*student.init=teacher only.*leave it out",
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
        read_settings(config)


def test_checking_settings_takes_no_device(monkeypatch):
    """A pipeline checks them, and its stages need the GPU's memory, or the TPU."""

    def take(*_):
        raise AssertionError("a device was asked for")

    for name in ("default_backend", "devices", "local_devices"):
        monkeypatch.setattr(jax, name, take)
    settings = read_settings(edad.get_config())
    with pytest.raises(AssertionError, match="a device was asked for"):
        _ = settings.precision  # which does
    config = edad.get_config()
    config.dtype = "float23"
    with pytest.raises(ValueError, match="config.dtype='float23' is not one of auto, float32, b"):
        read_settings(config)


@pytest.mark.parametrize(
    ("changes", "values"),
    [
        ({}, {"alpha": "linear", "phases.stop_teacher_below": 0.0, "triple.soft": None}),
        ({"alpha": "same", "phases.drop_teacher_below": 0.1}, {"phases.drop_teacher_below": 0.1}),
        (
            {"method": "triple"},
            {"triple.soft": 0.625, "triple.schedule": "constant", "alpha": None},
        ),
        (
            {"student.init": "teacher"},
            {"student.inherit.layer_rule": "uniform", "student.inherit.layers": ()},
        ),
    ],
)
def test_what_is_recorded_has_the_values_of_all_options_that_are_read(changes, values):
    config = edad.get_config()
    config.update_from_flattened_dict(changes)
    resolved = resolve_config(config, read_settings(config))
    got = {name: functools.reduce(operator.getitem, name.split("."), resolved) for name in values}
    assert got == values
    assert resolve_config(resolved, read_settings(resolved)) == resolved  # as in a resumed run


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
        read_settings(config)
