"""What weights of ImageNet are worth on sequences and people that nobody has labelled.

    python benchmarks/unseen_sequences.py DATA [--work FOLDER] [--seeds 0 1 2] [--only SET ...]
        [--weights PLACE] [--steps N]

DATA holds davis2016_val/, whose six sequences are scored in pairs by maskers that have learnt from the other four;
hands_hgr1/, scored on other people; and camvid/, scored on the end of its one sequence, for comparison. The
maskers are the two that `maskcast init` proposes: at random, and from PLACE, which is what `encoder_weights` takes
(the hub's, if not given). They learn for about as long. Scores are those of the best of five epochs: macro
Jaccard, and that of the foreground alone. What is in FOLDER already, made with the same values, is not made again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch

from _common import commit, commits, positive_int
from maskcast.errors import one_line_errors
from maskcast.models.encoders.pretrained import pin_revision
from maskcast.params import deep_merge
from maskcast.proposal.plan import plan_params
from maskcast.proposal.values import ENCODER
from maskcast.report.tables import markdown
from maskcast.runner.reuse import made_once, record_of
from maskcast.runner.run import run_stage

PAIRS = (("blackswan", "dog"), ("bmx-trees", "car-roundabout"), ("horsejump-high", "scooter-black"))
HANDS = {
    "source": {
        "layout": "frame_folders",
        "images": "dev/images/{frame}.jpg",
        "masks": "dev/masks/{frame}.bmp",
        "values": {0: "skin", 1: "background"},
        "classes": ["background", "skin"],
        "frames": 1,
        "window_step": 1,
        "split_by": "time",  # images are in order of people, so validation has other people
        "splits": {"val": 0.4},
    },
    "height": 176,
    "width": 240,
}
SETS = ("davis2016_val", "hands_hgr1", "camvid")
SCORES = ("val_jaccard", "val_jaccard_no_background")
Values = dict[str, Any]


def main() -> None:
    """Runs what is missing and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of real sets")
    parser.add_argument("--work", type=Path, default=Path("unseen_sequences"), help="folder for what is made")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", metavar="SET", choices=SETS, default=SETS, help="default: all")
    parser.add_argument("--weights", metavar="PLACE", help="default: the hub's, of today")
    parser.add_argument("--steps", type=positive_int, help="steps per epoch; default: those that are proposed")
    args = parser.parse_args()
    torch.set_num_threads(1)
    weights = args.weights or pin_revision(ENCODER)
    records = []
    for name in args.only:
        for seed in args.seeds:
            for fold, prepare in enumerate(folds(args.data, name)):
                clips = args.work / "sets" / f"{name}_{fold}"
                raw = args.data / name
                of: Values = {"raw": raw.resolve(), "params": prepare}
                make = partial(run_stage, "prepare_clips", prepare, raw=raw, clips=clips)
                made_once(record_of(clips), of, make, clips)
                for arm, place in {"at random": None, "ImageNet": weights}.items():
                    out = args.work / "runs" / f"{name}_{fold}_{arm}_{seed}.json"
                    values = masker_values(args.data, name, place, args.steps, seed)
                    facts = made_once(out, {"clips": of, "params": values}, partial(trained, clips, values))
                    records.append({"set": name, "fold": fold, "arm": arm, "seed": seed} | facts)
    print(f"Mean [lowest to highest] of folds and seeds; commit {commits(records)}\n\n{table(records)}")


def folds(data: Path, name: str) -> list[Values]:
    """Returns the params of prepare_clips for each fold."""
    if name == "hands_hgr1":
        return [HANDS]
    proposed = plan_params(data / name).proposal.sections["prepare_clips"]
    if name == "camvid":
        return [proposed]
    return [proposed | {"source": proposed["source"] | {"splits": {"val": list(pair)}}} for pair in PAIRS]


def masker_values(data: Path, name: str, weights: str | None, steps: int | None, seed: int) -> Values:
    """Returns the params of train_masker from `maskcast init`; those for DAVIS if it proposes none."""
    own_set = name == "camvid" and weights is None
    own: Values = {"seed": seed} | ({"steps_per_epoch": steps, "warmup_steps": 0} if steps else {})
    return deep_merge(proposed(data / (name if own_set else "davis2016_val"), weights), {"training": own})


@cache
def proposed(folder: Path, weights: str | None) -> Values:
    """Returns the params of train_masker from `maskcast init`."""
    return plan_params(folder, (lambda: weights) if weights else None).proposal.sections["train_masker"]


def trained(clips: Path, values: Values) -> Values:
    """Trains a masker; returns its scores and CPU seconds."""
    with tempfile.TemporaryDirectory() as folder:
        metrics, start = Path(folder, "metrics.json"), time.process_time()
        run_stage("train_masker", values, clips=clips, masker=Path(folder, "masker"), metrics=metrics)
        scores: Values = json.loads(metrics.read_text())
        spent = time.process_time() - start
    return {"val_jaccard_no_background": None} | scores | {"cpu_seconds": spent, "commit": commit()}


def table(records: list[Values]) -> str:
    """Returns a row for each set and start."""
    rows = []
    for name, arm in dict.fromkeys((one["set"], one["arm"]) for one in records):
        mine = [one for one in records if (one["set"], one["arm"]) == (name, arm)]
        cells = [spread([one[key] for one in mine]) for key in SCORES]
        rows.append(
            [name, arm, str(len(mine)), *cells, f"{statistics.mean(one['cpu_seconds'] for one in mine):.0f}"]
        )
    return markdown(["set", "start", "runs", "Jaccard", "of the foreground", "CPU s"], rows)


def spread(scores: list[float | None]) -> str:
    """Returns mean, minimum and maximum as text; empty if there are several classes."""
    known = [score for score in scores if score is not None]
    return f"{statistics.mean(known):.3f} [{min(known):.3f} to {max(known):.3f}]" if known else ""


if __name__ == "__main__":
    with one_line_errors():
        main()
