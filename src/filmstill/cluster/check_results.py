"""Results of `cluster check`'s job: a table of the nodes, and one line for every problem to fix.

Clocks are compared by bounds: a node's clock counts as wrong only where no delay of the shared file system explains the
difference.
"""

from dataclasses import dataclass, field
from pathlib import Path

from filmstill.cluster.check_node import NUMBERS, RankReport, Software
from filmstill.cluster.config import Resources, cluster_name
from filmstill.runtime.text_table import TextTable

MAX_SKEW = 2.0  # s between clocks: file times and munge's credentials are compared across hosts


@dataclass(frozen=True)
class ShellReport:
    """What a rank's shell wrote before Python started. Times in seconds since the epoch."""

    node: str
    login_time: float | None  # the login node's clock, as the node read it from a file; None: it does not see the file
    node_time: float  # the node's own clock at that moment
    seen_time: float  # the login node's clock when this report became visible there

    def ahead(self) -> float:
        """Seconds by which the node's clock is at least ahead of the login node's; negative: behind."""
        least, most = self.node_time - self.seen_time, self.node_time - (self.login_time or 0.0)
        return max(least, min(most, 0.0))


@dataclass
class CheckResults:
    """What the job left in its folder, by rank."""

    folder: Path
    nodes: list[str]  # that SLURM gave the job
    shells: dict[int, ShellReport] = field(default_factory=dict)
    reports: dict[int, RankReport] = field(default_factory=dict)
    errors: dict[int, str] = field(default_factory=dict)  # last line of stderr of a rank without a report


def table(title: str, results: CheckResults) -> TextTable:
    """A table with one row per node."""
    headings = ["node", "host", "GPUs", "torch", "CUDA", "python", "clock s", "scratch"]
    shown = TextTable(title, headings, left=("host", "GPUs", "torch", "CUDA", "python", "scratch"))
    for node in results.nodes:
        ranks = [rank for rank, shell in results.shells.items() if shell.node == node]
        report = next((results.reports[rank] for rank in ranks if rank in results.reports), None)
        clock = f"{results.shells[ranks[0]].ahead():+.1f}" if ranks else "?"
        if report is None:
            shown.add(node, "?", "?", "?", "?", "?", clock, "seen" if ranks else "NOT SEEN")
            continue
        kinds = ", ".join(f"{report.gpus.count(kind)} x {kind}" for kind in dict.fromkeys(report.gpus)) or "none"
        software = report.software
        seen = "seen" if report.sees_login and not _hidden(report, results) else "NOT SEEN"
        shown.add(node, report.host, kinds, software.torch, software.cuda or "none", software.python, clock, seen)
    return shown


def speed(results: CheckResults) -> str:
    """One line with the time and bandwidth of the slowest rank's all-reduce."""
    ended = [report for report in results.reports.values() if report.backend]
    if not ended:
        return "all-reduce: did not end"
    slowest = max(ended, key=lambda report: report.seconds)
    return (
        f"all-reduce of {NUMBERS * 4 / 2**20:.0f} MiB over {len(ended)} ranks ({slowest.backend}): "
        f"{slowest.seconds * 1e3:.1f} ms, {slowest.bandwidth / 1e9:.2f} GB/s"
    )


def problems(results: CheckResults, resources: Resources, expected: Software | None) -> list[str]:
    """One line for every problem to fix.

    resources: what the job requested. expected: software that every node must have; None: that of the first report.
    """
    heard_of = {shell.node for shell in results.shells.values()}
    lines = [
        f"{node}: wrote nothing into {results.folder}; it does not see this folder (set scratch to one that every "
        f"node mounts), or could not start the job (look at `scontrol show node {node}`)"
        for node in results.nodes
        if node not in heard_of
    ]
    for rank, shell in sorted(results.shells.items()):
        lines += _shell_problems(shell)
        if rank in results.reports:
            report = results.reports[rank]
            expected = expected or report.software
            lines += _report_problems(report, shell.node, results, resources, expected)
        else:
            error = results.errors.get(rank, "it printed no error")
            lines.append(
                f"{shell.node}: python does not run there: {error} (full output: {results.folder}/{rank}.err); put the "
                f"repository and its .venv where the nodes see them, or set setup and python in {cluster_name()}"
            )
    return list(dict.fromkeys(lines))  # ranks of one node report the same problems


def _shell_problems(shell: ShellReport) -> list[str]:
    node, ahead = shell.node, shell.ahead()
    lines = []
    if shell.login_time is None:
        lines.append(f"{node}: does not see what this machine writes into the scratch; mount the same one there")
    if abs(ahead) > MAX_SKEW:
        where = "ahead of" if ahead > 0 else "behind"
        lines.append(f"{node}: its clock is {abs(ahead):.0f} s {where} this machine's; synchronise it (chrony, ntp)")
    return lines


def _report_problems(
    report: RankReport, node: str, results: CheckResults, resources: Resources, expected: Software
) -> list[str]:
    lines = []
    if len(report.gpus) < resources.gpus_per_node:
        built = (
            f"torch is built for CUDA {report.software.cuda}" if report.software.cuda else "torch is built without CUDA"
        )
        lines.append(
            f"{node}: torch sees {len(report.gpus)} of {resources.gpus_per_node} GPUs ({built}); look at nvidia-smi "
            "there"
        )
    if report.software != expected:
        lines.append(f"{node}: runs {_words(report.software)}, not {_words(expected)}; use one environment for all")
    if hidden := _hidden(report, results):
        lines.append(f"{node}: does not see what {', '.join(hidden)} wrote into the scratch; mount the same one on all")
    if report.error:
        lines.append(
            f"{node}: the all-reduce failed: {report.error}; let the nodes reach each other on any port "
            "(setup: export GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME to choose the network)"
        )
    elif report.backend and not report.right:
        lines.append(f"{node}: the all-reduce gave a wrong sum over {report.backend}; take the node out (exclude)")
    return lines


def _hidden(report: RankReport, results: CheckResults) -> list[str]:
    """Nodes whose reports exist but are not visible to this rank."""
    return sorted({results.reports[rank].node for rank in report.unseen if rank in results.reports})


def _words(software: Software) -> str:
    cuda = software.cuda or "no CUDA"
    return f"python {software.python}, torch {software.torch}, {cuda}, filmstill of {software.filmstill}"
