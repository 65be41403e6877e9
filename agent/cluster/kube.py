# SPDX-License-Identifier: Apache-2.0
"""The Kubernetes API server, by way of the official client.

The client finds the server and keeps the credentials: service accounts,
kubeconfig files, their plugins, tokens that expire. Requests go straight to its
connection pool, since its models and its Watch (retries of its own, none of them
timed) are of no use here. Importing it takes 0.2 s and 50 MiB, so that waits until
there is a server to ask.

Whatever the server sends, it takes limited memory and time: an answer has at most
MAX_ANSWER_BYTES, an object or an event MAX_OBJECT_BYTES, and only one object of a list
is decoded at a time.
"""

import contextlib
import http.client
import json
import mmap
import os
import socket
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec

from agent.cluster.answer import printable
from agent.cluster.api import Json, RefusedError
from agent.input_files import read_regular_file

MAX_ANSWER_BYTES = 16 << 20
# The API server itself takes no request above 3 MiB, and etcd none above 1.5.
MAX_OBJECT_BYTES = 1 << 20
MAX_OBJECTS = 5000
_MAX_VALUES = 100_000  # of an object; pods have some thousand
_MAX_CREDENTIAL_BYTES = 1 << 20
_READ_BYTES = 1 << 16
_CONNECT_SECONDS = 5.0  # and as long again for TLS
_HEAD_SECONDS = 15.0
_HTTP_OK = 200
_ANSWER_SECONDS = 60.0  # for all of an answer
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
    in_pod = "KUBERNETES_SERVICE_HOST" in environ and os.path.exists(f"{account}/token")
    if not kubeconfig and not in_pod:
        found = environ.get("KUBECONFIG") or "~/.kube/config"
        paths = [os.path.expanduser(path) for path in found.split(os.pathsep)]
        if not any(os.path.exists(path) for path in paths):
            return None
        kubeconfig = os.pathsep.join(path for path in paths if os.path.exists(path))
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
            _require_readable(*kubeconfig.split(os.pathsep))
            _require_readable(*_files_of(yaml, kubeconfig))
            config.load_kube_config(kubeconfig, client_configuration=configuration)
        else:
            token = f"{account}/token"
            _require_readable(token)
            InClusterConfigLoader(
                token, f"{account}/ca.crt", environ=environ
            ).load_and_set(configuration)
            configuration.refresh_api_key_hook = lambda its: its.api_key.update(
                authorization=f"bearer {_service_token(token)}"
            )
        certificates = ("ssl_ca_cert", "cert_file", "key_file")
        files = [getattr(configuration, name) for name in certificates]
        _require_readable(*filter(None, files))
        made = client.ApiClient(configuration)
    except (config.ConfigException, yaml.YAMLError, OSError, ValueError) as err:
        raise OSError(f"{kubeconfig or account}: {_line(err)}") from err
    except (
        TypeError,
        AttributeError,
        LookupError,
        RecursionError,
    ) as err:  # it checks no types
        raise OSError(f"{kubeconfig or account}: not a kubeconfig file") from err
    if not configuration.verify_ssl:  # whoever said so need not hear it each time
        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
    pool = made.rest_client.pool_manager
    pool.connection_pool_kw["socket_options"] = list(_KEEPALIVE)
    pool.pool_classes_by_scheme = _pools_in_time()
    return made


def _require_readable(*paths: str) -> None:
    """OSError where one is missing, too long, or no regular file: the client opens
    them later, and would wait for a FIFO's writer.
    """
    for path in paths:
        if os.path.exists(path):  # of what is missing the client knows what it was for
            read_regular_file(path, _MAX_CREDENTIAL_BYTES)


def _files_of(yaml: Any, kubeconfig: str) -> Iterator[str]:
    """Files that kubeconfig files name. What is odd in them, the client tells."""
    for path in kubeconfig.split(os.pathsep):
        with contextlib.suppress(OSError, TypeError, AttributeError, yaml.YAMLError):
            content = yaml.safe_load(read_regular_file(path, _MAX_CREDENTIAL_BYTES))
            for kind, names in (
                ("cluster", ("certificate-authority",)),
                ("user", ("client-certificate", "client-key", "tokenFile")),
            ):
                for entry in content.get(f"{kind}s") or ():
                    for name in names:
                        if file := (entry.get(kind) or {}).get(name):
                            yield os.path.join(os.path.dirname(path), file)


def _service_token(path: str) -> str:
    """The token of now, for each request: the kubelet renews the file long before
    the old one expires, or at once where the service account was made anew.
    """
    return read_regular_file(path, _MAX_CREDENTIAL_BYTES).decode("ascii").strip()


@contextlib.contextmanager
def _within(seconds: float, end: Callable[[], object], message: str) -> Iterator[None]:
    """OSError with `message` where what is inside takes longer: then `end` is called,
    from another thread, and ends it. Timeouts of a socket begin anew with each byte.
    """
    expired = threading.Event()

    def expire() -> None:
        expired.set()
        with contextlib.suppress(OSError, ValueError, RuntimeError):
            end()

    timer = threading.Timer(seconds, expire)
    timer.daemon = True
    timer.start()
    try:
        yield
    except Exception:
        if expired.is_set():  # whatever that was for who read
            raise OSError(message) from None
        raise
    finally:
        timer.cancel()
    if expired.is_set():
        raise OSError(message)


def _pools_in_time() -> dict[str, Any]:
    """urllib3's pools, with connections on which a response's head ends in time."""
    from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
    from urllib3.connection import HTTPConnection, HTTPSConnection

    def limited(connection: Any, pool: Any) -> Any:
        class Connection(connection):  # type: ignore[misc]
            def getresponse(self) -> Any:
                # A TLS socket's own shutdown() takes its state away from the reader.
                raw, how = self.sock, socket.SHUT_RDWR
                with _within(
                    _HEAD_SECONDS,
                    lambda: socket.socket.shutdown(raw, how),
                    f"the API server sends no complete header in {_HEAD_SECONDS:.0f} s",
                ):
                    return super().getresponse()

        class Pool(pool):  # type: ignore[misc]
            ConnectionCls = Connection

        return Pool

    return {
        "http": limited(HTTPConnection, HTTPConnectionPool),
        "https": limited(HTTPSConnection, HTTPSConnectionPool),
    }


_counted = threading.local()


class _Object(msgspec.Struct):
    """What is read of a Kubernetes object, not yet decoded."""

    metadata: msgspec.Raw = msgspec.Raw()
    spec: msgspec.Raw = msgspec.Raw()
    status: msgspec.Raw = msgspec.Raw()
    data: msgspec.Raw = msgspec.Raw()

    def __post_init__(self) -> None:
        """While the list is read, and not afterwards: it would have no end."""
        _counted.objects += 1
        if _counted.objects > MAX_OBJECTS:
            raise ValueError("too many objects")

    def decoded(self) -> Json:
        """As JSON; OSError where it is longer than an object may be."""
        parts = {name: getattr(self, name) for name in _Object.__struct_fields__}
        if sum(memoryview(raw).nbytes for raw in parts.values()) > MAX_OBJECT_BYTES:
            raise OSError(
                "the API server sends an object of more than "
                f"{MAX_OBJECT_BYTES:,} bytes"
            )
        return {
            name: _parsed(bytes(raw))
            for name, raw in parts.items()
            if memoryview(raw).nbytes
        }


class _Answer(_Object):
    """An object, or a list of them."""

    items: list[_Object] | msgspec.UnsetType | None = msgspec.UNSET

    def __post_init__(self) -> None:
        """It does not count."""

    def decoded(self) -> Json:
        """As JSON; `items` are decoded as they are asked for, once."""
        found = super().decoded()
        if self.items is not msgspec.UNSET:
            if (found.get("metadata") or {}).get("continue"):
                raise OSError("the API server sends an incomplete list")
            found["items"] = (item.decoded() for item in self.items or ())
        return found


class Kube:
    """An API server; agent.cluster.api.Api says what the methods promise."""

    def __init__(self, api_client: Any) -> None:
        self._client = api_client
        self._host = str(api_client.configuration.host)
        self._open: set[Any] = set()
        self._closed = False
        self._long_answer = threading.Lock()  # one is in memory at a time

    def close(self) -> None:
        """End the watches that stand: their readers get an OSError, or the end."""
        self._closed = True
        for response in list(self._open):
            with contextlib.suppress(OSError, ValueError, RuntimeError):
                response.shutdown()

    def get(self, path: str, query: Mapping[str, str], seconds: float) -> Json:
        """What agent.cluster reads of an object, or of a list."""
        with (
            self._translated(),
            self._asked(path, query, seconds, _ANSWER_SECONDS) as response,
        ):
            # Not from the heap, which would keep it. Pages are taken as they are used.
            room = mmap.mmap(-1, MAX_ANSWER_BYTES + _READ_BYTES)
            length, release = 0, None
            try:
                while chunk := response.read1(_READ_BYTES, decode_content=False):
                    room[length : length + len(chunk)] = chunk
                    length += len(chunk)
                    if length > MAX_ANSWER_BYTES:
                        raise OSError(
                            f"the API server's answer to {path} is longer than "
                            f"{MAX_ANSWER_BYTES:,} bytes"
                        )
                    if release is None and length > MAX_OBJECT_BYTES:
                        self._long_answer.acquire()
                        release = self._long_answer.release
                answer = _answer(memoryview(room)[:length])
                if release and "items" in answer:  # when they have been read
                    weakref.finalize(answer["items"], release)
                    release = None
                return answer
            finally:
                if release:
                    release()

    @contextlib.contextmanager
    def watch(
        self, path: str, query: Mapping[str, str], seconds: float
    ) -> Iterator[Iterator[Json]]:
        """The events of a watch, one a line, as they come."""
        with self._asked(path, query, seconds, seconds) as response:
            yield self._lines(response)

    def _lines(self, response: Any) -> Iterator[Json]:
        rest = b""
        with self._translated():
            while chunk := response.read1(_READ_BYTES, decode_content=False):
                lines = (rest + chunk).split(b"\n")
                rest = lines.pop()
                for line in lines:
                    yield _object(line)
                if len(rest) > MAX_OBJECT_BYTES:
                    raise OSError(
                        "the API server sends an event of more than "
                        f"{MAX_OBJECT_BYTES:,} bytes"
                    )
        if rest:
            yield _object(rest)

    @contextlib.contextmanager
    def _asked(
        self, path: str, query: Mapping[str, str], seconds: float, whole: float
    ) -> Iterator[Any]:
        """A response that may be silent for `seconds`, and takes no longer than `whole`
        in all.
        """
        with self._translated():
            response = self._request(path, query, seconds)
        self._open.add(response)
        try:
            if self._closed:
                raise OSError("the connection is closed")
            with (
                self._translated(),
                _within(
                    whole,
                    response.shutdown,
                    f"the API server's answer to {path} takes more than {whole:.0f} s",
                ),
            ):
                encoding = response.headers.get("Content-Encoding", "identity")
                if encoding.lower() != "identity":
                    raise OSError(
                        f"the API server's answer to {path} has the encoding "
                        f"{printable(encoding)[:_MOST_SAID]}, which is not accepted"
                    )
                if response.status != _HTTP_OK:
                    body = response.read(_MAX_REFUSAL_BYTES, decode_content=False)
                    raise _refused(path, response.status, body)
                yield response
        finally:
            self._open.discard(response)
            response.close()

    def _request(self, path: str, query: Mapping[str, str], seconds: float) -> Any:
        from urllib3 import Timeout

        headers = {
            "Accept": "application/json",
            "Accept-Encoding": "identity",  # a few bytes of gzip are any number of ours
            "User-Agent": "bigtcp-agent",
        }
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
            raise OSError(f"no credentials for {self._host}: {_line(err)}") from err


def _answer(content: memoryview) -> Json:
    _counted.objects = 0
    try:
        answer = msgspec.json.decode(content, type=_Answer)
    except msgspec.ValidationError as err:
        if _counted.objects > MAX_OBJECTS:
            raise OSError(
                f"the API server lists more than {MAX_OBJECTS:,} objects"
            ) from err
        raise OSError(f"the API server's answer is not a JSON object: {err}") from err
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as err:
        raise OSError("the API server's answer is not JSON") from err
    return answer.decoded()


def _parsed(data: bytes) -> Any:
    """Any JSON. Three bytes of `[],` take 64 of memory: so values are counted first."""
    if sum(data.count(byte) for byte in (b",", b"[", b"{")) > _MAX_VALUES:
        raise OSError(f"the API server sends an object of over {_MAX_VALUES:,} values")
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as err:
        raise OSError("the API server's answer is not JSON") from err


def _object(data: bytes) -> Json:
    found = _parsed(data)
    if not isinstance(found, dict):
        raise OSError("the API server's answer is not a JSON object")
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
    while inner := err.__cause__ or (
        None if err.__suppress_context__ else err.__context__
    ):
        err = inner
    told = err.strerror if isinstance(err, OSError) and err.strerror else str(err)
    return printable(" ".join(told.split()))[:_MOST_SAID] or type(err).__name__
