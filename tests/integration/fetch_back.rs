//! What is pushed, Nix fetches back: byte for byte, with signatures required and nothing built.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use crate::support::cache::{Cache, assert_closed};
use crate::support::faults::{Answer, Kind, Rule};
use crate::support::nginx::Nginx;
use crate::support::nix::{Store, a_nix, base, bases, with_every_nix};
use crate::support::outcome::{Outcome, count};
use crate::support::program::{Run, open_to_all};
use crate::support::project;
use crate::support::scene::Scene;
use crate::support::server::{Server, order_violations};

/// The sum of a size over all of a cache.
fn sum(cache: &Cache, field: &str) -> u64 {
    cache.entries.values().map(|entry| entry.get(field).unwrap().parse::<u64>().unwrap()).sum()
}

/// Fails unless the report says what the cache now holds, all of it from this push.
#[track_caller]
fn reports_all_of(outcome: &Outcome, cache: &Cache) {
    let target = outcome.target();
    let paths = cache.entries.len() as u64;
    assert_eq!(count(&target, "closure"), paths);
    assert_eq!(count(&target, "pushed"), paths);
    assert_eq!(target["closure"]["narBytes"], sum(cache, "NarSize"));
    assert_eq!(target["pushed"]["narBytes"], sum(cache, "NarSize"));
    // Two paths with the same bytes share a file.
    let files: BTreeMap<_, _> =
        cache.entries.values().map(|entry| (entry.get("URL"), entry.get("FileSize").unwrap())).collect();
    let stored: u64 = files.values().map(|size| size.parse::<u64>().unwrap()).sum();
    let told = target["pushed"]["fileBytes"].as_u64().unwrap();
    assert!((stored..=sum(cache, "FileSize")).contains(&told), "{told} bytes told, {stored} stored");
    for class in ["present", "upstream", "excluded"] {
        assert_eq!(count(&target, class), 0, "{class}");
    }
    assert_eq!(target["verified"], true);
}

fn comes_back_from_a_directory(compression: &str, suffix: &str) {
    with_every_nix(|nix| {
        let scene = Scene::signed(nix, &project::zoo(), "zoo");
        let outcome = scene.push_to(scene.url()).args(["--compression", compression]).run().expect(0);
        let cache = scene.is_complete();
        reports_all_of(&outcome, &cache);
        for entry in cache.entries.values() {
            assert_eq!(entry.get("Compression"), Some(compression));
            assert!(entry.get("URL").unwrap().ends_with(suffix));
        }
        assert!(cache.strange.is_empty() && cache.unused_nars.is_empty(), "{cache:#?}");
        scene.comes_back_from(&scene.url(), &scene.key);
    });
}

#[test]
fn nix_fetches_everything_back_from_a_directory_with_zstd() {
    comes_back_from_a_directory("zstd", ".nar.zst");
}

#[test]
fn nix_fetches_everything_back_from_a_directory_with_xz() {
    comes_back_from_a_directory("xz", ".nar.xz");
}

#[test]
fn nix_fetches_everything_back_from_a_directory_without_compression() {
    comes_back_from_a_directory("none", ".nar");
}

#[test]
fn nix_fetches_everything_back_from_an_http_server() {
    with_every_nix(|nix| {
        let scene = Scene::signed(nix, &project::zoo(), "zoo");
        let server = Server::new(&scene.cache);
        let outcome = scene.push_to(&server.url).run().expect(0);
        reports_all_of(&outcome, &scene.is_complete());
        assert_eq!(order_violations(&server), Vec::<String>::new());
        let sent = |path: &str| server.count(|exchange| exchange.method == "PUT" && exchange.path == path);
        let twice: Vec<String> =
            server.log().into_iter().map(|one| one.path).filter(|path| sent(path) > 1).collect();
        assert_eq!(twice, Vec::<String>::new(), "sent twice");
        scene.comes_back_from(&server.url, &scene.key);
    });
}

#[test]
fn nix_fetches_everything_back_from_nginx() {
    with_every_nix(|nix| {
        let scene = Scene::signed(nix, &project::zoo(), "zoo");
        let nginx = Nginx::new(&scene.cache, "");
        let outcome = scene.push_to(&nginx.url).run().expect(0);
        reports_all_of(&outcome, &scene.is_complete());
        scene.comes_back_from(&nginx.url, &scene.key);
    });
}

#[test]
fn a_cache_can_live_below_a_prefix_of_the_server() {
    let scene = Scene::diamond();
    let root = scene.store.scratch.join("root");
    let server = Server::new(&root);
    for (prefix, slash) in [("team/one", ""), ("team/two", "/")] {
        let url = format!("{}/{prefix}{slash}", server.url);
        scene.push_to(&url).run().expect(0);
        let cache = assert_closed(&root.join(prefix), &scene.store.dir_text(), &[]);
        assert_eq!(cache.paths(), scene.names());
    }
    scene.comes_back_from(&format!("{}/team/one", server.url), &scene.key);
}

#[test]
fn a_second_push_sends_nothing() {
    with_every_nix(|nix| {
        let scene = Scene::signed(nix, &project::diamond(), "top");
        let server = Server::new(&scene.cache);
        scene.push_to(&server.url).run().expect(0);
        let again = Server::new(&scene.cache);
        let target = scene.push_to(&again.url).run().expect(0).target();
        assert_eq!((count(&target, "pushed"), count(&target, "present")), (0, 4));
        assert_eq!(target["verified"], true);
        assert_eq!(again.count(|exchange| exchange.method == "PUT"), 0);
    });
}

#[test]
fn what_the_target_has_is_left_as_it_is_and_the_rest_is_pushed() {
    let scene = Scene::diamond();
    let left = scene.path("left");
    scene.store.run("nix", &["copy", "--to", &scene.url(), &left]);
    let before = scene.is_closed();
    assert_eq!(before.paths(), scene.names_of(["base", "left"]));
    let target = scene.push_to(scene.url()).run().expect(0).target();
    assert_eq!((count(&target, "pushed"), count(&target, "present")), (2, 2));
    let after = scene.is_complete();
    for (path, entry) in &before.entries {
        assert_eq!(after.entries[path].text, entry.text, "it was there, and was changed");
    }
}

#[test]
fn a_hole_in_a_cache_is_filled_below_what_is_there() {
    let scene = Scene::diamond();
    scene.push_to(scene.url()).run().expect(0);
    let base = &scene.path("base");
    let hash = crate::support::cache::hash_part(base);
    fs::remove_file(scene.cache.join(format!("{hash}.narinfo"))).unwrap();
    let target = scene.push_to(scene.url()).run().expect(0).target();
    assert_eq!((count(&target, "pushed"), count(&target, "present")), (1, 3));
    scene.is_complete();
}

#[test]
fn a_narinfo_that_does_not_parse_is_replaced() {
    let scene = Scene::diamond();
    scene.push_to(scene.url()).run().expect(0);
    let hash = crate::support::cache::hash_part(&scene.path("base")).to_owned();
    let narinfo = scene.cache.join(format!("{hash}.narinfo"));
    for broken in ["", "StorePath: /nix/st", "<html>sign in first</html>"] {
        fs::write(&narinfo, broken).unwrap();
        let target = scene.push_to(scene.url()).run().expect(0).target();
        assert_eq!(count(&target, "pushed"), 1, "{broken:?}");
        scene.is_complete();
    }
}

#[test]
fn a_new_cache_says_what_store_it_is_for_and_an_old_one_keeps_its_word() {
    let scene = Scene::diamond();
    let server = Server::new(&scene.cache);
    scene.push_to(&server.url).run().expect(0);
    let info = fs::read_to_string(scene.cache.join("nix-cache-info")).unwrap();
    assert!(info.contains(&format!("StoreDir: {}\n", scene.store.dir_text())), "{info}");
    assert!(info.contains("WantMassQuery: 1\n"), "{info}");

    let mut other = Scene::diamond();
    other.cache = other.store.scratch.dir("old");
    let old = format!("StoreDir: {}\nWantMassQuery: 0\nPriority: 17\n", other.store.dir_text());
    fs::write(other.cache.join("nix-cache-info"), &old).unwrap();
    other.push_to(other.url()).run().expect(0);
    assert_eq!(fs::read_to_string(other.cache.join("nix-cache-info")).unwrap(), old);
}

#[test]
fn a_cache_for_another_store_directory_is_refused() {
    let scene = Scene::diamond();
    fs::create_dir(&scene.cache).unwrap();
    fs::write(scene.cache.join("nix-cache-info"), "StoreDir: /nix/store\n").unwrap();
    let server = Server::new(&scene.cache);
    for url in [scene.url(), server.url.clone()] {
        let outcome = scene.push_to(url).run().expect(2);
        outcome.complains(&["/nix/store", &scene.store.dir_text()]);
    }
    assert_eq!(server.count(|exchange| exchange.method == "PUT"), 0);
    assert_eq!(crate::support::scratch::files_below(&scene.cache), ["nix-cache-info"]);
}

#[test]
fn a_cache_that_has_everything_need_not_be_writable() {
    let mut scene = Scene::diamond();
    scene.cache = open_to_all(&scene.store.scratch, "closed");
    scene.push_to(scene.url()).run().expect(0);
    let server = Server::new(&scene.cache);
    server.rule(Rule::method("PUT", Answer::status(403)));
    make_unwritable(&scene.cache);
    for url in [scene.url(), server.url.clone()] {
        let target = scene.push_to(url).unprivileged(&scene.store).run().expect(0).target();
        assert_eq!((count(&target, "present"), count(&target, "pushed")), (4, 0));
        assert_eq!(target["verified"], true);
    }
    assert_eq!(server.count(|exchange| exchange.method == "PUT"), 0);
}

#[test]
fn a_nar_that_is_gone_is_not_called_fetchable() {
    let scene = Scene::diamond();
    scene.push_to(scene.url()).run().expect(0);
    let cache = scene.is_complete();
    let (path, entry) = cache.entries.iter().next().unwrap();
    fs::remove_file(scene.cache.join(entry.get("URL").unwrap())).unwrap();
    let target = scene.push_to(scene.url()).run().expect(1).target();
    assert_eq!(target["verified"], false);
    let problems = target["problems"].to_string();
    assert!(problems.contains(path) && problems.contains("NAR"), "{problems}");
}

#[test]
fn a_cache_that_loses_a_reference_is_not_called_fetchable() {
    let scene = Scene::diamond();
    let server = Server::new(&scene.cache);
    let (left, base_path) = (scene.path("left"), scene.path("base"));
    scene.push_to(&server.url).run().expect(0);
    let file = scene.cache.join(format!("{}.narinfo", crate::support::cache::hash_part(&left)));
    let cut = fs::read_to_string(&file).unwrap().replace(base(&base_path), "");
    fs::write(&file, cut).unwrap();
    let target = scene.push_to(&server.url).run().expect(1).target();
    assert_eq!(target["verified"], false);
    let problems = target["problems"].to_string();
    assert!(problems.contains(base(&left)) && problems.contains(base(&base_path)), "{problems}");
}

#[test]
fn a_url_is_decoded_and_a_path_is_not() {
    let scene = Scene::diamond();
    scene.push_to(format!("file://{}/a%20b", scene.store.scratch.path().display())).run().expect(0);
    scene.push_to("./c%20d").run().expect(0);
    for dir in ["a b", "c%20d"] {
        let cache = assert_closed(&scene.store.scratch.join(dir), &scene.store.dir_text(), &[]);
        assert_eq!(cache.paths(), scene.names());
    }
}

#[test]
fn files_in_a_cache_can_be_read_by_others() {
    let scene = Scene::diamond();
    scene.push_to(scene.url()).run().expect(0);
    for file in crate::support::scratch::files_below(&scene.cache) {
        let mode = fs::metadata(scene.cache.join(&file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o444, 0o444, "{file} has mode {mode:o}");
    }
}

#[test]
fn a_server_that_loses_what_it_accepted_is_found_out() {
    let lost = [
        Rule::on("PUT", Kind::Nar, Answer::status(201)).nth(2),
        Rule::on("PUT", Kind::Narinfo, Answer::status(201)).nth(2),
    ];
    for rule in lost {
        let scene = Scene::diamond();
        let server = Server::new(&scene.cache);
        server.rule(rule);
        let target = scene.push_to(&server.url).run().expect(1).target();
        assert_eq!(target["verified"], false);
        let unseen = Server::new(&scene.store.scratch.join("unseen"));
        unseen.rule(Rule::on("PUT", Kind::Nar, Answer::status(201)));
        let target = scene.push_to(&unseen.url).arg("--no-verify").run().expect(0).target();
        assert!(target["verified"].is_null());
    }
}

#[test]
fn several_targets_are_filled_in_one_run() {
    let scene = Scene::diamond();
    let second = scene.store.scratch.join("second");
    let server = Server::new(&second);
    let outcome = scene.push_to(scene.url()).to(&server.url).run().expect(0);
    let targets = outcome.json()["targets"].clone();
    assert_eq!(targets.as_array().unwrap().len(), 2);
    scene.is_complete();
    assert_eq!(assert_closed(&second, &scene.store.dir_text(), &[]).paths(), scene.names());
}

#[test]
fn a_target_that_refuses_does_not_keep_the_others_from_being_filled() {
    let scene = Scene::diamond();
    let server = Server::new(&scene.store.scratch.join("second"));
    server.rule(Rule::method("PUT", Answer::status(403)));
    let outcome = scene.push().to(&server.url).to(scene.url()).run();
    assert!(matches!(outcome.status.code(), Some(1 | 3)), "{outcome}");
    scene.is_complete();
    drop(outcome.says(&["403", &server.url]));
}

#[test]
fn a_directory_can_be_named_by_a_path() {
    let scene = Scene::diamond();
    for (name, dir) in [("./here", "here"), ("sub/dir", "sub/dir"), ("sub/../there/", "there")] {
        scene.push_to(name).run().expect(0);
        let cache = assert_closed(&scene.store.scratch.join(dir), &scene.store.dir_text(), &[]);
        assert_eq!(cache.paths(), scene.names());
    }
    scene.push_to("nowhere").run().expect(2).complains(&["nowhere"]);
}

#[test]
fn a_directory_with_odd_characters_is_a_directory() {
    let scene = Scene::diamond();
    let dir = scene.store.scratch.join("a b%20c?d#é");
    scene.push_to(&dir).run().expect(0);
    assert_eq!(assert_closed(&dir, &scene.store.dir_text(), &[]).paths(), scene.names());
}

#[test]
fn the_local_cache_signs_with_a_key_of_its_own() {
    with_every_nix(|nix| {
        let scene = Scene::unsigned(nix, &project::diamond(), "top");
        let home = scene.store.scratch.dir("xdg");
        let push = || scene.push().env("XDG_CACHE_HOME", home.clone());
        let outcome = push().to("local").run().expect(0);
        let dir = home.join("cache-helper/binary-cache");
        let cache = assert_closed(&dir, &scene.store.dir_text(), &[]);
        assert_eq!(cache.paths(), scene.names());

        let output = outcome.output();
        let key = output.lines().find_map(|line| line.split_once("trusted-public-keys").map(|(_, key)| key));
        let key = key.unwrap_or_else(|| panic!("it does not say what key to trust\n{outcome}"));
        let public = key.trim_start_matches([' ', '=']).trim().to_owned();
        for entry in cache.entries.values() {
            assert!(entry.is_signed_by(&scene.store.dir_text(), &public), "{public} and {}", entry.text);
        }
        let secrets = |file: &String| {
            let text = fs::read(home.join(file)).unwrap();
            let secret =
                text.windows(2).any(|pair| pair == b":=") || file.contains("secret") || file.contains("key");
            let mode = fs::metadata(home.join(file)).unwrap().permissions().mode();
            (secret && !file.contains("pub")).then_some(mode & 0o777)
        };
        let files = crate::support::scratch::files_below(&home);
        let modes: Vec<u32> =
            files.iter().filter(|file| !file.contains("/nar/")).filter_map(secrets).collect();
        assert_eq!(modes, [0o600], "{files:?}");

        // The same key another time, and for Nix.
        let again = push().args(["--to", "local", "--json"]).run().expect(0).target();
        assert_eq!(count(&again, "present"), 4);
        let key = crate::support::nix::Key { file: home.clone(), public };
        scene.comes_back_from(&format!("file://{}", dir.display()), &key);
    });
}

#[test]
fn without_a_target_it_is_the_variable_then_the_local_cache_and_on_ci_an_error() {
    let scene = Scene::diamond();
    let home = scene.store.scratch.dir("xdg");
    let push = || scene.push().env("XDG_CACHE_HOME", home.clone());
    push().env("CACHE_HELPER_TO", scene.url()).run().expect(0);
    scene.is_complete();
    assert!(!home.join("cache-helper").exists());

    let error = push().env("CI", "true").run().expect(2);
    error.complains(&["--to", "CACHE_HELPER_TO"]);
    assert!(!home.join("cache-helper").exists());

    let outcome = push().env("CI", "false").run().expect(0);
    let first = outcome.stdout.lines().next().unwrap_or_default().to_owned();
    assert!(first.contains("local") || first.contains("cache-helper/binary-cache"), "{outcome}");
    let cache = assert_closed(&home.join("cache-helper/binary-cache"), &scene.store.dir_text(), &[]);
    assert_eq!(cache.paths(), scene.names());
}

#[test]
fn a_store_below_another_root_is_pushed_under_its_logical_paths() {
    with_every_nix(|nix| {
        let store = Store::new(nix);
        let root = store.scratch.dir("root");
        let file = store.scratch.file("some-file", "content");
        let plain = || {
            let names = ["NIX_STORE_DIR", "NIX_STATE_DIR", "NIX_LOCALSTATE_DIR", "NIX_LOG_DIR"];
            names.into_iter().fold(Run::new(&store), Run::without)
        };
        let mut command = store.command("nix-store");
        for name in ["NIX_STORE_DIR", "NIX_STATE_DIR", "NIX_LOCALSTATE_DIR", "NIX_LOG_DIR"] {
            command.env_remove(name);
        }
        let added = command.arg("--store").arg(&root).arg("--add").arg(&file).output().unwrap();
        assert!(added.status.success(), "{}", String::from_utf8_lossy(&added.stderr));
        let path = String::from_utf8(added.stdout).unwrap().trim().to_owned();
        assert!(path.starts_with("/nix/store/"), "{path}");

        let cache = store.scratch.join("cache");
        let push = plain().arg("push-closure").arg(&path).to(&cache).arg("--json");
        push.env("NIX_REMOTE", root.clone().into_os_string()).run().expect(0);
        let read = assert_closed(&cache, "/nix/store", &[]);
        assert_eq!(read.paths(), bases(&[path.clone()].into()));

        // The same by an option for Nix, and from the working directory.
        for (n, root) in [root.to_str().unwrap(), "./root", "../"].into_iter().enumerate() {
            let cwd =
                if root == "../" { store.scratch.dir("root/below") } else { store.scratch.path().to_owned() };
            let cache = store.scratch.join(format!("cache{n}"));
            let push = plain().arg("push-closure").arg(&path).to(&cache).arg("--json");
            push.args(["--", "--store", root]).cwd(cwd).run().expect(0);
            assert_eq!(assert_closed(&cache, "/nix/store", &[]).paths(), bases(&[path.clone()].into()));
        }
    });
}

#[test]
fn a_file_that_is_not_there_yet_is_never_seen_half_written() {
    let scene = Scene::signed(a_nix(), &project::chain(12, 100_000), "p11");
    let mut watch = crate::support::watch::Watch::new(&scene.cache);
    scene.push_to(scene.url()).run().expect(0);
    assert_eq!(watch.violations(), Vec::<String>::new());
    let cache = scene.is_complete();
    assert!(cache.strange.is_empty(), "left behind: {:?}", cache.strange);
}

fn make_unwritable(dir: &std::path::Path) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            make_unwritable(&path);
        }
    }
    fs::set_permissions(dir, fs::Permissions::from_mode(0o555)).unwrap();
}
