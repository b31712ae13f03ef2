//! Content encodings, for upstreams that compress although `identity` was asked: one layer, bounded in ratio.

use crate::Error;
use std::io::{self, Write};

/// Inflating beyond this ratio (and `FREE` bytes) is taken for a bomb.
const RATIO: u64 = 100;
/// Small answers may inflate as they like: a repeated sentence easily beats the ratio.
const FREE: u64 = 1024 * 1024;

/// Decodes a body piece by piece; `Identity` costs nothing.
pub enum Decoder {
    /// As it came.
    Identity,
    /// gzip
    Gzip(Box<flate2::write::MultiGzDecoder<Sink>>),
    /// deflate (zlib)
    Deflate(Box<flate2::write::ZlibDecoder<Sink>>),
    /// br
    Brotli(Box<brotli_decompressor::DecompressorWriter<Sink>>),
    /// zstd
    Zstd(Box<zstd::stream::write::Decoder<'static, Sink>>),
}

/// Where decoders write; refuses to grow beyond the ratio.
#[derive(Default)]
pub struct Sink {
    out: Vec<u8>,
    read: u64,
    written: u64,
}

impl Write for Sink {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.written += data.len() as u64;
        if self.written > FREE.max(self.read.saturating_mul(RATIO)) {
            return Err(io::Error::other("ratio"));
        }
        self.out.extend_from_slice(data);
        Ok(data.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Decoder {
    /// For a `Content-Encoding` header; several layers and unknown names are refused.
    pub fn new(encoding: Option<&str>) -> Result<Self, Error> {
        let name = encoding.unwrap_or("").trim().to_ascii_lowercase();
        Ok(match name.as_str() {
            "" | "identity" => Decoder::Identity,
            "gzip" | "x-gzip" => Decoder::Gzip(Box::new(flate2::write::MultiGzDecoder::new(Sink::default()))),
            "deflate" => Decoder::Deflate(Box::new(flate2::write::ZlibDecoder::new(Sink::default()))),
            // 4 KiB: the size of the buffer between decoder and sink, not of the window.
            "br" => Decoder::Brotli(Box::new(brotli_decompressor::DecompressorWriter::new(Sink::default(), 4096))),
            "zstd" => Decoder::Zstd(Box::new(zstd_decoder()?)),
            _ if name.contains(',') => return Err(Error::Encoding("more than one layer")),
            _ => return Err(Error::Encoding("unknown name")),
        })
    }

    /// Decodes what came, and hands out all that is known by now: an event must not wait for the next read.
    pub fn decode(&mut self, data: &[u8]) -> Result<Vec<u8>, Error> {
        fn feed<W: Write>(decoder: &mut W, data: &[u8]) -> Result<(), Error> {
            decoder.write_all(data).and_then(|()| decoder.flush()).map_err(refused)
        }
        match self {
            Decoder::Identity => return Ok(data.to_vec()),
            Decoder::Gzip(d) => {
                d.get_mut().read += data.len() as u64;
                feed(d, data)?;
            }
            Decoder::Deflate(d) => {
                d.get_mut().read += data.len() as u64;
                feed(d, data)?;
            }
            Decoder::Brotli(d) => {
                d.get_mut().read += data.len() as u64;
                feed(d, data)?;
            }
            Decoder::Zstd(d) => {
                d.get_mut().read += data.len() as u64;
                feed(d, data)?;
            }
        }
        Ok(std::mem::take(&mut self.sink().out))
    }

    /// Nothing to decode: the bytes may be used as they are.
    pub fn is_identity(&self) -> bool {
        matches!(self, Decoder::Identity)
    }

    fn sink(&mut self) -> &mut Sink {
        match self {
            Decoder::Gzip(d) => d.get_mut(),
            Decoder::Deflate(d) => d.get_mut(),
            Decoder::Brotli(d) => d.get_mut(),
            Decoder::Zstd(d) => d.get_mut(),
            Decoder::Identity => unreachable!("identity has no sink: decode() returned before"),
        }
    }
}

fn zstd_decoder() -> Result<zstd::stream::write::Decoder<'static, Sink>, Error> {
    let mut decoder = zstd::stream::write::Decoder::new(Sink::default()).map_err(refused)?;
    // 8 MiB of window at most (2^23): the sender chooses it, we pay for it.
    decoder.window_log_max(23).map_err(refused)?;
    Ok(decoder)
}

fn refused(e: io::Error) -> Error {
    Error::Encoding(if e.to_string() == "ratio" {
        "it inflates more than 100 times"
    } else {
        "the compressed data is damaged"
    })
}
