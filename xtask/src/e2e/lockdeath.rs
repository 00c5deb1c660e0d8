//! Locks that die under their holders: two servers, five Redis nodes and a replica, killed, paused, restarted and set in
//! the clock by the lines of a file, and what each strategy loses by it. What is expected stands here cell by cell, and
//! the table is the one in docs/LOCKS.md.

use std::{fs, net::SocketAddr, time::Duration};

use serde_json::Value;
use test_support::{Redis, fresh_database, poll_until};

use super::{
    attack::amount,
    checks::{Checks, ensure},
    stage::{Ended, Server, Stage, argument},
};
use crate::command::{Failure, say, workspace};

/// Long enough for a loaded machine to renew in time, short enough to be waited for some dozens of times.
const LEASE: &str = "1s";
/// Each scene takes the lease, or where the rival is kept out three of them, and there are some fifty.
const TIMEOUT: Duration = Duration::from_secs(900);
/// A replica on loopback is in step within a second.
const REPLICA_TIMEOUT: Duration = Duration::from_secs(30);
/// How far the clock of a node jumps: any lease is over by then.
const JUMP: Duration = Duration::from_secs(3600);

const STRATEGIES: [&str; 3] = ["redis_lock", "redlock", "redis_lock_fenced"];
/// A majority of these must grant a lock.
const NODES: usize = 5;

const ABORTED: i32 = 3;
const NOT_AS_EXPECTED: i32 = 10;

/// What a strategy may lose in a cell, in hundredths: with the holder before its WRITE, and before its COMMIT.
type Lost = [i64; 2];

const NOTHING: Lost = [0, 0];
/// The holder that looks once more notices; after its last look it does not.
const AFTER_THE_LAST_LOOK: Lost = [0, 10_00];

/// A death, how it comes about, and what the three strategies lose by it, in the order of [`STRATEGIES`].
struct Death {
    name: &'static str,
    lines: fn(&Scenery<'_>) -> Lines,
    lost: [Lost; 3],
}

/// As `loadgen lockdeath --example` explains them.
#[derive(Default)]
struct Lines {
    prepare: Option<String>,
    breaks: String,
    mend: Option<String>,
    restore: Option<String>,
}

/// What can be broken.
struct Scenery<'a> {
    holder: &'a Server<'a>,
    rival: &'a Server<'a>,
    /// The first is that of redis_lock, and its clock can be moved.
    nodes: Vec<Redis>,
    /// Of the first node.
    replica: Redis,
}

const DEATHS: [Death; 9] = [
    Death {
        name: "holder paused past its lease",
        lines: paused,
        lost: [AFTER_THE_LAST_LOOK, AFTER_THE_LAST_LOOK, NOTHING],
    },
    Death {
        name: "every node killed, restarted empty",
        lines: |scenery| scenery.restarted(NODES),
        lost: [AFTER_THE_LAST_LOOK, AFTER_THE_LAST_LOOK, NOTHING],
    },
    Death {
        name: "a replica without the lock takes over",
        lines: failed_over,
        lost: [AFTER_THE_LAST_LOOK, NOTHING, NOTHING],
    },
    Death { name: "2 of 5 nodes killed", lines: |scenery| scenery.killed(2), lost: [NOTHING; 3] },
    Death {
        name: "2 of 5 nodes killed, restarted empty",
        lines: |scenery| scenery.restarted(2),
        lost: [AFTER_THE_LAST_LOOK, NOTHING, NOTHING],
    },
    Death { name: "3 of 5 nodes killed", lines: |scenery| scenery.killed(3), lost: [NOTHING; 3] },
    Death {
        name: "3 of 5 nodes killed, restarted empty",
        lines: |scenery| scenery.restarted(3),
        lost: [AFTER_THE_LAST_LOOK, AFTER_THE_LAST_LOOK, NOTHING],
    },
    Death { name: "released by a non-owner", lines: released, lost: [NOTHING; 3] },
    Death {
        name: "the clock of one node jumps",
        lines: jumped,
        lost: [AFTER_THE_LAST_LOOK, AFTER_THE_LAST_LOOK, NOTHING],
    },
];

pub(super) fn run(stage: &Stage, checks: &mut Checks) -> Result<(), Failure> {
    let mut nodes = vec![Redis::start_with_movable_clock()?];
    for _ in 1..NODES {
        nodes.push(Redis::start()?);
    }
    let replica = replica_of(&nodes[0])?;
    let urls: Vec<String> = nodes.iter().map(Redis::url).collect();
    let database = fresh_database()?;
    let majority_of = urls.join(",");
    let mut settings = vec!["--redis-url", &urls[0], "--redlock-urls", &majority_of];
    settings.extend(["--lease", LEASE, "--lease-wait", "20s"]);
    // What is to be seen is the lock, not the breaker before it.
    settings.extend(["--breaker-least", "1000000"]);
    let holder = Server::start_with(stage, &database, &settings)?;
    let rival = Server::start_with(stage, &database, &settings)?;
    let scenery = Scenery { holder: &holder, rival: &rival, nodes, replica };
    let mut table = String::new();
    let mut result = Value::Null;
    checks.check_and_note("every death is played with every strategy, exit 0", || {
        let lines: String = DEATHS.iter().map(|death| in_toml(death.name, &(death.lines)(&scenery))).collect();
        let played;
        (played, result) = scenery.play(stage, "deaths", &lines, &[])?;
        say(&played.output);
        let played = played.expect(0)?;
        table = table_of(&played.output);
        let scenes = result["cells"].as_array().map_or(0, Vec::len) * 2;
        Ok(format!("({scenes} scenes)"))
    });
    for death in &DEATHS {
        for (strategy, lost) in STRATEGIES.iter().zip(death.lost) {
            let cell = format!("{}, {strategy}: {} lost", death.name, told(lost));
            checks.check(&cell, || as_expected(&result, death.name, strategy, lost));
        }
    }
    checks.check("the table in docs/LOCKS.md is this one", || documented(&table));
    checks.check("a loss that is not expected is exit 10, with its witness", || {
        let lines = in_toml(DEATHS[0].name, &paused(&scenery));
        let (played, _) = scenery.play(stage, "unexpected", &lines, &["--strategy", "redlock", "--expect", "clean"])?;
        played
            .expect(NOT_AS_EXPECTED)?
            .saying(&["redlock: CLEAN was expected", "wrote over A's v2: 10.00 lost"])
            .map(drop)
    });
    checks.check("what could not be broken is exit 3 and no zero", || {
        let lines = in_toml("not broken", &Lines { breaks: "kill -STOP 0x".to_owned(), ..Lines::default() });
        let (played, _) = scenery.play(stage, "not-broken", &lines, &["--strategy", "redis_lock"])?;
        played.expect(ABORTED)?.saying(&["could not be played", "break: `kill -STOP 0x`", " ?"]).map(drop)
    });
    checks.check("by hand, with nobody there, is exit 3", || {
        let played = stage.run(scenery.lockdeath(stage, &["--strategy", "redis_lock"]), TIMEOUT)?;
        played.expect(ABORTED)?.saying(&["stands before its WRITE", "give --deaths FILE"]).map(drop)
    });
    Ok(())
}

impl Scenery<'_> {
    fn lockdeath(&self, stage: &Stage, arguments: &[&str]) -> std::process::Command {
        let [holder, rival] = [self.holder, self.rival].map(|server| server.address().to_string());
        let mut command = stage.command("loadgen", &["lockdeath", "--addr", &holder, "--addr", &rival]);
        command.args(["--lease", LEASE]).args(arguments);
        command
    }

    /// Plays the deaths of a file, and reads the result.
    fn play(&self, stage: &Stage, name: &str, lines: &str, arguments: &[&str]) -> Result<(Ended, Value), Failure> {
        let (deaths, json) = (stage.path(&format!("{name}.toml")), stage.path(&format!("{name}.json")));
        let failed = |error: &dyn std::fmt::Display| Failure::Failed(format!("{name}: {error}"));
        fs::write(&deaths, lines).map_err(|error| failed(&error))?;
        let mut command = self.lockdeath(stage, &["--deaths", &argument(&deaths), "--json", &argument(&json)]);
        command.args(arguments);
        let ended = stage.run(command, TIMEOUT)?;
        let text = fs::read_to_string(&json).map_err(|error| failed(&error))?;
        Ok((ended, serde_json::from_str(&text).unwrap_or_default()))
    }

    /// Nodes that lose their memory, from the first on.
    fn restarted(&self, count: usize) -> Lines {
        let lines = self.nodes[..count].iter().flat_map(|node| [node.kill_line(), node.start_line()]);
        Lines { breaks: all(lines), ..Lines::default() }
    }

    /// Nodes that are gone until both have ended.
    fn killed(&self, count: usize) -> Lines {
        let nodes = &self.nodes[..count];
        Lines {
            breaks: all(nodes.iter().map(Redis::kill_line)),
            restore: Some(all(nodes.iter().map(Redis::start_line))),
            ..Lines::default()
        }
    }
}

fn paused(scenery: &Scenery<'_>) -> Lines {
    let pid = scenery.holder.pid();
    Lines { breaks: format!("kill -STOP {pid}"), mend: Some(format!("kill -CONT {pid}")), ..Lines::default() }
}

/// The replica is cut off before the lock is taken, and then takes the place of its master, port and all.
fn failed_over(scenery: &Scenery<'_>) -> Lines {
    let (master, replica) = (&scenery.nodes[0], &scenery.replica);
    let (port, own) = (master.addr().port(), replica.addr().port());
    let has_lock = |port: u16, count: u8| format!("test \"$(redis-cli -p {port} EXISTS \"$ZBL_LOCK_KEY\")\" = {count}");
    Lines {
        prepare: Some(format!("redis-cli -e -p {own} REPLICAOF 127.0.0.1 1")),
        breaks: all([
            has_lock(port, 1),
            has_lock(own, 0),
            master.kill_line(),
            format!("redis-cli -e -p {own} REPLICAOF NO ONE"),
            format!("redis-cli -e -p {own} CONFIG SET port {port}"),
        ]),
        mend: None,
        // Whether it took the port or not.
        restore: Some(all([
            format!("{{ redis-cli -p {port} CONFIG SET port {own} || :; }}"),
            master.start_line(),
            format!("redis-cli -e -p {own} REPLICAOF 127.0.0.1 {port}"),
            format!("until redis-cli -p {own} INFO replication | grep -q master_link_status:up; do sleep 0.02; done"),
        ])),
    }
}

/// Somebody who knows everything about the holder's hold but has another name gives it back, wherever it is.
fn released(scenery: &Scenery<'_>) -> Lines {
    let ports: Vec<String> = scenery.nodes.iter().map(|node| node.addr().port().to_string()).collect();
    let script = workspace().join("lock/src/scripts/release.lua");
    let breaks = format!(
        r#"
case "$ZBL_STRATEGY" in redlock) ports="{all}" ;; *) ports="{first}" ;; esac
for port in $ports; do
    hold=$(redis-cli -p $port HKEYS "$ZBL_LOCK_KEY" | sed -n 's/^hold://p')
    test -n "$hold" || {{ echo "no lock on $port"; exit 1; }}
    released=$(redis-cli -e -p $port --eval '{script}' "$ZBL_LOCK_KEY" , somebody/else/altogether "$hold")
    test "$released" = 0 || {{ echo "released on $port: $released"; exit 1; }}
done
"#,
        all = ports.join(" "),
        first = ports[0],
        script = argument(&script),
    );
    Lines { breaks, ..Lines::default() }
}

/// Two nodes are away when the lock is taken, so that it stands on three; the clock of one of these jumps beyond the lease,
/// and when the two are back there are three nodes for another. They are killed, not paused: on waking, a paused one carries
/// out what it was asked meanwhile, and the lock would stand on it after all.
fn jumped(scenery: &Scenery<'_>) -> Lines {
    let [first, .., one, other] = scenery.nodes.as_slice() else { return Lines::default() };
    Lines {
        prepare: Some(all([one, other].map(Redis::kill_line))),
        breaks: all([one.start_line(), other.start_line(), first.jump_line(JUMP)]),
        ..Lines::default()
    }
}

/// Lines of which each is run only if the one before succeeded.
fn all(lines: impl IntoIterator<Item = String>) -> String {
    lines.into_iter().collect::<Vec<_>>().join(" &&\n")
}

fn in_toml(name: &str, lines: &Lines) -> String {
    // What JSON escapes in a string, TOML escapes alike.
    let quoted = |text: &str| Value::from(text).to_string();
    let optional = [("prepare", &lines.prepare), ("mend", &lines.mend), ("restore", &lines.restore)];
    let optional = optional.into_iter().filter_map(|(key, line)| Some((key, line.as_deref()?)));
    [("name", name), ("break", lines.breaks.as_str())]
        .into_iter()
        .chain(optional)
        .fold("[[death]]\n".to_owned(), |text, (key, line)| format!("{text}{key} = {}\n", quoted(line)))
}

/// A replica that is in step.
fn replica_of(master: &Redis) -> Result<Redis, Failure> {
    let address: SocketAddr = master.addr();
    let replica = Redis::start_with(&["--replicaof", &address.ip().to_string(), &address.port().to_string()])?;
    let is_in_step = || replica.command(&["INFO", "replication"]).ok()?.contains("master_link_status:up").then_some(());
    let late = || Failure::Failed("the replica does not reach its master".to_owned());
    poll_until(REPLICA_TIMEOUT, is_in_step).ok_or_else(late)?;
    Ok(replica)
}

fn told([before_write, before_commit]: Lost) -> String {
    let amount = |lost: i64| format!("{}.{:02}", lost / 100, lost % 100);
    format!("{} before WRITE, {} before COMMIT", amount(before_write), amount(before_commit))
}

fn as_expected(result: &Value, death: &str, strategy: &str, expected: Lost) -> Result<(), Failure> {
    let cells = result["cells"].as_array().map(Vec::as_slice).unwrap_or_default();
    let cell = cells.iter().find(|cell| cell["death"] == death && cell["strategy"] == strategy);
    let cell = cell.ok_or_else(|| Failure::Failed("there is no such cell".to_owned()))?;
    for (place, expected) in expected.into_iter().enumerate() {
        let place = &cell["places"][place];
        let played = &place["played"];
        ensure(played.is_object(), || format!("not played: {place}"))?;
        let verdict = if expected == 0 { "CLEAN" } else { "LOST" };
        let is_right = played["verdict"] == verdict && amount(&played["lost"])? == expected;
        ensure(is_right, || format!("{verdict} with {expected} hundredths lost was expected: {place}"))?;
    }
    Ok(())
}

/// The table of the output: from its header to its last row.
fn table_of(output: &str) -> String {
    let lines = output.lines().skip_while(|line| !line.starts_with("death "));
    lines.take_while(|line| !line.is_empty()).fold(String::new(), |table, line| table + line.trim_end() + "\n")
}

fn documented(table: &str) -> Result<(), Failure> {
    let file = workspace().join("docs/LOCKS.md");
    let text = fs::read_to_string(&file).map_err(|error| Failure::Failed(format!("{}: {error}", file.display())))?;
    let is_there = !table.is_empty() && text.contains(table);
    ensure(is_there, || format!("{} has another table; put in what this run printed:\n{table}", file.display()))
}
