"""`tome-export doctor`"""

from __future__ import annotations

from tome_export.commands.session import Debug, session

_VERDICTS = {True: "ok", False: "no", None: ""}


def doctor(debug: Debug = False) -> None:
    """Show which runtimes and extras can be used here, and what to install for the others."""
    with session(debug) as opened:
        from tome_export.console import table
        from tome_export.doctor import diagnose

        rows = [
            (check.group, check.name, _VERDICTS[check.ok], check.value or "", check.advice or "")
            for check in diagnose()
        ]
        print(table(rows), file=opened.stdout)
