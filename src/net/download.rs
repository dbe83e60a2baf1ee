//! The body of an answer that is too large for the memory, piece by piece.

use std::time::Duration;

use bytes::Bytes;
use reqwest::Response;
use tokio::time::Instant;

use super::HttpSettings;
use super::client::PATIENCE;
use super::failure::{HttpError, connection_error};
use super::lanes::Place;

/// What has to come in at least while several stall limits are waited, in bytes: slower than a modem, it is no download.
const LEAST: u64 = 256 * 1024;

/// A body that is being read.
#[derive(Debug)]
pub struct Download {
    response: Response,
    /// The request is open for as long.
    _place: Place,
    stall_timeout: Duration,
    connect_timeout: Duration,
    /// What came of late, and how long it was waited for. Time in which nobody asked for more does not count.
    came: u64,
    waited: Duration,
}

impl Download {
    pub(super) fn new(response: Response, place: Place, settings: &HttpSettings) -> Self {
        Self {
            response,
            _place: place,
            stall_timeout: settings.stall_timeout,
            connect_timeout: settings.connect_timeout,
            came: 0,
            waited: Duration::ZERO,
        }
    }

    /// The next piece; nothing at the end.
    ///
    /// # Errors
    ///
    /// When the connection breaks, nothing comes within the stall limit, or so little that it would never end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, HttpError> {
        let began = Instant::now();
        let piece = match tokio::time::timeout(self.stall_timeout, self.response.chunk()).await {
            Ok(Ok(piece)) => piece,
            Ok(Err(error)) => return Err(connection_error(&error, self.connect_timeout)),
            Err(_) => return Err(HttpError::Stalled { limit: self.stall_timeout }),
        };
        self.waited += began.elapsed();
        self.came += piece.as_ref().map_or(0, |piece| piece.len() as u64);
        let patience = self.stall_timeout * PATIENCE;
        if self.waited >= patience {
            if self.came < LEAST && piece.is_some() {
                return Err(HttpError::TooSlow { limit: patience });
            }
            (self.came, self.waited) = (0, Duration::ZERO);
        }
        Ok(piece)
    }
}
