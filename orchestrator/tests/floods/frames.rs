//! HTTP/2, written by hand, so that it can be written wrong.

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// The setting that says how much of each answer may be sent unasked.
pub const INITIAL_WINDOW_SIZE: u16 = 4;

/// GET / as HPACK writes it with its static table.
pub const GET: &[u8] = &[0x82, 0x84, 0x86];

/// One frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// What a connection begins with, with these settings.
pub fn hello(settings: &[(u16, u32)]) -> Vec<u8> {
    let entry = |(key, value): &(u16, u32)| [&key.to_be_bytes()[..], &value.to_be_bytes()].concat();
    let settings: Vec<u8> = settings.iter().flat_map(entry).collect();
    [PREFACE, &frame(SETTINGS, 0, 0, &settings)].concat()
}

/// A header as HPACK writes it without any table.
pub fn header(name: &str, value: &str) -> Vec<u8> {
    let mut header = vec![0];
    for text in [name, value] {
        // A length of up to 126 fits into one byte; beyond it, the rest follows in groups of seven bits.
        match text.len() {
            length @ 0..127 => header.push(length as u8),
            length => {
                header.push(127);
                let mut rest = length - 127;
                while rest > 127 {
                    header.push((rest % 128 + 128) as u8);
                    rest /= 128;
                }
                header.push(rest as u8);
            }
        }
        header.extend(text.as_bytes());
    }
    header
}

/// The stream with this number, counted from 0, as a client numbers them.
pub fn stream(number: u32) -> u32 {
    2 * number + 1
}
