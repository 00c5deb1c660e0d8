//! The Redis servers beside a database: one for locks and the cache, and those of redlock, which know nothing of each
//! other. All are private and keep nothing on disk. It owns starting and emptying them; it measures nothing.

use test_support::Redis;

use crate::command::Failure;

/// The servers of redlock: the usual number, which survives the loss of two.
const NODES: usize = 5;

/// Running Redis servers, ended when dropped.
#[derive(Debug)]
pub(crate) struct RedisServers {
    /// The one for locks and the cache.
    one: Redis,
    nodes: Vec<Redis>,
    version: String,
}

impl RedisServers {
    pub(crate) fn start() -> Result<Self, Failure> {
        let one = Redis::start()?;
        let nodes = (0..NODES).map(|_| Redis::start()).collect::<Result<_, _>>()?;
        let about = one.command(&["INFO", "server"])?;
        let version = about.lines().find_map(|line| line.strip_prefix("redis_version:"));
        let version = version.ok_or_else(|| Failure::Failed("the Redis server does not tell its version".into()))?;
        Ok(Self { version: version.trim_end().to_owned(), one, nodes })
    }

    /// Product and version.
    pub(crate) fn name(&self) -> String {
        format!("Redis {}", self.version)
    }

    /// What a server of accounts is told of them.
    pub(crate) fn settings(&self) -> [String; 4] {
        let nodes: Vec<String> = self.nodes.iter().map(Redis::url).collect();
        ["--redis-url".into(), self.one.url(), "--redlock-urls".into(), nodes.join(",")]
    }

    /// The operating system's ids of all of them.
    pub(crate) fn pids(&self) -> impl Iterator<Item = u32> {
        [&self.one].into_iter().chain(&self.nodes).map(Redis::pid)
    }

    /// Empties the one that the cache is in.
    pub(crate) fn flush(&self) -> Result<(), Failure> {
        Ok(self.one.command(&["FLUSHALL"]).map(drop)?)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_server_is_told_of_one_for_the_cache_and_of_an_odd_number_for_redlock() {
        let servers = RedisServers::start().unwrap();
        let [one_flag, one, nodes_flag, nodes] = servers.settings();
        assert_eq!([one_flag, nodes_flag], ["--redis-url", "--redlock-urls"]);
        let urls: BTreeSet<&str> = nodes.split(',').chain([one.as_str()]).collect();
        assert_eq!(urls.len(), 6, "{urls:?}");
        assert!(urls.iter().all(|url| url.starts_with("redis://127.0.0.1:")), "{urls:?}");
        assert_eq!(servers.pids().collect::<BTreeSet<_>>().len(), 6);
        let name = servers.name();
        assert!(name.strip_prefix("Redis ").unwrap().starts_with(|first: char| first.is_ascii_digit()), "{name}");
    }

    #[test]
    fn the_cache_can_be_emptied() {
        let servers = RedisServers::start().unwrap();
        servers.one.command(&["SET", "account", "7"]).unwrap();
        servers.flush().unwrap();
        assert_eq!(servers.one.command(&["GET", "account"]).unwrap(), "");
    }
}
