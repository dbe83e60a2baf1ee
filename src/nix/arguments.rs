//! What the user said for evaluation, in the words of Nix's own options.

/// What the user said for evaluation.
#[derive(Clone, Debug, Default)]
pub struct EvaluationArguments {
    /// Options that every `nix` command takes, such as `--impure` or `--override-input`.
    pub options: Vec<String>,
    /// Whether `--file` or `--expr` is among them, so that installables are attribute paths.
    pub has_source: bool,
}

impl EvaluationArguments {
    /// The store that the options name (`--store URL`), which settings must be read with.
    pub fn store(&self) -> Option<&str> {
        let mut words = self.options.iter();
        while let Some(word) = words.next() {
            if word == "--store" {
                return words.next().map(String::as_str);
            }
            if word == "--option" && words.next().is_some_and(|name| name == "store") {
                return words.next().map(String::as_str);
            }
        }
        None
    }

    /// The system that the options name (`--system`).
    pub fn system(&self) -> Option<&str> {
        let mut words = self.options.iter();
        words.find(|word| *word == "--system").and(words.next()).map(String::as_str)
    }

    /// The settings that the options set (`--option NAME VALUE`).
    pub fn settings(&self) -> impl Iterator<Item = (&str, &str)> {
        let words = &self.options;
        let named = words.iter().enumerate().filter(|(_, word)| *word == "--option");
        named.filter_map(|(place, _)| Some((words.get(place + 1)?.as_str(), words.get(place + 2)?.as_str())))
    }

    /// The same, with which evaluation writes no lock file.
    #[must_use]
    pub(crate) fn read_only(&self) -> Self {
        let mut arguments = self.clone();
        if !arguments.has_source {
            arguments.options.push("--no-write-lock-file".to_owned());
        }
        arguments
    }

    /// The options for an installable that is no attribute path: without `--file` and `--expr`, and what goes with them.
    pub(super) fn without_source(&self) -> Vec<String> {
        without(&self.options, |word| match word {
            "-f" | "--file" | "--expr" => Some(1),
            "--arg" | "--argstr" => Some(2),
            _ => None,
        })
    }

    /// The same for what is named by its path, and is no attribute of `--file` or `--expr`.
    #[must_use]
    pub fn for_paths(&self) -> Self {
        Self { options: self.without_source(), has_source: false }
    }

    /// The same without what takes other inputs than the lock file's.
    pub(super) fn without_overridden_inputs(&self) -> Self {
        let options = without(&self.options, |word| match word {
            "--override-input" => Some(2),
            "--update-input" | "--inputs-from" => Some(1),
            _ => None,
        });
        Self { options, has_source: self.has_source }
    }
}

/// Options without some. `values` says of an option that goes how many words go with it.
fn without(options: &[String], values: impl Fn(&str) -> Option<usize>) -> Vec<String> {
    let mut kept = Vec::new();
    let mut words = options.iter();
    while let Some(word) = words.next() {
        if let Some(values) = values(word) {
            words.by_ref().take(values).for_each(drop);
            continue;
        }
        kept.push(word.clone());
        // What another option takes may look like one of these.
        if word == "--option" {
            kept.extend(words.by_ref().take(2).cloned());
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_without_those_for_attributes() {
        let words = "-f x.nix --impure --arg a 1 --argstr b c --option --file y --expr z --no-eval-cache";
        let arguments =
            EvaluationArguments { options: words.split(' ').map(str::to_owned).collect(), has_source: true };
        assert_eq!(arguments.without_source().join(" "), "--impure --option --file y --no-eval-cache");
    }

    #[test]
    fn options_name_the_store() {
        let arguments = |words: &[&str]| EvaluationArguments {
            options: words.iter().map(ToString::to_string).collect(),
            has_source: false,
        };
        assert_eq!(arguments(&["--impure", "--store", "/x"]).store(), Some("/x"));
        assert_eq!(arguments(&["--option", "store", "/y"]).store(), Some("/y"));
        assert_eq!(arguments(&["--option", "cores", "1"]).store(), None);
    }
}
