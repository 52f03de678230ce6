"""What is mounted into pods, as `cluster.yaml` names it: the workspace, and files of ConfigMaps and secrets."""

import os
from collections.abc import Mapping, Sequence
from itertools import combinations, product
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from maskcast.params import Params
from maskcast.validation_errors import HIDE_INPUT
from pipelines.kubernetes_types import DNS_LABEL, Size, Volume

# The system's folders, the image's packages, and temporary files with HOME.
IMAGE_FOLDERS = ("/bin", "/dev", "/etc", "/lib", "/lib64", "/opt", "/proc", "/sbin", "/sys", "/tmp", "/usr")
# Folders that Kubeflow, Argo and Kubernetes mount into pods, and KServe into those that serve.
POD_FOLDERS = ("/.cache", "/.config", "/.local", "/gcs", "/kfp-launcher", "/minio", "/run", "/s3", "/var/run")
SERVING_FOLDERS = ("/mnt/models",)
RESERVED_VOLUMES = ("kfp-launcher", "shared-memory")


def _normal_path(path: str) -> PurePosixPath:
    return PurePosixPath("/", os.path.normpath(path).lstrip("/"))


def _refuse_to_hide(owners: Mapping[str, Sequence[str]]) -> AfterValidator:
    """Returns a validator that normalises mount paths, which may not be, contain or be in a folder of an owner."""

    def check(path: str) -> str:
        used = _normal_path(path)
        for owner, folders in owners.items():
            for folder in map(PurePosixPath, folders):
                if used.is_relative_to(folder) or folder.is_relative_to(used):
                    raise PydanticCustomError(
                        HIDE_INPUT, f"{path} would hide {folder} of {owner}; use another, e.g. /workspace"
                    )
        return str(used)

    return AfterValidator(check)


def _each_folder_once(files: Any) -> Any:
    """Returns the keys of ``files`` as given, before those that are equal once normalised become one."""
    paths = [path for path in files if isinstance(path, str)] if isinstance(files, dict) else []
    for first, second in combinations(paths, 2):
        if _normal_path(first) == _normal_path(second):
            raise PydanticCustomError(HIDE_INPUT, f"{first} and {second} are the same folder; keep one")
    return files


_POD_OWNERS = {"the image": IMAGE_FOLDERS, "Kubeflow or Kubernetes": POD_FOLDERS}
_AbsolutePath = Annotated[str, Field(pattern="^/+[^/:][^:]*$")]
MountPath = Annotated[_AbsolutePath, _refuse_to_hide(_POD_OWNERS)]
FilesPath = Annotated[_AbsolutePath, _refuse_to_hide(_POD_OWNERS | {"KServe": SERVING_FOLDERS})]


class Workspace(Params):
    """A persistent volume for checkpoints, from which a restarted training resumes."""

    claim: str = Field(pattern=DNS_LABEL)
    """Name of the PersistentVolumeClaim."""
    mount_path: MountPath = "/workspace"
    """Mount path in the pods."""
    size: Size = "50Gi"
    """Size that `setup` requests."""
    access_mode: Literal["ReadWriteMany", "ReadWriteOnce"] = "ReadWriteMany"
    """Access mode that `setup` requests; ReadWriteOnce is sufficient if all pods run on one node."""
    storage_class: str | None = None
    """Storage class that `setup` requests; null uses the cluster's default."""


class Files(Params):
    """A ConfigMap or a secret whose keys become files of a folder."""

    config_map: Volume | None = None
    """Name of a ConfigMap."""
    secret: Volume | None = None
    """Name of a secret."""

    @property
    def name(self) -> str:
        """Name of the ConfigMap or secret, which is Kubeflow's name of the volume."""
        return self.config_map or self.secret or ""

    @model_validator(mode="after")
    def _has_one_source(self) -> Self:
        if (self.config_map is None) == (self.secret is None):
            raise PydanticCustomError(HIDE_INPUT, "needs one of the keys config_map and secret")
        return self


FilesByFolder = Annotated[dict[FilesPath, Files], BeforeValidator(_each_folder_once)]


def check_mounts(files: Mapping[str, Files], workspace: Workspace | None) -> None:
    """Checks that mounts of a pod have different folders, none inside one of ``files``, and different volumes.

    Raises:
        PydanticCustomError: some clash.
    """
    if workspace and workspace.mount_path in files:
        raise PydanticCustomError(
            HIDE_INPUT, f"files and workspace are both mounted at {workspace.mount_path}; change one"
        )
    for path, folder in product([*files, *([workspace.mount_path] if workspace else [])], files):
        if path != folder and PurePosixPath(path).is_relative_to(folder):
            raise PydanticCustomError(
                HIDE_INPUT, f"{path} is in {folder} of `files`, which is read-only; change one"
            )
    used = [*RESERVED_VOLUMES, *([workspace.claim] if workspace else [])]
    for path, source in files.items():
        if source.name in used:
            raise PydanticCustomError(
                HIDE_INPUT,
                f"files.{path}: a pod already has a volume {source.name!r}, as Kubeflow names it after the "
                "ConfigMap or secret; mount a copy with another name, or all its files in one folder",
            )
        used.append(source.name)
