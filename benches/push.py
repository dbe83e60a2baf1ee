"""Pushing a closure."""

import sys


class Push:
    """Pushing the closure, by cache-helper and by the best that `nix copy` can do."""

    def __init__(self, machine, title, note, url, cache, again=False):
        self.machine, self.title, self.note, self.cache, self.again = machine, title, note, cache, again
        settings = f"compression=zstd&compression-level=3&parallel-compression=true&secret-key={machine.key}"
        self.programs = {
            "cache-helper": ["cache-helper", "push-closure", "--to", url, "--sign-key-file", machine.key, machine.result],
            "nix copy": ["nix", "copy", "--to", f"{url}?{settings}", machine.result],
        }

    def run_once(self, name):
        command = self.programs[name]
        if not self.again:
            self.cache.clear()
            self.machine.forget_answers()
        run = self.machine.measure(command)
        written = self.cache.narinfos()
        if written != len(self.machine.paths):
            sys.exit(f"bench: {name} wrote {written} of {len(self.machine.paths)} narinfos")
        run.stored = self.cache.stored_bytes()
        return run

    def run(self, runs):
        """Name -> list of runs, in turn."""
        measured = {name: [] for name in self.programs}
        for number in range(runs + 1):
            for name in self.programs:
                once = self.run_once(name)
                if number > 0:
                    measured[name].append(once)
                print(f"  {name}: {once.wall:.2f} s", file=sys.stderr)
        return measured
