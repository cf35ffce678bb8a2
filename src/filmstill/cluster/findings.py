"""What `cluster check`'s job found on its nodes: as a table, and a line for everything that is to be fixed.

Notable: clocks are compared by what each side can have seen of the other, so that a slow file system is not taken for
a wrong clock.
"""

from dataclasses import dataclass, field
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Table

from filmstill.cluster.check_node import NUMBERS, Report, Software
from filmstill.cluster.config import Resources

SKEW = 2.0  # s that a node's clock may differ: files' times and munge's credentials are compared across hosts


@dataclass(frozen=True)
class Greeting:
    """The first sign of a process: its shell's, before python starts. Times in s since the epoch."""

    node: str
    login: float | None  # the login's clock as that node read it from a file; None: it does not see the file
    there: float  # the node's own clock then
    shown: float  # the login's clock when the greeting showed up there

    def ahead(self) -> float:
        """Seconds that the node's clock is ahead of the login's, at least (negative: behind)."""
        least, most = self.there - self.shown, self.there - (self.login or 0.0)
        return max(least, min(most, 0.0))


@dataclass
class Findings:
    """What the job left in its folder, by process."""

    folder: Path
    nodes: list[str]  # that SLURM gave the job
    greetings: dict[int, Greeting] = field(default_factory=dict)
    reports: dict[int, Report] = field(default_factory=dict)
    said: dict[int, str] = field(default_factory=dict)  # the last line on stderr


def table(title: str, found: Findings) -> Table:
    """A row a node."""
    shown = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    for heading in ("node", "host", "GPUs", "torch", "CUDA", "python", "clock s", "scratch"):
        shown.add_column(heading)
    for node in found.nodes:
        ranks = [rank for rank, greeting in found.greetings.items() if greeting.node == node]
        report = next((found.reports[rank] for rank in ranks if rank in found.reports), None)
        clock = f"{found.greetings[ranks[0]].ahead():+.1f}" if ranks else "?"
        if report is None:
            shown.add_row(node, "?", "?", "?", "?", "?", clock, "seen" if ranks else "NOT SEEN")
            continue
        kinds = ", ".join(f"{report.gpus.count(kind)} x {kind}" for kind in dict.fromkeys(report.gpus)) or "none"
        software = report.software
        seen = "seen" if report.sees_login and not _hidden(report, found) else "NOT SEEN"
        shown.add_row(
            node, report.host, kinds, software.torch, software.cuda or "none", software.python, clock, seen
        )  # fmt: skip
    return shown


def speed(found: Findings) -> str:
    """The all-reduce in a sentence."""
    ended = [report for report in found.reports.values() if report.backend]
    if not ended:
        return "all-reduce: did not end"
    slowest = max(ended, key=lambda report: report.seconds)
    return (
        f"all-reduce of {NUMBERS * 4 / 2**20:.0f} MiB over {len(ended)} processes ({slowest.backend}): "
        f"{slowest.seconds * 1e3:.1f} ms, {slowest.bandwidth / 1e9:.2f} GB/s"
    )


def problems(found: Findings, asked: Resources, expected: Software | None) -> list[str]:
    """A line for everything to fix. expected: the software that must be on the nodes; None: alike on all is enough."""
    greeted = {greeting.node for greeting in found.greetings.values()}
    lines = [
        f"{node}: nothing of it arrived in {found.folder}; it does not see this folder (set scratch to one that every "
        f"node mounts), or could not start the job (look at `scontrol show node {node}`)"
        for node in found.nodes
        if node not in greeted
    ]
    for rank, greeting in sorted(found.greetings.items()):
        lines += _of_greeting(greeting)
        if rank in found.reports:
            report = found.reports[rank]
            expected = expected or report.software
            lines += _of_report(report, greeting.node, found, asked, expected)
        else:
            said = found.said.get(rank, "it says nothing")
            lines.append(
                f"{greeting.node}: python does not run there: {said} (all of it: {found.folder}/{rank}.err); the "
                "repository and its .venv must lie where the nodes see them, or setup and python be set"
            )
    return list(dict.fromkeys(lines))  # the processes of a node say the same


def _of_greeting(greeting: Greeting) -> list[str]:
    node, ahead = greeting.node, greeting.ahead()
    lines = []
    if greeting.login is None:
        lines.append(f"{node}: does not see what this machine writes into the scratch; mount the same one there")
    if abs(ahead) > SKEW:
        where = "ahead of" if ahead > 0 else "behind"
        lines.append(f"{node}: its clock is {abs(ahead):.0f} s {where} this machine's; synchronise it (chrony, ntp)")
    return lines


def _of_report(report: Report, node: str, found: Findings, asked: Resources, expected: Software) -> list[str]:
    lines = []
    if len(report.gpus) < asked.gpus_per_node:
        built = (
            f"torch is built for CUDA {report.software.cuda}" if report.software.cuda else "torch is built without CUDA"
        )
        lines.append(
            f"{node}: torch sees {len(report.gpus)} of {asked.gpus_per_node} GPUs ({built}); look at nvidia-smi there"
        )
    if report.software != expected:
        lines.append(f"{node}: runs {_words(report.software)}, not {_words(expected)}; make it one environment for all")
    if hidden := _hidden(report, found):
        lines.append(f"{node}: does not see what {', '.join(hidden)} wrote into the scratch; mount the same one on all")
    if report.error:
        lines.append(
            f"{node}: the all-reduce failed: {report.error}; let the nodes reach each other on any port "
            "(setup: export GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME to choose the network)"
        )
    elif report.backend and not report.right:
        lines.append(f"{node}: the all-reduce gave a wrong sum over {report.backend}; take the node out (exclude)")
    return lines


def _hidden(report: Report, found: Findings) -> list[str]:
    """The nodes that wrote a report which this one did not see."""
    return sorted({found.reports[rank].node for rank in report.unseen if rank in found.reports})


def _words(software: Software) -> str:
    cuda = software.cuda or "no CUDA"
    return f"python {software.python}, torch {software.torch}, {cuda}, filmstill of {software.filmstill}"
