//! The client against real servers, where what matters cannot be seen from outside the program.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse as _;
use url::Url;

use super::{HttpClient, HttpError, HttpSettings, Netrc, Reach, may_carry_credentials, redacted};

/// Plays a public server, since this machine has no other addresses than its own.
const PUBLIC: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// What a server got.
#[derive(Debug, Default)]
struct Got {
    requests: AtomicUsize,
    logins: AtomicUsize,
}

/// A server that redirects everything, or serves it where it has no place to redirect to.
async fn server(address: Ipv4Addr, to: Option<String>) -> (SocketAddr, Arc<Got>) {
    async fn handle(
        State((got, to)): State<(Arc<Got>, Option<String>)>,
        headers: HeaderMap,
    ) -> axum::response::Response {
        got.requests.fetch_add(1, Ordering::SeqCst);
        got.logins.fetch_add(usize::from(headers.contains_key(header::AUTHORIZATION)), Ordering::SeqCst);
        match to {
            Some(to) => (StatusCode::FOUND, [(header::LOCATION, to)]).into_response(),
            None => "served".into_response(),
        }
    }
    let got = Arc::<Got>::default();
    let listener = tokio::net::TcpListener::bind((address, 0)).await.expect("a port");
    let at = listener.local_addr().expect("an address");
    let router = Router::new().fallback(handle).with_state((Arc::clone(&got), to));
    tokio::spawn(async move { axum::serve(listener, router).await });
    (at, got)
}

fn settings(reach: Reach) -> Arc<HttpSettings> {
    let netrc = Netrc::parse("default login me password sesame");
    Arc::new(HttpSettings { netrc, reach, ..HttpSettings::default() })
}

async fn get(url: &str, reach: Reach) -> Result<String, HttpError> {
    let url = Url::parse(url).expect("a URL");
    let reply = HttpClient::new(&url, settings(reach))?.get(&url, 100).await?;
    Ok(String::from_utf8_lossy(&reply.body).into_owned())
}

const ONLY_PUBLIC: Reach = Reach::Test(|address| address == IpAddr::V4(PUBLIC));

#[tokio::test]
async fn nobody_is_sent_into_the_users_network_by_a_redirect() {
    let (private, got) = server(Ipv4Addr::LOCALHOST, None).await;
    let names = [format!("http://{private}/"), format!("http://localhost:{}/", private.port())];
    for to in names {
        let (public, asked) = server(PUBLIC, Some(to.clone())).await;
        let error = get(&format!("http://{public}/"), ONLY_PUBLIC).await.expect_err("an objection");
        assert!(error.to_string().contains("no public address"), "{error}");
        assert_eq!(got.requests.load(Ordering::SeqCst), 0, "{to}");
        assert!(asked.requests.load(Ordering::SeqCst) > 0);
        // Whoever names the server themselves may be sent anywhere.
        assert_eq!(get(&format!("http://{public}/"), Reach::Anywhere).await.expect("an answer"), "served");
        got.requests.store(0, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn what_others_name_gets_no_login() {
    let (public, got) = server(PUBLIC, None).await;
    let url = format!("http://{public}/");
    assert_eq!(get(&url, ONLY_PUBLIC).await.expect("an answer"), "served");
    assert_eq!((got.requests.load(Ordering::SeqCst), got.logins.load(Ordering::SeqCst)), (1, 0));
    assert_eq!(get(&url, Reach::Anywhere).await.expect("an answer"), "served");
    assert_eq!(got.logins.load(Ordering::SeqCst), 1);
    let (private, got) = server(Ipv4Addr::LOCALHOST, None).await;
    for url in [format!("http://{private}/"), format!("http://localhost:{}/", private.port())] {
        get(&url, ONLY_PUBLIC).await.expect_err("an objection");
    }
    assert_eq!(got.requests.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_server_that_takes_tokens_gets_the_password_as_one() {
    async fn handle(headers: HeaderMap) -> axum::response::Response {
        match headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()) {
            Some("Bearer sesame") => "served".into_response(),
            _ => (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Bearer realm=\"caches\"")])
                .into_response(),
        }
    }
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    let at = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(handle)).await });
    assert_eq!(get(&format!("http://{at}/"), Reach::Anywhere).await.expect("an answer"), "served");
}

#[tokio::test]
async fn a_login_does_not_follow_a_redirect_to_another_host() {
    let (other, got) = server(PUBLIC, None).await;
    let (first, asked) = server(Ipv4Addr::LOCALHOST, Some(format!("http://{other}/"))).await;
    assert_eq!(get(&format!("http://{first}/"), Reach::Anywhere).await.expect("an answer"), "served");
    assert_eq!(asked.logins.load(Ordering::SeqCst), 1);
    assert_eq!((got.requests.load(Ordering::SeqCst), got.logins.load(Ordering::SeqCst)), (1, 0));
}

#[test]
fn secrets_in_urls_are_not_shown() {
    let url = Url::parse("https://me:secret@host/a?X-Sig=secret&b=secret#secret").expect("a URL");
    assert_eq!(redacted(&url), "https://host/a?X-Sig=…&b=…");
}

#[test]
fn credentials_travel_over_tls_or_not_at_all() {
    let may = |url| may_carry_credentials(&Url::parse(url).expect("a URL"));
    assert!(may("https://example.org"));
    assert!(may("http://127.0.0.9:8080"));
    assert!(may("http://[::1]/x"));
    assert!(may("http://localhost/"));
    assert!(!may("http://example.org"));
    assert!(!may("http://localhost.example.org/"));
    assert!(!may("http://10.0.0.1/"));
}
