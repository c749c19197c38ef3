"""What a process may still have of a machine's memory, as files of `proc` and `sys` tell it."""

from pathlib import Path

import pytest

from featcache.system.host_memory import available_host_bytes

KB_AVAILABLE = 4000


def machine(root: Path, groups: str, files: dict[str, str]) -> Path:
    """A file system with 4,000 KiB available, the groups of this process and their files."""
    told = {
        "proc/meminfo": f"MemTotal: 9000 kB\nMemAvailable: {KB_AVAILABLE} kB\n",
        "proc/self/cgroup": groups,
    }
    for name, text in {**told, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def unified(name: str, *, limit: str, used: int, cache: int = 0) -> dict[str, str]:
    """The files of a group of version 2."""
    group = f"sys/fs/cgroup/{name}"
    stat = f"anon 7\ninactive_file {cache}\nactive_file 0\n"
    return {f"{group}/memory.max": limit, f"{group}/memory.current": str(used), f"{group}/memory.stat": stat}


def test_without_a_limit_it_is_what_the_machine_has(tmp_path: Path) -> None:
    files = unified("user/job", limit="max\n", used=10)
    assert available_host_bytes(machine(tmp_path, "0::/user/job\n", files)) == 1024 * KB_AVAILABLE


@pytest.mark.parametrize(("cache", "left"), [(0, 600), (300, 900)])
def test_the_page_cache_of_a_group_can_be_had(tmp_path: Path, cache: int, left: int) -> None:
    files = unified("job", limit="1000\n", used=400, cache=cache)
    assert available_host_bytes(machine(tmp_path, "0::/job\n", files)) == left


def test_the_narrowest_of_nested_groups_decides(tmp_path: Path) -> None:
    files = unified("slurm/job", limit="1000", used=900) | unified("slurm/job/step", limit="max", used=1)
    assert available_host_bytes(machine(tmp_path, "0::/slurm/job/step\n", files)) == 100


def test_in_a_container_the_group_on_top_is_its_own(tmp_path: Path) -> None:
    """Its name in `proc` is the host's, and not below the mount."""
    root = machine(tmp_path, "0::/docker/0123\n", unified("", limit="5000", used=4000))
    assert available_host_bytes(root) == 1000


def test_groups_of_the_first_version(tmp_path: Path) -> None:
    group = "sys/fs/cgroup/memory/job"
    files = {
        f"{group}/memory.limit_in_bytes": "2000",
        f"{group}/memory.usage_in_bytes": "1500",
        f"{group}/memory.stat": "total_inactive_file 200\ntotal_active_file 100\n",
    }
    root = machine(tmp_path, "8:pids:/job\n4:memory:/job\n0::/\n", files)
    assert available_host_bytes(root) == 800


def test_a_group_that_has_too_much_leaves_nothing(tmp_path: Path) -> None:
    assert available_host_bytes(machine(tmp_path, "0::/job\n", unified("job", limit="10", used=40))) == 0


def test_a_system_that_does_not_say_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 1 kB\n")
    with pytest.raises(OSError, match="does not say"):
        available_host_bytes(tmp_path)
