//! Real Nix in an isolated store: no root, no daemon, never `/nix`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use super::scratch::{Scratch, remove_tree};

/// One installed Nix.
#[derive(Clone, Debug)]
pub(crate) struct Nix {
    /// The directory that holds `nix`, `nix-store`, `nix-build`, `nix-instantiate`.
    pub(crate) dir: PathBuf,
    /// Major and minor version.
    pub(crate) version: (u32, u32),
}

/// All Nixes to test with: `CACHE_HELPER_TEST_NIX`, else the one on `PATH`.
pub(crate) fn every_nix() -> &'static [Nix] {
    static FOUND: OnceLock<Vec<Nix>> = OnceLock::new();
    FOUND.get_or_init(|| {
        let dirs: Vec<PathBuf> = match std::env::var_os("CACHE_HELPER_TEST_NIX").filter(|value| !value.is_empty()) {
            Some(list) => std::env::split_paths(&list).collect(),
            None => vec![
                std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
                    .find(|dir| dir.join("nix").is_file())
                    .expect("no `nix` on PATH: these tests need one (scripts/setup installs it), or set CACHE_HELPER_TEST_NIX"),
            ],
        };
        dirs.into_iter().map(Nix::at).collect()
    })
}

/// The first Nix of the list, for tests where its version does not matter.
pub(crate) fn a_nix() -> &'static Nix {
    every_nix().first().expect("CACHE_HELPER_TEST_NIX names no directory")
}

/// Runs a test with every Nix, saying which, so that a failure names it.
pub(crate) fn with_every_nix(test: impl Fn(&Nix)) {
    for nix in every_nix() {
        eprintln!("--- with Nix {}.{} from {}", nix.version.0, nix.version.1, nix.dir.display());
        test(nix);
    }
}

impl Nix {
    fn at(dir: PathBuf) -> Self {
        let nix = dir.join("nix");
        let output = Command::new(&nix).arg("--version").output();
        let output = output.unwrap_or_else(|error| panic!("no working Nix at {}: {error}", nix.display()));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let version = text.split_whitespace().last().unwrap_or_default();
        let mut parts = version.split('.').map_while(|part| part.parse().ok());
        let version = parts.next().zip(parts.next());
        Self { version: version.unwrap_or_else(|| panic!("{} says {text:?}", nix.display())), dir }
    }

    /// `PATH` with this Nix before any other.
    pub(crate) fn path(&self) -> String {
        format!("{}:/usr/bin:/bin:/usr/sbin:/sbin:/run/current-system/sw/bin", self.dir.display())
    }
}

/// A key pair for signing store paths.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    /// The file that `--sign-key-file` takes.
    pub(crate) file: PathBuf,
    /// The `trusted-public-keys` entry.
    pub(crate) public: String,
}

/// An isolated store with its own database, settings and home.
#[derive(Debug)]
pub(crate) struct Store {
    /// The Nix that works on it.
    pub(crate) nix: Nix,
    /// Everything of this store, and room for a test's own files.
    pub(crate) scratch: Scratch,
    settings: BTreeMap<&'static str, String>,
}

impl Store {
    /// A new empty store. Its directory is not `/nix/store`.
    pub(crate) fn new(nix: &Nix) -> Self {
        let scratch = Scratch::new();
        for dir in ["nix/store", "nix/var", "nix/log", "etc", "home"] {
            scratch.dir(dir);
        }
        let settings = BTreeMap::from([
            ("build-users-group", String::new()),
            ("experimental-features", "nix-command flakes".into()),
            // Empty to every version. (Nix 2.8 refuses an empty value as soon as it needs the registry.)
            ("flake-registry", "/nonexistent/registry.json".into()),
            // What a power cut leaves of a test's store matters to nobody.
            ("fsync-metadata", "false".into()),
            ("sandbox", "false".into()),
            ("substituters", String::new()),
        ]);
        Self { nix: nix.clone(), scratch, settings }
    }

    /// Adds a line to this store's settings.
    pub(crate) fn set(&mut self, name: &'static str, value: impl Into<String>) {
        self.settings.insert(name, value.into());
    }

    /// The store directory.
    pub(crate) fn dir(&self) -> PathBuf {
        self.scratch.join("nix/store")
    }

    /// The store directory as text, as it stands in narinfos.
    pub(crate) fn dir_text(&self) -> String {
        self.dir().to_str().unwrap().to_owned()
    }

    /// The directory of the database.
    pub(crate) fn db(&self) -> PathBuf {
        self.scratch.join("nix/var/db")
    }

    /// The whole environment in which Nix uses this store.
    pub(crate) fn env(&self) -> Vec<(String, String)> {
        let at = |name: &str| self.scratch.join(name).to_str().unwrap().to_owned();
        let lines: Vec<String> =
            self.settings.iter().map(|(name, value)| format!("{name} = {value}")).collect();
        [
            ("PATH", self.nix.path()),
            ("NIX_STORE_DIR", at("nix/store")),
            ("NIX_STATE_DIR", at("nix/var")),
            ("NIX_LOCALSTATE_DIR", at("nix/var")),
            ("NIX_LOG_DIR", at("nix/log")),
            ("NIX_CONF_DIR", at("etc")),
            ("NIX_CONFIG", lines.join("\n")),
            ("HOME", at("home")),
            ("XDG_CACHE_HOME", at("home/.cache")),
            ("XDG_CONFIG_HOME", at("home/.config")),
            ("XDG_DATA_HOME", at("home/.local/share")),
            ("XDG_STATE_HOME", at("home/.local/state")),
            ("LC_ALL", "C.UTF-8".into()),
            // Nobody is there. What is fetched from elsewhere than this machine fails at once, with a network and without.
            ("https_proxy", "http://127.0.0.1:1".into()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec()
    }

    /// A command of this Nix on this store.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.nix.dir.join(program));
        command.env_clear().envs(self.env()).current_dir(self.scratch.path()).stdin(Stdio::null());
        command
    }

    /// Runs a command of this Nix, whatever it answers.
    pub(crate) fn try_run(&self, program: &str, args: &[&str]) -> Output {
        self.command(program).args(args).output().unwrap()
    }

    /// Runs a command of this Nix that must succeed, and gives its standard output.
    pub(crate) fn run(&self, program: &str, args: &[&str]) -> String {
        let output = self.try_run(program, args);
        assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Writes an expression to a file of this store's scratch directory, with a directory `tree` beside it to take as a source.
    pub(crate) fn expression(&self, text: &str) -> PathBuf {
        self.scratch.file("project/tree/leaf", "leaf");
        self.scratch.file("project/default.nix", text)
    }

    /// Builds an attribute of an expression and gives its output paths, in the order of its outputs.
    pub(crate) fn build(&self, expression: &str, attr: &str) -> Vec<String> {
        let file = self.expression(expression);
        let outputs = self.run("nix-build", &["--no-out-link", file.to_str().unwrap(), "-A", attr]);
        outputs.lines().map(str::to_owned).collect()
    }

    /// Builds an attribute with a single output.
    pub(crate) fn build_one(&self, expression: &str, attr: &str) -> String {
        let outputs = self.build(expression, attr);
        assert_eq!(outputs.len(), 1, "{attr} has one output");
        outputs.into_iter().next().unwrap()
    }

    /// The `.drv` of an attribute.
    pub(crate) fn instantiate(&self, expression: &str, attr: &str) -> String {
        let file = self.expression(expression);
        let drv = self.run("nix-instantiate", &[file.to_str().unwrap(), "-A", attr]);
        drv.trim().split('!').next().unwrap().to_owned()
    }

    /// The closure, as full paths.
    pub(crate) fn closure(&self, paths: &[&str]) -> BTreeSet<String> {
        let args: Vec<&str> = ["-qR"].into_iter().chain(paths.iter().copied()).collect();
        self.run("nix-store", &args).lines().map(str::to_owned).collect()
    }

    /// Every valid path that refers to this one, directly or not, itself included.
    pub(crate) fn referrers_closure(&self, path: &str) -> BTreeSet<String> {
        self.run("nix-store", &["-q", "--referrers-closure", path]).lines().map(str::to_owned).collect()
    }

    /// The hash of what is on disk now, for every path: the NAR's bytes, not what the database says.
    pub(crate) fn content_hashes(&self, paths: &BTreeSet<String>) -> BTreeMap<String, String> {
        let args: Vec<&str> =
            ["--type", "sha256", "--base32"].into_iter().chain(paths.iter().map(String::as_str)).collect();
        let hashes = self.run("nix-hash", &args);
        paths.iter().cloned().zip(hashes.lines().map(str::to_owned)).collect()
    }

    /// Makes a signing key.
    pub(crate) fn key(&self, name: &str) -> Key {
        let dir = self.scratch.dir("keys");
        let (secret, public) = (dir.join(format!("{name}.secret")), dir.join(format!("{name}.public")));
        self.run(
            "nix-store",
            &["--generate-binary-cache-key", name, secret.to_str().unwrap(), public.to_str().unwrap()],
        );
        Key { file: secret, public: fs::read_to_string(public).unwrap().trim().to_owned() }
    }

    /// Signs paths in the store's database.
    pub(crate) fn sign(&self, key: &Key, paths: &BTreeSet<String>) {
        let mut args = vec!["store", "sign", "-k", key.file.to_str().unwrap()];
        args.extend(paths.iter().map(String::as_str));
        self.run("nix", &args);
    }

    /// Throws the store away: every path, the database, and what Nix remembers of caches. The store's directory stays the same.
    pub(crate) fn throw_away(&self) {
        for dir in ["nix/store", "nix/var", "nix/log", "home/.cache"] {
            remove_tree(&self.scratch.join(dir));
        }
        for dir in ["nix/store", "nix/var", "nix/log"] {
            self.scratch.dir(dir);
        }
    }

    /// Lets Nix fetch paths from a cache, with signatures required and nothing built.
    pub(crate) fn try_fetch(&self, url: &str, key: Option<&Key>, paths: &[&str]) -> Output {
        let mut args =
            vec!["--realise", "--max-jobs", "0", "--no-fallback", "--option", "require-sigs", "true"];
        args.extend(["--option", "substituters", url, "--option", "trusted-public-keys"]);
        args.push(key.map_or("", |key| &key.public));
        args.extend(paths);
        self.try_run("nix-store", &args)
    }

    /// As [`Store::try_fetch`], where it must succeed.
    pub(crate) fn fetch(&self, url: &str, key: Option<&Key>, paths: &[&str]) {
        let output = self.try_fetch(url, key, paths);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "Nix cannot fetch {paths:?} from {url}:\n{stderr}");
    }

    /// Deletes a path from the disk behind the database's back.
    pub(crate) fn lose(&self, path: &str) {
        assert!(Path::new(path).starts_with(self.dir()));
        remove_tree(Path::new(path));
    }
}

/// The base name of a store path.
pub(crate) fn base(path: &str) -> &str {
    path.rsplit('/').next().unwrap()
}

/// The base names of store paths.
pub(crate) fn bases(paths: &BTreeSet<String>) -> BTreeSet<String> {
    paths.iter().map(|path| base(path).to_owned()).collect()
}

/// Flips the lowest bit of one byte of a file in the store, leaving size, mode and time as they were.
pub(crate) fn flip_a_bit(file: &Path) {
    let dir = file.parent().unwrap();
    let (dir_mode, file_mode) =
        (fs::metadata(dir).unwrap().permissions(), fs::metadata(file).unwrap().permissions());
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
    let mut bytes = fs::read(file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::remove_file(file).unwrap();
    fs::write(file, bytes).unwrap();
    fs::set_permissions(file, file_mode).unwrap();
    fs::set_permissions(dir, dir_mode).unwrap();
}
