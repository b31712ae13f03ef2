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

/// The body with the edits made; `None` where nothing has to change. `scanned` must come from this `body`.
pub fn rewrite(body: &[u8], scanned: &Scanned, edits: &Edits<'_>) -> Option<Vec<u8>> {
    let places = &scanned.places;
    debug_assert_eq!(places.size, body.len(), "another body than the scanned one");
    let mut splices: [Option<(Range<usize>, Vec<u8>)>; 2] = [None, None];
    if let Some(model) = edits.model.filter(|model| scanned.model.as_deref() != Some(*model)) {
        splices[0] = Some(model_splice(places.model.clone(), places.inside, model));
    }
    if edits.include_usage && scanned.stream && !scanned.include_usage {
        splices[1] = Some(usage_splice(&places.stream_options, places.inside));
    }
    let mut splices: Vec<_> = splices.into_iter().flatten().collect();
    if splices.is_empty() {
        return None;
    }
    splices.sort_by_key(|(place, _)| place.start); // stable: two insertions at one place keep their order
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

fn model_splice(value: Option<Range<usize>>, inside: usize, model: &str) -> (Range<usize>, Vec<u8>) {
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

fn usage_splice(options: &StreamOptions, top: usize) -> (Range<usize>, Vec<u8>) {
    let (place, text) = match options {
        StreamOptions::Absent => (top..top, r#""stream_options":{"include_usage":true},"#),
        StreamOptions::Null(place) => (place.clone(), r#"{"include_usage":true}"#),
        StreamOptions::Object { include_usage: Some(place), .. } => (place.clone(), "true"),
        StreamOptions::Object { inside, empty: true, .. } => (*inside..*inside, r#""include_usage":true"#),
        StreamOptions::Object { inside, empty: false, .. } => (*inside..*inside, r#""include_usage":true,"#),
    };
    (place, text.as_bytes().to_vec())
}
