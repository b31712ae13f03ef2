//! Change a request's `model` and `stream_options.include_usage`; every other byte stays as it came.

use std::ops::Range;

use crate::chat::scan::{Scanned, StreamOptions};
use crate::json;

/// What is to be different upstream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Edits<'a> {
    /// The upstream's name of the model; `None` leaves the field alone.
    pub model: Option<&'a str>,
    /// Ask for the usage of a streamed answer. Without effect on a request that does not stream, where servers
    /// refuse `stream_options`.
    pub include_usage: bool,
}

/// A range of the body, and what stands there instead.
pub(super) type Splice = (Range<usize>, Vec<u8>);

/// The body with the edits made; `None` where nothing has to change. `scanned` must come from this `body`.
pub fn rewrite(body: &[u8], scanned: &Scanned, edits: &Edits<'_>) -> Option<Vec<u8>> {
    apply(body, edit_splices(body, scanned, edits))
}

pub(super) fn edit_splices(body: &[u8], scanned: &Scanned, edits: &Edits<'_>) -> Vec<Splice> {
    let places = &scanned.places;
    debug_assert_eq!(places.size, body.len(), "another body than the scanned one");
    let mut splices = Vec::new();
    if let Some(model) = edits.model.filter(|model| scanned.model.as_deref() != Some(*model)) {
        splices.push(model_splice(places.model.clone(), places.inside, model));
    }
    if edits.include_usage && scanned.stream && !scanned.include_usage {
        splices.push(usage_splice(&places.stream_options, places.inside));
    }
    splices
}

/// All splices in one copy; `None` where there are none. They do not overlap.
pub(super) fn apply(body: &[u8], mut splices: Vec<Splice>) -> Option<Vec<u8>> {
    if splices.is_empty() {
        return None;
    }
    // Stable: insertions at one place keep their order, and stand before what is cut from there on.
    splices.sort_by_key(|(place, _)| (place.start, place.end));
    let added: usize = splices.iter().map(|(_, text)| text.len()).sum();
    let mut out = Vec::with_capacity(body.len() + added);
    let mut done = 0;
    for (place, text) in splices {
        out.extend_from_slice(&body[done..place.start]);
        out.extend_from_slice(&text);
        done = place.end;
    }
    out.extend_from_slice(&body[done..]);
    Some(out)
}

fn model_splice(value: Option<Range<usize>>, inside: usize, model: &str) -> Splice {
    let mut text = Vec::with_capacity(model.len() + 16);
    match value {
        Some(place) => {
            json::quote(&mut text, model);
            (place, text)
        }
        None => {
            text.extend_from_slice(b"\"model\":");
            json::quote(&mut text, model);
            text.push(b',');
            (inside..inside, text)
        }
    }
}

fn usage_splice(options: &StreamOptions, top: usize) -> Splice {
    let (place, text) = match options {
        StreamOptions::Absent => (top..top, r#""stream_options":{"include_usage":true},"#),
        StreamOptions::Null(place) => (place.clone(), r#"{"include_usage":true}"#),
        StreamOptions::Object { include_usage: Some(place), .. } => (place.clone(), "true"),
        StreamOptions::Object { inside, empty: true, .. } => (*inside..*inside, r#""include_usage":true"#),
        StreamOptions::Object { inside, empty: false, .. } => (*inside..*inside, r#""include_usage":true,"#),
    };
    (place, text.as_bytes().to_vec())
}
