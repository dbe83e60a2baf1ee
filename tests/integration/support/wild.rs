//! Random small build graphs, and random damage to the caches that hold them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signer as _, SigningKey};

use super::Dice;
use super::cache::hash_part;
use super::nix::{Key, Store, base};

/// A random project: an expression with the attributes `p0`, `p1`, …, of which each further one may need the ones before.
///
/// Every builder notes its name in a file outside the store, so that what was built is known without asking Nix.
#[derive(Debug)]
pub(crate) struct Wild {
    /// The expression.
    pub(crate) expression: String,
    /// Output names by attribute, in order.
    pub(crate) outputs: Vec<Vec<&'static str>>,
    log: PathBuf,
}

impl Wild {
    /// A random project whose builders write to a file.
    pub(crate) fn new(dice: &mut Dice, log: PathBuf) -> Self {
        let count = dice.within(3..9);
        let mut text = String::from("rec {\n");
        let mut outputs: Vec<Vec<&'static str>> = Vec::new();
        for n in 0..count {
            let is_fixed = dice.within(0..8) == 0;
            let own = if !is_fixed && dice.within(0..4) == 0 { vec!["out", "dev"] } else { vec!["out"] };
            // The last few are always among the inputs, so that graphs grow deep and not only wide.
            let mut inputs: Vec<String> = Vec::new();
            for (other, known) in outputs.iter().enumerate() {
                if dice.within(0..3) == 0 || (other + 1 == n && dice.within(0..3) > 0) {
                    inputs.push(format!("${{p{other}.{}}}", known[dice.within(0..known.len())]));
                }
            }
            let kept: Vec<&String> = inputs.iter().filter(|_| !is_fixed && dice.within(0..3) > 0).collect();
            // A build takes longer than the lookups that Nix does meanwhile: so it is outside of tests, and the prediction
            // counts on it.
            let mut script = format!("echo p{n} >> {}; sleep 0.2;", log.display());
            if is_fixed {
                write!(script, " printf 'fixed p{n}' > $out").unwrap();
            } else {
                write!(script, " mkdir $out; echo p{n}").unwrap();
                for input in kept {
                    write!(script, " {input}").unwrap();
                }
                script.push_str(" > $out/text");
                if own.len() > 1 {
                    let refers = if dice.within(0..2) == 0 { "$out" } else { "nothing" };
                    write!(script, "; mkdir $dev; echo p{n} dev {refers} > $dev/text").unwrap();
                }
            }
            let names: Vec<String> = own.iter().map(|name| format!("\"{name}\"")).collect();
            writeln!(
                text,
                "  p{n} = derivation {{ name = \"p{n}\"; system = \"{}-linux\"; builder = \"/bin/sh\";\n    \
                 PATH = \"/usr/bin:/bin:/run/current-system/sw/bin\"; outputs = [ {} ];\n    \
                 needs = \"{}\"; args = [ \"-euc\" \"{script}\" ];",
                std::env::consts::ARCH,
                names.join(" "),
                inputs.join(" ")
            )
            .unwrap();
            if is_fixed {
                writeln!(
                    text,
                    "    outputHashMode = \"flat\"; outputHashAlgo = \"sha256\";\n    \
                     outputHash = builtins.hashString \"sha256\" \"fixed p{n}\";"
                )
                .unwrap();
            } else if dice.within(0..8) == 0 {
                text.push_str("    allowSubstitutes = false;\n");
            }
            text.push_str("  };\n");
            outputs.push(own);
        }
        text.push_str("}\n");
        Self { expression: text, outputs, log }
    }

    /// How many derivations there are; the last is the target.
    pub(crate) fn len(&self) -> usize {
        self.outputs.len()
    }

    /// Writes all derivations to a store and gives their paths, in order.
    pub(crate) fn instantiate(&self, store: &Store) -> Vec<String> {
        let file = store.expression(&self.expression);
        let all = store.run("nix-instantiate", &[file.to_str().unwrap()]);
        let mut drvs: Vec<String> =
            all.lines().map(|line| line.split('!').next().unwrap().to_owned()).collect();
        drvs.sort_by_key(|drv| name_of(drv));
        drvs.dedup();
        assert_eq!(drvs.len(), self.len());
        drvs
    }

    /// The names of what was built since this was last asked.
    pub(crate) fn built(&self) -> BTreeSet<String> {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        fs::remove_file(&self.log).ok();
        text.lines().map(str::to_owned).collect()
    }
}

/// The attribute of a `.drv` path or of an output path.
pub(crate) fn name_of(path: &str) -> String {
    let name = base(path).split_once('-').unwrap().1;
    name.split(['.', '-']).next().unwrap().to_owned()
}

/// A cache in a directory, to be damaged.
#[derive(Debug)]
pub(crate) struct Damaged<'a> {
    dir: &'a Path,
    store_dir: String,
    trusted: SigningKey,
    trusted_name: String,
}

impl<'a> Damaged<'a> {
    /// The cache in `dir`, which holds paths of a store with this directory, signed with a key that Nix trusts.
    pub(crate) fn new(dir: &'a Path, store_dir: String, key: &Key) -> Self {
        let text = fs::read_to_string(&key.file).unwrap();
        let (name, encoded) = text.trim().split_once(':').unwrap();
        let bytes = STANDARD.decode(encoded).unwrap();
        let trusted = SigningKey::from_bytes(bytes[..32].try_into().unwrap());
        Self { dir, store_dir, trusted, trusted_name: name.to_owned() }
    }

    /// The file of a path's narinfo.
    pub(crate) fn narinfo(&self, path: &str) -> PathBuf {
        self.dir.join(format!("{}.narinfo", hash_part(base(path))))
    }

    /// The lines of a path's narinfo, by name and value.
    fn fields(&self, path: &str) -> Vec<(String, String)> {
        let text = fs::read_to_string(self.narinfo(path)).unwrap();
        text.lines()
            .map(|line| {
                let (name, value) = line.split_once(':').unwrap();
                (name.to_owned(), value.trim_start().to_owned())
            })
            .collect()
    }

    fn write(&self, path: &str, fields: &[(String, String)]) {
        let lines: Vec<String> = fields.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        let text = lines.join("\n") + "\n";
        fs::write(self.narinfo(path), text).unwrap();
    }

    /// Takes the narinfo away.
    pub(crate) fn remove(&self, path: &str) {
        fs::remove_file(self.narinfo(path)).unwrap();
    }

    /// Takes the NAR away, or cuts it short.
    pub(crate) fn spoil_nar(&self, path: &str, remove: bool) {
        let fields: BTreeMap<String, String> = self.fields(path).into_iter().collect();
        let nar = self.dir.join(&fields["URL"]);
        if remove {
            // Two paths with the same content share it, and then it may be gone already.
            fs::remove_file(nar).ok();
        } else if let Ok(bytes) = fs::read(&nar) {
            fs::write(nar, &bytes[..bytes.len() / 2]).unwrap();
        }
    }

    /// Takes all signatures away.
    pub(crate) fn unsign(&self, path: &str) {
        let mut fields = self.fields(path);
        fields.retain(|(name, _)| name != "Sig");
        self.write(path, &fields);
    }

    /// The file of a path's NAR.
    pub(crate) fn nar(&self, path: &str) -> PathBuf {
        let fields: BTreeMap<String, String> = self.fields(path).into_iter().collect();
        self.dir.join(&fields["URL"])
    }

    /// Lets a path's narinfo say something else, and signs that with the trusted key.
    pub(crate) fn tell(&self, path: &str, field: &str, value: &str) {
        self.tell_unsigned(path, field, value);
        self.sign(path, &self.trusted, &self.trusted_name);
    }

    /// Lets a path's narinfo say something else, and leaves its signatures as they are.
    pub(crate) fn tell_unsigned(&self, path: &str, field: &str, value: &str) {
        let mut fields = self.fields(path);
        fields.retain(|(name, _)| name != field);
        let place = fields.iter().position(|(name, _)| name == "Sig").unwrap_or(fields.len());
        fields.insert(place, (field.to_owned(), value.to_owned()));
        self.write(path, &fields);
    }

    /// Signs with another key, by its own name or in the name of the trusted one.
    pub(crate) fn sign_falsely(&self, path: &str, in_trusted_name: bool) {
        let other = SigningKey::from_bytes(&[7; 32]);
        let name = if in_trusted_name { &self.trusted_name } else { "somebody-1" };
        self.sign(path, &other, name);
    }

    /// Takes a reference away, and signs the rest with the trusted key.
    pub(crate) fn cut_reference(&self, path: &str, dice: &mut Dice) {
        let mut fields = self.fields(path);
        let Some((_, references)) = fields.iter_mut().find(|(name, _)| name == "References") else { return };
        let mut names: Vec<&str> = references.split_whitespace().collect();
        if names.is_empty() {
            return;
        }
        names.remove(dice.within(0..names.len()));
        *references = names.join(" ");
        self.write(path, &fields);
        self.sign(path, &self.trusted, &self.trusted_name);
    }

    /// Puts something else in the place of the narinfo.
    pub(crate) fn replace(&self, path: &str, text: &str) {
        fs::write(self.narinfo(path), text).unwrap();
    }

    /// Puts another path's narinfo in the place of this one's.
    pub(crate) fn swap_in(&self, path: &str, other: &str) {
        fs::copy(self.narinfo(other), self.narinfo(path)).ok();
    }

    /// Fingerprint: `ValidPathInfo::fingerprint` in Nix's `src/libstore/path-info.cc`.
    fn sign(&self, path: &str, key: &SigningKey, name: &str) {
        let mut fields = self.fields(path);
        fields.retain(|(name, _)| name != "Sig");
        let value = |wanted: &str| fields.iter().find(|(name, _)| name == wanted).unwrap().1.clone();
        let references: Vec<String> =
            value("References").split_whitespace().map(|name| format!("{}/{name}", self.store_dir)).collect();
        let text = format!(
            "1;{};{};{};{}",
            value("StorePath"),
            value("NarHash"),
            value("NarSize"),
            references.join(",")
        );
        let signature = STANDARD.encode(key.sign(text.as_bytes()).to_bytes());
        fields.push(("Sig".to_owned(), format!("{name}:{signature}")));
        self.write(path, &fields);
    }
}
