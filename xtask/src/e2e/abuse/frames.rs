//! What breaks the rules of HTTP/2, as bytes: no library would send it.

/// What every connection begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// How much of a head follows in pieces that never end.
const CONTINUATIONS: usize = 1_000;
/// Calls taken back on one connection: many times what the server puts up with unseen.
const RESETS: u32 = 500;
/// The code by which a caller takes a call back.
const CANCEL: [u8; 4] = [0, 0, 0, 8];

/// Each breaks a rule for which the connection has to go.
pub(super) fn violations() -> Vec<(&'static str, Vec<u8>)> {
    let begun = |frames: &[Vec<u8>]| [greeting(), frames.concat()].concat();
    let endless = || vec![frame(CONTINUATION, 0, 1, &literal("x-more", &"x".repeat(120)).repeat(100)); CONTINUATIONS];
    vec![
        ("no preface at all", (0..4096_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect()),
        ("data on no stream", begun(&[frame(DATA, 0, 0, b"nobody's")])),
        ("a frame of 16 MB", begun(&[vec![0xff, 0xff, 0xff, DATA, 0, 0, 0, 0, 1]])),
        ("a head that cannot be unpacked", begun(&[frame(HEADERS, END_HEADERS, 1, &[0x80])])),
        ("a stream of the server's own", begun(&[frame(HEADERS, END_HEADERS, 2, &head())])),
        ("settings of a wrong size", begun(&[frame(SETTINGS, 0, 0, &[0; 5])])),
        ("a window grown by nothing", begun(&[frame(WINDOW_UPDATE, 0, 0, &[0; 4])])),
        ("a promise by the caller", begun(&[frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2])])),
        ("a head without end", begun(&[vec![frame(HEADERS, 0, 1, &head())], endless()].concat())),
    ]
}

/// Calls that are taken back as soon as they are made.
pub(super) fn rapid_resets() -> Vec<u8> {
    let calls = (0..RESETS).map(|number| 2 * number + 1);
    let frames = calls.flat_map(|id| [frame(HEADERS, END_HEADERS, id, &head()), frame(RST_STREAM, 0, id, &CANCEL)]);
    greeting().into_iter().chain(frames.flatten()).collect()
}

/// Beginnings after which nothing comes: first those that do not say what they want.
pub(super) fn beginnings() -> ([Vec<u8>; 2], [Vec<u8>; 2]) {
    let half_a_head = frame(HEADERS, END_STREAM, 1, &head());
    ([Vec::new(), PREFACE[..PREFACE.len() / 2].to_vec()], [greeting(), [greeting(), half_a_head].concat()])
}

fn greeting() -> Vec<u8> {
    [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The head of a GetBalance, packed as plainly as can be.
fn head() -> Vec<u8> {
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/zbl.v1.AccountService/GetBalance"),
        (":authority", "abuse"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    fields.into_iter().flat_map(|(name, value)| literal(name, value)).collect()
}

/// A field with both texts written out, each shorter than 127 bytes.
fn literal(name: &str, value: &str) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap_or(126)], text.as_bytes()].concat();
    [vec![0], text(name), text(value)].concat()
}
