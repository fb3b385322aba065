"""Which files are evaluated, and under which labels."""

import os

import pytest

from tome_export.errors import RequestError
from tome_export.evaluation.dataset import Dataset, Sample, read_dataset


def fill(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"")


def test_pictures_by_their_ending_in_every_depth_hidden_ones_skipped(tmp_path):
    fill(tmp_path, "1/b.JPEG", "1/a.png", "1/deep/er/c.webp", "1/.hidden.jpg", "1/.trash/d.jpg", "0/x.jpg")
    fill(tmp_path, "1/notes.txt", "1/Thumbs.db", "1/nameless", "readme.md", "stray.jpg", ".git/e.jpg")
    found = read_dataset(tmp_path, None, None, 2)
    assert [(sample.path, sample.label) for sample in found.samples] == [
        ("0/x.jpg", 0), ("1/a.png", 1), ("1/b.JPEG", 1), ("1/deep/er/c.webp", 1),
    ]  # fmt: skip
    assert found.ignored == 5


def test_links_are_followed_but_not_in_circles(tmp_path):
    fill(tmp_path, "elsewhere/a.jpg", "val/0/b.jpg")
    os.symlink(tmp_path / "elsewhere", tmp_path / "val" / "1")
    os.symlink(tmp_path / "elsewhere", tmp_path / "val" / "0" / "more")
    os.symlink(tmp_path / "val" / "0", tmp_path / "val" / "0" / "again")
    os.symlink(tmp_path / "gone", tmp_path / "val" / "0" / "dangling.jpg")
    found = read_dataset(tmp_path / "val", None, None, 2)
    paths = [sample.path for sample in found.samples]
    assert paths == ["0/b.jpg", "0/dangling.jpg", "0/more/a.jpg", "1/a.jpg"]


def test_an_empty_class_folder_counts_as_a_class(tmp_path):
    fill(tmp_path, "ant/a.jpg", "dog/d.jpg")
    (tmp_path / "bee").mkdir()
    found = read_dataset(tmp_path, None, None, 3)
    assert [sample.label for sample in found.samples] == [0, 2]


LIST = {
    "words": ("a.jpg 1\nmy cat.jpg 0\n\n", [("a.jpg", 1), ("my cat.jpg", 0)]),
    "windows": ("\ufeffa.jpg 1\r\nb.jpg 0\r\n", [("a.jpg", 1), ("b.jpg", 0)]),
    "tabs": ("my cat.jpg\ttabby cat\nb.jpg\tdog", [("my cat.jpg", 0), ("b.jpg", 1)]),
    "names": ("b c.jpg dog\nb.jpg dog", [("b c.jpg", 1), ("b.jpg", 1)]),
    "absolute": ("/x/a.jpg 1", [("/x/a.jpg", 1)]),
    "twice": ("a.jpg 1\na.jpg 1", [("a.jpg", 1), ("a.jpg", 1)]),
}


@pytest.mark.parametrize("name", LIST)
def test_lists(tmp_path, name):
    text, expected = LIST[name]
    (tmp_path / "list.txt").write_bytes(text.encode())
    found = read_dataset(tmp_path, tmp_path / "list.txt", ["tabby cat", "dog"], 2)
    assert [(sample.path, sample.label) for sample in found.samples] == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "a.jpg 0\nb.jpg\n",
            "list.txt, line 2: should be a path, a space or a tab, and a label, not 'b.jpg'",
        ),
        ("a.jpg\t\n", "line 1"),
        ("\n \n", "lists no pictures"),
        ("a.jpg 2", "'2' is not a class number from 0 to 1"),
        ("a.jpg 0\nb.jpg dog", "'0' is not one of the bundle's labels"),  # numbers or names, not both
        (b"\xff\xfe", "cannot be read as a list of labels (not UTF-8)"),
    ],
)
def test_lists_that_cannot_be_used(tmp_path, text, said):
    data = text if isinstance(text, bytes) else text.encode()
    (tmp_path / "list.txt").write_bytes(data)
    with pytest.raises(RequestError) as caught:
        read_dataset(tmp_path, tmp_path / "list.txt", ["tabby cat", "dog"], 2)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_folders_that_cannot_be_used(tmp_path):
    fill(tmp_path, "file", "flat/a.jpg", "bare/0/notes.txt")
    for name, said in {
        "none": "none: no such folder",
        "file": "file: is not a folder",
        "flat": "flat: has no class folders; name a list of pictures with --labels",
        "bare": "bare: no pictures in its 1 class folders",
    }.items():
        with pytest.raises(RequestError, match=said):
            read_dataset(tmp_path / name, None, None, 2)
    with pytest.raises(RequestError, match=r"none.txt: cannot be read as a list of labels \(No such file"):
        read_dataset(tmp_path, tmp_path / "none.txt", None, 2)


def test_a_limit_takes_pictures_from_all_over(tmp_path):
    samples = tuple(Sample(f"{i // 50}/{i % 50}.jpg", i // 50) for i in range(1000))
    dataset = Dataset(tmp_path, samples, "by class number")
    for count in (1, 7, 20, 60, 999, 1000):
        chosen = dataset.limited(count).samples
        assert len(chosen) == len(set(chosen)) == count and list(chosen) == sorted(chosen, key=samples.index)
    assert [sample.label for sample in dataset.limited(20).samples] == list(range(20))
    assert dataset.limited(None) is dataset and dataset.limited(5000) is dataset
    with pytest.raises(RequestError, match="--limit should be at least 1, not 0"):
        dataset.limited(0)
