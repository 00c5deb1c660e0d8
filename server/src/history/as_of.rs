//! Which version an account was at, at some time: a search of its journal, which needs no index of times. Versions have no
//! gaps, and times do not go back with them as long as the database's clock does not.

use chrono::NaiveDateTime;

/// The newest version that is not later than `time`; `None` where all of them are. It asks for some 20 times where the
/// newest version is a million. Where times go back with versions it ends as well, at a version that is not later than
/// `time` and is the newest, or is followed by one that is later.
///
/// # Errors
/// Those of `time_of`.
pub async fn newest_by<F, E>(
    newest: i64,
    time: NaiveDateTime,
    mut time_of: impl FnMut(i64) -> F,
) -> Result<Option<i64>, E>
where
    F: Future<Output = Result<NaiveDateTime, E>>,
{
    // Asked for most often, and the answer to times that have not come yet.
    if newest > 0 && time_of(newest).await? <= time {
        return Ok(Some(newest));
    }
    // What is searched for lies between: not before the one, and before the other.
    let (mut by_then, mut later) = (0, newest);
    while later - by_then > 1 {
        let middle = by_then + (later - by_then) / 2;
        if time_of(middle).await? <= time {
            by_then = middle;
        } else {
            later = middle;
        }
    }
    Ok((by_then > 0).then_some(by_then))
}
