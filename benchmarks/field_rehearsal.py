# SPDX-License-Identifier: Apache-2.0
"""What a rehearsal of the field day reads: a tiny teacher, rows and data sets, packed as real ones.

python -m benchmarks.field_rehearsal FOLDER     leaves FOLDER/parts
"""

import sys
import tempfile
from pathlib import Path

from benchmarks import field_pack
from benchmarks.field_part import paper_config
from edad_jax.data.prepare import prepare_folder
from tests.tiny_run import make_inputs
from tests.tiny_tasks import write_tagging


def make_parts(folder: Path) -> Path:
    """Returns the folder with the parts of a tiny pack."""
    with tempfile.TemporaryDirectory(prefix="field-rehearsal-") as temporary:
        inputs = make_inputs(Path(temporary))
        config = paper_config(
            True,
            corpus__files=str(inputs / "corpus.txt"),
            teacher__checkpoint=str(inputs / "teacher"),
            progress=False,
        )
        prepare_folder(config, inputs / "rows")
        for name in field_pack.SETS:
            write_tagging(inputs / "ner" / name)
        stage = inputs / "stage"
        field_pack.gather(inputs / "teacher", inputs / "rows", inputs / "ner", stage)
        field_pack.pack(stage, folder / "parts", limit=100_000)
    return folder / "parts"


if __name__ == "__main__":
    make_parts(Path(sys.argv[1]))
