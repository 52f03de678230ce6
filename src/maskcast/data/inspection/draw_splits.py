"""Draws the sequences of `val`, and those of `test` if there are enough, where no list or folder names them."""

from collections.abc import Collection, Mapping

from maskcast.data.inspection.findings import Findings
from maskcast.data.sources.splits import Splits, assign_splits

VAL_SHARE = 0.2  # share of the labelled sequences for validation
TEST_SHARE = 0.2  # share of them for the final scores, if there are enough
MIN_FOR_TEST = 50  # minimum number of labelled videos, or photographs, to draw a test split
NUM_DRAWS = 20  # draws of splits, of which the one that covers most classes is taken


def add_val(
    found: Findings, named: dict[str, tuple[str, ...]], origin: str, videos: Mapping[str, str]
) -> tuple[dict[str, tuple[str, ...]], str]:
    """Returns splits with a `val`: some of the sequences outside `test`, else those of `test`.

    Without an official `test`, one is drawn, too, from at least ``MIN_FOR_TEST`` videos. Of ``NUM_DRAWS`` draws,
    the one with most classes in `train` is taken, then the one with most of these in `val` and in `test`.

    Args:
        found: the findings so far.
        named: the official splits.
        origin: where these were found.
        videos: for each sequence that is long enough, the video that it is a part of; parts stay together.
    """
    test = named.get("test", ())
    tested = {*test}
    rest = [name for name in videos if name not in tested]
    if test and len(rest) == 1:
        found.warnings.append(
            f"test serves as val, because {rest[0]} alone has other masks: the model is chosen and scored on the "
            "same clips"
        )
        return {"val": test}, f"test, {origin}"
    pool = rest or list(videos)
    of_pool = {name: videos[name] for name in pool}
    if len(set(of_pool.values())) < 2:
        of_pool = dict(zip(pool, pool, strict=True))
    apart = [*dict.fromkeys(of_pool.values())]
    draws = [_draw(of_pool, drawn_shares(len(apart), test), seed) for seed in range(NUM_DRAWS)]
    covered = [_covered_classes(found, pool, draw) for draw in draws]
    seed = covered.index(max(covered))
    drawn, how = draws[seed], f"drawn with seed {seed}"
    if seed:
        how += ", so that train and val have more of the classes than with seed 0"
    if not test or not rest:
        text = f"{VAL_SHARE:.0%} of the {len(pool)} labelled sequences, {how}"
        text += f"; test: another {TEST_SHARE:.0%}" if drawn["test"] else ""
        together = len(set(of_pool.values())) < len(pool)
        splits = {split: members for split, members in drawn.items() if members}
        return splits, f"{text}; those of one video or scene stay together" if together else text
    reason = f"{VAL_SHARE:.0%} of the {len(rest)} labelled ones that are not for test, {how}"
    return {"val": drawn["val"], "test": test}, f"{reason}; test: {origin}"


def drawn_shares(count: int, test: Collection[str]) -> Splits:
    """Returns the shares of splits to draw from ``count`` videos or photographs, given the members of `test`."""
    drawn: Splits = {"val": VAL_SHARE}
    return drawn if test or count < MIN_FOR_TEST else {**drawn, "test": TEST_SHARE}


def _draw(videos: Mapping[str, str], shares: Splits, seed: int) -> dict[str, tuple[str, ...]]:
    """Returns the drawn members of `val` and `test`.

    Args:
        videos: for each sequence, the video that it is a part of; parts stay together.
        shares: shares of the splits.
        seed: seed of the draw.
    """
    assigned = assign_splits([*dict.fromkeys(videos.values())], shares, seed)
    drawn = {split: tuple(name for name in videos if assigned[videos[name]] == split) for split in ("val", "test")}
    if 2 * sum(map(len, drawn.values())) > len(videos):  # one video has most of the parts
        drawn["test"] = ()
    if 2 * len(drawn["val"]) > len(videos) > 1:  # the others are scored on
        val = {*drawn["val"]}
        drawn["val"] = tuple(name for name in videos if name not in val)
    return drawn


def _covered_classes(
    found: Findings, pool: Collection[str], drawn: Mapping[str, Collection[str]]
) -> tuple[int, int, int]:
    """Returns the number of classes in `train`, and of these in `val` and in `test`."""
    held_out = {*drawn["val"], *drawn["test"]}
    trained, validated, tested = (
        set[str]().union(*(found.classes.get(name, ()) for name in names))
        for names in ([name for name in pool if name not in held_out], drawn["val"], drawn["test"])
    )
    return len(trained), len(trained & validated), len(trained & tested)
