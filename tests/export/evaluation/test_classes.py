"""Which class a name means: the three rules, in their order, and what none of them fits."""

import pytest

from tome_export.errors import RequestError
from tome_export.evaluation.classes import BY_LABEL, BY_NUMBER, BY_ORDER, match_classes


def match(names, labels, classes=3, folders=True):
    return match_classes(names, labels, classes, folders=folders, where="val")


def test_labels_come_first_even_if_they_are_numbers():
    assert match(["b", "a"], ["a", "b", "c"]) == ({"a": 0, "b": 1}, BY_LABEL)
    assert match(["2", "1", "0"], ["2", "1", "0"]) == ({"2": 0, "1": 1, "0": 2}, BY_LABEL)


def test_wordnet_numbers_at_the_start_of_labels():
    labels = ["n01440764 tench, Tinca tinca", "n01443537 goldfish", "n01484850 great white shark"]
    assert match(["n01484850", "n01440764"], labels) == ({"n01484850": 2, "n01440764": 0}, BY_LABEL)


def test_numbers():
    assert match(["2", "0"], None) == ({"2": 2, "0": 0}, BY_NUMBER)
    # Ten and more sort differently as text; they are numbers all the same.
    names = [str(number) for number in range(12)]
    assert match(names, None, 12)[0] == {str(number): number for number in range(12)}
    assert match(["002", "000"], ["a", "b", "c"]) == ({"002": 2, "000": 0}, BY_NUMBER)


def test_sorted_names_when_there_are_as_many_as_classes():
    assert match(["dog", "Zebra", "ant"], None) == ({"Zebra": 0, "ant": 1, "dog": 2}, BY_ORDER)
    # Numbers from 1 are no class numbers of three classes; as folders they are three names.
    assert match(["1", "2", "3"], None) == ({"1": 0, "2": 1, "3": 2}, BY_ORDER)


@pytest.mark.parametrize(
    ("names", "labels", "folders", "said"),
    [
        (["ant", "dog"], None, True, ["the bundle has no labels", "'ant' is not a class number from 0 to 2",
                                      "2 class folders are not the model's 3 classes"]),
        (["ant", "dog"], ["ant", "bee", "cat"], True, ["'dog' is not one of the bundle's labels ('ant',"]),
        (["crane", "bee"], ["crane", "bee", "crane"], True, ["'crane' is the label of classes 0 and 2"]),
        (["3"], None, True, ["'3' is not a class number from 0 to 2"]),
        (["-1"], None, True, ["'-1' is not a class number"]),
        (["²"], None, True, ["'²' is not a class number"]),
        (["ant", "bee", "cow"], None, False, ["'ant' is not a class number"]),
    ],
)  # fmt: skip
def test_what_fits_no_rule_is_one_error_that_says_why(names, labels, folders, said):
    with pytest.raises(RequestError) as caught:
        match(names, labels, folders=folders)
    message = str(caught.value)
    assert message.startswith("val: cannot tell the classes: ") and "\n" not in message
    for part in said:
        assert part in message
    assert ("folders" in message) == folders
