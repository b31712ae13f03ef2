//! An open stream must stay small: five thousand of them at once are what one worker is made for.

use sluicegate_core::{
    upstream::{
        exchange::{self, Reply, Sink},
        outlet::{Cancel, Outlet},
        target::Target,
    },
    Error,
};
use std::sync::Arc;

struct Nobody;

impl Sink for Nobody {
    fn reply(&self, _: Result<Reply, Error>) {}
    fn ready(&self, _: &Arc<Outlet>) {}
}

fn size_of_future<F>(_: fn(Arc<Target>, exchange::Call, Arc<Cancel>, &'static Nobody) -> F) -> usize {
    std::mem::size_of::<F>()
}

#[test]
fn a_running_call_is_small() {
    let size = size_of_future(exchange::run::<Nobody>);
    // 4,928 bytes before the phases that are soon over were boxed.
    assert!(size <= 3072, "the state of a call takes {size} bytes");
}
