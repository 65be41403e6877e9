# SPDX-License-Identifier: Apache-2.0
"""The committed dashboards against their sources, and against the published rules of
grafana/dashboard-linter.

The linter itself is no Go module that can be had; where it could be built from its
repository it accepted all three (`lint --strict`).
"""

import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from agent.snapshot.findings import FINDING_IDS
from agent.snapshot.pods import NO_PODS
from agent.views.exporter import _NOTHING, metrics
from charts.dashboards.__main__ import DASHBOARDS, text
from charts.dashboards.words import FINDINGS
from tests.charts.dashboards import FOLDER, NAMES, Query, load, panels, queries
from tests.charts.stand import RULES

QUERIES = list(queries())
# Of Grafana's units, those that a panel may show here.
UNITS = {"none", "percentunit", "bytes", "Bps", "pps", "ops", "s"}
SELECTOR = re.compile(r"([a-z_][a-z0-9_:]*)\{([^}]*)\}")
FROM_OTHERS = {
    # bigtcp-agent netperf
    "bigtcp_netperf_transactions_per_second",
    "bigtcp_netperf_latency_seconds",
    # Prometheus
    "up",
    "scrape_duration_seconds",
    "scrape_samples_scraped",
    # client_python
    "process_cpu_seconds_total",
    "process_resident_memory_bytes",
}


@pytest.mark.parametrize("name", NAMES)
def test_what_is_committed_is_what_the_sources_say(name: str) -> None:
    assert (FOLDER / f"{name}.json").read_text() == text(DASHBOARDS[name]())


def test_no_dashboard_is_without_a_source() -> None:
    assert {file.stem for file in FOLDER.glob("*.json")} == set(DASHBOARDS)


def recorded() -> set[str]:
    groups = yaml.safe_load((RULES / "recording.yaml").read_text())["groups"]
    return {rule["record"] for group in groups for rule in group["rules"]}


def exported() -> set[str]:
    """Every name of a sample that an agent can export."""
    found = set()
    for metric in metrics(_NOTHING, NO_PODS):
        suffixes = {
            "histogram": ("_bucket", "_sum", "_count"),
            "counter": ("_total",),
            "info": ("_info",),
        }.get(metric.type, ("",))
        found |= {metric.name + suffix for suffix in suffixes}
    return found


def test_every_metric_of_a_query_exists() -> None:
    used = {name for query in QUERIES for name, _ in SELECTOR.findall(query.expr)}
    assert used <= recorded() | exported() | FROM_OTHERS
    assert used >= {"bigtcp_verdict", "node:bigtcp_verdict:max"}


def test_every_metric_of_a_rule_exists() -> None:
    words = set()
    for file in RULES.glob("*.yaml"):
        for group in yaml.safe_load(file.read_text())["groups"]:
            for rule in group["rules"]:
                words |= set(
                    re.findall(r"\b(?:\w+:)?bigtcp_\w+(?::\w+)?", rule["expr"])
                )
    assert words <= recorded() | exported() | FROM_OTHERS


def test_the_overview_reads_recorded_series_only() -> None:
    """It must open with thousands of nodes."""
    for query in QUERIES:
        if query.dashboard == "overview":
            for name, _ in SELECTOR.findall(query.expr):
                assert name in recorded(), query


def test_the_overview_has_words_for_every_finding() -> None:
    assert tuple(FINDINGS) == FINDING_IDS


@pytest.mark.parametrize("name", NAMES)
def test_two_clusters_may_have_nodes_of_one_name(name: str) -> None:
    for panel in panels(name):
        if panel["type"] not in ("timeseries", "state-timeline"):
            continue
        for target in panel["targets"]:
            by = re.match(r"[^{]*? by \(([^)]*)\)", target["expr"])
            labels = by[1].split(", ") if by else []
            words = re.findall(r"{{(\w+)}}", target["legendFormat"])
            alone = not by and bool(words)  # each series as it is
            assert ("cluster" in words) is (alone or "cluster" in labels), target


def test_the_overview_leads_to_one_node_of_one_cluster() -> None:
    """The link has what a row is known by, in the names of its columns."""
    (table,) = (
        panel for panel in panels("overview") if panel["title"] == "Verdict per node"
    )
    columns = table["transformations"][1]["options"]["renameByName"]
    (styles,) = (
        each["properties"]
        for each in table["fieldConfig"]["overrides"]
        if each["matcher"]["options"] == "Node"
    )
    (link,) = styles[0]["value"]
    given = re.findall(r"var-(\w+)=\${__data\.fields\.(\w+)}", link["url"])
    assert given
    assert dict(given) == {
        label: columns[label] for label in ("cluster", "node", "instance", "job")
    }


# Rules of the linter, by its names.


@pytest.mark.parametrize("query", QUERIES, ids=str)
def test_target_rules(query: Query) -> None:
    """target-job, target-instance, target-rate-interval, target-counter-agg."""
    selectors = SELECTOR.findall(query.expr)
    assert selectors
    for _, matchers in selectors:
        for label in ("cluster", "job", "node", "instance"):
            assert f'{label}=~"${label}"' in matchers
    for name, window in re.findall(r"\b(\w+)\([^()\[\]]*\[([^\]]*)\]", query.expr):
        expected = "$__range" if name == "last_over_time" else "$__rate_interval"
        assert window == expected
    for counter in re.findall(r"(\w*)\(?[\w:]+_total\{", query.expr):
        assert counter == "rate"


@pytest.mark.parametrize("name", NAMES)
def test_panel_rules(name: str) -> None:
    """panel-datasource, panel-title-description, panel-units, panel-no-targets."""
    for panel in panels(name):
        assert panel["title"]
        assert panel["description"].endswith(".")
        assert panel["datasource"]["uid"] == "${datasource}"
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
        assert panel["targets"]
        refs = [target["refId"] for target in panel["targets"]]
        assert len(set(refs)) == len(refs)
        for target in panel["targets"]:
            assert target["datasource"]["uid"] == "${datasource}"


@pytest.mark.parametrize("name", NAMES)
def test_template_rules(name: str) -> None:
    """template-datasource, template-job, template-instance, template-label-promql,
    template-on-time-change-reload, uneditable-dashboard.
    """
    dashboard = load(name)
    assert not dashboard["editable"]
    variables = {found["name"]: found for found in dashboard["templating"]["list"]}
    assert variables["datasource"]["label"] == "Data source"
    assert list(variables)[:5] == ["datasource", "cluster", "job", "node", "instance"]
    for variable in variables.values():
        if variable["type"] == "query":
            assert variable["datasource"]["uid"] == "${datasource}"
            assert variable["refresh"] == 2
            assert re.fullmatch(r"label_values\(.+, \w+\)", variable["query"])
    for required in ("job", "instance"):
        assert variables[required]["label"] == required.capitalize()
        assert variables[required]["multi"]
        assert variables[required]["allValue"] == ".+"


def places(name: str) -> Iterator[tuple[int, int]]:
    for panel in load(name)["panels"]:
        at: dict[str, Any] = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        for y in range(at["y"], at["y"] + at["h"]):
            for x in range(at["x"], at["x"] + at["w"]):
                yield x, y


@pytest.mark.parametrize("name", NAMES)
def test_no_panel_covers_another(name: str) -> None:
    taken = list(places(name))
    assert len(set(taken)) == len(taken)


def test_uids_and_ids_are_stable_and_unique() -> None:
    assert [load(name)["uid"] for name in NAMES] == [f"bigtcp-{n}" for n in NAMES]
    for name in NAMES:
        ids = [panel["id"] for panel in load(name)["panels"]]
        assert ids == list(range(1, len(ids) + 1))
