//! `cargo xtask e2e`: the real binaries, driven from outside as a user would, against real databases. It builds them
//! once, runs the parts it is asked for, and prints one line for each check and a count at the end.

mod abuse;
mod attack;
mod batched;
mod bench;
mod breaker;
mod callers;
mod checks;
mod cli;
mod demo;
mod drain;
mod explore;
mod facade;
mod grpcurl;
mod kill;
mod load;
mod lockdeath;
mod observability;
mod overload;
mod probe;
mod projector;
mod queue;
mod readme;
mod three_servers;
mod tls;
mod web;
mod wire;

use std::time::Duration;

use crate::{
    command::{Failure, Profile, cargo, run as run_command, say},
    stage::{self, Stage},
    test::{CURL, ensure_installed, ensure_servers},
    web as page,
};
use checks::Checks;

/// A group of checks that can be run by name.
struct Part {
    name: &'static str,
    summary: &'static str,
    run: fn(&Stage, &mut Checks) -> Result<(), Failure>,
}

const PARTS: [Part; 20] = [
    Part { name: "grpcurl", summary: "the contract and its errors, by another's client", run: grpcurl::run },
    Part { name: "facade", summary: "the same service in JSON, by curl", run: facade::run },
    Part { name: "readme", summary: "every grpcurl and curl line of both READMEs, as printed", run: readme::run },
    Part { name: "cli", summary: "exit codes, bad settings, closed pipes", run: cli::run },
    Part { name: "demo", summary: "the demo's own claims, on SQLite and on MariaDB", run: demo::run },
    Part {
        name: "explore",
        summary: "every interleaving of two operations, and the same loss again",
        run: explore::run,
    },
    Part {
        name: "three-servers",
        summary: "three servers on one MariaDB and one Redis: who loses and who does not",
        run: three_servers::run,
    },
    Part { name: "batched", summary: "batches under attack, with callers that hang up", run: batched::run },
    Part { name: "bench", summary: "loadgen bench: both loops, the stream, thresholds, its files", run: bench::run },
    Part {
        name: "lockdeath",
        summary: "locks in Redis that die under their holders: what each strategy loses",
        run: lockdeath::run,
    },
    Part { name: "tls", summary: "TLS, client certificates, tokens and SIGHUP, by every program", run: tls::run },
    Part { name: "kill", summary: "kill -9 of the server and of MariaDB in mid-attack", run: kill::run },
    Part {
        name: "projector",
        summary: "kill -9 of server and projector, 50 times: the reports are what the journal comes to",
        run: projector::run,
    },
    Part {
        name: "queue",
        summary: "10 000 accepted deductions while broker, worker and MariaDB are killed; and a burst above capacity",
        run: queue::run,
    },
    Part {
        name: "observability",
        summary: "what Prometheus, Alertmanager and Grafana make of it: rules, alerts, dashboard",
        run: observability::run,
    },
    Part { name: "overload", summary: "twice the capacity: goodput, waits, refusals", run: overload::run },
    Part {
        name: "breaker",
        summary: "MariaDB and Redis killed under load: refused at once, back by itself",
        run: breaker::run,
    },
    Part { name: "drain", summary: "SIGTERM under load, with open streams and with a stuck call", run: drain::run },
    Part { name: "abuse", summary: "mixed abuse while honest work goes on: refused, and memory flat", run: abuse::run },
    Part {
        name: BY_BROWSER,
        summary: "the page in a real browser, against journals and a server that is killed",
        run: web::run,
    },
];

/// The longest abuse or soak: a day.
const MOST_MINUTES: u64 = 24 * 60;

/// The parts that `--no-grpcurl` leaves out.
const BY_GRPCURL: [&str; 3] = ["grpcurl", "readme", "tls"];

/// The part that drives the page.
const BY_BROWSER: &str = "web";

pub(crate) fn run(arguments: &[String]) -> Result<(), Failure> {
    if arguments == ["--list"] {
        PARTS.iter().for_each(|part| say(&format!("{:12} {}", part.name, part.summary)));
        return Ok(());
    }
    let parts = chosen(arguments)?;
    ensure_servers()?;
    ensure_installed(&[CURL])?;
    if parts.iter().any(|part| part.name == BY_BROWSER) {
        build_page()?;
    }
    run_command(&mut cargo(&["build", "--workspace", "--bins"]))?;
    let stage = Stage::new(Profile::Debug)?;
    let mut checks = Checks::default();
    for part in parts {
        say(&format!("\n{}: {}", part.name, part.summary));
        checks.begin(part.name);
        if let Err(failure) = (part.run)(&stage, &mut checks) {
            checks.fail("set-up", failure.reason());
        }
    }
    checks.close()
}

/// `cargo xtask abuse`: that part alone, for as long as it is asked for.
pub(crate) fn abuse(arguments: &[String]) -> Result<(), Failure> {
    let length = length("abuse", arguments)?;
    ensure_servers()?;
    alone("abuse", |stage, checks| abuse::run_for(length, stage, checks))
}

/// `cargo xtask web-soak`: what the part `web` says about memory, for as long as it is asked for.
pub(crate) fn web_soak(arguments: &[String]) -> Result<(), Failure> {
    let length = length("web-soak", arguments)?;
    ensure_servers()?;
    build_page()?;
    alone(BY_BROWSER, |stage, checks| web::soak(length, stage, checks))
}

/// How long a command is to take: ten minutes, or what `--minutes` says.
fn length(command: &str, arguments: &[String]) -> Result<Duration, Failure> {
    let minutes = match arguments {
        [] => 10,
        [flag, minutes] if flag == "--minutes" => match minutes.parse() {
            Ok(minutes @ 1..=MOST_MINUTES) => minutes,
            _ => return Err(Failure::Usage(format!("--minutes takes a number from 1 to {MOST_MINUTES}"))),
        },
        _ => return Err(Failure::Usage(format!("{command} does not know {arguments:?}"))),
    };
    Ok(Duration::from_secs(60 * minutes))
}

/// Builds the page, before the programs: the server embeds it.
fn build_page() -> Result<(), Failure> {
    ensure_installed(&page::BROWSER)?;
    page::build()
}

/// Builds the programs and makes one part's checks.
fn alone(part: &'static str, run: impl FnOnce(&Stage, &mut Checks) -> Result<(), Failure>) -> Result<(), Failure> {
    run_command(&mut cargo(&["build", "--workspace", "--bins"]))?;
    let (stage, mut checks) = (Stage::new(Profile::Debug)?, Checks::default());
    checks.begin(part);
    run(&stage, &mut checks)?;
    checks.close()
}

/// The parts that the arguments ask for, in the order of the table.
fn chosen(arguments: &[String]) -> Result<Vec<&'static Part>, Failure> {
    let mut wanted: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let without_grpcurl = wanted.contains(&"--no-grpcurl");
    wanted.retain(|word| *word != "--no-grpcurl");
    if let Some(unknown) = wanted.iter().find(|word| PARTS.iter().all(|part| part.name != **word)) {
        let names = PARTS.map(|part| part.name).join(", ");
        return Err(Failure::Usage(format!("e2e has no part {unknown:?}; it has {names}")));
    }
    if without_grpcurl {
        say(&format!("--no-grpcurl: left out are {}", BY_GRPCURL.join(", ")));
    }
    let is_wanted = |part: &&Part| wanted.is_empty() || wanted.contains(&part.name);
    Ok(PARTS.iter().filter(is_wanted).filter(|part| !(without_grpcurl && BY_GRPCURL.contains(&part.name))).collect())
}
