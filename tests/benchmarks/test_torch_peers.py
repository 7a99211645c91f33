# SPDX-License-Identifier: Apache-2.0
"""The torch peers run; where torch is not installed they are not asked."""

import pytest

from tests.tiny_run import run_command, write_teacher
from tests.tiny_tasks import tiny_sentences, write_tagged, write_tagging


def test_torch_fine_tunes_what_ours_does(tmp_path):
    pytest.importorskip("torch")
    data = write_tagging(tmp_path / "data")
    write_tagged(data / "test.tsv", tiny_sentences(5))
    done = run_command(
        "--config=configs/ner.py",
        f"--config.model={write_teacher(tmp_path / 'bert')}",
        f"--config.data={data}",
        "--config.epochs=1",
        "--config.max_length=32",
        script="../benchmarks/torch_finetune.py",
    )
    assert done.returncode == 0, done.stderr
    assert "seed 0: test F1" in done.stdout and "entity F1" in done.stdout
