//! Histories of the client side: one client core against crafted frames.

use std::time::Duration;

use atomix_protocol::client::{
    AnswerHeader, Attached, ClientRequest, ClientResponse, Consistency, EventHeader, Opened,
};
use atomix_protocol::codec::Frame;
use atomix_protocol::handshake::{Hello, Role};
use atomix_protocol::{
    BootNonce, ClientId, ClusterId, GroupId, Incarnation, Index, InstanceId, LinkId, LocalTime, Sequence,
    ServerId, SessionId, SessionKey,
};
use atomix_session::core::{Core, Input, Options, Output};
use bytes::Bytes;

const SESSION: SessionId = SessionId(3);
const TIMEOUT: Duration = Duration::from_secs(3);
const DRIFT: f64 = 0.05;
const ATTEMPT: u64 = 4;
const MAIN: LinkId = LinkId(1);
const READER: LinkId = LinkId(2);
/// Nothing that is waited for takes more steps.
const STEPS: usize = 20;

/// Events are delivered, and nobody takes them from the stream that they are queued for: the next keep-alive acknowledges them all the
/// same, or a slow reader would cost its session (E3).
///
/// # Errors
/// `E3` if it does not.
pub fn slow_handler() -> Result<(), String> {
    let mut client = Client::connected();
    client.event(10, 0);
    client.event(12, 10);
    let delivered = client.core.drain(client.now);
    let events = delivered.iter().filter(|output| matches!(output, Output::Event { .. })).count();
    if events != 2 {
        return Err(format!("I11: {events} of 2 events were delivered"));
    }
    for _ in 0..STEPS {
        client.pass();
        for request in client.requests() {
            if let ClientRequest::KeepAlive(keep_alive) = request {
                let acknowledged = keep_alive.acknowledged_event;
                return if acknowledged == Index(12) {
                    Ok(())
                } else {
                    Err(format!("E3: delivered through 12, acknowledged through {acknowledged}"))
                };
            }
        }
    }
    Err("E3: no keep-alive".into())
}

/// A server sends events again that it has sent before: they are dropped (E4).
///
/// # Errors
/// `I11` if one is delivered twice.
pub fn events_sent_again() -> Result<(), String> {
    let mut client = Client::connected();
    for (index, previous) in [(10, 0), (12, 10), (10, 0), (12, 10), (13, 12)] {
        client.event(index, previous);
    }
    let index = |output| match output {
        Output::Event { index, .. } => Some(index.0),
        _ => None,
    };
    let delivered: Vec<_> = client.core.drain(client.now).into_iter().filter_map(index).collect();
    if delivered == [10, 12, 13] { Ok(()) } else { Err(format!("I11: events {delivered:?} were delivered")) }
}

/// A server that lags behind answers a read from before an event that the client has: the read is repeated (Q2).
///
/// # Errors
/// `I10` if it is believed.
pub fn read_from_before_an_event() -> Result<(), String> {
    let mut client = Client::connected();
    client.greet(READER);
    let (timeout_ms, last_sequence) = (TIMEOUT.as_millis() as u64, Sequence::ZERO);
    client
        .respond(READER, ClientResponse::Attached(Attached { session: SESSION, timeout_ms, last_sequence }));
    client
        .core
        .query(client.now, Bytes::new(), Consistency::Sequential, None)
        .map_err(|error| error.to_string())?;
    let ticket = |request| match request {
        ClientRequest::Query(header, _) => Some(header.ticket),
        _ => None,
    };
    let ticket = client.requests().into_iter().find_map(ticket).ok_or("Q1: the read is not sent")?;
    client.event(12, 0);
    let header = AnswerHeader { ticket, index: Index(11), event_index: Index::ZERO };
    client.respond(READER, ClientResponse::Answer(header, Bytes::new()));
    match client.core.drain(client.now).iter().any(|output| matches!(output, Output::Answered(..))) {
        false => Ok(()),
        true => Err("I10: a read at 11 after an event at 12".into()),
    }
}

/// A contact is confirmed long after it was sent: what it promises counts from before its sending, because the leader may have heard
/// it then, and counts from there (L2).
///
/// # Errors
/// `I20` if the session is relied on for longer.
pub fn confirmed_late() -> Result<(), String> {
    let mut client = Client::connected();
    let keep_alive = |request: ClientRequest| match request {
        ClientRequest::KeepAlive(keep_alive) => Some(keep_alive.contact),
        _ => None,
    };
    for _ in 0..STEPS {
        client.pass();
        if let Some(contact) = client.requests().into_iter().find_map(keep_alive) {
            let safe = client.now + TIMEOUT.mul_f64((1.0 - DRIFT) / (1.0 + DRIFT));
            client.now = client.now + Duration::from_millis(200);
            client.respond(MAIN, ClientResponse::Confirmed { contact });
            let relied_on = client.core.valid_until();
            return if relied_on <= safe {
                Ok(())
            } else {
                Err(format!("I20: relied on until {relied_on:?}, ended at {safe:?} at the earliest"))
            };
        }
    }
    Err("S6: no keep-alive".into())
}

struct Client {
    core: Core,
    now: LocalTime,
}

impl Client {
    /// A client with a session on its main link, which may have a read link too.
    fn connected() -> Self {
        let options = Options {
            client: ClientId(1),
            key: SessionKey(2),
            attempt: ATTEMPT,
            servers: vec!["leader".into()],
            session_timeout: TIMEOUT,
            connect_timeout: Duration::from_secs(10),
            handshake_timeout: Duration::from_secs(5),
            window: 16,
            reserve: 4,
            command_bytes: 1_000,
            clock_drift: DRIFT,
            read_from: Some("follower".into()),
        };
        let now = LocalTime::from_millis(1_000);
        let mut client = Client { core: Core::new(options, 1, now), now };
        client.greet(MAIN);
        let timeout_ms = TIMEOUT.as_millis() as u64;
        client
            .respond(MAIN, ClientResponse::Opened(Opened { attempt: ATTEMPT, session: SESSION, timeout_ms }));
        client.respond(MAIN, ClientResponse::Confirmed { contact: 1 });
        client.core.drain(now);
        client
    }

    fn greet(&mut self, link: LinkId) {
        let hello = Hello {
            role: Role::Server,
            server: Some(ServerId(1)),
            incarnation: Incarnation(1),
            ..Hello::of_client(Some(ClusterId(1)), BootNonce(1))
        };
        self.core.step(self.now, Input::Dialed(link));
        self.core.step(self.now, Input::Frame(link, Frame::Hello(hello).encode(GroupId::DEFAULT)));
    }

    fn respond(&mut self, link: LinkId, response: ClientResponse) {
        let frame = Frame::Response(response).encode(GroupId::DEFAULT);
        self.core.step(self.now, Input::Frame(link, frame));
    }

    /// An event for the instance 5 arrives.
    fn event(&mut self, index: u64, previous: u64) {
        let (index, previous) = (Index(index), Index(previous));
        let (bodies, parts) = (vec![0], vec![(InstanceId(5), 0)]);
        let header = EventHeader { index, previous, atomic: false, bodies, parts };
        self.respond(MAIN, ClientResponse::Event(header, Bytes::new()));
    }

    /// Time passes up to whatever is due next.
    fn pass(&mut self) {
        self.now = self.core.next_deadline().unwrap_or(self.now);
        self.core.step(self.now, Input::Tick);
    }

    fn requests(&mut self) -> Vec<ClientRequest> {
        let request = |output| match output {
            Output::Send(_, frame) => match Frame::decode(&frame) {
                Ok(Frame::Request(request)) => Some(request),
                _ => None,
            },
            _ => None,
        };
        self.core.drain(self.now).into_iter().filter_map(request).collect()
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn they_pass_as_shipped() {
        assert_eq!(super::slow_handler(), Ok(()));
        assert_eq!(super::events_sent_again(), Ok(()));
        assert_eq!(super::read_from_before_an_event(), Ok(()));
        assert_eq!(super::confirmed_late(), Ok(()));
    }
}
