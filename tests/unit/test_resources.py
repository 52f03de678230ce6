"""How many processors a process may use: its affinity and the quota of its container."""

import os
import sys
from pathlib import Path

import pytest

from maskcast import resources

ALL = len(os.sched_getaffinity(0))


@pytest.fixture
def cgroups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(resources, "CGROUP", tmp_path)
    monkeypatch.setattr(resources, "_limited", False)
    for name in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, "")  # so that what a test sets is undone
        monkeypatch.delenv(name)
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 32)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(32)))
    monkeypatch.setattr(resources, "_groups", lambda: ["0::/", "1:cpu,cpuacct:/kubepods/pod1"])
    return tmp_path


def version_2(folder: Path, quota: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cpu.max").write_text(f"{quota}\n")


def version_1(folder: Path, quota: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cpu.cfs_quota_us").write_text(f"{quota}\n")
    (folder / "cpu.cfs_period_us").write_text("100000\n")


@pytest.mark.parametrize(
    ("quota", "processors_"), [("max 100000", 32), ("100000 100000", 1), ("150000 100000", 2), ("5000 100000", 1)]
)
def test_a_quota_of_version_2(cgroups: Path, quota: str, processors_: int) -> None:
    version_2(cgroups, quota)
    assert resources.num_cpus() == processors_


def test_a_quota_of_version_1_at_the_root_of_a_container_or_below(cgroups: Path) -> None:
    version_1(cgroups / "cpu,cpuacct", -1)
    assert resources.num_cpus() == 32
    version_1(cgroups / "cpu,cpuacct/kubepods", 400000)
    assert resources.num_cpus() == 4
    version_1(cgroups / "cpu,cpuacct/kubepods/pod1", 200000)
    assert resources.num_cpus() == 2
    version_1(cgroups / "cpu", 100000)
    assert resources.num_cpus() == 2  # `cpu` is no place of this group's, whose controllers go by both names


def test_without_cgroups_or_with_odd_ones_the_affinity_counts(
    cgroups: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert resources.num_cpus() == 32
    version_2(cgroups, "nonsense")
    assert resources.num_cpus() == 32
    monkeypatch.setattr(resources, "_groups", list)
    assert resources.num_cpus() == 32


def test_threads_are_limited_by_a_quota_and_by_nothing_else(
    cgroups: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resources.limit_threads()
    assert "OMP_NUM_THREADS" not in os.environ
    assert resources.threads_per_process(3) == 10
    version_2(cgroups, "200000 100000")
    limited: list[int] = []
    monkeypatch.setattr("torch.set_num_threads", limited.append)
    resources.limit_threads()
    assert (os.environ["OMP_NUM_THREADS"], limited) == ("2", [2])
    assert (
        resources.threads_per_process(1),
        resources.threads_per_process(2),
        resources.threads_per_process(8),
    ) == (2, 1, 1)


@pytest.mark.parametrize(
    ("running", "quota", "threads", "policy"),
    [
        (1, "max 100000", None, None),  # this process alone
        (2, "max 100000", None, "PASSIVE"),  # one other on the 32 processors that 32 threads need
        (2, "max 100000", "31", None),
        (29, "400000 100000", None, None),  # 28 others leave four of 32 processors
        (30, "400000 100000", None, "PASSIVE"),
    ],
)
def test_threads_sleep_where_other_programs_run(
    cgroups: Path,
    monkeypatch: pytest.MonkeyPatch,
    running: int,
    quota: str,
    threads: str | None,
    policy: str | None,
) -> None:
    monkeypatch.delitem(sys.modules, "torch", raising=False)  # which has read the variables when it is loaded
    if threads:
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
    monkeypatch.setattr(resources, "STATISTICS", cgroups / "stat")
    (cgroups / "stat").write_text(f"cpu  1 2 3\nprocs_running {running}\nprocs_blocked 0\n")
    version_2(cgroups, quota)
    resources.limit_threads()
    assert os.environ.get("OMP_WAIT_POLICY") == policy


def test_a_program_that_pauses_leaves_the_machine_idle(cgroups: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    others = iter([1, 1, 1, 0])
    monkeypatch.setattr(resources, "_num_others", lambda: next(others))
    resources.limit_threads()
    assert "OMP_WAIT_POLICY" not in os.environ


def test_how_the_user_lets_threads_wait_holds(cgroups: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setattr(resources, "_is_busy", lambda: True)
    monkeypatch.setenv("GOMP_SPINCOUNT", "100")
    resources.limit_threads()
    assert "OMP_WAIT_POLICY" not in os.environ


def test_without_the_statistics_of_linux_no_machine_is_busy(
    cgroups: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resources, "STATISTICS", cgroups / "missing")
    assert not resources._is_busy()


def test_what_the_user_has_set_holds(cgroups: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version_2(cgroups, "200000 100000")
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    resources.limit_threads()
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert resources.threads_per_process(2) is None
