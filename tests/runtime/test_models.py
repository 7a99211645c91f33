# SPDX-License-Identifier: Apache-2.0
"""The edge runtime: what it finds, where it finds it, and what it does with odd texts."""

import io
import json
import os
import shlex
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from edad_jax.export import formats
from edad_jax.runtime import __main__, models, windows
from tests.export.test_formats import LABELS, save, tokenizer_dir  # noqa: F401, a fixture
from tests.tiny_text import WORDS

ROOT = Path(__file__).parents[2]
DRUG, GENE = WORDS[5], WORDS[6]  # whole pieces of the tiny vocabulary
SMALL = {"max_length": 12, "overlap": 4, "batch_size": 3}


@pytest.fixture(scope="module")
def folders(tmp_path_factory, tokenizer_dir):  # noqa: F811
    """Returns {kind: export folder} of random models."""
    root = tmp_path_factory.mktemp("runtime")
    return {
        kind: formats.export(
            formats.load(save(root / kind, tokenizer_dir, kind)), "onnx", root / f"{kind}-onnx"
        )
        for kind in ("tagging", "classification", "encoder", "answering")
    }


class NamedPieces:
    """Stands in for a net that knows two words: B-Drug after O, I-Drug after itself; B-Gene."""

    def __init__(self, tokenizer):
        self.drug, self.gene = tokenizer.token_to_id(DRUG), tokenizer.token_to_id(GENE)
        self.shapes = []

    def run(self, names, inputs):
        ids = inputs["input_ids"]
        self.shapes.append(ids.shape)
        before = np.pad(ids, ((0, 0), (1, 0)))[:, :-1]
        number = np.where(ids == self.drug, np.where(before == self.drug, 2, 1), 0)
        number = np.where(ids == self.gene, 3, number)
        return [np.float32(9) * np.eye(len(LABELS), dtype=np.float32)[number]]


@pytest.fixture
def tagger(folders):
    """A Tagger with short windows, whose net is a list of two words."""
    tagger = models.Tagger(folders["tagging"], **SMALL)
    tagger.session = NamedPieces(tagger._tokenizer)
    return tagger


def test_spans_are_where_the_words_are(tagger):
    text = f"  {DRUG.capitalize()} {DRUG}, \u200bé {GENE}\tx\n{DRUG}!"
    (spans,) = tagger([text])
    pair, gene, last = f"{DRUG.capitalize()} {DRUG}", text.index(GENE), text.rindex(DRUG)
    assert [span[:4] for span in spans] == [
        ("Drug", 2, 2 + len(pair), pair),
        ("Gene", gene, gene + len(GENE), GENE),
        ("Drug", last, last + len(DRUG), DRUG),
    ]
    assert all(0.99 < span.score <= 1 for span in spans)


def test_every_word_of_a_long_text_is_judged_once_and_in_place(tagger):
    words = ([GENE, "x", "y"] * 400)[:1000]
    (spans,) = tagger([" ".join(words)])
    assert len(spans) == words.count(GENE)
    starts = [span.start for span in spans]
    assert starts == [i for i in range(len(" ".join(words))) if " ".join(words).startswith(GENE, i)]
    assert max(length for _, length in tagger.session.shapes) == SMALL["max_length"]
    assert max(rows for rows, _ in tagger.session.shapes) == SMALL["batch_size"]


def test_texts_longer_than_a_segment_keep_their_offsets(tagger, monkeypatch):
    text = " ".join([GENE, "x"] * 200)
    (whole,) = tagger([text])
    monkeypatch.setattr(windows, "SEGMENT", 100)
    (cut,) = tagger([text])
    assert cut == whole


def test_words_given_as_words_get_a_label_each(tagger):
    sentences = [[GENE, "unknown-word", DRUG, DRUG], [], ["", "\u200b", GENE] * 9]
    assert tagger.tag_words(sentences) == [
        ["B-Gene", "O", "B-Drug", "I-Drug"],
        [],
        ["O", "O", "B-Gene"] * 9,
    ]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ("B-X I-X O", [("X", 0, 3)]),
        ("B-X B-X", [("X", 0, 1), ("X", 2, 3)]),
        ("I-X I-X", [("X", 0, 3)]),
        ("B-X I-Y", [("X", 0, 1), ("Y", 2, 3)]),
        ("S-X B-X E-X S-Y", [("X", 0, 1), ("X", 2, 5), ("Y", 6, 7)]),
        ("O O", []),
        ("", []),
    ],
)
def test_labels_become_spans(labels, expected):
    labels = labels.split()
    starts = [2 * number for number in range(len(labels))]
    spans = models.join_words(
        "a b c d e", labels, starts, [start + 1 for start in starts], [0.5] * len(labels)
    )
    assert [span[:3] for span in spans] == expected


ODD_TEXTS = [
    "",
    " ",
    "\n\t",
    "\0\0",
    f"a\0b {GENE}",
    "😀😀 🏳️‍🌈",
    "\ud83d alone \udc00",
    "\ud83d\ude00",
    "שלום עולם " + GENE,
    "\u202eright to left\u202c",
    "e\u0301" * 50,
    "x" * 5_000,
    "a\r\nb",
]


@pytest.mark.parametrize("kind", ["tagging", "classification", "encoder"])
def test_odd_texts_are_texts(folders, kind):
    model = models.open_model(folders[kind], **SMALL)
    results = list(model(ODD_TEXTS))
    assert len(results) == len(ODD_TEXTS)
    for text, result in zip(ODD_TEXTS, results, strict=True):
        if kind == "tagging":
            assert all(0 <= span.start < span.end <= len(text) for span in result)
        elif kind == "classification":
            assert sum(result.scores.values()) == pytest.approx(1)
        else:
            assert result.shape == (24,) and np.isfinite(result).all()


AROUND = {
    "emoji": "😀😀 🏳️‍🌈 {} 👩‍👩‍👧",
    "NUL": "a\0b \0 {}\0 \0c",
    "right to left": "שָׁלוֹם עולם {} \u202eمرحبا\u202c",
    "lone surrogates": "\ud83d alone \udc00 {} \ud83d",
    "accents in parts": "e\u0301 " * 30 + "e\u0301, {} o\u0308",
    "Hangul in parts": "\u1112\u1161\u11ab\u1100\u1173\u11af {} \u1102\u116c",
    "a long word": "x" * 5_000 + " {} y",
    "ends of lines": "a\r\n\u2028{}\r\nb",
    "no letter": "\u200b\ufeff\u00ad {}\u00a0\ufffd",
}


@pytest.mark.parametrize("around", AROUND.values(), ids=AROUND)
def test_odd_text_around_a_word_does_not_move_it(tagger, reader, around):
    text = around.format(GENE)
    start = text.index(GENE)
    (spans,) = tagger([text])
    assert [span[:4] for span in spans] == [("Gene", start, start + len(GENE), GENE)]
    ((answer,),) = reader([("what?", text)])
    assert answer[:3] == (GENE, start, start + len(GENE))


def test_ten_megabytes_are_one_text(tagger):
    text = f"{GENE} {'x' * 490} " * 20_000  # words beyond 100 letters are one unknown piece
    (spans,) = tagger([text])
    assert len(text) > 9_900_000
    assert len(spans) == 20_000
    assert spans[-1].start == text.rindex(GENE)


def test_what_goes_into_json_can_be_written(tagger):
    (spans,) = tagger([f"{DRUG} \ud800 {GENE}"])
    whole = [spans[0]._replace(text="a\ud800")]
    assert models.as_json(whole)["entities"][0]["text"] == "a\ufffd"
    answers = models.Answers([models.Answer("\ud800", 0, 1, 0.5)])
    assert models.as_json(answers)["answers"][0]["text"] == "\ufffd"


def test_labels_that_name_no_entity_are_told(folders, tmp_path):
    shutil.copytree(folders["tagging"], tmp_path / "copy")
    path = tmp_path / "copy" / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["id2label"] = {"0": "O", "1": "B", "2": "I", "3": "LABEL_3"}
    path.write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(ValueError, match=r"got labels \['B', 'I', 'LABEL_3'\], expected O and B-"):
        models.Tagger(tmp_path / "copy", **SMALL)


def test_a_text_is_judged_alike_alone_and_among_others(folders):
    texts = [f"{DRUG} {GENE} {WORDS[n]} x" * (1 + n % 3) for n in range(10)]
    for kind in ("classification", "encoder"):
        model = models.open_model(folders[kind], **SMALL)
        together, alone = list(model(texts)), [next(iter(model([text]))) for text in texts]
        if kind == "encoder":
            np.testing.assert_allclose(together, alone, atol=1e-5)
        else:
            for one, other in zip(together, alone, strict=True):
                assert one.scores == pytest.approx(other.scores, abs=1e-5)


def test_texts_are_read_as_they_are_asked_for(tagger, monkeypatch):
    monkeypatch.setattr(windows, "CHUNK", 500)
    read = []

    def stream():
        for number in range(1_000):
            read.append(number)
            yield GENE

    results = tagger(__main__())
    assert [span.label for span in next(results)] == ["Gene"]
    assert len(read) < 10


class PointsAtGene:
    """Stands in for a net that answers with the longest run of one word."""

    def __init__(self, tokenizer):
        self.gene, self.seen = tokenizer.token_to_id(GENE), []

    def run(self, names, inputs):
        assert names == ["start_logits", "end_logits"]
        ids, segments = inputs["input_ids"], inputs["token_type_ids"]
        self.seen.append((ids, segments))
        is_answer = (ids == self.gene) & (segments == 1)
        before = np.pad(is_answer, ((0, 0), (1, 0)))[:, :-1]
        after = np.pad(is_answer, ((0, 0), (0, 1)))[:, 1:]
        starts, ends = is_answer & ~before, is_answer & ~after
        return [np.float32(9) * starts, np.float32(9) * ends]


@pytest.fixture
def reader(folders):
    reader = models.Reader(folders["answering"], **SMALL)
    reader.session = PointsAtGene(reader._tokenizer)
    return reader


def test_answers_are_parts_of_the_context(reader):
    context = "x " * 40 + f"y, {GENE.upper()}  {GENE}! " + "z " * 40
    for question in (GENE, f"{GENE} " * 50, ""):
        ((answer,),) = reader([(question, context)])
        assert answer.text == context[answer.start : answer.end] == f"{GENE.upper()}  {GENE}"
        assert 0 < answer.score <= 1
    assert max(ids.shape[1] for ids, _ in reader.session.seen) == SMALL["max_length"]


def test_the_best_answers_come_first_and_none_is_too_long(reader, folders):
    context = f"{GENE} x {GENE} {GENE} x"
    reader.best = 3
    (answers,) = reader([("what", context)])
    assert len(answers) == 3
    assert [answer.score for answer in answers] == sorted(
        (answer.score for answer in answers), reverse=True
    )
    assert len({(answer.start, answer.end) for answer in answers}) == 3
    reader.longest_answer = 1
    (answers,) = reader([("what", context)])
    assert answers[0].text == GENE
    with pytest.raises(ValueError, match="got best=0"):
        models.Reader(folders["answering"], best=0, **SMALL)


def test_an_empty_context_has_no_answer_and_says_so_in_json(reader):
    assert models.as_json(next(reader([("what", " ")]))) == {"answers": []}


def test_short_pairs_are_read_in_one_run_each_with_its_own_question(reader):
    pairs = [(f"{GENE} x", f"{GENE} y z"), (GENE, f"x {GENE}"), ("x", " ")]
    assert [[answer.start for answer in each] for each in reader(pairs)] == [[0], [2], []]
    ((_, segments),) = reader.session.seen
    assert segments.tolist() == [
        [0, 0, 0, 1, 1, 1, 0, 0],  # [CLS] GENE [SEP] x GENE [SEP], padded
        [0, 0, 0, 0, 1, 1, 1, 1],  # [CLS] GENE x [SEP] GENE y z [SEP]
    ]


def test_pairs_are_answered_alike_alone_and_among_others(folders):
    reader = models.open_model(folders["answering"], **SMALL)
    words = WORDS[:19]
    pairs = [(" ".join(words[: n % 3]), " ".join(words[n : n + 7 * (n % 4)])) for n in range(12)]
    together, alone = list(reader(pairs)), [next(reader([pair])) for pair in pairs]
    assert [len(each) for each in together] == [min(n % 4, 1) for n in range(12)]
    for (_, context), one, other in zip(pairs, together, alone, strict=True):
        assert [answer[:3] for answer in one] == [answer[:3] for answer in other]
        assert [answer.score for answer in one] == pytest.approx([a.score for a in other], abs=2e-4)
        assert all(context[answer.start : answer.end] == answer.text for answer in one)


def test_pairs_are_read_as_they_are_asked_for(reader, monkeypatch):
    monkeypatch.setattr(windows, "CHUNK", 500)
    read = []

    def stream():
        for number in range(1_000):
            read.append(number)
            yield "x" * 100, GENE

    results = reader(__main__())
    assert [answer.text for answer in next(results)] == [GENE]
    assert len(read) < 5


def test_a_real_net_answers_too(folders):
    reader = models.open_model(folders["answering"], **SMALL)
    pairs = [("who?", text) for text in ODD_TEXTS]
    for text, answers in zip(ODD_TEXTS, reader(pairs), strict=True):
        assert len(answers) == (len(reader.cut(text).ids) > 0)
        assert all(0 <= one.start < one.end <= len(text) for one in answers)


def test_it_needs_no_other_package_and_works_as_a_command(folders):
    code = (
        "import sys\n"
        "allowed = {'numpy', 'onnxruntime', 'tokenizers', 'edad_jax', 'google', 'packaging',"
        " 'flatbuffers', 'huggingface_hub'}\n"
        "class Only:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        root = name.partition('.')[0]\n"
        "        if root in sys.stdlib_module_names or root in allowed or root[0] == '_':\n"
        "            return None\n"
        "        raise ImportError(f'{name} is not on the small machine')\n"
        "sys.meta_path.insert(0, Only())\n"
        "sys.path.insert(0, '.')\n"
        "from edad_jax.export import runtime\n"
        f"runtime.main([{str(folders['tagging'])!r}, '--max-length', '16', '--overlap', '2'])\n"
        "assert not {'jax', 'torch', 'transformers', 'flax'} & set(sys.modules)\n"
    )
    text = f"{DRUG} x\n\n\xff bad \x80\n".encode("latin-1") + b"last"
    done = subprocess.run(
        [sys.executable, "-c", code], input=text, capture_output=True, cwd=ROOT, timeout=120
    )
    assert done.returncode == 0, done.stderr.decode()
    lines = [json.loads(line) for line in done.stdout.decode().splitlines()]
    assert [set(line) for line in lines] == [{"entities"}] * 4


def as_command(folder, *options, **settings):
    """Returns the runtime as a command that was started, with pipes, or as settings say."""
    command = [
        sys.executable,
        "-m",
        "edad_jax.runtime",
        str(folder),
        "--max-length",
        "16",
        "--overlap",
        "2",
        *options,
    ]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    # Unbuffered, every write would be seen at once, whether or not it is flushed.
    usual = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.Popen(command, cwd=ROOT, **({"env": usual} | pipes | settings))


def run(folder, text, *options, **settings):
    """Returns (exit status, JSON lines, standard error) of the command."""
    with as_command(folder, *options, **settings) as process:
        try:
            output, errors = process.communicate(text, timeout=120)
        finally:
            process.kill()
    lines = [json.loads(line) for line in output.decode("utf-8").splitlines()]
    return process.returncode, lines, errors.decode()


def json_lines(*pairs):
    return "".join(
        json.dumps({"question": question, "context": context}) + "\n" for question, context in pairs
    ).encode()


PAIRS = [("who?", f"{DRUG} x {GENE} y"), ("", GENE), ("what?", "안녕 뇌 세포"), ("what?", "")]


def test_the_command_answers_questions_alike_for_any_batch_and_threads(folders):
    reader = models.Reader(folders["answering"], max_length=16, overlap=2)
    expected = [models.as_json(answers) for answers in reader(PAIRS)]
    assert [len(each["answers"]) for each in expected] == [1, 1, 1, 0]
    for options in ((), ("--batch-size", "1", "--threads", "1")):
        status, lines, errors = run(folders["answering"], json_lines(*PAIRS), *options)
        assert status == 0, errors
        assert len(lines) == len(PAIRS)
        for line, wanted in zip(lines, expected, strict=True):
            for one, other in zip(line["answers"], wanted["answers"], strict=True):
                assert one == other | {"score": pytest.approx(other["score"], abs=2e-4)}


def test_batch_size_and_threads_reach_the_model(folders, monkeypatch):
    models = []

    def open_model(*arguments, **options):
        models.append(models.Tagger(*arguments, **options))
        return models[0]

    monkeypatch.setattr(models, "open_model", open_model)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"x\n")))
    options = ["--max-length", "16", "--overlap", "2", "--batch-size", "5", "--threads", "3"]
    __main__.main([str(folders["tagging"]), *options])
    (model,) = models
    assert (model.max_length, model.overlap, model.batch_size) == (16, 2, 5)
    assert model.session.get_session_options().intra_op_num_threads == 3


def test_the_command_tells_what_it_cannot_do(folders, tmp_path):
    status, lines, errors = run(folders["answering"], b"", "--batch-size", "0")
    assert (status, lines) == (1, []) and "a batch of 1 or more" in errors
    status, lines, errors = run(tmp_path, b"")
    assert status == 1 and "lacks model.onnx" in errors and "Traceback" not in errors


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"", "got ''"),
        (b"who?", "Expecting value"),
        (b'"who?"', "TypeError"),
        (b'{"question": "who?"}', "KeyError: 'context'"),
        (b"[" * 100_000, "RecursionError"),
    ],
)
def test_a_line_that_is_no_question_is_named_by_its_number(folders, line, says):
    text = json_lines(*PAIRS[:2]) + line + b"\n" + json_lines(*PAIRS)
    status, lines, errors = run(folders["answering"], text)
    assert status == 1 and len(lines) == 2  # those before it are answered
    assert "line 3: got " in errors and says in errors and len(errors) < 1_000
    assert 'expected {"question": ..., "context": ...}' in errors


def test_the_command_writes_utf8_whatever_the_locale_is(folders):
    latin = os.environ | {"PYTHONIOENCODING": "iso-8859-1", "PYTHONUTF8": "0"}
    text = '{"question": "?", "context": "안녕"}\n'.encode()
    status, (line,), errors = run(folders["answering"], text, env=latin)
    assert status == 0, errors
    assert line["answers"][0]["text"] == "안녕"


def test_results_are_written_chunk_by_chunk(tagger, monkeypatch):
    written, seen = io.BytesIO(), []

    class Lines(io.BytesIO):
        def __next__(self):
            seen.append(written.getvalue().count(b"\n"))
            return super().__next__()

    monkeypatch.setattr(windows, "CHUNK", 500)  # five texts, since each counts as 100 letters more
    monkeypatch.setattr(models, "open_model", lambda *_, **__: tagger)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(Lines(f"{GENE}\n".encode() * 20)))
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written))
    __main__.main(["folder"])
    assert max(number - count for number, count in enumerate(seen)) == 5
    assert written.getvalue().count(b"\n") == 20


@pytest.mark.parametrize("kind", ["tagging", "answering"])
def test_a_line_is_answered_before_the_next_is_there(folders, kind):
    line = f"{GENE}\n".encode() if kind == "tagging" else json_lines(PAIRS[0])
    with as_command(folders[kind], "--each-line") as process:
        limit = threading.Timer(60, process.kill)
        limit.start()
        try:
            for _ in range(2):
                process.stdin.write(line)
                process.stdin.flush()
                assert json.loads(process.stdout.readline())
        finally:
            limit.cancel()
            process.kill()


def test_a_reader_of_the_output_may_go_as_head_does(folders, tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_bytes(json_lines(*PAIRS) * 2_000)  # more than a pipe holds
    with path.open("rb") as pairs, as_command(folders["answering"], stdin=pairs) as process:
        limit = threading.Timer(60, process.kill)
        limit.start()
        try:
            assert json.loads(process.stdout.readline() or "{}")["answers"]
            process.stdout.close()
            assert b"Error" not in process.stderr.read()
            assert process.wait() == 1
        finally:
            limit.cancel()
            process.kill()


def test_a_terminal_sees_how_far_the_command_is(tagger, tmp_path, monkeypatch, capsys):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    (tmp_path / "texts.txt").write_bytes(f"{GENE}\n".encode() * 3)
    now = iter(range(100))  # a second for each look at the clock
    monkeypatch.setattr(__main__, "time", SimpleNamespace(monotonic=lambda: next(now)))
    monkeypatch.setattr(models, "open_model", lambda *_, **__: tagger)
    monkeypatch.setattr(sys, "stderr", Terminal())
    with (tmp_path / "texts.txt").open(encoding="utf-8") as texts:
        monkeypatch.setattr(sys, "stdin", texts)
        __main__.main(["folder"])
    shown = [line.strip() for line in sys.stderr.getvalue().split("\r")]
    assert shown == [
        "",
        "1 texts, 0.0 MB, 1 texts/s, 33%, 0:02 left",
        "2 texts, 0.0 MB, 1 texts/s, 67%, 0:01 left",
        "3 texts, 0.0 MB, 1 texts/s, 100%, 0:00 left",
        "3 texts, 0.0 MB, 1 texts/s, 100%, 0:00 left",
    ]
    assert sys.stderr.getvalue().endswith("\n")
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_ten_megabytes_go_through_the_command(folders):
    last = f"{DRUG} {GENE} last"
    text = f"{GENE} {'x' * 490} " * 10_000 + "\n" + f"{GENE} {'x' * 490}\n" * 10_000 + last
    assert len(text) > 9_900_000
    start = time.monotonic()
    status, lines, errors = run(folders["tagging"], text.encode())
    assert time.monotonic() - start < 120
    assert status == 0, errors
    assert len(lines) == 10_002
    (spans,) = models.Tagger(folders["tagging"], max_length=16, overlap=2)([last])
    assert [each["start"] for each in lines[-1]["entities"]] == [span.start for span in spans]


@pytest.mark.parametrize("name", ["model.onnx", "config.json", "tokenizer.json"])
def test_an_incomplete_folder_is_told(folders, tmp_path, name):
    shutil.copytree(folders["tagging"], tmp_path / "copy")
    (tmp_path / "copy" / name).unlink()
    with pytest.raises(ValueError, match=f"lacks {name}; expected what launch/export.py"):
        models.Tagger(tmp_path / "copy")


def test_damaged_files_and_strange_tokenizers_are_told(folders, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folders["tagging"], copy)
    whole = (copy / "model.onnx").read_bytes()
    (copy / "model.onnx").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="model.onnx: onnxruntime cannot read it"):
        models.Tagger(copy, **SMALL)
    (copy / "model.onnx").write_bytes(whole)
    tokenizer = json.loads((copy / "tokenizer.json").read_text(encoding="utf-8"))
    tokenizer["model"]["vocab"]["another"] = len(tokenizer["model"]["vocab"])
    (copy / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    with pytest.raises(ValueError, match="it belongs to another model"):
        models.Tagger(copy, **SMALL)
    (copy / "tokenizer.json").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match="tokenizer.json.*export the model again"):
        models.Tagger(copy, **SMALL)
    (copy / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match="config.json.*export the model again"):
        models.Tagger(copy, **SMALL)


def test_the_tokenizer_of_another_model_is_told_though_it_has_as_many_pieces(folders, tmp_path):
    copy = shutil.copytree(folders["tagging"], tmp_path / "copy")
    tokenizer = json.loads((copy / "tokenizer.json").read_text(encoding="utf-8"))
    pieces = tokenizer["model"]["vocab"]
    pieces[DRUG], pieces[GENE] = pieces[GENE], pieces[DRUG]
    (copy / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    with pytest.raises(ValueError, match="SHA-256 .*it belongs to another model"):
        models.Tagger(copy, **SMALL)
    config = json.loads((copy / "config.json").read_text(encoding="utf-8"))
    del config["tokenizer_sha256"]  # older exports are read as before
    (copy / "config.json").write_text(json.dumps(config), encoding="utf-8")
    models.Tagger(copy, **SMALL)


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("tagging", {"id2label": {"0": "O", "1": "B-X"}}, "4 numbers as logits, .* says 2"),
        ("classification", {"id2label": dict(enumerate("abcde"))}, "4 .* logits, .* says 5"),
        ("encoder", {"hidden_size": 12}, "24 numbers as last_hidden_state, .* says 12"),
    ],
)
def test_the_config_of_another_model_is_told(folders, tmp_path, kind, changes, message):
    copy = shutil.copytree(folders[kind], tmp_path / "copy")
    config = json.loads((copy / "config.json").read_text(encoding="utf-8"))
    (copy / "config.json").write_text(json.dumps(config | changes), encoding="utf-8")
    with pytest.raises(ValueError, match=f"{message}: one of them belongs to another model"):
        models.open_model(copy, **SMALL)


def test_another_task_and_impossible_windows_are_told(folders):
    with pytest.raises(ValueError, match="Classifier expected one that ends in ForSequence"):
        models.Classifier(folders["tagging"])
    for wrong in ({"max_length": 3}, {"max_length": 500}, {"overlap": 10}, {"batch_size": 0}):
        with pytest.raises(ValueError, match="expected max_length from 4 to 20"):
            models.Tagger(folders["tagging"], **(SMALL | wrong))


@pytest.mark.skipif(
    "EDAD_JAX_OTHER_PYTHON" not in os.environ,
    reason="names no interpreter of another machine type: see docs/raspberry-pi.md",
)
@pytest.mark.parametrize("name", ["onnx", "onnx-int8"])
def test_another_machine_type_gives_the_same_numbers(tmp_path, tokenizer_dir, name):  # noqa: F811
    model = formats.load(save(tmp_path / "model", tokenizer_dir, "encoder"))
    folder = formats.export(model, name, tmp_path / name)
    text = "\n".join(f"{DRUG} x {GENE} " * count for count in (1, 2, 9)).encode()

    def vectors(interpreter):
        done = subprocess.run(
            [
                *interpreter,
                "-m",
                "edad_jax.runtime",
                str(folder),
                "--max-length",
                "16",
                "--overlap",
                "2",
            ],
            input=text,
            capture_output=True,
            cwd=ROOT,
            timeout=600,
        )
        assert done.returncode == 0, done.stderr.decode()
        return [json.loads(line)["vector"] for line in done.stdout.decode().splitlines()]

    here, there = (
        vectors([sys.executable]),
        vectors(shlex.split(os.environ["EDAD_JAX_OTHER_PYTHON"])),
    )
    assert np.shape(here) == (3, model.config.base.hidden_size)
    np.testing.assert_allclose(there, here, atol=2e-5)
