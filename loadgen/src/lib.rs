//! The instrument: attacks the account service and accounts for every lost cent. Data flows one way:
//! [`workload`] → [`attack`] (timed by [`pacer`], measured by [`recorder`]) → [`history`] → [`verdict`] → [`report`].
//! It owns the judgement and refuses to be told it: the verdict is a pure function of what clients were told and what
//! the journal says.

pub mod attack;
pub mod bench;
pub mod expectation;
pub mod history;
pub mod lockdeath;
pub mod pacer;
pub mod recorder;
pub mod report;
pub mod soak;
pub mod verdict;
pub mod workload;
