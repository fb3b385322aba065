"""A folder of real pictures and broken files."""

import pytest


@pytest.fixture(scope="session")
def fill():
    """(folder, pictures, times): each picture `times` times, in three folders; broken files; what is no
    picture. Returns the beginnings of errors by path, "" for pictures."""

    def fill(folder, pictures, times):
        reasons = {}
        for i in range(times):
            for j, picture in enumerate(pictures):
                path = folder / f"part {j % 3}" / f"{i:03d}-{j:02d}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                picture.convert("RGB").save(path, quality=95)
                reasons[str(path.relative_to(folder))] = ""
        whole = path.read_bytes()
        (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])
        (folder / "part 1" / "empty.png").write_bytes(b"")
        (folder / "part 1" / "text.webp").write_text("not a picture")
        (folder / "notes.txt").write_text("ignored")
        (folder / ".hidden.jpg").write_bytes(whole)
        reasons["cut.jpg"] = "cannot be read as an image"
        reasons["part 1/empty.png"] = "is empty"
        reasons["part 1/text.webp"] = "not an image in a known format"
        return reasons

    return fill
