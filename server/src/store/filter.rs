//! What the database says of the filter of account ids in Redis: which one counts, and whether what it does not contain
//! can be believed not to exist. The rules by which it changes are in `cache/filter.rs`.

/// The row that tells which filter counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filter {
    /// Which filter: each that is built has a random number of its own, so that none is ever taken for another.
    pub build: i64,
    /// What can be believed of it.
    pub state: FilterState,
}

/// What can be believed of a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilterState {
    /// Nothing, and nobody believes anything of it.
    Off,
    /// Nothing yet: it is being filled.
    Building,
    /// Who is not in it has no account.
    Sound,
    /// Nothing any more, but somebody may not know that yet.
    Revoked,
}

impl FilterState {
    const ALL: [Self; 4] = [Self::Off, Self::Building, Self::Sound, Self::Revoked];

    /// The number that the database keeps.
    pub(super) const fn stored(self) -> i16 {
        match self {
            Self::Off => 0,
            Self::Building => 1,
            Self::Sound => 2,
            Self::Revoked => 3,
        }
    }
}

impl Filter {
    /// Reads the row of the database.
    pub(super) fn from_row((build, stored): (i64, i16)) -> super::Result<Self> {
        let state = FilterState::ALL.into_iter().find(|state| state.stored() == stored);
        let unknown = || super::Error::Unexpected(format!("account_filter has the unknown state {stored}"));
        Ok(Self { build, state: state.ok_or_else(unknown)? })
    }

    /// The same filter, believed otherwise.
    pub const fn turned(self, state: FilterState) -> Self {
        Self { state, ..self }
    }
}
