//! `loadgen report`: results read from files, printed again or side by side.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use clap::Args;
use zbl_loadgen::report::bench::{Exhibit, Form, ReadError, comparison, page, read, text};

use super::output::{printable, to_stdout};
use super::{Ending, Failure};

/// A result with a million lost updates has half of this; what is larger was not written by loadgen.
const MAX_BYTES: u64 = 1 << 30;

/// More lines than this no table is read to the end of.
const MAX_RESULTS: usize = 64;

#[derive(Debug, Args)]
pub(crate) struct ReportArgs {
    /// Results that bench, attack or compare wrote with --json; the first is what the others are compared to
    #[arg(required = true, value_name = "FILE")]
    files: Vec<String>,
    /// Write one self-contained page with charts to this file
    #[arg(long, value_name = "FILE")]
    html: Option<String>,
    /// Print the tables as Markdown
    #[arg(long)]
    markdown: bool,
}

/// Why results cannot be shown.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReportFailure {
    #[error("cannot read {path}: {source}")]
    Unreadable { path: String, source: io::Error },
    #[error("{path} has more than {MAX_BYTES} bytes, which no result has; give a file that loadgen wrote with --json")]
    TooLarge { path: String },
    #[error("{path}: {source}")]
    NoResult { path: String, source: ReadError },
    #[error("these are {0} results; give at most {MAX_RESULTS}")]
    TooMany(usize),
    #[error("cannot write the page to {path}: {source}; name a file that can be written with --html")]
    Page { path: String, source: io::Error },
}

/// Shows the results; how they ended when they were measured does not matter here.
pub(crate) fn report(args: &ReportArgs) -> Result<Ending, Failure> {
    let exhibits = exhibits(&args.files)?;
    if let Some(path) = &args.html {
        let written = std::fs::write(path, page(&exhibits));
        written.map_err(|source| ReportFailure::Page { path: path.clone(), source })?;
    }
    let form = if args.markdown { Form::Markdown } else { Form::Text };
    let shown = match exhibits.as_slice() {
        [Exhibit { bench: Some(bench), .. }] if form == Form::Text => text(bench),
        exhibits => comparison(exhibits, form),
    };
    to_stdout(&printable(&shown))?;
    Ok(Ending::AsExpected)
}

fn exhibits(paths: &[String]) -> Result<Vec<Exhibit>, ReportFailure> {
    let mut exhibits = Vec::new();
    for path in paths {
        let result = read(&label(path), &content(path)?);
        exhibits.extend(result.map_err(|source| ReportFailure::NoResult { path: path.clone(), source })?);
        if exhibits.len() > MAX_RESULTS {
            return Err(ReportFailure::TooMany(exhibits.len()));
        }
    }
    Ok(exhibits)
}

fn content(path: &str) -> Result<Vec<u8>, ReportFailure> {
    let mut content = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut content));
    let size = read.map_err(|source| ReportFailure::Unreadable { path: path.to_owned(), source })?;
    if size as u64 > MAX_BYTES { Err(ReportFailure::TooLarge { path: path.to_owned() }) } else { Ok(content) }
}

/// The path without its ending, and without what would move a terminal's cursor.
fn label(path: &str) -> String {
    let shown = Path::new(path).with_extension("").display().to_string();
    shown.replace(char::is_control, "?")
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: &str = r#"{"schema_version": 1, "strategy": "atomic", "verdict": "CLEAN", "failed": {}, "unknown": 0,
        "acknowledged": {"count": 100, "amount": "1000.00"}, "duration_ms": 1000, "throughput_per_s": 990.0,
        "latency_us": {"p50": 1, "p90": 2, "p99": 3, "p999": 4, "max": 5}}"#;

    fn failure(paths: &[&str]) -> String {
        let paths: Vec<String> = paths.iter().map(ToString::to_string).collect();
        exhibits(&paths).unwrap_err().to_string()
    }

    #[test]
    fn files_are_read_in_their_order_and_what_is_no_result_is_named() {
        let directory = std::env::temp_dir().join(format!("loadgen-report-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = |name: &str, content: &str| {
            let path = directory.join(name);
            std::fs::write(&path, content).unwrap();
            path.display().to_string()
        };
        let [good, bad] = [path("good.json", RUN), path("bad.json", "{}")];
        let many = path("many.json", &format!(r#"{{"runs": [{}]}}"#, vec![RUN; MAX_RESULTS + 1].join(",")));
        let read = exhibits(&[good.clone(), good.clone()]).unwrap();
        let failures = [failure(&[&good, &bad]), failure(&[&many]), failure(&["no/such\nfile"])];
        std::fs::remove_dir_all(&directory).unwrap();

        assert!(read.len() == 2 && read[0].label.ends_with("/good"), "{read:?}");
        assert!(failures[0].starts_with(&format!("{bad}: it is no result of loadgen")), "{failures:?}");
        assert_eq!(failures[1], "these are 65 results; give at most 64");
        assert!(failures[2].starts_with("cannot read no/such"), "{failures:?}");
    }

    #[test]
    fn labels_move_no_cursor() {
        assert_eq!(label("runs/a\u{1b}[2J.json"), "runs/a?[2J");
    }
}
