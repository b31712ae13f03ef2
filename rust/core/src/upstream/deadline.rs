//! The clocks of one call: connect, first event, idle and total, on one timer.

use crate::error::{Clock, Error};
use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::{Instant, Sleep};

/// The limits of one upstream; see `docs/reference/settings.md`.
#[derive(Clone, Copy, Debug)]
pub struct Clocks {
    /// Name look-up, TCP connect and TLS handshake together.
    pub connect: Duration,
    /// From the request to the first event, or to the head of a plain answer.
    pub first_event: Duration,
    /// Between events, or between two parts of a plain answer.
    pub idle: Duration,
    /// The whole call.
    pub total: Duration,
}

/// What happened when the timer fired.
pub enum Expiry {
    /// Silence for as long as the keep-alive setting: a comment is due.
    Tick,
    /// A clock ran out.
    Over(Error),
}

/// One timer for whichever clock runs out first.
///
/// A new event only moves a number (`touch`); the timer finds out when it fires. So a chunk costs one reading
/// of the clock, not a change of the timer wheel.
pub struct Deadline {
    clocks: Clocks,
    started: Instant,
    phase: Clock,
    phase_ends: Instant,
    // (interval, next)
    tick: Option<(Duration, Instant)>,
    sleep: Pin<Box<Sleep>>,
}

impl Deadline {
    /// Starts all clocks, in the phase before the first event. `tick` of zero means no keep-alive.
    pub fn start(clocks: Clocks, tick: Duration) -> Self {
        let started = Instant::now();
        let mut deadline = Deadline {
            clocks,
            started,
            phase: Clock::FirstEvent,
            phase_ends: started + clocks.first_event,
            tick: (!tick.is_zero()).then(|| (tick, started + tick)),
            sleep: Box::pin(tokio::time::sleep_until(started)),
        };
        let next = deadline.next();
        deadline.sleep.as_mut().reset(next);
        deadline
    }

    /// When the call began.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// From now on the idle clock runs; called for each event. `seen`: the client got something of it.
    pub fn touch(&mut self, seen: bool) {
        let now = Instant::now();
        self.phase = Clock::Idle;
        self.phase_ends = now + self.clocks.idle;
        if let Some((interval, next)) = self.tick.as_mut().filter(|_| seen) {
            *next = now + *interval;
        }
        // The timer must not sleep on until the end of a longer phase. Later ends it finds out by itself.
        let next = self.next();
        if next < self.sleep.deadline() {
            self.sleep.as_mut().reset(next);
        }
    }

    /// While the client is slow, the upstream is not read, so its silence says nothing: only the total clock runs,
    /// until the next `touch`.
    pub fn suspend(&mut self) {
        self.phase_ends = self.started + self.clocks.total;
        if let Some((_, next)) = &mut self.tick {
            *next = self.phase_ends;
        }
    }

    /// What connecting may take: its own clock, or less where the call has less left.
    pub fn connect_by(&self) -> Instant {
        (Instant::now() + self.clocks.connect).min(self.ends())
    }

    fn ends(&self) -> Instant {
        self.phase_ends.min(self.started + self.clocks.total)
    }

    fn next(&self) -> Instant {
        let ends = self.ends();
        self.tick.map_or(ends, |(_, next)| ends.min(next))
    }

    /// Ready when a clock ran out or a keep-alive is due.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Expiry> {
        loop {
            if self.sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            let now = Instant::now();
            if now >= self.ends() {
                return Poll::Ready(Expiry::Over(self.expired()));
            }
            if let Some((interval, next)) = &mut self.tick {
                if now >= *next {
                    *next = now + *interval;
                    return Poll::Ready(Expiry::Tick);
                }
            }
            let next = self.next();
            self.sleep.as_mut().reset(next);
        }
    }

    /// The error of the clock that ends first.
    fn expired(&self) -> Error {
        let total_ends = self.started + self.clocks.total;
        let clock = if total_ends <= self.phase_ends { Clock::Total } else { self.phase };
        let after = match clock {
            Clock::Connect => self.clocks.connect,
            Clock::FirstEvent => self.clocks.first_event,
            Clock::Idle => self.clocks.idle,
            Clock::Total => self.clocks.total,
        };
        Error::Timeout { clock, after }
    }
}
