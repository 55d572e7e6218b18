"""HTTP over DTP with nothing but the standard library: its `http.server` and its `http.client`, as they are.

The client's identity takes the place of cookies and passwords: it has proven it before the first request.
"""

import http.client
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler

import dtp


class Greeter(BaseHTTPRequestHandler):
    """Answers with the name of whoever asks."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = f"Hello {self.client_address[0]}, you asked for {self.path}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


class Client(http.client.HTTPConnection):
    """An HTTP connection to a DTP address."""

    def __init__(self, address: dtp.Address, identity: dtp.Identity) -> None:
        super().__init__("dtp")
        self._dtp = address, identity

    def connect(self) -> None:
        address, identity = self._dtp
        self.sock = dtp.socket.create_connection(address, timeout=30, identity=identity)


def serve(server: "dtp.socket.Server", threads: ThreadPoolExecutor) -> None:
    """Answer every stream that is opened, each in a thread, until the server is closed."""
    while True:
        try:
            sock, name = server.accept()
        except OSError:
            return
        threads.submit(answer, sock, name, server)


def answer(sock: "dtp.socket.Socket", name: object, server: "dtp.socket.Server") -> None:
    """Answer the requests of one connection."""
    with sock:
        Greeter(sock, name, server)  # type: ignore[arg-type]  # typeshed wants the class `socket.socket` itself


def main() -> None:
    me, you = dtp.Identity.generate(), dtp.Identity.generate()
    with (
        ThreadPoolExecutor() as threads,
        dtp.socket.create_server("tcp://127.0.0.1:0", identity=you, service="web") as server,
    ):
        threads.submit(serve, server, threads)
        client = Client(server.address, me)
        for path in ("/one", "/two"):  # both over one connection
            client.request("GET", path)
            response = client.getresponse()
            text = response.read().decode()
            assert str(me.id) in text
            print(response.status, text.rstrip())
        client.close()


if __name__ == "__main__":
    main()
