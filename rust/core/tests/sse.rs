//! The SSE decoder against the web platform tests (`eventsource/format-*`), at any split, and against its encoder.
#![allow(clippy::expect_used)] // in the helpers of tests, too

use proptest::prelude::*;
use sluicegate_core::chat::answer::is_event_stream;
use sluicegate_core::error::Error;
use sluicegate_core::sse::decode::{Decoder, Message, TooLarge};
use sluicegate_core::sse::encode;

const LIMIT: usize = 1 << 20;

/// All events of these reads, each with its raw bytes.
fn decode<'a>(reads: impl IntoIterator<Item = &'a [u8]>) -> Vec<(Message, Vec<u8>)> {
    let mut decoder = Decoder::new(LIMIT);
    let mut found = Vec::new();
    for read in reads {
        let mut events = decoder.push(read);
        while let Some(event) = events.next().expect("within the limit") {
            if let Some(at) = event.data_at {
                assert_eq!(&event.raw[at..at + event.data.len()], event.data);
            }
            let mut raw = Vec::new();
            event.write_raw(&mut raw);
            found.push((event.message(), raw));
        }
    }
    found
}

fn messages(text: &[u8]) -> Vec<Message> {
    decode([text]).into_iter().map(|(message, _)| message).collect()
}

fn data(text: &str) -> Vec<String> {
    messages(text.as_bytes()).into_iter().map(|message| message.data).collect()
}

// What the tests of the platform call `message.py?message=...`: it adds an empty line, `newline=none` does not.

#[test]
fn format_bom() {
    assert_eq!(data("\u{feff}data:1\n\n\u{feff}data:2\n\ndata:3\n\n"), ["1", "3"]);
}

#[test]
fn format_bom_2() {
    assert_eq!(data("\u{feff}\u{feff}data:1\n\ndata:2\n\ndata:3\n\n"), ["2", "3"]);
}

#[test]
fn the_beginning_of_a_bom_is_no_bom() {
    for start in [&b"\xEF"[..], b"\xEF\xBB", b"\xEF\xBB\xEF\xBB\xBF"] {
        let text = [start, b"data: not a field\n\ndata: two\n\n"].concat();
        let found: Vec<_> = messages(&text).into_iter().map(|message| message.data).collect();
        assert_eq!(found, ["two"], "{start:?}");
    }
}

#[test]
fn format_comments() {
    let long = "x".repeat(2 * 1024 + 1);
    let text = format!("data:1\r:\0\n:\r\ndata:2\n:{long}\rdata:3\n:data:fail\r:{long}\ndata:4\n\n");
    assert_eq!(data(&text), ["1\n2\n3\n4"]);
}

#[test]
fn format_data_before_final_empty_line() {
    let found = messages(b"retry:1000\ndata:test1\n\nid:test\ndata:test2");
    assert_eq!(
        found,
        [Message { event: "message".into(), data: "test1".into(), id: String::new(), retry: Some(1000) }]
    );
}

#[test]
fn format_field_data() {
    assert_eq!(data("data:\n\ndata\ndata\n\ndata:test\n\n"), ["", "\n", "test"]);
}

#[test]
fn format_field_event() {
    let found = messages(b"event:test\ndata:x\n\ndata:x\n\n");
    let types: Vec<_> = found.iter().map(|message| (message.event.as_str(), message.data.as_str())).collect();
    assert_eq!(types, [("test", "x"), ("message", "x")]);
}

#[test]
fn format_field_event_empty() {
    let found = messages(b"event: \ndata:data\n\n");
    assert_eq!((found[0].event.as_str(), found[0].data.as_str(), found.len()), ("message", "data", 1));
    let found = messages(b"event: one\nevent\ndata:data\n\n");
    assert_eq!(found[0].event, "message", "the last event field counts, also an empty one");
}

#[test]
fn format_field_id() {
    let found = messages("id: …\ndata: 1\n\ndata: 2\n\nid\ndata: 3\n\n".as_bytes());
    let ids: Vec<_> = found.iter().map(|message| message.id.as_str()).collect();
    assert_eq!(ids, ["…", "…", ""], "an id stays until another comes");
    let found = messages(b"id: 1\n\ndata: 1\n\nid: 2\n");
    assert_eq!(found[0].id, "1", "an id without data counts once its block is complete");
}

#[test]
fn format_field_id_null() {
    for bad in ["\0", "x\0", "\0x", "x\0x", " \0"] {
        let found = messages(format!("id: kept\ndata: 1\n\nid: {bad}\ndata: 2\n\n").as_bytes());
        assert_eq!(found[1].id, "kept", "{bad:?}");
    }
}

#[test]
fn format_field_retry() {
    let mut decoder = Decoder::new(LIMIT);
    let mut events = decoder.push(b"retry:03000\ndata:x\n\n");
    assert_eq!(events.next().expect("small").expect("one").retry, Some(3000));
    assert_eq!(decoder.retry(), Some(3000));
}

#[test]
fn format_field_retry_bogus() {
    let found = messages(b"retry:3000\nretry:1000x\ndata:x\n\n");
    assert_eq!(found[0].retry, Some(3000));
    for bogus in ["-1", "1.5", " 1", "+1", "1e3", "\u{664}"] {
        assert_eq!(messages(format!("retry: {bogus}\ndata\n\n").as_bytes())[0].retry, None, "{bogus:?}");
    }
    let huge = messages(b"retry:99999999999999999999999999\ndata\n\n");
    assert_eq!(huge[0].retry, Some(u64::MAX));
}

#[test]
fn format_field_retry_empty() {
    let found = messages(b"retry\ndata:test\n\n");
    assert_eq!((found[0].retry, found[0].data.as_str()), (None, "test"));
}

#[test]
fn format_field_unknown() {
    assert_eq!(
        data("data:test\n data\ndata\nfoobar:xxx\njustsometext\n:thisisacommentyay\ndata:test\n\n"),
        ["test\n\ntest"]
    );
}

#[test]
fn format_field_parsing() {
    let text =
        "data:\0\ndata:  2\rData:1\ndata\0:2\ndata:1\r\0data:4\nda-ta:3\rdata_5\ndata:3\rdata:\r\n data:32\ndata:4\n\n";
    assert_eq!(data(text), ["\0\n 2\n1\n3\n\n4"]);
}

#[test]
fn format_leading_space() {
    assert_eq!(data("data:\ttest\rdata: \ndata:test\n\n"), ["\ttest\n\ntest"]);
}

#[test]
fn format_mime() {
    let accepted = [
        "text/event-stream",
        "text/event-stream;",
        "text/event-stream; charset=windows-1252",
        "Text/Event-Stream ; x=bogus",
    ];
    assert!(accepted.into_iter().all(is_event_stream));
    let refused = [
        "x bogus",
        "",
        "text/event-stream-x",
        "text/html",
        "xtext/event-stream",
        "text/x-event-stream;text/event-stream",
    ];
    assert!(!refused.into_iter().any(is_event_stream));
}

#[test]
fn format_newlines() {
    assert_eq!(data("data:test\r\ndata\ndata:test\r\n\r"), ["test\n\ntest"]);
    assert_eq!(
        data("data:1\r\rdata:2\n\ndata:3\r\n\r\ndata:4\n\rdata:5\r\n\ndata:6\r\r\n"),
        ["1", "2", "3", "4", "5", "6"]
    );
}

#[test]
fn format_null_character() {
    assert_eq!(data("data:\0\n\n\n\n"), ["\0"]);
}

#[test]
fn format_utf_8() {
    assert_eq!(data("data:ok…\n\n"), ["ok…"]);
    assert_eq!(messages(b"data:ok\xff\xe2\x80\n\n")[0].data, "ok\u{fffd}\u{fffd}", "only the owned text is repaired");
    let mut decoder = Decoder::new(LIMIT);
    let mut events = decoder.push(b"data:ok\xff\n\n");
    assert_eq!(events.next().expect("small").expect("one").data, b"ok\xff");
}

#[test]
fn raw_bytes_of_each_event() {
    let raw = |text: &[u8]| -> Vec<Vec<u8>> { decode([text]).into_iter().map(|(_, raw)| raw).collect() };
    let (crlf, cr) = (&b"event: e\r\ndata: x\r\n\r\n"[..], &b"data: x\r\r"[..]);
    assert_eq!(raw(b"data: x\n\n"), [b"data: x\n\n"]);
    assert_eq!(raw(crlf), [crlf]);
    assert_eq!(raw(&crlf[..crlf.len() - 1]), [crlf], "clients that look for CR LF CR LF get their LF");
    assert_eq!(raw(cr), [cr]);
    assert_eq!(raw(b"data: x\r\r\ndata: y\n\n"), [&b"data: x\r\r"[..], b"data: y\n\n"]);
    assert_eq!(raw(b"\xEF\xBB\xBF: c\n\n\r\nid: 1\n\n:d\n: e\ndata: x\n:f\nz\n\n"), [b"data: x\n:f\nz\n\n"]);
}

/// Streams with all that can be odd in the framing.
const ODD: [&[u8]; 9] = [
    b"data: one\n\ndata: two\n\n",
    b"\xEF\xBB\xBFdata: one\r\n\r\ndata: two\r\n\r\nda",
    b"\xEF\xBBdata: no mark\n\ndata: two\n\n",
    b"\xEFdata\ndata\n\n\xEF\xBB\xBFdata: x\n\ndata:y\n\n",
    b": c\n\n:d\r:e\r\n\ndata:1\r\r\ndata: 2\r\n\revent: x\rdata:3\r\r:g\n",
    b"event: a\nid: 1\r\nretry: 5\rdata: 1\ndata: 2\r\n\r\nid: \ndata\n\n\n\n\nid\n\ndata:\n\n",
    b"\r\n\r\n\n\r\rdata: x\n\r\n\rdata: y\r\r\r\r",
    b"data: \xe4\xbd\xa0\n\ndata: \xff\n\n:\xff\n\nid: \0\ndata: 1\n\n",
    b"x\n\ny: 1\n\nevent: z\n\ndata: 1\n: c\ndata\n\n",
];

#[test]
fn every_split_gives_the_same_events() {
    for text in ODD {
        let whole = decode([text]);
        assert_eq!(decode(text.chunks(1)), whole, "single bytes of {:?}", String::from_utf8_lossy(text));
        assert_eq!(decode(text.chunks(2)), whole, "pairs of {:?}", String::from_utf8_lossy(text));
        for first in 0..=text.len() {
            for second in first..=text.len() {
                let reads = [&text[..first], &text[first..second], &text[second..]];
                assert_eq!(decode(reads), whole, "{first}, {second} of {:?}", String::from_utf8_lossy(text));
            }
        }
    }
}

#[test]
fn forwarded_raw_bytes_decode_to_the_same_events() {
    for text in ODD {
        let whole = decode([text]);
        let forwarded: Vec<u8> = whole.iter().flat_map(|(_, raw)| raw.clone()).collect();
        let again = decode([&forwarded[..]]);
        let shown = |found: &[(Message, Vec<u8>)]| -> Vec<_> {
            found.iter().map(|(message, _)| (message.event.clone(), message.data.clone())).collect()
        };
        assert_eq!(shown(&again), shown(&whole), "{:?}", String::from_utf8_lossy(text));
    }
}

fn too_large(limit: usize, reads: &[&[u8]]) -> (usize, Result<(), TooLarge>, usize) {
    let mut decoder = Decoder::new(limit);
    let (mut count, mut memory) = (0, 0);
    for read in reads {
        let mut events = decoder.push(read);
        loop {
            match events.next() {
                Ok(Some(_)) => count += 1,
                Ok(None) => break,
                Err(error) => return (count, Err(error), memory.max(decoder.memory())),
            }
        }
        memory = memory.max(decoder.memory());
    }
    (count, Ok(()), memory)
}

#[test]
fn the_size_of_an_event_is_bounded_at_any_split() {
    // "data: " + 8 + two line ends: 16 bytes.
    for (text, limit, expected) in [
        (&b"data: 1\n\ndata: 12345678\n\ndata: 2\n\n"[..], 16, (3, true)),
        (b"data: 1\n\ndata: 12345678\n\ndata: 2\n\n", 15, (1, false)),
        (b"data: 1\n\ndata: 12345678", 14, (1, true)),
        (b"data: 1\n\ndata: 12345678", 13, (1, false)),
        (b"data: 1\n\n:234567890123456\ndata: 2\n\n", 16, (2, true)),
        (b"data: 1\n\n:234567890123456\r\ndata: 2\n\n", 15, (1, false)),
        (b"data:1\r\n\r\ndata:12\r\n\r\ndata:3\r\n\r\n", 10, (3, true)),
        (b"data:1\r\n\r\ndata:12\r\n\r\ndata:3\r\n\r\n", 9, (1, false)),
        (b"\n\n\n\n\n\n\n\n\n\n\n\ndata: 1\n\n", 9, (1, true)),
    ] {
        for split in 0..=text.len() {
            let (count, result, _) = too_large(limit, &[&text[..split], &text[split..]]);
            assert_eq!((count, result.is_ok()), expected, "{split} of {:?}", String::from_utf8_lossy(text));
        }
        let reads: Vec<_> = text.chunks(1).collect();
        let (count, result, _) = too_large(limit, &reads);
        assert_eq!((count, result.is_ok()), expected, "bytes of {:?}", String::from_utf8_lossy(text));
    }
}

#[test]
fn memory_stays_below_twice_the_limit() {
    const CAP: usize = 100_000;
    let endless = [b'x'; 4000];
    let one_line = vec![&endless[..]; 100];
    let many_lines: Vec<&[u8]> = vec![b"data: 0123456789012345678901234567890123456789\n"; 10_000];
    let comments: Vec<&[u8]> = vec![b": ping, and no empty line ever\n"; 100_000];
    for (reads, fails) in [(one_line, true), (many_lines, true), (comments, false)] {
        let (count, result, memory) = too_large(CAP, &reads);
        assert_eq!((count, result.is_err()), (0, fails));
        assert!(memory <= 2 * CAP, "{memory}");
    }
}

#[test]
fn a_large_event_gives_its_memory_back() {
    let mut decoder = Decoder::new(LIMIT);
    let large = format!("data: {}\ndata: y\n\n", "x".repeat(500_000));
    for read in [&large.as_bytes()[..1000], &large.as_bytes()[1000..], b"data: z\n\n"] {
        let mut events = decoder.push(read);
        while events.next().expect("within the limit").is_some() {}
    }
    assert!(decoder.memory() <= 16 * 1024, "{}", decoder.memory());
}

#[test]
fn pending_counts_what_is_not_complete() {
    let mut decoder = Decoder::new(LIMIT);
    for (read, pending) in [(&b"data: 1\n\n"[..], 0), (b"data: 1", 7), (b"\n", 8), (b"\n", 0), (b":c", 2), (b"\n", 0)] {
        let mut events = decoder.push(read);
        while events.next().expect("small").is_some() {}
        assert_eq!(decoder.pending(), pending, "{read:?}");
    }
}

#[test]
fn encoded() {
    let mut out = Vec::new();
    encode::comment(b"keep-alive", &mut out);
    encode::data(b"a\nb\r\nc\rd\n", &mut out);
    encode::event(Some(b"error\ndata: injected"), b"x", &mut out);
    assert_eq!(
        String::from_utf8_lossy(&out),
        ": keep-alive\n\ndata: a\ndata: b\ndata: c\ndata: d\ndata: \n\nevent: error\ndata: x\n\n"
    );
}

#[test]
fn an_error_event_has_four_keys_and_one_line() {
    let mut out = Vec::new();
    encode::error(&Error::Truncated, &mut out);
    let text = String::from_utf8(out).expect("text");
    let json = text.strip_prefix("data: ").and_then(|rest| rest.strip_suffix("\n\n")).expect("one event");
    let value: serde_json::Value = serde_json::from_str(json).expect("JSON");
    let keys: Vec<_> = value["error"].as_object().expect("object").keys().map(String::as_str).collect();
    assert_eq!(keys, ["message", "type", "param", "code"]);
    assert_eq!(value["error"]["code"], "upstream_truncated");
}

/// A message as it can be on the wire: no CR in data, no line end or NUL in the rest.
fn any_message() -> impl Strategy<Value = Message> {
    ("[^\r\n\0]{0,8}", "[^\r]{0,60}", "[^\r\n\0]{0,6}", proptest::option::of(any::<u64>())).prop_map(
        |(event, data, id, retry)| {
            let event = if event.is_empty() { "message".to_owned() } else { event };
            Message { event, data, id, retry }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn what_is_encoded_is_decoded(messages in prop::collection::vec(any_message(), 0..12), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12)) {
        let mut text = Vec::new();
        let mut expected = Vec::new();
        let mut last_id = String::new();
        for message in messages {
            encode::message(&message, &mut text);
            if message.data.contains("7") {
                encode::comment(message.data.as_bytes(), &mut text);
            }
            if !message.id.is_empty() {
                last_id = message.id.clone();
            }
            expected.push(Message { id: last_id.clone(), ..message });
        }
        let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
        places.extend([0, text.len()]);
        places.sort_unstable();
        let reads = places.windows(2).map(|pair| &text[pair[0]..pair[1]]);
        let found: Vec<Message> = decode(reads).into_iter().map(|(message, _)| message).collect();
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn any_bytes_at_any_split(text in prop::collection::vec(prop::sample::select(b"data:evnti \n\n\n\r\r\xEF\xBB\xBF\0x".to_vec()), 0..120), size in 1usize..9) {
        let whole = decode([&text[..]]);
        prop_assert_eq!(decode(text.chunks(size)), whole);
    }
}
