"""Auditing a closure."""

import json
import os
import random
import re
import subprocess
import sys


class Audit:
    """Auditing a cache that has lost a tenth of its narinfos, and Nix as the judge of what was predicted."""

    def __init__(self, machine, url, cache):
        self.machine, self.url, self.cache = machine, url, cache
        self.title = "A cache that has lost a tenth of its narinfos"
        self.drv = machine.ask("nix-store", "--query", "--deriver", machine.result).strip()
        with open(machine.key + ".public", encoding="utf-8") as file:
            self.settings = ["--option", "trusted-public-keys", file.read().strip()]
        self.audit = ["cache-helper", "audit", "--json", "--assume-empty-store", "--cache", url, *self.settings]
        self.programs = {
            "cache-helper audit": [*self.audit, f"{self.drv}^out"],
            # It asks the same paths, and nothing else: no signatures, no reasons, no graph.
            "nix path-info": ["nix", "path-info", "--json", "--json-format", "1", "--refresh", "--store", url, *machine.paths],
        }
        if not machine.is_newest:
            self.programs["nix path-info"] = [word for word in self.programs["nix path-info"] if word not in ("--json-format", "1")]

    def run(self, runs):
        """Name -> list of runs, in turn."""
        self.cache.clear()
        self.machine.ask("cache-helper", "push-closure", "--to", self.url, "--sign-key-file", self.machine.key, self.machine.result)
        narinfos = sorted(name for name in os.listdir(self.cache.directory) if name.endswith(".narinfo"))
        lost = random.Random(20261124).sample(narinfos, len(narinfos) // 10)
        for name in lost:
            os.remove(os.path.join(self.cache.directory, name))
        measured = {name: [] for name in self.programs}
        for number in range(runs + 1):
            for name, command in self.programs.items():
                self.machine.forget_answers()
                once = self.machine.measure(command)
                once.stored = 0
                if number > 0:
                    measured[name].append(once)
                print(f"  {name}: {once.wall:.2f} s", file=sys.stderr)
        report = json.loads(self.machine.ask(*self.programs["cache-helper audit"]))
        self.note = self.judge(report, len(lost), len(narinfos))
        return measured

    def judge(self, report, lost, all_narinfos):
        """Lets Nix realise the target from an empty store, and compares what it builds and fetches."""
        maker = {output["path"]: one["drv"] for one in report["derivations"] for output in one["outputs"]}
        predicted = {
            "built": {one["drv"] for one in report["derivations"] if one["nix"] == "build"},
            "fetched": {one["drv"] for one in report["derivations"] if one["nix"] in ("fetch", "build-then-fetch")},
        }
        with self.machine.empty_store():
            self.machine.instantiate()
            command = ["nix-store", "--realise", self.drv, "--option", "substituters", self.url, *self.settings]
            outcome = subprocess.run(command, env=self.machine.environment, capture_output=True, text=True, check=False)
        if outcome.returncode != 0:
            sys.exit(f"bench: {' '.join(command)}\n{outcome.stderr}")
        built = set(re.findall(r"^building '([^']*)'", outcome.stderr, re.M))
        copied = {maker[path] for path in re.findall(r"^copying path '([^']*)'", outcome.stderr, re.M)}
        did = {"built": built, "fetched": copied - built}
        for what, drvs in predicted.items():
            if drvs != did[what]:
                sys.exit(f"bench: predicted and {what}: {sorted(drvs ^ did[what])} differ")
        totals = report["totals"]
        return (f"{lost} of {all_narinfos} narinfos are gone. The audit finds {totals['hits']} hits and {totals['misses']} misses,"
                f" {totals['rootMisses']} of them\nroots, and predicts {len(predicted['built'])} derivations built and"
                f" {len(predicted['fetched'])} fetched; {self.machine.version}, from an empty store, then builds\nand fetches exactly"
                " those. `nix path-info` asks the same paths for comparison; it knows no reasons.")
