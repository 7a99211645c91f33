# SPDX-License-Identifier: Apache-2.0
"""The README and the docs say what the code says: commands, keys, messages, links, figures."""

import ast
import importlib.util
import json
import re
import shlex
from pathlib import Path

import pytest
from ml_collections import ConfigDict

import edad_jax
from edad_jax.report.summary import Summary

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    path for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")) if path.name != "CHANGELOG.md"
)
# Script -> the test file that runs it, or what it calls, at tiny size.
RUN_BY = {
    "launch/pipeline.py": "chain/test_pipeline.py",
    "launch/train.py": "test_launch.py",
    "launch/finetune.py": "tasks/test_finetune.py",
    "launch/prepare.py": "data/test_prepare.py",
    "launch/probe.py": "tasks/test_probe.py",
    "launch/report.py": "report/test_comparison.py",
    "launch/reproduce.py": "reproduction/test_tables.py",
    "launch/serve.py": "runtime/test_edge_commands.py",
    "launch/export.py": "runtime/test_edge_commands.py",
    "launch/compress.py": "runtime/test_edge_commands.py",
    "launch/compile.py": "benchmarks/test_forecast.py",
    "launch/benchmark.py": "benchmarks/test_training.py",
    "launch/benchmark_edge.py": "benchmarks/test_edge.py",
    "benchmarks/answer_bounds.py": "tasks/test_answering.py",
    "benchmarks/film_ratings.py": "benchmarks/test_film_ratings.py",
    "benchmarks/prepare_rows.py": "benchmarks/test_scripts.py",
    "benchmarks/torch_finetune.py": "benchmarks/test_torch_peers.py",
    "benchmarks/field_report.py": "benchmarks/test_field_report.py",
    "benchmarks/fuzz_campaign.py": "benchmarks/test_fuzz_campaign.py",
    "benchmarks/full_disk_campaign.py": "benchmarks/test_full_disk_campaign.py",
    "benchmarks/crash_campaign.py": "benchmarks/test_campaigns.py",
    "benchmarks/corruption_campaign.py": "benchmarks/test_campaigns.py",
    "docs/generate.py": "test_docs.py",
    "docs/notebooks/build.py": "test_docs.py",
}
# First words of other commands -> why no test runs them, or what does.
NOT_RUN = {
    "make": "installs; CI runs test, lint and budgets, a person quickstart and docs",
    ".ci/run": "runs the tests",
    "pip": "needs a registry",
    "uv": "needs a registry",
    "apt": "changes the machine",
    "aws": "needs the internet",
    "git": "needs the internet",
    "curl": "tests/runtime/test_server.py asks the server itself",
    "scp": "needs a second machine",
    "sbatch": "needs a cluster",
    "hf": "needs the Hub",
    "benchmarks/server_campaign.py": "minutes; tests/runtime/test_server.py claims the same",
    "st": "schemathesis: needs another package; tests/runtime/test_server.py reads the interface",
    "chromium": "draws a picture of the docs",
    "pngquant": "makes it small",
    "benchmarks/field_pack.sh": "tests/benchmarks/test_field_pack.py runs its parts",
    "benchmarks/field_day.sh": "tests/benchmarks/test_field_day.py runs its parts",
    "python -m edad_jax.runtime": "tests/runtime/test_main.py",
    "python -m chain.docstring_labels": "tests/chain/test_labels.py",
    "python -m pytest": "this",
    "python -m venv": "makes an environment",
    "python -m build": "tests/test_packaging.py builds the wheel",
    "python -m twine": "needs another package",
}


@pytest.fixture(scope="module")
def generate():
    return load("docs/generate.py")


def load(name):
    spec = importlib.util.spec_from_file_location(Path(name).stem, ROOT / name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def commands_of(text: str) -> list[str]:
    """Returns the commands of a page: of its blocks of code, one a line, and within sentences."""
    block = re.compile(r"^ *```([^\n]*)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
    shell = [inside for language, inside in block.findall(text) if language in ("", "bash", "sh")]
    lines = "\n".join(shell).replace("\\\n", " ").splitlines()
    sentences = block.sub("", text)
    for quoted in re.findall(r"`([^`]+)`", sentences):
        words = quoted.split()
        if len(words) > 1 and re.match(r"(?:launch|benchmarks)/\w+\.py$", words[0]):
            words = ["python", *words]
        if words[:1] == ["python"] and "=..." not in quoted and "..." not in words:
            lines.append(" ".join(words))
    starts = (
        r"(?:\.venv(?:-\w+)?/bin/|/\S+/bin/)?(?:python3?|make|pip|uv|apt|aws|git|curl|scp|sbatch"
    )
    starts += r"|hf|st|chromium|pngquant|\.ci/run|benchmarks/\w+\.sh)\b"
    commands = []
    for line in lines:
        for part in re.split(r"&&|\|", re.sub(r"\s#.*", "", line)):
            part = re.sub(r"^(sudo |[A-Z_]+=\S+ )+", "", part.strip())
            if re.match(starts, part):
                commands.append(re.sub(r"^\S*/bin/", "", part))
    return commands


def script_of(command: str) -> tuple[str, list[str]] | None:
    """Returns a repository's script and its arguments; None for any other command."""
    words = shlex.split(command)
    for number, word in enumerate(words[:2]):
        found = re.search(r"(?:launch|benchmarks|docs|docs/notebooks)/\w+\.py$", word)
        if found and words[0].startswith("python"):
            return found[0], words[number + 1 :]
    return None


# Tables of docs/results/ say what was typed when they were made, by the names of then.
COMMANDS = [
    (page, each)
    for page in PAGES
    if "docs/results/" not in page.as_posix()
    for each in commands_of(page.read_text("utf-8"))
]
OURS = [(page, *found) for page, each in COMMANDS if (found := script_of(each))]


def test_the_docs_have_many_commands():
    assert len(COMMANDS) > 100 and len({script for _, script, _ in OURS}) > 14


@pytest.mark.parametrize("page", sorted({page for page, *_ in OURS}), ids=lambda page: page.name)
def test_commands_have_flags_and_keys_that_exist(generate, page):
    for where, script, words in OURS:
        if where == page and not script.startswith(("docs/", "benchmarks/field")):
            check_flags(generate, page, script, words)


def argparse_flags(script):
    """Returns the flags of a script without absl: those of benchmarks that need no settings."""
    return set(re.findall(r'add_argument\(\s*"--(\w+)"', script.read_text("utf-8")))


def check_flags(generate, page, script, words):
    flags = generate.read_flags(ROOT / script) or argparse_flags(ROOT / script)
    config = config_of(generate, words) if "config" in flags else None
    for name, _, value in (word.partition("=") for word in words if word.startswith("--")):
        name = name.removeprefix("--")
        if not name.startswith("config."):
            assert name in flags or name.removeprefix("no") in flags, f"{page}: --{name}"
            continue
        section, key = config, name.removeprefix("config.")
        while "." in key:
            head, _, key = key.partition(".")
            assert head in section, f"{page}: --{name}"
            section = section[head]
        assert key in section and not isinstance(section[key], ConfigDict), f"{page}: --{name}"
        kind = section.get_type(key)
        if kind in (int, float) and "..." not in value:
            kind(value)


def config_of(generate, words):
    """Returns the configuration that a command names."""
    for number, word in enumerate(words):
        if word == "--config" or word.startswith("--config="):
            name = word.partition("=")[2] or words[number + 1]
            return generate.read_config(Path(name).stem)
    return ConfigDict()


def test_every_command_is_run_by_a_test_or_listed():
    for _, script, _ in OURS:
        assert (ROOT / script).is_file(), script
        if script in NOT_RUN:
            continue
        text = (ROOT / "tests" / RUN_BY[script]).read_text("utf-8")
        assert Path(script).name in text or Path(script).stem in text, script
    for page, command in COMMANDS:
        if not script_of(command):
            words = command.replace("python3 ", "python ").split()
            first = " ".join(words[:3]) if words[0] == "python" else words[0]
            assert first in NOT_RUN, f"{page}: {command}"


def test_generated_pages_say_what_the_code_says(generate):
    for name, make in generate.PAGES.items():
        text = (ROOT / "docs" / "reference" / name).read_text("utf-8")
        assert text == make(), f"docs/reference/{name} is old: run python docs/generate.py"


def test_every_key_of_the_configurations_has_a_meaning(generate):
    rows = re.findall(r"^\| `[\w.]+` \|.*$", generate.configuration_page(), re.MULTILINE)
    assert len(rows) > 150
    assert [row for row in rows if row.endswith("|  |")] == []


def test_the_page_of_keys_knows_which_methods_read_one(generate):
    page = generate.configuration_page()
    assert re.search(r"`phases.stop_teacher_below` \| float \| none: `0.0` \| edad \|", page)
    assert re.search(r"`imitation.hidden_weight` .* \| edad, distillation \|", page)
    assert re.search(r"`triple.soft` \| float \| none: `0.625` \| triple, triple_adaptation", page)


def joined(node: ast.AST) -> str:
    """Returns a string of the code with ... for what is put in."""
    match node:
        case ast.Constant(value=str(value)):
            return value
        case ast.JoinedStr(values=values):
            return "".join(
                joined(each) if isinstance(each, ast.Constant) else "…" for each in values
            )
    return ""


def test_every_message_of_the_troubleshooting_page_is_in_the_code():
    rooms = ("edad_jax", "launch", "chain")
    files = [path for room in rooms for path in ROOT.glob(f"{room}/**/*.py")]
    messages = [
        text
        for path in files
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Constant | ast.JoinedStr) and (text := joined(node))
    ]
    page = (ROOT / "docs" / "troubleshooting.md").read_text("utf-8")
    quoted = re.findall(r"^\| `(.*?)` \|", page, re.MULTILINE)
    assert len(quoted) > 35
    by_others = {"no key '...' Did you mean"}  # ml_collections says it: tests/test_launch.py
    for message in quoted:
        parts = [re.escape(part) for part in message.split("...")]
        pattern = re.compile("[^.]*?…?.*?".join(parts), re.DOTALL)
        assert message in by_others or any(map(pattern.search, messages)), message


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(page):
    text = re.sub(r"^ *```.*?^ *```", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http", "mailto")):
            continue
        file, _, anchor = target.partition("#")
        beside = (page.parent / file).resolve() if file else page
        assert beside.exists(), f"{page}: {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", beside.read_text("utf-8"), re.MULTILINE)
            slugs = {re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings}
            assert anchor in slugs, f"{page}: {target}"


def test_the_readme_is_short_and_begins_with_two_commands():
    text = (ROOT / "README.md").read_text("utf-8")
    assert len(text.splitlines()) <= 155
    assert re.search(r"^make quickstart .*\nmake test ", text, re.MULTILINE)
    assert "docs/figures/step.svg" in text and "docs/figures/quickstart.png" in text


def test_every_page_is_in_the_table_of_contents():
    index = (ROOT / "docs" / "index.md").read_text("utf-8")
    listed = set(re.findall(r"^[\w/-]+$", index, re.MULTILINE))
    pages = {str(path.relative_to(ROOT / "docs").with_suffix("")) for path in PAGES[:]
             if path.is_relative_to(ROOT / "docs") and "results/" not in str(path)}  # fmt: skip
    assert pages - {"index"} == listed


def test_the_flops_of_the_concepts_are_those_of_the_formula():
    from benchmarks.flops import step_flops
    from edad_jax.models.config import BertConfig, ExBertConfig, ExtensionConfig

    def net(width, layers, inner, extension):
        base = BertConfig(
            vocab_size=30_522, hidden_size=width, num_hidden_layers=layers, num_attention_heads=12,
            intermediate_size=inner, max_position_embeddings=512, type_vocab_size=2,
            hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1, layer_norm_eps=1e-12,
            initializer_range=0.02,
        )  # fmt: skip
        sizes = dict(zip(("hidden_size", "intermediate_size"), extension, strict=True))
        return ExBertConfig(base, ExtensionConfig(**sizes, num_attention_heads=12), 17_658)

    teacher, student = net(768, 12, 3072, (252, 1024)), net(312, 4, 1200, (96, 400))
    gflop = {
        method: step_flops(method, teacher, student, rows=1, length=128, slots=20) / 1e9
        for method in ("edad", "adaptation", "distillation")
    }
    text = (ROOT / "docs" / "concepts.md").read_text("utf-8")
    two = gflop["adaptation"] + gflop["distillation"]
    assert f"| one pass | {gflop['adaptation']:.1f} | 0 |" in text
    assert f"| **{gflop['edad']:.1f}** |" in text and f"| **{two:.1f}** |" in text
    assert f"two stages cost {two / gflop['edad']:.2f} times one pass" in text


def test_the_method_in_contributing_is_a_method():
    from edad_jax.distillation.method import Method

    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    (source,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    space = {}
    exec(source, space)
    assert isinstance(space["MINE"], Method) and space["MINE"].trained_nets == ("student",)


def test_python_blocks_of_the_docs_compile():
    for page in PAGES:
        for source in re.findall(
            r"^```python\n(.*?)^```", page.read_text("utf-8"), re.DOTALL | re.M
        ):
            compile(source, str(page), "exec")


def test_what_the_package_offers_is_there_and_nothing_else():
    for name in edad_jax._OFFERED:
        assert callable(getattr(edad_jax, name)) and name in dir(edad_jax)
    with pytest.raises(AttributeError, match="edad_jax has no trian; it offers train"):
        edad_jax.trian  # noqa: B018


def test_a_summary_is_a_dict_and_a_table_with_its_picture(tmp_path):
    (tmp_path / "training.png").write_bytes(b"\x89PNG")
    text = "\n| net | F1 |\n| --- | -: |\n| a<b | 12 |\nleft in runs\n"
    summary = Summary({"steps": 8}, tmp_path, text, tmp_path / "training.png", tmp_path / "no.png")
    shown = summary._repr_html_()
    assert "<tr><th>net</th><th>F1</th></tr><tr><td>a&lt;b</td><td>12</td></tr>" in shown
    assert "<p>left in runs</p>" in shown and shown.count("<img") == 1
    assert json.dumps(summary) == '{"steps": 8}'


NOTEBOOKS = load("docs/notebooks/build.py")


@pytest.mark.parametrize("path", NOTEBOOKS.sources(), ids=lambda path: path.stem)
def test_a_notebook_is_what_its_source_says(path):
    made = NOTEBOOKS.notebook(path.read_text("utf-8"))
    assert path.with_suffix(".ipynb").read_text("utf-8") == made, "run docs/notebooks/build.py"
    for cell in json.loads(made)["cells"]:
        if cell["cell_type"] == "code":
            compile("".join(cell["source"]), path.name, "exec")
