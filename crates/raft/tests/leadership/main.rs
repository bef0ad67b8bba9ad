//! Who leads, who may take over, and what a leader may answer by itself (§3.10, §6.4.1, R3, D6).

mod lease;
mod single;
mod stepping_down;
mod transfer;

use atomix_protocol::Term;
use atomix_protocol::peer::PeerMessage;
use atomix_raft::{Config, Role};
use atomix_testkit::scenario::Running;

/// Three servers that run; 1 leads.
fn three() -> Running {
    led(Running::new(3, &[], Config::default()))
}

fn led(mut running: Running) -> Running {
    running.elect_first(1);
    running.run(500);
    running.take_sent();
    running
}

fn role(running: &Running, id: u64) -> Role {
    running.raft(id).expect("it is up").role()
}

fn term(running: &Running, id: u64) -> Term {
    running.raft(id).expect("it is up").term()
}

fn told_to_campaign(running: &mut Running) -> Vec<u64> {
    let sent = running.take_sent().into_iter();
    sent.filter(|(_, _, message)| matches!(message, PeerMessage::TimeoutNow(_)))
        .map(|(_, to, _)| to)
        .collect()
}
