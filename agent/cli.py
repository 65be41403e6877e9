# SPDX-License-Identifier: Apache-2.0
"""The command line: wires the parts, and alone prints errors."""

import contextlib
import functools
import json
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import click

from agent import __version__, settings
from agent.errors import AgentError, Exit
from agent.snapshot.naming import Naming

_WATCH_SECONDS = 2.0
T = TypeVar("T")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="bigtcp-agent")
@click.option(
    "-v",
    "--verbose",
    is_flag=True,
    envvar="BIGTCP_VERBOSE",
    help="With an error, show what the compiler or the kernel's verifier said.",
)
def cli(*, verbose: bool) -> None:
    """Is BIG TCP really on? Count the packets above 64 KiB and see."""


def _with_cluster(command: Callable[..., T]) -> Callable[..., T]:
    """Flags that say where Cilium and Kubernetes are, as one `where`."""

    @functools.wraps(command)
    def with_where(
        *,
        cilium_socket: str,
        node_name: str,
        kubeconfig: str,
        cilium_namespace: str,
        cilium_config_map: str,
        **others: object,
    ) -> T:
        where = settings.Cluster(
            cilium_socket, node_name, kubeconfig, cilium_namespace, cilium_config_map
        )
        return command(where=where, **others)

    for flag, default, text in (
        ("--cilium-socket", settings.CILIUM_SOCKET, "Socket of Cilium's agent."),
        (
            "--node-name",
            "",
            "This node's name in Kubernetes; without it the API server is not asked.",
        ),
        ("--kubeconfig", "", "Without it: the pod's own account, or ~/.kube/config."),
        ("--cilium-namespace", "kube-system", "Where Cilium's ConfigMap is."),
        ("--cilium-config-map", "cilium-config", "Name of Cilium's ConfigMap."),
    ):
        with_where = click.option(
            flag,
            default=default,
            envvar=f"BIGTCP_{flag.removeprefix('--').replace('-', '_').upper()}",
            show_default=bool(default),
            show_envvar=True,
            help=text,
        )(with_where)
    return with_where


@cli.command()
@click.option(
    "--listen",
    default=settings.DEFAULT_LISTEN,
    envvar="BIGTCP_LISTEN",
    show_default=True,
    show_envvar=True,
    help="Where /metrics is served: HOST:PORT, [IPV6]:PORT or :PORT.",
)
@click.option(
    "--hooks",
    default=settings.DEFAULT_HOOKS,
    envvar="BIGTCP_HOOKS",
    show_default=True,
    show_envvar=True,
    help="Hooks to attach. napi_gro_receive_entry sees every wire packet.",
)
@click.option(
    "--interfaces",
    default=settings.DEFAULT_INTERFACES,
    envvar="BIGTCP_INTERFACES",
    show_default=True,
    show_envvar=True,
    help="Devices of this node to show by name: shell patterns, ! leaves out. "
    "The others are summed.",
)
@click.option(
    "--max-interfaces",
    type=click.IntRange(0, 1000),
    default=settings.DEFAULT_MAX_INTERFACES,
    envvar="BIGTCP_MAX_INTERFACES",
    show_default=True,
    show_envvar=True,
    help="At most this many by name.",
)
@click.option(
    "--max-pods",
    type=click.IntRange(0, 1000),
    default=0,
    envvar="BIGTCP_MAX_PODS",
    show_default=True,
    show_envvar=True,
    help="Tell so many pods apart in bigtcp_pod_skb_length_bytes; needs Cilium.",
)
@click.option(
    "--log-format",
    type=click.Choice(["auto", "text", "json"]),
    default="auto",
    envvar="BIGTCP_LOG_FORMAT",
    show_default=True,
    show_envvar=True,
    help="auto: text on a terminal, JSON elsewhere.",
)
@_with_cluster
def run(  # noqa: PLR0913  a flag each
    *,
    listen: str,
    hooks: str,
    interfaces: str,
    max_interfaces: int,
    max_pods: int,
    log_format: str,
    where: settings.Cluster,
) -> int:
    """Count every packet of this node and serve /metrics until told to stop."""
    address = settings.Address.parse(listen)
    wanted = settings.parse_hooks(hooks)
    named = settings.Interfaces.parse(interfaces, max_interfaces)
    ending = _Ending()
    with contextlib.suppress(_EndedError), contextlib.ExitStack() as stack:
        from agent import logs
        from agent.node import opened

        log = logs.configure(log_format)
        naming = Naming(named.wants, named.most)
        node = stack.enter_context(opened(wanted, where, naming, max_pods))
        from agent.views.web import Server, make_app

        probes, collector = node.probes, node.collector
        for hook, why in probes.failures.items():
            log.warning("hook not attached", hook=hook, reason=why)
        app = make_app(
            collector.snapshot,
            lambda seconds: collector.observe(seconds, ending.wait),
            node.pods.traffic if node.pods else None,
        )
        server = stack.enter_context(Server(address, app))
        thread = threading.Thread(
            target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True
        )
        thread.start()
        stack.callback(server.shutdown)
        log.info(
            "counting",
            hooks=[str(hook) for hook, on in probes.attached.items() if on],
            listen=str(address),
            version=__version__,
        )
        ending.wait_for_it()
        log.info("stopped")
    return ending.code


class _EndedError(BaseException):
    """A signal came while we were starting: not an Exception, so nobody eats it."""


class _Ending:
    """SIGTERM and Ctrl-C: while we start they interrupt, then they are waited for."""

    def __init__(self) -> None:
        self.code = Exit.OK
        self._told = threading.Event()
        self._starting = True
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._tell)

    def _tell(self, number: int, _: object) -> None:
        if not self._told.is_set():
            self.code = Exit.INTERRUPTED if number == signal.SIGINT else Exit.OK
            self._told.set()
            if self._starting:
                raise _EndedError

    def wait(self, seconds: float) -> bool:
        """Wait for so long, or until told to end."""
        return self._told.wait(seconds)

    def wait_for_it(self) -> None:
        """The start is over: wait until told to end."""
        self._starting = False
        self._told.wait()


def _no_nan(_: click.Context, __: click.Parameter, value: float | None) -> float | None:
    if value is not None and math.isnan(value):
        raise click.BadParameter("nan is no time")
    return value


@cli.command()
@click.option(
    "--url",
    default="http://127.0.0.1:19715",
    envvar="BIGTCP_URL",
    show_default=True,
    show_envvar=True,
    help="The agent to ask. Where none answers there, look with probes of our own.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(0, 60, min_open=True),
    callback=_no_nan,
    help="Observe for so long. Otherwise: what the agent saw in the last 30 s, or "
    "since it was last asked.",
)
@click.option("--watch", is_flag=True, help="Again and again, until Ctrl-C.")
@click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="For people or for machines.",
)
@_with_cluster
def check(
    *,
    url: str,
    seconds: float | None,
    watch: bool,
    output: str,
    where: settings.Cluster,
) -> int:
    """Is BIG TCP on, here, for these pods, or why not?

    Exit code 5: something is wrong.
    """
    from agent import inquiry
    from agent.views.check import check_text

    code = Exit.OK
    with inquiry.asked(url, where) as ask:
        while True:
            picture = ask(seconds)
            try:
                text = json.dumps(picture) if output == "json" else check_text(picture)
                bad = any(each["severity"] != "info" for each in picture["findings"])
            except (KeyError, TypeError, AttributeError) as err:
                raise AgentError(
                    f"{url} did not answer as an agent does",
                    "is this the agent's address?",
                ) from err
            if watch and output == "table":
                click.clear()
            click.echo(text)
            code = Exit.FINDINGS if bad else Exit.OK
            if not watch:
                return code
            time.sleep(_WATCH_SECONDS)


@cli.command()
@click.option(
    "--topology",
    type=click.Choice(["pair", "router"]),
    default="pair",
    show_default=True,
    help="pair: client - server. router: client - router - server, whose uplink "
    "once stays at 64 KiB.",
)
@click.option(
    "--family",
    type=click.Choice(["ipv4", "ipv6", "both"]),
    default="both",
    show_default=True,
    help="IP families to measure.",
)
@click.option(
    "--rounds",
    type=click.IntRange(1, 1000),
    default=5,
    show_default=True,
    help="Runs of each kind, in turns.",
)
@click.option(
    "--seconds",
    type=click.IntRange(1, 3600),  # netperf takes a fraction for 0, 0 for ever
    default=1,
    show_default=True,
    help="Length of a run.",
)
@click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="For people or for machines.",
)
def demo(*, topology: str, family: str, rounds: int, seconds: int, output: str) -> None:
    """Measure BIG TCP off and on between two namespaces of this machine."""
    from agent.lab import demo as lab
    from agent.snapshot.model import Family
    from agent.views import report

    # A service manager's SIGTERM must take the namespaces down as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    families = (Family.IPV4, Family.IPV6) if family == "both" else (Family(family),)
    with _progress() as show:
        result = lab.run(topology, families, rounds, seconds, show)
    render = report.demo_json if output == "json" else report.demo_text
    click.echo(render(result))


class _Progress:
    """One line on stderr that is written over; a line each without a terminal."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()

    def __call__(self, text: str) -> None:
        click.echo(
            f"\r\x1b[K{text}" if self._live else text, err=True, nl=not self._live
        )

    def clear(self) -> None:
        if self._live:
            click.echo("\r\x1b[K", err=True, nl=False)


@contextlib.contextmanager
def _progress() -> Iterator[_Progress]:
    progress = _Progress()
    try:
        yield progress
    finally:
        progress.clear()


def _tell(error: AgentError, *, verbose: bool) -> None:
    click.echo(f"error: {error.message}\nhint: {error.hint}", err=True)
    if verbose and error.detail:
        click.echo(error.detail, err=True)


def _forget_output() -> None:
    """What is still buffered has nowhere to go: no second error at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _flush() -> None:
    """What cannot be written any more must not change the exit code."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _open_standard_files() -> None:
    """Where stdin, stdout or stderr is closed, our files must not get its number."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:  # noqa: PLR2004  stderr
        pass
    os.close(fd)
    sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115


def main() -> None:
    """Run a command; its exit code is one of agent.errors.Exit."""
    _open_standard_files()
    verbose = bool({"-v", "--verbose"} & set(sys.argv[1:2])) or bool(
        os.environ.get("BIGTCP_VERBOSE")
    )
    try:
        code = cli.main(standalone_mode=False)
    except AgentError as err:
        _tell(err, verbose=verbose)
        code = err.exit_code
    except click.exceptions.NoArgsIsHelpError as err:
        click.echo(err.ctx.get_help() if err.ctx else "", err=True)
        code = Exit.USAGE
    except click.ClickException as err:
        command = (
            err.ctx.command_path
            if isinstance(err, click.UsageError) and err.ctx
            else "bigtcp-agent"
        )
        click.echo(
            f"error: {err.format_message()}\nhint: see '{command} --help'", err=True
        )
        code = Exit.USAGE
    except (KeyboardInterrupt, click.Abort):
        code = Exit.INTERRUPTED
    except BrokenPipeError:  # `| head` has seen enough
        code = Exit.FAILED
        _forget_output()
    except OSError as err:
        where = f"{err.filename}: " if err.filename else ""
        _tell(
            AgentError(
                f"{where}{err.strerror or err}".lower(),
                "see free space, `ulimit -n` and what was killed, then try again",
            ),
            verbose=verbose,
        )
        code = Exit.FAILED
        _forget_output()
    _flush()
    sys.exit(code if isinstance(code, int) else Exit.OK)
