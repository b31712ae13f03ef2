//! Properties of token counting: what is encoded decodes to the text, counts agree, pieces make up the text.
#![allow(clippy::unwrap_used)] // clippy.toml allows it only inside of #[test]

use proptest::prelude::*;
use sluicegate_core::tokens::{encoding, AllowedSpecial, Encoding, Stopped, ENCODINGS};

fn all() -> impl Iterator<Item = &'static Encoding> {
    ENCODINGS.iter().map(|name| encoding(name).unwrap())
}

/// One of each vocabulary and pattern.
fn distinct() -> impl Iterator<Item = &'static Encoding> {
    ["cl100k_base", "o200k_base", "p50k_base", "r50k_base"].into_iter().map(|name| encoding(name).unwrap())
}

fn encode(encoding: &Encoding, text: &str) -> Vec<u32> {
    let mut ids = Vec::new();
    encoding.encode_ordinary(text, &mut ids);
    ids
}

fn decode(encoding: &Encoding, ids: &[u32]) -> Vec<u8> {
    let mut bytes = Vec::new();
    encoding.decode_bytes(ids, &mut bytes).unwrap();
    bytes
}

/// Byte pair encoding as it is defined, in quadratic time: the oracle of the fast one.
fn plain(encoding: &Encoding, piece: &[u8]) -> Vec<u32> {
    let token = |bytes: &[u8]| encoding.token_of(bytes).filter(|_| !bytes.starts_with(b"<|"));
    if let Some(id) = token(piece) {
        return vec![id];
    }
    let mut parts: Vec<&[u8]> = piece.chunks(1).collect();
    loop {
        let starts: Vec<usize> = parts
            .iter()
            .scan(0, |at, part| {
                *at += part.len();
                Some(*at - part.len())
            })
            .collect();
        let joined = |at: usize| &piece[starts[at]..starts[at] + parts[at].len() + parts[at + 1].len()];
        let lowest = (0..parts.len() - 1).filter_map(|at| Some((token(joined(at))?, at))).min();
        let Some((_, at)) = lowest else { break };
        let whole = joined(at);
        parts[at] = whole;
        parts.remove(at + 1);
    }
    parts.into_iter().map(|part| token(part).unwrap()).collect()
}

fn agree(encoding: &Encoding, text: &str) {
    let ids = encode(encoding, text);
    assert_eq!(decode(encoding, &ids), text.as_bytes(), "{} {text:?}", encoding.name());
    assert_eq!(encoding.count(text), ids.len(), "{} {text:?}", encoding.name());
    assert_eq!(encoding.pieces(text).collect::<String>(), text, "{}", encoding.name());
    let wanted: Vec<u32> = encoding.pieces(text).flat_map(|piece| plain(encoding, piece.as_bytes())).collect();
    assert_eq!(ids, wanted, "{} {text:?}", encoding.name());
}

/// Letters of many scripts near each other: where the encoder begins with whole characters, and where it cuts.
const SCRIPTS: &str = "[a-zé'. 0-9\\nА-яא-תا-يअ-हก-ฮ一-严가-갛あ-んა-ჰ😀-😎\u{300}-\u{305}\u{200d}]{0,60}";

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn any_text(text in any::<String>()) {
        distinct().for_each(|encoding| agree(encoding, &text));
    }

    #[test]
    fn scripts_side_by_side(text in SCRIPTS) {
        distinct().for_each(|encoding| agree(encoding, &text));
    }

    #[test]
    fn long_pieces_with_a_period(unit in "[a-c]{1,5}|[ \\n=-]{1,3}|[а-г]{1,4}|[ก-ฆ]{1,3}", times in 1_usize..150) {
        distinct().for_each(|encoding| agree(encoding, &unit.repeat(times)));
    }

    #[test]
    fn long_pieces_of_few_letters(text in "[ab]{0,600}|[a-z]{0,600}|[a-zA-Z0-9+/]{0,600}") {
        distinct().for_each(|encoding| agree(encoding, &text));
    }

    #[test]
    fn any_bytes_as_one_piece(bytes in prop::collection::vec(any::<u8>(), 1..300)) {
        for encoding in distinct() {
            let mut ids = Vec::new();
            encoding.encode_single_piece(&bytes, &mut ids);
            prop_assert_eq!(&ids, &plain(encoding, &bytes));
        }
    }

    #[test]
    fn special_tokens_between_texts(texts in prop::collection::vec("[a-z <|>]{0,12}", 1..6)) {
        let encoding = encoding("o200k_base").unwrap();
        let text = texts.join("<|endoftext|>");
        let mut ids = Vec::new();
        encoding.encode_with_special(&text, &AllowedSpecial::All, &mut ids);
        prop_assert_eq!(ids.iter().filter(|&&id| id == 199_999).count(), texts.len() - 1);
        prop_assert_eq!(decode(encoding, &ids), text.as_bytes());
        let counted = encoding.count_with_special_until(&text, &AllowedSpecial::All, &mut || false);
        prop_assert_eq!(counted, Ok(ids.len()));
        prop_assert_eq!(encode(encoding, &text).iter().filter(|&&id| id == 199_999).count(), 0);
    }
}

#[test]
fn every_token_is_found_by_its_bytes() {
    for encoding in all() {
        for id in 0..=encoding.max_token_value() {
            let Some(bytes) = encoding.token_bytes(id) else { continue };
            let found = encoding.token_of(bytes);
            assert!(found == Some(id) || id == 200_018, "{} {id}", encoding.name());
        }
    }
}

#[test]
fn a_million_of_anything() {
    let encoding = encoding("o200k_base").unwrap();
    for unit in ["a", "A", " ", "\n", "\r\n", "=", "中", "\u{301}", "👨‍👩‍👧", "ab", "'s", "7", "\u{301}A", "é"]
    {
        let text = unit.repeat(1_000_000 / unit.len());
        let ids = encode(encoding, &text);
        assert_eq!(ids.len(), encoding.count(&text), "{unit:?}");
        assert_eq!(decode(encoding, &ids), text.as_bytes(), "{unit:?}");
    }
}

#[test]
fn known_counts() {
    // From tiktoken 0.14.0.
    let text = "The quick brown fox, naïve façade: 中文 and 1234567 émigrés!\n\n  It's HTTPServer's.";
    let counts: Vec<(&str, usize)> = all().map(|encoding| (encoding.name(), encoding.count(text))).collect();
    assert_eq!(
        counts,
        [
            ("cl100k_base", 29),
            ("o200k_base", 25),
            ("o200k_harmony", 25),
            ("p50k_base", 31),
            ("p50k_edit", 31),
            ("r50k_base", 31),
            ("gpt2", 31),
        ]
    );
}

#[test]
fn stops_when_asked() {
    let encoding = encoding("cl100k_base").unwrap();
    // Many pieces, and one piece.
    for text in ["word ".repeat(200_000), "a".repeat(1_000_000), "中".repeat(300_000)] {
        let mut asked = 0;
        let mut third = || {
            asked += 1;
            asked == 3
        };
        assert_eq!(encoding.count_until(&text, &mut third), Err(Stopped));
        let mut ids = vec![7];
        assert_eq!(encoding.encode_ordinary_until(&text, &mut ids, &mut || true), Err(Stopped));
        assert_eq!(ids, [7], "what was there stays");
    }
}

#[test]
fn a_stopped_call_leaves_nothing_for_the_next_one() {
    let encoding = encoding("cl100k_base").unwrap();
    for round in 0..8 {
        // New words that wait to be encoded, and behind them a piece that is stopped.
        let words: String = (0..5 + round).map(|word| format!(" qzx{round}w{word}vkj")).collect();
        let text = format!("{words} {}", "a".repeat(200_000));
        assert_eq!(encoding.count_until(&text, &mut || true), Err(Stopped));
        agree(encoding, &format!(" xyqj{round}zz größtmöglich{round} невообразимо{round}"));
        agree(encoding, &words);
    }
}

#[test]
fn threads_share_an_encoding() {
    let encoding = encoding("o200k_base").unwrap();
    let text = "Many threads, one table: größer, быстрее, 速い, déjà-vu 123456. ".repeat(50);
    let wanted = encode(encoding, &text);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..20 {
                    assert_eq!(encode(encoding, &text), wanted);
                    assert_eq!(encoding.count(&text), wanted.len());
                }
            });
        }
    });
}

#[test]
fn what_is_unknown_has_a_name() {
    let unknown = encoding("o300k").err().unwrap().to_string();
    assert!(unknown.contains("o300k") && unknown.contains("o200k_base"), "{unknown}");
    let encoding = encoding("p50k_base").unwrap();
    let mut bytes = vec![1];
    // Between the ranks of r50k and the runs of blanks stands the end of text.
    assert!(encoding.decode_bytes(&[50_256, 50_280], &mut bytes).is_ok());
    bytes.truncate(1);
    let error = encoding.decode_bytes(&[5, 60_000], &mut bytes).err().unwrap();
    assert!(error.to_string().contains("60000"), "{error}");
    assert_eq!(bytes, [1], "what was there stays");
}
