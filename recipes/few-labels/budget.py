"""Draws what a masker scores by the number of labelled clips: a page with charts, and a CSV, in results/.

    python recipes/few-labels/budget.py [--seeds 0 1 2] [--percent 1 5 ...] [--arms NAME ...] [--order suggested]
        [--plan quick.yaml]

Values are those of params.yaml; budget.yaml, or another plan, says what is trained, and names page and table. Each
training is a run of train_masker, whose numbers stay in results/budget: what is there is not trained again, so a
killed comparison goes on where it was, and the page shows what is done so far; a first round that is all of
another arm is that arm's. The seed draws which clips are labelled, and the training. With `--order suggested` the
clips of the smallest number are drawn, and the next ones are those that `labels suggest` with the method
class-uncertainty would choose by the masker that was trained on the clips before.
"""

import argparse
import hashlib
import json
import re
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from budget_page import Point, write_budget
from maskcast.data.clip_store.reader import ClipStore
from maskcast.data.clip_store.writer import ClipWriter
from maskcast.errors import one_line_errors
from maskcast.inference.suggestions import choose, find_candidates
from maskcast.models.base import best_device
from maskcast.models.segmentation.table import load_masker
from maskcast.params import Params, deep_merge
from maskcast.runner.fingerprint import inputs_digest
from maskcast.runner.reuse import made_once, recalled, record_of, write_record
from maskcast.runner.run import run_stage
from maskcast.seed import rng
from maskcast.stages.train_masker import TrainMasker
from maskcast.writing import write_atomically

HERE = Path(__file__).resolve().parent
METHOD = "class-uncertainty"  # of `labels suggest`, whose default is random
ORDERS = ("random", "suggested")
PLANS = ("budget.yaml", "quick.yaml", "gpu.yaml")


class Arm(Params):
    """An arm of the comparison."""

    pretrained: bool = False
    train_masker: dict[str, Any]
    second_masker: dict[str, Any] | None = None
    """Of a second round, which learns from the masks of the first, too; null has one round."""


class Plan(Params):
    """The content of budget.yaml or gpu.yaml."""

    percent: list[float]
    arms: dict[str, Arm]
    pretrain_encoder: dict[str, Any]


def main() -> None:
    """Runs the missing trainings, and rewrites page and table after each."""
    parser = argparse.ArgumentParser(description="Jaccard by the number of labelled clips")
    parser.add_argument("--plan", choices=PLANS, default=PLANS[0], help="what is trained (%(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--percent", type=float, nargs="+", help="of the clips; those of the plan")
    parser.add_argument("--arms", nargs="+", help="of the plan; all")
    parser.add_argument("--order", choices=ORDERS, default=ORDERS[0], help="in which clips are labelled")
    args = parser.parse_args()
    plan = Plan.model_validate(yaml.safe_load((HERE / args.plan).read_text(encoding="utf-8")))
    if unknown := set(args.arms or ()) - plan.arms.keys():
        parser.error(f"{args.plan} has no arm {min(unknown)!r}, but {', '.join(map(repr, plan.arms))}")
    results = HERE / "results" / Path(args.plan).stem
    values: dict[str, Any] = yaml.safe_load((HERE / "params.yaml").read_text(encoding="utf-8"))
    pool = ClipStore(prepared(values["prepare_clips"]))
    base, ids = values["train_masker"], [clip.id for clip in pool.select("train")]
    requested = [
        (seed, percent, name)
        for seed in args.seeds
        for percent in sorted(args.percent or plan.percent)
        for name in args.arms or plan.arms
        if percent < 100 or plan.arms[name].second_masker is None  # with 100 %, no clip is unlabelled
    ]
    of = {name: made_of(name, plan, values, pool) for name in plan.arms}
    labelled: dict[tuple[int, str], list[str]] = {}
    (HERE / "data").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=HERE / "data", prefix="budget-") as scratch:
        for number, (seed, percent, name) in enumerate(requested, 1):
            arm, chosen = plan.arms[name], labelled.setdefault((seed, name), [])
            count = max(1, round(len(ids) * percent / 100))
            if chosen and args.order == "suggested":
                masker = results / folder_of(name, args.order, len(chosen), seed) / "masker"
                chosen += suggested(hidden(pool, chosen, Path(scratch)), masker, count - len(chosen), seed)
            drawn = [ids[k] for k in rng(seed).permutation(len(ids))]
            chosen += [one for one in drawn if one not in chosen][: count - len(chosen)]
            rounds = [deep_merge(base, arm.train_masker)]
            if arm.second_masker is not None:
                rounds += [values["generate_masks"], deep_merge(values["second_masker"], arm.second_masker)]
            for one in rounds[::2]:
                one |= {"training": one["training"] | {"seed": seed}}
            done = results / folder_of(name, args.order, count, seed)
            encoder = pretrained(plan, pool, results) if arm.pretrained else None
            scores = trained(done, rounds, pool, chosen, encoder, Path(scratch))
            minutes = scores["train_seconds"] / 60
            point = Point(name, args.order, percent, count, seed, scores["val_jaccard"], minutes)
            write_record(done / "point.json", of[name], point._asdict())
            message = f"{name}, {args.order}, {count} clips, seed {seed}: Jaccard {point.jaccard:.3f}"
            print(f"[{number}/{len(requested)}] {message}, {minutes:.1f} minutes", flush=True)
            known = [recalled(path, one) for path in results.glob("*/point.json") for one in of.values()]
            points = [Point(**facts) for facts in known if facts]  # leaves out those of other values
            write_budget(results, sorted(points, key=lambda one: ([*plan.arms].index(one.arm), one[1:])))


def made_of(name: str, plan: Plan, values: Mapping[str, Any], pool: ClipStore) -> dict[str, Any]:
    """Returns what the points of an arm are made of; their files are in folders of order, clips and seed."""
    arm = plan.arms[name]
    sections = (
        ["train_masker"] if arm.second_masker is None else ["train_masker", "generate_masks", "second_masker"]
    )
    return {
        "arm": [name, arm.model_dump(mode="json")],
        "params": [values[section] for section in sections],
        "pretrain_encoder": plan.pretrain_encoder if arm.pretrained else None,
        "clips": pool.digest,
    }


def prepared(section: dict[str, Any]) -> Path:
    """Returns the clips of params.yaml, all with labels, prepared once for the same params."""
    clips, source = HERE / "data/pool", section["source"]
    pool = section | {"source": source | {"train": source["train"] + source["unlabeled"], "unlabeled": 0}}
    (HERE / "data/raw").mkdir(parents=True, exist_ok=True)  # simulated clips need no raw files
    make = partial(run_stage, "prepare_clips", pool, raw=HERE / "data/raw", clips=clips)
    made_once(record_of(clips), {"params": pool}, make, clips)
    return clips


def pretrained(plan: Plan, pool: ClipStore, results: Path) -> Path:
    """Returns the encoder pretrained on all frames, trained once for the same params and clips."""
    encoder = HERE / f"models/{results.name}-encoder"
    paths: dict[str, Any] = {
        "unlabeled": pool.root,
        "encoder": encoder,
        "metrics": results.with_name(f"{results.name}-encoder.json"),
    }
    of = {"params": plan.pretrain_encoder, "clips": pool.digest}
    made_once(
        record_of(encoder), of, partial(run_stage, "pretrain_encoder", plan.pretrain_encoder, **paths), encoder
    )
    return encoder


def hidden(pool: ClipStore, labelled: Sequence[str], scratch: Path) -> ClipStore:
    """Returns a store in which only these training clips have labels; only the latest such store is kept."""
    root = scratch / hashlib.sha256(" ".join(labelled).encode()).hexdigest()[:16]
    if root.exists():
        return ClipStore(root)
    for other in scratch.iterdir():
        shutil.rmtree(other)
    maps = tuple(pool.maps.values())
    with ClipWriter(root, height=pool.height, width=pool.width, maps=maps, meta=pool.meta) as writer:
        for clip in pool.clips:
            bare = clip.split == "train" and clip.id not in labelled
            split, kind = ("unlabeled", "unlabelled") if bare else (clip.split, clip.kind)
            masks = {} if bare else {name: pool.of(name).masks(clip) for name in clip.maps}
            writer.add(
                clip.id, split=split, kind=kind, frames=pool.stored_frames(clip), masks=masks, meta=clip.meta
            )
    return ClipStore(root)


def suggested(store: ClipStore, masker: Path, count: int, seed: int) -> list[str]:
    """Returns the clips that `labels suggest` would choose next, one frame of each."""
    model = load_masker(masker)[0].to(best_device())
    candidates = find_candidates(store, model, batch_size=16, precision="bf16")
    whole = max(clip.num_frames for clip in store.clips)
    chosen = choose(candidates, METHOD, budget=count, spacing=whole, seed=seed)
    return [candidates.clip_ids[candidates.clip_N[n]] for n in chosen]


def trained(
    done: Path,
    rounds: Sequence[dict[str, Any]],
    pool: ClipStore,
    labelled: Sequence[str],
    encoder: Path | None,
    scratch: Path,
) -> dict[str, float]:
    """Returns the scores of a training, which is run if it is missing.

    Args:
        done: folder of the training.
        rounds: params of train_masker, or of train_masker, generate_masks and the second train_masker.
        pool: all clips.
        labelled: ids of the labelled clips.
        encoder: pretrained encoder of the first masker, or None.
        scratch: folder for clip stores.
    """
    inputs = {"pool": pool.root} | ({"encoder": encoder} if encoder else {})
    first, *more = rounds
    alone = " ".join([inputs_digest(TrainMasker.model_validate(first), **inputs), *labelled])
    key = " ".join([alone, *map(json.dumps, more)])
    if (done / "key.txt").exists() and (done / "key.txt").read_text(encoding="utf-8") != key:
        shutil.rmtree(done)
    if not (done / "metrics.json").exists():
        done.mkdir(parents=True, exist_ok=True)
        write_atomically(done / "key.txt", key)
        clips: dict[str, Any] = {"clips": hidden(pool, labelled, scratch).root}
        keys = {path.parent / "masker": path.read_text(encoding="utf-8") for path in done.parent.glob("*/key.txt")}
        same = [one for one, other in keys.items() if other == alone and one.exists()]  # an arm of one round
        masker = same[0] if same else done / ("first" if more else "masker")
        scores = round_of(masker, first, clips | ({"encoder": encoder} if encoder else {}))
        if more:
            start, masks = time.monotonic(), scratch / "masks"
            run_stage("generate_masks", more[0], **clips, masker=masker, masks=masks, metrics=done / "masks.json")
            took = scores["train_seconds"] + time.monotonic() - start
            scores = round_of(done / "masker", more[1], clips | {"start": masker, "masks": masks})
            shutil.rmtree(masks)
            scores |= {"train_seconds": took + scores["train_seconds"]}
        write_atomically(done / "metrics.json", json.dumps(scores))
    found: dict[str, float] = json.loads((done / "metrics.json").read_text(encoding="utf-8"))
    return found


def round_of(masker: Path, values: dict[str, Any], inputs: Mapping[str, Path]) -> dict[str, float]:
    """Trains a masker unless it exists, and returns its scores."""
    metrics = masker.with_name(f"{masker.name}.json")
    if not metrics.exists():  # the metrics are written after the masker
        paths: dict[str, Any] = {**inputs, "masker": masker, "metrics": metrics}
        run_stage("train_masker", values, **paths)
        shutil.rmtree(masker.with_name(f"{masker.name}.resume"), ignore_errors=True)
    scores: dict[str, float] = json.loads(metrics.read_text(encoding="utf-8"))
    return scores


def folder_of(arm: str, order: str, clips: int, seed: int) -> str:
    """Returns the folder of a training among the results."""
    return re.sub(r"\W+", "-", f"{arm} {order} {clips} {seed}")


if __name__ == "__main__":
    with one_line_errors():
        main()
