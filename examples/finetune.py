"""Fine-tune a Vision Transformer with Token Merging on a folder of class folders of images.

    python -m examples.finetune --data photos --model vit_b16 --weights vit_base_patch16_224.pdparams --r 16

Merging makes the training steps faster, and the model gets used to merged tokens. Every epoch is saved: the
same command goes on after an interruption. `--out` gets `model.pdparams` (of the best epoch, for `tome-export
--weights`), `labels.txt`, and `resume.pdstate`, which is a pickle: go on with your own runs only.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.progress import track

from tome_export.commands.session import Debug, session
from tome_export.errors import RequestError
from tome_export.fetch import fetch
from tome_export.preprocess import preset
from tome_export.quiet import quiet

with quiet():
    import paddle
    import paddle.nn.functional as F

    from examples.pictures import Pictures, batches, split
    from tome_core import apply_patch, create_model
    from tome_core.checkpoints.loading import load_checkpoint

RESUME = "resume.pdstate"
WARM_UP = 0.1  # part of all steps
LAYER_DECAY = 0.75  # of the learning rate, from block to earlier block, when starting from weights
WEIGHT_DECAY, SMOOTHING, LARGEST_GRADIENT = 0.05, 0.1, 1.0


def main(
    data: Annotated[Path, typer.Option(help="Folder that has a folder of images for each class.")],
    model: Annotated[str, typer.Option(help="Model name; see `tome-export models`.")] = "vit_b16",
    weights: Annotated[
        str | None, typer.Option(help="To start from: a file, https://... or hf:...", show_default="random")
    ] = None,
    r: Annotated[str, typer.Option("--r", help="Tokens merged per block: 16, or 16,16,8,...")] = "16",
    out: Annotated[Path, typer.Option(help="Folder for what is trained.")] = Path("finetuned"),
    image_size: Annotated[int | None, typer.Option(help="Pixels.", show_default="the model's")] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training images.")] = 20,
    batch: Annotated[int, typer.Option(min=1, help="Images in a step.")] = 32,
    rate: Annotated[
        float | None, typer.Option(help="Peak learning rate.", show_default="2e-4; 1e-3 without weights")
    ] = None,
    amp: Annotated[str, typer.Option(help="Mixed precision: off, bfloat16 or float16.")] = "off",
    held_out: Annotated[float, typer.Option(help="Part of every class to validate on.")] = 0.2,
    workers: Annotated[int, typer.Option(min=0, help="Processes that read images.")] = 2,
    seed: Annotated[int, typer.Option(min=0, help="Of split, order, crops and new weights.")] = 0,
    restart: Annotated[bool, typer.Option("--restart", help="Begin anew over what is at --out.")] = False,
    debug: Debug = False,
) -> None:
    """Fine-tune a Vision Transformer with Token Merging on your images."""
    asked = SimpleNamespace(**locals())
    asked.rate = rate or (2e-4 if weights else 1e-3)
    interrupted = False
    with session(debug) as opened:
        try:
            with paddle.utils.unique_name.guard():  # the optimizer's state goes by names
                run(asked, Console(file=opened.stdout, highlight=False, soft_wrap=True))
        except KeyboardInterrupt:
            interrupted = True
            print("interrupted; the same command goes on after the last epoch shown", file=opened.stdout)
    if interrupted:
        raise typer.Exit(130)


def run(asked: SimpleNamespace, console: Console) -> None:
    if asked.amp not in ("off", "bfloat16", "float16"):
        raise RequestError(f"no --amp {asked.amp!r}; choose off, bfloat16 or float16")
    labels, training, validation = split(asked.data, asked.held_out, asked.seed)
    model, recipe_name = build(asked, len(labels))
    recipe = preset(recipe_name, model.config.image_size)
    steps = math.ceil(len(training) / asked.batch)
    rates = paddle.optimizer.lr.LambdaDecay(asked.rate, lambda n: rate_at(n / (steps * asked.epochs)))
    optimizer = new_optimizer(model, rates, LAYER_DECAY if asked.weights else 1.0)
    amp = asked.amp if paddle.device.get_device() != "cpu" else "off"
    scaler = paddle.amp.GradScaler(enable=amp == "float16")
    asked.out.mkdir(parents=True, exist_ok=True)
    done, best = resume(asked, labels, model, optimizer, scaler)
    (asked.out / "labels.txt").write_text("\n".join(labels) + "\n", encoding="utf-8")

    tokens = model.tome.schedule.tokens
    console.print(f"{asked.model} at {recipe.crop} px, {tokens[0]} -> {tokens[-1]} tokens")
    console.print(
        f"{len(labels)} classes, {len(training)} images to train on, {len(validation)} to validate on"
    )
    if amp != asked.amp:
        console.print("note: Paddle's auto_cast does nothing on a CPU; this trains in float32")
    if done:
        console.print(f"going on after epoch {done}")
    loading = asked.batch, asked.workers
    start = time.perf_counter()
    for epoch in range(done, asked.epochs):
        order = np.random.default_rng([asked.seed, epoch]).permutation(len(training))
        loader = batches(Pictures([training[i] for i in order], recipe, (asked.seed, epoch)), *loading)
        bar = {"console": console, "transient": True, "disable": not console.is_terminal}
        losses = []
        for images, targets in track(loader, f"  epoch {epoch + 1}", steps, **bar):
            losses.append(train_step(model, optimizer, scaler, images, targets, amp))
            rates.step()
        accuracy = evaluate(model, batches(Pictures(validation, recipe), *loading))
        if accuracy > best:
            best = accuracy
            save(model.state_dict(), asked.out / "model.pdparams")
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
        state |= {"scaler": scaler.state_dict(), "done": epoch + 1, "best": best}
        save({**state, "run": identity(asked, labels)}, asked.out / RESUME)
        left = (time.perf_counter() - start) / (epoch + 1 - done) * (asked.epochs - epoch - 1) / 60
        console.print(
            f"  epoch {epoch + 1:>3}/{asked.epochs}   loss {np.mean(losses):.4f}   right {accuracy:7.2%}"
            f"   {left:5.1f} min left"
        )
    # Trained with proportional attention, MAE wants it from now on; its default is without.
    attention = " --prop-attn" if model.config.family == "mae" else ""
    model_file, label_file = asked.out / "model.pdparams", asked.out / "labels.txt"
    console.print(f"\n{model_file}: {best:.2%} of the validation images right\n\nnext")
    console.print(
        f"  tome-export --model {asked.model} --weights {model_file} --r {asked.r}{attention}"
        f" --preprocess {recipe_name} --labels {label_file} --out {asked.out / 'infer'}"
    )


def build(asked: SimpleNamespace, classes: int) -> tuple[paddle.nn.Layer, str]:
    """The patched model with a new head, and the name of the pre-processing that it was trained with."""
    paddle.seed(asked.seed)
    size = {} if asked.image_size is None else {"image_size": asked.image_size}
    if asked.weights is None:
        model = create_model(asked.model, num_classes=classes, **size)
        recipe = model.config.family
    else:
        path = fetch(asked.weights).path
        loaded = load_checkpoint(asked.model, path, num_classes=classes, reset_head=True, **size)
        model, recipe = loaded.model, loaded.preprocess
    apply_patch(model)
    parts = asked.r.split(",")
    if not all(part.strip().isdecimal() for part in parts):
        raise RequestError(f"--r {asked.r!r} is not a whole number or a list such as 16,16,8")
    model.r = [int(part) for part in parts] if len(parts) > 1 else int(parts[0])
    return model, recipe


def new_optimizer(model: paddle.nn.Layer, rates, layer_decay: float) -> paddle.optimizer.AdamW:
    """AdamW. Earlier blocks learn more slowly; biases, norms, tokens and positions do not decay."""
    depth = len(model.blocks)
    for name, parameter in model.named_parameters():
        if name.startswith("blocks."):
            below = depth - int(name.split(".")[1])
        else:
            below = 0 if name.startswith(("head", "norm", "fc_norm")) else depth + 1
        parameter.optimize_attr["learning_rate"] = layer_decay**below
    decaying = {each.name for each in model.parameters() if each.ndim in (2, 4)}
    return paddle.optimizer.AdamW(
        rates,
        parameters=model.parameters(),
        weight_decay=WEIGHT_DECAY,
        apply_decay_param_fun=lambda name: name in decaying,
        grad_clip=paddle.nn.ClipGradByGlobalNorm(LARGEST_GRADIENT),
    )


def rate_at(done: float) -> float:
    """Part of the peak rate, after a part of the training: a line up, half a cosine down."""
    if done < WARM_UP:
        return (done + 1e-3) / WARM_UP
    return 0.5 * (1 + math.cos(math.pi * (done - WARM_UP) / (1 - WARM_UP)))


def train_step(model, optimizer, scaler, images, targets, amp: str) -> float:
    model.train()
    with paddle.amp.auto_cast(enable=amp != "off", dtype="float16" if amp == "off" else amp):
        out = model(images)
        heads = out if isinstance(out, tuple) else (out,)  # a distilled model has two
        loss = sum(F.cross_entropy(head, targets, label_smoothing=SMOOTHING) for head in heads) / len(heads)
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()
    optimizer.clear_grad()
    return loss.item()


@paddle.no_grad()
def evaluate(model, loader) -> float:
    """The part of the images that is classified right, as exported: in full precision, with merging."""
    model.eval()
    right = [model(images).argmax(-1) == targets for images, targets in loader]
    return paddle.concat(right).astype("float32").mean().item()


def identity(asked: SimpleNamespace, labels: list[str]) -> dict:
    """What must be the same for a run to go on."""
    names = ("model", "weights", "r", "image_size", "epochs", "batch", "rate", "amp", "held_out", "seed")
    return {name: getattr(asked, name) for name in names} | {"labels": labels}


def resume(asked: SimpleNamespace, labels: list[str], model, optimizer, scaler) -> tuple[int, float]:
    """(epochs done, best accuracy so far), with the state of a run that was interrupted put back."""
    if asked.restart or not (asked.out / RESUME).exists():
        return 0, -1.0
    state = paddle.load(str(asked.out / RESUME))
    now = identity(asked, labels)
    other = [f"{name} {state['run'].get(name)}" for name in now if state["run"].get(name) != now[name]]
    if other:
        raise RequestError(f"{asked.out} holds another run ({', '.join(other)}); add --restart to begin anew")
    model.set_state_dict(state["model"])
    optimizer.set_state_dict(state["optimizer"])
    scaler.load_state_dict(state["scaler"])
    return state["done"], state["best"]


def save(state: dict, path: Path) -> None:
    """All or nothing: an interruption leaves the file from before."""
    partial = path.with_name(f".partial-{path.name}")
    paddle.save(state, str(partial))
    partial.replace(path)


if __name__ == "__main__":
    typer.run(main)
