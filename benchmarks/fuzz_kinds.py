# SPDX-License-Identifier: Apache-2.0
"""What a fuzz campaign damages: a small real file of each kind, and the reader that must bear it.

`read` raises `AssertionError` where a reader breaks a promise: what it yields is text and counted,
and where it yields nothing it says why.
"""

import bz2
import functools
import gzip
import importlib.util
import io
import json
import lzma
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

ARTICLE = (
    "<article xmlns:xlink='x'><front><title-group><article-title>T{0}</article-title>"
    "</title-group><abstract><p>Short &amp; sweet &#233; {0}.</p></abstract></front><body><sec>"
    "<title>Methods</title><p>Cells <italic>in vitro</italic><xref ref-type='bibr' rid='b1'>1"
    "</xref>, <break/>bound.</p></sec></body></article>\n"
)
PUBMED = (
    "<?xml version='1.0'?>\n<PubmedArticleSet><PubmedArticle><MedlineCitation><PMID>1</PMID>"
    "<Article><ArticleTitle>On cells.</ArticleTitle><Abstract><AbstractText Label='AIM'>To bind."
    "</AbstractText></Abstract></Article></MedlineCitation></PubmedArticle></PubmedArticleSet>"
)
TEXT = (
    "The cell binds.\nA gene shows 안녕 é.\n\nOther neurons act.\r\n\r\n뇌 세포 not in the brain.\n"
)
RECORDS = [{"text": "The cell binds. é"}, {"text": ["one", "two"]}, {"text": "뇌", "id": 3}]
CONLL = "EU\tB-ORG\nrejects\tO\nGerman\tB-MISC\ncall\tO\n\nPeter\tB-PER\nBlackburn\tI-PER\n\n"
NUMBERED = "# sent_id = 1\n1\tEU\tB-ORG\t_\n2\trejects\tO\t_\n\n1\tPeter\tB-PER\t_\n2\tis\tO\t_\n\n"
BMES = "中 B-LOC\n国 E-LOC\n很 O\n\n上 B-LOC\n海 M-LOC\n市 E-LOC\n好 O\n美 S-LOC\n\n"
CSV = 'text,label\n"The cell, it ""binds""",good\nA gene,bad\n"two\nlines",good\nneuron,bad\n' * 3
TSV = 'text\tlabel\nThe cell "binds\t1\nA gene\t0\nneuron\t1.0\nbrain\tFalse\n' * 3
SQUAD = {
    "data": [
        {
            "title": f"text {number}",
            "paragraphs": [
                {
                    "context": "The cell binds a protein in the brain.",
                    "qas": [
                        {
                            "id": f"{number}",
                            "question": "what binds?",
                            "is_impossible": False,
                            "answers": [{"text": "cell", "answer_start": 4}],
                        }
                    ],
                }
            ],
        }
        for number in range(6)
    ]
}


LABELLED = (
    *("CoNLL columns", "numbered columns", "BMES columns", "csv labels", "tsv labels"),
    *("tsv.gz labels", "jsonl labels", "SQuAD json"),
)
MODELS = (
    *("vocab.txt", "tokenizer.json", "tokenizer_config.json", "config.json", "safetensors"),
    "safetensors' index",
)


class Kind(NamedTuple):
    """A kind of file."""

    name: str
    files: dict[str, bytes]  # all that the reader wants, by name
    targets: Sequence[str]  # of them, those that are damaged
    read: Callable[[Path], None]
    pack: Callable[[bytes], bytes] = bytes  # what becomes of a target after it was damaged


def kind_names() -> list[str]:
    """Returns the names of all kinds; those that need torch only where it is installed."""
    has_torch = bool(importlib.util.find_spec("torch"))
    models = [*MODELS, "pytorch_model.bin"] if has_torch else MODELS
    return [*(kind.name for kind in _text_kinds()), *LABELLED, *models, "rows on disk"]


def make_kind(name: str) -> Kind:
    """Returns the kind of that name; imports what its reader needs and no more."""
    if name == "rows on disk":
        return _rows_kind()
    makers = _label_kinds if name in LABELLED else _text_kinds
    kinds = makers() if name not in (*MODELS, "pytorch_model.bin") else _model_kinds()
    return next(kind for kind in kinds if kind.name == name)


def read_text(name: str, folder: Path, **options) -> None:
    """Reads a file of text as a corpus is read."""
    from edad_jax.data.text.corpus import read_documents
    from edad_jax.data.text.reading import ReadReport

    report = ReadReport()
    documents = []
    try:
        for document in read_documents([folder / name], report=report, **options):
            documents.append(document)
    finally:
        assert report.documents == len(documents), "documents are counted wrong"
        said = report.summary()
        said.encode()  # what any terminal and any file can take
    for document in documents:
        document.encode()
        assert document.strip() and "\0" not in document, "a document without text"
    assert documents or report.problems or report.left_out, "nothing read, and nothing said"


@functools.cache
def _text_kinds() -> list[Kind]:
    text = TEXT.encode()
    lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in RECORDS).encode()
    one = json.dumps({"version": 1, "data": RECORDS}, indent=1).encode()
    articles = f"<?xml version='1.0'?>\n<pmc-articleset>{ARTICLE.format(1)}{ARTICLE.format(2)}"
    jats = (articles + "</pmc-articleset>").encode()
    wiki = b'<doc id="1" url="u" title="Cell">\nCell\n\nThe cell binds.\n</doc>\n' * 2

    def zipped(content, method=zipfile.ZIP_DEFLATED):
        with io.BytesIO() as file:
            with zipfile.ZipFile(file, "w", method) as archive:
                archive.writestr("a.txt", content)
                archive.writestr("b.jsonl", lines)
            return file.getvalue()

    def tarred(content, mode="w"):
        with io.BytesIO() as file:
            with tarfile.open(fileobj=file, mode=mode, format=tarfile.PAX_FORMAT) as archive:
                for name, inside in (("é/a.txt", content), ("b.nxml", jats)):
                    member = tarfile.TarInfo(name)
                    member.size = len(inside)
                    archive.addfile(member, io.BytesIO(inside))
            return file.getvalue()

    def kind(name, content, file="", pack=bytes, **options):
        file = file or f"a.{name.partition(' ')[0]}"
        read = functools.partial(read_text, file, **options)
        return Kind(name, {file: content}, [file], read, pack)

    return [
        kind("txt", text),
        kind("txt as lines", text, lines=True),
        kind("txt in UTF-16", TEXT.encode("utf-16")),
        kind("txt in CP949", "뇌 세포.\n\n안녕 하세요.\n".encode("cp949"), encoding="cp949"),
        kind("no ending", wiki, file="wiki_00"),
        kind("jsonl", lines),
        kind("json", one),
        kind("json array", json.dumps(RECORDS).encode()),
        kind("nxml", jats),
        kind("xml of PubMed", PUBMED.encode()),
        kind("txt.gz", gzip.compress(text)),
        kind("txt.gz, damaged inside", text, "a.txt.gz", gzip.compress),
        kind("txt.xz", lzma.compress(text)),
        kind("txt.bz2", bz2.compress(text)),
        kind("jsonl.zst", _zstd(lines)),
        kind("nxml.zst, damaged inside", jats, "a.nxml.zst", _zstd),
        kind("zip", zipped(text)),
        kind("zip, stored", zipped(text, zipfile.ZIP_STORED), "a.zip"),
        kind("tar", tarred(text)),
        kind("tar.gz", tarred(text, "w:gz")),
        kind("tar.xz, damaged inside", tarred(text), "a.tar.xz", lzma.compress),
        kind("parquet", _parquet()),
    ]


def _zstd(content: bytes) -> bytes:
    import pyarrow

    return pyarrow.compress(content, codec="zstd", asbytes=True)


def _parquet() -> bytes:
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.table({"text": ["The cell binds.", None, "뇌", "neuron"] * 4, "id": [1] * 16})
    with io.BytesIO() as file:
        pyarrow.parquet.write_table(table, file, row_group_size=8)
        return file.getvalue()


def _read_splits(read: Callable, folder: Path, **options) -> None:
    """Reads labelled data; what is skipped must be told."""
    splits, report = read(str(folder), **options)
    assert all(splits.values()), "a split without examples"
    report.summary().encode()


def _label_kinds() -> list[Kind]:
    from edad_jax.tasks.data.labelled import read_labelled
    from edad_jax.tasks.data.questions import read_questions
    from edad_jax.tasks.data.tagged import read_tagged

    def kind(name, content, ending, read, **options):
        files = {f"{split}{ending}": content for split in ("train", "validation", "test")}
        reader = functools.partial(_read_splits, read, **options)
        return Kind(name, files, list(files), reader)

    lines = "".join(
        json.dumps({"text": f"cell {n}", "label": n % 2}) + "\n" for n in range(8)
    ).encode()
    squad = json.dumps(SQUAD).encode()
    return [
        kind("CoNLL columns", CONLL.encode(), ".tsv", read_tagged),
        kind("numbered columns", NUMBERED.encode(), ".conll", read_tagged),
        kind("BMES columns", BMES.encode(), ".txt", read_tagged, allow_skipped_test=True),
        kind("csv labels", CSV.encode(), ".csv", read_labelled),
        kind("tsv labels", TSV.encode(), ".tsv", read_labelled, allow_skipped_test=True),
        kind("tsv.gz labels", gzip.compress(TSV.encode()), ".tsv.gz", read_labelled),
        kind("jsonl labels", lines, ".jsonl", read_labelled, allow_skipped_test=True),
        kind("SQuAD json", squad, ".json", read_questions, allow_skipped_test=True),
    ]


@functools.cache
def _model_kinds() -> list[Kind]:
    from edad_jax.data.tokenizer import load_tokenizer
    from edad_jax.models.hf_files import load_checkpoint
    from edad_jax.models.pretrained import load_encoder
    from tests.tiny_run import write_teacher

    with tempfile.TemporaryDirectory() as folder:
        teacher = write_teacher(Path(folder) / "teacher")
        load_tokenizer(teacher).save_pretrained(Path(folder) / "fast")
        files = {path.name: path.read_bytes() for path in teacher.iterdir()}
        fast = {path.name: path.read_bytes() for path in (Path(folder) / "fast").iterdir()}
        weights = load_checkpoint(str(teacher)).tensors
    index = json.dumps({"weight_map": dict.fromkeys(weights, "part.safetensors")}).encode()
    parts = {"part.safetensors": files["model.safetensors"], "config.json": files["config.json"]}
    parts["model.safetensors.index.json"] = index

    def tokenizer(folder):
        loaded = load_tokenizer(folder)
        loaded("The cell binds 뇌.")

    def encoder(folder):
        load_encoder(str(folder), with_pooler=True)

    kinds = [
        Kind("vocab.txt", files, ["vocab.txt"], tokenizer),
        Kind("tokenizer.json", fast, ["tokenizer.json"], tokenizer),
        Kind("tokenizer_config.json", fast, ["tokenizer_config.json"], tokenizer),
        Kind("config.json", files, ["config.json"], encoder),
        Kind("safetensors", files, ["model.safetensors"], encoder),
        Kind("safetensors' index", parts, ["model.safetensors.index.json"], encoder),
    ]
    if importlib.util.find_spec("torch"):
        import torch

        with io.BytesIO() as file:
            torch.save(
                {name: torch.from_numpy(each.copy()) for name, each in weights.items()}, file
            )
            saved = {"config.json": files["config.json"], "pytorch_model.bin": file.getvalue()}
        kinds.append(Kind("pytorch_model.bin", saved, ["pytorch_model.bin"], encoder))
    return kinds


def _rows_kind() -> Kind:
    import numpy as np

    from edad_jax.data.batches import Rows
    from edad_jax.data.pairs import make_rows
    from edad_jax.data.rows import RowSettings
    from tests.tiny_text import make_documents, write_tokenizer

    with tempfile.TemporaryDirectory() as folder:
        tokenizer = write_tokenizer(Path(folder) / "tokenizer")
        settings = RowSettings(max_length=16, heldout_fraction=0.0, seed=0)
        documents = make_documents(3, sentences=6)
        out = Path(folder) / "rows"
        make_rows(documents, tokenizer, out, settings, workers=0, progress=False)
        files = {path.name: path.read_bytes() for path in (out / "train").iterdir()}

    def read(folder):
        rows = Rows(folder)
        rows[np.arange(len(rows))]
        rows.verify()

    return Kind("rows on disk", files, sorted(files), read)
