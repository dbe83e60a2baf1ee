//! What a narinfo is signed with.

use std::fs;

use crate::support::nix::{a_nix, with_every_nix};
use crate::support::outcome::count;
use crate::support::project;
use crate::support::scene::Scene;
use crate::support::scratch::files_below;
use crate::support::server::Server;

#[test]
fn a_push_that_would_leave_a_path_unsigned_stops_at_the_plan() {
    with_every_nix(|nix| {
        let scene = Scene::unsigned(nix, &project::diamond(), "top");
        let server = Server::new(&scene.cache);
        for dry in [&[][..], &["--dry-run"]] {
            let outcome = scene.push().to(&server.url).args(dry.iter().copied()).run().expect(2);
            let headline = if dry.is_empty() { "nothing was pushed" } else { "nothing would be pushed" };
            outcome.complains(&["--sign-key-file", "--allow-unsigned"]).says(&[headline]);
        }
        assert_eq!(server.count(|exchange| exchange.method == "PUT"), 0);
        assert_eq!(files_below(&scene.cache), Vec::<String>::new());
    });
}

#[test]
fn one_unsigned_path_among_signed_ones_is_named() {
    let scene = Scene::unsigned(a_nix(), &project::diamond(), "top");
    let mut signed = scene.closure.clone();
    signed.remove(&scene.path("right"));
    scene.store.sign(&scene.key, &signed);
    let outcome = scene.push().to(scene.url()).run().expect(2).complains(&["--sign-key-file"]);
    assert!(outcome.stderr().contains(crate::support::nix::base(&scene.path("right"))), "{outcome}");
    assert!(!outcome.stderr().contains(crate::support::nix::base(&scene.path("left"))), "{outcome}");
    assert!(!scene.cache.exists());
    // Where the target has it already, this push leaves nothing unsigned; but Nix will not take it.
    scene.store.run("nix", &["copy", "--to", &scene.url(), &scene.path("right")]);
    let target = scene.push_to(scene.url()).run().expect(1).target();
    assert_eq!((count(&target, "pushed"), target["verified"].as_bool()), (2, Some(false)));
    scene.is_complete();
}

#[test]
fn what_lies_unsigned_in_the_target_is_not_called_fetchable_until_it_is_signed() {
    with_every_nix(|nix| {
        let scene = Scene::unsigned(nix, &project::diamond(), "top");
        scene.push_to(scene.url()).arg("--allow-unsigned").run().expect(0);
        let push = || scene.push_to(scene.url()).arg("--sign-key-file").arg(&scene.key.file);
        let outcome = push().run().expect(1);
        let target = outcome.target();
        assert_eq!((count(&target, "present"), target["verified"].as_bool()), (4, Some(false)));
        let problems = target["problems"].as_array().unwrap();
        assert!(problems[0].as_str().unwrap().contains("carries no signature"), "{target:#}");
        assert_eq!(problems.len(), 4, "{target:#}");
        let warning = outcome.json()["warnings"][0].as_str().unwrap().to_owned();
        assert!(warning.contains("4 paths"), "{warning}");

        // What the warning says mends it.
        let (_, command) = warning.split_once("nix store sign").unwrap();
        let key = scene.key.file.to_str().unwrap();
        let words = command.split_whitespace().map(|word| if word == "FILE" { key } else { word });
        scene.store.run("nix", &["store", "sign"].into_iter().chain(words).collect::<Vec<_>>());
        let outcome = push().run().expect(0);
        assert_eq!(outcome.target()["verified"], true);
        assert_eq!(outcome.json()["warnings"], serde_json::json!([]));
        // Where signatures do not matter, nothing is amiss either.
        let other = scene.store.scratch.join("other");
        scene.push_to(&other).arg("--allow-unsigned").run().expect(0);
        let again = scene.push_to(&other).arg("--allow-unsigned").run().expect(0);
        assert_eq!(again.json()["warnings"], serde_json::json!([]));
    });
}

#[test]
fn signatures_by_keys_that_are_not_trusted_here_are_for_others_to_judge() {
    let mut scene = Scene::diamond();
    let other = scene.store.key("other-1");
    scene.store.set("trusted-public-keys", other.public);
    for pushed in [4, 0] {
        let target = scene.push_to(scene.url()).run().expect(0).target();
        assert_eq!((count(&target, "pushed"), target["verified"].as_bool()), (pushed, Some(true)));
    }
}

#[test]
fn a_signature_in_the_name_of_a_trusted_key_that_is_not_valid_is_found() {
    let scene = Scene::diamond();
    scene.push_to(scene.url()).run().expect(0);
    let file = |name: &str| {
        scene.cache.join(format!("{}.narinfo", crate::support::cache::hash_part(&scene.path(name))))
    };
    let signature = |name: &str| {
        let text = fs::read_to_string(file(name)).unwrap();
        text.lines().find(|line| line.starts_with("Sig: ")).unwrap().to_owned()
    };
    let text = fs::read_to_string(file("left")).unwrap();
    fs::write(file("left"), text.replace(&signature("left"), &signature("right"))).unwrap();
    let target = scene.push_to(scene.url()).run().expect(1).target();
    let problem = target["problems"][0].as_str().unwrap();
    assert!(problem.contains("-left") && problem.contains("store-1"), "{problem}");
}

#[test]
fn unsigned_paths_are_pushed_where_that_is_allowed() {
    let scene = Scene::unsigned(a_nix(), &project::diamond(), "top");
    scene.push_to(scene.url()).arg("--allow-unsigned").run().expect(0);
    let cache = scene.is_complete();
    assert!(cache.entries.values().all(|entry| entry.signers().is_empty()));
}

#[test]
fn a_key_signs_what_nix_then_trusts() {
    with_every_nix(|nix| {
        let scene = Scene::unsigned(nix, &project::zoo(), "zoo");
        let key = scene.store.key("ours-1");
        scene.push_to(scene.url()).arg("--sign-key-file").arg(&key.file).run().expect(0);
        let cache = scene.is_complete();
        for entry in cache.entries.values() {
            assert!(entry.is_signed_by(&scene.store.dir_text(), &key.public), "{}", entry.text);
        }
        scene.comes_back_from(&scene.url(), &key);
    });
}

#[test]
fn signatures_of_the_store_are_kept_and_ours_comes_besides() {
    let scene = Scene::signed(a_nix(), &project::diamond(), "top");
    let (second, ours) = (scene.store.key("second-1"), scene.store.key("ours-1"));
    scene.store.sign(&second, &scene.closure);
    scene.push_to(scene.url()).arg("--sign-key-file").arg(&ours.file).run().expect(0);
    for entry in scene.is_complete().entries.values() {
        let mut signers = entry.signers();
        signers.sort_unstable();
        assert_eq!(signers, ["ours-1", "second-1", "store-1"]);
        for key in [&scene.key, &second, &ours] {
            assert!(entry.is_signed_by(&scene.store.dir_text(), &key.public), "{}", entry.text);
        }
    }
}

#[test]
fn no_key_name_stands_twice() {
    let scene = Scene::signed(a_nix(), &project::diamond(), "top");
    scene.push_to(scene.url()).arg("--sign-key-file").arg(&scene.key.file).run().expect(0);
    let store_dir = scene.store.dir_text();
    for entry in scene.is_complete().entries.values() {
        assert_eq!(entry.signers(), ["store-1"]);
        assert!(entry.is_signed_by(&store_dir, &scene.key.public));
    }
    // Another key of the same name: ours is the one that is asked for.
    let mut other = Scene::signed(a_nix(), &project::diamond(), "top");
    other.cache = other.store.scratch.join("renewed");
    fs::remove_file(&other.key.file).unwrap();
    let renewed = other.store.key("store-1");
    assert_ne!(renewed.public, other.key.public);
    other.push_to(other.url()).arg("--sign-key-file").arg(&renewed.file).run().expect(0);
    for entry in other.is_complete().entries.values() {
        assert_eq!(entry.signers(), ["store-1"]);
        assert!(entry.is_signed_by(&other.store.dir_text(), &renewed.public));
    }
}

#[test]
fn what_is_content_addressed_needs_no_signature() {
    with_every_nix(|nix| {
        for attr in ["fixed", "tree", "text"] {
            let store = crate::support::nix::Store::new(nix);
            let file = store.expression(&project::addressed());
            let eval =
                ["--eval", "--strict", "--json", "--read-write-mode", file.to_str().unwrap(), "-A", attr];
            let path = if attr == "fixed" {
                store.build_one(&project::addressed(), attr)
            } else {
                store.run("nix-instantiate", &eval).trim().trim_matches('"').to_owned()
            };
            let cache = store.scratch.join("cache");
            let push = crate::support::program::Run::push(&store).arg(&path).to(&cache).arg("--json");
            let outcome = push.run().expect(0);
            assert_eq!(count(&outcome.target(), "pushed"), 1);
            let read = crate::support::cache::assert_closed(&cache, &store.dir_text(), &[]);
            assert!(
                read.entries.values().all(|entry| entry.get("CA").is_some() && entry.signers().is_empty())
            );
            store.throw_away();
            store.fetch(&format!("file://{}", cache.display()), None, &[&path]);
        }
    });
}

#[test]
fn a_bad_key_file_is_named_and_not_shown() {
    let scene = Scene::unsigned(a_nix(), &project::diamond(), "top");
    let bad = [
        ("empty", ""),
        ("no-colon", "VGhpcyBpcyBub3QgYSBrZXkuIEF0IGFsbC4="),
        ("short", "name-1:VGhpcyBpcyBub3QgYSBrZXkuIEF0IGFsbC4="),
        ("not-base64", "name-1:!!!!VGhpcyBpcyBub3QgYSBrZXkuIEF0IGFsbC4"),
        ("no-name", ":VGhpcyBpcyBub3QgYSBrZXkuIEF0IGFsbC4="),
    ];
    for (name, text) in bad {
        let file = scene.store.scratch.file(name, text);
        let outcome = scene.push().to(scene.url()).arg("--sign-key-file").arg(&file).run().expect(2);
        let outcome = outcome.complains(&[file.to_str().unwrap()]);
        assert!(!outcome.output().contains("VGhpcyBpcyBub3Qg"), "{outcome}");
    }
    let missing = scene.store.scratch.join("nowhere");
    let outcome = scene.push().to(scene.url()).arg("--sign-key-file").arg(&missing).run().expect(2);
    outcome.complains(&[missing.to_str().unwrap()]);
    let public = scene.store.scratch.file("public", &scene.key.public);
    let outcome = scene.push().to(scene.url()).arg("--sign-key-file").arg(&public).run().expect(2);
    outcome.complains(&[public.to_str().unwrap()]);
    assert!(!scene.cache.exists());
}

#[test]
fn a_key_file_that_others_can_read_is_remarked_upon() {
    use std::os::unix::fs::PermissionsExt as _;
    let scene = Scene::unsigned(a_nix(), &project::diamond(), "top");
    fs::set_permissions(&scene.key.file, fs::Permissions::from_mode(0o644)).unwrap();
    let push = || scene.push_to(scene.url()).arg("--sign-key-file").arg(&scene.key.file);
    let outcome = push().run().expect(0);
    assert!(!outcome.json()["warnings"].as_array().unwrap().is_empty(), "{outcome}");
    fs::set_permissions(&scene.key.file, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(push().run().expect(0).json()["warnings"], serde_json::json!([]));
}
