//! Logins from a netrc file, as `curl` and Nix read it.
//!
//! Format: <https://everything.curl.dev/usingcurl/netrc.html>. Tokens are separated by white space; `macdef` bodies end
//! at an empty line; the first matching `machine` wins, then `default`.

use secrecy::SecretString;

/// A user name (may be empty) and a password.
#[derive(Clone, Debug)]
pub struct Login {
    /// The name; empty where the file has none, as Cachix writes it.
    pub name: String,
    /// The password or token.
    pub password: SecretString,
}

/// The entries of a netrc file. Prints no password.
#[derive(Clone, Debug, Default)]
pub struct Netrc {
    machines: Vec<(String, Login)>,
    default: Option<Login>,
}

impl Netrc {
    /// Reads the text of a netrc file. Words that are not part of the format are passed over, as `curl` does.
    pub fn parse(text: &str) -> Self {
        let mut netrc = Self::default();
        // The entry being read: its machine (none for `default`), name and password.
        let mut entry: Option<(Option<String>, String, String)> = None;
        let mut in_macro = false;
        for line in text.lines() {
            if in_macro {
                in_macro = !line.trim().is_empty();
                continue;
            }
            let mut words = words(line).into_iter();
            while let Some(word) = words.next() {
                match word.as_str() {
                    "machine" => {
                        netrc.take(entry.take());
                        entry = words.next().map(|host| (Some(host), String::new(), String::new()));
                    }
                    "default" => {
                        netrc.take(entry.take());
                        entry = Some((None, String::new(), String::new()));
                    }
                    "login" => {
                        if let (Some(entry), Some(name)) = (&mut entry, words.next()) {
                            entry.1 = name;
                        }
                    }
                    "password" => {
                        if let (Some(entry), Some(password)) = (&mut entry, words.next()) {
                            entry.2 = password;
                        }
                    }
                    "account" => {
                        words.next();
                    }
                    "macdef" => {
                        in_macro = true;
                        break;
                    }
                    _ => {}
                }
            }
        }
        netrc.take(entry);
        netrc
    }

    fn take(&mut self, entry: Option<(Option<String>, String, String)>) {
        let Some((machine, name, password)) = entry else { return };
        let login = Login { name, password: password.into() };
        match machine {
            Some(host) => self.machines.push((host, login)),
            None => self.default = self.default.take().or(Some(login)),
        }
    }

    /// The login for a host, by exact name.
    pub fn login(&self, host: &str) -> Option<&Login> {
        self.machines
            .iter()
            .find(|(machine, _)| machine.eq_ignore_ascii_case(host))
            .map(|(_, login)| login)
            .or(self.default.as_ref())
    }
}

/// The words of a line, quoted ones whole, up to a comment.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut characters = line.chars().peekable();
    while let Some(character) = characters.next() {
        if character.is_whitespace() {
            continue;
        }
        if character == '#' {
            break;
        }
        let mut word = String::new();
        if character == '"' {
            while let Some(next) = characters.next() {
                match next {
                    '"' => break,
                    '\\' => word.extend(characters.next()),
                    next => word.push(next),
                }
            }
        } else {
            word.push(character);
            while let Some(next) = characters.next_if(|next| !next.is_whitespace()) {
                word.push(next);
            }
        }
        words.push(word);
    }
    words
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use secrecy::ExposeSecret as _;

    use super::*;

    fn password(netrc: &Netrc, host: &str) -> Option<String> {
        netrc.login(host).map(|login| login.password.expose_secret().to_owned())
    }

    #[test]
    fn the_entry_of_a_host_wins_over_the_default() {
        let netrc = Netrc::parse(
            "# team\nmachine a.example login me password one\nmacdef init\nmachine b password no\n\n\
             default login x password two\nmachine c\n  password \"th\\\"ree\" # note\n",
        );
        assert_eq!(password(&netrc, "A.example").as_deref(), Some("one"));
        assert_eq!(netrc.login("a.example").expect("a login").name, "me");
        assert_eq!(password(&netrc, "b").as_deref(), Some("two"));
        assert_eq!(password(&netrc, "c").as_deref(), Some("th\"ree"));
        assert!(Netrc::parse("").login("a").is_none());
    }

    #[test]
    fn a_password_is_not_printed() {
        let netrc = Netrc::parse("machine a login me password sesame");
        assert!(!format!("{netrc:?}").contains("sesame"));
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "(?s).{0,400}") {
            let _ = Netrc::parse(&text).login("host");
        }
    }
}
