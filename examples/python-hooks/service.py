"""Answers every request with a banner that figlet, a Debian package, draws."""

import os
import subprocess
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Banner(BaseHTTPRequestHandler):
    def do_GET(self):
        body = subprocess.run(["figlet", "Hello from daeploy"], check=True, capture_output=True).stdout
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    ThreadingHTTPServer(("", int(os.environ["PORT"])), Banner).serve_forever()
