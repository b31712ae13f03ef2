//! A stream of chat completion chunks as servers send them, and its reads.

use bytes::Bytes;
use std::ops::Range;

/// Words of several scripts, with what JSON has to escape.
const WORDS: [&str; 16] = [
    " the",
    " of",
    "ing",
    " answer",
    ",",
    ".\\n\\n",
    " 你好",
    "世界",
    " مرحبا",
    " привет",
    " \\\"quoted\\\"",
    " 😀",
    " नमस्ते",
    " `code`",
    " 12",
    " über",
];

/// A small generator of numbers that look random: the same stream on every machine.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % below as u64) as usize
    }
}

/// The bytes of `count` events: answers of some hundred chunks, each with its first and last chunks and its marker.
pub fn chat(count: usize, seed: u64) -> (Vec<u8>, usize) {
    let mut numbers = Numbers(seed);
    let (mut out, mut answer, mut left) = (Vec::new(), 0, 0);
    for _ in 0..count {
        if left == 0 {
            answer += 1;
            left = 200 + numbers.next(400);
        }
        left -= 1;
        let delta = match left {
            0 => {
                out.extend_from_slice(b"data: [DONE]\n\n");
                continue;
            }
            1 => "{}".to_owned(),
            _ => format!("{{\"content\":\"{}\"}}", WORDS[numbers.next(WORDS.len())]),
        };
        let finish = if left == 1 { "\"stop\"" } else { "null" };
        let event = format!(
            "data: {{\"id\":\"chatcmpl-{answer:029}\",\"object\":\"chat.completion.chunk\",\"created\":1760000000,\
             \"model\":\"some-model-2026-08-01\",\"service_tier\":\"default\",\"system_fingerprint\":\"fp_44709d6fcb\",\
             \"choices\":[{{\"index\":0,\"delta\":{delta},\"logprobs\":null,\"finish_reason\":{finish}}}],\"usage\":null}}\n\n"
        );
        out.extend_from_slice(event.as_bytes());
    }
    (out, count)
}

/// The bytes in reads of these sizes.
pub fn cut(bytes: &[u8], sizes: Range<usize>, seed: u64) -> Vec<Bytes> {
    let mut numbers = Numbers(seed);
    let (mut reads, mut rest) = (Vec::new(), bytes);
    while !rest.is_empty() {
        let size = (sizes.start + numbers.next(sizes.len())).min(rest.len());
        reads.push(Bytes::copy_from_slice(&rest[..size]));
        rest = &rest[size..];
    }
    reads
}
