# SPDX-License-Identifier: Apache-2.0
import pytest

from edad_jax.tasks.data.label_sets import check_label_sets


def notes(train, validation, test=None):
    splits = {"train": train, "validation": validation} | ({"test": test} if test else {})
    return list(check_label_sets("data", splits, str.split, labelled="entities"))


def test_labels_of_one_task_go_unsaid():
    assert notes(["a b", "", "b"], ["a", ""], ["b a"]) == []
    assert notes(["", ""], [""]) == []  # no classes: nothing to compare


def test_labels_of_test_that_training_has_not_are_an_error_or_told():
    with pytest.raises(
        ValueError, match=r"2 of 3 entities of the test split .*\(x 1, y 1\).*\(a 1"
    ):
        notes(["a b"], ["a"], ["x y a"])
    (told,) = notes(["a b"], ["a"], ["x b a"])
    assert (
        told.startswith("test: 1 of 3 entities have a label unseen in training") and "x 1" in told
    )


def test_a_split_without_labels_is_an_error():
    with pytest.raises(ValueError, match="got no entities in the validation split .2 examples"):
        notes(["a b"], ["", ""], ["a"])


def test_a_split_of_one_label_is_told():
    (told,) = notes(["a b"], ["a b"], ["a"] * 10)
    assert (
        told == "test: all 10 entities have one label (a 10), of 2 in training: does it stand "
        "for none?"
    )
    assert notes(["a b"], ["a b"], ["a"] * 9) == []
