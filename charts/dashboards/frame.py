# SPDX-License-Identifier: Apache-2.0
"""What all three dashboards have: variables, annotation, links."""

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.models import dashboard as model

from charts.dashboards.panels import DATASOURCE
from charts.dashboards.queries import changed

TAG = "bigtcp"


class ConfigChange(model.AnnotationQuery):
    """The SDK's type lacks what Grafana's Prometheus source reads of an annotation."""

    def to_json(self) -> dict[str, object]:
        """Its payload, with the texts of an event."""
        return super().to_json() | {
            "useValueForTime": True,
            "titleFormat": "Cilium's configuration changed",
            "textFormat": "{{cluster}}",
        }


class _Annotation(dashboard.AnnotationQuery):
    def __init__(self) -> None:
        self._internal = ConfigChange()


def variable(name: str, metric: str, chosen: str) -> dashboard.QueryVariable:
    """Values of a label, among the targets that were chosen before it.

    Where a label may be missing from all targets, "All" must match that, too.
    """
    every = ".+" if name in ("job", "instance") else ".*"
    return (
        dashboard.QueryVariable(name)
        .label(name.capitalize())
        .datasource(DATASOURCE)
        .query(f"label_values({metric}{{{chosen}}}, {name})")
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(model.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(every)
        .current(model.VariableOption(True, ["All"], ["$__all"]))
    )


def frame(
    uid: str, title: str, description: str, known_by: str, config_changed: str
) -> dashboard.Dashboard:
    """An empty dashboard. `known_by` is a metric that every target has,
    `config_changed` tells when Cilium's configuration changed.
    """
    found = (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags([TAG])
        .readonly()
        .refresh("1m")
        .time("now-6h", "now")
        .timezone("browser")
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .with_variable(
            dashboard.DatasourceVariable("datasource")
            .label("Data source")
            .type("prometheus")
        )
        .annotation(
            _Annotation()
            .name("Cilium's configuration changed")
            .datasource(DATASOURCE)
            .enable(True)
            .icon_color("blue")
            .expr(changed(config_changed))
        )
        .link(
            dashboard.DashboardLink("BIG TCP")
            .type(model.DashboardLinkType.DASHBOARDS)
            .tags([TAG])
            .include_vars(True)
            .keep_time(True)
        )
    )
    chosen: list[str] = []
    for name in ("cluster", "job", "node", "instance"):
        found.with_variable(variable(name, known_by, ",".join(chosen)))
        chosen.append(f'{name}=~"${name}"')
    return found
