//! What the server says on stdout once it serves: who it is, where it is, and lines to paste.

use std::env;

use crate::{config::Config, healthcheck::reachable, listeners::Addresses};

/// The banner; `store` is the store's name as `ListStrategies` gives it.
#[must_use]
pub fn banner(config: &Config, store: &str, listening: Addresses) -> String {
    let Addresses { grpc, http } = listening;
    let Config { instance, database_url, strategy, .. } = config;
    let (target, delay) = (reachable(grpc), delay(config));
    // Whom to trust, and what to show, the reader knows: our own programs and curl take it from the environment.
    let (scheme, plain) = if config.tls.is_some() { ("https", "") } else { ("http", "-plaintext ") };
    let shown = if config.auth_token.is_some() { "-H \"authorization: Bearer $ZBL_TOKEN\" " } else { "" };
    format!(
        "Open {scheme}://{web}/

zbl-server {version}, instance {instance}
  store     {store} ({database_url})
  strategy  {strategy}{delay}
  gRPC      {scheme}://{grpc}
  HTTP      {scheme}://{http}/healthz  {scheme}://{http}/readyz

Try:
  grpcurl {plain}{shown}-d '{{\"user_id\":1,\"amount\":\"10.00\"}}' {target} zbl.v1.AccountService/Deduct
  curl {shown}-H 'content-type: application/json' -d '{{\"user_id\":1,\"amount\":\"10.00\"}}' {scheme}://{web}/deduct
  {timeline} --addr {scheme}://{target}
  {loadgen} attack --addr {scheme}://{target} --strategy none
  {loadgen} compare --addr {scheme}://{target}

Ctrl-C stops it.
",
        version = env!("CARGO_PKG_VERSION"),
        web = reachable(http),
        timeline = program("timeline"),
        loadgen = program("loadgen"),
    )
}

/// How to call one of our other programs: by its path where it was built beside this one below the working directory,
/// by its name where it is installed.
fn program(name: &str) -> String {
    let built_here = || {
        let beside = env::current_exe().ok()?.with_file_name(name);
        let below = beside.strip_prefix(env::current_dir().ok()?).ok()?.to_owned();
        beside.is_file().then(|| below.display().to_string())
    };
    built_here().unwrap_or_else(|| name.to_owned())
}

/// A delay that widens the race should not be forgotten.
fn delay(config: &Config) -> String {
    if config.compute_delay.is_zero() {
        return String::new();
    }
    format!(
        " (every operation is held for {} between read and write)",
        humantime::format_duration(config.compute_delay)
    )
}

#[cfg(test)]
mod tests {
    use std::{ffi::OsString, path::Path};

    use super::*;
    use crate::cli::Invocation;

    #[test]
    fn lines_to_paste_have_real_addresses_and_no_password() {
        let words = ["zbl-server", "--grpc-addr=0.0.0.0:0", "--instance=one", "--compute-delay=5ms"];
        let words = words.into_iter().chain(["--database-url=mysql://root:pw@db/zbl"]).map(OsString::from);
        let config = Invocation::parse(words, &|_| None, Path::new("/nowhere")).unwrap().config;
        let listening = Addresses { grpc: "0.0.0.0:4711".parse().unwrap(), http: "127.0.0.1:8080".parse().unwrap() };
        let text = banner(&config, "mariadb", listening);
        for expected in [
            "instance one\n",
            "Open http://127.0.0.1:8080/\n",
            "mariadb (mysql://root:***@db/zbl)\n",
            "every operation is held for 5ms between read and write",
            r#"grpcurl -plaintext -d '{"user_id":1,"amount":"10.00"}' 127.0.0.1:4711 zbl.v1.AccountService/Deduct"#,
            "timeline --addr http://127.0.0.1:4711\n",
            "http://127.0.0.1:8080/healthz",
        ] {
            assert!(text.contains(expected), "{expected} is not in {text}");
        }
    }

    #[test]
    fn lines_to_paste_say_what_a_guarded_server_asks_for() {
        let words = ["zbl-server", "--tls-cert=a.pem", "--tls-key=a.key", "--auth-token=s3cret"].map(OsString::from);
        let config = Invocation::parse(words, &|_| None, Path::new("/nowhere")).unwrap().config;
        let listening = Addresses { grpc: "127.0.0.1:1".parse().unwrap(), http: "127.0.0.1:2".parse().unwrap() };
        let text = banner(&config, "sqlite", listening);
        assert!(!text.contains("http://") && !text.contains("-plaintext") && !text.contains("s3cret"), "{text}");
        assert!(text.contains(r#"grpcurl -H "authorization: Bearer $ZBL_TOKEN" -d '{"#), "{text}");
        assert!(text.contains("curl -H \"authorization: Bearer $ZBL_TOKEN\" -H 'content-type"), "{text}");
    }
}
