//! Content encodings: every split, each event at once, and no bomb.
#![allow(clippy::unwrap_used, clippy::expect_used)] // clippy.toml allows them only inside of #[test]

use flate2::write::{GzEncoder, ZlibEncoder};
use flate2::Compression;
use sluicegate_core::upstream::decoding::Decoder;
use sluicegate_core::Error;
use std::borrow::Cow;
use std::io::Write;

const CODINGS: [&str; 4] = ["gzip", "deflate", "br", "zstd"];
const EVENTS: [&str; 3] = [
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Grüße\"}}]}\n\n",
    "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n",
    "data: [DONE]\n\n",
];
/// What may come out whatever went in, and the ratio beyond it.
const FREE: usize = 1024 * 1024;
const RATIO: usize = 100;

/// Writes brotli by hand (RFC 7932, section 9): no encoder is among the dependencies.
#[derive(Default)]
struct BrotliBits {
    out: Vec<u8>,
    used: u32,
}

impl BrotliBits {
    fn start() -> Self {
        let mut bits = BrotliBits::default();
        bits.put(0b1011, 4); // WBITS 22
        bits
    }

    fn put(&mut self, value: u64, count: u32) {
        for n in 0..count {
            if self.used == 0 {
                self.out.push(0);
            }
            *self.out.last_mut().unwrap() |= ((value >> n & 1) as u8) << self.used;
            self.used = (self.used + 1) % 8;
        }
    }

    fn stored(&mut self, data: &[u8]) {
        self.put(0, 1); // not the last
        self.put(0, 2); // four nibbles of length
        self.put(data.len() as u64 - 1, 16);
        self.put(1, 1); // uncompressed
        self.used = 0; // padding
        self.out.extend_from_slice(data);
    }

    /// `length` times one letter, in a few bytes: six of it, then a copy of the rest.
    fn run(&mut self, letter: u8, length: u64) {
        self.put(0, 1); // not the last
                        // Five or six nibbles of length: the highest one must not be zero.
        let nibbles = if length > 1 << 20 { 6 } else { 5 };
        self.put(u64::from(nibbles) - 4, 2);
        self.put(length - 1, nibbles * 4);
        self.put(0, 1); // compressed
        self.put(0, 3); // one block type for literals, commands and distances
        self.put(0, 6); // NPOSTFIX, NDIRECT
        self.put(0, 2); // context mode
        self.put(0, 2); // one tree for literals, one for distances
        for (symbol, width) in [(u64::from(letter), 8), (439, 10), (0, 6)] {
            self.put(1, 2); // a simple prefix code
            self.put(0, 2); // of one symbol, which then takes no bits
            self.put(symbol, width);
        }
        // Command 439: insert 6 and one bit, copy 2118 and 24 bits, from the last distance (4).
        self.put(0, 1);
        self.put(length - 6 - 2118, 24);
    }

    fn finish(mut self) -> Vec<u8> {
        self.put(0b11, 2); // last, empty
        self.out
    }
}

/// The events compressed, each flushed: the bytes of each, and those of the end.
fn flushed(coding: &str, events: &[&str]) -> Vec<Vec<u8>> {
    fn through<W: Write>(
        mut encoder: W,
        events: &[&str],
        written: fn(&W) -> &Vec<u8>,
        finish: fn(W) -> Vec<u8>,
    ) -> Vec<Vec<u8>> {
        let (mut parts, mut at) = (Vec::new(), 0);
        for event in events {
            encoder.write_all(event.as_bytes()).unwrap();
            encoder.flush().unwrap();
            parts.push(written(&encoder)[at..].to_vec());
            at = written(&encoder).len();
        }
        parts.push(finish(encoder)[at..].to_vec());
        parts
    }
    match coding {
        "gzip" => through(
            GzEncoder::new(Vec::new(), Compression::default()),
            events,
            |e| e.get_ref(),
            |e| e.finish().unwrap(),
        ),
        "deflate" => through(
            ZlibEncoder::new(Vec::new(), Compression::default()),
            events,
            |e| e.get_ref(),
            |e| e.finish().unwrap(),
        ),
        "zstd" => through(
            zstd::stream::write::Encoder::new(Vec::new(), 3).unwrap(),
            events,
            |e| e.get_ref(),
            |e| e.finish().unwrap(),
        ),
        "br" => {
            let mut bits = BrotliBits::start();
            let (mut parts, mut at) = (Vec::new(), 0);
            for event in events {
                bits.stored(event.as_bytes());
                parts.push(bits.out[at..].to_vec());
                at = bits.out.len();
            }
            parts.push(bits.finish()[at..].to_vec());
            parts
        }
        other => panic!("{other}"),
    }
}

fn compressed(coding: &str) -> Vec<u8> {
    flushed(coding, &EVENTS).concat()
}

fn decoder(coding: &str) -> Decoder {
    Decoder::new(Some(coding)).unwrap_or_else(|e| panic!("{coding}: {e}"))
}

/// What came out until the end or the refusal.
fn decode<'a>(coding: &str, pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<u8>, usize, Option<Error>) {
    let (mut decoder, mut out, mut read) = (decoder(coding), Vec::new(), 0);
    for piece in pieces {
        read += piece.len();
        match decoder.decode(piece) {
            Ok(decoded) => out.extend_from_slice(&decoded),
            Err(error) => return (out, read, Some(error)),
        }
    }
    (out, read, None)
}

#[test]
fn every_split_gives_the_same_text() {
    let text = EVENTS.concat().into_bytes();
    for coding in CODINGS {
        let data = compressed(coding);
        for at in 0..=data.len() {
            let (a, b) = data.split_at(at);
            assert_eq!(decode(coding, [a, b]), (text.clone(), data.len(), None), "{coding} split at {at}");
        }
        assert_eq!(decode(coding, data.chunks(1)), (text.clone(), data.len(), None), "{coding} byte by byte");
    }
}

#[test]
fn names_are_read_as_http_means_them() {
    let text = EVENTS.concat().into_bytes();
    for (name, coding) in
        [("x-gzip", "gzip"), (" GZip ", "gzip"), ("BR", "br"), ("Deflate", "deflate"), ("ZSTD", "zstd")]
    {
        assert_eq!(decode(name, [&compressed(coding)[..]]).0, text, "{name:?}");
    }
    for name in [None, Some(""), Some(" "), Some("identity"), Some("Identity")] {
        let mut identity = Decoder::new(name).unwrap_or_else(|e| panic!("{name:?}: {e}"));
        assert!(matches!(identity.decode(&[0xff, 0x00]), Ok(Cow::Borrowed([0xff, 0x00]))), "{name:?}");
        assert_eq!(identity.finish(), Ok(()), "{name:?}");
    }
}

#[test]
fn two_layers_and_unknown_names_are_refused() {
    for (name, reason) in [
        ("gzip, br", "more than one layer"),
        ("gzip,gzip", "more than one layer"),
        ("identity, gzip", "more than one layer"),
        ("compress", "unknown name"),
        ("gzip br", "unknown name"),
        ("aes128gcm", "unknown name"),
    ] {
        assert_eq!(Decoder::new(Some(name)).err(), Some(Error::Encoding(reason)), "{name:?}");
    }
}

#[test]
fn an_event_is_there_right_after_its_flush() {
    for coding in CODINGS {
        let mut decoder = decoder(coding);
        let parts = flushed(coding, &EVENTS);
        for (event, part) in EVENTS.iter().zip(&parts) {
            let decoded = decoder.decode(part).unwrap();
            assert_eq!(str::from_utf8(&decoded).unwrap(), *event, "{coding}");
        }
        assert_eq!(decoder.decode(&parts[EVENTS.len()]).unwrap(), &b""[..], "{coding}: the end holds no text");
        assert_eq!(decoder.finish(), Ok(()), "{coding}");
    }
}

#[test]
fn a_cut_or_falsified_end_is_an_error() {
    let damaged = Err(Error::Encoding("the compressed data is damaged"));
    for coding in ["gzip", "deflate", "br"] {
        let data = compressed(coding);
        let mut cut = decoder(coding);
        let _ = cut.decode(&data[..data.len() - 1]).unwrap();
        assert_eq!(cut.finish(), damaged, "{coding}: cut");
    }
    // gzip ends with a checksum and a length, of 4 bytes each.
    let mut data = compressed("gzip");
    let checksum = data.len() - 8;
    data[checksum] ^= 1;
    let mut falsified = decoder("gzip");
    let ended = falsified.decode(&data).map(|_| ()).and_then(|()| falsified.finish());
    assert_eq!(ended, damaged);
}

fn bomb(coding: &str, length: usize) -> Vec<u8> {
    let zeros = vec![0u8; length];
    match coding {
        "gzip" => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
            encoder.write_all(&zeros).unwrap();
            encoder.finish().unwrap()
        }
        "deflate" => {
            let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
            encoder.write_all(&zeros).unwrap();
            encoder.finish().unwrap()
        }
        "zstd" => zstd::stream::encode_all(&zeros[..], 3).unwrap(),
        "br" => {
            let mut bits = BrotliBits::start();
            bits.run(0, length as u64);
            bits.finish()
        }
        other => panic!("{other}"),
    }
}

#[test]
fn a_bomb_is_refused_before_it_is_large() {
    for coding in CODINGS {
        let data = bomb(coding, 16 * FREE);
        for step in [1, 7, 1000, data.len()] {
            let (out, read, error) = decode(coding, data.chunks(step));
            assert_eq!(error, Some(Error::Encoding("it inflates more than 100 times")), "{coding} in steps of {step}");
            assert!(out.len() <= FREE.max(read * RATIO), "{coding}: {} bytes out of {read}", out.len());
        }
    }
}

#[test]
fn a_small_answer_may_inflate_as_it_likes() {
    for coding in CODINGS {
        let data = bomb(coding, FREE);
        assert!(data.len() * RATIO < FREE, "{coding}: {} bytes are beyond the ratio", data.len());
        let (out, _, error) = decode(coding, [&data[..]]);
        assert_eq!((out.len(), error), (FREE, None), "{coding}");
        assert!(out.iter().all(|b| *b == 0), "{coding}");
    }
}

#[test]
fn a_long_answer_within_the_ratio_passes() {
    // Numbers do not repeat: about 4 to 1, far beyond FREE.
    let text: String = (0..400_000u32).map(|n| format!("{} ", n.wrapping_mul(2_654_435_761))).collect();
    assert!(text.len() > 3 * FREE);
    for coding in ["gzip", "deflate", "zstd"] {
        let data = flushed(coding, &[&text]).concat();
        let (out, _, error) = decode(coding, data.chunks(8192));
        assert_eq!(error, None, "{coding}");
        assert!(out == text.as_bytes(), "{coding}: another text came out");
    }
}

#[test]
fn damaged_data_is_refused() {
    for coding in CODINGS {
        let (out, _, error) = decode(coding, [&b"this was never compressed: {\"a\":1}"[..]]);
        assert_eq!(error, Some(Error::Encoding("the compressed data is damaged")), "{coding}");
        assert!(out.is_empty(), "{coding}");
    }
    // A wrong checksum at the end of a zlib stream, where it is read at once.
    let mut data = compressed("deflate");
    *data.last_mut().unwrap() ^= 0xff;
    assert_eq!(decode("deflate", [&data[..]]).2, Some(Error::Encoding("the compressed data is damaged")));
}

#[test]
fn any_damaged_byte_ends_in_text_or_an_error_of_encoding() {
    for coding in CODINGS {
        let data = compressed(coding);
        for at in 0..data.len() {
            let mut damaged = data.clone();
            damaged[at] ^= 0x55;
            let (out, _, error) = decode(coding, damaged.chunks(16));
            assert!(out.len() <= FREE, "{coding} at {at}");
            assert!(matches!(error, None | Some(Error::Encoding(_))), "{coding} at {at}: {error:?}");
        }
    }
}

#[test]
fn a_window_beyond_eight_mebibytes_is_refused() {
    use zstd::stream::raw::CParameter;
    for (log, fits) in [(23, true), (24, false), (27, false)] {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        encoder.set_parameter(CParameter::WindowLog(log)).unwrap();
        encoder.write_all(EVENTS[0].as_bytes()).unwrap();
        encoder.flush().unwrap();
        let (out, _, error) = decode("zstd", [&encoder.get_ref()[..]]);
        let expected = if fits { None } else { Some(Error::Encoding("the compressed data is damaged")) };
        assert_eq!(error, expected, "2^{log}");
        assert_eq!(out == EVENTS[0].as_bytes(), fits, "2^{log}");
    }
}
