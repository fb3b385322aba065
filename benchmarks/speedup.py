"""How much faster is r = 16 than r = 0? Both exported, timed side by side on every runtime.

python -m benchmarks.speedup [--model vit_b16] [--r 16] [--batch 1,8] [--rounds 25]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from tome_export.benching.machine import machine
from tome_export.benching.turns import interleave
from tome_export.quiet import quiet

THREADS = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="vit_b16")
    parser.add_argument("--r", type=int, default=16)
    parser.add_argument("--batch", default="1,8")
    parser.add_argument("--rounds", type=int, default=25)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, quiet() as session:
        from tome_export import export, open_runtime
        from tome_export.parity.samples import make_batch
        from tome_export.runtimes import RUNTIMES, probe

        bundles = {r: export(arguments.model, Path(scratch) / str(r), r=r) for r in (0, arguments.r)}
        cost = bundles[arguments.r].manifest.tome.macs
        print(f"{arguments.model}; {machine(THREADS)}", file=session.stdout)
        print(f"multiply-adds {cost.base / cost.tome:.2f}x fewer", file=session.stdout)
        for batch in map(int, arguments.batch.split(",")):
            names = tuple(f"photo:{seed}" for seed in range(batch))
            image = make_batch(names, bundles[0].manifest.preprocess)
            for runtime in RUNTIMES:
                if not probe(runtime).usable:
                    continue
                opened = {r: open_runtime(runtime, bundle, threads=THREADS) for r, bundle in bundles.items()}
                runs = {
                    f"r = {r}": lambda engine=engine, image=image: engine.run(image)
                    for r, engine in opened.items()
                }
                print(f"\n{runtime}, batch {batch}", file=session.stdout)
                for name, timing in interleave(runs, arguments.rounds).items():
                    print(f"  {name:<10}{timing}", file=session.stdout, flush=True)
                for engine in opened.values():
                    engine.close()


if __name__ == "__main__":
    main()
