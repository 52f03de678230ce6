"""The pipelines on Kubeflow: `maskcast pipeline --help`.

A pipeline is a function of a placement of its tasks, and of the sections of its params file. There is one section
per stage, and these become the pipeline's parameters. Its docstring is the description that Kubeflow shows.
"""

PIPELINES = {  # by name; imported only when one is built, because importing kfp is slow
    name: f"pipelines.{name}:{name}"
    for name in ("forecasting", "detection", "video", "few_labels", "hands", "photographs")
}
