"""How much memory this process may use, by what the system's files say."""

from pathlib import Path

from actors.relay.memory import memory_bytes


def write(root: Path, path: str, text: str) -> None:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def test_without_limits_it_is_what_the_machine_has(tmp_path: Path) -> None:
    machine = memory_bytes(tmp_path)
    assert machine >= 2**28
    write(tmp_path, "proc/self/cgroup", "0::/a/b\n")
    write(tmp_path, "sys/fs/cgroup/a/b/memory.max", "max\n")
    assert memory_bytes(tmp_path) == machine


def test_the_least_limit_up_the_hierarchy_counts(tmp_path: Path) -> None:
    write(tmp_path, "proc/self/cgroup", "0::/pod/container\n")
    write(tmp_path, "sys/fs/cgroup/pod/memory.max", f"{2**27}\n")
    write(tmp_path, "sys/fs/cgroup/pod/container/memory.max", "max\n")
    assert memory_bytes(tmp_path) == 2**27
    write(tmp_path, "sys/fs/cgroup/pod/container/memory.max", f"{2**26}\n")
    assert memory_bytes(tmp_path) == 2**26


def test_a_container_that_sees_the_path_of_its_host_finds_its_own_group(tmp_path: Path) -> None:
    write(tmp_path, "proc/self/cgroup", "0::/../../system.slice/host.scope\n")
    write(tmp_path, "sys/fs/cgroup/memory.max", f"{2**27}\n")
    assert memory_bytes(tmp_path) == 2**27


def test_version_1_has_a_hierarchy_for_memory(tmp_path: Path) -> None:
    write(tmp_path, "proc/self/cgroup", "5:cpu,cpuacct:/c\n4:memory:/docker/x\n")
    write(tmp_path, "sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes", f"{2**27}\n")
    write(tmp_path, "sys/fs/cgroup/memory/memory.limit_in_bytes", f"{2**63 - 4096}\n")
    assert memory_bytes(tmp_path) == 2**27


def test_this_machine_has_an_answer() -> None:
    assert memory_bytes() >= 2**26
