//! The terminal's width, for pictures.

/// The width of pictures where there is no terminal to ask.
const WIDTH_DEFAULT: usize = 100;

/// Beyond this a picture gains nothing.
const WIDTH_MOST: usize = 140;

/// How wide pictures are to be, in columns.
pub(crate) fn width() -> usize {
    terminal_size::terminal_size().map_or(WIDTH_DEFAULT, |(width, _)| usize::from(width.0).min(WIDTH_MOST))
}
