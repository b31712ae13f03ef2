//! A record of the journal as its fields, read without being copied.

use super::FIELDS;
use rmp::{
    decode::{read_array_len, read_marker, RmpRead},
    Marker,
};

/// So many fields has a record.
pub const COUNT: usize = FIELDS as usize;
/// What every version of this program has written.
const REQUIRED: usize = 4;
const SOURCES: [&str; 3] = ["upstream", "counted", "estimated"];
const PREFIX: &str = "req_";
const HOUR_NS: u64 = 3_600_000_000_000;

/// The id of a request, as the databases have it: it sorts by time.
pub type Id = [u8; 14];

/// One field of a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // said by their names
pub enum Field<'a> {
    #[default]
    Nil,
    Truth(bool),
    Number(i64),
    Text(&'a str),
}

/// What a field may be.
#[derive(Clone, Copy)]
enum Kind {
    Text,
    MaybeText,
    Truth,
    Number,
    MaybeNumber,
    Source,
}

#[rustfmt::skip]
const KINDS: [Kind; COUNT] = {
    use Kind::{MaybeNumber, MaybeText, Number, Source, Text, Truth};
    [
        Text, Text, Text, Text, Truth, Text, // id, workspace, key, operation, stream, model
        MaybeText, MaybeNumber, MaybeText, MaybeText, // assistant and its version, upstream and its model
        Number, MaybeText, MaybeText, Number, // status, code, error, attempts
        Number, Number, Number, Number, Source, Number, // tokens, their source, micros
        MaybeNumber, Number, Number, Number, Number, // first, duration, overhead, bytes in and out
        MaybeText, MaybeText, MaybeText, Number, Number, MaybeText, // client, finish, conversation, reserved, thinking
        MaybeNumber, MaybeText, MaybeText, MaybeText, MaybeText, // score, failed checks, method, reason, phases
    ]
};

/// A whole record.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    /// Its id, which is also its first field, as text.
    pub id: Id,
    fields: [Field<'a>; COUNT],
}

impl<'a> Fields<'a> {
    /// None for what no version of this program wrote. Fields that an older one did not know are as `usage/model.py`
    /// fills them in; those of a newer one are left out.
    pub fn read(payload: &'a [u8]) -> Option<Self> {
        let mut rest = payload;
        let length = read_array_len(&mut rest).ok()? as usize;
        if length < REQUIRED {
            return None;
        }
        let mut fields = [Field::Nil; COUNT];
        for (number, (place, kind)) in fields.iter_mut().zip(KINDS).enumerate() {
            *place = if number < length { kind.checked(read(&mut rest)?)? } else { kind.missing() };
        }
        // What stands behind the fields of a newer version is its own matter.
        if length <= COUNT && !rest.is_empty() {
            return None;
        }
        let Some(Field::Text(id)) = fields.first() else { return None };
        Some(Fields { id: id_of(id)?, fields })
    }

    /// The field of this number; nothing where there is none.
    pub fn get(&self, number: usize) -> Field<'a> {
        self.fields.get(number).copied().unwrap_or_default()
    }

    /// The same as a number that can be summed.
    pub fn number(&self, number: usize) -> i64 {
        if let Field::Number(found) = self.get(number) {
            found
        } else {
            0
        }
    }

    /// When the request came: hours since 1970.
    pub fn hour(&self) -> u64 {
        let (nanoseconds, _) = self.id.split_first_chunk().unwrap_or((&[0; 8], &[]));
        u64::from_be_bytes(*nanoseconds) / HOUR_NS
    }
}

impl Kind {
    fn checked(self, found: Field<'_>) -> Option<Field<'_>> {
        let fits = match found {
            Field::Nil => matches!(self, Kind::MaybeText | Kind::MaybeNumber),
            Field::Truth(_) => matches!(self, Kind::Truth),
            Field::Number(_) => matches!(self, Kind::Number | Kind::MaybeNumber),
            Field::Text(text) => match self {
                Kind::Source => SOURCES.contains(&text),
                Kind::Text | Kind::MaybeText => true,
                Kind::Truth | Kind::Number | Kind::MaybeNumber => false,
            },
        };
        fits.then_some(found)
    }

    fn missing(self) -> Field<'static> {
        match self {
            Kind::Text => Field::Text(""),
            Kind::Source => Field::Text("estimated"),
            Kind::Truth => Field::Truth(false),
            Kind::Number => Field::Number(0),
            Kind::MaybeText | Kind::MaybeNumber => Field::Nil,
        }
    }
}

/// The next value; None for what is none of these, or not whole.
fn read<'a>(rest: &mut &'a [u8]) -> Option<Field<'a>> {
    let number = match read_marker(rest).ok()? {
        Marker::Null => return Some(Field::Nil),
        Marker::False => return Some(Field::Truth(false)),
        Marker::True => return Some(Field::Truth(true)),
        Marker::FixStr(length) => return text(rest, usize::from(length)),
        Marker::Str8 => {
            let length = rest.read_data_u8().ok()?;
            return text(rest, usize::from(length));
        }
        Marker::Str16 => {
            let length = rest.read_data_u16().ok()?;
            return text(rest, usize::from(length));
        }
        Marker::Str32 => {
            let length = rest.read_data_u32().ok()?;
            return text(rest, length as usize);
        }
        Marker::FixPos(value) => i64::from(value),
        Marker::FixNeg(value) => i64::from(value),
        Marker::U8 => i64::from(rest.read_data_u8().ok()?),
        Marker::U16 => i64::from(rest.read_data_u16().ok()?),
        Marker::U32 => i64::from(rest.read_data_u32().ok()?),
        // No database takes more.
        Marker::U64 => i64::try_from(rest.read_data_u64().ok()?).unwrap_or(i64::MAX),
        Marker::I8 => i64::from(rest.read_data_i8().ok()?),
        Marker::I16 => i64::from(rest.read_data_i16().ok()?),
        Marker::I32 => i64::from(rest.read_data_i32().ok()?),
        Marker::I64 => rest.read_data_i64().ok()?,
        _ => return None,
    };
    Some(Field::Number(number))
}

fn text<'a>(rest: &mut &'a [u8], length: usize) -> Option<Field<'a>> {
    let (found, after) = rest.split_at_checked(length)?;
    *rest = after;
    std::str::from_utf8(found).ok().map(Field::Text)
}

fn id_of(text: &str) -> Option<Id> {
    let digits = text.strip_prefix(PREFIX)?.as_bytes();
    let mut id = Id::default();
    if digits.len() != 2 * id.len() {
        return None;
    }
    for (byte, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = pair.iter().try_fold(0u8, |found, digit| Some(found << 4 | char::from(*digit).to_digit(16)? as u8))?;
    }
    Some(id)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use crate::record::Closed;
    use rmp::encode::{write_array_len, write_str};

    const ID: &str = "req_18b1f00000000000aabbccddeeff";

    fn written(closed: &Closed<'_>) -> Vec<u8> {
        let mut payload = Vec::new();
        closed.encode_into(&mut payload);
        payload
    }

    #[test]
    fn what_is_written_is_read() {
        let closed = Closed {
            id: ID,
            workspace: "acme",
            stream: true,
            model: "größer",
            status: 200,
            source: "upstream",
            tokens: [300, 70_000, 0, 1 << 50],
            first_us: Some(u64::MAX),
            phases: "1,2",
            ..Closed::default()
        };
        let payload = written(&closed);
        let fields = Fields::read(&payload).unwrap();
        assert_eq!(fields.id[8..], [0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff]);
        assert_eq!(fields.hour(), 0x18b1_f000_0000_0000 / HOUR_NS);
        assert_eq!(fields.get(4), Field::Truth(true));
        assert_eq!(fields.get(5), Field::Text("größer"));
        assert_eq!(fields.get(6), Field::Nil);
        assert_eq!([10, 14, 15, 16, 17].map(|n| fields.number(n)), [200, 300, 70_000, 0, 1 << 44]);
        assert_eq!(fields.number(20), i64::MAX, "the largest that a database takes");
        assert_eq!((fields.get(35), fields.get(36)), (Field::Text("1,2"), Field::Nil));
        assert_eq!(fields.number(5), 0, "a text is no number");
    }

    #[test]
    fn a_record_that_is_cut_is_none() {
        let payload = written(&Closed { id: ID, source: "counted", phases: "1", ..Closed::default() });
        assert!(Fields::read(&payload).is_some());
        for end in 0..payload.len() {
            assert!(Fields::read(&payload[..end]).is_none(), "{end}");
        }
    }

    #[test]
    fn older_records_are_filled_in_and_others_are_none() {
        let texts = |texts: &[&str]| {
            let mut payload = Vec::new();
            write_array_len(&mut payload, texts.len() as u32).unwrap();
            texts.iter().for_each(|text| write_str(&mut payload, text).unwrap());
            payload
        };
        let old = texts(&[ID, "w", "k", "chat"]);
        let fields = Fields::read(&old).unwrap();
        assert_eq!((fields.get(4), fields.get(18)), (Field::Truth(false), Field::Text("estimated")));
        for other in [
            &[ID, "w", "k"][..],
            &[ID, "w", "k", "chat", "a text, not whether it streams"],
            &["req_18b1", "w", "k", "chat"],
            &["req_18b1f00000000000aabbccddeefg", "w", "k", "chat"],
            &["abc_18b1f00000000000aabbccddeeff", "w", "k", "chat"],
        ] {
            assert!(Fields::read(&texts(other)).is_none(), "{other:?}");
        }
        assert!(Fields::read(b"no record").is_none());
        assert!(Fields::read(&[&old[..], &[0]].concat()).is_none(), "something behind it");
        assert!(Fields::read(&written(&Closed { id: ID, source: "invented", ..Closed::default() })).is_none());
    }
}
