"""Certificates, nginx and an environment without proxies for the tests of carriers."""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import trustme


@dataclass(frozen=True)
class Certificates:
    """PEM files: an authority, a certificate of it for 127.0.0.1 with key, and an authority that signed
    nothing."""

    ca: Path
    server: Path
    other_ca: Path


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    folder = tmp_path_factory.mktemp("certificates")
    authority, other = trustme.CA(), trustme.CA()
    found = Certificates(folder / "ca.pem", folder / "server.pem", folder / "other.pem")
    authority.cert_pem.write_to_path(found.ca)
    other.cert_pem.write_to_path(found.other_ca)
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(found.server)
    return found


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever proxies the machine uses are not part of these tests."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "ws_proxy", "wss_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@dataclass(frozen=True)
class Nginx:
    """A running nginx that passes `/PORT/path` on to port PORT of this machine."""

    port: int

    def through(self, url: str) -> str:
        """The URL that leads through nginx to the WebSocket listener at `url`."""
        parts = urlsplit(url)
        return f"ws://127.0.0.1:{self.port}/{parts.port}{parts.path or '/'}"


_NGINX_CONFIG = """
daemon off;
pid {folder}/pid;
error_log stderr warn;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port};
        location ~ ^/(\\d+)(/.*)$ {{
            proxy_pass http://127.0.0.1:$1$2;
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection "Upgrade";
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        }}
    }}
}}
"""


@pytest.fixture(scope="session")
def nginx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    """A child nginx on a port of its own, ended afterwards. It inherits its listening socket, as it would
    when it is upgraded in place, so nothing has to wait until it is ready. (With a master process: nginx 1.22
    crashes when it inherits sockets without.)"""
    program = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if program is None:
        pytest.skip("nginx not installed")
    folder = tmp_path_factory.mktemp("nginx")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        (folder / "nginx.conf").write_text(_NGINX_CONFIG.format(folder=folder, port=port))
        child = subprocess.Popen(
            [program, "-p", str(folder), "-c", str(folder / "nginx.conf")],
            env={**os.environ, "NGINX": f"{listening.fileno()};"},
            pass_fds=[listening.fileno()],
            stderr=subprocess.DEVNULL,
        )
    try:
        yield Nginx(port)
    finally:
        child.terminate()
        child.wait()
