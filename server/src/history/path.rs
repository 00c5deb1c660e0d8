//! The surviving path of an account's history: from the newest entry to the entry that it had read, and so on to the
//! opening. What lies beside it was overwritten. Pure; it is known from its end only, so it is walked backwards.

use crate::account::Entry;

/// How far a path has been followed. All of it hangs on the version it began with: what is written later changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    /// The survivor that was found last.
    pub survivor: i64,
    /// The version that it had read: the survivor before it.
    pub parent: i64,
}

impl Path {
    /// The path that ends with a version: whatever is written next, having read that one, would survive with it.
    pub const fn to(newest: i64) -> Self {
        Self { survivor: newest + 1, parent: newest }
    }

    /// Goes on to the entry before the one it came to last, and says by which version that was overwritten; `None`: it
    /// survives.
    pub const fn overwriter(&mut self, entry: &Entry) -> Option<i64> {
        if entry.version > self.parent {
            return Some(self.survivor);
        }
        *self = Self { survivor: entry.version, parent: entry.version_before };
        None
    }
}
