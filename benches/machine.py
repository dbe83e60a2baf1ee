"""What the benchmarks run on: programs, stores, caches and servers, and a stopwatch."""

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
KEPT = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "cache-helper", "bench")

NGINX = """
daemon off; master_process off; worker_processes 1; {user}
pid {work}/pid; error_log {work}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log off; client_max_body_size 0; client_body_temp_path {work}/body;
  proxy_temp_path {work}/proxy; fastcgi_temp_path {work}/fastcgi; uwsgi_temp_path {work}/uwsgi; scgi_temp_path {work}/scgi;
  server {{
    listen 127.0.0.1:{port} {how}; root {root};{certificate}
    location / {{ dav_methods PUT; create_full_put_path on; }}
  }}
}}
"""


class Run:
    """What one run of a program took: seconds, seconds of processor time, and its largest process in bytes."""

    def __init__(self, wall, usage):
        self.wall = wall
        self.processor = usage.ru_utime + usage.ru_stime
        self.memory = usage.ru_maxrss * 1024


class Cache:
    """An empty place for a cache, and what was written into it."""

    def __init__(self, directory):
        self.directory = directory

    def clear(self):
        shutil.rmtree(self.directory, ignore_errors=True)
        os.makedirs(self.directory)
        # What the last run wrote must not be written back to the disk during the next.
        os.sync()

    def narinfos(self):
        return sum(name.endswith(".narinfo") for name in os.listdir(self.directory))

    def stored_bytes(self):
        nars = os.path.join(self.directory, "nar")
        return sum(entry.stat().st_size for entry in os.scandir(nars)) if os.path.isdir(nars) else 0


class Nginx:
    """nginx with WebDAV, as the distribution has it, in front of a directory."""

    def __init__(self, directory, tls=False):
        self.work = tempfile.mkdtemp()
        self.authority = self.make_certificate() if tls else ""
        how = "ssl http2" if tls else ""
        certificate = f" ssl_certificate {self.work}/certificate; ssl_certificate_key {self.work}/key;" if tls else ""
        while True:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = probe.getsockname()[1]
            user = "user root;" if os.geteuid() == 0 else ""
            with open(f"{self.work}/nginx.conf", "w", encoding="utf-8") as config:
                config.write(NGINX.format(work=self.work, root=directory, port=port, user=user, how=how, certificate=certificate))
            command = ["nginx", "-p", self.work, "-e", f"{self.work}/error.log", "-c", f"{self.work}/nginx.conf"]
            self.process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
            while self.process.poll() is None:
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        self.url = f"https://localhost:{port}" if tls else f"http://127.0.0.1:{port}"
                        return
            with open(f"{self.work}/error.log", encoding="utf-8") as log:
                words = log.read()
            if "Address already in use" not in words:
                sys.exit(f"bench: nginx does not start: {words.strip()}")

    def make_certificate(self):
        """Makes a certificate for localhost, and gives the file of the authority that signs it."""
        shell(f"""
            cd {self.work}
            new='openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes'
            $new -x509 -keyout authority-key -out authority -days 30 -subj /CN=authority
            $new -keyout key -out request -subj /CN=localhost
            openssl x509 -req -in request -CA authority -CAkey authority-key -CAcreateserial -out certificate -days 30 \\
                -extfile <(printf 'subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\n')
        """)
        return f"{self.work}/authority"

    def close(self):
        self.process.terminate()
        self.process.wait()
        shutil.rmtree(self.work)


class Machine:
    """What the benchmarks run on: programs, the environment of a store of our own, and the closure in it."""

    def __init__(self, packages, nix):
        self.packages = packages
        run(["scripts/setup", "bench"])
        run(["cargo", "build", "--release", "--locked", "--bins", "--examples"])
        self.nix = nix or newest_nix()
        target = shell(". scripts/lib.sh; target_directory")
        search = [os.path.join(target, "release"), self.nix, *os.environ["PATH"].split(":"), "/usr/sbin"]
        os.environ["PATH"] = ":".join(search)
        self.directory = os.path.join(KEPT, re.sub(r"[^a-z0-9]+", "-", packages or "shell"))
        self.environment = self.store_environment(f"{self.directory}/store")
        self.version = self.ask("nix", "--version").strip()
        self.is_newest = "json-format" in self.ask("nix", "path-info", "--help")
        self.result = self.build_closure()
        self.paths = self.ask("nix-store", "--query", "--requisites", self.result).split()
        sizes = self.ask("nix-store", "--query", "--size", *self.paths)
        self.nar_bytes = sum(map(int, sizes.split()))
        self.key = os.path.join(self.directory, "key")
        if not os.path.exists(self.key):
            self.ask("nix-store", "--generate-binary-cache-key", "bench-1", self.key, self.key + ".public")

    def instantiate(self):
        """Writes the derivations of the closure to the store."""
        self.ask("nix-instantiate", os.path.join(self.directory, "expression"), "-A", "all")

    @contextlib.contextmanager
    def empty_store(self):
        """The same store directory with nothing in it; what was there comes back."""
        places = [self.environment[name] for name in ("NIX_STORE_DIR", "NIX_STATE_DIR", "NIX_LOG_DIR")]
        for place in places:
            os.rename(place, place + ".aside")
            os.mkdir(place)
        try:
            yield
        finally:
            for place in places:
                run(["chmod", "-R", "u+w", place])
                shutil.rmtree(place)
                os.rename(place + ".aside", place)

    @staticmethod
    def store_environment(directory):
        script = f'. scripts/lib.sh; use_store_in "{directory}" && env -0'
        pairs = subprocess.run(["bash", "-c", script], cwd=ROOT, capture_output=True, check=True).stdout
        return dict(pair.split("=", 1) for pair in pairs.decode().split("\0") if pair)

    def build_closure(self):
        expression = os.path.join(self.directory, "expression")
        packages = self.packages.split(",") if self.packages else []
        if not os.path.exists(os.path.join(expression, "default.nix")):
            run(["scripts/deb-closure", expression, *packages])
        show(["nix", "build", "--file", expression, "all"])
        return self.ask("nix-build", "--no-out-link", expression, "-A", "all").strip()

    def ask(self, *command):
        outcome = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
        if outcome.returncode != 0:
            sys.exit(f"bench: {' '.join(command)}\n{outcome.stderr}")
        return outcome.stdout

    def forget_answers(self):
        """Nix remembers for a month what a cache had, and would not write to one that was emptied since."""
        shutil.rmtree(os.path.join(self.environment["XDG_CACHE_HOME"], "nix"), ignore_errors=True)

    def measure(self, command, environment=None, expected=0):
        """Runs a command with its output in a file, and gives a Run. It has to end with the expected status."""
        with tempfile.TemporaryFile() as output:
            began = time.monotonic()
            process = subprocess.Popen(command, env=environment or self.environment, stdout=output, stderr=output,
                                       stdin=subprocess.DEVNULL)
            _, status, usage = os.wait4(process.pid, 0)
            wall = time.monotonic() - began
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode != expected:
                output.seek(0)
                sys.exit(f"bench: {' '.join(command)} ended with {process.returncode}\n{output.read().decode()}")
        return Run(wall, usage)


def newest_nix():
    outcome = subprocess.run(["scripts/nix-release"], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if outcome.returncode == 0:
        return outcome.stdout.strip()
    if outcome.returncode != 69:
        sys.exit(outcome.returncode)
    print("bench: the newest Nix cannot be had here; the Nix on PATH is measured", file=sys.stderr)
    return shell(". scripts/lib.sh; nix_directories | head -n 1")


def show(command):
    print("$", *command, file=sys.stderr)


def run(command):
    show(command)
    if (status := subprocess.run(command, cwd=ROOT, check=False).returncode) != 0:
        sys.exit(status)


def shell(script):
    return subprocess.run(["bash", "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


def seconds(value):
    """Two digits that mean something, also of what is over in a moment."""
    return f"{value:.2f}" if value >= 0.1 else f"{value:.3f}"
