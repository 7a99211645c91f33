# SPDX-License-Identifier: Apache-2.0
"""Tiny labelled data for tests: tags and labels that the words themselves give away."""

import csv
import json
import random
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from configs import classify, ner, squad
from edad_jax.export import huggingface
from edad_jax.models.config import ExBertConfig, ExtensionConfig
from tests.tiny_models import random_params, tiny_bert_config
from tests.tiny_text import DOMAIN_WORDS, WORDS, make_documents, write_tokenizer

VOWELS = "aeiou"


def tiny_sentences(count: int, *, seed: int = 0) -> list[list[str]]:
    """Returns sentences of four to nine words."""
    words = " ".join(make_documents(count, seed=seed, sentences=8)).replace(".", " ").split()
    sentences, start = [], 0
    for number in range(count):
        length = 4 + number % 6
        sentences.append(words[start : start + length])
        start += length
    return sentences


def tags_of(words: list[str]) -> list[str]:
    """Returns IOB2 tags: words that begin with a vowel are entities, neighbours are one entity."""
    tags = []
    for word in words:
        inside = word[0].lower() in VOWELS
        before = tags and tags[-1] != "O"
        tags.append(("I-Vowel" if before else "B-Vowel") if inside else "O")
    return tags


def write_tagged(path: Path, sentences: list[list[str]]) -> Path:
    """Returns a two-column file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    blocks = [
        "\n".join(f"{word}\t{tag}" for word, tag in zip(words, tags_of(words), strict=True))
        for words in sentences
    ]
    path.write_text("\n\n".join(blocks) + "\n", encoding="utf-8")
    return path


def write_tagging(folder: Path, *, train: int = 48) -> Path:
    """Returns a folder with train, devel and test."""
    for seed, (split, count) in enumerate({"train": train, "devel": 16, "test": 17}.items()):
        write_tagged(folder / f"{split}.tsv", tiny_sentences(count, seed=seed))
    return folder


def write_labelled(path: Path, count: int = 90) -> Path:
    """Returns a csv file whose label says whether the first word begins with a vowel."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for number, words in enumerate(tiny_sentences(count)):
            label = ("low", "high", "mid")[number % 3]
            writer.writerow([" ".join([label, *words]), label])
    return path


def write_questions(path: Path, contexts: int = 20, *, seed: int = 0) -> Path:
    """Returns a file in SQuAD's form; the answer to all its questions is the word "protein"."""
    path.parent.mkdir(parents=True, exist_ok=True)
    generator = random.Random(seed)
    articles = []
    for number in range(contexts):
        words = generator.choices([word for word in WORDS if word != "protein"], k=6 + number % 40)
        words.insert(generator.randrange(len(words)), generator.choice(("protein", "(Protein)")))
        context = "  ".join(words).capitalize() + f", {seed} {number}."
        start = context.lower().index("protein")
        answers = [{"text": context[start : start + 7], "answer_start": start}]
        entries = [
            {"id": f"{seed}-{number}-{each}", "question": f"what {binds}?", "answers": answers}
            for each, binds in enumerate(("binds", "was shown"))
        ]
        paragraph = {"context": context, "qas": entries}
        articles.append({"title": f"text {seed}-{number}", "paragraphs": [paragraph]})
    path.write_text(json.dumps({"data": articles}, ensure_ascii=False), encoding="utf-8")
    return path


def write_exbert(folder: Path, *, layers: int = 1, width: int = 12) -> Path:
    """Returns an exBERT that has the words of the texts; its weights are random."""
    tokenizer = write_tokenizer(folder.with_name(f"{folder.name}-tokenizer"))
    with open(tokenizer / "vocab.txt", "a", encoding="utf-8") as file:
        file.writelines(f"{word}\n" for word in DOMAIN_WORDS)
    pieces = len((tokenizer / "vocab.txt").read_text(encoding="utf-8").splitlines())
    config = ExBertConfig(
        base=tiny_bert_config(
            vocab_size=pieces - len(DOMAIN_WORDS),
            hidden_size=width,
            num_hidden_layers=layers,
            intermediate_size=20,
            max_position_embeddings=40,
            initializer_range=0.02,
        ),
        extension=ExtensionConfig(hidden_size=6, intermediate_size=8, num_attention_heads=3),
        extension_vocab_size=len(DOMAIN_WORDS),
    )
    card = huggingface.ModelCard(title="exBERT", summary="", data={}, settings={}, measured={})
    return huggingface.save_model(folder, random_params(config), config, tokenizer, card=card)


def tiny_tuning(task: str, model: Path, data: Path, **changes: Any) -> ConfigDict:
    """Returns configs/ner.py, configs/classify.py or configs/squad.py, shrunk."""
    files = {"tagging": ner, "classification": classify, "answering": squad}
    config = files[task].get_config()
    config.model, config.data = str(model), str(data)
    config.dtype = "float32"
    config.max_length = 32
    config.epochs = 3
    config.batch_size = 8
    config.optimizer.learning_rate = 2e-2
    config.progress = False
    with config.unlocked():
        config.update_from_flattened_dict(
            {key.replace("__", "."): value for key, value in changes.items()}
        )
    return config
