//! For which hosts the user has logins, as far as files say it.

use std::path::Path;

use crate::net::Netrc;

/// The logins of Nix and of what it calls: git asks curl, which has a netrc file of its own.
#[derive(Debug)]
pub(super) struct Logins {
    of_nix: Netrc,
    of_home: Netrc,
}

impl Logins {
    /// Reads the netrc file in a home directory, and takes the one of Nix.
    pub(super) fn read(of_nix: &Netrc, home: Option<&Path>) -> Self {
        // One that cannot be read is of no use to git either.
        let text = home.and_then(|home| std::fs::read_to_string(home.join(".netrc")).ok());
        Self { of_nix: of_nix.clone(), of_home: Netrc::parse(&text.unwrap_or_default()) }
    }

    /// Whether there is one for a host.
    pub(super) fn has(&self, host: &str) -> bool {
        [&self.of_nix, &self.of_home].iter().any(|netrc| netrc.login(host).is_some())
    }
}
