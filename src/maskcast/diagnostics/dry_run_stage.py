"""Runs one stage on a few clips, in a process that `dry_run_pipeline` starts."""

import json
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from maskcast.dry_run_notes import write_note
from maskcast.errors import MaskcastError, one_line
from maskcast.memory import keep_freed_memory, process_memory
from maskcast.resources import limit_threads
from maskcast.runner.mlflow_client import new_client
from maskcast.runner.mlflow_run import EXPERIMENT
from maskcast.runner.run import run_stage
from maskcast.runner.stage import get_stage


def main(job_file: Path) -> int:
    """Runs the job, records its cost, and returns the exit code.

    Args:
        job_file: JSON with `stage`, `name`, `params`, `where`, `paths`, and the number of `times` to run; the
            first of several runs is for warm-up.
    """
    keep_freed_memory()
    limit_threads()
    with suppress(OSError):  # if memory runs out, the kernel kills this process and not its parent
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    job: dict[str, Any] = json.loads(job_file.read_text(encoding="utf-8"))
    stage = get_stage(job["stage"])
    try:
        if stage.tracked or any(port.name == "registration" for port in stage.ports):
            # Beside the database, because MLflow's default for files is the working directory.
            new_client().create_experiment(EXPERIMENT, artifact_location=job_file.with_name("artifacts").as_uri())
    except Exception as error:
        if "already exists" not in str(error):
            raise
    try:
        for _ in range(job["times"]):
            began = time.monotonic()
            write_note(begins=True)
            run_stage(job["stage"], job["params"], name=job["name"], where=job["where"], **job["paths"])
            write_note(took=time.monotonic() - began)
    except MaskcastError as error:
        write_note(error=one_line(error))
        return 2
    except Exception as error:
        write_note(error=f"{type(error).__name__}: {one_line(error)}")
        raise
    finally:
        write_note(memory=process_memory("VmHWM") or 0, gpu=_peak_of_gpu())
    return 0


def _peak_of_gpu() -> int:
    """Returns the peak of GPU memory that PyTorch reserved, in bytes; 0 without GPU."""
    torch = sys.modules.get("torch")
    return torch.cuda.max_memory_reserved() if torch is not None and torch.cuda.is_available() else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
