"""Progress elsewhere than on a terminal."""

import io
import re

from tome_export.evaluation import progress


def test_a_log_gets_a_line_now_and_then_and_none_at_the_end(monkeypatch):
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LINES", 0.0)
    log = io.StringIO()
    view = progress.ProgressView(log)
    view.start(100)
    for done in (20, 60, 100):
        view.advance(done)
    view.stop()
    lines = log.getvalue().splitlines()
    assert len(lines) == 2
    for line, done in zip(lines, (20, 60), strict=True):
        assert re.fullmatch(rf"  {done} of 100 images, [\d.]+ images/s, \d+:\d\d left", line)


def test_nothing_is_said_of_a_short_evaluation_or_beside_json(monkeypatch):
    log = io.StringIO()
    view = progress.ProgressView(log)
    view.start(100)
    view.advance(50)
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LINES", 0.0)
    silent = progress.ProgressView(log, lines=False)
    silent.start(100)
    silent.advance(50)
    assert log.getvalue() == ""
