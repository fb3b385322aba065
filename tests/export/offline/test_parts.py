"""The folder of parts, the list of files and the tables, without Ray."""

import json
import os
from dataclasses import replace

import numpy as np
import pytest

from tome_export import staging
from tome_export.errors import RequestError
from tome_export.offline import listing, table
from tome_export.offline.gather import Gatherer
from tome_export.offline.parts import open_parts
from tome_export.offline.request import Request
from tome_export.offline.table import Answers

pq = pytest.importorskip("pyarrow.parquet")


@pytest.fixture
def source(tmp_path):
    """150 files in two folders, one with a name that is not UTF-8."""
    folder = tmp_path / "photos"
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
        for i in range(75):
            (folder / name / f"{i:03d}.jpg").touch()
    os.rename(folder / "b" / "074.jpg", os.fsencode(folder / "b") + b"/z\xff\n.jpg")
    return folder


@pytest.fixture
def request_(source):
    return Request("0" * 64, str(source), "onnx", "fp32", "cpu", 2)


def answers(count, start=0):
    classes = np.arange(start, start + 2 * count, dtype=np.int32).reshape(-1, 2)
    return Answers(classes, np.full((count, 2), 0.5, np.float32), [""] * count)


def answer_all(parts):
    for shard in parts.unfinished():
        first, after = parts.bounds(shard)
        parts.write(shard, answers(after - first, 2 * first))


def test_any_stretch_of_the_listing(source, tmp_path):
    found = listing.take_listing(source, tmp_path)
    expected = [f"{name}/{i:03d}.jpg" for name in "ab" for i in range(75)]
    expected[-1] = os.fsdecode(b"b/z\xff\n.jpg")
    assert found.count == 150
    for start, stop in ((0, 150), (0, 1), (63, 65), (64, 128), (149, 150), (100, 150)):
        assert found.paths(start, stop) == expected[start:stop]


def test_names_longer_than_what_is_read_at_a_time(tmp_path):
    source = tmp_path / "photos"
    deep = source.joinpath(*[letter * 200 for letter in "abcdefgh"])
    deep.mkdir(parents=True)
    for i in range(100):  # 160 kB of paths
        (deep / f"{i:03d}.jpg").touch()
    found = listing.take_listing(source, tmp_path)
    assert [path[-7:] for path in found.paths(60, 100)] == [f"{i:03d}.jpg" for i in range(60, 100)]


def test_parts_become_one_file(source, request_, tmp_path, monkeypatch):
    monkeypatch.setattr(table, "GROUP_ROWS", 40)  # several row groups
    out = tmp_path / "new" / "out.parquet"
    labels = [f"sort {i}" for i in range(300)]
    with open_parts(out, request_, labels, shard=32) as parts:
        assert parts.unfinished() == [0, 1, 2, 3, 4]
        answer_all(parts)
        parts.finish()
    read = pq.read_table(out)
    assert read["class_index"].to_pylist() == list(range(0, 300, 2))
    assert read["label"].to_pylist()[1] == "sort 2" and read["top_labels"].to_pylist()[1] == [
        "sort 2",
        "sort 3",
    ]
    assert read["path"].to_pylist()[-1] == "b/z\\xff\n.jpg"
    assert json.loads(read.schema.metadata[b"tome_export"])["runtime"] == "onnx"
    assert table.summary(out) == table.Summary(150, 0, ())
    assert [path.name for path in out.parent.iterdir()] == ["out.parquet"]


def test_only_what_is_missing_is_done_again(request_, tmp_path):
    out = tmp_path / "out.parquet"
    with open_parts(out, request_, None, shard=50) as parts:
        parts.write(1, answers(50))
    with open_parts(out, request_, None, shard=7) as parts:  # the parts say which size it is
        assert parts.unfinished() == [0, 2]


@pytest.mark.parametrize("step", ["merge", "mark", "rename", "remove"])
def test_killed_in_each_step_of_the_end(request_, tmp_path, step, monkeypatch):
    """Before the merged file has its name, before the mark, before it is moved, before the folder goes."""
    out = tmp_path / "out.parquet"

    class Killed(BaseException):
        pass

    def killed(*arguments):
        raise Killed

    with pytest.raises(Killed), open_parts(out, request_, None, shard=50) as parts:
        answer_all(parts)
        with monkeypatch.context() as patch:
            replaced = os.replace
            if step == "mark":
                patch.setattr("pathlib.Path.touch", killed)
            elif step == "remove":
                patch.setattr("tome_export.offline.parts.remove", killed)
            else:
                target = "merged.parquet" if step == "merge" else "out.parquet"
                patch.setattr(
                    os, "replace", lambda a, b: killed() if str(b).endswith(target) else replaced(a, b)
                )
            parts.finish()
    assert out.exists() == (step == "remove")
    with open_parts(out, request_, None) as parts:
        assert parts.is_moving == (step in ("rename", "remove"))
        assert parts.is_moving or parts.unfinished() == []
        parts.finish()
    assert pq.read_table(out)["class_index"].to_pylist() == list(range(0, 300, 2))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.parquet", "photos"]


def test_overwrite_drops_the_parts_of_another_request(request_, tmp_path):
    out = tmp_path / "out.parquet"
    with open_parts(out, replace(request_, runtime="absent"), None):
        pass  # it finished nothing, so it is in nobody's way
    with open_parts(out, request_, None, shard=50) as parts:
        parts.write(1, answers(50))
    other = replace(request_, bundle="1" * 64, precision="int8")
    message = r"different request \(another bundle; precision fp32, now int8\)"
    with pytest.raises(RequestError, match=message), open_parts(out, other, None):
        pass
    with open_parts(out, other, None, shard=50, overwrite=True) as parts:
        assert parts.unfinished() == [0, 1, 2]


def test_two_at_once_and_a_strange_folder(request_, tmp_path):
    out = tmp_path / "out.parquet"
    with open_parts(out, request_, None):
        with pytest.raises(RequestError, match="another predict-many is at work"):
            with open_parts(out, request_, None):
                pass
    strange = tmp_path / "other.parquet.parts"
    strange.mkdir()
    (strange / "request.json").write_text('{"request": {}}')
    with pytest.raises(RequestError, match="is not what predict-many leaves"):
        with open_parts(tmp_path / "other.parquet", request_, None, overwrite=True):
            pass
    assert (strange / "request.json").exists()


def test_a_damaged_part_is_named(request_, tmp_path):
    out = tmp_path / "out.parquet"
    with open_parts(out, request_, None, shard=50) as parts:
        answer_all(parts)
        file = parts.folder / "000001.parquet"
        file.write_bytes(file.read_bytes()[:-9])
        with pytest.raises(RequestError, match="000001.parquet: is damaged"):
            parts.finish()
        file.unlink()
        assert parts.unfinished() == [1] and not out.exists()


def test_a_source_without_pictures_leaves_nothing(request_, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(RequestError, match="no pictures in it"):
        with open_parts(tmp_path / "out.parquet", replace(request_, source=str(empty)), None):
            pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "photos"]
    assert staging.PARTIAL not in "".join(os.listdir(tmp_path))


def test_rows_in_any_order_become_shards():
    rows = [(shard, position) for shard in (0, 1, 2) for position in range(7)]
    order = np.random.default_rng(0).permutation(len(rows))
    gatherer, found = Gatherer(), {}
    for some in np.array_split(order, 6):
        shards, positions = np.array([rows[i] for i in some], np.int32).T
        batch = {
            "shard": shards,
            "position": positions,
            "classes": (100 * shards + positions)[:, None],
            "probabilities": np.full((len(some), 1), 0.5, np.float32),
            "error": np.array([f"{s} {p}" for s, p in zip(shards, positions, strict=True)], object),
        }
        found |= dict(gatherer.add(batch, lambda shard: 7))
    assert sorted(found) == [0, 1, 2] and gatherer.rows == 21
    for shard, answers in found.items():
        assert answers.classes[:, 0].tolist() == [100 * shard + i for i in range(7)]
        assert answers.errors == [f"{shard} {i}" for i in range(7)]
