//! The tools of these tests are tested themselves: a judge that never says no proves nothing.
//! The pusher here is `nix copy`.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::support::cache::{assert_closed, has, hash_part, nix32, read};
use crate::support::faults::{Answer, Kind, Rule};
use crate::support::nginx::Nginx;
use crate::support::nix::{Key, Store, a_nix, base, bases, flip_a_bit, with_every_nix};
use crate::support::program::Run;
use crate::support::project;
use crate::support::scratch::Scratch;
use crate::support::server::{Server, order_violations};
use crate::support::watch::Watch;

/// Pushes with Nix itself.
fn nix_copy(store: &Store, to: &str, key: &Key, path: &str) {
    let to = format!("{to}?compression=zstd&secret-key={}", key.file.display());
    store.run("nix", &["copy", "--to", &to, path]);
}

/// A store, a key, a cache of a diamond, and the diamond's top.
fn a_cache() -> (Store, Key, PathBuf, String) {
    let store = Store::new(a_nix());
    let top = store.build_one(&project::diamond(), "top");
    let key = store.key("test-1");
    let dir = store.scratch.join("cache");
    nix_copy(&store, &format!("file://{}", dir.display()), &key, &top);
    (store, key, dir, top)
}

fn narinfo_of(dir: &Path, name: &str) -> PathBuf {
    let names =
        |file: &PathBuf| fs::read_to_string(file).is_ok_and(|text| text.contains(&format!("-{name}\nURL:")));
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).find(names).unwrap()
}

#[test]
fn the_reader_accepts_what_nix_writes() {
    with_every_nix(|nix| {
        let store = Store::new(nix);
        let top = store.build_one(&project::zoo(), "zoo");
        let closure = store.closure(&[&top]);
        let key = store.key("test-1");
        for compression in ["zstd", "xz", "none"] {
            let dir = store.scratch.join(compression);
            let to = format!(
                "file://{}?compression={compression}&secret-key={}",
                dir.display(),
                key.file.display()
            );
            store.run("nix", &["copy", "--to", &to, &top]);
            let cache = assert_closed(&dir, &store.dir_text(), &[]);
            assert_eq!(cache.paths(), bases(&closure));
            for entry in cache.entries.values() {
                assert!(entry.is_signed_by(&store.dir_text(), &key.public), "{}", entry.text);
            }
        }
    });
}

#[test]
fn the_reader_notices_every_kind_of_damage() {
    type Damage = fn(&Path, &Path);
    let kinds: [(&str, Damage); 11] = [
        ("its References do not", |dir, _| edit(&narinfo_of(dir, "left"), "References: ", "References: ")),
        ("is not there", |_, narinfo| fs::remove_file(narinfo).unwrap()),
        ("No such file", |dir, narinfo| fs::remove_file(nar_of(dir, narinfo)).unwrap()),
        ("FileSize", |dir, narinfo| {
            let nar = nar_of(dir, narinfo);
            let bytes = fs::read(&nar).unwrap();
            fs::write(nar, &bytes[1..]).unwrap();
        }),
        ("FileHash", |dir, narinfo| {
            let nar = nar_of(dir, narinfo);
            let mut bytes = fs::read(&nar).unwrap();
            // The last bytes of a zstd frame are its checksum, or its last literals.
            let last = bytes.len() - 1;
            bytes[last] ^= 1;
            fs::write(nar, bytes).unwrap();
        }),
        ("NarSize", |_, narinfo| edit(narinfo, "NarSize: ", "NarSize: 1")),
        ("NarHash", |_, narinfo| {
            let zeros = "0".repeat(51);
            let text = fs::read_to_string(narinfo).unwrap();
            let line = text.lines().find(|line| line.starts_with("NarHash")).unwrap();
            fs::write(narinfo, text.replace(line, &format!("NarHash: sha256:1{zeros}"))).unwrap();
        }),
        ("cut short", |_, narinfo| {
            let text = fs::read_to_string(narinfo).unwrap();
            fs::write(narinfo, &text[..text.len() - 3]).unwrap();
        }),
        ("stands twice", |_, narinfo| {
            let text = fs::read_to_string(narinfo).unwrap();
            let sig = text.lines().find(|line| line.starts_with("Sig: ")).unwrap().to_owned();
            fs::write(narinfo, format!("{text}{sig}\n")).unwrap();
        }),
        ("another path", |dir, narinfo| {
            fs::copy(narinfo_of(dir, "top"), narinfo).unwrap();
        }),
        ("no nix-cache-info", |dir, _| fs::remove_file(dir.join("nix-cache-info")).unwrap()),
    ];
    let (store, _, dir, _) = a_cache();
    for (word, damage) in kinds {
        let copy = store.scratch.join("copy");
        copy_cache(&dir, &copy);
        assert_closed(&copy, &store.dir_text(), &[]);
        damage(&copy, &narinfo_of(&copy, "base"));
        let problems = read(&copy, &store.dir_text(), &[]).problems;
        let noticed = problems.iter().any(|problem| problem.contains(word));
        // A damaged frame may also fail to decompress before its hash is compared.
        assert!(noticed || (word == "FileHash" && !problems.is_empty()), "{word}: {problems:#?}");
        fs::remove_dir_all(copy).unwrap();
    }
    let elsewhere = read(&dir, "/nix/store", &[]).problems;
    assert!(elsewhere.iter().any(|problem| problem.contains("is not in /nix/store")), "{elsewhere:#?}");
}

#[test]
fn the_reader_counts_a_reference_in_an_upstream() {
    let (store, _, dir, _) = a_cache();
    let upstream = store.scratch.join("upstream");
    copy_cache(&dir, &upstream);
    fs::remove_file(narinfo_of(&dir, "base")).unwrap();
    assert!(!read(&dir, &store.dir_text(), &[]).problems.is_empty());
    assert_closed(&dir, &store.dir_text(), &[&upstream]);
}

#[test]
fn nix_fetches_from_a_good_cache_and_not_without_the_key() {
    with_every_nix(|nix| {
        let store = Store::new(nix);
        let top = store.build_one(&project::zoo(), "zoo");
        let closure = store.closure(&[&top]);
        let before = store.content_hashes(&closure);
        let (key, other) = (store.key("test-1"), store.key("other-1"));
        let dir = store.scratch.join("cache");
        let url = format!("file://{}", dir.display());
        nix_copy(&store, &url, &key, &top);

        store.throw_away();
        assert!(!Path::new(&top).exists());
        assert!(!store.try_fetch(&url, None, &[&top]).status.success(), "signatures are not required");
        store.throw_away();
        assert!(!store.try_fetch(&url, Some(&other), &[&top]).status.success(), "any key will do");
        store.throw_away();
        store.fetch(&url, Some(&key), &[&top]);
        assert_eq!(store.closure(&[&top]), closure);
        assert_eq!(store.content_hashes(&closure), before);
    });
}

#[test]
fn nix_asks_no_other_machine_and_no_registry_on_the_network() {
    with_every_nix(|nix| {
        let store = Store::new(nix);
        // The first address is one of documentation: without the proxy, Nix would wait there for minutes.
        for (words, says) in [
            (
                ["eval", "--impure", "--expr", "builtins.fetchurl https://192.0.2.1/file"],
                "unable to download",
            ),
            (["flake", "metadata", "--json", "nixpkgs"], "cannot find flake 'flake:nixpkgs'"),
        ] {
            let started = Instant::now();
            let output =
                store.try_run("nix", &[&words[..], &["--option", "download-attempts", "1"]].concat());
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert!(!output.status.success() && stderr.contains(says), "{words:?}: {stderr}");
            assert!(started.elapsed() < Duration::from_secs(20), "{words:?}: {:?}", started.elapsed());
        }
    });
}

#[test]
fn a_flipped_bit_changes_what_is_on_disk_and_nothing_else() {
    let store = Store::new(a_nix());
    let top = store.build_one(&project::diamond(), "top");
    let closure = store.closure(&[&top]);
    let before = store.content_hashes(&closure);
    flip_a_bit(&Path::new(&top).join("text"));
    let after = store.content_hashes(&closure);
    let changed: BTreeSet<_> = closure.iter().filter(|path| before[*path] != after[*path]).collect();
    assert_eq!(changed, BTreeSet::from([&top]));
}

#[test]
fn the_server_is_a_cache_for_nix_and_sees_the_order_of_writes() {
    with_every_nix(|nix| {
        let store = Store::new(nix);
        let top = store.build_one(&project::diamond(), "top");
        let closure = store.closure(&[&top]);
        let key = store.key("test-1");
        let dir = store.scratch.join("cache");
        let server = Server::new(&dir);
        nix_copy(&store, &server.url, &key, &top);
        assert_eq!(assert_closed(&dir, &store.dir_text(), &[]).paths(), bases(&closure));
        assert_eq!(server.count(|exchange| exchange.puts(Kind::Narinfo)), 4);
        assert_eq!(server.count(|exchange| exchange.puts(Kind::Nar)), 4);
        assert_eq!(order_violations(&server), Vec::<String>::new());
        store.throw_away();
        store.fetch(&server.url, Some(&key), &[&top]);

        // The same, sent the other way round.
        let (wrong, mut sent) = (Server::new(&store.scratch.join("wrong")), 0);
        for name in ["top", "left", "right", "base"] {
            let narinfo = narinfo_of(&dir, name);
            for file in [narinfo.clone(), nar_of(&dir, &narinfo)] {
                let path = file.strip_prefix(&dir).unwrap().to_str().unwrap();
                let (status, _) = send(&wrong.url, "PUT", &format!("/{path}"), &fs::read(&file).unwrap());
                assert_eq!(status, Some(201));
                sent += 1;
            }
        }
        assert_eq!(wrong.log().len(), sent);
        assert_eq!(order_violations(&wrong).len(), 4 + 4, "{:#?}", order_violations(&wrong));
    });
}

#[test]
fn the_server_answers_as_it_is_told() {
    let scratch = Scratch::new();
    let dir = scratch.join("cache");
    let server = Server::new(&dir);
    assert_eq!(send(&server.url, "PUT", "/a.narinfo", b"text\n").0, Some(201));
    assert_eq!(send(&server.url, "PUT", "/a.narinfo", b"text\n").0, Some(204));
    assert_eq!(send(&server.url, "GET", "/a.narinfo", b""), (Some(200), "text\n".into()));
    assert_eq!(send(&server.url, "GET", "/b.narinfo", b"").0, Some(404));
    assert_eq!(send(&server.url, "HEAD", "/a.narinfo", b"").0, Some(200));
    assert_eq!(send(&server.url, "PUT", "/../b.narinfo", b"x").0, Some(400));

    let busy = Answer::status(429).header("retry-after", "1");
    server.rule(Rule::on("GET", Kind::Narinfo, busy).nth(2)).rule(Rule::on(
        "PUT",
        Kind::Nar,
        Answer::DoneBut(500),
    ));
    assert_eq!(send(&server.url, "GET", "/a.narinfo", b"").0, Some(200));
    assert_eq!(send(&server.url, "GET", "/a.narinfo", b"").0, Some(429));
    assert_eq!(send(&server.url, "GET", "/a.narinfo", b"").0, Some(200));
    assert_eq!(send(&server.url, "PUT", "/nar/x.nar", b"nar").0, Some(500));
    assert_eq!(fs::read(dir.join("nar/x.nar")).unwrap(), b"nar");
    server.heal();

    server
        .rule(Rule::method("PUT", Answer::CutRequest(10)))
        .rule(Rule::method("GET", Answer::CutResponse(2)));
    assert_eq!(send(&server.url, "PUT", "/c.narinfo", &vec![b'x'; 100_000]).0, None);
    assert!(!dir.join("c.narinfo").exists());
    assert_eq!(send(&server.url, "GET", "/a.narinfo", b""), (Some(200), "te".into()));
    server.heal();

    server.rule(Rule::method("GET", Answer::Hang));
    let waiting = TcpStream::connect(server.url.strip_prefix("http://").unwrap()).unwrap();
    (&waiting).write_all(b"GET /a.narinfo HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    let seen = server.log().len();
    server.wait_until(|log| log.len() > seen);
    waiting.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    assert!((&waiting).read(&mut [0]).is_err(), "it hangs, and does not hang up");

    server.require_login("Basic right");
    assert_eq!(send(&server.url, "HEAD", "/a.narinfo", b"").0, Some(401));
}

#[test]
fn a_body_cut_short_by_its_sender_is_not_stored() {
    let scratch = Scratch::new();
    let server = Server::new(&scratch.join("cache"));
    let mut line = TcpStream::connect(server.url.strip_prefix("http://").unwrap()).unwrap();
    line.write_all(b"PUT /a.narinfo HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nStorePath").unwrap();
    drop(line);
    server.wait_until(|log| log.iter().any(|exchange| exchange.method == "PUT"));
    // The next request is answered after the first was given up, because this server has one worker.
    assert_eq!(send(&server.url, "GET", "/a.narinfo", b"").0, Some(404));
}

#[test]
fn nginx_is_a_cache_for_nix() {
    with_every_nix(|nix| {
        let store = Store::new(nix);
        let top = store.build_one(&project::diamond(), "top");
        let key = store.key("test-1");
        let dir = store.scratch.join("cache");
        let nginx = Nginx::new(&dir, "");
        nix_copy(&store, &nginx.url, &key, &top);
        assert_closed(&dir, &store.dir_text(), &[]);
        store.throw_away();
        store.fetch(&nginx.url, Some(&key), &[&top]);
    });
}

#[test]
fn the_watch_sees_files_written_in_place_and_out_of_order() {
    let (_store, _key, dir, _top) = a_cache();
    let scratch = Scratch::new();
    let narinfo = narinfo_of(&dir, "base");
    let nar = nar_of(&dir, &narinfo);
    let to = |file: &Path, top: &Path| top.join(file.strip_prefix(&dir).unwrap());

    let good = scratch.join("good");
    let mut watch = Watch::new(&good);
    for file in [&nar, &narinfo] {
        fs::copy(file, good.join("nar/.part")).unwrap();
        fs::rename(good.join("nar/.part"), to(file, &good)).unwrap();
    }
    assert_eq!(watch.violations(), Vec::<String>::new());
    assert!(watch.changes.len() >= 6);

    let bad = scratch.join("bad");
    let mut watch = Watch::new(&bad);
    fs::copy(&narinfo, to(&narinfo, &bad)).unwrap();
    let problems = watch.violations();
    assert!(problems.iter().any(|problem| problem.contains("where readers see it")), "{problems:#?}");
    assert!(problems.iter().any(|problem| problem.contains("appears before nar/")), "{problems:#?}");
}

#[test]
#[should_panic(expected = "hangs: not done after")]
fn a_program_that_hangs_is_a_failure() {
    drop(Run::of("/bin/sh").args(["-c", "sleep 1000"]).limit(Duration::from_millis(100)).run());
}

#[test]
fn the_peak_of_memory_is_the_childs_own() {
    let script = "x=$(head -c 60000000 /dev/zero | tr '\\0' x); echo ${#x}";
    let shell = || Run::of("/bin/sh").env("PATH", "/usr/bin:/bin").watch_memory();
    let ballast = vec![1_u8; 100_000_000];
    let large = shell().args(["-c", script]).run().expect(0);
    let small = shell().args(["-c", "head -c 1000000 /dev/zero | od -v | wc -l"]).run().expect(0);
    assert!(large.peak_memory > 60_000_000, "{}", large.peak_memory);
    assert!((1..30_000_000).contains(&small.peak_memory), "{}", small.peak_memory);
    assert_eq!(ballast.len(), 100_000_000);
}

#[test]
fn base_32_is_nixs() {
    assert_eq!(nix32(&[0; 32]), "0".repeat(52));
    let store = Store::new(a_nix());
    let file = store.scratch.file("some", "text");
    let hash = store.run("nix-hash", &["--type", "sha256", "--flat", "--base32", file.to_str().unwrap()]);
    assert_eq!(nix32(&<sha2::Sha256 as sha2::Digest>::digest(b"text")), hash.trim());
}

#[test]
fn a_path_in_a_cache_is_found_by_its_whole_name() {
    let (_store, _key, dir, top) = a_cache();
    assert!(has(&dir, base(&top)));
    assert!(!has(&dir, &format!("{}-other", hash_part(&top))));
}

fn nar_of(dir: &Path, narinfo: &Path) -> PathBuf {
    let text = fs::read_to_string(narinfo).unwrap();
    dir.join(text.lines().find_map(|line| line.strip_prefix("URL: ")).unwrap())
}

fn edit(narinfo: &Path, start: &str, line: &str) {
    let text = fs::read_to_string(narinfo).unwrap();
    let lines = text.lines().map(|old| if old.starts_with(start) { line } else { old });
    fs::write(narinfo, lines.collect::<Vec<_>>().join("\n") + "\n").unwrap();
}

fn copy_cache(from: &Path, to: &Path) {
    fs::create_dir_all(to.join("nar")).unwrap();
    for file in crate::support::scratch::files_below(from) {
        fs::copy(from.join(&file), to.join(&file)).unwrap();
    }
}

/// One request with the bare minimum of HTTP: the status, if one came, and what came of the body.
fn send(url: &str, method: &str, path: &str, body: &[u8]) -> (Option<u16>, String) {
    let mut line = TcpStream::connect(url.strip_prefix("http://").unwrap()).unwrap();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    drop(line.write_all(head.as_bytes()).and_then(|()| line.write_all(body)));
    let mut answer = Vec::new();
    drop(line.read_to_end(&mut answer));
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    (status, answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
}
