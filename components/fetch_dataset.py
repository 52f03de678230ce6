"""KFP component of the stage fetch_dataset."""

from kfp.dsl import Dataset, Output, component

from components._image import IMAGE


@component(base_image=IMAGE, install_kfp_package=False)
def fetch_dataset(
    raw: Output[Dataset], params: dict, name: str = "fetch_dataset",
) -> None:
    """Fetches a data set, unpacks it if it is an archive, and records its origin and digest in `SOURCE.json`."""
    from maskcast.runner.run import run_stage

    run_stage("fetch_dataset", params, name=name, raw=raw.path)
