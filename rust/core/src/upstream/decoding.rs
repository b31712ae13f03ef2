//! Content encodings, for upstreams that compress although `identity` was asked: one layer, bounded in ratio.

use crate::Error;
use std::borrow::Cow;
use std::io::{self, Write};

/// Inflating beyond this ratio (and `FREE` bytes) is taken for a bomb.
const RATIO: u64 = 100;
/// Small answers may inflate as they like: a repeated sentence easily beats the ratio.
const FREE: u64 = 1024 * 1024;

/// Decodes a body piece by piece; without an encoding the bytes stay where they are.
pub struct Decoder(Option<Box<dyn Layer>>);

/// One of the compressions, writing into a `Sink`.
trait Layer: Write + Send {
    fn sink(&mut self) -> &mut Sink;
    /// The end of the body: checks what the format has to check there.
    fn finish(&mut self) -> io::Result<()>;
}

impl Layer for flate2::write::MultiGzDecoder<Sink> {
    fn sink(&mut self) -> &mut Sink {
        self.get_mut()
    }
    fn finish(&mut self) -> io::Result<()> {
        self.try_finish()
    }
}

impl Layer for flate2::write::ZlibDecoder<Sink> {
    fn sink(&mut self) -> &mut Sink {
        self.get_mut()
    }
    fn finish(&mut self) -> io::Result<()> {
        self.try_finish()
    }
}

impl Layer for brotli_decompressor::DecompressorWriter<Sink> {
    fn sink(&mut self) -> &mut Sink {
        self.get_mut()
    }
    fn finish(&mut self) -> io::Result<()> {
        self.close()
    }
}

impl Layer for zstd::stream::write::Decoder<'static, Sink> {
    fn sink(&mut self) -> &mut Sink {
        self.get_mut()
    }
    // A zstd frame checks itself while it is read; a cut one leaves cut text, which the reader of the answer refuses.
    fn finish(&mut self) -> io::Result<()> {
        Ok(())
    }
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
        let layer: Box<dyn Layer> = match name.as_str() {
            "" | "identity" => return Ok(Decoder(None)),
            "gzip" | "x-gzip" => Box::new(flate2::write::MultiGzDecoder::new(Sink::default())),
            "deflate" => Box::new(flate2::write::ZlibDecoder::new(Sink::default())),
            // 4 KiB: the size of the buffer between decoder and sink, not of the window.
            "br" => Box::new(brotli_decompressor::DecompressorWriter::new(Sink::default(), 4096)),
            "zstd" => Box::new(zstd_decoder()?),
            _ if name.contains(',') => return Err(Error::Encoding("more than one layer")),
            _ => return Err(Error::Encoding("unknown name")),
        };
        Ok(Decoder(Some(layer)))
    }

    /// Decodes what came, and hands out all that is known by now: an event must not wait for the next read.
    pub fn decode<'a>(&mut self, data: &'a [u8]) -> Result<Cow<'a, [u8]>, Error> {
        let Some(layer) = &mut self.0 else { return Ok(Cow::Borrowed(data)) };
        layer.sink().read += data.len() as u64;
        layer.write_all(data).and_then(|()| layer.flush()).map_err(refused)?;
        Ok(Cow::Owned(std::mem::take(&mut layer.sink().out)))
    }

    /// The body is over: damaged or cut data is an error also where all of it could be decoded.
    pub fn finish(&mut self) -> Result<(), Error> {
        self.0.as_mut().map_or(Ok(()), |layer| layer.finish().map_err(refused))
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
