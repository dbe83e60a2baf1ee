//! What `audit` predicts is what Nix does: random graphs, random damage, and Nix as the judge.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::faults::{Answer, Kind, Rule};
use crate::support::nix::{Key, Nix, Store, base, every_nix};
use crate::support::program::Run;
use crate::support::scratch::{copy_tree, remove_tree};
use crate::support::server::Server;
use crate::support::wild::{Damaged, Wild, name_of};
use crate::support::{Dice, full_run};

/// How often each graph's caches are damaged anew.
const DAMAGES: usize = 5;

/// How many graphs each of the four tests tries with each Nix: 300 cases in the full run, 20 in the ordinary one.
fn graphs() -> usize {
    if full_run() { 15 } else { 1 }
}

/// A project in a store that is signed, and a cache that holds all of it.
struct Case {
    store: Store,
    wild: Wild,
    key: Key,
    pristine: PathBuf,
    /// Every output path.
    paths: Vec<String>,
}

impl Case {
    fn new(nix: &Nix, dice: &mut Dice) -> Self {
        let mut store = Store::new(nix);
        let wild = Wild::new(dice, store.scratch.join("built"));
        let drvs = wild.instantiate(&store);
        let arguments: Vec<&str> = ["--realise"].into_iter().chain(drvs.iter().map(String::as_str)).collect();
        store.run("nix-store", &arguments);
        wild.built();
        let query: Vec<&str> =
            ["-q", "--outputs"].into_iter().chain(drvs.iter().map(String::as_str)).collect();
        let paths: Vec<String> = store.run("nix-store", &query).lines().map(str::to_owned).collect();
        let key = store.key("trusted-1");
        store.sign(&key, &paths.iter().cloned().collect());
        let pristine = store.scratch.join("pristine");
        let url = format!("file://{}?compression=none", pristine.display());
        let copy: Vec<&str> =
            ["copy", "--to", &url].into_iter().chain(paths.iter().map(String::as_str)).collect();
        store.run("nix", &copy);
        store.set("trusted-public-keys", key.public.clone());
        // A lookup that fails is not asked for long.
        store.set("download-attempts", "1");
        store.set("connect-timeout", "5");
        Self { store, wild, key, pristine, paths }
    }

    /// Damages a cache here and there, and gives what a server in front of it shall answer otherwise.
    fn damage(&self, dir: &Path, dice: &mut Dice) -> (Vec<String>, Vec<(String, u16)>) {
        let cache = Damaged::new(dir, self.store.dir_text(), &self.key);
        let (mut done, mut statuses) = (Vec::new(), Vec::new());
        let much = dice.within(2..7);
        for path in &self.paths {
            if dice.within(0..much) > 0 {
                continue;
            }
            let what = match dice.within(0..24) {
                0..=9 => {
                    cache.remove(path);
                    "no narinfo"
                }
                10..=11 => {
                    cache.spoil_nar(path, true);
                    "no NAR"
                }
                12 => {
                    cache.spoil_nar(path, false);
                    "half a NAR"
                }
                13..=14 => {
                    cache.unsign(path);
                    "unsigned"
                }
                15 => {
                    cache.sign_falsely(path, false);
                    "signed by somebody"
                }
                16 => {
                    cache.sign_falsely(path, true);
                    "signed falsely"
                }
                17..=19 => {
                    cache.cut_reference(path, dice);
                    "a reference cut"
                }
                20 => {
                    cache.swap_in(path, &self.paths[dice.within(0..self.paths.len())]);
                    "another path's narinfo"
                }
                21 => {
                    let bodies = ["", "<html>no</html>", "StorePath: x\n", "StorePath"];
                    cache.replace(path, bodies[dice.within(0..bodies.len())]);
                    "no narinfo at all"
                }
                _ => {
                    let status = [401, 403, 500, 410][dice.within(0..4)];
                    statuses.push((path.clone(), status));
                    "a status"
                }
            };
            done.push(format!("{}: {what}", base(path)));
        }
        (done, statuses)
    }

    /// One damage, one audit, one run of Nix. Gives how many derivations were predicted and how many of those firmly.
    fn compare(&self, dice: &mut Dice) -> (usize, usize) {
        let mut story = vec![self.wild.expression.clone()];
        let count = dice.within(1..4);
        let (mut servers, mut urls) = (Vec::new(), Vec::new());
        for number in 0..count {
            let dir = self.store.scratch.join(format!("cache{number}"));
            remove_tree(&dir);
            copy_tree(&self.pristine, &dir);
            let priority = dice.within(10..14);
            fs::write(
                dir.join("nix-cache-info"),
                format!("StoreDir: {}\nPriority: {priority}\n", self.store.dir_text()),
            )
            .unwrap();
            let (done, statuses) = self.damage(&dir, dice);
            let url = if !statuses.is_empty() || dice.within(0..2) == 0 {
                let server = Server::new(&dir);
                for (path, status) in &statuses {
                    let file = format!("/{}.narinfo", base(path).split('-').next().unwrap());
                    server.rule(Rule::on("GET", Kind::Narinfo, Answer::status(*status)).path(&file));
                    server.rule(Rule::on("HEAD", Kind::Narinfo, Answer::status(*status)).path(&file));
                }
                let url = server.url.clone();
                servers.push(server);
                url
            } else {
                format!("file://{}", dir.display())
            };
            story.push(format!("{url} (priority {priority}): {done:#?} {statuses:?}"));
            urls.push(url);
        }

        self.store.throw_away();
        let drvs = self.wild.instantiate(&self.store);
        if dice.within(0..4) == 0 {
            // Something is there already, as on a machine that has built before.
            let path = &self.paths[dice.within(0..self.paths.len())];
            self.store.fetch(&format!("file://{}", self.pristine.display()), Some(&self.key), &[path]);
            story.push(format!("valid before: {}", base(path)));
        }
        let before = self.valid();
        let outputs = self.wild.outputs.last().unwrap();
        let wanted: Vec<&str> = if dice.within(0..2) == 0 { outputs.clone() } else { outputs[..1].to_vec() };
        let fallback = dice.within(0..3) == 0;
        let drv = drvs.last().unwrap();
        story.push(format!("{}^{} with fallback {fallback}", base(drv), wanted.join(",")));

        let settings = [("substituters", urls.join(" ")), ("fallback", fallback.to_string())];
        let config = self.store.env().into_iter().find(|(name, _)| name == "NIX_CONFIG").unwrap().1;
        let config =
            settings.iter().fold(config, |config, (name, value)| format!("{config}\n{name} = {value}"));
        let audit = Run::new(&self.store)
            .env("NIX_CONFIG", &config)
            .args(["audit", "--json", "--nars", &format!("{drv}^{}", wanted.join(","))])
            .run()
            .expect(0)
            .json();
        let nix = self
            .store
            .command("nix-store")
            .env("NIX_CONFIG", &config)
            .args(["--realise", "--keep-going", &format!("{drv}!{}", wanted.join(","))])
            .output()
            .unwrap();
        let built = self.wild.built();
        let after = self.valid();
        let fetched: BTreeSet<String> = after
            .difference(&before)
            .map(|path| name_of(path))
            .filter(|name| !built.contains(name))
            .collect();
        story.push(format!("{audit:#}"));
        story.push(format!("Nix: {}\n{}", nix.status, String::from_utf8_lossy(&nix.stderr)));
        story.push(format!("built {built:?}, fetched {fetched:?}"));
        let story = story.join("\n");
        judge(&audit, &self.wild, &built, &fetched, nix.status.success(), &story)
    }

    fn valid(&self) -> BTreeSet<String> {
        let arguments: Vec<&str> = ["--check-validity", "--print-invalid"]
            .into_iter()
            .chain(self.paths.iter().map(String::as_str))
            .collect();
        let invalid = self.store.run("nix-store", &arguments);
        let invalid: BTreeSet<&str> = invalid.lines().collect();
        self.paths.iter().filter(|path| !invalid.contains(path.as_str())).cloned().collect()
    }
}

/// Compares, derivation by derivation.
fn judge(
    audit: &Value,
    wild: &Wild,
    built: &BTreeSet<String>,
    fetched: &BTreeSet<String>,
    succeeded: bool,
    story: &str,
) -> (usize, usize) {
    let predicted: BTreeMap<&str, &Value> = audit["derivations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|derivation| (derivation["name"].as_str().unwrap(), &derivation["nix"]))
        .collect();
    let names: Vec<String> = (0..wild.len()).map(|number| format!("p{number}")).collect();
    let target = names.last().unwrap().as_str();
    let (mut all, mut firm) = (0, 0);
    for name in &names {
        let nix = predicted.get(name.as_str()).and_then(|nix| nix.as_str());
        let did = match (built.contains(name), fetched.contains(name)) {
            (true, _) => "build",
            (false, true) => "fetch",
            (false, false) => "nothing",
        };
        let agrees = match nix {
            None => did == "nothing",
            Some("fetch" | "build-then-fetch") => did == "fetch",
            Some("build") => did == "build",
            // Of several outputs, others may be fetched or built; the target's fate is looked at below.
            Some("fail" | "unknown") => true,
            Some(other) => panic!("{other} is no prediction"),
        };
        assert!(agrees, "{name}: predicted {nix:?}, and Nix did {did}\n{story}");
        all += 1;
        firm += usize::from(nix != Some("unknown"));
    }
    match predicted.get(target).and_then(|nix| nix.as_str()) {
        Some("unknown") => {}
        Some("fail") => assert!(!succeeded, "predicted to fail, and Nix succeeded\n{story}"),
        _ => assert!(succeeded, "predicted to succeed, and Nix failed\n{story}"),
    }
    (all, firm)
}

fn agrees(part: u64) {
    for nix in every_nix() {
        eprintln!("--- with Nix {}.{}", nix.version.0, nix.version.1);
        let mut dice = Dice::part(part);
        let (mut all, mut firm) = (0, 0);
        for _ in 0..graphs() {
            let case = Case::new(nix, &mut dice);
            for _ in 0..DAMAGES {
                let (more, more_firm) = case.compare(&mut dice);
                all += more;
                firm += more_firm;
            }
        }
        assert!(firm * 10 >= all * 7, "only {firm} of {all} predictions say anything");
    }
}

#[test]
fn nix_does_what_is_predicted_first_quarter() {
    agrees(0);
}

#[test]
fn nix_does_what_is_predicted_second_quarter() {
    agrees(1);
}

#[test]
fn nix_does_what_is_predicted_third_quarter() {
    agrees(2);
}

#[test]
fn nix_does_what_is_predicted_fourth_quarter() {
    agrees(3);
}
