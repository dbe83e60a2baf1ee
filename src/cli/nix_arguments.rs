//! Options that are Nix's: known by name, handed through unchanged.

use clap::Args;

use crate::nix::EvaluationArguments;

/// Options for evaluation, as `nix build` takes them.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Options for Nix")]
pub struct NixArguments {
    /// Take installables as attribute paths of the expression in FILE.
    #[arg(short, long, value_name = "FILE", conflicts_with = "expr")]
    pub file: Option<String>,
    /// Take installables as attribute paths of this expression.
    #[arg(long, value_name = "EXPRESSION")]
    pub expr: Option<String>,
    /// Allow evaluation to look at mutable paths and the environment.
    #[arg(long)]
    pub impure: bool,
    /// Use another flake for an input.
    #[arg(long, num_args = 2, value_names = ["INPUT", "FLAKE"])]
    pub override_input: Vec<String>,
    /// Set a Nix setting.
    #[arg(long, num_args = 2, value_names = ["NAME", "VALUE"])]
    pub option: Vec<String>,
    /// Pass an expression to the function in FILE or EXPRESSION.
    #[arg(long, num_args = 2, value_names = ["NAME", "EXPRESSION"])]
    pub arg: Vec<String>,
    /// Pass a string to the function in FILE or EXPRESSION.
    #[arg(long, num_args = 2, value_names = ["NAME", "STRING"])]
    pub argstr: Vec<String>,
    /// Evaluate for this system.
    #[arg(long, value_name = "SYSTEM")]
    pub system: Option<String>,
    /// Accept the settings in the flake's nixConfig.
    #[arg(long)]
    pub accept_flake_config: bool,
    /// Anything else for Nix, unchanged.
    #[arg(last = true, value_name = "NIX-OPTIONS")]
    pub rest: Vec<String>,
}

impl NixArguments {
    /// The same in Nix's own words.
    pub fn to_evaluation_arguments(&self) -> EvaluationArguments {
        let mut options: Vec<String> = Vec::new();
        let mut one = |name: &str, value: &Option<String>| {
            if let Some(value) = value {
                options.extend([name.to_owned(), value.clone()]);
            }
        };
        one("--file", &self.file);
        one("--expr", &self.expr);
        one("--system", &self.system);
        let pairs = [
            ("--override-input", &self.override_input),
            ("--option", &self.option),
            ("--arg", &self.arg),
            ("--argstr", &self.argstr),
        ];
        for (name, values) in pairs {
            for pair in values.chunks(2) {
                options.push(name.to_owned());
                options.extend(pair.iter().cloned());
            }
        }
        let flags = [("--impure", self.impure), ("--accept-flake-config", self.accept_flake_config)];
        options.extend(flags.iter().filter(|(_, is_set)| *is_set).map(|(name, _)| (*name).to_owned()));
        options.extend(self.rest.iter().cloned());
        let is_source = |word: &String| matches!(word.as_str(), "-f" | "--file" | "--expr");
        let has_source = options.iter().any(is_source);
        EvaluationArguments { options, has_source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_handed_through() {
        let arguments = NixArguments {
            file: Some("x.nix".into()),
            impure: true,
            option: ["cores", "1", "sandbox", "false"].map(str::to_owned).to_vec(),
            rest: vec!["--no-eval-cache".into()],
            ..NixArguments::default()
        };
        let evaluation = arguments.to_evaluation_arguments();
        assert!(evaluation.has_source);
        assert_eq!(
            evaluation.options.join(" "),
            "--file x.nix --option cores 1 --option sandbox false --impure --no-eval-cache"
        );
    }
}
