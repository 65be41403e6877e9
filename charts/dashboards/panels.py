# SPDX-License-Identifier: Apache-2.0
"""Panels as all dashboards draw them: a title, a sentence or two, a unit, queries."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from string import ascii_uppercase
from typing import Any, Protocol

from grafana_foundation_sdk.builders import (
    common,
    dashboard,
    heatmap,
    prometheus,
    stat,
    statetimeline,
    table,
    timeseries,
)
from grafana_foundation_sdk.models import common as options
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models import heatmap as heatmap_options
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from agent.snapshot.verdict import State
from charts.dashboards.queries import CODES

DATASOURCE = model.DataSourceRef("prometheus", "${datasource}")
GREEN, YELLOW, ORANGE, RED, GRAY = "green", "yellow", "orange", "red", "#8e8e8e"
STATE_COLORS = {
    State.UNSUPPORTED: GRAY,
    State.DISABLED: "#b8b8b8",
    State.UNMANAGED: "purple",
    State.REFUSED: ORANGE,
    State.DROPPED: "dark-red",
    State.SEGMENTED: RED,
    State.PARTIAL: YELLOW,
    State.IDLE: "blue",
    State.ACTIVE: GREEN,
}
Steps = Sequence[tuple[float | None, str]]


@dataclass(frozen=True)
class Say:
    """What stands on a panel; `span` of 24 columns, `height` in Grafana's rows."""

    title: str
    description: str
    unit: str
    span: int = 12
    height: int = 8


@dataclass(frozen=True)
class Column:
    """A column of a table, filled by an instant query; `style` are overrides."""

    name: str
    expr: str
    style: Mapping[str, Any] = field(default_factory=dict)


class _Panel(Protocol):
    def title(self, title: str) -> Any: ...
    def description(self, description: str) -> Any: ...
    def datasource(self, datasource: model.DataSourceRef) -> Any: ...
    def unit(self, unit: str) -> Any: ...
    def span(self, w: int) -> Any: ...
    def height(self, h: int) -> Any: ...
    def with_target(self, target: prometheus.Dataquery) -> Any: ...


def _query(ref: int, expr: str, legend: str = "") -> prometheus.Dataquery:
    return (
        prometheus.Dataquery()
        .datasource(DATASOURCE)
        .expr(expr)
        .legend_format(legend)
        .ref_id(ascii_uppercase[ref])
    )


def _say(panel: _Panel, say: Say) -> None:
    panel.title(say.title)
    panel.description(say.description)
    panel.datasource(DATASOURCE)
    panel.unit(say.unit)
    panel.span(say.span)
    panel.height(say.height)


def steps(found: Steps) -> dashboard.ThresholdsConfig:
    """Colours from these values on; None is minus infinity."""
    return (
        dashboard.ThresholdsConfig()
        .mode(model.ThresholdsMode.ABSOLUTE)
        .steps([model.Threshold(value, color) for value, color in found])
    )


def mapping(texts: Mapping[str, tuple[str, str | None]]) -> model.ValueMapping:
    """Values to text and colour."""
    return model.ValueMap(
        {
            value: model.ValueMappingResult(text=text, color=color, index=at)
            for at, (value, (text, color)) in enumerate(texts.items())
        }
    )


VERDICTS = mapping(
    {str(code): (state.value, STATE_COLORS[state]) for state, code in CODES.items()}
)


def lines(  # noqa: PLR0913  each has its own look
    say: Say,
    queries: Mapping[str, str],
    *,
    most: float | None = None,
    stacked: bool = False,
    points: bool = False,
    marks: Steps = (),
    colors: Mapping[str, str] | None = None,
) -> timeseries.Panel:
    """Legend to query. `marks` are drawn as lines; `most` is the end of the axis."""
    panel = (
        timeseries.Panel()
        .min(0)
        .line_width(1)
        .fill_opacity(60 if stacked else 8)
        .show_points(
            options.VisibilityMode.ALWAYS if points else options.VisibilityMode.AUTO
        )
        .tooltip(
            common.VizTooltipOptions()
            .mode(options.TooltipDisplayMode.MULTI)
            .sort(options.SortOrder.DESCENDING)
        )
        .legend(
            common.VizLegendOptions()
            .display_mode(options.LegendDisplayMode.LIST)
            .placement(options.LegendPlacement.BOTTOM)
            .show_legend(True)
        )
    )
    _say(panel, say)
    if most is not None:
        panel.max(most)
    if stacked:
        panel.decimals(0)
    if points:
        panel.draw_style(options.GraphDrawStyle.POINTS).point_size(6)
    if stacked:
        panel.stacking(common.StackingConfig().mode(options.StackingMode.NORMAL))
    if marks:
        panel.thresholds(steps([(None, "transparent"), *marks]))
        panel.thresholds_style(
            common.GraphThresholdsStyleConfig().mode(
                options.GraphThresholdsStyleMode.DASHED
            )
        )
    for name, color in (colors or {}).items():
        fixed = {"mode": "fixed", "fixedColor": color}
        panel.override_by_name(name, [model.DynamicConfigValue("color", fixed)])
    for ref, (legend, expr) in enumerate(queries.items()):
        panel.with_target(_query(ref, expr, legend))
    return panel


def number(say: Say, expr: str, colors: Steps) -> stat.Panel:
    """One number now."""
    panel = (
        stat.Panel()
        .thresholds(steps(colors))
        .graph_mode(options.BigValueGraphMode.NONE)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    )
    _say(panel, say)
    return panel.with_target(_query(0, expr).instant())


def spread(say: Say, expr: str) -> heatmap.Panel:
    """A classic histogram over time; the axis are its own edges."""
    panel = (
        heatmap.Panel()
        .calculate(False)
        .color(
            heatmap.HeatmapColorOptions()
            .mode(heatmap_options.HeatmapColorMode.SCHEME)
            .scheme("Spectral")
            .scale(heatmap_options.HeatmapColorScale.EXPONENTIAL)
            .exponent(0.5)
            .steps(64)
        )
        .cell_gap(1)
        .filter_values(heatmap.FilterValueRange().le(1e-9))
        .y_axis(heatmap.YAxisConfig().unit("bytes").decimals(0))
        .cell_values(heatmap.CellValues().unit("pps"))
        .show_legend()
        .show_y_histogram()
    )
    _say(panel, say)
    query = _query(0, expr, "{{le}}").format(PromQueryFormat.HEATMAP)
    return panel.with_target(query)


def timeline(
    say: Say, queries: Mapping[str, str], values: model.ValueMapping
) -> statetimeline.Panel:
    """A row a series, whose colour is its value."""
    panel = (
        statetimeline.Panel()
        .mappings([values])
        .show_value(options.VisibilityMode.AUTO)
        .merge_values(True)
        .row_height(0.8)
        .fill_opacity(80)
    )
    _say(panel, say)
    for ref, (legend, expr) in enumerate(queries.items()):
        panel.with_target(_query(ref, expr, legend))
    return panel


def rows(
    say: Say,
    labels: Mapping[str, str],
    columns: Sequence[Column],
    styles: Mapping[str, Mapping[str, Any]] | None = None,
) -> table.Panel:
    """A row for each set of labels. `labels`: label to the name of its column;
    `styles`: overrides for those. Other labels and the time are left out.
    """
    panel = table.Panel().show_header(True).filterable(True)
    _say(panel, say)
    names = dict(labels)
    for ref, column in enumerate(columns):
        query = _query(ref, column.expr).instant().format(PromQueryFormat.TABLE)
        panel.with_target(query)
        value = f"Value #{ascii_uppercase[ref]}" if len(columns) > 1 else "Value"
        names[value] = column.name
    looks = dict(styles or {}) | {column.name: column.style for column in columns}
    for name, look in looks.items():
        if look:
            panel.override_by_name(
                name, [model.DynamicConfigValue(*each) for each in look.items()]
            )
    panel.with_transformation(model.DataTransformerConfig("merge", options={}))
    return panel.with_transformation(
        model.DataTransformerConfig(
            "organize",
            options={
                "excludeByName": {"Time": True},
                "includeByName": {},
                "indexByName": {name: at for at, name in enumerate(names)},
                "renameByName": names,
            },
        )
    )


def colored(found: Steps) -> dict[str, Any]:
    """A column whose text has the colour of its value."""
    return {
        "thresholds": steps(found).build(),
        "custom.cellOptions": options.TableColorTextCellOptions(),
    }
