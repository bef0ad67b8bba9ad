//! Who belongs to the cluster, as the entries say that were ever written: found without asking the machines (I13).

use std::collections::BTreeMap;

use atomix_protocol::{Configuration, Entry, EntryId, EntryKind, Index, MemberKind, ServerId, codec};

/// The configurations of every log that ever was.
#[derive(Clone, Debug, Default)]
pub(super) struct Configurations {
    /// Before the first entry that carries one.
    initial: Configuration,
    /// The entry that carries the configuration in use at each entry; zero for the initial one.
    in_use: BTreeMap<EntryId, EntryId>,
    carried: BTreeMap<EntryId, Configuration>,
    /// Written since they were last looked at.
    fresh: Vec<EntryId>,
}

impl Configurations {
    pub(super) fn new(initial: Configuration) -> Self {
        let in_use = [(EntryId::ZERO, EntryId::ZERO)].into();
        Configurations { initial, in_use, ..Configurations::default() }
    }

    /// An entry was written behind another.
    pub(super) fn wrote(&mut self, entry: &Entry, prev: EntryId) {
        let Some(mut carrier) = self.in_use.get(&prev).copied() else { return };
        if self.in_use.contains_key(&entry.id) {
            return;
        }
        if entry.kind == EntryKind::Configuration
            && let Ok(mut configuration) = codec::from_bytes::<Configuration>(&entry.payload)
        {
            configuration.index = entry.id.index;
            self.carried.insert(entry.id, configuration);
            self.fresh.push(entry.id);
            carrier = entry.id;
        }
        self.in_use.insert(entry.id, carrier);
    }

    /// The configuration in use where a log ends with this entry, with the name of its entry.
    pub(super) fn at(&self, last: EntryId) -> Option<(EntryId, &Configuration)> {
        let carrier = *self.in_use.get(&last)?;
        Some((carrier, self.carried.get(&carrier).unwrap_or(&self.initial)))
    }

    /// All configurations of a log that ends with this entry, the latest first and the initial one last; none if it is not known.
    pub(super) fn carried_by(
        &self,
        last: EntryId,
        prev_of: impl Fn(EntryId) -> EntryId,
    ) -> Vec<&Configuration> {
        let mut next = self.at(last);
        let mut all = Vec::new();
        while let Some((carrier, configuration)) = next {
            all.push(configuration);
            next = self.before(carrier, prev_of(carrier));
        }
        all
    }

    /// The configuration before the one that this entry carries.
    fn before(&self, carrier: EntryId, prev: EntryId) -> Option<(EntryId, &Configuration)> {
        self.carried.contains_key(&carrier).then(|| self.at(prev)).flatten()
    }

    /// Looks at the configurations written since the last call: each follows from the one before, which is committed,
    /// and so is an entry of the term of the one who wrote it.
    pub(super) fn check_fresh(
        &mut self,
        prev_of: impl Fn(EntryId) -> EntryId,
        ledger: &BTreeMap<Index, Entry>,
    ) -> Result<(), String> {
        for id in std::mem::take(&mut self.fresh) {
            let Some((carrier, before)) = self.before(id, prev_of(id)) else { continue };
            let next = &self.carried[&id];
            let committed = |id: EntryId| ledger.get(&id.index).is_some_and(|entry| entry.id == id);
            if carrier != EntryId::ZERO && !committed(carrier) {
                return Err(format!("membership: {id} changes {carrier}, which is not committed"));
            }
            if !ledger.values().any(|entry| entry.id.term == id.term) {
                return Err(format!("membership: {id} comes before anything of its term is committed"));
            }
            if let Err(why) = follows(before, next) {
                return Err(format!("membership: {id}: {why}: {before:?}, {next:?}"));
            }
        }
        Ok(())
    }

    /// By which configurations a leader may have committed its log through `last`, when the log ended with `end`: the
    /// one in use there, or a later one, if the one before that was committed already.
    pub(super) fn governing(
        &self,
        last: EntryId,
        end: EntryId,
        prev_of: impl Fn(EntryId) -> EntryId,
        ledger: &BTreeMap<Index, Entry>,
    ) -> Vec<Configuration> {
        let mut governing: Vec<Configuration> = self.at(last).map(|(_, c)| c.clone()).into_iter().collect();
        if let Some((carrier, latest)) = self.at(end)
            && let Some((before, _)) = self.before(carrier, prev_of(carrier))
            && (before == EntryId::ZERO || ledger.contains_key(&before.index))
        {
            governing.push(latest.clone());
        }
        governing
    }
}

/// Whether a quorum of each side holds. Counted here anew: what is checked must not be what checks.
pub(super) fn decides(configuration: &Configuration, holds: impl Fn(ServerId) -> bool) -> bool {
    let majority = |ids: &[ServerId]| 2 * ids.iter().filter(|id| holds(**id)).count() > ids.len();
    let incoming: Vec<ServerId> = voters(configuration);
    majority(&incoming) && configuration.outgoing_voters.as_deref().is_none_or(majority)
}

fn voters(configuration: &Configuration) -> Vec<ServerId> {
    let members = configuration.members.iter();
    members.filter(|member| member.kind == MemberKind::Voter).map(|member| member.id).collect()
}

fn follows(before: &Configuration, next: &Configuration) -> Result<(), &'static str> {
    let (old, new) = (voters(before), voters(next));
    match (&before.outgoing_voters, &next.outgoing_voters) {
        (Some(_), Some(_)) => return Err("a change begins within another"),
        (Some(_), None) if old != new => return Err("a change ends with other voters"),
        (None, None) if old != new => return Err("the voters change at once"),
        (None, Some(outgoing)) if *outgoing != old => return Err("a change leaves voters that were none"),
        _ => {}
    }
    let known = |id: ServerId| before.members.iter().any(|member| member.id == id);
    let mut ids = next.members.iter().map(|member| member.id);
    if next.next_server_id < before.next_server_id
        || !ids.all(|id| known(id) || id.0 >= before.next_server_id)
    {
        return Err("an id comes back");
    }
    let learned = |id: &ServerId| {
        let kind = before.members.iter().find(|member| member.id == *id).map(|member| member.kind);
        matches!(kind, Some(MemberKind::Voter | MemberKind::Learner))
    };
    if !new.iter().all(learned) { Err("a voter was no learner") } else { Ok(()) }
}
