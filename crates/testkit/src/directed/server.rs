//! Histories of the server side: one engine with its disk, whose clients and peers the history plays.

mod lone;

use std::time::Duration;

use atomix_protocol::client::{ClientRequest, ClientResponse, Consistency, QueryHeader};
use atomix_protocol::{LinkId, Sequence, SessionId};
use atomix_raft::Role;
use bytes::Bytes;

use self::lone::{Peer, Server, TIMEOUT_MS, User};

/// A session expires while a command of it is on its way into the log, right behind the expiry. A replica that applied both as they
/// were committed and one that replays them must be in the same state (B28).
///
/// # Errors
/// `I5` if they are not, or what went wrong before.
pub fn expired_then_replayed() -> Result<(), String> {
    let mut server = Server::new(1);
    server.lead()?;
    let user = server.open(1)?;
    server.command(user, 1, "before");
    let logged = server.last_index();
    let end = server.now + Duration::from_millis(3 * TIMEOUT_MS);
    while server.last_index() == logged {
        server.tick()?;
        if server.now > end {
            return Err("nothing expires the session".into());
        }
    }
    // The expiry is in the log, and not committed before the command is there too.
    server.command_unwritten(user, 2, "behind");
    server.work();
    if server.last_index() != logged.plus(2)
        || !server.told(user.link, |told| matches!(told, ClientResponse::Ended { .. }))
    {
        return Err("the command does not stand behind an expiry".into());
    }
    let live = server.lines();
    server.restart();
    server.lead()?;
    match server.lines() {
        replayed if replayed == live => Ok(()),
        replayed => Err(format!(
            "I5: replicas differ at {}: {live} as committed, {replayed} as replayed",
            logged.plus(2)
        )),
    }
}

/// A session falls silent, and nothing of what its leader decides reaches the disk: no entry is committed (B27).
///
/// # Errors
/// `I21` if the leader's table loses the session all the same.
pub fn silence_without_a_commit() -> Result<(), String> {
    let mut server = Server::new(1);
    server.lead()?;
    let user = server.open(1)?;
    let committed = server.engine.table().applied().0;
    let end = server.now + Duration::from_millis(3 * TIMEOUT_MS);
    while server.now < end {
        server.tick()?;
        if server.engine.table().session(user.session).is_none() {
            return Err(format!(
                "I21: session {} ended, and {committed} is the last entry committed",
                user.session
            ));
        }
    }
    Ok(())
}

/// A read comes to a server that has not applied what its client has seen elsewhere (B32).
///
/// # Errors
/// `I10` if it is answered.
pub fn read_of_an_older_state() -> Result<(), String> {
    let mut server = Server::new(1);
    server.lead()?;
    let user = server.open(1)?;
    let (consistency, after_sequence) = (Consistency::Causal, Sequence::ZERO);
    let after_index = server.last_index().next();
    let header = QueryHeader { ticket: 1, consistency, after_index, after_sequence };
    server.ask(user.link, ClientRequest::Query(header, Bytes::new()));
    match server.told(user.link, |told| matches!(told, ClientResponse::Answer(..))) {
        true => Err(format!("I10: a read that must see {after_index} was answered before")),
        false => Ok(()),
    }
}

/// An atomic write is retried on a new link while the session that it tells of it has not acknowledged (C05).
///
/// # Errors
/// `E6` if the retry is answered before, or not at all afterwards.
pub fn retry_of_an_atomic_write() -> Result<(), String> {
    let mut server = Server::new(1);
    server.lead()?;
    let (watcher, mut writer) = (server.open(1)?, server.open(2)?);
    server.command(watcher, 1, "watch");
    server.command(writer, 1, "tell");
    let index = server.last_index();
    let replied = |told: &ClientResponse| matches!(told, ClientResponse::Reply(..));
    if server.told(writer.link, replied) {
        return Err(format!("E6: the reply of {index} did not wait"));
    }
    server.attach(&mut writer);
    server.command(writer, 1, "tell");
    if server.told(writer.link, replied) {
        let session = watcher.session;
        return Err(format!("E6: a retry was answered, and session {session} had not acknowledged {index}"));
    }
    server.ask(watcher.link, ClientRequest::Acknowledge { event: index });
    server
        .told(writer.link, replied)
        .then_some(())
        .ok_or_else(|| format!("E6: the reply of {index} never came"))
}

/// A leader that no longer reaches any other server gets a keep-alive: another one may lead by now, and may expire the session (C01).
///
/// # Errors
/// `I20` if it confirms the contact.
pub fn keep_alive_without_a_majority() -> Result<(), String> {
    let mut server = Server::new(3);
    server.peer = Peer::Follows;
    server.lead()?;
    let user = server.open(1)?;
    server.peer = Peer::Silent;
    server.keep_alive(user);
    server.pass(Duration::from_millis(200))?;
    not_confirmed(&server, user)
}

/// A new leader holds the expiry of a session that an earlier leader may have committed, and has not committed anything of its own
/// term: what it has applied says that the session is open (C02).
///
/// # Errors
/// `I20` if it confirms a contact of that session.
pub fn keep_alive_before_the_own_no_op() -> Result<(), String> {
    let mut server = Server::new(3);
    let session = SessionId(1);
    server.follow(session);
    server.peer = Peer::Votes;
    server.pass_until(|server| server.raft().is_some_and(|raft| raft.role() == Role::Leader))?;
    let mut user = User { session, link: LinkId(0) };
    server.attach(&mut user);
    server.keep_alive(user);
    server.pass(Duration::from_millis(200))?;
    not_confirmed(&server, user)
}

fn not_confirmed(server: &Server, user: User) -> Result<(), String> {
    match server.told(user.link, |told| matches!(told, ClientResponse::Confirmed { .. })) {
        true => Err(format!("I20: a contact of session {} was confirmed that may have ended", user.session)),
        false => Ok(()),
    }
}
