//! The command line of `zbl-server verify`.

use super::{Anchor, Scope};

/// The options of `verify`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::Args)]
#[command(after_long_help = HELP)]
pub struct Arguments {
    /// Only this account; its newest digest is then printed, as an anchor to keep elsewhere
    #[arg(long, value_name = "USER_ID", value_parser = clap::value_parser!(i64).range(1..))]
    user: Option<i64>,
    /// What an entry of that account must be: an anchor that was printed before
    #[arg(long, value_name = "DIGEST@VERSION", requires = "user")]
    expect: Option<Anchor>,
    /// One JSON object a line: each finding, and at last a summary
    #[arg(long)]
    pub json: bool,
}

impl Arguments {
    /// What is to be verified.
    #[must_use]
    pub fn scope(&self) -> Scope {
        self.user.map_or(Scope::All, |user_id| Scope::One(user_id, self.expect))
    }
}

const HELP: &str = "\
Each entry of an account's journal carries a digest over itself and the digest before it (setting --hash-chain). This
follows them all and names each entry that was changed, removed, inserted or written without the chain, and each account
whose balance or version is not what its newest entry left. It takes no locks and may run beside servers that write.

What no chain can tell by itself: entries cut off its end together with the account's row, and a journal written anew from
some entry on, digests and all. Against both, keep an anchor where whoever can write to the database cannot:

  zbl-server verify --database-url mysql://… --user 1
  zbl-server verify --database-url mysql://… --user 1 --expect 5e4612d6…13eb@1204

Entries without a digest from before the chain was on are counted as not covered; they are no finding.

With --json each finding is an object of finding (changed, broken, missing, inserted, unchained, balance or anchor),
user_id, version, to_version and message; the last line is {\"summary\": …} with the verdict (sound, unsound or
interrupted), the counts and the anchor. docs/TAMPERING.md says what each finding means.

Exit codes: 0 sound; 10 something was found; 3 it could not be done, or not to its end; 2 usage.";
