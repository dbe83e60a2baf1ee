//! nginx with WebDAV, as a distribution ships it: the other HTTP server that a push must work with.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::LIMIT;
use super::scratch::Scratch;

/// A running nginx; it ends when dropped.
#[derive(Debug)]
pub(crate) struct Nginx {
    child: Child,
    _scratch: Scratch,
    /// `http://address:port`.
    pub(crate) url: String,
}

impl Nginx {
    /// Serves a directory and takes PUT, with further lines for the `server` if wanted.
    pub(crate) fn new(dir: &Path, more: &str) -> Self {
        Self::start(dir, "", "http://127.0.0.1", more)
    }

    /// The same over TLS, and HTTP/2 for whoever speaks it; the further lines name the certificate.
    pub(crate) fn over_tls(dir: &Path, more: &str) -> Self {
        Self::start(dir, "ssl http2", "https://localhost", more)
    }

    fn start(dir: &Path, how: &str, origin: &str, more: &str) -> Self {
        std::fs::create_dir_all(dir).unwrap();
        // The port can be taken between choosing it and listening, so this may need another try.
        for _ in 0..20 {
            if let Some(nginx) = Self::try_start(dir, how, origin, more) {
                return nginx;
            }
        }
        panic!("nginx does not find a free port");
    }

    fn try_start(dir: &Path, how: &str, origin: &str, more: &str) -> Option<Self> {
        let scratch = Scratch::new();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let temporary = scratch.path().display();
        let dav = if more.contains("dav_methods") { "" } else { "dav_methods PUT;" };
        let log = if more.contains("access_log") { "" } else { "access_log off;" };
        let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
        let config = format!(
            "daemon off; master_process off; worker_processes 1; {user}
             pid {temporary}/pid; error_log {temporary}/error.log;
             events {{ worker_connections 1024; }}
             http {{
               client_max_body_size 0;
               client_body_temp_path {temporary}/body; proxy_temp_path {temporary}/proxy;
               fastcgi_temp_path {temporary}/fastcgi; uwsgi_temp_path {temporary}/uwsgi; scgi_temp_path {temporary}/scgi;
               server {{
                 listen 127.0.0.1:{port} {how}; {log} {dav} {more}
                 location / {{ root {root}; create_full_put_path on; }}
               }}
             }}",
            root = dir.display()
        );
        let config = scratch.file("nginx.conf", config);
        let mut child = Command::new("nginx")
            .env("PATH", "/usr/sbin:/usr/local/sbin:/sbin:/usr/bin:/bin:/run/current-system/sw/bin")
            .arg("-p")
            .arg(scratch.path())
            .arg("-e")
            .arg(scratch.join("error.log"))
            .arg("-c")
            .arg(config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("nginx is needed for this test (apt-get install nginx-light, or scripts/setup)");
        let started = Instant::now();
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                let log = std::fs::read_to_string(scratch.join("error.log")).unwrap_or_default();
                assert!(log.contains("Address already in use"), "nginx ends with {status}: {log}");
                return None;
            }
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                // It could be somebody else's port: nginx must have written its pid by then, or be about to end.
                if scratch.join("pid").exists() {
                    return Some(Self { child, _scratch: scratch, url: format!("{origin}:{port}") });
                }
            }
            assert!(started.elapsed() < LIMIT, "nginx does not answer");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
