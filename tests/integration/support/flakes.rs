//! Small flakes, each in a store of its own.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::nix::{Nix, Store};
use super::program::Run;

/// The system of this machine, as Nix names it. These tests run on Linux.
pub(crate) fn system() -> String {
    format!("{}-linux", std::env::consts::ARCH)
}

/// What stands in for nixpkgs.
pub(crate) fn stand_in() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/nixpkgs")
}

/// A flake, a store, and a cache that is not there yet.
#[derive(Debug)]
pub(crate) struct Project {
    /// The store.
    pub(crate) store: Store,
    /// The flake's directory, which is no repository.
    pub(crate) dir: PathBuf,
    /// The cache's directory.
    pub(crate) cache: PathBuf,
}

impl Project {
    /// A flake with these inputs, whose outputs may use `system`, `d` for derivations that need nothing but the distribution, and
    /// `bash`, which is one.
    pub(crate) fn new(nix: &Nix, inputs: &str, outputs: &str) -> Self {
        Self::in_store(Store::new(nix), inputs, outputs)
    }

    /// The same with nixpkgs as an input, and its packages as `pkgs`.
    pub(crate) fn with_nixpkgs(nix: &Nix, outputs: &str) -> Self {
        let inputs = format!("nixpkgs.url = \"path:{}\";", stand_in().display());
        Self::new(nix, &inputs, outputs)
    }

    /// The same in a store that was prepared.
    pub(crate) fn in_store(store: Store, inputs: &str, outputs: &str) -> Self {
        let dir = store.scratch.dir("flake");
        let cache = store.scratch.join("cache");
        let project = Self { store, dir, cache };
        project.write(inputs, outputs);
        project
    }

    /// Writes the flake anew.
    pub(crate) fn write(&self, inputs: &str, outputs: &str) {
        let text = format!(
            r#"{{
  inputs = {{ {inputs} }};
  outputs = {{ self, ... }}@inputs: let
    system = "{}";
    pkgs = inputs.nixpkgs.legacyPackages.${{system}};
    d = arguments: derivation ({{ inherit system; PATH = "/usr/bin:/bin"; builder = "/bin/sh"; }} // arguments);
    bash = d {{ name = "bash"; args = [ "-ec" "mkdir -p $out/bin; ln -s $(command -v bash) $out/bin/bash" ]; }};
  in {{
{outputs}
  }};
}}
"#,
            system()
        );
        fs::write(self.dir.join("flake.nix"), text).unwrap();
    }

    /// Writes a file of the flake.
    pub(crate) fn file(&self, name: &str, content: &str) {
        self.store.scratch.file(&format!("flake/{name}"), content);
    }

    /// Puts an input into the store, and writes a lock file by which Nix has it already: `locked` says where it would come from.
    /// It is a flake where it has a `flake.nix`. Gives its path in the store.
    pub(crate) fn lock(&self, inputs: &[(&str, &Path, Value)]) -> Vec<String> {
        let mut nodes = serde_json::Map::new();
        let mut paths = Vec::new();
        for (name, path, locked) in inputs {
            let text = path.to_str().unwrap();
            paths.push(
                self.store.run("nix", &["store", "add-path", "--name", "source", text]).trim().to_owned(),
            );
            let mut node = serde_json::json!({ "original": locked, "locked": locked });
            node["locked"]["narHash"] = self.store.run("nix", &["hash", "path", text]).trim().into();
            if !path.join("flake.nix").exists() {
                node["flake"] = false.into();
            }
            nodes.insert((*name).to_owned(), node);
        }
        let names: serde_json::Map<String, Value> =
            inputs.iter().map(|(name, ..)| ((*name).to_owned(), (*name).into())).collect();
        nodes.insert("root".to_owned(), serde_json::json!({ "inputs": names }));
        let lock = serde_json::json!({ "version": 7, "root": "root", "nodes": nodes });
        self.file("flake.lock", &lock.to_string());
        paths
    }

    /// `push-closure --json --to CACHE` in the flake's directory.
    pub(crate) fn push(&self, args: &[&str]) -> Run {
        self.push_to(&self.cache, args).arg("--json")
    }

    /// The same to another cache, for people.
    pub(crate) fn push_to(&self, cache: impl AsRef<Path>, args: &[&str]) -> Run {
        let run = Run::push(&self.store).cwd(&self.dir).arg("--allow-unsigned");
        run.to(cache).args(args.to_vec())
    }

    /// Runs `nix` in the flake's directory, which must succeed, and gives its standard output.
    #[track_caller]
    pub(crate) fn nix(&self, args: &[&str]) -> String {
        let output = self.store.command("nix").args(args).current_dir(&self.dir).output().unwrap();
        assert!(output.status.success(), "nix {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// How many derivations were built. Nix writes a log for each.
    pub(crate) fn builds(&self) -> usize {
        super::scratch::files_below(&self.store.scratch.join("nix/log")).len()
    }

    /// Puts a program before Nix on the path: a shell script in which `nix` is the real one. Gives the new path.
    pub(crate) fn instead_of_nix(&self, script: &str) -> String {
        let nix = self.store.nix.dir.join("nix");
        let script = format!("nix() {{ '{}' \"$@\"; }}\n{script}", nix.display());
        let file = self.store.scratch.script("instead/nix", &script);
        format!("{}:{}", file.parent().unwrap().display(), self.store.nix.path())
    }
}
