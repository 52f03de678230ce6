"""What people run beside the stages: one module each, with `add_arguments` for its flags."""

COMMANDS = {  # by name: where it is, and what it does
    "code": ("maskcast.commands.code:code", "write the modules that each stage imports, by digest, for DVC"),
    "completion": ("maskcast.commands.completion:completion", "complete words of commands in bash, zsh or tcsh"),
    "doctor": ("maskcast.commands.doctor:doctor", "say what is missing on this machine, and how to get it"),
    "dry-run": (
        "maskcast.commands.dry_run:dry_run",
        "try a pipeline on a handful of clips: does it run, how long",
    ),
    "evaluate-coco": (
        "maskcast.commands.evaluate_coco:evaluate_coco",
        "score detections (boxes or masks) against a COCO ground truth",
    ),
    "evaluate-many": (
        "maskcast.commands.evaluate_many:evaluate_many",
        "score and measure many maskers on the same clips: one page and CSV",
    ),
    "forecast": ("maskcast.commands.forecast:forecast", "forecast any video by a registered model"),
    "grid": ("maskcast.commands.grid:grid", "run variants of a pipeline by DVC and compare their maskers"),
    "init": ("maskcast.commands.init:init", "look at a folder of your data and write params.yaml for it"),
    "labels": (
        "maskcast.commands.labels:labels",
        "send masks to labelling tools, bring labels back, suggest frames",
    ),
    "models": (
        "maskcast.commands.models:models",
        "list, compare, promote, roll back, export and deploy registered models",
    ),
    "new": ("maskcast.commands.new:new", "begin a project of your own: a folder with a pipeline and its params"),
    "pipeline": (
        "maskcast.commands.pipeline:pipeline",
        "compile and run the pipelines on Kubeflow, here or on a cluster",
    ),
    "segment": (
        "maskcast.commands.segment:segment",
        "mask a video or a camera frame by frame, and change its background",
    ),
    "serve": ("maskcast.commands.serve:serve", "answer requests for forecasts over HTTP"),
    "summary": (
        "maskcast.commands.summary:summary",
        "say what a finished run has gained, and what to do next",
    ),
    "write-annotations": (
        "maskcast.commands.write_annotations:write_annotations",
        "write annotations.txt for a folder of clips in the competition layout",
    ),
    "write-lmdb": ("maskcast.commands.write_lmdb:write_lmdb", "write masks of two hands as an LMDB"),
}
