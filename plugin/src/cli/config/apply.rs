//! A configuration file and a command line → the flags of this run.
//!
//! Values of the file become the defaults of their flags, below what clap takes
//! from the environment and the command line. clap does not count defaults
//! where a flag is required, so if one is missing, the values that name
//! something are added to the command line instead.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command};

use super::{Error, File, Setting};

/// The flags of a run.
pub(in crate::cli) struct Parsed {
    /// All of them.
    pub(in crate::cli) matches: ArgMatches,
    /// The configuration file, if there is one.
    pub(in crate::cli) file: Option<PathBuf>,
    /// Ids of the flags that it decided.
    pub(in crate::cli) decided: BTreeSet<String>,
}

/// Why there are no flags.
pub(in crate::cli) enum Refused {
    /// The configuration file is wrong.
    Config(Error),
    /// The command line is wrong, or asked for help; with what the file
    /// contributed.
    Usage(clap::Error, Option<String>),
}

impl From<clap::Error> for Refused {
    fn from(error: clap::Error) -> Self {
        Self::Usage(error, None)
    }
}

/// Reads the command line `argv` of `command`, and its configuration file.
///
/// # Errors
/// [`Refused`]
pub(in crate::cli) fn parse(command: Command, argv: &[OsString]) -> Result<Parsed, Refused> {
    let strict = |command: Command, argv: &[OsString]| command.try_get_matches_from(argv);
    // What was typed, as far as it can be read.
    let lenient = command.clone().ignore_errors(true);
    let Ok(typed) = lenient.try_get_matches_from(argv) else {
        // Help, or the version.
        return Err(match strict(command, argv) {
            Err(error) => error.into(),
            Ok(matches) => return Ok(Parsed::plain(matches)),
        });
    };
    let (verbs, leaf) = leaf(&typed);
    let named = leaf.try_get_one::<PathBuf>("config").ok().flatten();
    let named = named.or_else(|| typed.try_get_one("config").ok().flatten());
    // Knows which verb has which flags; once built, a command can no longer be
    // changed.
    let mut built = command.clone();
    built.build();
    let Some(file) = File::find(named.map(PathBuf::as_path), &built).map_err(Refused::Config)?
    else {
        return Ok(Parsed::plain(strict(command, argv)?));
    };
    let verb = verbs.iter().fold(&built, |command, verb| {
        command.find_subcommand(verb).unwrap_or(command)
    });
    let given = |arg: &Arg| was_given(leaf, arg) || was_given(&typed, arg);
    let given: Vec<&Arg> = verb.get_arguments().filter(|arg| given(arg)).collect();
    let mut said = file.settings(verb, &[]).map_err(Refused::Config)?;
    if !verbs.is_empty() {
        said.extend(file.settings(verb, &verbs).map_err(Refused::Config)?);
    }
    let settings: Vec<(Arg, Setting)> = said
        .into_iter()
        .filter(|(arg, _)| !given.iter().any(|given| given.get_id() == arg.get_id()))
        .filter(|(arg, _)| !given.iter().any(|given| exclude(verb, arg, given)))
        .map(|(arg, setting)| (arg.clone(), setting))
        .collect();
    if let Some([a, b]) = contradiction(verb, &settings) {
        return Err(Refused::Config(file.exclusive(&verbs, a, b)));
    }

    let path = file.path;
    let decided: BTreeSet<String> = settings
        .iter()
        .map(|(arg, _)| arg.get_id().to_string())
        .collect();
    let with_defaults = with_defaults(command.clone(), &verbs, &settings);
    let matches = match strict(with_defaults, argv) {
        Err(error) if error.kind() == ErrorKind::MissingRequiredArgument => {
            strict(command, &with_values(argv, &settings))
        }
        result => result,
    };
    match matches {
        Ok(matches) => Ok(Parsed {
            matches,
            file: Some(path),
            decided,
        }),
        Err(error) => {
            let flags = settings.iter().filter_map(|(arg, _)| arg.get_long());
            let flags: Vec<String> = flags.map(|long| format!("--{long}")).collect();
            let note = (!flags.is_empty() && error.use_stderr())
                .then(|| format!("{} gives {}", path.display(), flags.join(", ")));
            Err(Refused::Usage(error, note))
        }
    }
}

impl Parsed {
    fn plain(matches: ArgMatches) -> Self {
        Self {
            matches,
            file: None,
            decided: BTreeSet::new(),
        }
    }
}

/// The verbs that were typed, and the flags of the last.
fn leaf(matches: &ArgMatches) -> (Vec<String>, &ArgMatches) {
    let (mut verbs, mut leaf) = (Vec::new(), matches);
    while let Some((verb, under)) = leaf.subcommand() {
        verbs.push(verb.to_owned());
        leaf = under;
    }
    (verbs, leaf)
}

/// Whether a flag is on the command line or in the environment.
fn was_given(matches: &ArgMatches, arg: &Arg) -> bool {
    let id = arg.get_id().as_str();
    matches.try_contains_id(id).unwrap_or(false)
        && matches
            .value_source(id)
            .is_some_and(|source| source != ValueSource::DefaultValue)
}

/// Whether clap refuses two flags of `command` together.
fn exclude(command: &Command, a: &Arg, b: &Arg) -> bool {
    let conflicts = |a: &Arg, b: &Arg| {
        let others = command.get_arg_conflicts_with(a);
        others.iter().any(|other| other.get_id() == b.get_id())
    };
    let exclusive = |group: &clap::ArgGroup| {
        let holds = |arg: &Arg| group.get_args().any(|id| id == arg.get_id());
        holds(a) && holds(b) && !group.clone().is_multiple()
    };
    conflicts(a, b) || conflicts(b, a) || command.get_groups().any(exclusive)
}

/// Two things that the file says and clap would refuse together.
fn contradiction<'a>(command: &Command, settings: &'a [(Arg, Setting)]) -> Option<[&'a Arg; 2]> {
    let said = settings
        .iter()
        .filter(|(_, setting)| *setting != Setting::Given(false));
    let said: Vec<&Arg> = said.map(|(arg, _)| arg).collect();
    let pairs = said.iter().enumerate();
    let mut pairs = pairs.flat_map(|(index, a)| said[index + 1..].iter().map(move |b| [*a, *b]));
    pairs.find(|[a, b]| exclude(command, a, b))
}

/// `command` with what the file says as defaults of the verb at the end of
/// `verbs`.
fn with_defaults(command: Command, verbs: &[String], settings: &[(Arg, Setting)]) -> Command {
    let Some((verb, under)) = verbs.split_first() else {
        let known = |arg: &Arg| {
            command
                .get_arguments()
                .any(|own| own.get_id() == arg.get_id())
        };
        let own: Vec<_> = settings.iter().filter(|(arg, _)| known(arg)).collect();
        return own.into_iter().fold(command, |command, (arg, setting)| {
            command.mut_arg(arg.get_id(), |arg| match setting {
                Setting::Given(given) => arg.default_value(if *given { "true" } else { "false" }),
                Setting::Times(times) => arg.default_value(kept(times.to_string())),
                Setting::Values(values) => arg.default_values(values.iter().cloned().map(kept)),
            })
        });
    };
    // Flags of every verb are asked for by the program, too.
    let command = with_defaults(command, &[], settings);
    command.mut_subcommand(verb, |verb| with_defaults(verb, under, settings))
}

/// clap keeps defaults as long as the program runs, which is once.
fn kept(text: String) -> &'static str {
    text.leak()
}

/// `argv` with what the file says of flags that have values.
fn with_values(argv: &[OsString], settings: &[(Arg, Setting)]) -> Vec<OsString> {
    let end = argv
        .iter()
        .position(|word| word == "--")
        .unwrap_or(argv.len());
    let mut all = argv[..end].to_vec();
    for (arg, setting) in settings {
        let Some(long) = arg.get_long() else { continue };
        match setting {
            Setting::Given(given) => all.extend(given.then(|| format!("--{long}").into())),
            Setting::Times(times) => {
                all.extend((0..*times).map(|_| OsString::from(format!("--{long}"))));
            }
            Setting::Values(values) => {
                all.extend(
                    values
                        .iter()
                        .map(|value| format!("--{long}={value}").into()),
                );
            }
        }
    }
    all.extend_from_slice(&argv[end..]);
    all
}
