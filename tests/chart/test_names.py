# SPDX-License-Identifier: Apache-2.0
"""Names that the API server takes, and that stay text, whatever they look like."""

import json
import re

import pytest
import yaml

from tests.chart import helm
from tests.server.test_web_config import HASH

SERVICE = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")  # RFC 1035
ALL = (
    *("netperf.enabled", "ciliumNetworkPolicy.enabled", "serviceMonitor.enabled"),
    *("prometheusRule.enabled", "dashboards.enabled"),
)
# What YAML 1.1 reads as a number or a truth, and what is neither.
ODD = {"release": "123", "namespace": "no", "value": "0x1f", "yes": "yes"}
PLAIN = {"release": "abc", "namespace": "me", "value": "one", "yes": "may"}
PLACES = (
    *("serviceMonitor.namespace", "prometheusRule.namespace", "dashboards.namespace"),
    *("dashboards.label", "priorityClassName", "netperf.priorityClassName"),
    *("web.tls.secretName", "serviceAccount.name", "imagePullSecrets[0].name"),
    *("cilium.namespace", "image.tag", "podLabels.a", "commonLabels.b"),
    *("ciliumNetworkPolicy.nodeSelector.c", "ciliumNetworkPolicy.fromEndpoints[0].d"),
)


def made(words: dict[str, str], *flags: str) -> list[helm.Object]:
    """All that the chart has, with these words in place of names."""
    done = helm.run(
        *("helm3", "template", words["release"], str(helm.CHART)),
        *(f"--namespace={words['namespace']}", "--kube-version=1.34.4"),
        *(f"--set={each}=true" for each in ALL),
        *(f"--set-string={place}={words['value']}" for place in PLACES),
        *flags,
    )
    assert done.returncode == 0, done.stderr
    return [found for found in yaml.safe_load_all(done.stdout) if found]


def shape(part: object, words: dict[str, str]) -> object:
    """The same with `word` for each of these words, if it is still text."""
    if isinstance(part, dict):
        return {
            "word" if key in words.values() else repr(key): shape(each, words)
            for key, each in part.items()
        }
    if isinstance(part, list):
        return [shape(each, words) for each in part]
    if not isinstance(part, str):
        return part
    if part in words.values():
        return "word"
    return type(part).__name__


@pytest.mark.parametrize(
    "flags",
    [
        [],
        ["web.existingSecret={value}", "web.scheme=http", "nameOverride={value}"],
        ["fullnameOverride={yes}", f"web.basicAuthUsers.{{yes}}={HASH}"],
    ],
)
def test_what_looks_like_a_number_or_a_truth_stays_text(flags: list[str]) -> None:
    odd, plain = (
        sorted(
            json.dumps(shape(each, words), sort_keys=True)
            for each in made(
                words, *(f"--set-string={flag.format(**words)}" for flag in flags)
            )
        )
        for words in (ODD, PLAIN)
    )
    assert len(odd) > 15
    assert odd == plain


def names(release: str, *flags: str) -> dict[str, list[str]]:
    """By kind."""
    done = helm.run(
        *("helm3", "template", release, str(helm.CHART), "--kube-version=1.34.4"),
        *("--set=netperf.enabled=true", *(f"--set-string={each}" for each in flags)),
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, list[str]] = {}
    for each in yaml.safe_load_all(done.stdout):
        if each:
            found.setdefault(each["kind"], []).append(each["metadata"]["name"])
    return found


@pytest.mark.parametrize(
    ("release", "flags", "agent"),
    [
        ("net.east", [], "net-east-bigtcp-agent"),
        ("123", [], "release-123-bigtcp-agent"),
        ("bigtcp-agent", [], "bigtcp-agent"),
        ("a", [f"fullnameOverride={'a' * 60}"], "a" * 40),
        ("a", [f"fullnameOverride={'a' * 37}---b"], "a" * 37),
        (f"{'a' * 39}.b", [f"nameOverride={'a' * 39}"], "a" * 39),
        ("1", ["nameOverride=2"], "release-1-2"),
    ],
)
@pytest.mark.parametrize("schedule", ["", "1 * * * *"])
def test_names_are_good_for_all_that_has_them(
    release: str, flags: list[str], agent: str, schedule: str
) -> None:
    found = names(release, *flags, f"netperf.schedule={schedule}")
    assert found["DaemonSet"] == [agent]
    for kind, each in found.items():
        most = {"CronJob": 52, "Service": 63, "Job": 63}.get(kind, 253)
        assert max(map(len, each)) <= most
    assert all(map(SERVICE.fullmatch, found["Service"]))


def test_a_label_of_a_long_name_ends_with_a_letter() -> None:
    flag = f"--set=nameOverride={'a' * 37}---b"
    daemon = helm.one(helm.template(flag), "DaemonSet")
    assert daemon["metadata"]["labels"]["app.kubernetes.io/name"] == "a" * 37
