"""Asking a cache for thousands of paths, beside us and far away."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import textwrap

from machine import KEPT, ROOT, Nginx, shell

# A hash that nobody checks: the NARs behind these narinfos are not there.
HASH = "0" * 52


class Server:
    """The caches of a directory behind nginx, over HTTP/1.1 or, with TLS, HTTP/2; on the spot, or a round trip away."""

    def __init__(self, nginx, milliseconds):
        self.url, self.proxy = nginx.url, None
        if milliseconds:
            target = shell(". scripts/lib.sh; target_directory")
            program = os.path.join(target, "release", "examples", "delaying-proxy")
            address = self.url.split("//")[1].replace("localhost", "127.0.0.1")
            self.proxy = subprocess.Popen([program, address, str(milliseconds)], stdout=subprocess.PIPE, text=True)
            port = self.proxy.stdout.readline().strip().split(":")[1]
            self.url = f"{self.url.rsplit(':', 1)[0]}:{port}"

    def close(self):
        if self.proxy:
            self.proxy.terminate()
            self.proxy.wait()


class Width:
    """Auditing a graph of so many derivations against caches that have all of it, or nothing."""

    def __init__(self, machine, title, count, milliseconds, peer_runs):
        self.machine, self.title, self.count, self.milliseconds = machine, title, count, milliseconds
        # Nix asks one after the other, and a minute of that is enough.
        self.peer_runs = peer_runs
        self.pairs = []
        self.note = textwrap.fill(
            f"A graph of {count} derivations (`tests/graphs`), each with one output that others want, and caches behind nginx with"
            " its usual settings, so that it closes every connection after 1,000 requests. Every narinfo is signed, and each signature"
            " checked. `nix path-info` asks for the same paths"
            + ("; it was run once" if peer_runs == 1 else "") + ".", 125)
        self.directory = os.path.join(KEPT, f"width-{count}")
        self.environment = machine.store_environment(os.path.join(self.directory, "store"))

    def ask(self, *command):
        return subprocess.run(command, env=self.environment, stdout=subprocess.PIPE, text=True, check=True).stdout

    def prepare(self):
        """The graph, and its caches: narinfos as of real builds, signed, without NARs."""
        self.drv = self.ask("nix-instantiate", os.path.join(ROOT, "tests", "graphs"), "--arg", "count", str(self.count)).strip()
        document = json.loads(self.ask("cache-helper", "graph", "--json", self.drv))
        self.outputs = {}
        full, empty = (os.path.join(self.directory, name) for name in ("full", "empty"))
        for cache in (full, empty):
            shutil.rmtree(cache, ignore_errors=True)
            os.makedirs(cache)
            with open(os.path.join(cache, "nix-cache-info"), "w", encoding="utf-8") as file:
                file.write(f"StoreDir: {document['storeDir']}\n")
        wanted = set()
        for one in document["derivations"]:
            references = {self.outputs[needed["drv"], output] for needed in one["inputs"] for output in needed["outputs"]}
            wanted |= references
            for output in one["outputs"]:
                self.outputs[one["drv"], output["name"]] = output["path"]
                name = os.path.basename(output["path"])
                with open(os.path.join(full, f"{name[:32]}.narinfo"), "w", encoding="utf-8") as file:
                    file.write(f"StorePath: {output['path']}\nURL: nar/{HASH}.nar.zst\nCompression: zstd\nFileHash: sha256:{HASH}\n"
                               f"FileSize: 1\nNarHash: sha256:{HASH}\nNarSize: 1\n"
                               f"References: {' '.join(sorted(map(os.path.basename, references)))}\nDeriver: {os.path.basename(one['drv'])}\n")
        self.wanted = sorted(wanted | {output["path"] for output in document["derivations"][-1]["outputs"]})
        self.ask("nix", "store", "sign", "--key-file", self.machine.key, "--store", f"file://{full}", "--all")

    def audit(self, url, settings, environment, found):
        """A command that audits, and finds what it should."""
        command = ["cache-helper", "audit", "--json", "--assume-empty-store", "--cache", url, *settings, self.drv]
        outcome = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        totals = json.loads(outcome.stdout)["totals"]
        if totals[found] + totals["fixedOutput"] != self.count:
            sys.exit(f"bench: {url}: {totals}")
        return command

    def run(self, runs):
        """Name -> list of runs."""
        self.prepare()
        with open(self.machine.key + ".public", encoding="utf-8") as file:
            settings = ["--option", "trusted-public-keys", file.read().strip()]
        measured = {}
        with contextlib.ExitStack() as stack:
            for protocol in ("HTTP/1.1", "HTTP/2"):
                nginx = Nginx(self.directory, tls=protocol == "HTTP/2")
                stack.callback(nginx.close)
                server = Server(nginx, self.milliseconds)
                stack.callback(server.close)
                environment = {**self.environment, "NIX_SSL_CERT_FILE": nginx.authority}
                for which, found in (("full", "hits"), ("empty", "misses")):
                    command = self.audit(f"{server.url}/{which}", settings, environment, found)
                    name = f"audit, {protocol}, a cache that has {'everything' if which == 'full' else 'nothing'}"
                    measured[name] = self.measure(command, environment, runs)
                if protocol == "HTTP/1.1":
                    command = ["nix", "path-info", "--json", "--refresh", "--store", f"{server.url}/full", *self.wanted]
                    name = f"nix path-info, {protocol}, a cache that has everything"
                    measured[name] = self.measure(command, environment, min(self.peer_runs, runs))
        return measured

    def measure(self, command, environment, runs):
        measured = []
        for _ in range(runs):
            # Nix remembers what it has asked.
            shutil.rmtree(os.path.join(self.environment["XDG_CACHE_HOME"], "nix"), ignore_errors=True)
            measured.append(self.machine.measure(command, environment))
            measured[-1].stored = 0
            print(f"  {command[0]} {command[1]}: {measured[-1].wall:.2f} s", file=sys.stderr)
        return measured
