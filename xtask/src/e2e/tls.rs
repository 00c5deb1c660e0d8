//! TLS, client certificates and tokens as processes meet them: every program of ours and two of others', files that do
//! not fit, and SIGHUP. The certificates are made here and gone afterwards.

use std::{fs, path::Path, process::Command, time::Duration};

use test_support::{Authority, Process, Redis, Signed, free_port, poll_until};

use super::{
    checks::{Checks, ensure},
    grpcurl,
    stage::{Ended, Stage, argument, loopback},
};
use crate::command::Failure;

/// Everything here ends by itself, the slowest after its retries to reach a server.
const TIMEOUT: Duration = Duration::from_secs(120);
/// A debug build that opens an empty SQLite file.
const READY: Duration = Duration::from_secs(60);

const USAGE: i32 = 2;
const NEVER_REACHED: i32 = 3;
const FAILED: i32 = 1;
const NOT_AS_EXPECTED: i32 = 10;

/// What the service and its lab ask for. Neither may be found in any output.
const SERVICE: &str = "s3cret-service";
const LAB: &str = "s3cret-lab";

/// A server that asks for certificates and tokens, and what its clients have.
struct Bank<'a> {
    stage: &'a Stage,
    authority: Authority,
    server: Process,
    known: Signed,
    grpc: String,
    http: String,
}

pub(super) fn run(stage: &Stage, checks: &mut Checks) -> Result<(), Failure> {
    checks.check("files that are no certificate, no key, or not of one kind are named, exit 2", || unfit(stage));
    let mut bank = Bank::open(stage)?;
    for (name, binary, arguments) in PROGRAMS {
        checks.check(&format!("{name} with certificates and a token"), || {
            bank.run(binary, arguments, LAB)?.expect(0).map(drop)
        });
    }
    checks.check("loadgen compare: every strategy is attacked", || {
        // So few workers need not catch the one that loses.
        let ended = bank.run("loadgen", &["compare", "--workers", "5"], LAB)?;
        ensure(matches!(ended.code, Some(0 | NOT_AS_EXPECTED)), || format!("{ended:?}"))?;
        ended.saying(&["none", "atomic", "serializable"]).map(drop)
    });
    checks.check("loadgen lockdeath holds operations on two such servers", || bank.lockdeath());
    checks.check("healthcheck needs a certificate and no token", || bank.healthcheck());
    checks.check("without a certificate, or with a wrong token, programs say so", || bank.refused());
    checks.check("grpcurl, by -cacert, -cert and -H", || bank.grpcurl());
    checks.check("curl, by --cacert, --cert and -H", || bank.curl());
    checks.check("SIGHUP: new certificates for new connections, the old connection goes on", || bank.renew());
    checks.check("SIGHUP: a bad file is named, and changes nothing", || bank.spoil());
    checks.check("SIGHUP: the log filter is read again from the file", || bank.refilter());
    checks.check("the tokens are in no output of the server", || bank.is_discreet());
    Ok(())
}

/// What is run, and how.
type Program = (&'static str, &'static str, &'static [&'static str]);

const PROGRAMS: [Program; 5] = [
    ("loadgen attack", "loadgen", &["attack", "--workers", "5", "--strategy", "atomic"]),
    ("loadgen attack on an account that is reset", "loadgen", &["attack", "--workers", "5", "--user", "1"]),
    ("loadgen bench", "loadgen", &["bench", "--duration", "1s", "--warmup", "0s"]),
    ("loadgen bench --stream", "loadgen", &["bench", "--duration", "1s", "--warmup", "0s", "--stream"]),
    ("timeline", "timeline", &["--retained", "--limit", "3"]),
];

fn unfit(stage: &Stage) -> Result<(), Failure> {
    let authority = Authority::new()?;
    let [one, other] = [authority.sign("one", &["127.0.0.1"])?, authority.sign("other", &["127.0.0.1"])?];
    let absent = Path::new("/no/such.pem");
    let (certificate, key) = (one.certificate.as_path(), one.key.as_path());
    for (files, named, problem) in [
        ([absent, key, certificate], absent, "cannot be read"),
        ([certificate, absent, certificate], absent, "cannot be read"),
        ([key, key, certificate], key, "there is no certificate in it"),
        ([certificate, certificate, certificate], certificate, "there is no private key in it"),
        ([certificate, &other.key, certificate], &other.key, "not the key of the certificate in"),
        ([certificate, key, absent], absent, "cannot be read"),
    ] {
        let [certificate, key, authorities] = files.map(argument);
        let flags = ["--tls-cert", &certificate, "--tls-key", &key, "--tls-client-ca", &authorities];
        let ended = stage.run(
            stage.command("zbl-server", &[&ports()?.each_ref().map(String::as_str)[..], &flags].concat()),
            TIMEOUT,
        )?;
        ended.expect(USAGE)?.saying(&["--tls-", &argument(named), problem])?;
    }
    Ok(())
}

/// Flags of ports that are free.
fn ports() -> Result<[String; 2], Failure> {
    let flag = |name: &str| Ok::<_, Failure>(format!("--{name}-addr={}", loopback(free_port()?)));
    Ok([flag("grpc")?, flag("http")?])
}

impl<'a> Bank<'a> {
    fn open(stage: &'a Stage) -> Result<Self, Failure> {
        let authority = Authority::new()?;
        authority.sign("server", &["127.0.0.1"])?;
        let known = authority.sign("client", &["a client"])?;
        let (grpc, http) = (loopback(free_port()?).to_string(), loopback(free_port()?).to_string());
        let server = serve(stage, &authority, "tls.db", [&grpc, &http], &[])?;
        Ok(Self { stage, authority, server, known, grpc, http })
    }

    /// A program of ours, aimed at the server, with what it asks for.
    fn run(&self, binary: &str, arguments: &[&str], token: &str) -> Result<Ended, Failure> {
        let address = format!("https://{}", self.grpc);
        let mut command = self.command(binary, arguments, token);
        command.args(["--addr", &address]);
        self.stage.run(command, TIMEOUT)
    }

    fn command(&self, binary: &str, arguments: &[&str], token: &str) -> Command {
        let mut command = self.stage.command(binary, arguments);
        let [ca, cert, key] =
            [&self.authority.certificate(), &self.known.certificate, &self.known.key].map(|path| argument(path));
        command.args(["--ca-cert", &ca, "--client-cert", &cert, "--client-key", &key]).env("ZBL_TOKEN", token);
        command
    }

    fn lockdeath(&self) -> Result<(), Failure> {
        let redis = Redis::start()?;
        let flag = format!("--redis-url={}", redis.url());
        let addresses = [(); 4].map(|()| free_port().map(|port| loopback(port).to_string()));
        let [a, b, c, d] = addresses;
        let (holder, rival) = ([&a?, &b?], [&c?, &d?]);
        let _servers = [
            serve(self.stage, &self.authority, "lockdeath.db", holder, &[&flag, "--lease=1s"])?,
            serve(self.stage, &self.authority, "lockdeath.db", rival, &[&flag, "--lease=1s"])?,
        ];
        let deaths = self.stage.path("deaths.toml");
        let text = "[[death]]\nname = \"nothing breaks\"\nbreak = \"true\"\nstrategies = [\"redis_lock_fenced\"]\n";
        fs::write(&deaths, text).map_err(|error| Failure::Failed(format!("{}: {error}", deaths.display())))?;
        let [holder, rival] = [holder[0], rival[0]].map(|address| format!("https://{address}"));
        let deaths = argument(&deaths);
        let arguments = ["lockdeath", "--addr", &holder, "--addr", &rival, "--lease", "1s", "--deaths", &deaths];
        self.stage.run(self.command("loadgen", &arguments, LAB), TIMEOUT)?.expect(0).map(drop)
    }

    fn healthcheck(&self) -> Result<(), Failure> {
        self.run("zbl-server", &["healthcheck"], "")?.expect(0)?;
        let address = format!("https://{}", self.grpc);
        let ca = argument(&self.authority.certificate());
        let bare = self.stage.command("zbl-server", &["healthcheck", "--addr", &address, "--ca-cert", &ca]);
        self.stage.run(bare, TIMEOUT)?.expect(FAILED).map(drop)
    }

    fn refused(&self) -> Result<(), Failure> {
        let attack = ["attack", "--outage", "1s", "--workers", "2"];
        self.run("loadgen", &attack, "wrong")?.expect(NEVER_REACHED)?.saying(&["UNAUTHENTICATED"])?;
        // The service's token is none for the lab.
        let reset = [&attack[..], &["--user", "1"]].concat();
        self.run("loadgen", &reset, SERVICE)?.expect(NEVER_REACHED)?.saying(&["LAB_UNAUTHENTICATED"])?;
        self.run("loadgen", &attack, SERVICE)?.expect(0)?;
        let stranger = Authority::new()?;
        let (address, ca) = (format!("https://{}", self.grpc), argument(&stranger.certificate()));
        let command = self.stage.command("loadgen", &[&attack[..], &["--addr", &address, "--ca-cert", &ca]].concat());
        self.stage.run(command, TIMEOUT)?.expect(NEVER_REACHED)?.saying(&["UnknownIssuer", &self.grpc])?;
        let command = self.stage.command("loadgen", &["attack", "--addr", &self.grpc, "--ca-cert", &ca]);
        self.stage.run(command, TIMEOUT)?.expect(USAGE)?.saying(&["https://"]).map(drop)
    }

    fn grpcurl(&self) -> Result<(), Failure> {
        let program = grpcurl::program()?;
        let [ca, cert, key] =
            [&self.authority.certificate(), &self.known.certificate, &self.known.key].map(|path| argument(path));
        let call = |header: &str| {
            let mut command = self.stage.foreign(&program);
            command.args(["-cacert", &ca, "-cert", &cert, "-key", &key, "-H", header]);
            command.args(["-d", r#"{"user_id":1}"#, &self.grpc, "zbl.v1.AccountService/GetBalance"]);
            self.stage.run(command, TIMEOUT)
        };
        // Reflection asks for it too, and is asked first.
        call(&format!("authorization: Bearer {SERVICE}"))?.expect(0)?.saying(&["balance"])?;
        let refused = call("x-nothing: x")?;
        ensure(refused.code != Some(0) && refused.output.contains("token is missing"), || format!("{refused:?}"))
    }

    fn curl(&self) -> Result<(), Failure> {
        let [ca, cert, key] =
            [&self.authority.certificate(), &self.known.certificate, &self.known.key].map(|path| argument(path));
        let get = |path: &str, header: &str| {
            let mut command = self.stage.foreign("curl");
            command.args(["--silent", "--show-error", "--include", "--cacert", &ca, "--cert", &cert, "--key", &key]);
            command.args(["-H", header, &format!("https://{}{path}", self.http)]);
            self.stage.run(command, TIMEOUT)?.expect(0)
        };
        let header = format!("authorization: Bearer {SERVICE}");
        get("/metrics", &header)?.saying(&[" 200 ", "connections{port=\"http\"}"])?;
        get("/balance/1", &header)?.saying(&["\"balance\":"])?;
        get("/metrics", "x-nothing: x")?.saying(&[" 401", "www-authenticate: Bearer", "UNAUTHENTICATED"])?;
        get("/healthz", "x-nothing: x")?.saying(&[" 200"]).map(drop)
    }

    fn renew(&mut self) -> Result<(), Failure> {
        let address = format!("https://{}", self.grpc);
        let watch = self.command("timeline", &["--addr", &address, "--user", "1", "--plain"], LAB);
        let mut watch = Process::spawn(watch)?;
        watch.wait_for_line("alive", TIMEOUT)?;
        // The same files, by another authority.
        let renewed = Authority::new()?;
        let new = renewed.sign("server", &["127.0.0.1"])?;
        let old = self.authority.sign("server", &["127.0.0.1"])?;
        let copy = |from: &Path, to: &Path| fs::copy(from, to).map_err(|error| Failure::Failed(error.to_string()));
        copy(&new.certificate, &old.certificate)?;
        copy(&new.key, &old.key)?;
        self.hang_up("new connections get the certificates")?;
        let attack = ["attack", "--outage", "1s", "--workers", "2"];
        self.run("loadgen", &attack, LAB)?.expect(NEVER_REACHED)?.saying(&["UnknownIssuer"])?;
        let (ca, cert, key) = (renewed.certificate(), &self.known.certificate, &self.known.key);
        let [ca, cert, key] = [&ca, cert, key].map(|path| argument(path));
        let mut command = self.stage.command("loadgen", &attack);
        command.args(["--addr", &address, "--ca-cert", &ca, "--client-cert", &cert, "--client-key", &key]);
        command.args(["--user", "1"]).env("ZBL_TOKEN", LAB);
        self.stage.run(command, TIMEOUT)?.expect(0)?;
        // It could not have come back by another connection: it does not trust the new certificate.
        Ok(watch.wait_for_line("commit", TIMEOUT).map(drop)?)
    }

    fn spoil(&mut self) -> Result<(), Failure> {
        let file = self.authority.sign("server", &["127.0.0.1"])?;
        fs::write(&file.key, "no key").map_err(|error| Failure::Failed(error.to_string()))?;
        self.hang_up("the certificates stay as they were")?;
        ensure(self.server.output().contains(&argument(&file.key)), || self.server.output())?;
        // Those by the other authority, which this client does not trust: it is up, and as it was.
        let attack = ["attack", "--outage", "1s", "--workers", "2"];
        self.run("loadgen", &attack, LAB)?.expect(NEVER_REACHED)?.saying(&["UnknownIssuer"])?;
        self.authority.sign("server", &["127.0.0.1"])?;
        self.hang_up("new connections get the certificates")?;
        self.run("loadgen", &attack, LAB)?.expect(0).map(drop)
    }

    fn refilter(&mut self) -> Result<(), Failure> {
        let file = self.stage.path("tls.toml");
        let write = |text: &str| fs::write(&file, text).map_err(|error| Failure::Failed(error.to_string()));
        write("log = \"info,zbl_server=debug\"")?;
        self.hang_up("the log filter is `info,zbl_server=debug`")?;
        write("log = \"info,zbl_server=loud\"")?;
        self.hang_up("the log filter stays as it was")?;
        // What a caller is refused is told at this level.
        self.run("loadgen", &["attack", "--outage", "1s", "--workers", "2"], "wrong")?.expect(NEVER_REACHED)?;
        self.server.wait_for_line("the token is missing or wrong", TIMEOUT).map(drop).map_err(Failure::from)
    }

    /// Sends SIGHUP and waits for one more line that says so.
    fn hang_up(&mut self, saying: &str) -> Result<(), Failure> {
        let count = |server: &Process| server.output().lines().filter(|line| line.contains(saying)).count();
        let before = count(&self.server);
        let mut kill = Command::new("kill");
        kill.args(["-HUP", &self.server.pid().to_string()]);
        self.stage.run(kill, TIMEOUT)?.expect(0)?;
        let said = poll_until(TIMEOUT, || (count(&self.server) > before).then_some(()));
        ensure(said.is_some(), || format!("{saying:?} is not said:\n{}", self.server.output()))
    }

    fn is_discreet(&self) -> Result<(), Failure> {
        let output = self.server.output();
        ensure(!output.contains(SERVICE) && !output.contains(LAB), || output)
    }
}

/// A server with the authority's certificate, and a file of settings.
fn serve(
    stage: &Stage,
    authority: &Authority,
    database: &str,
    [grpc, http]: [&String; 2],
    more: &[&str],
) -> Result<Process, Failure> {
    let file = stage.path("tls.toml");
    fs::write(&file, "log = \"info\"").map_err(|error| Failure::Failed(error.to_string()))?;
    let ca = authority.certificate();
    let [cert, key] = ["server.pem", "server.key"].map(|name| argument(&ca.with_file_name(name)));
    let (file, ca, url) = (argument(&file), argument(&ca), stage.sqlite_url(database));
    let mut command = stage.command("zbl-server", &["serve", "--config", &file, "--database-url", &url]);
    command.args(["--grpc-addr", grpc, "--http-addr", http, "--tls-cert", &cert, "--tls-key", &key]);
    command.args(["--tls-client-ca", &ca, "--demo-account", "true"]).args(more);
    command.env("ZBL_AUTH_TOKEN", SERVICE).env("ZBL_LAB_TOKEN", LAB);
    let mut server = Process::spawn(command)?;
    server.wait_for_line("Ctrl-C stops it.", READY)?;
    Ok(server)
}
