//! From a directory to a member: the own incarnation (I1), and the unanimous forming of a cluster (I2, I3).

use core::time::Duration;
use std::collections::BTreeSet;

use atomix_protocol::bootstrap::BootstrapMessage;
use atomix_protocol::codec::Frame;
use atomix_protocol::mutant::Mutant;
use atomix_protocol::{
    Address, ClusterId, Configuration, Identity, Incarnation, Index, LinkId, LocalTime, Member, MemberKind,
    ServerId, WriteBatch, limits,
};

use crate::disk::Failed;
use crate::engine::{Engine, Recovered};
use crate::links::Stage;
use crate::{Notice, Output};

/// Between two attempts to get a word through to a server that has no cluster in common.
pub(crate) const REPEAT: Duration = Duration::from_millis(500);

/// How far this server is on its way to a vote.
#[derive(Debug)]
pub(crate) enum Standing {
    /// Its incarnation is being written; until then it talks to nobody (I1).
    Fresh,
    /// It has an incarnation and no configuration.
    Empty {
        /// The cluster that the listed servers were found to belong to, without this one.
        outside_of: Option<ClusterId>,
    },
    /// A configuration with its incarnation is being written.
    Taking(Taking),
    /// It takes part in consensus.
    Member {
        /// It found its configuration on its disk when it came up.
        recovered: bool,
    },
    /// It has a configuration, and no vote.
    Outsider(Outsider),
    /// Its disk has failed (D5).
    Failed(Failed),
}

/// A configuration on its way to the disk.
#[derive(Debug)]
pub(crate) struct Taking {
    configuration: Configuration,
    /// Who sent it, to be told that it is durable; `None` at the server that drew it up.
    from: Option<LinkId>,
    drawn_up_here: bool,
}

/// Why a server with a configuration has no vote.
#[derive(Debug)]
pub(crate) struct Outsider {
    pub(crate) configuration: Configuration,
    pub(crate) notice: String,
    /// It was a member.
    removed: bool,
}

impl Outsider {
    /// By a committed configuration that does not name it any more.
    pub(crate) fn removed(configuration: Configuration) -> Self {
        let index = configuration.index;
        let notice = format!(
            "removed from the cluster by configuration {index}: no vote; to come back it must join with an empty directory"
        );
        Outsider { configuration, notice, removed: true }
    }

    pub(crate) fn was_removed(&self) -> bool {
        self.removed
    }
}

impl Engine {
    /// What a directory makes of this server (I1).
    pub(crate) fn start(&mut self, now: LocalTime, recovered: Recovered) {
        let snapshot = recovered.snapshot.as_ref().map(|(meta, _)| meta);
        let of_snapshot = snapshot.map(|meta| &meta.configuration);
        let configuration =
            recovered.configuration.iter().chain(of_snapshot).max_by_key(|c| c.index).cloned();
        self.members.committed.clone_from(&configuration);
        match (recovered.identity, configuration) {
            // Whoever asks to be taken in does so under a name of its own each time it comes up: what it asked for before may have been
            // granted, and taken away again, and whoever is behind would give it a place that it has no more (I3).
            (identity, None) if identity.is_none() || self.joins() => {
                self.identity = Identity { incarnation: self.options.fresh_incarnation };
                let batch = WriteBatch { identity: Some(self.identity), ..WriteBatch::default() };
                self.write_own(batch);
            }
            (_, None) => self.look_around(now),
            (identity, Some(configuration)) => {
                let outsider = match self.own_record(&configuration) {
                    Some(_) if identity.is_some() => {
                        self.marks.recovered_index = recovered.entries.last().map_or_else(
                            || snapshot.map_or_else(Default::default, |meta| meta.last.index),
                            |entry| entry.id.index,
                        );
                        self.table.replays_through(self.marks.recovered_index);
                        self.standing = Standing::Member { recovered: true };
                        let interrupted = self.was_interrupted(&recovered);
                        self.become_member(now, configuration, recovered);
                        self.resume_wish(now, interrupted);
                        self.judge_damage();
                        return;
                    }
                    // A directory holds no later configuration than the one that removed it.
                    None if configuration.index > Index::ZERO => Outsider::removed(configuration),
                    _ => {
                        let notice =
                            "this data directory is not a member of its configuration: no vote (I1)".into();
                        Outsider { configuration, notice, removed: false }
                    }
                };
                self.standing = Standing::Outsider(outsider);
                self.aim(now);
            }
        }
    }

    pub(crate) fn is_fresh_directory(&self) -> bool {
        matches!(self.standing, Standing::Fresh)
    }

    /// A write is durable.
    pub(crate) fn on_written(&mut self, now: LocalTime, token: u64) {
        if let Some(raft) = &self.raft {
            let before = raft.abstains_until();
            self.consensus(now, atomix_raft::Input::Written { token });
            return self.note_repair(before);
        }
        match core::mem::replace(&mut self.standing, Standing::Empty { outside_of: None }) {
            Standing::Fresh => self.look_around(now),
            Standing::Taking(taking) => self.taken(now, taking),
            other => self.standing = other,
        }
    }

    /// An empty server asks the listed ones who they are.
    fn look_around(&mut self, now: LocalTime) {
        self.standing = Standing::Empty { outside_of: None };
        self.aim(now);
        self.consider_forming();
    }

    /// Says what is to be said to a server without a common cluster, and again until the link ends: each end closes it when it
    /// becomes a member.
    pub(crate) fn speak_of_bootstrap(&mut self, now: LocalTime, id: LinkId) {
        let Some(link) = self.links.link(id) else { return };
        let (Some(address), Stage::Forming(hello)) = (link.dialed.clone(), &link.stage) else { return };
        let (word, wish) = match (&self.standing, &self.members.committed) {
            (Standing::Empty { outside_of }, _) => {
                // Of several clusters, the first one met is asked.
                let asks = self.joins() && hello.cluster.is_some() && hello.cluster == *outside_of;
                let wish = asks.then(|| BootstrapMessage::Join(self.wish()));
                (Some(BootstrapMessage::Probe { address }), wish)
            }
            // Not the one in use: what is not committed may still go, and a server that believed in it would do so for ever.
            (Standing::Member { .. }, Some(configuration)) => {
                let meant = configuration.member_by_incarnation(hello.incarnation).is_some()
                    || (Mutant::B33.active()
                        && configuration.members.iter().any(|m| m.peer_address == address));
                let form = (hello.cluster.is_none() && meant && configuration.outgoing_voters.is_none())
                    .then(|| BootstrapMessage::Form { configuration: configuration.clone() });
                let recovered = matches!(self.standing, Standing::Member { recovered: true });
                let initial = configuration.index == Index::ZERO;
                self.marks.bootstrap_resumed += u64::from(form.is_some() && recovered && initial);
                (form, None)
            }
            _ => (None, None),
        };
        for word in word.into_iter().chain(wish) {
            self.send(id, &Frame::Bootstrap(word));
        }
        self.links.set_deadline(id, Some(now + REPEAT));
    }

    /// Questions come on links that the asker dialled, answers on those that this server dialled.
    pub(crate) fn on_bootstrap(&mut self, now: LocalTime, id: LinkId, message: BootstrapMessage) {
        let dialed = self.links.link(id).and_then(|link| link.dialed.clone());
        match (message, dialed) {
            (BootstrapMessage::Probe { address }, None) if !address.is_too_long() => self.report(id, address),
            (BootstrapMessage::Join(wish), None) => self.on_join(now, id, &wish),
            (BootstrapMessage::Form { configuration }, None) => self.on_form(now, id, configuration),
            (BootstrapMessage::Report { address, incarnation, configuration }, Some(dialed)) => {
                if address == dialed {
                    self.on_report(now, id, &address, incarnation, configuration);
                }
            }
            // Nothing hangs on it: whoever took the configuration closes the link, and shows its cluster on the next.
            (BootstrapMessage::Formed { .. }, Some(_)) => {}
            _ => self.reject(now, id, "a word of bootstrap that does not belong on this link".into()),
        }
    }

    fn report(&mut self, id: LinkId, address: Address) {
        // What is not durable yet is not told; the asker asks again.
        if matches!(self.standing, Standing::Fresh | Standing::Taking(_)) {
            return;
        }
        let incarnation = self.identity.incarnation;
        let configuration = self.members.committed.clone();
        self.send(id, &Frame::Bootstrap(BootstrapMessage::Report { address, incarnation, configuration }));
    }

    fn on_report(
        &mut self,
        now: LocalTime,
        id: LinkId,
        address: &Address,
        incarnation: Incarnation,
        configuration: Option<Configuration>,
    ) {
        match configuration {
            Some(configuration) => self.meet_cluster(now, id, configuration),
            None => {
                if let Some(target) = self.peers.targets.get_mut(address) {
                    target.empty = Some(incarnation);
                }
                self.consider_forming();
            }
        }
    }

    fn on_form(&mut self, now: LocalTime, id: LinkId, configuration: Configuration) {
        let ours = self.configuration().map(|ours| ours.cluster);
        if ours == Some(configuration.cluster) {
            let incarnation = self.identity.incarnation;
            self.send(id, &Frame::Bootstrap(BootstrapMessage::Formed { incarnation }));
        } else if ours.is_none() {
            self.meet_cluster(now, id, configuration);
        } else {
            self.notice(Notice::Refused {
                link: id,
                detail: "this server belongs to another cluster".into(),
            });
        }
    }

    /// An empty server learns of a cluster: it takes its place in it, if the place was meant for this very directory (I2).
    fn meet_cluster(&mut self, now: LocalTime, id: LinkId, configuration: Configuration) {
        if !matches!(self.standing, Standing::Empty { .. }) {
            return;
        }
        // A change is under way, and the next configuration will do.
        if configuration.outgoing_voters.is_some() {
            return;
        }
        if !is_sound(&configuration) {
            self.notice(Notice::Refused { link: id, detail: "a configuration that can't be".into() });
            return;
        }
        // It was in there, and is no more: an id of its own that it took from there would be gone already (I3).
        let outside = matches!(&self.standing, Standing::Empty { outside_of } if *outside_of == Some(configuration.cluster));
        if outside && configuration.index < self.members.absent_from {
            return;
        }
        let mut place = self.own_record(&configuration);
        if Mutant::C10.active() {
            let here = &self.options.address;
            place =
                place.or_else(|| configuration.members.iter().find(|member| member.peer_address == *here));
        }
        let asked = self.links.link(id).is_some_and(|link| link.dialed.is_some());
        let Some(place) = place else {
            // Unasked, a server tells only those that it means: others are not to be talked out of a place.
            if asked {
                self.stay_outside(now, &configuration);
            }
            return;
        };
        let identity = Identity { incarnation: place.incarnation };
        let pretended = (identity != self.identity && !Mutant::B33.active()).then_some(identity);
        self.identity = pretended.unwrap_or(self.identity);
        self.marks.bootstrap_resumed += u64::from(asked && configuration.index == Index::ZERO);
        self.marks.taken_in += u64::from(configuration.index > Index::ZERO);
        self.take(Taking { configuration, from: Some(id), drawn_up_here: false }, pretended);
    }

    /// The listed servers have a cluster, without this one. Of several, the first one met is meant.
    fn stay_outside(&mut self, now: LocalTime, configuration: &Configuration) {
        let Standing::Empty { outside_of } = &mut self.standing else { return };
        let cluster = configuration.cluster;
        if outside_of.is_some_and(|met| met != cluster) {
            return;
        }
        self.members.absent_from = self.members.absent_from.max(configuration.index);
        if outside_of.replace(cluster).is_none() {
            self.marks.joiner += 1;
            self.notice(Notice::Joiner { cluster, asks: self.joins() });
        }
        self.ask_members(now, configuration);
    }

    /// The record of this very directory (I1).
    pub(crate) fn own_record<'a>(&self, configuration: &'a Configuration) -> Option<&'a Member> {
        let record = configuration.member_by_incarnation(self.identity.incarnation);
        if Mutant::B33.active() {
            let here = &self.options.address;
            return record.or_else(|| configuration.members.iter().find(|m| m.peer_address == *here));
        }
        record
    }

    fn take(&mut self, taking: Taking, identity: Option<Identity>) {
        let configuration = Some(taking.configuration.clone());
        self.write_own(WriteBatch { identity, configuration, ..WriteBatch::default() });
        self.standing = Standing::Taking(taking);
    }

    /// The lowest listed address, itself empty, forms the cluster when all the others have said that they are empty too.
    fn consider_forming(&mut self) {
        if !matches!(self.standing, Standing::Empty { .. }) {
            return;
        }
        let list = self.listed();
        if list.is_empty() || list.len() > limits::VOTERS || list.iter().min() != Some(&self.options.address)
        {
            return;
        }
        let incarnations: Option<Vec<Incarnation>> =
            list.iter().map(|address| self.known_empty(address)).collect();
        let Some(incarnations) = incarnations else { return };
        if incarnations.iter().collect::<BTreeSet<_>>().len() < list.len() {
            return;
        }
        let configuration = self.draw_up(list, &incarnations);
        self.take(Taking { configuration, from: None, drawn_up_here: true }, None);
    }

    /// The list as given, without repetitions.
    pub(crate) fn listed(&self) -> Vec<Address> {
        let mut seen = BTreeSet::new();
        self.options.bootstrap.iter().filter(|address| seen.insert(*address)).cloned().collect()
    }

    /// The incarnation of a listed server, if it is known to be empty.
    pub(crate) fn known_empty(&self, address: &Address) -> Option<Incarnation> {
        if *address == self.options.address {
            return Some(self.identity.incarnation);
        }
        self.peers.targets.get(address)?.empty
    }

    fn draw_up(&self, list: Vec<Address>, incarnations: &[Incarnation]) -> Configuration {
        let members: Vec<Member> = (1..)
            .zip(list)
            .zip(incarnations)
            .map(|((id, address), incarnation)| Member {
                id: ServerId(id),
                incarnation: *incarnation,
                client_address: if address == self.options.address {
                    self.options.client_address.clone()
                } else {
                    address.clone()
                },
                peer_address: address,
                kind: MemberKind::Voter,
                priority: 0,
            })
            .collect();
        Configuration {
            cluster: self.options.fresh_cluster,
            next_server_id: members.len() as u64 + 1,
            members,
            ..Configuration::default()
        }
    }

    /// The configuration is durable: from here on this server votes.
    fn taken(&mut self, now: LocalTime, taking: Taking) {
        let Taking { configuration, from, drawn_up_here } = taking;
        if let Some(from) = from {
            let accepted = self.links.link(from).is_some_and(|link| link.dialed.is_none());
            if accepted {
                let incarnation = self.identity.incarnation;
                self.send(from, &Frame::Bootstrap(BootstrapMessage::Formed { incarnation }));
            }
        }
        self.standing = Standing::Member { recovered: false };
        self.become_member(now, configuration, Recovered::default());
        self.members.next_wish = self.joins().then_some(now);
        self.greet_anew(now, drawn_up_here);
    }

    /// What was said in earlier handshakes no longer holds, so they are made again. Only the links on which the others wait for
    /// the configuration go on.
    fn greet_anew(&mut self, now: LocalTime, drawn_up_here: bool) {
        let links: Vec<(LinkId, bool)> = self
            .links
            .iter()
            .map(|(id, link)| (id, link.dialed.is_some() && matches!(link.stage, Stage::Forming(_))))
            .collect();
        for (id, waits_for_form) in links {
            if drawn_up_here && waits_for_form {
                self.speak_of_bootstrap(now, id);
            } else {
                self.close(now, id);
            }
        }
        self.aim(now);
    }

    fn become_member(&mut self, now: LocalTime, configuration: Configuration, recovered: Recovered) {
        let Some(server) = self.own_record(&configuration).map(|member| member.id) else { return };
        self.members.committed = Some(configuration.clone());
        self.notice(Notice::Member { cluster: configuration.cluster, server });
        let recovered = atomix_raft::Recovered {
            hard_state: recovered.hard_state,
            configuration,
            snapshot: recovered.snapshot.map(|(meta, _)| meta),
            entries: recovered.entries,
            abstention: recovered.abstention,
        };
        let config = self.options.raft.clone();
        self.raft = Some(atomix_raft::Raft::new(config, server, recovered, self.options.seed, now));
        self.consensus(now, atomix_raft::Input::Room(!self.full));
        self.compare_list();
        self.aim(now);
    }

    /// On a directory in use the list forms nothing any more.
    fn compare_list(&mut self) {
        let Some(configuration) = self.configuration() else { return };
        let members: BTreeSet<&Address> = configuration.members.iter().map(|m| &m.peer_address).collect();
        let listed: BTreeSet<&Address> = self.options.bootstrap.iter().collect();
        let elsewhere = self.joins() && !self.options.join.iter().any(|address| members.contains(address));
        if elsewhere || (!listed.is_empty() && listed != members) {
            self.push(Output::Notice(Notice::BootstrapDiffers));
        }
    }
}

/// No index and no id ever comes near it: what counts on from one that is told never gets to the end.
const FAR: u64 = u64::MAX >> 1;

/// Whether a configuration from outside can be one, and one that is committed and complete: consensus relies on it.
fn is_sound(configuration: &Configuration) -> bool {
    let members = &configuration.members;
    let fits = |member: &Member| !member.peer_address.is_too_long() && !member.client_address.is_too_long();
    let ascending = members.windows(2).all(|pair| pair[0].id < pair[1].id);
    let incarnations: BTreeSet<_> = members.iter().map(|member| member.incarnation).collect();
    let voters = configuration.voters().count();
    let last = members.last().map_or(0, |member| member.id.0);
    ascending
        && incarnations.len() == members.len()
        && members.len() <= limits::MEMBERS
        && members.iter().all(|member| member.kind != MemberKind::Leaving && fits(member))
        && (1..=limits::VOTERS).contains(&voters)
        && configuration.next_server_id > last
        && configuration.next_server_id <= FAR
        && configuration.index.0 <= FAR
        && configuration.outgoing_voters.is_none()
}
