"""Variants of a training step and of inference: precision, memory format, CUDA graph, compiler."""

import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch

from _gpu.cases import Case, known_masks
from _gpu.measure import (
    CARD,
    DEVICE,
    Ceilings,
    Work,
    allow_tf32,
    forget,
    on_device,
    peak_gib,
    pytorch_kernels,
    seconds_of,
    work_of,
)
from _gpu.table import Row


class Form(NamedTuple):
    """How a step runs.

    Args:
        name: name of the variant.
        precision: ``bf16`` uses autocast with fp32 weights.
        tf32: whether fp32 matrix products and convolutions round their inputs to TF32.
        channels_last: memory format of a masker's network; other models choose their own.
        fused: AdamW and SGD as one kernel.
        search: cuDNN benchmarks its algorithms first.
        kernels: maskcast's own kernels, if there are any for the GPU.
        graph: the whole step as a CUDA graph.
        mode: mode of torch.compile, or None.
    """

    name: str
    precision: str = "bf16"
    tf32: bool = False
    channels_last: bool = True
    fused: bool = False
    search: bool = False
    kernels: bool = False
    graph: bool = False
    mode: str | None = None


EAGER = (
    Form("eager fp32", "fp32", channels_last=False),
    Form("eager TF32", "fp32", tf32=True, channels_last=False),
    Form("eager bf16", channels_last=False),
    Form("bf16, channels_last"),
    Form("bf16, channels_last, fused", fused=True),
    Form("bf16, channels_last, fused, search", fused=True, search=True),
    Form("all of these, own kernels", fused=True, search=True, kernels=True),
)
GRAPHS = (Form("bf16, channels_last, CUDA graph", fused=True, search=True, kernels=True, graph=True),)
COMPILED = (
    Form("bf16, compiled", fused=True, mode="default"),
    Form("bf16, compiled with graphs", fused=True, mode="reduce-overhead"),
)


def forms_of(case: Case, forms: tuple[Form, ...]) -> list[Form]:
    """Returns the distinct variants for a model; if it chooses its memory format, one per precision."""
    if case.masker:
        return list(forms)
    kept = [form for form in forms if form.channels_last or form.precision == "fp32"]
    kept = [
        form for form in kept if form.graph or form.mode or not (form.kernels or (form.fused and not form.search))
    ]
    return [form._replace(name=form.name.replace("bf16, channels_last", "bf16")) for form in kept]


def measure(case: Case, form: Form, top: Ceilings, seconds: float, folder: Path) -> Row:
    """Returns the row of one variant.

    Args:
        case: the model.
        form: the variant.
        top: peak rates of the GPU.
        seconds: duration of each timing.
        folder: keeps the operation counts of a model, which one eager variant determines for all.
    """
    if not CARD and (form.graph or form.mode):
        raise RuntimeError("no card")
    with nullcontext() if form.kernels else pytorch_kernels():
        return _measured(case, form, top, seconds, folder / "work.json")


def _measured(case: Case, form: Form, top: Ceilings, seconds: float, counted: Path) -> Row:
    forget()
    allow_tf32(form.tf32, form.tf32)
    torch.backends.cudnn.benchmark = form.search
    task = case.task()
    batch = on_device(task.batch(0))
    task.model.to(DEVICE).train()
    task.seen = known_masks(task.clips, case.infers // 11).to(DEVICE) if hasattr(task, "clips") else None
    if case.masker and not form.channels_last:
        _as_nchw(task.segmenter)
    if form.mode:
        case.compiled(task, form.mode)
    optimizer = task.params.training.make_optimizer(task.model)
    for group in optimizer.param_groups:
        group |= {"fused": form.fused and CARD, "foreach": False if form.fused and CARD else None}
        group["capturable"] = form.graph and "betas" in group

    def step() -> None:
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=form.precision == "bf16"):
            loss, _ = task.loss(batch, 0)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    work = _work(counted, case, form, "step", step)
    taken = seconds_of(_captured(step) if form.graph else step, seconds)
    peak = peak_gib()
    found = Row("steps", case.name, form.name, case.batch, case.unit, taken * 1e3, case.batch / taken)
    found.peak_gib = peak
    differs = form.search or not form.fused or form.mode  # fused is the optimiser's
    possible = (case.autocasts or form == EAGER[0]) and not (form.graph and case.finds_boxes)
    if differs and possible and (case.masker or not form.mode):
        task.model.eval()

        @torch.inference_mode()
        def infer() -> object:
            with torch.autocast(DEVICE.type, torch.bfloat16, enabled=form.precision == "bf16"):
                return case.infer(task, batch)

        inference_work = _work(counted, case, form, "inference", infer)
        infer_taken = seconds_of(_captured(infer) if form.graph else infer, seconds / 2)
        found.infer_per_s = case.infers / infer_taken
        if inference_work is not None:
            found.infer_flop_share = 100 * inference_work.flops / infer_taken / ceiling(form, top)
    if work is not None:
        with_work(found, work, form, top)
    return found


def _work(counted: Path, case: Case, form: Form, what: str, call: Callable[[], object]) -> Work | None:
    """Returns the counted work of a call, from the cache if possible; only eager code can be counted."""
    known = json.loads(counted.read_text(encoding="utf-8")) if counted.exists() else {}
    key = f"{case.name}, {form.precision}, {what}"
    if key not in known and not (form.graph or form.mode):
        known[key] = work_of(call)
        counted.write_text(json.dumps(known), encoding="utf-8")
    return Work(*known[key]) if key in known else None


def of_card(top: Ceilings) -> Row:
    """Returns the row of the card's ceilings."""
    rates = {"fp32": top.fp32, "TF32": top.tf32, "bf16": top.bf16}
    note = ", ".join(f"{name} {rate / 1e12:.0f} TFLOP/s" for name, rate in rates.items())
    return Row("steps", "card", "matrix product, copy", gb_s=top.copy / 1e9, note=note)


def ceiling(form: Form, top: Ceilings) -> float:
    """Returns the FLOP/s of the card's matrix product in the precision of a form."""
    return top.bf16 if form.precision == "bf16" else top.tf32 if form.tf32 else top.fp32


def with_work(row: Row, work: Work, form: Form, top: Ceilings) -> None:
    """Fills in what a step achieves of what the card can do."""
    assert row.ms is not None
    taken = row.ms / 1e3
    row.tflop_s, row.gb_s = work.flops / taken / 1e12, work.traffic / taken / 1e9
    row.flop_share = 100 * work.flops / taken / ceiling(form, top)
    row.byte_share = 100 * work.traffic / taken / top.copy


def _as_nchw(segmenter: Any) -> None:
    segmenter.network.to(memory_format=torch.contiguous_format)
    normalised = segmenter.normalised
    segmenter.normalised = lambda frames: normalised(frames).contiguous()


def _captured(call: Callable[[], object]) -> Callable[[], object]:
    """Returns the replay of a CUDA graph of a call."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay
