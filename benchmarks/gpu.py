"""Speed on one GPU: training, inference, the loops around them, and the reader, beside the plain forms.

    python benchmarks/gpu.py [--out results/gpu] [--minutes 7.5] [--parts PART ...] [--models NAME ...]

U-Net (width 64), DeepLabV3+ R50, ConvLSTM (stride 4), simvp, objects, Faster R-CNN R50-FPN and MoCo R50, at
160x240 and 49 classes, on simulated clips. Needs no network. The card's own ceilings are measured first: FLOP/s of
a large matrix product in each precision, bytes/s of a copy. The parts:

    loops     the product's training loop over a clip store and on one batch (the difference is what the card waits
              for), beside the peer's plain loop over the same batches
    masks     generate_masks of all clips, beside PNG in, PNG out
    steps     a training step and inference on one batch, in eager forms of different precision and layout
    graphs    a step as a CUDA graph
    kernels   those that take most of the time of a step, by PyTorch's profiler
    compiled  a step by torch.compile; it gets the time that is left
    reader    clips and masks from the store against PNG files, one core of the CPU

`gpu.csv` grows row by row; `gpu.md` has the tables. A row that fails says why. Without a card, `--toy` runs small
sizes on the CPU; such figures say nothing.
"""

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from maskcast.errors import MaskcastError, one_line_errors

if TYPE_CHECKING:
    from _gpu.data import Sizes
    from _gpu.table import Row

PARTS = ("loops", "masks", "steps", "graphs", "kernels", "compiled", "reader")
ROW_SECONDS = {"compiled": 100, "loops": 60}
OTHERS_SECONDS = 40  # per row of any other part
COMPILED_LAST = ("DeepLabV3+", "MoCo", "objects")  # compiled last: these take a minute each


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/gpu"), help="folder for gpu.csv and gpu.md")
    parser.add_argument("--minutes", type=float, default=7.5, help="for everything")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--models", nargs="+", help="beginnings of names of models; all, if not given")
    parser.add_argument("--toy", action="store_true", help="small sizes, in this process")
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--until", type=float, help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.until = args.until or time.time() + 60 * args.minutes
    if args.work is not None:
        run_parts(args)
        return
    with tempfile.TemporaryDirectory() as work:
        args.work = Path(work)
        lead(args)


def lead(args: argparse.Namespace) -> None:
    """Prepares the data, runs each part in its own process (so that a crash affects only one), and reports."""
    from _gpu import data
    from _gpu.measure import CARD
    from _gpu.table import Table

    if not CARD and not args.toy:
        raise MaskcastError("no GPU that PyTorch can use; use --toy for small sizes on the CPU")
    table = Table(args.out)
    if not CARD:
        print("No card here: figures are of the CPU, and say nothing of a GPU.")
    data.prepare(args.work, data.TOY if args.toy else data.FULL, workers=1 if args.toy else 0)
    if args.toy:
        run_parts(args)
    else:
        children = [start(args, "reader")] if "reader" in args.parts else []
        for part in args.parts:
            if part == "reader" or time.time() > args.until:
                continue
            child = start(args, part)
            try:
                child.wait(max(1.0, args.until - time.time()))
            except subprocess.TimeoutExpired:
                child.kill()
                print(f"{part}: stopped, the time is over")
            if child.wait():
                print(f"{part}: ended with exit code {child.returncode}")
        for child in children:
            child.wait()
    table.finish()


def start(args: argparse.Namespace, part: str) -> "subprocess.Popen[bytes]":
    """Starts a part in another process."""
    options = ["--out", args.out, "--work", args.work, "--until", args.until, "--parts", part]
    models = ["--models", *args.models] if args.models else []
    return subprocess.Popen([sys.executable, __file__, *map(str, options), *models])


def run_parts(args: argparse.Namespace) -> None:
    """Measures the rows of some parts, each with a time limit."""
    from _gpu.data import FULL, TOY
    from _gpu.table import Table

    sizes = TOY if args.toy else FULL
    if not args.toy:  # in tests, the caller may use the alarm
        signal.signal(signal.SIGALRM, _on_timeout)
    for part in args.parts:
        for model, form, measure in rows_of(part, args, sizes):
            left = args.until - time.time()
            if left > 1:
                seconds = 0 if args.toy else min(left, ROW_SECONDS.get(part, OTHERS_SECONDS))
                Table(args.out).add(_attempt(part, model, form, measure, seconds))


def rows_of(part: str, args: argparse.Namespace, sizes: "Sizes") -> Iterator[tuple[str, str, "Callable[[], Row]"]]:
    """Yields the measurements of a part: names of model and variant, and a function that returns the row."""
    from _gpu import forms, kernels, loops, masks, store_reader
    from _gpu.cases import cases
    from _gpu.measure import CARD, Ceilings, ceilings
    from maskcast.training.schedule import Schedule

    chosen = [
        case for case in cases(args.work, sizes) if not args.models or case.name.startswith(tuple(args.models))
    ]
    if part == "reader":
        for measure in store_reader.rows(args.toy):
            yield "store", "", measure
    elif part == "masks":
        if not (args.work / "masker").exists():  # the part `loops` was left out, or has failed
            masker = next(case for case in cases(args.work, sizes) if case.name == "U-Net")
            loops.train_masker(masker, sizes, args.work)
        for measure in masks.rows(args.work):
            yield "U-Net", "", measure
    elif part == "loops":
        for case in chosen:
            for measure in loops.Loops(case, sizes, args.work).rows():
                yield case.name, "", measure
    elif part == "kernels":
        for case in chosen:
            yield case.name, "", partial(kernels.measure, case)
    else:
        known = args.work / "ceilings.json"
        if not known.exists():
            known.write_text(json.dumps(ceilings(args.toy)), encoding="utf-8")
            yield "card", "", lambda: forms.of_card(Ceilings(*json.loads(known.read_text(encoding="utf-8"))))
        top = Ceilings(*json.loads(known.read_text(encoding="utf-8")))
        kept_forms = {
            "steps": forms.EAGER[3 % sizes.forms :: sizes.forms],
            "graphs": forms.GRAPHS,
            "compiled": forms.COMPILED,
        }[part]
        if part == "compiled":
            chosen.sort(key=lambda case: case.name in COMPILED_LAST)
        for case in chosen:
            for form in forms.forms_of(case, kept_forms):
                yield case.name, form.name, partial(forms.measure, case, form, top, sizes.seconds, args.work)
            if part == "compiled" and CARD and "compile" in Schedule.model_fields:
                yield case.name, "maskcast's loop, compiled", partial(loops.compiled_loop, case, sizes, args.work)


def _attempt(part: str, model: str, form: str, measure: "Callable[[], Row]", seconds: float) -> "Row":
    """Returns a row, or a row with the reason why there is none."""
    from _gpu.table import Row

    started = time.time()
    if seconds:
        signal.alarm(max(1, int(seconds)))
    try:
        row = measure()
    except Exception as error:  # libraries may raise anything; other rows continue
        lines = str(error).strip().splitlines() or [""]
        row = Row(part, model, form, note=f"{type(error).__name__}: {lines[0][:160]}")
    finally:
        if seconds:
            signal.alarm(0)
    row.part, row.took = part, time.time() - started
    return row


def _on_timeout(number: int, frame: FrameType | None) -> NoReturn:
    raise TimeoutError("took longer than a row may")


if __name__ == "__main__":
    with one_line_errors():
        main()
