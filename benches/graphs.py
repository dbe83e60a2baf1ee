"""Loading build graphs, and comparing them."""

import hashlib
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import textwrap

from machine import KEPT, ROOT, seconds


class Graph:
    """Loading the build graph of some thousand real derivations, and Nix saying what they are."""

    COUNT = 5300

    def __init__(self, machine):
        self.machine = machine
        self.title = "What some thousand derivations are"
        self.environment = machine.store_environment(os.path.join(KEPT, f"graph-{self.COUNT}"))
        self.pairs = [
            ("cache-helper graph", "nix derivation show -r"),
            ("cache-helper graph", "nix-store -qR"),
            ("cache-helper graph --json", "nix derivation show -r"),
        ]

    def run(self, runs):
        """Name -> list of runs, in turn."""
        arguments = ["--arg", "count", str(self.COUNT), "--arg", "bytes", "3000"]
        command = ["nix-instantiate", os.path.join(ROOT, "tests", "graphs"), *arguments]
        outcome = subprocess.run(command, env=self.environment, stdout=subprocess.PIPE, text=True, check=True)
        drv = outcome.stdout.strip()
        show = ["nix", "derivation", "show"] if self.machine.is_newest else ["nix", "show-derivation"]
        programs = {
            "cache-helper graph": ["cache-helper", "graph", drv],
            "cache-helper graph --json": ["cache-helper", "graph", "--json", drv],
            "nix derivation show -r": [*show, "--recursive", drv],
            "nix-store -qR": ["nix-store", "--query", "--requisites", drv],
        }
        measured = {name: [] for name in programs}
        for number in range(runs + 1):
            for name, command in programs.items():
                once = self.machine.measure(command, self.environment)
                once.stored = 0
                if number > 0:
                    measured[name].append(once)
                print(f"  {name}: {once.wall:.3f} s", file=sys.stderr)
        summary = subprocess.run([*programs["cache-helper graph --json"]], env=self.environment, stdout=subprocess.PIPE, check=True)
        summary = json.loads(summary.stdout)["summary"]
        if summary["derivations"] != self.COUNT:
            sys.exit(f"bench: a graph of {summary['derivations']} derivations, and not {self.COUNT}")
        self.note = textwrap.fill(
            f"{self.COUNT} derivations made by Nix (`tests/graphs`), {summary['drvBytes'] / 1e6:.0f} MB of `.drv` files with"
            f" {summary['edges']} edges, read from memory. `cache-helper graph` and `nix-store -qR` tell what is there,"
            " `cache-helper graph --json` and `nix derivation show -r` all that every derivation says.", 125)
        return measured


class Diff:
    """Comparing two graphs in which nearly everything differs because of one derivation, and what one would do without."""

    COUNT = 20_014
    BYTES = 1000

    def __init__(self, machine):
        self.machine = machine
        self.title = "One changed word, and everything rebuilt"
        self.environment = machine.store_environment(os.path.join(KEPT, f"diff-{self.COUNT}"))

    def make(self, seed):
        """The derivation at the top."""
        arguments = ["--arg", "count", str(self.COUNT), "--arg", "bytes", str(self.BYTES), "--argstr", "seed", seed]
        command = ["nix-instantiate", os.path.join(ROOT, "tests", "graphs"), *arguments]
        outcome = subprocess.run(command, env=self.environment, stdout=subprocess.PIPE, text=True, check=True)
        return outcome.stdout.strip()

    def run(self, runs):
        """Name -> list of runs, in turn."""
        old, new = self.make("-O2 -g"), self.make("-O3 -g")
        # Line by line, or there is but one line that differs. The older one knows nothing else.
        show = "nix derivation show --pretty" if self.machine.is_newest else "nix show-derivation"
        with tempfile.TemporaryDirectory() as directory:
            saved = [f"{directory}/old.json", f"{directory}/new.json"]
            for drv, file in zip((old, new), saved):
                with open(file, "w", encoding="utf-8") as output:
                    subprocess.run(["cache-helper", "graph", "--json", drv], env=self.environment, stdout=output, check=True)
            by_hand = f"{show} -r {old} >{directory}/a; {show} -r {new} >{directory}/b; diff {directory}/a {directory}/b"
            programs = {
                "cache-helper diff": ["cache-helper", "diff", old, new],
                "cache-helper diff of saved graphs": ["cache-helper", "diff", *saved],
                "nix derivation show -r and diff": ["sh", "-c", by_hand],
            }
            if has_nix_diff := shutil.which("nix-diff"):
                programs["nix-diff"] = ["nix-diff", "--color", "never", old, new]
            measured = {name: [] for name in programs}
            for number in range(runs + 1):
                for name, command in programs.items():
                    # nix-diff tells no difference by its status.
                    once = self.machine.measure(command, self.environment, 0 if name == "nix-diff" else 1)
                    once.stored = 0
                    if number > 0:
                        measured[name].append(once)
                    print(f"  {name}: {once.wall:.2f} s", file=sys.stderr)
            lines = subprocess.run(["sh", "-c", by_hand], env=self.environment, stdout=subprocess.PIPE, check=False).stdout.count(b"\n")
        found = subprocess.run([*programs["cache-helper diff"], "--json"], env=self.environment, stdout=subprocess.PIPE, check=False)
        found = json.loads(found.stdout)
        names = [difference["new"]["name"] for difference in found["differences"]]
        if names != ["seed"] or found["rebuilds"] < 20_000:
            sys.exit(f"bench: {names} differ and {found['rebuilds']} are rebuilt")
        self.pairs = [(name, other) for name in list(programs)[:1] for other in list(programs)[2:]]
        self.note = textwrap.fill(
            f"Two graphs of {found['new']['derivations']} derivations made by Nix (`tests/graphs`), read from memory: a word of one derivation"
            f" has changed, and {found['rebuilds']} are rebuilt because of it. `cache-helper diff` names that derivation, the word and the number."
            f" The way by hand, `nix derivation show -r` of both and `diff`, gives {lines} lines."
            + ("" if has_nix_diff else " `nix-diff` would be measured too where it is on `PATH`; here it is not."), 125)
        return measured


class Curve:
    """How the time and memory of loading a graph grow with it."""

    COUNTS = [1000, 5000, 20000, 100000]
    ALPHABET = "0123456789abcdfghijklmnpqrsvwxyz"

    def __init__(self, machine):
        self.machine = machine

    def path(self, name):
        """A path whose hash part is as good as Nix's: nobody checks it."""
        digest = hashlib.sha256(name.encode()).digest()
        return "/bench/store/" + "".join(self.ALPHABET[byte % 32] for byte in digest) + "-" + name

    def write(self, directory, count, width=40):
        """Writes derivations like those of tests/graphs, which Nix would take minutes for, and gives the file at the top."""
        text = "install -m 644 \\\"$src/share/file\\\" \\\"$out/share\\\"\\n" * 85
        source = self.path("builder.sh")
        outputs = lambda n: ["dev", "out"] if n % 3 == 1 and n >= width else ["out"]
        for n in range(count):
            name = f"node-{n}" if n < count - 1 else "top"
            row = n - n % width
            needed = {n - width, *((n * 7919 + j * 104729) % row for j in range(6))} if n >= width else set()
            if name == "top":
                needed = set(range(max(0, n - width), n))
            inputs = sorted((self.path(f"node-{other}.drv"), outputs(other)[0]) for other in needed)
            made = [(output, self.path(name if output == "out" else f"{name}-{output}")) for output in outputs(n)]
            with open(os.path.join(directory, os.path.basename(self.path(f"{name}.drv"))), "w", encoding="utf-8") as file:
                file.write("Derive([" + ",".join(f'("{output}","{path}","","")' for output, path in made) + "],["
                           + ",".join(f'("{path}",["{output}"])' for path, output in inputs)
                           + f'],["{source}"],"x86_64-linux","/bin/sh",["-e","{source}"],[("builder","/bin/sh"),("name","{name}"),'
                           + "".join(f'("{output}","{path}"),' for output, path in made)
                           + f'("system","x86_64-linux"),("text","{text}")])')
        return file.name

    def run(self, runs):
        """The section of the page."""
        lines = ["### How it grows", "", textwrap.fill(
            "Files like those above, written by this script without Nix, and read from memory. The peak is the kernel's high-water mark"
            " of the process; some 6 MiB of it are the program itself.", 125), "",
            "| derivations | `.drv` files | `graph`: wall, median (least to most) | a derivation | peak memory"
            " | `graph --json`: wall | peak memory |", "|---|---|---|---|---|---|---|"]
        for count in self.COUNTS:
            with tempfile.TemporaryDirectory() as directory:
                top = self.write(directory, count)
                size = sum(entry.stat().st_size for entry in os.scandir(directory))
                row = f"| {count} | {size / 1e6:.0f} MB |"
                for words in ([], ["--json"]):
                    command = ["cache-helper", "graph", *words, top]
                    walls = [self.machine.measure(command).wall for _ in range(runs + 1)][1:]
                    median = statistics.median(walls)
                    print(f"  {count} {' '.join(words)}: {median:.3f} s", file=sys.stderr)
                    row += f" {seconds(median)} s ({seconds(min(walls))} to {seconds(max(walls))}) |"
                    row += "" if words else f" {median / count * 1e6:.1f} µs |"
                    row += f" {self.peak(command) / 2**20:.0f} MiB |"
                lines.append(row)
        return "\n".join([*lines, ""])

    def peak(self, command):
        """The most memory that a process had, as the kernel says until it ends. (`wait4` counts what this script has.)"""
        process = subprocess.Popen(command, env=self.machine.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        most = 0
        while True:
            with open(f"/proc/{process.pid}/status", encoding="utf-8") as status:
                found = re.search(r"^VmHWM:\s*(\d+) kB", status.read(), re.M)
            if found is None:
                process.wait()
                return most
            most = int(found[1]) * 1024
