//! The configuration file: what flags are unless they are given.
//!
//! A TOML file. Keys are flags without their dashes: those of every verb at
//! the top, those of a verb in a table of its name, `[eval.sweep]` for a verb
//! under a verb. A flag on the command line wins over the environment, and
//! that over the file; a flag that is given also sets aside what the file says
//! of flags that exclude it, so `--keep-experts 4` is not in the way of a
//! `prune-experts` in the file. What the file says never makes a command
//! refuse to run because it would do nothing there. Two keys that exclude one
//! another are refused as on the command line.
//!
//! Owns finding, reading and checking the file. How its values reach clap is
//! `apply`.

mod apply;
mod setting;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{Arg, Command};
use toml::{Table, Value};

pub(super) use apply::{parse, Refused};
use setting::Setting;

/// Environment variable that names the file.
const ENVIRONMENT: &str = "MISTRALRS_PRUNE_CONFIG";

/// Similarity (Jaro–Winkler) from which a name is worth proposing.
const ALIKE: f64 = 0.75;

/// What is wrong with a configuration file.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// It cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// File.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It is not TOML.
    #[error("{}: {reason}", path.display())]
    Syntax {
        /// File.
        path: PathBuf,
        /// Place and reason.
        reason: String,
    },
    /// No flag or verb has this name.
    #[error("{}: unknown key `{key}`", path.display())]
    Unknown {
        /// File.
        path: PathBuf,
        /// Key, with the verbs it is under.
        key: String,
        /// The key that was meant, perhaps.
        nearest: Option<String>,
        /// Command whose help lists the flags.
        command: String,
    },
    /// Two flags cannot be given together.
    #[error("{}: {first} and {second} exclude one another", path.display())]
    Exclusive {
        /// File.
        path: PathBuf,
        /// Key, with the verbs it is under.
        first: String,
        /// The other.
        second: String,
    },
    /// A flag does not take this kind of value.
    #[error("{}: {key}: expected {expected}, found {found}", path.display())]
    Value {
        /// File.
        path: PathBuf,
        /// Key, with the verbs it is under.
        key: String,
        /// Kinds of value that the flag takes.
        expected: &'static str,
        /// Kind of value that was found.
        found: &'static str,
    },
}

impl Error {
    /// One sentence of advice, where there is any to give.
    pub(super) fn hint(&self) -> Option<String> {
        match self {
            Self::Unknown {
                nearest, command, ..
            } => {
                let lists = format!("`{command} --help` lists the flags that keys are named after");
                Some(match nearest {
                    Some(nearest) => format!("did you mean `{nearest}`? {lists}"),
                    None => lists,
                })
            }
            Self::Read { .. } => Some(format!("--config and {ENVIRONMENT} name the file to read")),
            Self::Exclusive { .. } => {
                Some("keep one of them; a flag on the command line sets both aside".to_owned())
            }
            Self::Syntax { .. } | Self::Value { .. } => None,
        }
    }
}

/// The flag that names the file.
pub(super) fn flag() -> Arg {
    Arg::new("config")
        .long("config")
        .global(true)
        .env(ENVIRONMENT)
        .hide_env_values(true)
        .value_name("FILE")
        .value_parser(clap::value_parser!(PathBuf))
        .help("Configuration file, TOML: what flags are unless they are given [default: $XDG_CONFIG_HOME/mistralrs-prune/config.toml]")
}

/// A file that was read, all of whose keys are flags.
struct File {
    path: PathBuf,
    table: Table,
}

impl File {
    /// Reads `named`, else the default file if there is one.
    ///
    /// # Errors
    /// If a file that is named is not there, or one that is there is not right.
    fn find(named: Option<&Path>, command: &Command) -> Result<Option<Self>, Error> {
        let found = match named.filter(|path| !path.as_os_str().is_empty()) {
            Some(path) => Some(path.to_path_buf()),
            None => default_path(|name| std::env::var_os(name)).filter(|path| path.is_file()),
        };
        found.map(|path| Self::read(path, command)).transpose()
    }

    fn read(path: PathBuf, command: &Command) -> Result<Self, Error> {
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(source) => return Err(Error::Read { path, source }),
        };
        let table: Table = match text.parse() {
            Ok(table) => table,
            Err(error) => {
                let reason = toml::de::Error::to_string(&error).trim_end().to_owned();
                return Err(Error::Syntax { path, reason });
            }
        };
        let file = Self { path, table };
        // All of it, so that a mistake does not wait for its verb to be used.
        file.check(&file.table, command, "")?;
        Ok(file)
    }

    /// Fails unless every key is a flag of `command` or a verb under it, with a
    /// value that the flag can have.
    fn check(&self, table: &Table, command: &Command, prefix: &str) -> Result<(), Error> {
        for (key, value) in table {
            let full = format!("{prefix}{key}");
            match (value, verb(command, key), flag_of(command, key)) {
                (Value::Table(inner), Some(verb), _) => {
                    self.check(inner, verb, &format!("{full}."))?;
                }
                (value, _, Some(flag)) => {
                    self.setting(flag, value, &full)?;
                }
                (value, Some(_), None) => {
                    return Err(self.value(&full, "a table", setting::kind(value)));
                }
                _ => return Err(self.unknown(key, full, command, prefix)),
            }
        }
        Ok(())
    }

    fn unknown(&self, key: &str, full: String, command: &Command, prefix: &str) -> Error {
        let flags = command.get_arguments().filter(|arg| settable(arg));
        let flags = flags.filter_map(Arg::get_long);
        let verbs = command.get_subcommands().filter(|verb| !verb.is_hide_set());
        let known = flags.chain(verbs.map(Command::get_name));
        let near = known
            .map(|name| (strsim::jaro_winkler(name, &key.replace('_', "-")), name))
            .filter(|(alike, _)| *alike >= ALIKE)
            .max_by(|(a, _), (b, _)| a.total_cmp(b));
        Error::Unknown {
            path: self.path.clone(),
            key: full,
            nearest: near.map(|(_, name)| format!("{prefix}{name}")),
            command: format!("mistralrs-prune {}", prefix.replace('.', " "))
                .trim_end()
                .to_owned(),
        }
    }

    fn setting(&self, flag: &Arg, value: &Value, key: &str) -> Result<Setting, Error> {
        Setting::new(flag, value).map_err(|(expected, found)| self.value(key, expected, found))
    }

    fn exclusive(&self, verbs: &[String], first: &Arg, second: &Arg) -> Error {
        let key = |arg: &Arg| {
            let long = arg.get_long().unwrap_or_default();
            let parts = verbs.iter().map(String::as_str).chain([long]);
            parts.collect::<Vec<_>>().join(".")
        };
        Error::Exclusive {
            path: self.path.clone(),
            first: key(first),
            second: key(second),
        }
    }

    fn value(&self, key: &str, expected: &'static str, found: &'static str) -> Error {
        Error::Value {
            path: self.path.clone(),
            key: key.to_owned(),
            expected,
            found,
        }
    }

    /// What the file says of flags of `command`, which is under `verbs`; at the
    /// top those are the flags of every verb.
    fn settings<'a>(
        &self,
        command: &'a Command,
        verbs: &[String],
    ) -> Result<Vec<(&'a Arg, Setting)>, Error> {
        let mut table = Some(&self.table);
        for verb in verbs {
            table = table
                .and_then(|table| table.get(verb))
                .and_then(Value::as_table);
        }
        let mut settings = Vec::new();
        let values = table
            .into_iter()
            .flatten()
            .filter(|(_, value)| !value.is_table());
        for (key, value) in values {
            if let Some(flag) = flag_of(command, key) {
                settings.push((flag, self.setting(flag, value, key)?));
            }
        }
        Ok(settings)
    }
}

/// Where the file is unless it is named.
fn default_path(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let set = |name| {
        variable(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let folder = set("XDG_CONFIG_HOME").or_else(|| Some(set("HOME")?.join(".config")))?;
    Some(folder.join("mistralrs-prune").join("config.toml"))
}

/// The verb called `name` under `command`.
fn verb<'a>(command: &'a Command, name: &str) -> Option<&'a Command> {
    let mut verbs = command.get_subcommands().filter(|verb| !verb.is_hide_set());
    verbs.find(|verb| verb.get_name() == name)
}

/// The flag of `command` that a key names.
fn flag_of<'a>(command: &'a Command, key: &str) -> Option<&'a Arg> {
    let named = |arg: &&Arg| {
        let aliases = arg.get_visible_aliases().unwrap_or_default();
        settable(arg)
            && arg
                .get_long()
                .into_iter()
                .chain(aliases)
                .any(|name| name == key)
    };
    command.get_arguments().find(named)
}

/// Whether a file may say what a flag is.
fn settable(arg: &Arg) -> bool {
    !["config", "help", "version"].contains(&arg.get_id().as_str()) && !arg.is_hide_set()
}

#[cfg(test)]
mod tests;
