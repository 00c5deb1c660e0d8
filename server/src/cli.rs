//! The command line of `zbl-server`: which command, and how it was given its configuration. The settings themselves
//! are `config`'s, and may stand before or after the command.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::{
    config::{self, Config, ConfigError, Effective, Environment, Origin},
    dead_letters, explore, export,
    healthcheck::Question,
    project, reconcile, strategy, verify, worker,
};

const EXIT_CODES: &str = "\
Exit codes: 0 done, or stopped as asked; 1 failed at run time, or a demonstration that did not go as promised;
2 a command line or setting that cannot be followed. `dlq`, `explore`, `reconcile` and `verify` have their own: see their --help.";

/// An account service that never loses a cent under concurrency, and the instrument that proves it.
#[derive(Debug, Parser)]
#[command(name = "zbl-server", version, after_help = EXIT_CODES)]
struct CommandLine {
    #[command(subcommand)]
    command: Option<Command>,
}

/// What to do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Serve until SIGINT or SIGTERM (the default)
    #[default]
    Serve,
    /// Print every setting, its value, and where it came from
    Config {
        /// As a JSON object instead of a table
        #[arg(long)]
        json: bool,
    },
    /// Break it, show it, cure it: attack every strategy and judge each by what it promises
    Demo {
        /// End afterwards instead of serving on until Ctrl-C; the default when stdout is no terminal
        #[arg(long)]
        exit: bool,
        /// Write the results as JSON to this file
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
    /// Play every interleaving of operations on one account, judge each, and show how money is lost
    Explore(explore::Arguments),
    /// Hold every balance against its journal, tell every lost update, and repair what is off if told to
    Reconcile(reconcile::command::Arguments),
    /// Follow every account's hash chain and find what was changed behind the service's back
    Verify(verify::Arguments),
    /// Write the journal, or an account's, as CSV, NDJSON, or a journal for ledger-cli and hledger
    Export(export::Arguments),
    /// Keep the reports up with the journal, as a process of its own
    Projector(project::Arguments),
    /// Make deductions of the queue, as a process of its own
    Worker(worker::command::Arguments),
    /// List, show, requeue or purge deductions that the worker laid aside
    Dlq(dead_letters::command::Arguments),
    /// Ask the server at --grpc-addr whether it serves: exit code 0 if it does, 1 if not
    Healthcheck(Question),
}

/// A command line, understood.
#[derive(Debug)]
pub struct Invocation {
    /// What to do.
    pub command: Command,
    /// With which configuration.
    pub config: Config,
    /// How that came about.
    pub effective: Vec<Effective>,
}

/// Why a command line cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum UsageError {
    /// Clap has something to print: a usage error, or the help that was asked for.
    #[error(transparent)]
    CommandLine(#[from] clap::Error),
    /// A setting is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The strategy named is not in the registry.
    #[error("--strategy: {0}")]
    Strategy(#[from] strategy::Unknown),
}

impl Invocation {
    /// Understands the words of a command line; `directory` is where `zbl.toml` is looked for.
    ///
    /// # Errors
    /// [`UsageError`], which also stands for `--help` and `--version`.
    pub fn parse(
        words: impl IntoIterator<Item = OsString>,
        environment: &Environment<'_>,
        directory: &Path,
    ) -> Result<Self, UsageError> {
        let matches = CommandLine::command().args(config::arguments()).try_get_matches_from(words)?;
        let command = CommandLine::from_arg_matches(&matches)?.command.unwrap_or_default();
        // Settings are global arguments, and clap hands those down: the innermost matches have them all.
        let innermost = matches.subcommand().map_or(&matches, |(_, inner)| inner);
        // A DATABASE_URL in the environment is some other project's as often as not; the demo attacks what it is given.
        let own_variables_only = |variable: &str| environment(variable).filter(|_| variable.starts_with("ZBL_"));
        let (config, effective) = match command {
            Command::Demo { .. } | Command::Explore(_) => Config::resolve(innermost, &own_variables_only, directory)?,
            _ => Config::resolve(innermost, environment, directory)?,
        };
        // What is explored, `explore` itself makes out of it.
        if !matches!(command, Command::Explore(_)) {
            strategy::find(&config.strategy)?;
        }
        Ok(Self { command, config, effective })
    }
}

/// Whether a database was named for this very run: by the flag or its own variable, not by a file that lies about.
#[must_use]
pub fn database_is_given(effective: &[Effective]) -> bool {
    setting(effective, "database_url").is_some_and(|set| matches!(set.origin, Origin::Flag(_) | Origin::Env(_)))
}

/// What `--strategy` says, where the flag was given: for `explore` it is no default of the server's.
#[must_use]
pub fn strategy_flag(effective: &[Effective]) -> Option<&str> {
    let set = setting(effective, "strategy").filter(|set| matches!(set.origin, Origin::Flag(_)));
    set.map(|set| set.value.as_str())
}

fn setting<'a>(effective: &'a [Effective], name: &str) -> Option<&'a Effective> {
    effective.iter().find(|effective| effective.setting.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &str) -> Result<Invocation, UsageError> {
        let words = words.split_whitespace().map(OsString::from);
        Invocation::parse(words, &|_| None, Path::new("/nowhere"))
    }

    #[test]
    fn the_command_line_is_well_formed() {
        CommandLine::command().args(config::arguments()).debug_assert();
    }

    #[test]
    fn settings_may_stand_before_after_and_without_a_command() {
        for (words, command) in [
            ("zbl-server --pool-size 7", Command::Serve),
            ("zbl-server serve --pool-size 7", Command::Serve),
            ("zbl-server --pool-size 7 serve", Command::Serve),
            ("zbl-server --pool-size 7 config --json", Command::Config { json: true }),
            ("zbl-server config --pool-size=7", Command::Config { json: false }),
            ("zbl-server healthcheck --pool-size 7", Command::Healthcheck(Question::default())),
        ] {
            let invocation = parse(words).expect(words);
            assert_eq!((invocation.command, invocation.config.pool_size), (command, 7), "{words}");
        }
    }

    #[test]
    fn the_demo_leaves_other_projects_databases_alone() {
        let environment = |variable: &str| match variable {
            "DATABASE_URL" => Some("postgres://elsewhere/db".into()),
            _ => None,
        };
        let words = |command: &str| ["zbl-server", command].map(OsString::from);
        let demo = Invocation::parse(words("demo"), &environment, Path::new("/nowhere")).unwrap();
        assert!(!database_is_given(&demo.effective));
        assert!(Invocation::parse(words("serve"), &environment, Path::new("/nowhere")).is_err());
        let named = parse("zbl-server demo --database-url mysql://root@127.0.0.1/zbl").unwrap();
        assert!(database_is_given(&named.effective));
    }

    #[test]
    fn explore_takes_the_strategies_from_the_flag_alone() {
        let given = parse("zbl-server explore --strategy none,optimistic --ops 2").unwrap();
        assert_eq!(strategy_flag(&given.effective), Some("none,optimistic"));
        assert_eq!(strategy_flag(&parse("zbl-server explore").unwrap().effective), None);
        assert!(parse("zbl-server serve --strategy none,optimistic").is_err());
    }

    #[test]
    fn help_names_flag_variable_and_default() {
        let help = parse("zbl-server --help").expect_err("help").to_string();
        let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
        for expected in ["--pool-size <N>", "[env: ZBL_POOL_SIZE]", "[default: 16]", "ZBL_DATABASE_URL or DATABASE_URL"]
        {
            assert!(help.contains(expected), "{expected} is not in {help}");
        }
    }

    #[test]
    fn unknown_words_are_usage_errors() {
        for words in ["zbl-server --nope", "zbl-server serv", "zbl-server --pool-size"] {
            let Err(UsageError::CommandLine(error)) = parse(words) else { panic!("{words} was accepted") };
            assert_eq!(error.exit_code(), 2, "{words}");
        }
    }
}
