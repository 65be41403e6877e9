# SPDX-License-Identifier: Apache-2.0
"""The Kubernetes API server, by way of the official client.

The client finds the server and keeps the credentials: service accounts,
kubeconfig files, their plugins, tokens that expire. Requests go straight to its
connection pool, since its models and its Watch (retries of its own, none of them
timed) are of no use here. Importing it takes 0.2 s and 50 MiB, so that waits until
there is a server to ask.
"""

import contextlib
import http.client
import json
import os
import socket
from collections.abc import Iterator, Mapping
from typing import Any

from agent.cluster.answer import printable
from agent.cluster.api import Json, RefusedError

_CONNECT_SECONDS = 5.0
_HTTP_OK = 200
_MOST_SAID = 300  # characters: an error may repeat a whole file
_MAX_REFUSAL_BYTES = 1 << 16
_SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
# A server whose machine vanished is noticed after 15 + 3 * 5 seconds.
_KEEPALIVE = (
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
)


def connect(
    kubeconfig: str = "",
    environ: Mapping[str, str] = os.environ,
    account: str = _SERVICE_ACCOUNT,
) -> "Kube | None":
    """The API server of `kubeconfig`; else of the pod that we are; else of
    $KUBECONFIG or ~/.kube/config. None where there is none of these.

    Nothing is asked yet. OSError where what was found cannot be used.
    """
    in_pod = "KUBERNETES_SERVICE_HOST" in environ and os.path.isfile(f"{account}/token")
    if not kubeconfig and not in_pod:
        found = environ.get("KUBECONFIG") or "~/.kube/config"
        paths = [os.path.expanduser(path) for path in found.split(os.pathsep)]
        if not any(os.path.isfile(path) for path in paths):
            return None
        kubeconfig = os.pathsep.join(paths)
    return Kube(_api_client(kubeconfig, environ, account))


def _api_client(kubeconfig: str, environ: Mapping[str, str], account: str) -> Any:
    import urllib3
    import yaml
    from kubernetes import client, config
    from kubernetes.config.incluster_config import InClusterConfigLoader

    configuration = client.Configuration()
    # 35.0.0 reads NO_PROXY and forgets it again.
    configuration.no_proxy = environ.get("no_proxy") or environ.get("NO_PROXY")
    try:
        if kubeconfig:
            config.load_kube_config(kubeconfig, client_configuration=configuration)
        else:
            InClusterConfigLoader(
                f"{account}/token", f"{account}/ca.crt", environ=environ
            ).load_and_set(configuration)
        made = client.ApiClient(configuration)
    except (config.ConfigException, yaml.YAMLError, OSError, ValueError) as err:
        raise OSError(f"{kubeconfig or account}: {_line(err)}") from err
    except (
        TypeError,
        AttributeError,
        LookupError,
        RecursionError,
    ) as err:  # it checks no types
        raise OSError(f"{kubeconfig or account}: no kubeconfig file") from err
    if not configuration.verify_ssl:  # whoever said so need not hear it each time
        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
    pool = made.rest_client.pool_manager
    pool.connection_pool_kw["socket_options"] = list(_KEEPALIVE)
    return made


class Kube:
    """An API server; agent.cluster.api.Api says what the methods promise."""

    def __init__(self, api_client: Any) -> None:
        self._client = api_client
        self._host = str(api_client.configuration.host)
        self._open: set[Any] = set()
        self._closed = False

    def close(self) -> None:
        """End the watches that stand: their readers get an OSError, or the end."""
        self._closed = True
        for response in list(self._open):
            with contextlib.suppress(OSError, ValueError, RuntimeError):
                response.shutdown()

    def get(self, path: str, query: Mapping[str, str], seconds: float) -> Json:
        """A JSON object."""
        with self._translated(), self._asked(path, query, seconds) as response:
            return _object(response.read())

    @contextlib.contextmanager
    def watch(
        self, path: str, query: Mapping[str, str], seconds: float
    ) -> Iterator[Iterator[Json]]:
        """The events of a watch, one a line, as they come."""
        with self._asked(path, query, seconds) as response:
            yield self._lines(response)

    def _lines(self, response: Any) -> Iterator[Json]:
        with self._translated():
            for line in response:
                yield _object(line)

    @contextlib.contextmanager
    def _asked(
        self, path: str, query: Mapping[str, str], seconds: float
    ) -> Iterator[Any]:
        with self._translated():
            response = self._request(path, query, seconds)
        self._open.add(response)
        try:
            if self._closed:
                raise OSError("closed")
            if response.status != _HTTP_OK:
                with self._translated():
                    raise _refused(
                        path, response.status, response.read(_MAX_REFUSAL_BYTES)
                    )
            yield response
        finally:
            self._open.discard(response)
            response.close()

    def _request(self, path: str, query: Mapping[str, str], seconds: float) -> Any:
        from urllib3 import Timeout

        headers = {"Accept": "application/json", "User-Agent": "bigtcp-agent"}
        self._client.update_params_for_auth(headers, [], ["BearerToken"])
        return self._client.rest_client.pool_manager.request(
            "GET",
            self._host + path,
            fields=dict(query),
            headers=headers,
            timeout=Timeout(connect=_CONNECT_SECONDS, read=seconds),
            retries=False,  # when to try again is the watch's to say
            preload_content=False,
        )

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn what the client and urllib3 raise into OSErrors with a sentence."""
        from kubernetes.config import ConfigException
        from urllib3.exceptions import HTTPError

        try:
            yield
        except HTTPError as err:
            raise OSError(f"no API server at {self._host}: {_line(err)}") from err
        except ConfigException as err:
            raise OSError(f"credentials for {self._host}: {_line(err)}") from err


def _object(data: bytes) -> Json:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as err:
        raise OSError("the API server answers no JSON") from err
    if not isinstance(found, dict):
        raise OSError("the API server answers no JSON object")
    return found


def _refused(path: str, status: int, body: bytes) -> RefusedError:
    """With the message of a metav1.Status, where the body is one."""
    try:
        message = str(json.loads(body)["message"])
    except (ValueError, RecursionError, LookupError, TypeError):
        message = http.client.responses.get(status, "no reason given")
    return RefusedError(
        status, printable(f"the API server refuses {path} ({status}): {message}")
    )


def _line(err: BaseException) -> str:
    """The innermost cause, on one line: urllib3 wraps errors in errors."""
    while err.__cause__ or err.__context__:
        err = err.__cause__ or err.__context__ or err
    told = err.strerror if isinstance(err, OSError) and err.strerror else str(err)
    return printable(" ".join(told.split()))[:_MOST_SAID] or type(err).__name__
