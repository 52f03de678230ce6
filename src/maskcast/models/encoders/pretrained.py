"""Published pretrained weights, as ``encoder_weights`` names them.

They come from the Hugging Face hub through its own cache, or from a local file or folder. Only safetensors are
read, because loading pickle can run code. ``HF_HOME``, ``HF_ENDPOINT``, ``HF_TOKEN`` and ``HF_HUB_OFFLINE`` have
their usual meanings.
"""

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from maskcast.digest import sha256_of
from maskcast.errors import MaskcastError, first_line
from maskcast.models.base import WEIGHTS
from maskcast.models.encoders.smp import hub_location, library, load_pretrained
from maskcast.models.encoders.weights import HUB, PRETRAINED
from maskcast.progress import say
from maskcast.reading import parsing, read_json

KEY = "model.encoder_weights"
TIMEOUT_S = 5.0  # seconds to wait for the hub where its answer is optional


@dataclass(frozen=True)
class Pretrained:
    """Weights that an encoder started from.

    Attributes:
        origin: ``hf-hub:<owner>/<name>@<commit>``, or the local file.
        sha256: of the file.
        colours: mean and std per channel, of frames scaled to [0, 1], that the weights were trained with; None if
            no config beside them tells it.
    """

    origin: str
    sha256: str
    colours: tuple[list[float], list[float]] | None

    @property
    def record(self) -> dict[str, str]:
        """The values that a model's description records."""
        return {"origin": self.origin, "sha256": self.sha256}

    def renamed(self, fingerprint: str) -> str:
        """Returns a fingerprint that includes the digest of these weights, if their name may later mean others."""
        return f"{fingerprint}-{self.sha256[:16]}" if self.origin.startswith(HUB) else fingerprint


def start_from(encoder: nn.Module, name: str, weights: str, sha256: str | None) -> Pretrained:
    """Loads all pretrained weights into an encoder of segmentation-models-pytorch; a part is an error.

    Args:
        encoder: built by the library.
        name: its name in the library, ``tu-...`` for one of timm's.
        weights: ``pretrained``, ``hf-hub:<owner>/<name>@<revision>``, or a local file or folder.
        sha256: digest that the file must have, if given.

    Raises:
        MaskcastError: if there are no such weights, the hub cannot be reached, or the file is not safetensors, has
            another digest or belongs to another encoder.
    """
    file, config, origin = _find(name, weights)
    digest = sha256_of(file)
    if sha256 is not None and digest != sha256.lower():
        raise MaskcastError(
            f"{origin}: sha256 of {file.name} is {digest}, expected {sha256} (model.encoder_sha256); "
            "fetch the file again, or fix the key"
        )
    load_pretrained(encoder, name, file)
    say(f"encoder {name!r} starts from {origin} (sha256 {digest})")
    return Pretrained(origin, digest, None if config is None else _colour_statistics(config))


def pin_revision(name: str) -> str:
    """Returns the place on the hub of the library's weights for an encoder, pinned to a commit.

    Raises:
        MaskcastError: if the libraries are not installed, there are no such weights, or the hub does not answer.
    """
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url, try_to_load_from_cache

    library("smp_unet")
    repo, _, revision = hub_location(name).partition("@")
    cached = try_to_load_from_cache(repo, WEIGHTS, revision=revision)
    if isinstance(cached, str):
        return f"{HUB}{repo}@{_commit(Path(cached))}"
    try:
        # Asked once, with a short timeout: without a network, a download would retry for half a minute.
        metadata = get_hf_file_metadata(hf_hub_url(repo, WEIGHTS, revision=revision), timeout=TIMEOUT_S)
    except Exception as error:  # its transport errors have no public base class
        reason = (
            "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else f"{constants.ENDPOINT}: {first_line(error)}"
        )
        raise MaskcastError(f"{HUB}{repo}@{revision}: the hub cannot be reached ({reason})") from None
    return f"{HUB}{repo}@{metadata.commit_hash}"


def _commit(file: Path) -> str:
    """Returns the commit of a file in the cache, which lies below ``snapshots/<commit>``."""
    return file.parent.name


def _find(name: str, weights: str) -> tuple[Path, Path | None, str]:
    """Returns the file of weights, the config beside it (or None), and their origin."""
    if weights != PRETRAINED and not weights.startswith(HUB):
        return _local(Path(weights))
    location = hub_location(name) if weights == PRETRAINED else weights.removeprefix(HUB)
    repo, _, revision = location.partition("@")
    file = _download(repo, revision, WEIGHTS)
    assert file is not None
    commit = _commit(file)
    if commit != revision:
        say(f"{HUB}{repo}: {revision!r} is commit {commit}; to pin it, set {KEY} to {HUB}{repo}@{commit}")
    return file, _download(repo, commit, "config.json"), f"{HUB}{repo}@{commit}"


def _local(path: Path) -> tuple[Path, Path | None, str]:
    if not path.exists():
        raise MaskcastError(
            f"{KEY} {path}: not found; use {PRETRAINED}, "
            f"{HUB}<owner>/<name>@<revision>, or the path of a safetensors file"
        )
    if not path.is_dir():
        return path, None, str(path)
    file, config = path / WEIGHTS, path / "config.json"
    if not file.is_file():
        raise MaskcastError(
            f"{KEY} {path}: {WEIGHTS} not found in the folder; use a safetensors file, or fetch it again"
        )
    return file, config if config.is_file() else None, str(file)


def _download(repo: str, revision: str, name: str) -> Path | None:
    """Returns a file of the hub, from the cache if possible; None for a ``config.json`` that does not exist.

    Raises:
        MaskcastError: if it is not available.
    """
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RemoteEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    address = f"{HUB}{repo}@{revision}"
    try:
        return Path(hf_hub_download(repo, name, revision=revision))
    except GatedRepoError:
        reason = "access is restricted; accept the terms on its page and set HF_TOKEN"
    except RepositoryNotFoundError:
        reason = f"repository not found at {constants.ENDPOINT}, or private; fix {KEY}, or set HF_TOKEN"
    except RevisionNotFoundError:
        reason = f"revision not found; fix {KEY}"
    except RemoteEntryNotFoundError:
        if name != WEIGHTS:
            return None
        reason = f"{WEIGHTS} not found, and pickle is not supported, as it runs code; use other weights"
    except LocalEntryNotFoundError:
        offline = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else f"no answer from {constants.ENDPOINT}"
        reason = (
            f"{name} is not in the cache {constants.HF_HUB_CACHE}, and there is no network access ({offline}); "
            f"on a machine with access, run `hf download {repo} --revision {revision} --local-dir FOLDER`, "
            f"copy FOLDER here and set {KEY} to it"
        )
    except (HfHubHTTPError, OSError) as error:
        reason = f"{' '.join(str(error).split())}; try again, or give a local file ({KEY})"
    raise MaskcastError(f"{address}: {reason}")


def _colour_statistics(config: Path) -> tuple[list[float], list[float]] | None:
    """Returns mean and std from the config of timm's or segmentation-models-pytorch's weights.

    Raises:
        MaskcastError: if the file is damaged, or the weights are not for RGB frames.
    """
    content = read_json(config, "config of weights", "fetch it again")
    with parsing(config, "a config of weights", "fetch it again"):
        about = content.get("pretrained_cfg", content)
        if "mean" not in about or "std" not in about:
            return None
        most = float((about.get("input_range") or [0, 1])[1])
        mean, std = ([float(value) / most for value in about[key]] for key in ("mean", "std"))
        space = about.get("input_space", "RGB")
    if space != "RGB" or len(mean) != 3 or len(std) != 3:
        raise MaskcastError(
            f"{config}: the weights expect {space} frames of {len(mean)} channels, not supported; use others"
        )
    return mean, std
