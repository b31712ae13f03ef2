//! The fields that say to one kind of server how much its model shall think.

use crate::json::{self, Cursor, JsonError, Kind};

/// One field: its name, the member of it that is meant where it is an object with others, and the value as JSON.
pub type Setting = (String, Option<String>, Vec<u8>);

/// What a request says of thinking; nothing else of it is left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Switch {
    /// In the server's own words.
    pub fields: Vec<Setting>,
    /// The client said something else: it is told that this was dropped.
    pub overrules: bool,
}

/// The value of one field: the client's, without the members that are ours to say (`owned`), and with `wanted`. `None`:
/// it is better left out.
pub(super) fn rebuilt<'a>(
    given: Option<&[u8]>,
    owned: Option<&[&str]>,
    wanted: impl Iterator<Item = &'a Setting>,
) -> Option<Vec<u8>> {
    let (mut members, mut same) = (Vec::new(), true);
    let kept = given.zip(owned).and_then(|(given, owned)| others(given, owned).ok().flatten());
    let mut seen = kept.as_ref().map_or_else(Vec::new, |(_, ours)| ours.clone());
    for (_, member, value) in wanted {
        let Some(member) = member else { return Some(value.clone()) };
        let before = seen.len();
        seen.retain(|(name, known)| !(name == member && known.as_bytes() == value));
        same &= seen.len() < before;
        let mut text = Vec::new();
        json::quote(&mut text, member);
        text.push(b':');
        text.extend_from_slice(value);
        members.push(text);
    }
    let others = kept.map_or_else(Vec::new, |(others, _)| others);
    if same && seen.is_empty() && (!members.is_empty() || !others.is_empty()) {
        // It says all this already: its bytes stay.
        return given.map(<[u8]>::to_vec);
    }
    let all: Vec<Vec<u8>> = others.into_iter().map(String::into_bytes).chain(members).collect();
    (!all.is_empty()).then(|| [b"{".as_slice(), all.join(&b',').as_slice(), b"}"].concat())
}

type Members = (Vec<String>, Vec<(String, String)>);

/// The members of an object as they are written, and apart from them, by name, the values of those in `owned`. `None`
/// for what is no object.
fn others(given: &[u8], owned: &[&str]) -> Result<Option<Members>, JsonError> {
    let text = json::text(given)?;
    let mut cursor = Cursor::new(text);
    if cursor.peek()? != Kind::Object {
        return Ok(None);
    }
    let (mut others, mut ours) = (Vec::new(), Vec::new());
    let mut members = cursor.object()?;
    while let Some(key) = members.next(&mut cursor)? {
        let value = cursor.value()?;
        if owned.iter().any(|name| key.is(name)) {
            ours.push((key.decode().into_owned(), value.raw.to_owned()));
        } else {
            others.push(text[key.span().start - 1..value.span().end].to_owned());
        }
    }
    Ok(Some((others, ours)))
}
