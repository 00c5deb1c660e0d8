//! Line charts as inline SVG. It owns scales, ticks and labels, and refuses to know what is drawn.

use std::fmt::Write as _;

use super::escaped;

/// The drawing's own units; the page scales it to its width.
const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 80.0;
const RIGHT: f64 = 34.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 46.0;

/// Ticks that fit the height without touching; a scale gets at least half as many.
const MAX_TICKS: f64 = 6.0;

/// More points than this lie too close together to be pointed at one by one.
const MAX_POINTED_AT: usize = 120;

/// Colours of the style sheet. Further lines begin again, with dashes.
const COLOURS: usize = 8;

/// Lines drawn in one chart: each colour solid, dashed and dotted. More could not be told apart.
pub(super) const MAX_LINES: usize = COLOURS * 3;

/// A chart of lines.
pub(super) struct Chart<'a> {
    /// What it shows, for those who cannot see it.
    pub(super) title: &'a str,
    pub(super) x: Axis,
    pub(super) y: Axis,
    /// At most [`MAX_LINES`] of them are drawn.
    pub(super) lines: Vec<Line>,
}

/// A linear scale with its ticks.
pub(super) struct Axis {
    label: String,
    high: f64,
    ticks: Vec<(f64, String)>,
}

/// A line, from left to right.
pub(super) struct Line {
    pub(super) name: String,
    pub(super) points: Vec<Point>,
}

/// A point of a line.
pub(super) struct Point {
    pub(super) x: f64,
    /// `None` interrupts the line: nothing was measured there.
    pub(super) y: Option<f64>,
    /// What is shown where it is pointed at.
    pub(super) told: String,
}

impl Axis {
    /// From 0 to the round number at or above `high`, so that the highest value has a tick above it.
    pub(super) fn beyond(label: &str, high: f64) -> Self {
        let high = drawable(high);
        let step = round_step(high);
        Self::from_zero(label, (high / step).ceil() * step)
    }

    /// From 0 to `high`, with round numbers at the ticks.
    pub(super) fn from_zero(label: &str, high: f64) -> Self {
        let high = drawable(high);
        let step = round_step(high);
        // A little more, as a sum of steps may end a hair above the end of the scale.
        let count = (high / step + 1e-9).floor();
        let decimals = usize::from(step < 1.0) + usize::from(step < 0.1) + usize::from(step < 0.01);
        let ticks = (0..=count as u32).map(|tick| {
            let value = f64::from(tick) * step;
            (value, grouped(&format!("{value:.decimals$}")))
        });
        Self { label: label.to_owned(), high, ticks: ticks.collect() }
    }

    /// With its own ticks, from 0 to `high`.
    pub(super) fn with_ticks(label: &str, high: f64, ticks: Vec<(f64, String)>) -> Self {
        Self { label: label.to_owned(), high, ticks }
    }

    /// Where a value lies, from 0 to 1.
    fn place(&self, value: f64) -> f64 {
        if self.high > 0.0 { (value / self.high).clamp(0.0, 1.0) } else { 0.0 }
    }
}

/// Where nothing was measured, an empty scale is drawn.
fn drawable(high: f64) -> f64 {
    if high.is_finite() && high > 0.0 { high } else { 1.0 }
}

/// A step of 1, 2 or 5 times a power of ten that gives at most [`MAX_TICKS`] of them.
fn round_step(high: f64) -> f64 {
    let rough = high / MAX_TICKS;
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0].into_iter().map(|digit| digit * power).find(|step| *step >= rough);
    step.unwrap_or(10.0 * power)
}

/// A plain number with a comma between thousands.
pub(super) fn grouped(number: &str) -> String {
    let (whole, rest) = number.find('.').map_or((number, ""), |point| number.split_at(point));
    let mut out = String::new();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out + rest
}

impl Chart<'_> {
    /// The legend, where lines have names, and the drawing.
    pub(super) fn drawn(&self) -> String {
        let mut out = String::new();
        if self.lines.iter().any(|line| !line.name.is_empty()) {
            out += "<ul class=\"legend\">";
            for (index, line) in self.lines.iter().take(MAX_LINES).enumerate() {
                let (class, name) = (class(index), escaped(&line.name));
                let _ = write!(
                    out,
                    "<li><svg viewBox=\"0 0 32 10\" aria-hidden=\"true\"><path class=\"line {class}\" d=\"M1 5H31\"/></svg>{name}</li>"
                );
            }
            out += "</ul>";
        }
        let title = escaped(self.title);
        let _ = write!(
            out,
            "<div class=\"scroll\"><svg class=\"chart\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\">"
        );
        self.axes(&mut out);
        for (index, line) in self.lines.iter().take(MAX_LINES).enumerate() {
            self.line(&mut out, line, &class(index));
        }
        out + "</svg></div>"
    }

    fn axes(&self, out: &mut String) {
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        for (value, label) in &self.y.ticks {
            let (y, label) = (self.across(0.0, *value).1, escaped(label));
            let _ = write!(
                out,
                "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{right}\"/><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
                LEFT - 8.0,
                y + 4.0
            );
        }
        for (value, label) in &self.x.ticks {
            let (x, label) = (self.across(*value, 0.0).0, escaped(label));
            let _ = write!(
                out,
                "<path class=\"axis\" d=\"M{x:.1} {bottom}v5\"/><text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{label}</text>",
                bottom + 18.0
            );
        }
        let (middle, height) = ((LEFT + right) / 2.0, (TOP + bottom) / 2.0);
        let _ = write!(
            out,
            "<path class=\"axis\" d=\"M{LEFT} {bottom}H{right}\"/><text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">{}</text>\
             <text transform=\"translate(14 {height}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
            HEIGHT - 8.0,
            escaped(&self.x.label),
            escaped(&self.y.label)
        );
    }

    fn line(&self, out: &mut String, line: &Line, class: &str) {
        let mut path = String::new();
        let mut pen = 'M';
        for point in &line.points {
            match point.y {
                Some(y) => {
                    let (x, y) = self.across(point.x, y);
                    let _ = write!(path, "{pen}{x:.1} {y:.1}");
                    pen = 'L';
                }
                None => pen = 'M',
            }
        }
        // A line of one point has no length; a round cap makes it a dot.
        let _ = write!(out, "<path class=\"line {class}\" d=\"{path}\"/>");
        if line.points.len() > MAX_POINTED_AT {
            return;
        }
        for point in &line.points {
            if let Some(y) = point.y {
                let ((x, y), told) = (self.across(point.x, y), escaped(&point.told));
                let _ = write!(
                    out,
                    "<circle class=\"dot\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"5\"><title>{told}</title></circle>"
                );
            }
        }
    }

    /// A point in the drawing's units.
    fn across(&self, x: f64, y: f64) -> (f64, f64) {
        let (width, height) = (WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM);
        (LEFT + self.x.place(x) * width, TOP + (1.0 - self.y.place(y)) * height)
    }
}

fn class(index: usize) -> String {
    format!("s{} d{}", index % COLOURS, index / COLOURS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(high: f64) -> Vec<String> {
        Axis::beyond("", high).ticks.into_iter().map(|(_, label)| label).collect()
    }

    #[test]
    fn ticks_are_round_and_reach_the_highest_value() {
        assert_eq!(labels(9_800.0), ["0", "2,000", "4,000", "6,000", "8,000", "10,000"]);
        assert_eq!(labels(0.25), ["0.00", "0.05", "0.10", "0.15", "0.20", "0.25"]);
        assert_eq!(labels(6.0), ["0", "1", "2", "3", "4", "5", "6"]);
        let cut = Axis::from_zero("", 31.0);
        assert_eq!((cut.ticks.len(), cut.ticks[3].1.as_str(), cut.place(31.0)), (4, "30", 1.0));
        for high in [0.0, f64::NAN, f64::INFINITY, -1.0] {
            assert_eq!(labels(high), labels(1.0), "{high}");
        }
    }

    #[test]
    fn thousands_are_told_apart() {
        let cases = [("0", "0"), ("999", "999"), ("1000", "1,000"), ("1234567.25", "1,234,567.25")];
        for (plain, expected) in cases {
            assert_eq!(grouped(plain), expected);
        }
    }

    #[test]
    fn a_gap_in_the_measurements_is_a_gap_in_the_line() {
        let point = |x, y| Point { x, y, told: format!("{x}") };
        let points = vec![point(0.0, Some(0.0)), point(1.0, Some(1.0)), point(2.0, None), point(3.0, Some(1.0))];
        let lines = vec![Line { name: String::new(), points }];
        let (x, y) = (Axis::from_zero("s", 3.0), Axis::from_zero("ms", 1.0));
        let drawn = Chart { title: "\"quoted\"", x, y, lines }.drawn();
        assert!(drawn.contains("d=\"M80.0 254.0L282.0 14.0M686.0 14.0\""), "{drawn}");
        assert_eq!(drawn.matches("<circle").count(), 3);
        assert!(drawn.contains("aria-label=\"&quot;quoted&quot;\"") && !drawn.contains("legend"), "{drawn}");
    }

    #[test]
    fn lines_beyond_those_that_can_be_told_apart_are_not_drawn() {
        let line = |name: usize| Line { name: format!("<{name}>"), points: vec![] };
        let (x, y) = (Axis::from_zero("", 1.0), Axis::from_zero("", 1.0));
        let drawn = Chart { title: "", x, y, lines: (0..MAX_LINES + 3).map(line).collect() }.drawn();
        assert_eq!(drawn.matches("<li>").count(), MAX_LINES);
        assert!(drawn.contains("&lt;3&gt;") && drawn.contains("s7 d2"), "{drawn}");
    }
}
