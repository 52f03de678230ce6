"""Environment variables of pods in a cluster file, and the secrets that hold some of them."""

import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator
from pydantic_core import PydanticCustomError

from maskcast.errors import MaskcastError
from maskcast.redaction import is_secret
from maskcast.runner.node_resources import NODE_RESOURCES, parse_node_resources
from maskcast.validation_errors import HIDE_INPUT
from pipelines.kubernetes_types import Variable

# Variables that maskcast, Kubeflow, Argo and torchrun set in pods, and their prefixes.
RESERVED = re.compile(
    r"KFP_|ARGO_|PET_|(MASKCAST_(DATA|DATA_CACHE|GRID|IMAGE|POD_METADATA|POD_SCHEDULING|RESUME_DIR)"
    r"|TORCHELASTIC_(RESTART_COUNT|MAX_RESTARTS|RUN_ID|USE_AGENT_STORE|ERROR_FILE|SIGNALS_TO_HANDLE)"
    r"|(LOCAL_|GROUP_|ROLE_)?(RANK|WORLD_SIZE)|ROLE_NAME|MASTER_ADDR|MASTER_PORT)$"
)


def _keys_by_variable(keys: Any) -> Any:
    """Returns a list of keys, which are the names of their variables, as a mapping."""
    if isinstance(keys, list | tuple) and all(isinstance(key, str) for key in keys):
        return {key: key for key in keys}
    return keys


def _each_key_once(keys: dict[str, str]) -> dict[str, str]:
    if twice := sorted({key for key in keys.values() if [*keys.values()].count(key) > 1}):
        raise PydanticCustomError(HIDE_INPUT, f"key {twice[0]} has two variables; keep one")
    return keys


def is_of_others(keys: Mapping[str, str]) -> bool:
    """Whether a secret's keys are not named like their variables: whoever chose them makes the secret."""
    return any(variable != key for variable, key in keys.items())


def _node_resources_are_an_object(env: dict[str, str]) -> dict[str, str]:
    try:
        parse_node_resources(env.get(NODE_RESOURCES))
    except MaskcastError as error:
        raise PydanticCustomError(HIDE_INPUT, "{error}", {"error": str(error)}) from None
    return env


def _no_secret(env: dict[str, str]) -> dict[str, str]:
    for name, value in env.items():
        if is_secret(name, value) or name == "AWS_ACCESS_KEY_ID":  # which belongs to its secret
            raise PydanticCustomError(HIDE_INPUT, f"{name} must come from a secret; list it under `secrets`")
    return env


Environment = Annotated[
    dict[Variable, str], AfterValidator(_node_resources_are_an_object), AfterValidator(_no_secret)
]
SecretKeys = Annotated[
    dict[Variable, Variable], BeforeValidator(_keys_by_variable), AfterValidator(_each_key_once)
]


def check_variables(env: Mapping[str, str], secrets: Mapping[str, Mapping[str, str]]) -> None:
    """Checks that each variable is set once, and that none is set that others set.

    Raises:
        PydanticCustomError: some variable is reserved or set twice.
    """
    names = [*env, *(variable for keys in secrets.values() for variable in keys)]
    for name in names:
        if RESERVED.match(name):
            raise PydanticCustomError(
                HIDE_INPUT,
                f"{name} is reserved for maskcast, Kubeflow and torchrun; remove it from `env` and `secrets`",
            )
        if names.count(name) > 1:
            raise PydanticCustomError(HIDE_INPUT, f"duplicate variable {name} in `env` and `secrets`; keep one")
