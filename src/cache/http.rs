//! A cache behind an HTTP server: GET and HEAD to read, PUT to write.
//!
//! That is what Nix itself speaks, and what nginx and Apache with WebDAV, Artifactory, Nexus, MinIO with a public bucket
//! and many others serve.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _};
use url::Url;

use super::{Answer, BinaryCache, CacheUrl, ObjectName, Pieces, Words, WriteError};
use crate::net::{HttpClient, HttpError, HttpSettings, Reply, Sent, UploadBody, words_of_server};

/// A cache behind an HTTP server.
#[derive(Debug)]
pub struct HttpCache {
    url: CacheUrl,
    base: Url,
    client: HttpClient,
}

impl HttpCache {
    /// The cache below `base`, which ends with `/`.
    ///
    /// # Errors
    ///
    /// When the client cannot be set up.
    pub fn new(url: CacheUrl, base: Url, settings: Arc<HttpSettings>) -> Result<Self, HttpError> {
        let client = HttpClient::new(&base, settings)?;
        Ok(Self { url, base, client })
    }

    fn object(&self, name: &ObjectName) -> Url {
        let mut url = self.base.clone();
        // Names are plain ASCII paths without dot components, so this can only go down.
        url.set_path(&format!("{}{}", self.base.path(), name));
        url
    }

    /// Why a server that does not let us in might have let us in.
    fn hint(&self, status: u16) -> &'static str {
        if self.client.withholds_credentials(&self.base) {
            " (there is a login for this host in netrc, but credentials travel over https or loopback only)"
        } else if status == 401 && self.client.logs_in_at(&self.base) {
            " (the login for this host in netrc was refused)"
        } else {
            ""
        }
    }

    fn answer(&self, name: &ObjectName, reply: Result<Reply, HttpError>) -> Answer<Reply> {
        match reply {
            Ok(reply) if reply.is_success() => Answer::Present(reply),
            Ok(reply) => {
                let words = |text: String| Words::with_status(reply.status, text);
                match reply.status {
                    404 | 410 => Answer::Absent,
                    401 | 403 | 407 => Answer::Denied(words(format!(
                        "{}{}",
                        words_of_server(&reply),
                        self.hint(reply.status)
                    ))),
                    status if status == 429 || status >= 500 => {
                        Answer::Unreachable(words(words_of_server(&reply)))
                    }
                    _ => Answer::Broken(words(format!("{name}: {}", words_of_server(&reply)))),
                }
            }
            Err(error @ HttpError::TooLarge { .. }) => Answer::Broken(format!("{name}: {error}").into()),
            Err(error) => Answer::Unreachable(error.to_string().into()),
        }
    }
}

impl BinaryCache for HttpCache {
    fn url(&self) -> &CacheUrl {
        &self.url
    }

    fn get<'a>(&'a self, name: &'a ObjectName, limit: usize) -> BoxFuture<'a, Answer<Bytes>> {
        async move {
            let reply = self.client.get(&self.object(name), limit).await;
            self.answer(name, reply).map(|reply| reply.body)
        }
        .boxed()
    }

    fn read<'a>(&'a self, name: &'a ObjectName) -> BoxFuture<'a, Answer<Pieces<'a>>> {
        async move {
            let (reply, body) = match self.client.open(&self.object(name)).await {
                Ok((reply, body)) => (Ok(reply), body),
                Err(error) => (Err(error), None),
            };
            self.answer(name, reply).map(|_| {
                futures_util::stream::unfold(body, |body| async {
                    let mut body = body?;
                    match body.next().await {
                        Ok(piece) => piece.map(|piece| (Ok(piece), Some(body))),
                        Err(error) => Some((Err(error.to_string().into()), None)),
                    }
                })
                .boxed()
            })
        }
        .boxed()
    }

    fn size<'a>(&'a self, name: &'a ObjectName) -> BoxFuture<'a, Answer<Option<u64>>> {
        async move {
            let reply = self.client.head(&self.object(name)).await;
            self.answer(name, reply).map(|reply| reply.length)
        }
        .boxed()
    }

    fn put<'a>(
        &'a self,
        name: &'a ObjectName,
        body: UploadBody,
        sent: Sent<'a>,
    ) -> BoxFuture<'a, Result<(), WriteError>> {
        async move {
            let reply = match self.client.put(&self.object(name), &body, sent).await {
                Ok(reply) => reply,
                Err(error) => return Err(WriteError::Unavailable { reason: error.to_string() }),
            };
            if reply.is_success() {
                return Ok(());
            }
            let words = format!("{} to PUT {name}", words_of_server(&reply));
            Err(match reply.status {
                401 | 403 | 407 => {
                    WriteError::Denied { words: format!("{words}{}", self.hint(reply.status)) }
                }
                404 | 405 | 409 | 501 | 300..=399 => WriteError::NotWritable { words },
                413 => WriteError::TooLarge { words },
                408 | 429 | 500.. if reply.status != 507 => WriteError::Unavailable { reason: words },
                _ => WriteError::Rejected { words },
            })
        }
        .boxed()
    }
}
