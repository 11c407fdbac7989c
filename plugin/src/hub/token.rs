//! The token that the hub wants for private and gated models.

use std::path::Path;

use crate::{Error, Result};

/// Where the token comes from.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum Token {
    /// `HF_TOKEN`, else the file `$HF_HOME/token` that logging in leaves.
    #[default]
    Ambient,
    /// This one.
    Literal(String),
    /// None at all.
    Anonymous,
}

impl std::fmt::Debug for Token {
    /// Never shows the token.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Ambient => "Ambient",
            Self::Literal(_) => "Literal",
            Self::Anonymous => "Anonymous",
        })
    }
}

impl std::str::FromStr for Token {
    type Err = Error;

    /// `cache`, `none`, `literal:TOKEN`, `env:VARIABLE` or `path:FILE`.
    fn from_str(text: &str) -> Result<Self> {
        match text.split_once(':').unwrap_or((text, "")) {
            ("cache", "") => Ok(Self::Ambient),
            ("none", "") => Ok(Self::Anonymous),
            ("literal", token) if !token.is_empty() => Ok(Self::Literal(token.to_owned())),
            ("env", name) if !name.is_empty() => Self::from_variable(name),
            ("path", path) if !path.is_empty() => Self::from_file(Path::new(path)),
            (kind, _) => Err(Error::Option {
                option: "--token-source",
                expected: "cache, none, literal:TOKEN, env:VARIABLE or path:FILE".to_owned(),
                // What follows the colon may be a token.
                found: kind.to_owned(),
            }),
        }
    }
}

impl Token {
    /// The token in an environment variable.
    ///
    /// # Errors
    /// [`Error::Option`] if it is not set.
    pub fn from_variable(name: &str) -> Result<Self> {
        match std::env::var(name) {
            Ok(token) if !token.trim().is_empty() => Ok(Self::Literal(token.trim().to_owned())),
            _ => Err(Error::Option {
                option: "--token-source",
                expected: format!("a token in the environment variable {name}"),
                found: "none".to_owned(),
            }),
        }
    }

    /// The token in a file.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn from_file(path: &Path) -> Result<Self> {
        let token = std::fs::read_to_string(path).map_err(router_stats::Error::io(path))?;
        Ok(Self::Literal(token.trim().to_owned()))
    }

    /// Replaces [`Token::Ambient`] by what it stands for: `variable`, else what
    /// `file` holds, else nothing.
    pub(super) fn resolved(self, variable: Option<String>, file: &Path) -> Self {
        if self != Self::Ambient {
            return self;
        }
        variable
            .or_else(|| std::fs::read_to_string(file).ok())
            .map(|token| token.trim().to_owned())
            .filter(|token| !token.is_empty())
            .map_or(Self::Anonymous, Self::Literal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_parsed_and_never_shown() {
        let parsed = |text: &str| text.parse::<Token>();
        assert_eq!(parsed("cache").unwrap(), Token::Ambient);
        assert_eq!(parsed("none").unwrap(), Token::Anonymous);
        assert_eq!(
            parsed("literal:a:b").unwrap(),
            Token::Literal("a:b".to_owned())
        );
        assert_eq!(
            parsed("env:PATH").unwrap(),
            Token::Literal(std::env::var("PATH").unwrap())
        );
        for bad in ["", "literal:", "secret:value", "env:", "path:/no/such/file"] {
            let error = parsed(bad).unwrap_err();
            assert!(!error.to_string().contains("value"), "{error}");
        }
        assert!(!format!("{:?}", Token::Literal("secret".to_owned())).contains("secret"));
    }
}
