"""Train with and without Token Merging, export, compare, and write the table and the plot.

python -m examples.digits [--out examples/digits/runs] [--train-r 8] [--r 0,2,4,6,8,10,12] [--epochs 40]
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from tome_export.benching.machine import machine
from tome_export.commands.session import Debug, session
from tome_export.errors import RequestError

HERE = Path(__file__).parent


def main(
    out: Annotated[Path, typer.Option(help="Folder for checkpoints, bundles and results.")] = HERE / "runs",
    train_r: Annotated[int, typer.Option(min=1, help="Tokens merged per block in training.")] = 8,
    r: Annotated[str, typer.Option("--r", help="r to export at, a list.")] = "0,2,4,6,8,10,12",
    precision: Annotated[str, typer.Option(help="A list of fp32, int8, bf16.")] = "fp32,int8,bf16",
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training digits.")] = 40,
    seed: Annotated[int, typer.Option(min=0, help="Of weights, order and augmentation.")] = 0,
    rounds: Annotated[int, typer.Option(min=1, help="Of the timing of training steps.")] = 15,
    debug: Debug = False,
) -> None:
    """Train a small Vision Transformer on handwritten digits, with and without Token Merging, and compare."""
    with session(debug) as opened:
        show = lambda text: print(text, file=opened.stdout, flush=True)  # noqa: E731
        if not all(part.isdecimal() for part in r.split(",")):
            raise RequestError(f"--r {r!r} is not a list such as 0,4,8")
        from examples.digits.compare import compare, training_speed
        from examples.digits.data import load_digits
        from examples.digits.report import markdown, plot
        from examples.digits.train import train

        show(machine(threads=2))
        digits = load_digits()[1]
        rows = []
        for trained in (0, train_r):
            show(f"\ntrain with r = {trained}")
            start = time.perf_counter()
            checkpoint = train(out, trained, seed, epochs, show)
            show(f"  {checkpoint}, {time.perf_counter() - start:.0f} s")
            for each in map(int, r.split(",")):
                folder = out / f"trained{trained}-r{each}"
                rows.append(compare(checkpoint, trained, each, digits, folder, precision.split(",")))
                scores = "   ".join(
                    f"{score.where} {score.right}/{score.total}, {score.same} the same"
                    for score in rows[-1].scores
                )
                show(f"  r = {each:<3} {scores}")
        speed = training_speed(train_r, rounds)
        ratios = str(speed.ratio)
        show(f"\na training step with r = {train_r} against r = 0: {ratios}")
        (out / "accuracy.md").write_text(markdown(rows), encoding="utf-8")
        plot(rows, out / "accuracy.png")
        show(f"{out / 'accuracy.md'}\n{out / 'accuracy.png'}")


if __name__ == "__main__":
    typer.run(main)
