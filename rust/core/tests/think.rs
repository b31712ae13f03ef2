//! The splitter of thinking: cases, and the same result for every way to cut the text.
#![allow(clippy::unwrap_used, clippy::expect_used)] // clippy.toml allows them only inside of #[test]

use proptest::prelude::*;
use sluicegate_core::chat::think::{Split, Splitter};

fn in_pieces(pieces: &[&str], inside: bool) -> (Split, Splitter) {
    let (mut splitter, mut all) = (Splitter::new(inside), Split::default());
    for piece in pieces {
        let split = splitter.push(piece);
        all.thinking.push_str(&split.thinking);
        all.content.push_str(&split.content);
    }
    splitter.finish(&mut all);
    (all, splitter)
}

/// As the relay does it: the fast question first.
fn as_relayed(pieces: &[&str], inside: bool) -> Split {
    let (mut splitter, mut all) = (Splitter::new(inside), Split::default());
    for piece in pieces {
        if splitter.passes(piece) {
            all.content.push_str(piece);
            continue;
        }
        let split = splitter.push(piece);
        all.thinking.push_str(&split.thinking);
        all.content.push_str(&split.content);
    }
    splitter.finish(&mut all);
    all
}

/// Pieces that are whole characters as JSON writes them: no string ends within an escape.
fn units(raw: &str) -> Vec<&str> {
    let (mut found, mut at) = (Vec::new(), 0);
    while at < raw.len() {
        let end = match raw[at..].chars().next().unwrap() {
            '\\' if raw[at + 1..].starts_with('u') => at + 6,
            '\\' => at + 2,
            c => at + c.len_utf8(),
        };
        found.push(&raw[at..end]);
        at = end;
    }
    found
}

fn split(thinking: &str, content: &str) -> Split {
    Split { thinking: thinking.into(), content: content.into() }
}

/// (text, thinking, content)
const CASES: [(&str, &str, &str); 26] = [
    ("", "", ""),
    ("Hello", "", "Hello"),
    ("<think>a</think>b", "a", "b"),
    (r"<think>\nfirst\n\nthen\n</think>\n\nThe answer.\n", r"first\n\nthen\n", r"The answer.\n"),
    (r"\n <think>a</think>b", "a", "b"),
    ("<thinking>a</think> b</thinking>c", "a</think> b", "c"),
    ("[THINK]a[/THINK]b", "a", "b"),
    ("<seed:think>a</seed:think>b", "a", "b"),
    (r"\u003cthink\u003ea\u003c\/think\u003eb", "a", "b"),
    (r"<think>\n\n</think>\n\nHi", "", "Hi"),
    ("<think>never closed", "never closed", ""),
    ("<think>half </thi", "half </thi", ""),
    ("<think>a</thi</think>b", "a</thi", "b"),
    ("<think><</think>b", "<", "b"),
    ("<think>the tag `</think>` ends it</think>b", "the tag `</think>` ends it", "b"),
    ("<think>ends with `</think>b", "ends with `", "b"),
    ("<think>ends with `</think>", "ends with `", ""),
    ("<think>a</think>", "a", ""),
    ("Say <think>a</think>", "", "Say <think>a</think>"),
    ("<thin", "", "<thin"),
    ("<b>bold</b>", "", "<b>bold</b>"),
    (r"  \n", "", r"  \n"),
    (r"```html\n</think>\n```\n", "", r"```html\n</think>\n```\n"),
    (r"in prose </think> it stays", "", r"in prose </think> it stays"),
    (r"`<think>` opens a thought", "", r"`<think>` opens a thought"),
    (r"<think>\ud83d</think>\ude00", r"\ud83d", r"\ude00"),
];

#[test]
fn cases_by_every_cut_in_two() {
    for (raw, thinking, content) in CASES {
        let expected = split(thinking, content);
        let units = units(raw);
        for cut in 0..=units.len() {
            let pieces = [units[..cut].concat(), units[cut..].concat()];
            let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
            assert_eq!(in_pieces(&pieces, false).0, expected, "{raw} cut at {cut}");
            assert_eq!(as_relayed(&pieces, false), expected, "{raw} cut at {cut}, relayed");
        }
        assert_eq!(in_pieces(&units, false).0, expected, "{raw} by characters");
        assert_eq!(Splitter::whole(raw, false).0, expected, "{raw} as a whole");
    }
}

#[test]
fn a_closing_tag_that_nothing_opened() {
    let raw = r"First I look.\n</think>\n\nIt is 4.";
    let (whole, splitter) = Splitter::whole(raw, false);
    assert_eq!(whole, split("First I look.", "It is 4."));
    assert!(splitter.unmatched && splitter.thought);
    // A stream has passed on what came before; the next one is known to begin in a thought.
    let (streamed, splitter) = in_pieces(&units(raw), false);
    assert_eq!(streamed, split("", r"First I look.\nIt is 4."));
    assert!(splitter.unmatched);
    let (next, splitter) = in_pieces(&units(raw), true);
    assert_eq!(next, split(r"First I look.\n", "It is 4."));
    assert!(!splitter.missed && splitter.thought);
}

#[test]
fn a_template_that_opens_no_thought_after_all() {
    let (all, splitter) = in_pieces(&units(r"  Just the answer.\n"), true);
    assert_eq!(all, split("", r"  Just the answer.\n"));
    assert!(splitter.missed && !splitter.thought);
    // The model opens it itself: nothing has to wait.
    let mut splitter = Splitter::new(true);
    assert_eq!(splitter.push("<think>a"), split("a", ""));
    let long = "x".repeat(600_000);
    assert_eq!(in_pieces(&[&long, "y"], true).0, split("", &(long.clone() + "y")));
}

#[test]
fn what_is_held_is_told() {
    let mut splitter = Splitter::new(false);
    assert!(!splitter.holds());
    splitter.push("<thi");
    assert!(splitter.holds());
    splitter.push("nk>");
    assert!(!splitter.holds());
}

fn text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("<think>"),
        Just("</think>"),
        Just("<thinking>"),
        Just("[THINK]"),
        Just("[/THINK]"),
        Just("```"),
        Just("~~~"),
        Just("`"),
        Just(r"\n"),
        Just(" "),
        Just("a"),
        Just("<"),
        Just("</"),
        Just("think>"),
        Just(r"\u003c"),
        Just(r"\u003e"),
        Just(r"\/"),
        Just("é"),
        Just("😀"),
        Just(r"\ud83d"),
        Just(r"\\"),
        Just("[/"),
    ];
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn every_cut_gives_the_same(raw in text(), cuts in prop::collection::vec(any::<bool>(), 200), inside in any::<bool>()) {
        let expected = in_pieces(&[&raw], inside);
        let mut pieces: Vec<String> = vec![String::new()];
        for (unit, cut) in units(&raw).into_iter().zip(cuts.iter().cycle()) {
            if *cut {
                pieces.push(String::new());
            }
            pieces.last_mut().unwrap().push_str(unit);
        }
        let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
        let (got, splitter) = in_pieces(&pieces, inside);
        prop_assert_eq!(&got, &expected.0);
        prop_assert_eq!(splitter.unmatched, expected.1.unmatched);
        prop_assert_eq!(splitter.missed, expected.1.missed);
        prop_assert_eq!(splitter.thought, expected.1.thought);
        prop_assert_eq!(as_relayed(&pieces, inside), expected.0);
    }

    #[test]
    fn nothing_but_tags_and_blanks_is_lost(raw in text()) {
        let (got, _) = in_pieces(&[&raw], false);
        let bare = |text: &str| {
            let mut text = text.replace(r"\u003c", "<").replace(r"\u003e", ">").replace(r"\/", "/");
            for gone in ["<thinking>", "</thinking>", "<think>", "</think>", "[THINK]", "[/THINK]", r"\n", " "] {
                // A mark, so that what stands on both sides of it makes no new tag.
                text = text.replace(gone, "|");
            }
            text.replace('|', "")
        };
        prop_assert_eq!(bare(&(got.thinking + "|" + &got.content)), bare(&raw));
    }
}

#[test]
#[allow(clippy::print_stdout)] // it is what is asked for
#[ignore = "a figure, for a quiet machine: cargo test --release --test think -- --ignored --nocapture"]
fn what_a_chunk_without_a_tag_costs() {
    const ROUNDS: usize = 2_000_000;
    for (name, opening, piece) in
        [("answer", "Hello ", " wörld"), ("line", "Hello ", r"\n"), ("thought", "<think>so ", " wörld")]
    {
        let mut splitter = Splitter::new(false);
        splitter.push(opening);
        let (began, mut bytes) = (std::time::Instant::now(), 0);
        for _ in 0..ROUNDS {
            let piece = std::hint::black_box(piece);
            bytes += if splitter.passes(piece) { piece.len() } else { splitter.push(piece).thinking.len() };
        }
        assert!(bytes >= ROUNDS * piece.len());
        let each = began.elapsed().as_secs_f64() * 1e9 / ROUNDS as f64;
        println!("{name}: {each:.0} ns a chunk");
    }
}
