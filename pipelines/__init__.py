"""The pipelines on Kubeflow: `maskcast pipeline --help`.

A pipeline is a function of where its tasks run and of the sections of its params file, one per stage, which become
its parameters. Its docstring is the description that Kubeflow shows.
"""

PIPELINES = {  # by name: where it is; imported when it is built, because kfp takes its time
    "forecasting": "pipelines.forecasting:forecasting",
    "detection": "pipelines.detection:detection",
    "video": "pipelines.video:video",
    "few_labels": "pipelines.few_labels:few_labels",
    "hands": "pipelines.hands:hands",
    "photographs": "pipelines.photographs:photographs",
}
