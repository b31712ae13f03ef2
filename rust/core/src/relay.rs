//! The one state machine of a streamed answer: events of the upstream in, bytes for the client out.
//!
//! Events are forwarded as the bytes they came in; two things are spliced, the model's name and the usage that
//! the client did not ask for. `Finished` is reached through a terminal marker only.

use crate::chat::logprobs::{self, Logprobs};
use crate::chat::observe::{Chunk, Edit, Invalid, Observed, Rules};
use crate::chat::template::Template;
use crate::chat::thoughts::{Filter, Shown, Thinking};
use crate::chat::{answer, convert, Operation};
use crate::error::Error;
use crate::responses::{Closing, Native, Shape, Shaper};
use crate::sse::decode::{Decoder, Event};
use crate::sse::encode;
use crate::tokens::said::{Place, Shared};
use std::sync::Arc;

/// What a call asked for, as far as its answer is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The endpoint.
    pub operation: Operation,
    /// Goes into each `model` field; `None` leaves what the upstream says.
    pub public_model: Option<String>,
    /// Goes into the `id` of each chunk or of the whole answer; `None` leaves the upstream's.
    pub public_id: Option<String>,
    /// Keep the answer: it is a [`Closing`] in the end, put together from its chunks.
    pub keep: bool,
    /// The client gets a response of the Responses API instead of chunks.
    pub shape: Option<Arc<Shape>>,
    /// What becomes of the thinking; `None`: it passes as it is.
    pub thinking: Option<Thinking>,
    /// What becomes of log-probabilities; `None`: they pass unread.
    pub logprobs: Option<Logprobs>,
    /// Where the texts of the answer are kept, if their tokens may have to be counted.
    pub said: Option<Shared>,
    /// The client did not ask for usage: remove it from chunks, and the chunk that only carries it.
    pub hide_usage: bool,
    /// How many choices were asked for (`n`): an answer with fewer is not complete.
    pub choices: u32,
    /// The largest event, as bytes on the wire.
    pub max_event_bytes: usize,
    /// The largest answer.
    pub max_answer_bytes: u64,
}

/// Where a streamed answer stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// No connection yet, or it is being made.
    Connecting,
    /// The request is on its way; the response's head is awaited.
    Headers,
    /// The head is there; the first event is awaited.
    FirstEvent,
    /// At least one event came.
    Streaming,
    /// The terminal marker came.
    Finished,
    /// An error ended it.
    Failed,
    /// The client is gone.
    Cancelled,
}

impl State {
    /// Is this a way that an answer may go?
    pub fn may_become(self, next: State) -> bool {
        use State::{Cancelled, Connecting, Failed, Finished, FirstEvent, Headers, Streaming};
        match (self, next) {
            (Connecting, Headers) | (Headers, FirstEvent) | (FirstEvent, Streaming) => true,
            // A stream may consist of its marker alone.
            (FirstEvent | Streaming, Finished) => true,
            (Finished | Failed | Cancelled, _) => false,
            (_, Failed | Cancelled) => true,
            _ => false,
        }
    }

    /// Is it over, whichever way?
    pub fn is_final(self) -> bool {
        matches!(self, State::Finished | State::Failed | State::Cancelled)
    }
}

/// What one read brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Events with data, also those that the client does not see. Comments are none: they keep no clock alive.
    pub events: u32,
    /// The terminal marker was seen; what follows it is dropped.
    pub finished: bool,
}

/// One streamed answer.
#[derive(Debug)]
pub struct Relay {
    state: State,
    decoder: Decoder,
    reader: Reader,
    choices: u32,
    max_answer_bytes: u64,
    /// The error event was written.
    reported: bool,
    /// What went to the client, where the answer is kept.
    kept: Option<Vec<u8>>,
}

/// All of a relay that looks into events.
#[derive(Debug)]
struct Reader {
    rules: Rules,
    observed: Observed,
    edits: Vec<Edit>,
    template: Template,
    /// The edits of the template.
    template_edits: Vec<Edit>,
    /// The template's text is thinking.
    template_thinks: bool,
    /// Where it belongs.
    template_place: Place,
    thoughts: Option<Box<Filter>>,
    /// Weighs log-probabilities before anything else looks at a chunk.
    logprobs: Option<Box<logprobs::Reader>>,
    /// Makes a response of it.
    shaper: Option<Box<Shaper>>,
    /// It is a response already.
    native: Option<Box<Native>>,
}

/// What became of one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Nothing in it.
    Blank,
    Event,
    Done,
}

impl Relay {
    /// A relay for one attempt.
    pub fn new(plan: Plan) -> Self {
        let is_native = plan.operation == Operation::Responses;
        let (native, shape) = if is_native { (plan.shape, None) } else { (None, plan.shape) };
        let shows_usage = !plan.hide_usage && shape.is_none();
        let thinking = plan.thinking.filter(|_| plan.operation == Operation::Chat);
        let logprobs = plan.logprobs.filter(|_| plan.operation == Operation::Chat);
        Relay {
            state: State::Connecting,
            decoder: Decoder::new(plan.max_event_bytes),
            reader: Reader {
                rules: Rules::new(
                    plan.operation,
                    plan.public_model.as_deref(),
                    plan.public_id.as_deref(),
                    plan.hide_usage && shape.is_none(),
                ),
                observed: Observed::keeping(plan.said),
                edits: Vec::new(),
                template: Template::default(),
                template_edits: Vec::new(),
                template_thinks: false,
                template_place: Place::default(),
                thoughts: thinking.map(|wanted| Box::new(Filter::new(wanted, shows_usage))),
                logprobs: logprobs.map(|wanted| Box::new(logprobs::Reader::new(wanted))),
                shaper: shape.map(|shape| Box::new(Shaper::new(shape))),
                native: native.map(|shape| Box::new(Native::new(shape))),
            },
            choices: plan.choices,
            max_answer_bytes: plan.max_answer_bytes,
            reported: false,
            kept: plan.keep.then(Vec::new),
        }
    }

    /// Where the answer stands.
    pub fn state(&self) -> State {
        self.state
    }

    /// What was observed so far.
    pub fn observed(&self) -> &Observed {
        &self.reader.observed
    }

    /// The exchange got on: to `Headers`, `FirstEvent`, or `Cancelled`. False, and no change, for a way that
    /// does not exist; `Finished` and `Streaming` are entered by what the upstream sends alone.
    pub fn enter(&mut self, next: State) -> bool {
        let allowed = self.state.may_become(next) && !matches!(next, State::Finished | State::Streaming);
        if allowed {
            self.state = next;
        }
        allowed
    }

    /// Take in one read of the upstream's event stream; what the client gets is appended to `out`, also what
    /// came before an error in the same read. After the end of the answer nothing happens any more.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<Progress, Error> {
        let (mut progress, mut taken) = (Progress::default(), 0);
        if !self.state.is_final() {
            if matches!(self.state, State::Connecting | State::Headers) {
                self.state = State::FirstEvent;
            }
            let left = self.max_answer_bytes - self.reader.observed.bytes;
            taken = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
            self.reader.observed.bytes += taken as u64;
            let before = out.len();
            let mut result = self.take(&bytes[..taken], out, &mut progress);
            self.reader.observed.sent += (out.len() - before) as u64;
            if let Some(kept) = &mut self.kept {
                kept.extend_from_slice(&out[before..]);
            }
            if result.is_ok() && self.state != State::Finished && taken < bytes.len() {
                result = Err(Error::AnswerTooLarge { limit: self.max_answer_bytes });
            }
            if let Err(error) = result {
                self.state = State::Failed;
                return Err(error);
            }
        }
        if self.state == State::Finished {
            self.reader.observed.bytes += (bytes.len() - taken) as u64;
            progress.finished = true;
        }
        Ok(progress)
    }

    fn take(&mut self, bytes: &[u8], out: &mut Vec<u8>, progress: &mut Progress) -> Result<(), Error> {
        let mut events = self.decoder.push(bytes);
        loop {
            let event = match events.next() {
                Ok(Some(event)) => event,
                Ok(None) => return Ok(()),
                Err(too_large) => return Err(Error::EventTooLarge { limit: too_large.limit }),
            };
            match self.reader.next(&event, out)? {
                Step::Blank => {}
                Step::Event => {
                    progress.events += 1;
                    self.state = State::Streaming;
                }
                Step::Done => {
                    self.reader.weigh();
                    self.state = State::Finished;
                    return Ok(());
                }
            }
        }
    }

    /// The upstream's body ended cleanly. Without a marker that is an error: SDKs end silently, so nobody would
    /// learn that the rest is missing.
    pub fn end(&mut self, out: &mut Vec<u8>) -> Result<(), Error> {
        let before = out.len();
        let result = self.close(out);
        self.reader.observed.sent += (out.len() - before) as u64;
        result
    }

    fn close(&mut self, out: &mut Vec<u8>) -> Result<(), Error> {
        if self.state == State::Finished {
            return Ok(());
        }
        let observed = &self.reader.observed;
        if !self.state.is_final() && observed.all_finished(self.choices) {
            self.reader.weigh();
            // Every choice has its finish, so that no text is held back.
            match &mut self.reader.shaper {
                Some(shaper) => shaper.finish(out),
                None => out.extend_from_slice(encode::DONE),
            }
            self.state = State::Finished;
            return Ok(());
        }
        let empty = observed.events == 0 && self.decoder.pending() == 0;
        if !self.state.is_final() {
            self.state = State::Failed;
        }
        Err(if empty { Error::Empty } else { Error::Truncated })
    }

    /// The answer failed: append the one error event that ends it. Nothing is appended a second time, after the
    /// end of a complete answer, or for a client that is gone.
    pub fn fail(&mut self, error: &Error, out: &mut Vec<u8>) {
        if self.reported || matches!(self.state, State::Finished | State::Cancelled) {
            return;
        }
        if *error == Error::Cancelled {
            self.state = State::Cancelled;
            if let Some(shaper) = &mut self.reader.shaper {
                shaper.cancel();
            }
            if let Some(native) = &mut self.reader.native {
                native.cancel();
            }
            return;
        }
        self.state = State::Failed;
        self.reported = true;
        let before = out.len();
        match (&mut self.reader.shaper, &mut self.reader.native) {
            (Some(shaper), _) => shaper.fail(error, out),
            (_, Some(native)) => native.fail(error, out),
            _ => encode::error(error, out),
        }
        self.reader.observed.sent += (out.len() - before) as u64;
    }

    /// How the answer ended, where it is kept or shaped: once, and after its end only.
    pub fn take_closing(&mut self) -> Option<Closing> {
        if let Some(shaper) = &mut self.reader.shaper {
            return shaper.take_closing();
        }
        if let Some(native) = &mut self.reader.native {
            return native.take_closing();
        }
        // Also what came before an answer broke off.
        let kept = self.kept.take().filter(|kept| self.state.is_final() && !kept.is_empty())?;
        convert::joined(&kept).map(|response| Closing { response, event: Vec::new() })
    }
}

impl Reader {
    /// What the log-probabilities of a complete answer say.
    fn weigh(&mut self) {
        if let Some(logprobs) = &self.logprobs {
            self.observed.certainty = Some(logprobs.certainty());
        }
    }

    #[inline]
    fn next(&mut self, event: &Event<'_>, out: &mut Vec<u8>) -> Result<Step, Error> {
        let changed = self.logprobs.as_mut().and_then(|logprobs| logprobs.take(event.data));
        match changed {
            None => self.event(event, out),
            Some(data) => self.changed_event(event, &data, out),
        }
    }

    /// An event whose data is another than the one that came: from here on as if it had come so.
    fn changed_event(&mut self, event: &Event<'_>, data: &[u8], out: &mut Vec<u8>) -> Result<Step, Error> {
        let mut raw = Vec::with_capacity(event.raw.len());
        match event.data_at {
            Some(at) => {
                raw.extend_from_slice(&event.raw[..at]);
                raw.extend_from_slice(data);
                raw.extend_from_slice(&event.raw[at + event.data.len()..]);
            }
            None => encode::event(event.event, data, &mut raw),
        }
        self.event(&Event { data, raw: &raw, ..*event }, out)
    }

    fn event(&mut self, event: &Event<'_>, out: &mut Vec<u8>) -> Result<Step, Error> {
        if event.event == Some(b"error") {
            return Err(answer::in_band(event.data));
        }
        // Below nine bytes more than its data, nothing but `data: ` and line ends can be in it.
        if event.raw.len() > event.data.len() + 8 && simdutf8::basic::from_utf8(event.raw).is_err() {
            return Err(Error::InvalidUtf8);
        }
        if let Some(native) = &mut self.native {
            if event.data.trim_ascii().is_empty() {
                return Ok(Step::Blank);
            }
            let ended = native.event(event, &mut self.observed, out)?;
            return Ok(if ended { Step::Done } else { Step::Event });
        }
        if self.repeats(event, out)? {
            return Ok(Step::Event);
        }
        let data = event.data.trim_ascii();
        if data.is_empty() {
            // Some servers keep the connection alive with it; clients that parse it would fail.
            return Ok(Step::Blank);
        }
        if data == b"[DONE]" {
            let held = self.thoughts.as_mut().and_then(|thoughts| thoughts.flush(&mut self.observed));
            if let Some(held) = held {
                self.write_changed(None, &held, out)?;
            }
            match &mut self.shaper {
                Some(shaper) => shaper.finish(out),
                None => event.write_raw(out),
            }
            return Ok(Step::Done);
        }
        let chunk = match self.rules.read(event.data, &mut self.observed, &mut self.edits) {
            Err(Invalid::Utf8) => return Err(Error::InvalidUtf8),
            Err(Invalid::Json) => return Err(Error::InvalidEvent),
            Ok(chunk) if chunk.error => return Err(answer::in_band(event.data)),
            Ok(chunk) => chunk,
        };
        self.observed.events += 1;
        if self.rules.drops(&chunk) {
            return Ok(Step::Event);
        }
        match self.shown(event.data, &chunk)? {
            Shown::Same => match &mut self.shaper {
                Some(shaper) => shaper.chunk(event.data, out)?,
                None => self.write(event, out),
            },
            Shown::Nothing => {}
            Shown::Changed(data) => self.write_changed(event.event, &data, out)?,
        }
        if let (Some(payload), 1, false, false) = (chunk.payload.clone(), chunk.choices, chunk.finish, chunk.usage) {
            if event.data_at.is_some() && self.template.learn(event.data, payload) {
                std::mem::swap(&mut self.template_edits, &mut self.edits);
                self.template_thinks = chunk.thinks;
                self.template_place = chunk.place();
                if let Some(thoughts) = &mut self.thoughts {
                    thoughts.learn();
                }
            }
        }
        Ok(Step::Event)
    }

    /// What the client gets of a chunk, as far as thinking is concerned.
    fn shown(&mut self, data: &[u8], chunk: &Chunk) -> Result<Shown, Error> {
        let Some(thoughts) = &mut self.thoughts else { return Ok(Shown::Same) };
        let shown = thoughts.chunk(data, chunk.payload.as_ref(), chunk.usage, &mut self.observed);
        if thoughts.is_done() {
            self.thoughts = None;
        }
        shown.map_err(|_| Error::InvalidEvent)
    }

    /// A chunk that is another than the one that came. Its model and so on have other places.
    fn write_changed(&mut self, name: Option<&[u8]>, data: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
        if let Some(shaper) = &mut self.shaper {
            return shaper.chunk(data, out);
        }
        let (mut edits, mut changed) = (Vec::new(), Vec::with_capacity(data.len() + 64));
        self.rules.read(data, &mut Observed::default(), &mut edits).map_err(|_| Error::InvalidEvent)?;
        self.rules.splice(data, &edits, usize::MAX, 0, &mut changed);
        encode::event(name, &changed, out);
        Ok(())
    }

    fn write(&self, event: &Event<'_>, out: &mut Vec<u8>) {
        if self.edits.is_empty() {
            event.write_raw(out);
            return;
        }
        match event.data_at {
            Some(at) => {
                out.extend_from_slice(&event.raw[..at]);
                self.rules.splice(event.data, &self.edits, usize::MAX, 0, out);
                out.extend_from_slice(&event.raw[at + event.data.len()..]);
                out.extend_from_slice(event.rest_of_end());
            }
            None => {
                let mut data = Vec::with_capacity(event.data.len());
                self.rules.splice(event.data, &self.edits, usize::MAX, 0, &mut data);
                encode::event(event.event, &data, out);
            }
        }
    }

    /// The fast way: true if the event is the template but for its text, and was passed on.
    fn repeats(&mut self, event: &Event<'_>, out: &mut Vec<u8>) -> Result<bool, Error> {
        let (template, data) = (&self.template, event.data);
        let (Some(at), Some(text)) = (event.data_at, template.text(data)) else { return Ok(false) };
        let shows = match &mut self.thoughts {
            None => true,
            Some(thoughts) => match thoughts.repeats(text.raw()) {
                Some(shows) => shows,
                None => return Ok(false),
            },
        };
        self.observed.generated(text.raw(), self.template_thinks);
        self.observed.says(self.template_place, text.raw());
        self.observed.events += 1;
        if !shows {
            return Ok(true);
        }
        if let Some(shaper) = &mut self.shaper {
            shaper.chunk(data, out)?;
            return Ok(true);
        }
        if self.template_edits.is_empty() {
            event.write_raw(out);
            return Ok(true);
        }
        let moved_by = data.len() as isize - template.len() as isize;
        out.extend_from_slice(&event.raw[..at]);
        self.rules.splice(data, &self.template_edits, template.payload_end(), moved_by, out);
        out.extend_from_slice(&event.raw[at + data.len()..]);
        out.extend_from_slice(event.rest_of_end());
        Ok(true)
    }
}
