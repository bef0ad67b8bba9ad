//! What an operator asks of the leader.

use std::sync::Arc;
use std::time::Duration;

use atomix_protocol::Address;
use atomix_protocol::change::{ChangeRefused, TransferRefused};
use atomix_protocol::client::{ClientRequest, ClientResponse, Manage, ManageAction, ManageOutcome};
use atomix_transport::Transport;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::ClientError;
use crate::dialogue::Dialogue;

/// Between two rounds of asking everybody while nobody leads.
const PAUSE: Duration = Duration::from_millis(50);
/// A server that has not shaken hands in this time is passed over.
const HANDSHAKE: Duration = Duration::from_secs(2);
/// A link carries one request.
const TICKET: u64 = 1;

/// Asks the leader to plan or make a change of the configuration, or to hand over. Needs no session. Looks for the leader at the
/// addresses given and where those send it, until `patience` is over, which also bounds the wait for the answer.
///
/// What it promises:
/// - A change or a hand-over is asked for again only of servers that have said that they did not do it. If an answer is lost, the
///   outcome is [`ManageOutcome::Unknown`], and the caller looks at the configuration. A plan changes nothing and is asked for again.
/// - Refusals that pass by themselves (the leader has committed nothing yet, another change is under way, it is handing over) are
///   outcomes like others: whoever wants to asks again.
/// - Dropped, it may or may not have been asked for, as if the answer was lost.
///
/// # Errors
/// [`ClientError::Unreachable`] if no server that leads was reached in time: nothing was changed.
/// [`ClientError::Settings`] if there are no addresses.
pub async fn manage(
    transport: Arc<dyn Transport>,
    addresses: &[Address],
    action: ManageAction,
    patience: Duration,
) -> Result<ManageOutcome, ClientError> {
    if addresses.is_empty() {
        return Err(ClientError::Settings("no server address was given".into()));
    }
    let mut search = Search { transport, action, asked: false, tried: Vec::new(), reason: String::new() };
    let found = timeout_at(Instant::now() + patience, search.run(addresses)).await;
    match found {
        Ok(outcome) => Ok(outcome),
        Err(_) if search.asked => Ok(ManageOutcome::Unknown),
        Err(_) => {
            if search.reason.is_empty() {
                search.reason = format!("no answer within {} s", patience.as_secs_f32());
            }
            Err(ClientError::Unreachable { tried: search.tried, reason: search.reason })
        }
    }
}

/// What one server made of the request.
enum Answer {
    /// It is done, or refused by one that leads.
    Outcome(ManageOutcome),
    /// It leads no more than it knows who does.
    NotLeader(Option<Address>),
}

struct Search {
    transport: Arc<dyn Transport>,
    action: ManageAction,
    /// A request that can't be repeated is out, and not refused yet.
    asked: bool,
    tried: Vec<Address>,
    /// What was seen last.
    reason: String,
}

impl Search {
    /// Round after round.
    async fn run(&mut self, addresses: &[Address]) -> ManageOutcome {
        loop {
            for address in addresses {
                let mut next = Some(address.clone());
                // The one that a server names is asked at once, but not whomever that one names: two may name each other.
                for _ in 0..2 {
                    let Some(address) = next.take() else { break };
                    match self.ask(&address).await {
                        Ok(Answer::Outcome(outcome)) => return outcome,
                        Ok(Answer::NotLeader(leader)) => {
                            self.reason = format!("{address} does not lead");
                            next = leader.filter(|leader| *leader != address);
                        }
                        Err(_) if self.asked => return ManageOutcome::Unknown,
                        Err(reason) => self.reason = reason,
                    }
                }
            }
            sleep(PAUSE).await;
        }
    }

    async fn ask(&mut self, address: &Address) -> Result<Answer, String> {
        if !self.tried.contains(address) {
            self.tried.push(address.clone());
        }
        let mut dialogue = match timeout(HANDSHAKE, Dialogue::open(&*self.transport, address)).await {
            Ok(dialogue) => dialogue?,
            Err(_) => return Err(format!("{address} did not answer within {} s", HANDSHAKE.as_secs())),
        };
        self.asked = !matches!(self.action, ManageAction::Plan(_));
        dialogue.ask(ClientRequest::Manage(Manage { ticket: TICKET, action: self.action.clone() })).await?;
        loop {
            let answer = match dialogue.answer().await? {
                ClientResponse::Managed(managed) if managed.ticket == TICKET => told(managed.outcome),
                ClientResponse::NotLeader { leader, .. } => Answer::NotLeader(leader),
                ClientResponse::Refused { detail } => {
                    self.asked = false;
                    return Err(format!("refused: {detail}"));
                }
                _ => continue,
            };
            self.asked = false;
            return Ok(answer);
        }
    }
}

fn told(outcome: ManageOutcome) -> Answer {
    match outcome {
        ManageOutcome::ChangeRefused(ChangeRefused::NotLeader { leader })
        | ManageOutcome::TransferRefused(TransferRefused::NotLeader { leader }) => Answer::NotLeader(leader),
        outcome => Answer::Outcome(outcome),
    }
}
