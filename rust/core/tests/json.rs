//! The JSON reader against serde_json, and against what a hostile text tries.
#![allow(clippy::unwrap_used, clippy::expect_used)] // clippy.toml allows them only inside of #[test]

use std::time::{Duration, Instant};

use proptest::prelude::*;
use serde_json::Value as Json;
use sluicegate_core::json::{self, Cursor, JsonError, Keys, Kind, MAX_DEPTH, MAX_NUMBER_BYTES};

/// Check a whole text by skipping it.
fn check(bytes: &[u8]) -> Result<(), JsonError> {
    let mut cursor = Cursor::new(json::text(bytes)?);
    cursor.skip()?;
    cursor.finish()
}

/// Read a whole text by entering everything in it.
fn build(cursor: &mut Cursor<'_>) -> Result<Json, JsonError> {
    Ok(match cursor.peek()? {
        Kind::Object => {
            let mut map = serde_json::Map::new();
            let mut members = cursor.object()?;
            while let Some(key) = members.next(cursor)? {
                map.insert(key.decode().into_owned(), build(cursor)?);
            }
            Json::Object(map)
        }
        Kind::Array => {
            let (mut list, mut items) = (Vec::new(), cursor.array()?);
            while items.next(cursor)? {
                list.push(build(cursor)?);
            }
            Json::Array(list)
        }
        Kind::String => Json::String(cursor.string()?.decode().into_owned()),
        Kind::Bool => Json::Bool(cursor.value()?.as_bool().unwrap()),
        Kind::Null => cursor.value().map(|value| assert!(value.is_null())).map(|()| Json::Null)?,
        Kind::Number => {
            let value = cursor.value()?;
            let number: serde_json::Number = serde_json::from_str(value.raw).unwrap();
            // Without its feature float_roundtrip serde_json's f64 is off by a bit at times; ours is exact.
            let (ours, oracle) = (value.as_f64().unwrap(), number.as_f64().unwrap());
            assert!((ours - oracle).abs() <= oracle.abs() * 1e-15 + 1e-322, "{ours:e} {oracle:e}");
            Json::Number(number)
        }
    })
}

fn read(bytes: &[u8]) -> Result<Json, JsonError> {
    let mut cursor = Cursor::new(json::text(bytes)?);
    let value = build(&mut cursor)?;
    cursor.finish()?;
    Ok(value)
}

/// The same verdict as serde_json, except for what we are documented to refuse beyond it.
fn agree(bytes: &[u8]) {
    let (ours, oracle) = (check(bytes), serde_json::from_slice::<Json>(bytes));
    let shown = String::from_utf8_lossy(bytes);
    match (&ours, &oracle) {
        (Ok(()), Ok(value)) => assert_eq!(read(bytes).as_ref(), Ok(value), "{shown}"),
        (Ok(()), Err(error)) => panic!("we accept what serde_json refuses ({error}): {shown}"),
        (Err(JsonError::TooDeep { .. }), Ok(value)) => assert!(depth(value) > MAX_DEPTH as usize, "{shown}"),
        (Err(JsonError::NumberRange { at }), Ok(_)) => {
            let literal = shown[*at..].find([',', ']', '}', ' ']).unwrap_or(shown.len() - at);
            assert!(literal > MAX_NUMBER_BYTES, "{shown}");
        }
        (Err(error), Ok(_)) => panic!("we refuse what serde_json accepts ({error:?}): {shown}"),
        (Err(error), Err(_)) => assert!(error.at() <= bytes.len()),
    }
    // Skipping and entering are two readers: they must not differ either.
    assert_eq!(read(bytes).is_ok(), ours.is_ok(), "{shown}");
}

fn depth(value: &Json) -> usize {
    match value {
        Json::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Json::Object(map) => 1 + map.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

fn any_json() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<u64>().prop_map(Json::from),
        any::<f64>().prop_map(Json::from), // NaN becomes null
        any::<String>().prop_map(Json::from),
        "[a-z \"\\\\\u{0}-\u{20}\u{7f}\u{10000}]{0,20}".prop_map(Json::from),
    ];
    leaf.prop_recursive(6, 64, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Json::from),
            prop::collection::vec((any::<String>(), inner), 0..6)
                .prop_map(|members| Json::Object(members.into_iter().collect())),
        ]
    })
}

/// A string written with a mixture of plain characters, short escapes and `\u`.
fn spelled(text: &str, seed: u64) -> String {
    let mut out = String::from("\"");
    for (place, char) in text.chars().enumerate() {
        let style = seed.rotate_left(place as u32) % 3;
        let mut units = [0u16; 2];
        let plain = style == 0 && char >= ' ' && char != '"' && char != '\\';
        match char {
            _ if plain => out.push(char),
            '"' if style == 1 => out.push_str("\\\""),
            '\\' if style == 1 => out.push_str("\\\\"),
            '/' if style == 1 => out.push_str("\\/"),
            '\n' if style == 1 => out.push_str("\\n"),
            '\r' if style == 1 => out.push_str("\\r"),
            '\t' if style == 1 => out.push_str("\\t"),
            '\u{8}' if style == 1 => out.push_str("\\b"),
            '\u{c}' if style == 1 => out.push_str("\\f"),
            _ => {
                for unit in char.encode_utf16(&mut units) {
                    out.push_str(&if seed & 1 == 0 { format!("\\u{unit:04x}") } else { format!("\\u{unit:04X}") });
                }
            }
        }
    }
    out.push('"');
    out
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_serde_on_bytes(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        agree(&bytes);
    }

    #[test]
    fn agrees_with_serde_on_what_looks_like_json(text in r#"[\[\]{}:,"0-9eE+. \-\\utrfalsn\n\t]{0,24}"#) {
        agree(text.as_bytes());
    }

    #[test]
    fn agrees_with_serde_on_numbers(text in r"-?[0-9]{0,3}(\.[0-9]{0,3})?([eE][+-]?[0-9]{0,4})?") {
        agree(text.as_bytes());
        agree(format!("[{text}]").as_bytes());
    }

    #[test]
    fn agrees_with_serde_on_escapes(
        text in r#"([a-z]|\\["\\/bfnrtux]|\\u[dD][89abcdefABCDEF][0-9]{2}|\\u[0-9a-fA-F]{4}){0,12}"#,
    ) {
        agree(format!("\"{text}\"").as_bytes());
    }

    #[test]
    fn agrees_with_serde_on_json_and_on_broken_json(
        value in any_json(),
        pretty in any::<bool>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3u8), 0..3),
    ) {
        let mut bytes = if pretty { serde_json::to_vec_pretty(&value) } else { serde_json::to_vec(&value) }.unwrap();
        agree(&bytes);
        for (place, byte, change) in changes {
            if bytes.is_empty() { break }
            let at = place.index(bytes.len());
            match change {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, b"{}[]:,\"\\0-e.u "[usize::from(byte) % 14]),
                _ => { bytes.remove(at); }
            }
            agree(&bytes);
        }
    }

    #[test]
    fn no_prefix_of_a_document_is_one(value in any_json()) {
        let text = serde_json::to_vec(&Json::from(vec![value])).unwrap();
        for end in 0..text.len() {
            prop_assert!(check(&text[..end]).is_err());
        }
        prop_assert_eq!(check(&text), Ok(()));
        prop_assert_eq!(check(&[&text[..], b" \n\t\r"].concat()), Ok(()));
        prop_assert_eq!(check(&[&text[..], b" 1"].concat()), Err(JsonError::Trailing { at: text.len() + 1 }));
    }

    #[test]
    fn every_spelling_means_the_same(text in any::<String>(), seed in any::<u64>()) {
        let spelling = spelled(&text, seed);
        let mut cursor = Cursor::new(&spelling);
        let read = cursor.string().unwrap();
        prop_assert_eq!(read.decode(), &text[..]);
        prop_assert!(read.is(&text));
        let longer = format!("{text}x");
        prop_assert!(!read.is(&longer));
        prop_assert_eq!(&spelling[read.span()], read.raw());
        let mut quoted = Vec::new();
        json::quote(&mut quoted, &text);
        prop_assert_eq!(serde_json::from_slice::<String>(&quoted).unwrap(), text);
    }

    /// The word-at-a-time search must find the same end wherever the string lies in its word.
    #[test]
    fn strings_end_at_their_quote(before in 0..9usize, text in "[ -~\u{80}-\u{10ffff}]{0,40}", after in 0..9usize) {
        let quoted = serde_json::to_string(&text).unwrap();
        let document = format!("{}{quoted}{}", " ".repeat(before), " ".repeat(after));
        let mut cursor = Cursor::new(&document);
        prop_assert_eq!(cursor.value().unwrap().raw, quoted);
        prop_assert_eq!(cursor.finish(), Ok(()));
    }
}

#[test]
fn control_characters_end_a_string_with_an_error() {
    for byte in 0..0x20u8 {
        for before in 0..17 {
            let text = format!("\"{}{}xxxxxxxxxxxx\"", "é".repeat(before), char::from(byte));
            assert_eq!(check(text.as_bytes()), Err(JsonError::Syntax { at: 1 + 2 * before }), "{byte:#x}");
        }
    }
    assert_eq!(check("\"\u{7f}\u{80}\"".as_bytes()), Ok(()));
}

#[test]
fn refuses_what_two_readers_could_read_differently() {
    use JsonError::*;
    let long = "1".repeat(5_000);
    for (text, error) in [
        ("", Syntax { at: 0 }),
        ("\u{feff}{}", Syntax { at: 0 }),
        ("NaN", Syntax { at: 0 }),
        ("[Infinity]", Syntax { at: 1 }),
        ("-Infinity", Syntax { at: 1 }),
        ("1e400", NumberRange { at: 0 }),
        ("[-1e309]", NumberRange { at: 1 }),
        (&long, NumberRange { at: 0 }),
        ("01", Trailing { at: 1 }),
        ("-", Syntax { at: 1 }),
        ("1.", Syntax { at: 2 }),
        ("+1", Syntax { at: 0 }),
        ("[1,]", Syntax { at: 3 }),
        ("{\"a\":1,}", Syntax { at: 7 }),
        ("{,}", Syntax { at: 1 }),
        ("{\"a\"}", Syntax { at: 4 }),
        ("{a:1}", Syntax { at: 1 }),
        ("[1 2]", Syntax { at: 3 }),
        ("[1}", Syntax { at: 2 }),
        ("{\"a\":1]", Syntax { at: 6 }),
        ("{} {}", Trailing { at: 3 }),
        ("truE", Syntax { at: 0 }),
        ("\u{a0}1", Syntax { at: 0 }),
        ("'a'", Syntax { at: 0 }),
        ("[1]//", Trailing { at: 3 }),
        ("\"\\ud800\"", LoneSurrogate { at: 1 }),
        ("\"\\ud800\\n\"", LoneSurrogate { at: 1 }),
        ("\"\\uD83D\\uD83D\"", LoneSurrogate { at: 1 }),
        ("\"\\udc00\\ud800\"", LoneSurrogate { at: 1 }),
        ("{\"\\udfff\":0}", LoneSurrogate { at: 2 }),
        ("\"\\ud800", Syntax { at: 7 }),
        ("\"\\ud800\\", Syntax { at: 8 }),
        ("\"\\u12", Syntax { at: 5 }),
        ("\"\\u00g0\"", Syntax { at: 5 }),
        ("\"\\x41\"", Syntax { at: 2 }),
        ("\"a\nb\"", Syntax { at: 2 }),
    ] {
        assert_eq!(check(text.as_bytes()), Err(error), "{}", &text[..text.len().min(40)]);
    }
    assert_eq!(check(b"\"\xff\""), Err(Utf8 { at: 1 }));
    assert_eq!(check(b"\"\xed\xa0\x80\""), Err(Utf8 { at: 1 })); // a surrogate written as UTF-8
    assert_eq!(check(b"\"\xc0\x80\""), Err(Utf8 { at: 1 })); // NUL in two bytes
}

#[test]
fn numbers_are_bounded_by_length_and_by_f64() {
    let digits = |count: usize| "9".repeat(count);
    assert_eq!(check(digits(308).as_bytes()), Ok(()));
    assert_eq!(check(digits(310).as_bytes()), Err(JsonError::NumberRange { at: 0 }));
    assert_eq!(check(format!("0.{}", digits(MAX_NUMBER_BYTES - 2)).as_bytes()), Ok(()));
    let error = check(format!("0.{}", digits(MAX_NUMBER_BYTES - 1)).as_bytes());
    assert_eq!(error, Err(JsonError::NumberRange { at: 0 }));
    assert_eq!(check(format!("{:.6}", f64::MAX).as_bytes()), Ok(()));
    let whole = |text: &str| Cursor::new(text).value().unwrap().as_i64();
    assert_eq!(whole("5"), Some(5));
    assert_eq!(whole("5.0"), Some(5));
    assert_eq!(whole("-5e1"), Some(-50));
    assert_eq!(whole("-0"), Some(0));
    assert_eq!(whole("1.5"), None);
    assert_eq!(whole("9223372036854775807"), Some(i64::MAX));
    assert_eq!(whole("9223372036854775808"), None);
    assert_eq!(whole("1e300"), None);
    assert_eq!(whole("\"5\""), None);
    assert_eq!(whole("true"), None);
    assert_eq!(Cursor::new("-1").value().unwrap().as_u64(), None);
}

#[test]
fn depth_counts_what_is_entered_and_what_is_skipped() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let most = MAX_DEPTH as usize;
    assert_eq!(check(nested(most).as_bytes()), Ok(()));
    assert_eq!(check(nested(most + 1).as_bytes()), Err(JsonError::TooDeep { at: most }));
    for (depth, fine) in [(most, true), (most + 1, false)] {
        let text = nested(depth);
        let mut cursor = Cursor::new(&text);
        let mut levels = vec![cursor.array().unwrap(), cursor.array().unwrap()];
        assert_eq!(cursor.skip().is_ok(), fine);
        if fine {
            while let Some(mut level) = levels.pop() {
                assert_eq!(level.next(&mut cursor), Ok(false));
            }
            assert_eq!(cursor.finish(), Ok(()));
        }
        // Entered to the last.
        let mut cursor = Cursor::new(&text);
        let entered = (0..depth).take_while(|_| cursor.array().is_ok()).count();
        assert_eq!(entered, most);
    }
    // Siblings are not depth.
    let wide = format!("[{}[]]", "[{\"a\":[]}],".repeat(10_000));
    assert_eq!(check(wide.as_bytes()), Ok(()));
}

#[test]
fn a_hundred_thousand_levels_are_refused_at_once() {
    for unit in ["[", "{\"a\":", "[{\"a\":", " [\n"] {
        let hostile = unit.repeat(100_000);
        let begin = Instant::now();
        assert!(matches!(check(hostile.as_bytes()), Err(JsonError::TooDeep { .. })));
        assert!(begin.elapsed() < Duration::from_secs(5));
    }
}

#[test]
fn values_say_where_they_are() {
    let text = " {\"a\" : [1, {\"b\":null}] ,\"c\":\"\\u0041\"} ";
    let mut cursor = Cursor::new(text);
    let mut members = cursor.object().unwrap();
    assert_eq!(&text[..cursor.position()], " {");
    let key = members.next(&mut cursor).unwrap().unwrap();
    assert_eq!(&text[key.span()], "a");
    let value = cursor.value().unwrap();
    assert_eq!((value.kind, &text[value.span()]), (Kind::Array, "[1, {\"b\":null}]"));
    members.next(&mut cursor).unwrap().unwrap();
    let value = cursor.value().unwrap();
    assert_eq!((value.raw, value.as_text().unwrap().decode().as_ref()), ("\"\\u0041\"", "A"));
    assert!(members.next(&mut cursor).unwrap().is_none());
    assert_eq!(cursor.finish(), Ok(()));
}

#[test]
fn a_value_that_nobody_reads_is_still_checked() {
    for text in ["{\"a\":[1,],\"b\":2}", "{\"a\":\"\\ud800\"}", "{\"a\":tru}", "{\"a\":}", "{\"a\":1 2}"] {
        let mut cursor = Cursor::new(text);
        let mut members = cursor.object().unwrap();
        let mut result = members.next(&mut cursor);
        while let Ok(Some(_)) = result {
            cursor.peek().ok();
            result = members.next(&mut cursor);
        }
        assert!(result.is_err(), "{text}");
    }
}

#[test]
fn a_key_that_comes_twice_is_found_however_it_is_written() {
    let text = r#"{"model":1,"mod\u0065l":2,"Model":3,"":4,"\u0000":5}"#;
    let mut cursor = Cursor::new(text);
    let (mut members, mut keys, mut new) = (cursor.object().unwrap(), Keys::default(), Vec::new());
    while let Some(key) = members.next(&mut cursor).unwrap() {
        new.push(keys.insert(&key));
    }
    assert_eq!(new, [true, false, true, true, true]);
}

#[test]
fn a_million_keys_cost_linear_time() {
    const COUNT: usize = 1_000_000;
    let mut text = String::from("{");
    for number in 0..COUNT {
        text.push_str(&format!("\"key{number}\":0,"));
    }
    text.push_str("\"key999999\":0}");
    let begin = Instant::now();
    let mut cursor = Cursor::new(&text);
    let (mut members, mut keys, mut twice) = (cursor.object().unwrap(), Keys::default(), 0);
    while let Some(key) = members.next(&mut cursor).unwrap() {
        twice += usize::from(!keys.insert(&key));
    }
    assert_eq!(twice, 1);
    // Measured: 0.2 s. Each key compared with each would be 10^12 comparisons, which is half an hour.
    assert!(begin.elapsed() < Duration::from_secs(20));
}

/// `cargo test --release -p sluicegate-core --test json -- --ignored --nocapture speed`
#[test]
#[ignore = "a measurement"]
#[allow(clippy::print_stdout)]
fn speed() {
    let chunk = concat!(
        r#"{"id":"chatcmpl-8f2e1c0b9a7d","object":"chat.completion.chunk","created":1754000000,"model":"gpt-4o-mini","#,
        r#""system_fingerprint":"fp_0123456789","#,
        r#""choices":[{"index":0,"delta":{"content":" token"},"logprobs":null,"finish_reason":null}]}"#
    );
    let observe = |text: &str| -> Result<(u64, bool), JsonError> {
        let mut cursor = Cursor::new(json::text(text.as_bytes())?);
        let (mut indexes, mut finished, mut members) = (0, false, cursor.object()?);
        while let Some(key) = members.next(&mut cursor)? {
            if !key.is("choices") {
                continue;
            }
            let mut choices = cursor.array()?;
            while choices.next(&mut cursor)? {
                let mut choice = cursor.object()?;
                while let Some(key) = choice.next(&mut cursor)? {
                    if key.is("index") {
                        indexes += cursor.value()?.as_u64().unwrap_or(1);
                    } else if key.is("finish_reason") {
                        finished |= !cursor.value()?.is_null();
                    }
                }
            }
        }
        cursor.finish()?;
        Ok((indexes, finished))
    };
    let prose = serde_json::to_string(&"Plain words, \"quoted\" words,\nand a second line. ".repeat(2_000)).unwrap();
    // The best of many short rounds: a busy machine only ever adds time.
    let measure = |name: &str, text: &str, read: &dyn Fn(&str)| {
        let repeats = 2_000_000 / text.len();
        let round = |_| {
            let begin = Instant::now();
            (0..repeats).for_each(|_| read(std::hint::black_box(text)));
            begin.elapsed().as_secs_f64() / repeats as f64
        };
        let each = (0..100).map(round).fold(f64::MAX, f64::min);
        println!("{name}: {} bytes, {:.0} ns, {:.0} MB/s", text.len(), each * 1e9, text.len() as f64 / each / 1e6);
    };
    measure("chunk, observed", chunk, &|text| assert_eq!(std::hint::black_box(observe(text)), Ok((0, false))));
    measure("chunk, skipped", chunk, &|text| assert_eq!(check(text.as_bytes()), Ok(())));
    measure("chunk, serde_json to nothing", chunk, &|text| {
        serde_json::from_slice::<&serde_json::value::RawValue>(text.as_bytes()).map(|_| ()).unwrap();
    });
    measure("chunk, UTF-8 alone", chunk, &|text| assert!(std::hint::black_box(json::text(text.as_bytes())).is_ok()));
    measure("one long string", &prose, &|text| assert_eq!(check(text.as_bytes()), Ok(())));
}
