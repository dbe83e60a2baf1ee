//! Why two derivations differ, with real derivations of every Nix.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::support::nix::{Nix, Store, a_nix, with_every_nix};
use crate::support::outcome::Outcome;
use crate::support::program::{PROGRAM, Run};

/// A team's flake: `top` needs `app` and `docs`, which need `lib`; `app` needs a download and a source tree besides.
const FLAKE: &str = r#"{
  outputs = { self }: let
    step = name: more: derivation ({
      inherit name; system = "SYSTEM"; builder = "/bin/sh"; args = [ "-c" "echo $name $text $inputs > $out" ];
    } // more);
    lib = step "lib-1.0" { flags = "-O2 -g -Wall -Wextra -fPIC -pipe -march=native -std=c17"; };
    download = step "source" {
      url = "https://a.example.org/x"; outputHashMode = "flat"; outputHashAlgo = "sha256";
      outputHash = builtins.hashString "sha256" "x";
    };
    app = step "app" { inputs = [ lib download ]; src = ./src; };
    docs = step "docs" { inputs = [ lib ]; };
  in { packages.SYSTEM.default = step "top" { inputs = [ app docs ]; }; packages.SYSTEM.docs = docs; };
}
"#;

struct Project {
    store: Store,
    dir: PathBuf,
}

impl Project {
    /// A repository with one commit.
    fn new(nix: &Nix) -> Self {
        let store = Store::new(nix);
        let dir = store.scratch.dir("project");
        let system = format!("{}-linux", std::env::consts::ARCH);
        fs::write(dir.join("flake.nix"), FLAKE.replace("SYSTEM", &system)).unwrap();
        store.scratch.file("project/src/main.txt", "one\ntwo\nthree\n");
        store.scratch.file("project/src/other.txt", "the same\n");
        let project = Self { store, dir };
        project.git(&["init", "--quiet"]);
        project.commit();
        project
    }

    fn git(&self, words: &[&str]) -> String {
        let output = Command::new("git")
            .args(["-c", "user.name=somebody", "-c", "user.email=somebody@example.org"])
            .args(words)
            .current_dir(&self.dir)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .output()
            .unwrap();
        assert!(output.status.success(), "git {words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn commit(&self) {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--message=x"]);
    }

    fn commit_empty(&self) {
        self.git(&["commit", "--quiet", "--allow-empty", "--message=x"]);
    }

    /// Replaces a text in the flake.
    fn change(&self, from: &str, to: &str) -> &Self {
        let file = self.dir.join("flake.nix");
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.contains(from), "no {from}");
        fs::write(file, text.replace(from, to)).unwrap();
        self
    }

    fn run(&self, words: &[&str]) -> Outcome {
        Run::new(&self.store).cwd(&self.dir).arg("diff").args(words.to_vec()).run()
    }

    /// The drv path of the default package.
    fn drv(&self) -> String {
        let output =
            self.store.command("nix").args(["path-info", "--derivation"]).current_dir(&self.dir).output();
        String::from_utf8(output.unwrap().stdout).unwrap().trim().to_owned()
    }

    /// Which derivations differ by themselves, with how many rebuilds each causes.
    fn differences(&self, words: &[&str]) -> Vec<(String, u64)> {
        let words = [&["--json"], words].concat();
        let document = self.run(&words).expect(1).json();
        let differences = document["differences"].as_array().unwrap().iter();
        differences
            .map(|found| {
                (found["new"]["name"].as_str().unwrap().to_owned(), found["rebuilds"].as_u64().unwrap())
            })
            .collect()
    }
}

fn one(name: &str, rebuilds: u64) -> Vec<(String, u64)> {
    vec![(name.to_owned(), rebuilds)]
}

fn changes(document: &Value) -> &Vec<Value> {
    document["differences"][0]["changes"].as_array().unwrap()
}

#[test]
fn a_changed_line_is_named_with_its_effect_and_nothing_else() {
    with_every_nix(|nix| {
        let project = Project::new(nix);
        project.change("-O2 -g", "-O3 -g");
        let outcome = project.run(&["HEAD", "."]).expect(1);
        let outcome = outcome.says(&["1 derivation differs by itself; of 5 derivations 4 are rebuilt"]);
        let outcome =
            outcome.says(&["lib-1.0  rebuilds 4 derivations", "flags: [--O2-]{+-O3+} -g -Wall -Wextra …"]);
        for other in ["app", "docs", "top", "src"] {
            assert!(!outcome.stdout.contains(other), "{outcome}");
        }
        let document = project.run(&["HEAD", ".", "--json"]).expect(1).json();
        assert_eq!(changes(&document).len(), 1);
        assert_eq!(changes(&document)[0]["name"], "flags");
        assert_eq!((&document["rebuilds"], &document["new"]["derivations"]), (&4.into(), &5.into()));
    });
}

#[test]
fn the_same_is_no_difference_and_a_mirror_is_none() {
    with_every_nix(|nix| {
        let project = Project::new(nix);
        project.run(&[".", "."]).expect(0).says(&["no difference: the same derivation"]);
        let before = project.drv();
        project.change("https://a.example.org", "https://b.example.org");
        assert_ne!(project.drv(), before);
        project.run(&["HEAD", "."]).expect(0).says(&["no difference", "make the same"]);
        let document = project.run(&["HEAD", ".", "--json"]).expect(0).json();
        assert_eq!((&document["differences"], &document["rebuilds"]), (&Value::Array(Vec::new()), &0.into()));
        // Another content is another thing.
        project.change("\"sha256\" \"x\"", "\"sha256\" \"y\"");
        assert_eq!(project.differences(&["HEAD", "."]), one("source", 3));
    });
}

#[test]
fn a_changed_file_of_a_source_is_named_with_its_lines() {
    with_every_nix(|nix| {
        let project = Project::new(nix);
        project.store.scratch.file("project/src/main.txt", "one\nTWO\nthree\n");
        project.store.scratch.file("project/src/new.txt", "new\n");
        project.git(&["add", "--all"]);
        let outcome = project.run(&["HEAD", "."]).expect(1);
        let outcome = outcome.says(&[
            "app  rebuilds 2",
            "changed main.txt",
            "-two",
            "+TWO",
            "added new.txt",
            "diff -r ",
        ]);
        assert!(!outcome.stdout.contains("other.txt"), "{outcome}");
        // The command that it ends with is one that works.
        let command = outcome.stdout.lines().find_map(|line| line.trim().strip_prefix("diff -r ")).unwrap();
        let output = Command::new("sh").args(["-c", &format!("diff -r {command}")]).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{command}");
    });
}

#[test]
fn a_link_of_a_source_is_told_by_where_it_leads_and_nothing_is_read_through_it() {
    let project = Project::new(a_nix());
    let secret = |name: &str| project.store.scratch.file(name, format!("sesame {name}\n"));
    secret("one");
    secret("two");
    let link = |name: &str, target: &str| {
        let link = project.dir.join("src").join(name);
        drop(fs::remove_file(&link));
        std::os::unix::fs::symlink(target, link).unwrap();
    };
    let outside = |name: &str| project.dir.parent().unwrap().join(name).display().to_string();
    link("a", &outside("one"));
    link("endless", "/dev/zero");
    project.commit();
    link("a", &outside("two"));
    fs::remove_file(project.dir.join("src/endless")).unwrap();
    project.store.scratch.file("project/src/endless", "a text\n");
    let script = project.dir.join("src/other.txt");
    fs::set_permissions(script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let outcome = project.run(&["HEAD", "."]).expect(1).says(&[
        &format!("changed a: {} -> {}", outside("one"), outside("two")),
        "changed endless: no longer a link to /dev/zero",
        "changed other.txt: now executable",
    ]);
    assert!(!outcome.stdout.contains("sesame"), "{outcome}");
    let document = project.run(&["HEAD", ".", "--json"]).expect(1).json();
    let files = changes(&document)[0]["files"].as_array().unwrap();
    let link = serde_json::json!({ "old": outside("one"), "new": outside("two") });
    assert_eq!((&files[0]["link"], &files[2]["executable"]), (&link, &true.into()));
}

#[test]
fn of_saved_graphs_the_files_are_compared_that_a_store_here_has() {
    let project = Project::new(a_nix());
    let save = |name: &str| {
        let outcome =
            Run::new(&project.store).cwd(&project.dir).args(["graph", "--json", "."]).run().expect(0);
        project.store.scratch.file(name, outcome.stdout);
    };
    save("old.json");
    project.store.scratch.file("project/src/main.txt", "one\nTWO\nthree\n");
    save("new.json");
    let outcome = project.run(&["../old.json", "../new.json"]).expect(1);
    drop(outcome.says(&["source src", "changed main.txt", "-two", "+TWO"]));
}

#[test]
fn what_is_named_may_be_a_revision_a_derivation_a_path_or_an_attribute() {
    with_every_nix(|nix| {
        let project = Project::new(nix);
        let (first, before) = (project.git(&["rev-parse", "HEAD"]), project.drv());
        project.change("lib-1.0", "lib-1.1");
        project.commit();
        let expected = one("lib-1.1", 4);
        let now = project.drv();
        let top = project.dir.display().to_string();
        let at = format!(".?rev={first}");
        let by_url = format!("git+file://{top}?rev={first}");
        for old in ["HEAD~1", &first[..9], &at, &by_url, &before] {
            for new in [".", "HEAD", &now] {
                assert_eq!(project.differences(&[old, new]), expected, "{old} {new}");
            }
        }
        // Of a revision the attribute is that of the other side.
        assert_eq!(project.differences(&["HEAD~1", ".#docs"]), one("lib-1.1", 2));
        assert_eq!(project.differences(&[".#docs", "HEAD~1"]), one("lib-1.0", 2));
        // A path stands for what makes it.
        let built = project
            .store
            .command("nix")
            .args(["build", ".#docs"])
            .current_dir(&project.dir)
            .output()
            .unwrap();
        assert!(built.status.success());
        assert_eq!(project.differences(&["HEAD~1#docs", "./result"]), one("lib-1.1", 2));
    });
}

#[test]
fn a_flake_in_a_directory_of_the_repository_is_found_there_before_too() {
    let project = Project::new(a_nix());
    let below = project.dir.join("nix/flake");
    fs::create_dir_all(&below).unwrap();
    for name in ["flake.nix", "src"] {
        fs::rename(project.dir.join(name), below.join(name)).unwrap();
    }
    project.commit();
    let file = below.join("flake.nix");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(file, text.replace("-O2", "-O3")).unwrap();
    let outcome = Run::new(&project.store)
        .cwd(below.join("src"))
        .args(["diff", "HEAD", "..", "--json"])
        .run()
        .expect(1);
    assert_eq!(outcome.json()["differences"][0]["new"]["name"], "lib-1.0");
}

#[test]
fn a_repository_may_stand_in_a_directory_of_any_name() {
    with_every_nix(|nix| {
        for name in ["a b", "p%20q", "x#y", "x?y", "\u{fc}n\u{ef}"] {
            let project = Project::new(nix);
            project.change("-O2", "-O3");
            let below = project.store.scratch.dir(&format!("{name}/sub dir&x"));
            for file in ["flake.nix", "src", ".git"] {
                fs::rename(project.dir.join(file), below.join(file)).unwrap();
            }
            fs::rename(below.join(".git"), below.join("../.git")).unwrap();
            let project = Project { dir: below, ..project };
            project.commit();
            let now = project.git(&["rev-parse", "HEAD"]);
            project.change("-O3", "-O4");
            project.commit();
            assert_eq!(project.differences(&[&now, "HEAD"]), one("lib-1.0", 4), "{name}");
        }
    });
}

#[test]
fn a_shallow_clone_has_the_revision_that_it_has() {
    with_every_nix(|nix| {
        let project = Project::new(nix);
        project.commit_empty();
        let clone = project.store.scratch.path().join("clone");
        let from = format!("file://{}", project.dir.display());
        project.git(&["clone", "--quiet", "--depth=1", &from, clone.to_str().unwrap()]);
        let project = Project { dir: clone, ..project };
        project.change("-O2", "-O3");
        project.commit();
        assert_eq!(project.differences(&["HEAD~1", "HEAD"]), one("lib-1.0", 4));
        project.run(&["HEAD~9", "HEAD"]).expect(3).complains(&["git does not find the revision HEAD~9"]);
    });
}

#[test]
fn a_branch_or_tag_goes_before_files_and_flakes_of_its_name() {
    let project = Project::new(a_nix());
    project.git(&["branch", "before"]);
    project.git(&["tag", "v2"]);
    project.change("-O2", "-O3");
    project.commit();
    for name in ["before", "v2"] {
        project.store.scratch.dir(&format!("project/{name}"));
        assert_eq!(project.differences(&[name, "HEAD"]), one("lib-1.0", 4), "{name}");
        assert_eq!(project.differences(&[&format!("{name}#docs"), "HEAD"]), one("lib-1.0", 2), "{name}");
    }
    // What has no such name may well be a flake of the registry, even where git would take it for something.
    let hash = &project.git(&["rev-parse", "HEAD"])[..5];
    project.run(&[&format!("x{hash}#docs"), "HEAD"]).expect(3).complains(&["flake"]);
}

#[test]
fn a_revision_that_is_none_is_said_to_be_none() {
    let project = Project::new(a_nix());
    for name in ["HEAD~9", "HEAD..HEAD", ":/nothing", "HEAD@{upstream}", "0123456"] {
        let outcome = project.run(&[name, "."]).expect(3);
        outcome.complains(&[&format!("git does not find the revision {name}"), "name one commit"]);
    }
    project.run(&[":/x", "."]).expect(0);
    let outside = project.store.scratch.dir("outside");
    let run = || Run::new(&project.store).cwd(&outside).args(["diff", "HEAD", "HEAD"]);
    run().run().expect(3).complains(&["not a git repository"]);
    let empty = outside.display().to_string();
    let program = project.store.env().into_iter().find(|(name, _)| name == "PATH").unwrap().1;
    let without_git: Vec<&str> = program
        .split(':')
        .filter(|directory| !PathBuf::from(directory).join("git").exists())
        .chain([empty.as_str()])
        .collect();
    let outcome = run().env("PATH", without_git.join(":")).run().expect(3);
    outcome.complains(&["cannot run git to find the revision HEAD", "install git"]);
    // What a hook sets is of another repository.
    let outcome = Run::new(&project.store).cwd(&project.dir).args(["diff", "HEAD", "HEAD~9"]);
    let outcome = outcome.env("GIT_DIR", &empty).env("GIT_WORK_TREE", &empty).run();
    outcome.expect(3).complains(&["git does not find the revision HEAD~9"]);
}

#[test]
fn a_bare_repository_has_revisions_too() {
    with_every_nix(|nix| {
        let project = Project::new(nix);
        project.change("-O2", "-O3");
        project.commit();
        let bare = project.store.scratch.path().join("bare");
        project.git(&["clone", "--quiet", "--bare", ".", bare.to_str().unwrap()]);
        let project = Project { dir: bare, ..project };
        assert_eq!(project.differences(&["HEAD~1", "HEAD"]), one("lib-1.0", 4));
    });
}

#[test]
fn content_addressed_derivations_may_be_taken_for_granted() {
    with_every_nix(|nix| {
        let mut project = Project::new(nix);
        project.store.set("experimental-features", "nix-command flakes ca-derivations");
        project.change("-O2", "-O3");
        assert_eq!(project.differences(&["HEAD", "."]), one("lib-1.0", 4));
        assert_eq!(project.differences(&["HEAD#docs", ".#docs"]), one("lib-1.0", 2));
    });
}

#[test]
fn saved_graphs_that_say_too_little_are_refused() {
    let project = Project::new(a_nix());
    let outcome = Run::new(&project.store).cwd(&project.dir).args(["graph", "--format", "json"]).run();
    let saved = outcome.expect(0).json();
    let compare = |change: &dyn Fn(&mut Value)| {
        let mut document = saved.clone();
        change(&mut document);
        project.store.scratch.file("project/a.json", document.to_string());
        project.run(&["a.json", "a.json"])
    };
    compare(&|_| {}).expect(0);
    compare(&|document| document["roots"] = Value::Array(Vec::new())).expect(2).complains(&["roots"]);
    let drv = saved["derivations"][0]["drv"].as_str().unwrap();
    let without = |document: &mut Value| {
        document["derivations"][0].as_object_mut().unwrap().remove("env");
    };
    compare(&without).expect(2).complains(&[drv, "env"]);
}

#[test]
fn inputs_that_come_and_go_are_named() {
    with_every_nix(|nix| {
        let project = Project::new(nix);
        project.change(
            "inputs = [ lib ];",
            "inputs = [ (step \"extra\" { inputs = [ (step \"below\" {}) ]; }) ];",
        );
        let outcome = project.run(&["HEAD", "."]).expect(1);
        outcome.says(&["docs  rebuilds 4", "- input lib-1.0", "+ input extra"]);
        let document = project.run(&["HEAD", ".", "--json"]).expect(1).json();
        let kinds: Vec<&str> =
            changes(&document).iter().map(|change| change["change"].as_str().unwrap()).collect();
        assert_eq!(kinds, ["variable", "inputRemoved", "inputAdded"]);
    });
}

#[test]
fn long_and_hostile_values_are_shortened_and_made_visible() {
    let project = Project::new(a_nix());
    let instantiate = |text: &str| {
        let expression =
            format!("{{ x = derivation {{ name = \"x\"; system = \"s\"; builder = \"b\"; {text} }}; }}");
        project.store.instantiate(&expression, "x")
    };
    let numbers = |last: &str| {
        instantiate(&format!(
            "text = builtins.concatStringsSep \" \" (builtins.genList toString 30000) + \" {last}\";"
        ))
    };
    let outcome = project.run(&[&numbers("one"), &numbers("two")]).expect(1);
    let outcome = outcome.says(&["29999 [-one-]{+two+}"]);
    assert!(outcome.stdout.len() < 1000, "{outcome}");
    let huge = |size: usize| {
        instantiate(&format!(
            "text = builtins.concatStringsSep \"\" (builtins.genList (_: \"0123456789\") {size});"
        ))
    };
    let outcome = project.run(&[&huge(300_000), &huge(300_001)]).expect(1);
    outcome.says(&["text: …01234567890123456789{+0123456789+}\n"]);
    let arguments = |list: &str| instantiate(&format!("args = [ {list} ];"));
    let outcome = project.run(&[&arguments("\"a b\""), &arguments("\"a\" \"b\"")]).expect(1);
    outcome.says(&["arguments: [-'a b'-]{+a b+}"]);
    let escape = |word: &str| instantiate(&format!("text = \"a\\n{word} b\";"));
    let outcome = project.run(&[&escape("\u{1b}[31mred"), &escape("\u{1b}]0;title\u{7}")]).expect(1);
    assert!(!outcome.stdout.contains('\u{1b}') && !outcome.stdout.contains('\u{7}'), "{outcome}");
    let structured =
        |flag: &str| instantiate(&format!("__structuredAttrs = true; flags = [ \"-a\" \"{flag}\" ];"));
    project
        .run(&[&structured("-b"), &structured("-c")])
        .expect(1)
        .says(&[r#"flags: [ "-a" [-"-b"-]{+"-c"+} ]"#]);
}

#[test]
fn what_cannot_be_compared_is_said() {
    with_every_nix(|nix| {
        let project = Project::new(nix);
        project.run(&["nonsense", "."]).expect(3).complains(&["nonsense"]);
        project.run(&["nothing.json", "."]).expect(3).complains(&["nothing.json"]);
        project.store.scratch.file("project/graph.json", "{}");
        project.run(&["graph.json", "."]).expect(2).complains(&[
            "graph.json",
            "no saved graph",
            "graph --format json",
        ]);
        project.run(&["."]).expect(2);
        // A derivation that is gone from the store.
        let before = project.drv();
        project.change("-O2", "-O3");
        project.git(&["add", "--all"]);
        let now = project.drv();
        let lib = project
            .store
            .closure(&[&before])
            .into_iter()
            .find(|path| path.ends_with("-lib-1.0.drv"))
            .unwrap();
        project.store.lose(&lib);
        let outcome = project.run(&[&before, &now]).expect(4).says(&["not compared: lib-1.0", "lib-1.0.drv"]);
        let document = project.run(&[&before, &now, "--json"]).expect(4).json();
        assert_eq!(document["unread"].as_array().unwrap().len(), 1, "{outcome}");
    });
}

#[test]
fn a_report_that_cannot_be_written_is_an_error_of_every_command() {
    let project = Project::new(a_nix());
    project.change("-O2", "-O3");
    let cache = format!("file://{}", project.store.scratch.path().join("cache").display());
    let path = project.store.build_one(
        "{ x = derivation { name = \"x\"; system = builtins.currentSystem; builder = \"/bin/sh\"; \
         args = [ \"-c\" \"echo > $out\" ]; }; }",
        "x",
    );
    let push = format!("push-closure --to {cache} --allow-unsigned {path}");
    let audit = format!("audit --cache {cache} .");
    let all = [&push, &audit, "diff HEAD .", "diff --json HEAD .", "graph .", "graph --json ."];
    for words in
        all.iter().map(ToString::to_string).chain([format!("{push} --json"), format!("{audit} --json")])
    {
        let run = |rest: &str| {
            let line = format!("{PROGRAM} {words} {rest}");
            Run::of("bash").args(["-c", &line]).envs(project.store.env()).cwd(&project.dir).run()
        };
        let outcome = run("> /dev/full").expect(3);
        outcome.complains(&["cannot write to standard output", "make room"]);
        // A reader that has gone away has seen enough.
        let status = i32::from(words.starts_with("diff"));
        let outcome = run("| true; exit ${PIPESTATUS[0]}").expect(status);
        assert!(!outcome.stderr().contains("standard output"), "{outcome}");
    }
}

#[test]
fn documents_hold_nothing_that_a_terminal_obeys() {
    let project = Project::new(a_nix());
    let instantiate = |text: &str| {
        let expression = format!(
            "{{ x = derivation {{ name = \"x\"; system = \"s\"; builder = \"b\"; text = \"{text}\"; }}; }}"
        );
        project.store.instantiate(&expression, "x")
    };
    let (old, new) = (instantiate("\u{9b}31m \u{fc}"), instantiate("\u{202e}x \u{fc}"));
    let is_clean = |outcome: &Outcome| !outcome.stdout.contains(['\u{9b}', '\u{202e}']);
    let outcome = project.run(&["--json", &old, &new]).expect(1);
    assert!(is_clean(&outcome) && outcome.stdout.contains("\\u009b31m \u{fc}"), "{outcome}");
    assert_eq!(changes(&outcome.json())[0]["new"], "\u{202e}x \u{fc}");
    let outcome = Run::new(&project.store).args(["graph", "--json", &new]).run().expect(0);
    assert!(is_clean(&outcome), "{outcome}");
    assert_eq!(outcome.json()["derivations"][0]["env"]["text"], "\u{202e}x \u{fc}");
}
