//! Precedence, provenance and refusals, with an environment and a file of the test's own.

use std::{ffi::OsString, fs, path::PathBuf};

use clap::Command;
use tempfile::TempDir;

use super::*;

/// A user's situation: what is on the command line, in the environment and in `zbl.toml`.
#[derive(Default)]
struct Situation<'a> {
    flags: &'a [&'a str],
    environment: &'a [(&'a str, &'a str)],
    file: &'a str,
}

impl Situation<'_> {
    fn resolve(&self) -> Result<(Config, Vec<Effective>), ConfigError> {
        let directory = TempDir::new().unwrap();
        if !self.file.is_empty() {
            fs::write(directory.path().join("zbl.toml"), self.file).unwrap();
        }
        self.resolve_in(directory.path())
    }

    fn resolve_in(&self, directory: &Path) -> Result<(Config, Vec<Effective>), ConfigError> {
        let words = std::iter::once("zbl-server").chain(self.flags.iter().copied());
        let matches = Command::new("zbl-server").args(arguments()).get_matches_from(words);
        let lookup = |name: &str| {
            self.environment.iter().find(|(variable, _)| *variable == name).map(|(_, value)| OsString::from(value))
        };
        Config::resolve(&matches, &lookup, directory)
    }

    fn refused(&self) -> String {
        self.resolve().expect_err("a refusal").to_string()
    }
}

fn origin<'a>(effective: &'a [Effective], name: &str) -> &'a Origin {
    &effective.iter().find(|row| row.setting.name == name).expect(name).origin
}

#[test]
fn nobody_said_anything() {
    let (config, effective) = Situation::default().resolve().unwrap();
    assert_eq!(config.grpc_addr, "127.0.0.1:50051".parse().unwrap());
    assert_eq!(config.database_url, DatabaseUrl::Sqlite(PathBuf::from("zbl.db")));
    assert_eq!((config.strategy.as_str(), config.max_attempts, config.pool_size), ("batched", 20, 16));
    assert_eq!((config.lock_wait, config.compute_delay), (Duration::from_secs(5), Duration::ZERO));
    assert!(config.demo_account && config.lab_token.is_none());
    assert!(config.instance.ends_with(&format!("-{}", process::id())));
    assert!(effective.iter().all(|row| row.origin == Origin::Default));
    let shown: Vec<_> = effective.iter().map(|row| row.setting.name).collect();
    assert_eq!(shown, SETTINGS.map(|setting| setting.name), "every setting is read, in the order of the table");
}

#[test]
fn each_layer_beats_the_ones_below() {
    let file = "pool_size = 3";
    let environment: &[(&str, &str)] = &[("ZBL_POOL_SIZE", "4")];
    let cases: [(Situation<'_>, u32, &str); 6] = [
        (Situation::default(), 16, "default"),
        (Situation { file, ..Default::default() }, 3, "zbl.toml, key pool_size"),
        (Situation { environment, ..Default::default() }, 4, "env ZBL_POOL_SIZE"),
        (Situation { file, environment, ..Default::default() }, 4, "env ZBL_POOL_SIZE"),
        (Situation { file, environment, flags: &["--pool-size", "5"] }, 5, "flag --pool-size"),
        // An explicit flag wins even when it repeats the default.
        (Situation { file, environment, flags: &["--pool-size=16"] }, 16, "flag --pool-size"),
    ];
    for (situation, expected, from) in cases {
        let (config, effective) = situation.resolve().unwrap();
        assert_eq!(config.pool_size, expected);
        let origin = origin(&effective, "pool_size").to_string();
        assert!(origin.ends_with(from), "{origin} is not {from}");
    }
}

#[test]
fn database_url_is_asked_after_its_own_variable_and_before_the_file() {
    let file = "database_url = 'sqlite://file.db'";
    let fallback = ("DATABASE_URL", "sqlite://fallback.db");
    let own = ("ZBL_DATABASE_URL", "sqlite://own.db");
    for (environment, expected) in [
        (&[][..], "sqlite://file.db"),
        (&[fallback], "sqlite://fallback.db"),
        (&[fallback, own], "sqlite://own.db"),
        (&[fallback, ("ZBL_DATABASE_URL", "")], "sqlite://fallback.db"),
        (&[("DATABASE_URL", "")], "sqlite://file.db"),
    ] {
        let (config, _) = Situation { environment, file, ..Default::default() }.resolve().unwrap();
        assert_eq!(config.database_url.to_string(), expected);
    }
}

#[test]
fn the_collector_is_found_as_other_programs_find_theirs() {
    let (fallback, own) =
        (("OTEL_EXPORTER_OTLP_ENDPOINT", "http://other:4317"), ("ZBL_OTLP_ENDPOINT", "http://own:4317"));
    for (environment, expected) in [
        (&[][..], None),
        (&[fallback], Some("http://other:4317/")),
        (&[fallback, own], Some("http://own:4317/")),
        (&[fallback, ("ZBL_OTLP_ENDPOINT", "")], None),
    ] {
        let (config, _) = Situation { environment, ..Default::default() }.resolve().unwrap();
        assert_eq!(config.otlp_endpoint.map(|endpoint| endpoint.to_string()).as_deref(), expected);
        assert_eq!(config.trace_sample, Ratio::ALL);
    }
    let path = Situation { environment: &[(fallback.0, "http://other:4318/v1/traces")], ..Default::default() };
    let refused = path.refused();
    assert!(refused.contains("env OTEL_EXPORTER_OTLP_ENDPOINT") && refused.contains("has a path"), "{refused}");
    let refused = Situation { flags: &["--trace-sample=2"], ..Default::default() }.refused();
    assert!(refused.contains("--trace-sample") && refused.contains("from 0 (none) to 1 (all)"), "{refused}");
}

/// Empty, a variable counts as unset: so compose files unset. A flag or a key that is there and empty is a door that somebody
/// believes to be locked.
#[test]
fn an_empty_token_is_refused_where_it_is_written_out() {
    for situation in [
        Situation { flags: &["--auth-token="], ..Default::default() },
        Situation { flags: &["--lab-token", ""], ..Default::default() },
        Situation { file: "auth_token = ''", ..Default::default() },
    ] {
        let refused = situation.refused();
        assert!(refused.contains("token") && refused.contains("it is empty"), "{refused}");
    }
    let unset = Situation { environment: &[("ZBL_AUTH_TOKEN", "")], ..Default::default() };
    assert!(unset.resolve().unwrap().0.auth_token.is_none());
}

#[test]
fn the_file_is_named_by_flag_or_variable_or_found() {
    let directory = TempDir::new().unwrap();
    let write = |name: &str, size: u32| {
        let path = directory.path().join(name);
        fs::write(&path, format!("pool_size = {size}")).unwrap();
        path.into_os_string().into_string().unwrap()
    };
    write("zbl.toml", 1);
    let (by_variable, by_flag) = (write("variable.toml", 2), write("flag.toml", 3));
    let environment: &[(&str, &str)] = &[("ZBL_CONFIG", &by_variable)];
    let flags: &[&str] = &["--config", &by_flag];
    for (flags, environment, expected) in
        [(&[][..], &[][..], 1), (&[], environment, 2), (flags, environment, 3), (&[], &[("ZBL_CONFIG", "")], 1)]
    {
        let (config, _) = Situation { flags, environment, file: "" }.resolve_in(directory.path()).unwrap();
        assert_eq!(config.pool_size, expected);
    }
    let missing = Situation { flags: &["--config", "/nowhere/zbl.toml"], ..Default::default() }.refused();
    assert!(missing.contains("/nowhere/zbl.toml") && missing.contains("--config"), "{missing}");
}

#[test]
fn every_setting_can_come_from_every_layer() {
    for setting in SETTINGS {
        let value = match setting.name {
            "redis_url" | "redlock_urls" => "redis://localhost",
            "amqp_url" => "amqp://localhost",
            "otlp_endpoint" => "http://localhost:4317",
            "trace_url" => "http://localhost:16686/trace/{trace_id}",
            _ if setting.default.is_empty() => "x",
            _ => setting.default,
        };
        // Those of TLS go together.
        let beside: &[&str] = match setting.name {
            "tls_cert" => &["--tls-key=x"],
            "tls_key" => &["--tls-cert=x"],
            "tls_client_ca" => &["--tls-cert=x", "--tls-key=x"],
            _ => &[],
        };
        let (flag, variable) = (setting.flag(), setting.variable());
        let file = format!("{} = '{value}'", setting.name);
        let situations = [
            (Situation { flags: &[beside, &[&flag, value]].concat(), ..Default::default() }, "flag --"),
            (Situation { flags: beside, environment: &[(&variable, value)], file: "" }, "env ZBL_"),
            (Situation { flags: beside, file: &file, environment: &[] }, "file /"),
        ];
        for (situation, layer) in situations {
            let (_, effective) = situation.resolve().unwrap();
            let origin = origin(&effective, setting.name).to_string();
            assert!(origin.starts_with(layer), "{}: {origin}", setting.name);
        }
    }
}

#[test]
fn bad_values_are_refused_by_the_name_they_were_given_under() {
    let flags: [(&[&str], &str); 10] = [
        (&["--pool-size", "0"], "flag --pool-size: `0` is not a whole number from 1 to 128"),
        (&["--pool-size", "-1"], "flag --pool-size: `-1`"),
        (&["--grpc-addr", "localhost:1"], "flag --grpc-addr: `localhost:1` is not IP:PORT"),
        (&["--lock-wait", "1500ms"], "flag --lock-wait: `1500ms` is not a whole number of seconds"),
        (&["--lock-wait", "0s"], "flag --lock-wait: `0s` is not a time from 1s"),
        (&["--heartbeat", "2 days"], "flag --heartbeat: `2 days`"),
        (&["--demo-account", "yes"], "flag --demo-account: `yes` is not auto, true or false"),
        (&["--log", "a=b=c"], "flag --log: `a=b=c`"),
        (&["--log-format", "xml"], "flag --log-format: `xml` is not auto, text or json"),
        (&["--database-url", "postgres://u:p@h/d"], "flag --database-url: unsupported scheme `postgres`"),
    ];
    for (flags, expected) in flags {
        let message = Situation { flags, ..Default::default() }.refused();
        assert!(message.starts_with(expected), "{message}");
    }
    let message = Situation { environment: &[("ZBL_MAX_ATTEMPTS", "many")], ..Default::default() }.refused();
    assert!(message.starts_with("env ZBL_MAX_ATTEMPTS: `many`"), "{message}");
    let message = Situation { environment: &[("DATABASE_URL", "mysql://h")], ..Default::default() }.refused();
    assert!(message.starts_with("env DATABASE_URL: no user"), "{message}");
    for (file, expected) in [
        ("max_attempts = 0", "zbl.toml, key max_attempts: `0`"),
        ("max_attempts = 1.5", "expected a string, an integer or a boolean, found float"),
        ("[heartbeat]\nx = 1", "found table"),
        ("pool_sise = 4", "unknown key `pool_sise` in "),
        ("pool_sise = 4", "zbl.toml; did you mean `pool_size`?"),
        ("database-url = 'sqlite://x'", "did you mean `database_url`?"),
        ("qqq = 4", "unknown key `qqq`"),
        ("pool_size = ", "is not valid TOML"),
    ] {
        let message = Situation { file, ..Default::default() }.refused();
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn a_lower_layer_is_not_checked_when_a_higher_one_decides() {
    let situation = Situation { flags: &["--pool-size", "2"], file: "pool_size = 'many'", ..Default::default() };
    assert_eq!(situation.resolve().unwrap().0.pool_size, 2);
}

#[test]
fn the_demo_account_is_opened_on_loopback_alone_unless_said() {
    let cases: [(&[&str], bool); 5] = [
        (&["--grpc-addr", "127.0.0.9:1"], true),
        (&["--grpc-addr", "[::1]:1"], true),
        (&["--grpc-addr", "0.0.0.0:1"], false),
        (&["--grpc-addr", "0.0.0.0:1", "--demo-account", "true"], true),
        (&["--demo-account", "false"], false),
    ];
    for (flags, expected) in cases {
        let (config, _) = Situation { flags, ..Default::default() }.resolve().unwrap();
        assert_eq!(config.demo_account, expected, "{flags:?}");
    }
}

#[test]
fn the_listing_is_aligned_and_keeps_secrets() {
    let situation = Situation {
        flags: &["--lab-token", "tok3n", "--auth-token", "tok3n-too", "--database-url", "mysql://root:s3cret@db/zbl"],
        environment: &[("ZBL_POOL_SIZE", "8")],
        ..Default::default()
    };
    let (config, effective) = situation.resolve().unwrap();
    assert_eq!(config.lab_token.as_ref().map(Secret::expose), Some("tok3n"));
    let (text, json) = (as_text(&effective), as_json(&effective));
    assert!(text.contains("database_url       mysql://root:***@db/zbl  flag --database-url\n"), "{text}");
    assert!(text.contains("pool_size          8                        env ZBL_POOL_SIZE\n"), "{text}");
    assert_eq!(json["pool_size"], serde_json::json!({"value": "8", "source": "env", "from": "ZBL_POOL_SIZE"}));
    assert_eq!((&json["lab_token"]["value"], &json["auth_token"]["value"]), (&"***".into(), &"***".into()));
    for shown in [text, json.to_string(), format!("{config:?}{effective:?}")] {
        assert!(!shown.contains("tok3n") && !shown.contains("s3cret"), "{shown}");
    }
}

#[test]
fn tls_wants_a_certificate_and_its_key() {
    let tls = |flags| Situation { flags, ..Default::default() }.resolve().map(|(config, _)| config.tls);
    assert_eq!(tls(&[]).unwrap(), None);
    let files = tls(&["--tls-cert", "a.pem", "--tls-key", "a.key", "--tls-client-ca", "ca.pem"]).unwrap().unwrap();
    assert_eq!((files.certificate.to_str(), files.key.to_str()), (Some("a.pem"), Some("a.key")));
    assert_eq!(files.client_authorities.as_deref(), Some(Path::new("ca.pem")));
    let lacking: [(&[&str], [&str; 2]); 3] = [
        (&["--tls-cert", "a.pem"], ["--tls-key", "missing"]),
        (&["--tls-key", "a.key"], ["--tls-cert", "missing"]),
        (&["--tls-client-ca", "ca.pem"], ["--tls-cert", "missing"]),
    ];
    for (flags, named) in lacking {
        let error = tls(flags).unwrap_err().to_string();
        assert!(named.iter().all(|text| error.contains(text)), "{flags:?}: {error}");
    }
}

#[test]
fn secrets_are_in_no_error() {
    for flags in [["--auth-token", "s3cret\n"], ["--lab-token", "s3cr\u{e9}t"]] {
        let error = Situation { flags: &flags, ..Default::default() }.resolve().unwrap_err().to_string();
        assert!(error.contains(flags[0]) && !error.contains("s3"), "{error}");
    }
    let situation = Situation { file: "pool_size = 2\nauth_token = \"s3cret", ..Default::default() };
    let error = situation.resolve().unwrap_err();
    assert!(error.to_string().contains("line 2") && !format!("{error} {error:?}").contains("s3cret"), "{error:?}");
}
