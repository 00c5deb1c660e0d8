//! One Redis: its connection, and the scripts it runs for us. It owns that no command takes longer than it may, whatever
//! the server does, and that a server which comes back is used again. It knows nothing of quorums or waiting.

use std::{
    fmt,
    sync::{LazyLock, Mutex, PoisonError},
    time::Duration,
};

use redis::{
    Client, ErrorKind, IntoConnectionInfo, RedisError, RedisResult, Script, ScriptInvocation, ServerErrorKind,
    aio::{ConnectionManager, ConnectionManagerConfig},
    io::tcp::TcpSettings,
};
use tokio::time::{self, Instant};

use crate::{Error, hold::Hold, settings::MIN_COMMAND};

/// How often one command is sent where the link turns out to be broken. Of an idle link that broke long ago the first
/// command tells us, of a reconnection that failed meanwhile the second. All scripts may run twice.
const TRIES: u32 = 3;
/// Between two of them: a server that is being started listens a moment later.
const TRY_PAUSE: Duration = Duration::from_millis(5);
/// A node that did not answer one command in time gets only this share of it for the next: with several nodes, each try at
/// a lock holds others up while it waits for the last.
const SHARE_OF_SILENT: u32 = 8;
/// After so many times the time for a command it gets all of it once more: it may only have become slow.
const SILENCE: u32 = 10;
/// A link whose other end does not even acknowledge bytes for this long is given up for a new one: otherwise the kernel
/// tries for a quarter of an hour. A server that is only stopped does acknowledge, and keeps its link.
#[cfg(target_os = "linux")]
const SILENT_LINK: Duration = Duration::from_secs(2);
/// Who waits for longer than this is let in before those of other processes. It is some holds of a few ms long: a process
/// with a queue of its own works off a part of it before it hands over, which costs a pause of those who wait.
const TURN: Duration = Duration::from_millis(20);
/// Who has not asked for longer than this no longer waits: five times the longest pause between two questions.
const STALE: Duration = Duration::from_millis(100);
/// The greatest token: beyond it, Lua's numbers skip some.
pub(crate) const MAX_TOKEN: i64 = (1 << 53) - 1;

static ACQUIRE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/acquire.lua")));
static EXTEND: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/extend.lua")));
static RELEASE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/release.lua")));
static RAISE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/raise.lua")));

/// What a node says to who wants a lock.
#[derive(Debug)]
pub(crate) enum Answer {
    /// It is the owner's now, with this token (0 where none are handed out).
    Taken(i64),
    /// It is somebody else's, for so long (`None`: for ever), and whether the asking process is the next to get it.
    Held { owner: String, left: Option<Duration>, next: bool },
    /// It is free, and another process that has waited for longer is let in first.
    Turn,
}

/// What a node says to who extends or releases a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ours {
    Yes,
    No,
}

impl From<i64> for Ours {
    fn from(reply: i64) -> Self {
        if reply == 0 { Self::No } else { Self::Yes }
    }
}

/// Why a node did not do as asked: a sentence that names it.
#[derive(Debug, Clone)]
pub(crate) struct Down(pub(crate) String);

/// One Redis server.
pub(crate) struct Node {
    /// `host:port`, without what else the URL told.
    address: String,
    client: Client,
    command: Duration,
    connection: Mutex<Option<ConnectionManager>>,
    /// Until when it is taken for one that does not answer.
    silent: Mutex<Option<Instant>>,
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Node").field(&self.address).finish()
    }
}

impl Node {
    /// Reads the URL; connects to nobody.
    ///
    /// # Errors
    /// [`Error::Url`]; it does not repeat the URL, which may hold a password.
    pub(crate) fn new(url: &str, command: Duration) -> Result<Self, Error> {
        let refused = |error: RedisError| {
            Error::Url(format!("not an address of Redis (redis://[user:password@]host[:port][/db]): {error}"))
        };
        let tcp = TcpSettings::default().set_nodelay(true);
        #[cfg(target_os = "linux")]
        let tcp = tcp.set_user_timeout(SILENT_LINK);
        let info = url.into_connection_info().map_err(refused)?.set_tcp_settings(tcp);
        let address = info.addr().to_string();
        let client = Client::open(info).map_err(refused)?;
        Ok(Self { address, client, command, connection: Mutex::default(), silent: Mutex::default() })
    }

    /// Where it is.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Asks for a lock. `fence` names the counter of tokens where this is the only node; then it also keeps the turns.
    pub(crate) async fn acquire(&self, hold: &Hold, fence: Option<&str>) -> Result<Answer, Down> {
        let mut script = ACQUIRE.key(&hold.lock);
        script.key(&hold.wanted);
        if let Some(fence) = fence {
            script.key(fence);
        }
        script.arg(&hold.owner).arg(&hold.id).arg(hold.lease_ms).arg(&hold.process);
        script.arg(ms(TURN)).arg(ms(STALE));
        let (reply, _) = self.run(&script).await?;
        let (word, number, text): (String, i64, String) = reply;
        match word.as_str() {
            "taken" if number <= MAX_TOKEN => Ok(Answer::Taken(number)),
            "held" | "next" => {
                let left = u64::try_from(number).ok().map(Duration::from_millis);
                Ok(Answer::Held { owner: text, left, next: word == "next" })
            }
            "turn" => Ok(Answer::Turn),
            _ => Err(self.down(format!("unexpected answer {word:?} {number}: is the counter of tokens used up?"))),
        }
    }

    /// Lets a lease begin anew.
    pub(crate) async fn extend(&self, hold: &Hold) -> Result<Ours, Down> {
        let mut script = EXTEND.key(&hold.lock);
        script.arg(&hold.owner).arg(&hold.id).arg(hold.lease_ms);
        let (reply, _): (i64, _) = self.run(&script).await?;
        Ok(reply.into())
    }

    /// Gives a lock back.
    pub(crate) async fn release(&self, hold: &Hold) -> Result<Ours, Down> {
        let mut script = RELEASE.key(&hold.lock);
        script.arg(&hold.owner).arg(&hold.id);
        let (reply, tries): (i64, _) = self.run(&script).await?;
        // If it had to be sent again, the first one may have done it.
        Ok(if tries > 1 { Ours::Yes } else { reply.into() })
    }

    /// Raises the counter of tokens.
    pub(crate) async fn raise(&self, fence: &str, at_least: i64) -> Result<(), Down> {
        let (_, _): (i64, _) = self.run(RAISE.key(fence).arg(at_least)).await?;
        Ok(())
    }

    /// Who holds each of some locks, all looked at in the same instant.
    pub(crate) async fn owners(&self, locks: &[String]) -> Result<Vec<Option<String>>, Down> {
        let mut look = redis::pipe();
        look.atomic();
        for lock in locks {
            look.hget(lock, "owner");
        }
        let (owners, _) = self
            .call(|mut connection| {
                let look = &look;
                async move { look.query_async(&mut connection).await }
            })
            .await?;
        Ok(owners)
    }

    async fn run<T: redis::FromRedisValue>(&self, script: &ScriptInvocation<'_>) -> Result<(T, u32), Down> {
        self.call(|mut connection| async move { script.invoke_async(&mut connection).await }).await
    }

    /// Sends a request, more than once if links turn out to be broken, within the time for one command; tells also how
    /// often.
    async fn call<T, F: Future<Output = RedisResult<T>>>(
        &self,
        request: impl Fn(ConnectionManager) -> F,
    ) -> Result<(T, u32), Down> {
        let limit = self.limit();
        let within_time = time::timeout(limit, async {
            let mut tries = 1;
            loop {
                let answer = match self.connected() {
                    Ok(connection) => request(connection).await,
                    Err(error) => Err(error),
                };
                match answer {
                    Ok(answer) => return Ok((answer, tries)),
                    Err(error) if tries < TRIES && may_pass(&error) => {
                        if is_demoted(&error) {
                            self.connect_anew();
                        }
                        time::sleep(TRY_PAUSE).await;
                    }
                    Err(error) => return Err(self.down(error)),
                }
                tries += 1;
            }
        });
        let answer = within_time.await;
        let mut silent = self.silent.lock().unwrap_or_else(PoisonError::into_inner);
        match answer {
            Ok(answer) => {
                *silent = None;
                answer
            }
            Err(_) => {
                // From the first command that had all its time, or a node that became slow would never get it again.
                silent.get_or_insert_with(|| Instant::now() + self.command * SILENCE);
                Err(self.down(format!("no answer within {limit:?}")))
            }
        }
    }

    /// How long the next command may take.
    fn limit(&self) -> Duration {
        let mut silent = self.silent.lock().unwrap_or_else(PoisonError::into_inner);
        match *silent {
            Some(until) if Instant::now() < until => (self.command / SHARE_OF_SILENT).max(MIN_COMMAND),
            _ => {
                *silent = None;
                self.command
            }
        }
    }

    /// The connection: made by the first who asks, shared by all, and renewed by the manager when it breaks.
    fn connected(&self) -> RedisResult<ConnectionManager> {
        // We bound and repeat ourselves, so that both are the caller's and not hidden in a connection.
        let config = ConnectionManagerConfig::new()
            .set_number_of_retries(0)
            .set_connection_timeout(Some(self.command))
            .set_response_timeout(None);
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(made) = &*connection {
            return Ok(made.clone());
        }
        let made = ConnectionManager::new_lazy_with_config(self.client.clone(), config)?;
        Ok(connection.insert(made).clone())
    }

    /// Gives up a link that is not broken: the next command makes another.
    fn connect_anew(&self) {
        *self.connection.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn down(&self, what: impl fmt::Display) -> Down {
        Down(format!("Redis at {}: {what}", self.address))
    }
}

/// Whether the same request may succeed a moment later.
fn may_pass(error: &RedisError) -> bool {
    error.is_io_error() || error.kind() == ErrorKind::Server(ServerErrorKind::BusyLoading) || is_demoted(error)
}

/// Whether the link leads to what has become a replica. A fail-over can move the address and leave our link where it was.
fn is_demoted(error: &RedisError) -> bool {
    matches!(error.kind(), ErrorKind::Server(ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown))
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
