//! The usage record of a request that has ended, as the journal has it: a msgpack list, its fields in the order of
//! `usage/model.py`, which reads it.

pub mod fields;
pub mod sums;

use rmp::encode::{write_array_len, write_bool, write_nil, write_str, write_uint};

/// Of tokens and millionths in one record, so that sums of half a million of them fit both databases; an upstream may
/// say any number.
pub const LARGEST: u64 = 1 << 44;
const FIELDS: u32 = 36;

/// What was found out about the quality of an answer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scored<'a> {
    /// 0 to 100; None: there is no score.
    pub score: Option<u64>,
    /// Their names.
    pub failed_checks: Option<&'a str>,
    /// What the score comes from.
    pub method: Option<&'a str>,
    /// Why there is none, or not from all of it.
    pub reason: Option<&'a str>,
}

/// One request; see `Record` of `usage/model.py`. Times in microseconds.
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs)] // named there
pub struct Closed<'a> {
    pub id: &'a str,
    pub workspace: &'a str,
    pub key: &'a str,
    pub operation: &'a str,
    pub stream: bool,
    pub model: &'a str,
    pub assistant: Option<&'a str>,
    pub assistant_version: Option<u64>,
    pub upstream: Option<&'a str>,
    pub upstream_model: Option<&'a str>,
    pub status: u16,
    pub code: Option<&'a str>,
    pub error: Option<&'a str>,
    pub attempts: u64,
    /// Of the prompt, of the answer, cached, for thinking.
    pub tokens: [u64; 4],
    pub source: &'a str,
    pub micros: u64,
    pub first_us: Option<u64>,
    pub duration_us: u64,
    pub overhead_us: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub client: Option<&'a str>,
    pub finish: Option<&'a str>,
    pub conversation: Option<&'a str>,
    pub thinking: Option<&'a str>,
    pub scored: Scored<'a>,
    pub phases: &'a str,
}

impl Closed<'_> {
    /// Append the list.
    pub fn encode_into(&self, list: &mut Vec<u8>) {
        let mut list = List(list);
        list.begin();
        list.text(self.id);
        list.text(self.workspace);
        list.text(self.key);
        list.text(self.operation);
        list.truth(self.stream);
        list.text(self.model);
        list.text(self.assistant);
        list.number(self.assistant_version);
        list.text(self.upstream);
        list.text(self.upstream_model);
        list.number(u64::from(self.status));
        list.text(self.code);
        list.text(self.error);
        list.number(self.attempts);
        for tokens in self.tokens {
            list.number(tokens.min(LARGEST));
        }
        list.text(self.source);
        list.number(self.micros.min(LARGEST));
        list.number(self.first_us);
        list.number(self.duration_us);
        list.number(self.overhead_us);
        list.number(self.bytes_in);
        list.number(self.bytes_out);
        list.text(self.client);
        list.text(self.finish);
        list.text(self.conversation);
        // What was reserved: only of one that is open.
        list.number(0);
        list.number(0);
        list.text(self.thinking);
        list.number(self.scored.score);
        list.text(self.scored.failed_checks);
        list.text(self.scored.method);
        list.text(self.scored.reason);
        list.text(self.phases);
    }
}

/// A vector takes all that is written: no result can be an error.
struct List<'a>(&'a mut Vec<u8>);

impl List<'_> {
    fn begin(&mut self) {
        let _ = write_array_len(self.0, FIELDS);
    }

    fn truth(&mut self, value: bool) {
        let _ = write_bool(self.0, value);
    }

    fn number(&mut self, value: impl Into<Option<u64>>) {
        let _ = match value.into() {
            Some(value) => write_uint(self.0, value).map(|_| ()).map_err(|_| ()),
            None => write_nil(self.0).map_err(|_| ()),
        };
    }

    fn text<'t>(&mut self, value: impl Into<Option<&'t str>>) {
        let _ = match value.into() {
            Some(value) => write_str(self.0, value).map_err(|_| ()),
            None => write_nil(self.0).map_err(|_| ()),
        };
    }
}
