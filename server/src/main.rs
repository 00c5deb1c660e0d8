//! `zbl-server`, as a process: command line in, exit code out. 0 is success, 1 a failure at run time, 2 a command line
//! or setting that cannot be followed; `explore`, `reconcile` and `verify` say 10 where what they found is not as promised, and 3
//! where they came to no result, as loadgen does.

use std::{
    env,
    error::Error,
    io::{self, IsTerminal as _, Write as _},
    iter,
    path::Path,
    process::ExitCode,
};

use tokio::runtime::Runtime;
use zbl_server::{
    app::{self, App},
    banner::banner,
    cli::{self, Command, Invocation, UsageError},
    config::{self, Config},
    dead_letters::command as dead_letters,
    demo::{self, Afterwards, Demo},
    explore::{self, Conclusion, Exploration, Keep},
    export::{self, Exported},
    healthcheck,
    listeners::Listeners,
    logging::{self, Filter},
    project,
    reconcile::command as reconcile,
    reload::Hangup,
    shutdown::Shutdown,
    verify::{self, Verdict},
    worker::command as worker,
};

const FAILURE: u8 = 1;
const USAGE: u8 = 2;
const NO_RESULT: u8 = 3;
const NOT_AS_PROMISED: u8 = 10;

fn main() -> ExitCode {
    let invocation = match Invocation::parse(env::args_os(), &config::process_environment, Path::new("")) {
        Ok(invocation) => invocation,
        Err(UsageError::CommandLine(message)) => {
            // Help goes to stdout with 0, a usage error to stderr with 2; a closed pipe changes neither.
            let _ = message.print();
            return ExitCode::from(if message.use_stderr() { USAGE } else { 0 });
        }
        Err(error) => return complain(&error, USAGE),
    };
    match &invocation.command {
        Command::Explore(arguments) => return explore(arguments, &invocation),
        Command::Verify(arguments) => return verify(*arguments, &invocation.config),
        Command::Reconcile(arguments) => return reconcile(arguments, &invocation.config),
        Command::Dlq(arguments) => return dead_letters(arguments.clone(), &invocation.config),
        _ => {}
    }
    match run(invocation) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_broken_pipe(&*error) => ExitCode::SUCCESS,
        Err(error) if is_usage(&*error) => complain(&*error, USAGE),
        Err(error) => complain(&*error, FAILURE),
    }
}

fn run(Invocation { command, config, effective }: Invocation) -> Result<(), Box<dyn Error>> {
    match command {
        Command::Config { json: false } => Ok(write!(io::stdout(), "{}", config::as_text(&effective))?),
        Command::Config { json: true } => Ok(writeln!(io::stdout(), "{:#}", config::as_json(&effective))?),
        Command::Healthcheck(question) => Ok(Runtime::new()?.block_on(question.ask(&config))?),
        Command::Demo { exit, json } => {
            logging::start(&config)?;
            let stay = !exit && io::stdout().is_terminal();
            let afterwards = if stay { Afterwards::Serve } else { Afterwards::Exit };
            let keep = if cli::database_is_given(&effective) { demo::Keep::Configured } else { demo::Keep::Nothing };
            run_to_end(async { Ok(Demo { config, keep, json, afterwards }.run().await?) })
        }
        Command::Export(arguments) => {
            logging::start(&config)?;
            run_to_end(async {
                let Exported { entries, accounts } = arguments.run(&config).await?;
                // Nobody reading it is no reason to have failed.
                let _ = writeln!(io::stderr(), "{entries} entries of {accounts} accounts");
                Ok(())
            })
        }
        Command::Worker(arguments) => {
            let filter = logging::start(&config)?;
            run_to_end(work(arguments, config, filter))
        }
        Command::Projector(arguments) => {
            logging::start(&config)?;
            run_to_end(project(arguments, config))
        }
        // They have exit codes of their own.
        Command::Explore(_) | Command::Reconcile(_) | Command::Verify(_) | Command::Dlq(_) => Ok(()),
        Command::Serve => {
            let filter = logging::start(&config)?;
            run_to_end(serve(config, filter))
        }
    }
}

fn explore(arguments: &explore::Arguments, invocation: &Invocation) -> ExitCode {
    let Invocation { config, effective, .. } = invocation;
    let task = match arguments.task(cli::strategy_flag(effective)) {
        Ok(task) => task,
        Err(error) => return complain(&error, USAGE),
    };
    let keep = if cli::database_is_given(effective) { Keep::Configured } else { Keep::Nothing };
    let exploration = Exploration { config: config.clone(), keep, task, json: arguments.json.clone() };
    let mut code = ExitCode::SUCCESS;
    let explored = run_to_end(async {
        logging::start(config)?;
        match exploration.run().await? {
            Conclusion::AsPromised => {}
            Conclusion::NotAsPromised => code = ExitCode::from(NOT_AS_PROMISED),
            Conclusion::Incomplete => code = ExitCode::from(NO_RESULT),
        }
        Ok(())
    });
    explored.map_or_else(|error| complain(&*error, NO_RESULT), |()| code)
}

fn reconcile(arguments: &reconcile::Arguments, config: &Config) -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    let reconciled = run_to_end(async {
        logging::start(config)?;
        match arguments.reconcile(config.clone()).await? {
            reconcile::Conclusion::Sound => {}
            reconcile::Conclusion::LossFound => code = ExitCode::from(NOT_AS_PROMISED),
            reconcile::Conclusion::Incomplete => code = ExitCode::from(NO_RESULT),
        }
        Ok(())
    });
    reconciled.map_or_else(|error| complain(&*error, NO_RESULT), |()| code)
}

fn verify(arguments: verify::Arguments, config: &Config) -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    let verified = run_to_end(async {
        logging::start(config)?;
        match verify::run(arguments, config).await? {
            Verdict::Sound => {}
            Verdict::Unsound => code = ExitCode::from(NOT_AS_PROMISED),
        }
        Ok(())
    });
    verified.map_or_else(|error| complain(&*error, NO_RESULT), |()| code)
}

fn dead_letters(arguments: dead_letters::Arguments, config: &Config) -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    let decided = run_to_end(async {
        logging::start(config)?;
        match arguments.run(config.clone(), &mut io::stdout()).await? {
            dead_letters::Conclusion::Done => {}
            dead_letters::Conclusion::SomeLeft => code = ExitCode::from(NOT_AS_PROMISED),
        }
        Ok(())
    });
    match decided {
        Ok(()) => code,
        Err(error) if is_broken_pipe(&*error) => ExitCode::SUCCESS,
        Err(error) if is_usage(&*error) => complain(&*error, USAGE),
        Err(error) => complain(&*error, FAILURE),
    }
}

fn run_to_end(work: impl Future<Output = Result<(), Box<dyn Error>>>) -> Result<(), Box<dyn Error>> {
    let runtime = Runtime::new()?;
    let outcome = runtime.block_on(work);
    // Nothing that still hangs on another thread may keep the process alive.
    runtime.shutdown_background();
    outcome
}

async fn project(arguments: project::Arguments, config: Config) -> Result<(), Box<dyn Error>> {
    let Shutdown { asked, .. } = Shutdown::listen()?;
    let line = |line: &str| writeln!(io::stdout(), "{line}");
    Ok(arguments.run(&config, async { _ = asked.await }, line).await?)
}

async fn work(arguments: worker::Arguments, config: Config, filter: Filter) -> Result<(), Box<dyn Error>> {
    let hangup = Hangup::listen()?;
    let Shutdown { asked, insisted } = Shutdown::listen()?;
    let asked = async { _ = asked.await };
    let worked = async {
        // Nobody reading it is no reason not to work.
        let line = |line: &str| drop(writeln!(io::stdout(), "{line}"));
        arguments.bind(config).await?.run(asked, line).await
    };
    tokio::select! {
        () = hangup.obey(None, filter) => Ok(()),
        worked = worked => Ok(worked?),
        Ok(()) = insisted => Err("told to stop a second time: deductions in hand are delivered again".into()),
    }
}

async fn serve(config: Config, filter: Filter) -> Result<(), Box<dyn Error>> {
    let hangup = Hangup::listen()?;
    let Shutdown { mut asked, insisted } = Shutdown::listen()?;
    let listeners = Listeners::bind(&config).await?;
    let addresses = listeners.addresses()?;
    let app = tokio::select! {
        app = App::open(config.clone()) => app?,
        // A database that does not answer is waited for; whoever is tired of it may say so.
        _ = &mut asked => return Ok(()),
    };
    // Nobody reading it is no reason not to serve.
    let _ = write!(io::stdout(), "{}", banner(&config, app.store_name(), addresses));
    let asked = async { _ = asked.await };
    let certificates = app.certificates().cloned();
    tokio::select! {
        () = hangup.obey(certificates, filter) => Ok(()),
        served = app.serve(listeners, asked) => Ok(served?),
        Ok(()) = insisted => Err("told to stop a second time: calls in flight were cut off".into()),
    }
}

/// Whether settings are at fault that could be checked only now.
fn is_usage(error: &(dyn Error + 'static)) -> bool {
    let app = |error: &app::Error| matches!(error, app::Error::Tls(_) | app::Error::NoQueue);
    let worker =
        |error: &worker::Error| matches!(error, worker::Error::NoQueue | worker::Error::App(app::Error::Tls(_)));
    let dead_letters =
        |error: &dead_letters::Error| matches!(error, dead_letters::Error::NoQueue | dead_letters::Error::Unconfirmed);
    let demo = |error: &demo::Error| matches!(error, demo::Error::Tls);
    let export = |error: &export::Error| matches!(error, export::Error::Period);
    let healthcheck = |error: &healthcheck::Unhealthy| matches!(error, healthcheck::Unhealthy::Flags(_));
    error.downcast_ref().is_some_and(app)
        || error.downcast_ref().is_some_and(worker)
        || error.downcast_ref().is_some_and(dead_letters)
        || error.downcast_ref().is_some_and(demo)
        || error.downcast_ref().is_some_and(export)
        || error.downcast_ref().is_some_and(healthcheck)
}

fn is_broken_pipe(error: &(dyn Error + 'static)) -> bool {
    let demo = error.downcast_ref::<demo::Error>().and_then(|error| match error {
        demo::Error::Io(error) => Some(error),
        _ => None,
    });
    let export = error.downcast_ref::<export::Error>().and_then(|error| match error {
        export::Error::Io(error) => Some(error),
        _ => None,
    });
    let project = error.downcast_ref::<project::Error>().and_then(|error| match error {
        project::Error::Output(error) => Some(error),
        _ => None,
    });
    let dead_letters = error.downcast_ref::<dead_letters::Error>().and_then(|error| match error {
        dead_letters::Error::Io(error) => Some(error),
        _ => None,
    });
    let io = error.downcast_ref::<io::Error>().or(dead_letters).or(demo).or(export).or(project);
    io.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// Prints an error and those of its causes that it does not tell itself; where stderr is closed, the exit code alone
/// tells.
fn complain(error: &dyn Error, code: u8) -> ExitCode {
    let mut message = error.to_string();
    for cause in iter::successors(error.source(), |cause| (*cause).source()).map(ToString::to_string) {
        if !message.contains(&cause) {
            message = format!("{message}: {cause}");
        }
    }
    let _ = writeln!(io::stderr(), "error: {message}");
    ExitCode::from(code)
}
