//! What users do and what they are told, against what was done.

use std::collections::BTreeMap;
use std::time::Duration;

use atomix_protocol::client::Consistency;
use atomix_protocol::{ClusterId, Index, Sequence};
use atomix_session::{NotDone, Outcome, SessionError, SessionState};
use bytes::Bytes;

use super::machine::command_of;
use super::{Command, Query, World};

impl World {
    pub(crate) fn submit(
        &mut self,
        client: usize,
        body: &str,
        deadline: Option<Duration>,
    ) -> Option<Sequence> {
        self.submit_to(client, 0, body, deadline)
    }

    /// Submits a command of an instance; zero for none.
    pub(crate) fn submit_to(
        &mut self,
        client: usize,
        instance: u64,
        body: &str,
        deadline: Option<Duration>,
    ) -> Option<Sequence> {
        let now = self.now(client);
        // As from `Drop`: such a command is never given up, so it does not end while every one is refused.
        let detached = self.below(8) == 0 && deadline.is_none() && self.weather.refusals < 1_000;
        let body = Bytes::copy_from_slice(body.as_bytes());
        let deadline = deadline.map(|within| now + within);
        let limited = deadline.is_some();
        let (core, command) = (&mut self.clients[client].core, command_of(instance, &body));
        let result =
            if detached { core.submit_detached(now, command) } else { core.submit(now, command, deadline) };
        let sequence = match result {
            Ok(sequence) => sequence,
            Err(NotDone::Busy) => {
                self.met.window_full += 1;
                return None;
            }
            Err(_) => return None,
        };
        let command = Command { instance, body, limited, refused: false, end: None };
        let earlier = self.clients[client].commands.insert(sequence, command);
        assert!(earlier.is_none(), "S2: a sequence is given once");
        self.drain(client);
        Some(sequence)
    }

    pub(crate) fn query(
        &mut self,
        client: usize,
        consistency: Consistency,
        deadline: Option<Duration>,
    ) -> Option<u64> {
        let now = self.now(client);
        let deadline = deadline.map(|within| now + within);
        let number =
            self.clients[client].core.query(now, Bytes::from_static(b"q"), consistency, deadline).ok()?;
        let told = self.clients[client].told;
        let after = if consistency == Consistency::Linearizable { self.done.max(told) } else { told };
        let last = self.clients[client].commands.keys().next_back().copied().unwrap_or(Sequence::ZERO);
        let after_sequence = if consistency == Consistency::Causal { Sequence::ZERO } else { last };
        self.clients[client].queries.insert(number, Query { consistency, after, after_sequence, end: None });
        self.drain(client);
        Some(number)
    }

    pub(crate) fn close(&mut self, client: usize) {
        let now = self.now(client);
        self.clients[client].core.close(now);
        self.drain(client);
    }

    pub(crate) fn request_status(&mut self, client: usize) {
        let now = self.now(client);
        self.clients[client].core.request_status(now);
        self.drain(client);
    }

    pub(super) fn completed(
        &mut self,
        client: usize,
        sequence: Sequence,
        result: Result<Outcome, SessionError>,
    ) {
        let of = &mut self.clients[client];
        let command = of.commands.get_mut(&sequence).expect("it was submitted");
        assert!(command.end.is_none(), "{sequence} ends once");
        if let Ok(outcome) = &result {
            let index = outcome.index;
            of.told = of.told.max(index);
            self.done = self.done.max(outcome.index);
            self.met.refused_but_done += u64::from(command.refused);
        }
        self.met.unknown += u64::from(matches!(result, Err(SessionError::Unknown(_))));
        self.met.skipped += u64::from(matches!(result, Err(SessionError::NotDone(NotDone::Busy))));
        if !command.limited {
            let earlier = of.last_ended.insert(command.instance, sequence);
            assert!(earlier < Some(sequence), "S11: {sequence} ends after {earlier:?}");
        }
        command.end = Some(result.clone());
        if let Ok(outcome) = result {
            self.check_events_before(client, outcome.index);
        }
    }

    pub(super) fn answered(&mut self, client: usize, number: u64, result: Result<Outcome, SessionError>) {
        let of = &mut self.clients[client];
        let query = of.queries.get_mut(&number).expect("it was asked");
        assert!(query.end.is_none(), "query {number} ends once");
        if let Ok(outcome) = &result {
            assert!(outcome.index >= of.told, "Q2: back in time, {} after {}", outcome.index, of.told);
            assert!(outcome.index >= query.after, "Q1, Q3: {:?} misses {}", query.consistency, query.after);
            of.told = outcome.index;
        }
        query.end = Some(result.clone());
        if let Ok(outcome) = result {
            self.check_events_before(client, outcome.index);
        }
    }

    pub(crate) fn is_quiet(&self) -> bool {
        self.clients.iter().all(|client| {
            client.commands.values().all(|command| command.end.is_some())
                && client.queries.values().all(|query| query.end.is_some())
        }) && (0..self.clients.len()).all(|client| self.has_all_events(client))
    }

    /// E4: a client does not end its session by itself: what is told of it is true.
    pub(super) fn check_expiry(&self, client: usize, state: SessionState) {
        let Some(session) = self.clients[client].session else { return };
        let open = self.servers[self.leader].table.session(session).is_some();
        let moved = self.cluster != ClusterId(1);
        assert!(state != SessionState::Expired || !open || moved, "session {session} is open");
    }

    /// S3, S5, S11, Q1: what callers were told against what was done.
    pub(crate) fn check_outcomes(&mut self) {
        self.settle();
        let digests: Vec<_> = self.servers.iter().map(|server| server.table.digest()).collect();
        assert!(digests.iter().all(|digest| *digest == digests[0]), "servers differ: {digests:?}");
        let ledger = self.servers[0].machine.0.clone();
        for client in &self.clients {
            self.met.resent += client.core.retries();
            self.met.events_deduplicated += client.core.events_deduplicated();
            let mine: Vec<_> =
                ledger.applied.iter().filter(|done| Some(done.session) == client.session).collect();
            let order = mine.windows(2).all(|pair| pair[0].sequence < pair[1].sequence);
            assert!(order, "S3, S11: once each, in order of submission");
            let done: BTreeMap<_, _> = mine.iter().map(|done| (Sequence(done.sequence), *done)).collect();
            for (sequence, command) in &client.commands {
                match (&command.end, done.get(sequence)) {
                    (Some(Ok(outcome)), Some(done)) => {
                        assert_eq!((outcome.index, &command.body), (Index(done.index), &done.command));
                        assert_eq!(outcome.body, crate::ledger::reply(done.index, &command.body));
                    }
                    (Some(Ok(_)), None) => panic!("S5: {sequence} was told to be done, and was not"),
                    (Some(Err(SessionError::NotDone(_))), Some(_)) => panic!("S5: {sequence} was done"),
                    (Some(Err(_)), _) => {}
                    (None, _) => panic!("{sequence} never ended"),
                }
            }
            for query in client.queries.values() {
                let Some(Ok(outcome)) = &query.end else { continue };
                let seen =
                    done.range(..=query.after_sequence).all(|(_, done)| Index(done.index) <= outcome.index);
                assert!(seen, "Q1: {:?} does not see what was submitted before", query.consistency);
            }
        }
    }
}
