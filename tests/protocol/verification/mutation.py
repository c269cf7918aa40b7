"""The mutation check: changes the protocol one place at a time, and expects a test to fail.

    python -m tests.protocol.verification.mutation                  everything, in some minutes
    python -m tests.protocol.verification.mutation --table-only     the lifecycle table, in seconds
    python -m tests.protocol.verification.mutation --only roster    what contains this

Two kinds of changes:

- every cell of the lifecycle table gets every other pair of target and action;
- every cell of the routing table, and every comparison, boolean operator, condition and compared
  constant in the files of `TESTS` below gets its neighbours, in a copy of the project.

A change that no test notices is a survivor. Exit code 1 if there is one that `EXPLAINED` does not
explain: then a test is missing, or the code says more than it needs to.
"""

import argparse
import ast
import contextlib
import copy
import itertools
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Final
from unittest import mock

import attrs

from protocol.mesh.routing import Route
from tests import ROOT

PARTS: Final = (
    "protocol",
    "actors",
    "agi_diy_relay",
    "tests",
    "relay.py",
    "pyproject.toml",
)  # what tests import

TESTS: Final = {
    "protocol/mesh/routing.py": ("protocol.mesh.test_routing", "protocol.mesh.test_mesh"),
    "protocol/mesh/lifecycle.py": (
        "protocol.mesh.test_lifecycle",
        "protocol.verification.test_mutants",
        "protocol.mesh.test_mesh",
    ),
    "protocol/mesh/roster.py": (
        "protocol.mesh.test_roster",
        "protocol.verification.test_mutants",
        "protocol.mesh.test_mesh",
        "protocol.mesh.test_lagging",
        "protocol.mesh.test_wishes",
        "protocol.mesh.test_visiting",
        "protocol.mesh.test_echoes",
    ),
    "protocol/mesh/announcing.py": (
        "protocol.mesh.test_announcing",
        "protocol.mesh.test_mesh",
        "protocol.verification.test_mutants",
    ),
    "protocol/mesh/gate.py": (
        "protocol.mesh.test_mesh",
        "protocol.mesh.test_announcing",
        "protocol.mesh.test_granting",
        "protocol.mesh.test_claims",
        "protocol.mesh.test_quanta",
        "protocol.verification.test_mutants",
        "actors.relay.test_peer",
        "actors.relay.test_comebacks",
        "actors.relay.test_comeback_attacks",
    ),
    "protocol/mesh/commands.py": ("protocol.mesh.test_commands",),
    "protocol/mesh/flow.py": ("protocol.mesh.test_flow",),
    "protocol/mesh/visiting.py": ("protocol.mesh.test_visiting",),
    "protocol/mesh/visitors.py": ("protocol.mesh.test_visiting",),
    "protocol/mesh/announcer.py": (
        "protocol.mesh.test_announcing",
        "protocol.mesh.test_wishes",
        "protocol.mesh.test_mesh",
        "protocol.mesh.test_granting",
        "protocol.mesh.test_claims",
        "protocol.verification.test_mutants",
    ),
    "protocol/mesh/arrays.py": ("protocol.mesh.test_mesh", "protocol.mesh.test_announcing"),
    "protocol/mesh/history.py": ("protocol.mesh.test_history",),
    "protocol/mesh/rounds.py": ("protocol.mesh.test_rounds", "protocol.mesh.test_history"),
    "protocol/mesh/numbers.py": ("protocol.mesh.test_recalling", "actors.relay.test_comebacks"),
    "protocol/mesh/recalling.py": ("protocol.mesh.test_recalling",),
    "protocol/mesh/resuming.py": (
        "actors.relay.test_comebacks",
        "actors.relay.test_comeback_attacks",
    ),
    "protocol/mesh/returning.py": (
        "actors.relay.test_comebacks",
        "actors.relay.test_comeback_attacks",
        "actors.relay.test_lagging",
    ),
    "protocol/mesh/rating.py": ("protocol.mesh.test_mesh", "protocol.verification.test_mutants"),
    "protocol/mesh/mesh.py": (
        "protocol.mesh.test_mesh",
        "protocol.mesh.test_claims",
        "protocol.mesh.test_granting",
        "protocol.verification.test_mutants",
        "protocol.mesh.test_roster",
        "protocol.mesh.test_lagging",
        "protocol.mesh.test_echoes",
        "protocol.mesh.test_directory",
        "protocol.mesh.test_wishes",
        "protocol.mesh.test_quanta",
        "protocol.mesh.test_flow",
        "protocol.mesh.test_commands",
        "protocol.mesh.test_visiting",
    ),
    "protocol/mesh/local.py": (
        "protocol.mesh.test_mesh",
        "protocol.mesh.test_claims",
        "protocol.verification.test_mutants",
        "protocol.mesh.test_flow",
        "protocol.mesh.test_announcing",
        "actors.relay.test_comebacks",
    ),
    "protocol/mesh/granting.py": ("protocol.mesh.test_granting",),
    "protocol/mesh/audiences.py": (
        "protocol.mesh.test_wishes",
        "protocol.mesh.test_lagging",
        "protocol.mesh.test_visiting",
    ),
    "protocol/mesh/wishes.py": ("protocol.mesh.test_wishes", "protocol.mesh.test_visiting"),
    "protocol/mesh/echoes.py": ("protocol.mesh.test_echoes",),
    "protocol/mesh/refreshing.py": ("protocol.mesh.test_refreshing",),
    "protocol/mesh/lagging.py": ("protocol.mesh.test_lagging",),
    "protocol/mesh/turns.py": ("protocol.mesh.test_lagging",),
    "protocol/mesh/connection.py": (
        "protocol.mesh.test_claims",
        "protocol.mesh.test_granting",
        "protocol.mesh.test_mesh",
        "protocol.verification.test_mutants",
    ),
    "protocol/mesh/answers.py": (
        "protocol.mesh.test_claims",
        "protocol.mesh.test_echoes",
        "protocol.mesh.test_recalling",
        "protocol.mesh.test_mesh",
        "protocol.mesh.test_granting",
        "protocol.verification.test_mutants",
    ),
    "protocol/claims.py": ("protocol.mesh.test_claims",),
    "protocol/grants.py": ("protocol.test_grants", "protocol.mesh.test_granting"),
    "protocol/mesh/texts.py": (
        "protocol.mesh.test_texts",
        "protocol.mesh.test_granting",
        "protocol.verification.test_mutants",
        "protocol.mesh.test_mesh",
    ),
    "protocol/refusals.py": ("protocol.mesh.test_mesh", "protocol.verification.test_mutants"),
}
"""By file: the tests that must notice, most likely first."""

FUNCTIONS: Final = {"protocol/mesh/lifecycle.py": ("deadline", "expire")}
"""Where only these functions are changed: the rest of the file is the table and its printing."""

ENDLESS_S: Final = 30
"""Tests that have used this much CPU are in an endless loop, which a change may make."""

EXPLAINED: Final[dict[str, str]] = {
    "protocol/mesh/rating.py: within: due - at <= self._burst_s -> due - at < self._burst_s": (
        "exactly at the bound the careful formula of `within` lets as many pass, silently"
    ),
    "protocol/mesh/gate.py: expire: connection.heard_at > life.since"
    " -> connection.heard_at >= life.since": (
        "a word at `since` itself is known to the record: PRESENT stays as it is, CONNECTING "
        "ignores it, and STALE becomes PRESENT only to be STALE again in the same `expire`"
    ),
    "protocol/mesh/gate.py: _schedule: due < connection.deadline_at"
    " -> due <= connection.deadline_at": (
        "an entry that stands twice in the heap is skipped the second time; only memory differs"
    ),
    "protocol/mesh/recalling.py: settle: len(fresh) >= self._messages_max"
    " -> len(fresh) > self._messages_max": "just so many push all older ones out anyway",
    "protocol/mesh/history.py: _count: len(own) < len(streams)"
    " -> len(own) <= len(streams)": "either of the two is gone through; the result is the same",
    "protocol/mesh/history.py: _count: len(own) < len(streams)"
    " -> len(own) >= len(streams)": "either of the two is gone through; the result is the same",
    "protocol/mesh/history.py: _extend_run: at > self._run_until"
    " -> at >= self._run_until": "a run may end a moment sooner",
    "protocol/mesh/history.py: _extend_run: run.bytes > self._run_bytes_max"
    " -> run.bytes >= self._run_bytes_max": "a run may end a byte sooner",
    "protocol/mesh/history.py: _extend_run: self.bytes > self._bytes_max"
    " -> self.bytes >= self._bytes_max": "then `_drop` finds nothing that must go",
    "protocol/mesh/history.py: _crc_of_dropped: round.number > number"
    " -> round.number >= number": "this number is of a round that is not plain, and those here are",
    "protocol/mesh/history.py: _last_of_own: delivery.count <= skipped"
    " -> delivery.count < skipped": "nobody asks what came before the first message that counts",
}
"""Survivors that change nothing, by description: why."""


@attrs.frozen
class Mutant:
    """One change: the file, the line, what stood there and what stands there now.

    `text`: the whole function (or table) with it. `write`: makes the whole file with it.
    """

    file: str
    function: str
    line: int
    was: str
    now: str
    text: str
    write: Callable[[], str] = attrs.field(eq=False, repr=False)

    @property
    def name(self) -> str:
        """Without the line number, so that an explanation outlives edits elsewhere."""
        return f"{self.file}: {self.function}: {self.was} -> {self.now}"


# The lifecycle table ------------------------------------------------------------------------------


def table_survivors() -> tuple[int, int, list[str]]:
    """Changes tried, changes of behaviour among them, and the changes that break no law.

    A change of behaviour must break a law that does not just repeat the table.
    """
    from protocol.mesh import lifecycle  # noqa: PLC0415 (a copy of it is imported later)
    from tests.protocol.mesh import test_lifecycle as laws  # noqa: PLC0415

    original = lifecycle.TABLE
    tried = of_behaviour = 0
    survivors = []
    for cell, edge in tuple(laws.mutants()):
        behaves = laws.outcome(cell, edge) != laws.outcome(cell, original[cell])
        table = MappingProxyType({**original, cell: edge})
        with mock.patch.object(lifecycle, "TABLE", table):
            if not laws.some_law_fails(laws.LAWS_OF_BEHAVIOUR if behaves else laws.LAWS):
                state, event = cell
                survivors.append(
                    f"lifecycle table: ({state.name}, {event.__name__}) -> "
                    f"{edge.target.name}, {edge.action.__name__}"
                )
        tried += 1
        of_behaviour += behaves
    return tried, of_behaviour, survivors


# Changes of the source ----------------------------------------------------------------------------

NEIGHBOURS: Final[dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}


def changes(node: ast.expr, is_condition: bool) -> Iterator[ast.expr]:
    """What may stand in the place of this expression."""
    match node:
        case ast.Compare(ops=ops):
            for at, op in enumerate(ops):
                for other in NEIGHBOURS[type(op)]:
                    changed = copy.deepcopy(node)
                    changed.ops[at] = other()
                    yield changed
            operands = [node.left, *node.comparators]
            for at, operand in enumerate(operands):
                if isinstance(operand, ast.Constant) and isinstance(operand.value, int | float):
                    left, *comparators = copy.deepcopy(operands)
                    constant = ast.Constant(operand.value + 1)
                    if at == 0:
                        left = constant
                    else:
                        comparators[at - 1] = constant
                    yield ast.Compare(left, ops, comparators)
        case ast.BoolOp(op=op, values=values):
            yield ast.BoolOp(ast.Or() if isinstance(op, ast.And) else ast.And(), values)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield operand
        case ast.Attribute(value=ast.Name("Route"), attr=route):
            for another in Route:
                if another.name != route:
                    yield ast.Attribute(ast.Name("Route"), another.name)
        case ast.Name() | ast.Attribute() | ast.Call() if is_condition:
            yield ast.UnaryOp(ast.Not(), node)


@attrs.frozen
class Place:
    """Where an expression stands: in a field of `parent`, at an index if that is a list."""

    parent: ast.AST
    field: str
    index: int | None

    @property
    def is_condition(self) -> bool:
        return self.field == "test"

    def put(self, node: ast.expr) -> None:
        if self.index is None:
            setattr(self.parent, self.field, node)
        else:
            getattr(self.parent, self.field)[self.index] = node


def places(root: ast.AST) -> Iterator[tuple[Place, ast.expr]]:
    """Every expression below `root`, with its place."""
    for parent in ast.walk(root):
        for field, value in ast.iter_fields(parent):
            if isinstance(value, ast.expr):
                yield Place(parent, field, None), value
            elif isinstance(value, list):
                for index, node in enumerate(value):
                    if isinstance(node, ast.expr):
                        yield Place(parent, field, index), node


def mutants(file: str) -> Iterator[Mutant]:
    """Every change of one file."""
    tree = ast.parse((ROOT / file).read_text())
    for name, root in _roots(tree, file):
        for place, node in tuple(places(root)):
            for changed in changes(node, place.is_condition):
                place.put(changed)
                text = ast.unparse(root)
                place.put(node)
                was, now = ast.unparse(node), ast.unparse(changed)
                if was.startswith("Route."):  # a cell of the table: name its row
                    was = _row(place) + was
                write = partial(_written, tree, place, node, changed)
                yield Mutant(file, name, node.lineno, was, now, text, write)


def _written(tree: ast.Module, place: Place, node: ast.expr, changed: ast.expr) -> str:
    place.put(changed)
    source = ast.unparse(ast.fix_missing_locations(tree))
    place.put(node)
    return source


def _roots(tree: ast.Module, file: str) -> Iterator[tuple[str, ast.AST]]:
    """What is changed, by name: the routing table, and functions."""
    functions = FUNCTIONS.get(file)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and (functions is None or node.name in functions):
            yield node.name, node
        elif isinstance(node, ast.AnnAssign) and file == "protocol/mesh/routing.py":
            yield ast.unparse(node.target), node


def _row(place: Place) -> str:
    if isinstance(place.parent, ast.Dict) and place.index is not None:
        return f"{ast.unparse(place.parent.keys[place.index])}: "  # type: ignore[arg-type]
    return ""


# Running the tests on a copy ----------------------------------------------------------------------


def warm_up() -> None:
    """Import what tests import beside the project, once for all the processes forked from here."""
    import anyio.from_thread  # noqa: F401, PLC0415
    import bedrock_agentcore.runtime  # noqa: F401, PLC0415
    import hypothesis.strategies  # noqa: F401, PLC0415
    import pytest  # noqa: F401, PLC0415
    import structlog  # noqa: F401, PLC0415
    import uvicorn  # noqa: F401, PLC0415
    import websockets.asyncio.client  # noqa: F401, PLC0415


def is_passing(project: Path, tests: Sequence[str], *options: str, is_quiet: bool = True) -> bool:
    """Run these tests on a copy of the project, in a process of its own."""
    files = [
        path
        for path in (f"tests/{test.replace('.', '/')}.py" for test in tests)
        if (project / path).exists()
    ]
    sys.stdout.flush()
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        return os.waitstatus_to_exitcode(status) in (0, 5)  # 5: no test was selected
    code = 70
    try:
        signal.setitimer(signal.ITIMER_PROF, ENDLESS_S)  # of CPU: the machine may be busy
        signal.alarm(20 * ENDLESS_S)  # a change may also make it wait for ever
        os.chdir(project)
        for name in tuple(sys.modules):
            if name.split(".")[0] in ("protocol", "actors", "agi_diy_relay", "relay", "tests"):
                del sys.modules[name]
        sys.path[:] = [str(project), *(p for p in sys.path if p and Path(p) != ROOT)]
        if is_quiet:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 1)
            os.dup2(nowhere, 2)
        import pytest  # noqa: PLC0415

        fixed = ["-x", "-q", "-p", "no:cacheprovider", "--hypothesis-profile=ci"]
        # Some plugins were imported by `warm_up`, and need no rewriting.
        fixed += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
        code = int(pytest.main([*fixed, *options, *files]))
        copied = sys.modules["protocol"].__path__[0]
        assert Path(copied).parent == project, "the tests import another copy of the protocol"
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def survives(project: Path, mutant: Mutant) -> bool:
    """No test notices this change. Tests of examples come first; they are quicker."""
    target = project / mutant.file
    original = target.read_text()
    target.write_text(mutant.write())
    try:
        return all(
            is_passing(project, TESTS[mutant.file], "-m", chosen)
            for chosen in ("not hypothesis", "hypothesis")
        )
    finally:
        target.write_text(original)


@contextlib.contextmanager
def copied_project() -> Iterator[Path]:
    """A copy of what the tests need, without compiled files: changes come within one second."""
    sys.dont_write_bytecode = True
    with tempfile.TemporaryDirectory(prefix="mutation-") as folder:
        project = Path(folder).resolve()
        for part in PARTS:
            if (ROOT / part).is_dir():
                ignored = shutil.ignore_patterns("__pycache__")
                shutil.copytree(ROOT / part, project / part, ignore=ignored)
            else:
                shutil.copy(ROOT / part, project / part)
        yield project


# The command --------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 if every survivor is explained."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.protocol.verification.mutation", description=__doc__
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--table-only", action="store_true", help="only the lifecycle table")
    parser.add_argument("--only", default="", metavar="TEXT", help="only changes that contain it")
    parser.add_argument("--list", action="store_true", help="list the changes, run nothing")
    options = parser.parse_args(arguments)
    chosen = [m for file in TESTS for m in mutants(file) if options.only in m.name]
    if options.list:
        sys.stdout.writelines(f"{mutant.file}:{mutant.line}: {mutant.name}\n" for mutant in chosen)
        return 0
    survivors: list[str] = []
    began = time.monotonic()
    if not options.only:
        tried, of_behaviour, survivors = table_survivors()
        sys.stdout.write(
            f"lifecycle table: {tried} changes, {tried - len(survivors)} noticed "
            f"({of_behaviour} change behaviour) in {time.monotonic() - began:.1f} s\n"
        )
    if not options.table_only:
        survivors += source_survivors(chosen)
    unexplained = [name for name in survivors if name not in EXPLAINED]
    for name in survivors:
        why = EXPLAINED.get(name, "UNEXPLAINED: a test is missing, or the code says too much")
        sys.stdout.write(f"survivor: {name}\n    {why}\n")
    sys.stdout.write(
        f"{len(survivors)} survivors, {len(unexplained)} unexplained, "
        f"in {time.monotonic() - began:.0f} s\n"
    )
    return 1 if unexplained else 0


def source_survivors(chosen: Sequence[Mutant]) -> list[str]:
    """Try each of these changes. The names of those that no test notices."""
    warm_up()
    survivors: list[str] = []
    with copied_project() as project:
        for file in {mutant.file for mutant in chosen}:
            for chosen_tests in ("not hypothesis", "hypothesis"):
                if not is_passing(project, TESTS[file], "-m", chosen_tests, is_quiet=False):
                    raise SystemExit(f"the tests of {file} fail without any change")
        for file, group in itertools.groupby(chosen, key=lambda mutant: mutant.file):
            tried = noticed = 0
            for mutant in group:
                tried += 1
                if sys.stderr.isatty():
                    sys.stderr.write(f"\r{tried} {mutant.name[:90]:<90}\r")
                if survives(project, mutant):
                    survivors.append(mutant.name)
                    line = (ROOT / file).read_text().splitlines()[mutant.line - 1].strip()
                    sys.stdout.write(f"{file}:{mutant.line}: {line}\n    {mutant.name}\n")
                    sys.stdout.flush()
                else:
                    noticed += 1
            sys.stdout.write(f"{file}: {tried} changes, {noticed} noticed\n")
            sys.stdout.flush()
    return survivors


if __name__ == "__main__":
    sys.exit(main())
