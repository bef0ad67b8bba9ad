//! The loop: events in, outputs out, one flush per connection and batch.

use std::future::pending;
use std::sync::Arc;

use atomix_protocol::{LinkId, LocalTime};
use atomix_session::core::{Input, Output};
use atomix_transport::{LinkEvent, Links};
use tokio::time::{Instant, sleep_until};
use tracing::debug;

use crate::clock::now;
use crate::session::{Inner, Shared, Sinks};

/// Most events taken before their outputs are carried out.
const EVENTS_PER_TURN: usize = 256;

pub(crate) struct Driver {
    shared: Arc<Shared>,
    links: Links,
}

impl Driver {
    pub(crate) fn new(shared: Arc<Shared>, links: Links) -> Self {
        Driver { shared, links }
    }

    /// Runs until the session is over.
    pub(crate) async fn run(mut self) {
        let mut deadline = self.turn(None);
        while let Some(until) = deadline {
            let shared = self.shared.clone();
            let event = tokio::select! {
                event = self.links.next() => Some(event),
                () = shared.wake.notified() => None,
                () = alarm(until) => None,
            };
            deadline = self.turn(event);
        }
        self.links.close_all().await;
    }

    /// One batch. Returns when the next one is due at the latest; nothing once the session is over.
    fn turn(&mut self, event: Option<LinkEvent>) -> Option<Deadline> {
        let shared = self.shared.clone();
        let mut inner = shared.inner.lock();
        let now = now();
        let mut next = event;
        for _ in 0..EVENTS_PER_TURN {
            let Some(event) = next.or_else(|| self.links.try_next()) else { break };
            take(&mut inner, now, event);
            next = None;
        }
        if inner.core.next_deadline().is_some_and(|deadline| deadline <= now) {
            inner.core.step(now, Input::Tick);
        }
        for output in inner.core.drain(now) {
            match inner.complete(output, &shared) {
                Some(Output::Dial(link, address)) => self.links.dial(link.0, address.as_str()),
                Some(Output::Send(link, frame)) => self.links.send(link.0, frame),
                Some(Output::Close(link)) => self.links.close(link.0),
                _ => {}
            }
        }
        let over = inner.core.state().is_final();
        let deadline = inner.core.next_deadline();
        let sinks = if over { std::mem::take(&mut inner.sinks) } else { Sinks::new() };
        drop(inner);
        drop(sinks);
        self.links.flush();
        (!over).then_some(Deadline { now, at: deadline })
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.shared.abandon();
    }
}

#[derive(Clone, Copy)]
struct Deadline {
    now: LocalTime,
    at: Option<LocalTime>,
}

async fn alarm(deadline: Deadline) {
    match deadline.at {
        Some(at) => sleep_until(Instant::now() + at.since(deadline.now)).await,
        None => pending().await,
    }
}

fn take(inner: &mut Inner, now: LocalTime, event: LinkEvent) {
    match event {
        LinkEvent::Dialed(link) => inner.core.step(now, Input::Dialed(LinkId(link))),
        LinkEvent::Frames(link, frames) => {
            for frame in frames {
                inner.core.step(now, Input::Frame(LinkId(link), frame));
            }
        }
        LinkEvent::Closed(link, error) => {
            debug!(link, %error, "link closed");
            inner.trouble = error.to_string();
            inner.core.step(now, Input::Closed(LinkId(link)));
        }
        // Nobody connects to a client: it does not listen.
        LinkEvent::Accepted(connection) => drop(connection),
    }
}
