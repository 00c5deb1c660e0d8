//! The time axis of a picture: from nanoseconds to columns. Keeps the order of all events exactly, gives every box the
//! room its label needs, and spends what is left on the longer waits.

/// A box to place: when it begins and ends, and the columns its label needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extent {
    pub(super) start_ns: i64,
    pub(super) end_ns: i64,
    pub(super) columns: usize,
}

/// Times and the columns they fall on, both ascending.
#[derive(Debug)]
pub(super) struct Axis {
    times_ns: Vec<i64>,
    columns: Vec<usize>,
}

/// Halvings of the scale's interval: more than a column's worth of precision for any width.
const HALVINGS: u32 = 32;

impl Axis {
    /// The axis that fills `width` columns, or `None` when even the tightest one is wider.
    pub(super) fn fit(extents: &[Extent], width: usize) -> Option<Self> {
        let fits = |columns: &[usize]| columns.last().is_none_or(|last| *last <= width);
        let Self { times_ns, mut columns } = Self::tightest(extents);
        if !fits(&columns) {
            return None;
        }
        // At scale `width`, a single nanosecond takes the whole width.
        let (mut low, mut high) = (0.0, width as f64);
        for _ in 0..HALVINGS {
            let scale = f64::midpoint(low, high);
            let wider = place(&times_ns, extents, scale);
            if fits(&wider) {
                (low, columns) = (scale, wider);
            } else {
                high = scale;
            }
        }
        Some(Self { times_ns, columns })
    }

    /// The axis without a column to spare.
    pub(super) fn tightest(extents: &[Extent]) -> Self {
        let mut times_ns: Vec<i64> = extents.iter().flat_map(|extent| [extent.start_ns, extent.end_ns]).collect();
        times_ns.sort_unstable();
        times_ns.dedup();
        let columns = place(&times_ns, extents, 0.0);
        Self { times_ns, columns }
    }

    /// The column of one of the times the axis was made from; of another, that of the next.
    pub(super) fn column(&self, time_ns: i64) -> usize {
        let index = self.times_ns.partition_point(|time| *time < time_ns);
        self.columns.get(index).or(self.columns.last()).copied().unwrap_or(0)
    }

    /// The time from the first event to the last.
    pub(super) fn span_ns(&self) -> i64 {
        match (self.times_ns.first(), self.times_ns.last()) {
            (Some(first), Some(last)) => last.saturating_sub(*first),
            _ => 0,
        }
    }
}

/// One sweep over the times: each falls at least a column behind the one before, and far enough behind the start of
/// every box that ends there. `scale` is columns per square root of a nanosecond: the root keeps a wait of milliseconds
/// from squeezing microseconds out of sight, and still shows it as the longer one.
fn place(times_ns: &[i64], extents: &[Extent], scale: f64) -> Vec<usize> {
    let mut columns: Vec<usize> = Vec::with_capacity(times_ns.len());
    let mut before: Option<(i64, usize)> = None;
    for &time in times_ns {
        let mut column = before.map_or(0, |(earlier, column)| {
            let stretch = (time.abs_diff(earlier) as f64).sqrt() * scale;
            column + (stretch as usize).max(1)
        });
        for extent in extents.iter().filter(|extent| extent.end_ns == time) {
            let start = times_ns.partition_point(|earlier| *earlier < extent.start_ns);
            if let Some(start) = columns.get(start) {
                column = column.max(start + extent.columns);
            }
        }
        columns.push(column);
        before = Some((time, column));
    }
    columns
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extents(given: &[(i64, i64, usize)]) -> Vec<Extent> {
        given.iter().map(|&(start_ns, end_ns, columns)| Extent { start_ns, end_ns, columns }).collect()
    }

    #[test]
    fn order_is_exact_labels_fit_and_the_width_is_used() {
        let given = extents(&[(0, 100, 9), (40, 1_000_000, 9), (100, 101, 9), (1_000_000, 1_000_400, 9)]);
        let axis = Axis::fit(&given, 80).unwrap();
        let columns: Vec<_> = [0, 40, 100, 101, 1_000_000, 1_000_400].map(|time| axis.column(time)).into();
        assert!(columns.is_sorted_by(|a, b| a < b), "{columns:?}");
        for extent in &given {
            assert!(axis.column(extent.end_ns) - axis.column(extent.start_ns) >= extent.columns, "{extent:?}");
        }
        assert!((75..=80).contains(columns.last().unwrap()), "{columns:?}");
        assert_eq!(axis.span_ns(), 1_000_400);
    }

    #[test]
    fn what_cannot_fit_is_refused() {
        let given = extents(&[(0, 10, 9), (10, 20, 9)]);
        assert!(Axis::fit(&given, 17).is_none());
        assert_eq!(Axis::fit(&given, 18).unwrap().column(20), 18);
    }

    #[test]
    fn extremes_do_not_overflow() {
        let given = extents(&[(i64::MIN, i64::MAX, 5), (0, 1, 5)]);
        assert_eq!(Axis::fit(&given, 40).unwrap().column(i64::MIN), 0);
        assert_eq!(Axis::fit(&[], 40).unwrap().column(7), 0);
    }
}
