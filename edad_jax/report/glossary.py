# SPDX-License-Identifier: Apache-2.0
"""What the words of a pipeline's page mean, for a reader who has not trained a model."""

WORDS = {
    "base model": "The teacher as it was before this run, fine-tuned on the same labelled "
    "sentences. All others are compared with it.",
    "adapted teacher": "The teacher after further training on the plain text, and fine-tuned.",
    "student": "The small model that learned from text and teacher at the same time, and was "
    "fine-tuned.",
    "int8": "The student with most of its numbers in 8 bits instead of 32 (float32): the file to "
    "serve.",
    "fine-tuned": "Trained on sentences in which people, or a rule, have marked the entities.",
    "entity": "A name in a text and its type, such as a disease or a gene.",
    "F1": "One number for precision (the share of what a model found that is right) and recall "
    "(the share of what is there that it found): their harmonic mean. An entity is right if its "
    "first word, its last word and its type are.",
    "95% interval": "How far the score might move had other test sentences been drawn. Where the "
    "interval of a difference contains 0, this test set cannot tell the two models apart.",
    "held out": "Text or sentences that no model was trained on, kept to measure with.",
    "piece": "What a tokenizer cuts text into: words, and parts of words that it has no entry for. "
    "The fewer pieces a text has, the faster it is read.",
    "row": "The pieces that a model reads at once.",
    "update": "One step of training: the model reads some rows, and all its numbers are moved a "
    "little.",
    "loss": "How far the model is from what it should say; training makes it smaller. For words it "
    "is measured in nats: 0 is certain and right, and each nat more divides the probability of the "
    "right word by 2.7.",
    "masked": "Hidden from the model, which has to guess what stood there.",
    "next sentence": "Guessing whether the second half of a row follows the first in the text.",
    "distillation": "Having the student imitate what the teacher computes. Alpha says how much of "
    "the student's training that is; the rest is guessing masked words itself.",
    "agreement": "How often two models say the same.",
    "seed": "The number that chance begins with. Fine-tuning repeated with another seed gives "
    "another score.",
    "cold start": "From the start of the program to its first answer.",
}
