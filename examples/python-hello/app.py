"""Says hello on $PORT; needs nothing but Python itself."""

import os
import platform
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Hello(BaseHTTPRequestHandler):
    def do_GET(self):
        body = (
            "Hello from daeploy\n"
            f"python {platform.python_version()} on {platform.machine()}\n"
            f"host {platform.node()}, user {os.getuid()}\n"
        ).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    port = int(os.environ.get("PORT", "8080"))
    print(f"listening on port {port}", flush=True)
    ThreadingHTTPServer(("", port), Hello).serve_forever()
