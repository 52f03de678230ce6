"""KFP component of the stage prepare_clips."""

from kfp.dsl import Dataset, Input, Output, component

from components._image import IMAGE


@component(base_image=IMAGE, install_kfp_package=False)
def prepare_clips(
    raw: Input[Dataset], clips: Output[Dataset], params: dict, name: str = "prepare_clips",
) -> None:
    """Converts a raw data set to a clip store."""
    from maskcast.runner.run import run_stage

    run_stage("prepare_clips", params, name=name, raw=raw.path, clips=clips.path)
