//! The bash that `nix develop` starts: `bashInteractive` of the flake's input `nixpkgs`, as it is locked. (Nix's source:
//! `CmdDevelop::run` and `nixpkgsFlakeRef` in `src/nix/develop.cc`.)

use nix_derivation::StorePath;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::lock::Node;
use super::sources::Inputs;
use super::{Flake, is_no_attribute};
use crate::nix::installable::Installable;
use crate::nix::resolver::{ResolveError, Resolver};

/// The bash for the dev shells of one flake.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bash {
    /// The outputs that `nix develop` takes, each valid. Empty where they are not known.
    pub paths: Vec<StorePath>,
    /// Why they are not known, as a sentence without a full stop.
    pub gap: Option<String>,
}

impl Bash {
    /// The bash of dev shells for which the lock has no nixpkgs. `why` says that.
    pub fn of_registry(why: &str) -> Self {
        Self::unknown(format!(
            "{why}: `nix develop` starts the bash of the nixpkgs in the registry of whoever enters, and that is not pushed"
        ))
    }

    fn unknown(gap: String) -> Self {
        Self { paths: Vec::new(), gap: Some(gap) }
    }
}

impl Resolver<'_> {
    /// The bash that `nix develop` starts in the dev shells of a flake whose inputs these are. Its nixpkgs must be valid.
    ///
    /// # Errors
    ///
    /// When it is not valid and may not be built, or Nix fails.
    pub async fn bash(&self, flake: &Flake, inputs: &Inputs, system: &str) -> Result<Bash, ResolveError> {
        let shown = flake.shown();
        let Some((path, node)) = inputs.nixpkgs.as_ref().zip(flake.nixpkgs()) else {
            return Ok(Bash::of_registry(&format!("the flake {shown} has no input nixpkgs")));
        };
        let directory = self.store.real_path(path).join(node.locked("dir").unwrap_or_default());
        if !directory.join("flake.nix").exists() {
            return Ok(Bash::unknown(format!(
                "the nixpkgs of the flake {shown} is no flake: the bash that `nix develop` starts is not known"
            )));
        }
        // By its path, and not by what it is locked to, where there may be a password: everybody can read what is on a
        // command line.
        let nixpkgs = reference(node, &self.store.dir().render_path(path));
        // As in `nix develop`: what is overridden is the flake's inputs, and not those of its nixpkgs.
        let arguments = self.arguments.without_overridden_inputs();
        let resolver = Resolver { store: self.store, arguments: &arguments, build: self.build };
        let attribute = format!("{nixpkgs}#legacyPackages.{system}.bashInteractive");
        let named = Installable::Expression(attribute.clone(), None);
        match resolver.resolve(&[named]).await {
            Ok(paths) => Ok(Bash { paths, gap: None }),
            // Nix says so too, and goes on with the bash that is on PATH.
            Err(error) if is_no_attribute(&error, &attribute) => Ok(Bash::unknown(format!(
                "the nixpkgs of the flake {shown} has no bashInteractive, and `nix develop` starts the bash that is on PATH"
            ))),
            Err(error) => Err(error),
        }
    }
}

/// A reference to what lies at a path in the store, with what else is locked of it, as Nix takes it on the command line.
fn reference(node: Node<'_>, path: &str) -> String {
    let mut reference = format!("path:{}", utf8_percent_encode(path, &IN_PATH));
    for name in ["rev", "lastModified", "narHash", "dir"] {
        let value = match node.member(name) {
            Some(Value::String(value)) => utf8_percent_encode(value, NON_ALPHANUMERIC).to_string(),
            Some(Value::Number(value)) => value.to_string(),
            _ => continue,
        };
        let joint = if reference.contains('?') { '&' } else { '?' };
        reference.push_str(&format!("{joint}{name}={value}"));
    }
    reference
}

/// What cannot stand in a URL's path as it is (RFC 3986, section 3.3). No more than that is encoded: versions of Nix before
/// 2.19 do not decode a path.
const IN_PATH: AsciiSet = NON_ALPHANUMERIC
    .remove(b'/')
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'!')
    .remove(b'$')
    .remove(b'&')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')')
    .remove(b'*')
    .remove(b'+')
    .remove(b',')
    .remove(b';')
    .remove(b'=')
    .remove(b':')
    .remove(b'@');

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::lock::tests::locked;
    use super::*;

    #[test]
    fn a_reference_to_what_lies_in_the_store_tells_nothing_of_where_it_came_from() {
        let at = |attributes: &Value, path: &str| {
            let lock = locked(attributes);
            reference(lock.root().and_then(|root| lock.input(root, "x")).expect("an input"), path)
        };
        let tarball = json!({
            "type": "tarball", "url": "http://me:sesame@h/x?token=sesame", "lastModified": 7, "narHash": "sha256-+/=",
            "rev": "b18a", "dir": "nix pkgs",
        });
        assert_eq!(
            at(&tarball, "/a b/store/c-source"),
            "path:/a%20b/store/c-source?rev=b18a&lastModified=7&narHash=sha256%2D%2B%2F%3D&dir=nix%20pkgs"
        );
        assert_eq!(at(&json!({}), "/c"), "path:/c");
    }
}
