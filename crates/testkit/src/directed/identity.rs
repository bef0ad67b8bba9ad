//! Histories of who is who: a wiped server, and a server of another cluster.

use atomix_engine::{Engine, Input, Options, Output, Recovered};
use atomix_protocol::bootstrap::BootstrapMessage;
use atomix_protocol::codec::Frame;
use atomix_protocol::handshake::Hello;
use atomix_protocol::peer::{AppendEntries, PeerMessage, RequestVote};
use atomix_protocol::{
    Address, BootNonce, ClusterId, ClusterTime, EntryId, GroupId, Identity, Index, LinkId, LocalTime, Round,
    Term,
};
use atomix_resource::Registry;

use super::cast::{address, configuration, incarnation, peer};

const NOW: LocalTime = LocalTime::from_millis(1);

/// Server 1 of three. The others are the history's.
struct Server {
    engine: Engine,
    /// Links that it dialled, and where to.
    dialed: Vec<(LinkId, Address)>,
    sent: Vec<(LinkId, Frame)>,
}

impl Server {
    fn new(recovered: Recovered) -> Self {
        let mut options = Options::new(address(1), (1..=3).map(address).collect());
        options.boot_nonce = BootNonce(1);
        // Drawn anew: nothing that a wiped directory held comes back.
        options.fresh_incarnation = incarnation(9);
        let engine = Engine::new(options, recovered, Box::new(Registry::default()), NOW)
            .expect("there is no snapshot");
        let mut server = Server { engine, dialed: Vec::new(), sent: Vec::new() };
        server.drain();
        server
    }

    fn step(&mut self, input: Input) {
        self.engine.step(NOW, input);
        self.drain();
    }

    /// Its disk is quick.
    fn drain(&mut self) {
        let mut written = Vec::new();
        for output in self.engine.drain(NOW) {
            match output {
                Output::Send(link, bytes) => {
                    self.sent.extend(Frame::decode(&bytes).ok().map(|frame| (link, frame)));
                }
                Output::Dial(link, to) => self.dialed.push((link, to)),
                Output::Write(token, _) => written.push(token),
                _ => {}
            }
        }
        written.into_iter().for_each(|token| self.step(Input::Written(token)));
    }

    fn hear(&mut self, link: LinkId, frame: &Frame) {
        self.step(Input::Frame(link, frame.encode(GroupId::DEFAULT)));
    }

    /// A link from another, who says this first.
    fn greeted_by(&mut self, hello: Hello) -> LinkId {
        let link = self.engine.accept();
        self.step(Input::Accepted(link));
        self.hear(link, &Frame::Hello(hello));
        link
    }

    /// The last link that it dialled to another, who answers with this.
    fn answered_by(&mut self, server: u64, hello: Hello) -> Result<LinkId, String> {
        let link = self.dialed.iter().rev().find(|(_, to)| *to == address(server)).map(|(link, _)| *link);
        let link = link.ok_or_else(|| format!("it does not dial server {server}"))?;
        self.step(Input::Dialed(link));
        self.hear(link, &Frame::Hello(hello));
        Ok(link)
    }

    fn has_voted_for(&self, link: LinkId) -> bool {
        self.sent.iter().any(|(to, frame)| {
            *to == link && matches!(frame, Frame::Peer(PeerMessage::RequestVoteReply(reply)) if reply.granted)
        })
    }
}

/// Server 1 has acknowledged entries that server 2 holds too, and server 3 does not. Its disk is wiped; it is started again as
/// it was the first time, and hears from server 2 of the cluster that it belonged to. Then server 3 campaigns, with an empty
/// log (B33, M13).
///
/// # Errors
/// `I3` if it votes: the next leader would lack what is committed.
pub fn a_wiped_server_is_asked_for_its_vote() -> Result<(), String> {
    let mut server = Server::new(Recovered::default());
    let link = server.answered_by(2, peer(2))?;
    let (address, incarnation) = (address(2), incarnation(2));
    let configuration = Some(configuration(3));
    let report = BootstrapMessage::Report { address, incarnation, configuration };
    server.hear(link, &Frame::Bootstrap(report));
    let answers = server.answered_by(3, peer(3))?;
    let asks = server.greeted_by(peer(3));
    let vote = RequestVote { term: Term(6), last: EntryId::ZERO, transfer: Some(Round(1)) };
    server.hear(asks, &Frame::Peer(PeerMessage::RequestVote(vote)));
    match server.has_voted_for(answers) {
        true => {
            Err("I3: a server that lost its log votes for one that lacks what it had acknowledged".into())
        }
        false => Ok(()),
    }
}

/// A cluster was made of a copy of all directories of this one, and given another cluster id. One of its servers reaches server
/// 1 by an address of old, as its leader (B34, N12).
///
/// # Errors
/// `I14` if its word counts here.
pub fn a_server_of_another_cluster_leads() -> Result<(), String> {
    let recovered = Recovered {
        identity: Some(Identity { incarnation: incarnation(1) }),
        configuration: Some(configuration(3)),
        ..Recovered::default()
    };
    let mut server = Server::new(recovered);
    let append = AppendEntries {
        term: Term(5),
        prev: EntryId::ZERO,
        leader_commit: Index::ZERO,
        last_index: Index(0),
        time: ClusterTime(0),
        promise_ms: 0,
        round: Round(1),
        entries: Vec::new(),
    };
    let word = Frame::Peer(PeerMessage::AppendEntries(append));
    let link = server.greeted_by(Hello { cluster: Some(ClusterId(8)), ..peer(2) });
    server.hear(link, &word);
    let heard = |server: &Server| server.engine.status(NOW).term == Term(5);
    if heard(&server) {
        return Err("I14: server 2 of cluster 8 is heard as leader in cluster 7".into());
    }
    let link = server.greeted_by(peer(2));
    server.hear(link, &word);
    heard(&server).then_some(()).ok_or_else(|| "server 2 of its own cluster is not heard".into())
}
