//! A cache that remembers how often it was asked and how long it took.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use super::{Answer, BinaryCache, CacheUrl, ObjectName, Pieces, WriteError};
use crate::net::{Sent, UploadBody};

/// A cache whose reads are counted and timed.
#[derive(Debug)]
pub struct Measured {
    inner: Arc<dyn BinaryCache>,
    times: Mutex<Vec<Duration>>,
}

/// How a cache did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// How many questions were answered or given up.
    pub requests: usize,
    /// How long the middle one of them took, retries and waiting for a connection included.
    pub median: Option<Duration>,
}

impl Measured {
    /// Measures `inner`.
    pub fn new(inner: Arc<dyn BinaryCache>) -> Self {
        Self { inner, times: Mutex::default() }
    }

    /// How the cache did so far.
    pub fn health(&self) -> Health {
        let mut times = self.times.lock().unwrap_or_else(PoisonError::into_inner).clone();
        times.sort_unstable();
        Health { requests: times.len(), median: times.get(times.len() / 2).copied() }
    }

    async fn timed<T>(&self, question: BoxFuture<'_, Answer<T>>) -> Answer<T> {
        let began = Instant::now();
        let answer = question.await;
        self.times.lock().unwrap_or_else(PoisonError::into_inner).push(began.elapsed());
        answer
    }
}

impl BinaryCache for Measured {
    fn url(&self) -> &CacheUrl {
        self.inner.url()
    }

    fn get<'a>(&'a self, name: &'a ObjectName, limit: usize) -> BoxFuture<'a, Answer<Bytes>> {
        self.timed(self.inner.get(name, limit)).boxed()
    }

    /// Timed until it begins to come.
    fn read<'a>(&'a self, name: &'a ObjectName) -> BoxFuture<'a, Answer<Pieces<'a>>> {
        self.timed(self.inner.read(name)).boxed()
    }

    fn size<'a>(&'a self, name: &'a ObjectName) -> BoxFuture<'a, Answer<Option<u64>>> {
        self.timed(self.inner.size(name)).boxed()
    }

    fn put<'a>(
        &'a self,
        name: &'a ObjectName,
        body: UploadBody,
        sent: Sent<'a>,
    ) -> BoxFuture<'a, Result<(), WriteError>> {
        self.inner.put(name, body, sent)
    }

    fn staging_directory(&self) -> Result<Option<&Path>, WriteError> {
        self.inner.staging_directory()
    }
}
