# SPDX-License-Identifier: Apache-2.0
"""Any record, of netperf or of top, as what `compare` compares."""

import json

from agent.input_files import open_regular_file
from agent.record import lines, netperf
from agent.record.facts import histograms, measured, shapes, when
from agent.record.intervals import of_top
from agent.record.lines import RecordError
from agent.snapshot.comparison import LATENCIES, LONGEST, TRANSACTIONS, Facts, Measured
from agent.snapshot.model import Sizes
from agent.snapshot.plain import plain_json
from agent.typed_json import convert

_MOST_BYTES = 64 << 20  # of a record of netperf
_MOST_DEVICES = 4  # that are named
_HINT = (
    "give a file that `netperf --record`, `demo --record` or `top --record` of "
    "bigtcp-agent wrote"
)


def read(path: str) -> Measured:
    """What a file holds; RecordError says what is wrong with it, and where."""
    try:
        with open_regular_file(path) as file:
            first = file.readline(_MOST_BYTES)
            if _schema(first).startswith(_name(lines.SCHEMA)):
                return of_top(path)
            content = first + file.read(_MOST_BYTES)
    except OSError as err:
        raise RecordError(
            f"{path} cannot be read: {(err.strerror or str(err)).lower()}", _HINT
        ) from err
    return _of_netperf(path, _record(path, content))


def _name(schema: str) -> str:
    """Without its version."""
    return schema.rpartition("/")[0] + "/"


def _schema(text: bytes) -> str:
    try:
        value = plain_json(text)
    except (ValueError, RecursionError):
        return ""
    return str(value.get("schema", "")) if isinstance(value, dict) else ""


def _record(path: str, content: bytes) -> netperf.Record:
    try:
        value = plain_json(content)
    except json.JSONDecodeError as err:
        raise RecordError(
            f"{path}, line {err.lineno}, column {err.colno}: this is no JSON", _HINT
        ) from err
    except (ValueError, RecursionError) as err:  # no text, or nested without end
        raise RecordError(f"{path}: this is no JSON", _HINT) from err
    schema = value.get("schema") if isinstance(value, dict) else None
    if not str(schema).startswith(_name(netperf.SCHEMA)):
        said = f", but {schema}" if isinstance(schema, str) else ""
        raise RecordError(f"{path}: this is no record of netperf or top{said}", _HINT)
    if schema != netperf.SCHEMA:
        raise RecordError(
            f"{path}: its format is {schema}, ours is {netperf.SCHEMA}",
            "use the bigtcp-agent that wrote it",
        )
    try:
        return convert(value, netperf.Record)
    except ValueError as err:
        raise RecordError(
            f"{path}: {err}", "the record was changed, or written by another version"
        ) from err


def _of_netperf(path: str, record: netperf.Record) -> Measured:
    test, node = record.test, record.node
    cilium = node.cilium if node else None
    return measured(
        path,
        record.name,
        test=str(test),
        about={
            "test": f"netperf {test}",
            "runs": record.runs,
            "seconds a run": str(test.seconds),
            "pinned to CPU": "-" if test.cpu is None else str(test.cpu),
            "server": record.server,
            "taken": when(record.taken),
            "machine": record.machine,
            "kernel": record.kernel,
            "Cilium": cilium.version if cilium else "-",
            "devices": _sizes(record) or "-",
            "verdict": _verdict(node) if node else "-",
            "netperf": record.netperf or "-",
            "bigtcp-agent": record.version,
        },
        families={
            family: _facts(series, record.edges)
            for family, series in record.families.items()
        },
    )


def _sizes(record: netperf.Record) -> str:
    """GSO limits of all devices; where those are many, of the ones that were sent
    through.
    """
    devices = list(record.devices)
    if len(devices) > _MOST_DEVICES:
        runs = [run for series in record.families.values() for run in series.runs]
        through = {run.sent.device for run in runs if run.sent}
        devices = [device for device in devices if device.name in through]
    return "; ".join(f"{device.name} {_limits(device.sizes)}" for device in devices)


def _limits(sizes: Sizes) -> str:
    """The generic one is IPv6's, and IPv4's where it has none of its own."""
    if sizes.gso_ipv4_max in (None, sizes.gso_max):
        return f"{sizes.gso_max:,} B"
    return f"IPv4 {sizes.gso_ipv4_max:,} B, IPv6 {sizes.gso_max:,} B"


def _verdict(node: netperf.Node) -> str:
    states = ", ".join(f"{family} {state}" for family, state in node.states.items())
    return " · ".join(part for part in (states, " ".join(node.findings)) if part)


def _facts(series: netperf.Series, edges: tuple[int, ...]) -> Facts:
    runs = series.runs
    sent = [run.sent.lengths(edges) for run in runs if run.sent]
    received = [run.received.lengths(edges) for run in runs if run.received]
    values = {
        TRANSACTIONS: tuple(run.transactions_per_second for run in runs),
        **{
            metric: tuple(getattr(run.latency_us, at) for run in runs)
            for at, metric in LATENCIES.items()
        },
        **shapes(sent),
        LONGEST: tuple(float(lengths.longest) for lengths in sent),
    }
    return Facts(values, histograms({"sent": sent, "received": received}))
