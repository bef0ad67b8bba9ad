//! What a test does with the clients of a world.

use atomix_protocol::client::Consistency;
use atomix_protocol::{Sequence, SessionId};
use bytes::Bytes;

use crate::world::{CLIENTS, Ending, World};

impl World {
    pub(crate) fn submit(&mut self, client: usize, command: &str) -> Sequence {
        let command = Bytes::copy_from_slice(command.as_bytes());
        let sequence = self.clients[client].core.submit(self.now, command, None).expect("room");
        self.drain(CLIENTS + client);
        sequence
    }

    /// Submits, and waits for the reply.
    pub(crate) fn write(&mut self, client: usize, command: &str) -> String {
        let sequence = self.submit(client, command);
        self.until("a reply", |world| world.clients[client].endings.contains_key(&sequence.0));
        words(&self.clients[client].endings[&sequence.0])
    }

    pub(crate) fn ask(&mut self, client: usize, consistency: Consistency) -> u64 {
        let number =
            self.clients[client].core.query(self.now, Bytes::new(), consistency, None).expect("room");
        self.drain(CLIENTS + client);
        number
    }

    pub(crate) fn read(&mut self, client: usize, consistency: Consistency) -> String {
        let number = self.ask(client, consistency);
        self.until("an answer", |world| world.clients[client].answers.contains_key(&number));
        words(&self.clients[client].answers[&number])
    }

    pub(crate) fn session(&mut self, client: usize) -> SessionId {
        self.until("a session", |world| world.clients[client].core.session().is_some());
        self.clients[client].core.session().expect("just seen")
    }
}

/// How a command or a query ended, for comparing.
pub(crate) fn words(ending: &Ending) -> String {
    match ending {
        Ok(outcome) => String::from_utf8_lossy(&outcome.body).into_owned(),
        Err(error) => error.to_string(),
    }
}
