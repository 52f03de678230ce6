"""Real sets with few labels: what unlabelled frames are worth to a masker, by the share of labelled ones.

    python benchmarks/few_labels_real.py DATA [--work FOLDER] [--seeds 0 1 2] [--shares 5 20] [--only SET ...]

DATA holds davis2016_val/, camvid/ and hands_hgr1/; few_labels_real.yaml says how they are read and what is
trained. The seed draws which frames keep their labels, too. Arms train for about as long, but where their name
says otherwise. Scores are macro Jaccard, absent classes left out, of the last weights or their running average: of
the split val, which lies after all that is learnt from, and of the frames between, those of the split train that
lost their labels. What is in FOLDER already, made with the same values, is not made again; the tables and
FOLDER/results.csv hold all of it.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import statistics
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from _common import commit, commits, positive_int
from maskcast.data.clip_store.frame_index import FrameIndex
from maskcast.data.clip_store.labelled_frames import labelled_frames
from maskcast.data.clip_store.reader import ClipStore
from maskcast.data.labelling.relabelling import NewLabels, write_relabelled
from maskcast.errors import MaskcastError, one_line_errors
from maskcast.evaluation.map_scores import counts_of, map_scores, zero_counts
from maskcast.labels import IGNORE
from maskcast.params import deep_merge, load_params_file, section, validate
from maskcast.report.tables import markdown
from maskcast.runner.reuse import made_once, recalled, record_of
from maskcast.runner.run import run_stage
from maskcast.runner.stage import get_stage
from maskcast.seed import rng

SHIPPED = Path(__file__).with_suffix(".yaml")
PARTS = ("sets", "arms", "pretrain_encoder", "train_masker", "generate_masks")
RECORD = ("set", "share", "arm", "labelled", "seed", "jaccard", "between", "cpu_seconds")
Values = dict[str, Any]
Record = dict[str, Any]


def main() -> None:
    """Runs what is missing, writes the CSV and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of real sets")
    parser.add_argument("--work", type=Path, default=Path("few_labels_real"), help="folder for what is made")
    parser.add_argument("--values", type=Path, default=SHIPPED, help="default: %(default)s")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--shares", type=positive_int, nargs="+", default=[5, 20], help="per cent of labelled frames"
    )
    parser.add_argument("--only", nargs="+", metavar="SET", help="default: all")
    parser.add_argument("--arms", nargs="+", metavar="ARM", help="default: all")
    args = parser.parse_args()
    torch.set_num_threads(1)
    values: Values = load_params_file(args.values, "file of values", f"e.g. {SHIPPED}")
    values |= {part: section(values, part, str(args.values)) for part in PARTS}
    for flag, part, names in (("--only", "sets", args.only), ("--arms", "arms", args.arms)):
        if unknown := set(names or ()) - values[part].keys():
            raise MaskcastError(f"{flag}: {', '.join(unknown)}: choose among {', '.join(values[part])}")
    for name in args.only or values["sets"]:
        truth = prepared(args, values, name)
        for seed in args.seeds:
            for share in args.shares:
                for arm in args.arms or values["arms"]:
                    made_once(
                        args.work / "runs" / f"{name}_{share}_{arm}_{seed}.json",
                        made_of(args, values, name, arm),
                        partial(one_run, args.work, truth, values, share, arm, seed),
                    )
    records = list(all_records(args, values))
    with (args.work / "results.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, RECORD, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(records)
    print(f"Macro Jaccard, mean [lowest to highest] of the seeds; commit {commits(records)}")
    for score, where in (("jaccard", "split val"), ("between", "the frames between")):
        print(f"\n{where}:\n\n{table(records, score)}")


def set_of(args: argparse.Namespace, values: Values, name: str) -> Values:
    """Returns what the clips of a set are made of."""
    return {"raw": (args.data / name).resolve(), "params": values["sets"][name]}


def made_of(args: argparse.Namespace, values: Values, name: str, arm: str) -> Values:
    """Returns what a run is made of, but share and seed, which its file names."""
    return {"set": set_of(args, values, name), "arm": values["arms"][arm]} | {
        part: values[part] for part in PARTS[2:]
    }


def all_records(args: argparse.Namespace, values: Values) -> Iterator[Record]:
    """Yields the runs in the folder that were made with these values, of earlier calls, too."""
    for path in sorted((args.work / "runs").glob("*.json")):
        for name, arm in product(values["sets"], values["arms"]):
            if re.fullmatch(rf"{re.escape(name)}_\d+_{re.escape(arm)}_-?\d+", path.stem):
                record = recalled(path, made_of(args, values, name, arm))
                if record is not None:
                    yield {"set": name, "arm": arm} | record


def prepared(args: argparse.Namespace, values: Values, name: str) -> ClipStore:
    """Returns a set with all labels, prepared once."""
    root, of = args.work / "sets" / name, set_of(args, values, name)
    made_once(
        record_of(root),
        of,
        lambda: run_stage("prepare_clips", of["params"], raw=args.data / name, clips=root),
        root,
    )
    return ClipStore(root)


def one_run(work: Path, truth: ClipStore, values: Values, share: int, arm: str, seed: int) -> Record:
    """Trains a masker in one or two rounds; returns its score, and CPU seconds without pretraining."""
    overrides = dict(values["arms"][arm])
    encoder = pretrained(work, truth, values) if overrides.pop("pretrained", False) else None
    second, seeded = overrides.pop("second", None), {"training": {"seed": seed}}
    last = deep_merge(values["generate_masks"], overrides.pop("masks", {}))
    with tempfile.TemporaryDirectory(dir=work) as scratch:
        folder = Path(scratch)
        clips, masker, masks = folder / "clips", folder / "masker", folder / "masks"
        count = drawn(clips, truth, share, seed)
        start = time.process_time()
        params = deep_merge(deep_merge(values["train_masker"], overrides), seeded)
        jaccard = staged("train_masker", params, clips=clips, encoder=encoder, masker=masker)["val_jaccard"]
        if second is not None:
            staged("generate_masks", values["generate_masks"], clips=clips, masker=masker, masks=masks)
            params = deep_merge(deep_merge(values["train_masker"], second), seeded)
            inputs = {"clips": clips, "start": masker, "masks": masks}
            masker = folder / "second"
            jaccard = staged("train_masker", params, **inputs, masker=masker)["val_jaccard"]
        seconds = time.process_time() - start
        staged("generate_masks", last, clips=clips, masker=masker, masks=folder / "last")
        between = between_labels(truth, ClipStore(clips), ClipStore(folder / "last"))
    facts = {"share": share, "labelled": count, "seed": seed, "jaccard": jaccard, "between": between}
    return facts | {"cpu_seconds": seconds, "commit": commit()}


def between_labels(truth: ClipStore, partly: ClipStore, masks: ClipStore) -> float:
    """Returns the score on training frames whose labels were removed."""
    counts = zero_counts(truth.label_map)
    for clip in truth.select("train", "labelled"):
        known = labelled_frames(partly, partly.get(clip.id))
        hidden = [t for t in range(clip.num_frames) if t not in known]
        counts += counts_of(truth.label_map, truth.masks(clip)[hidden], masks.masks(masks.get(clip.id))[hidden])
    return map_scores(truth.label_map, counts)["jaccard"]


def staged(name: str, params: Values, **paths: Path | None) -> dict[str, float]:
    """Runs a stage in this process and returns its metrics."""
    stage, last = get_stage(name), [path for path in paths.values() if path is not None][-1]
    metrics = last.with_name(f"{last.name}.json")
    stage.function(**paths, metrics=metrics, params=validate(stage.params, params, "few_labels_real"))
    found: dict[str, float] = json.loads(metrics.read_text())
    return found


def pretrained(work: Path, truth: ClipStore, values: Values) -> Path:
    """Returns the encoder that was pretrained on the frames of the train split, once for all seeds."""
    out, params = work / "pretrained" / truth.root.name, values["pretrain_encoder"]
    paths: Values = {"unlabeled": truth.root, "encoder": out, "metrics": out.with_suffix(".json")}
    of = {"clips": truth.digest, "params": params}
    made_once(record_of(out), of, lambda: run_stage("pretrain_encoder", params, **paths), out)
    return out


def drawn(root: Path, truth: ClipStore, share: int, seed: int) -> int:
    """Writes a store in which ``share`` percent of the training frames keep their labels; returns their number."""
    train = truth.select("train", "labelled")
    index = FrameIndex(train)
    count = max(1, round(len(index) * share / 100))
    # larger shares include smaller ones
    places = [index.at(int(n)) for n in rng(seed, 0).permutation(len(index))[:count]]
    labels = {}
    for k, clip in enumerate(train):
        masks = truth.masks(clip)
        known = sorted(t for j, t in places if j == k)
        hidden = np.full_like(masks, IGNORE)
        hidden[known] = masks[known]
        labels[clip.id] = NewLabels(hidden, known)
    write_relabelled(root, truth, labels, {})
    return count


def table(records: list[Record], score: str) -> str:
    """Returns a row for each set and share, a column for each arm."""
    arms = list(dict.fromkeys(record["arm"] for record in records))
    rows = []
    for name, share, count in dict.fromkeys((one["set"], one["share"], one["labelled"]) for one in records):
        cells = []
        for arm in arms:
            key = name, share, arm
            scores = [one[score] for one in records if (one["set"], one["share"], one["arm"]) == key]
            span = f"{statistics.mean(scores):.3f} [{min(scores):.3f} to {max(scores):.3f}]" if scores else ""
            cells.append(span)
        rows.append([name, f"{share} % ({count})", *cells])
    return markdown(["set", "labelled frames", *arms], rows)


if __name__ == "__main__":
    with one_line_errors():
        main()
