//! Where to look for the leader, and how soon (§6.1).

use std::collections::BTreeSet;
use std::time::Duration;

use atomix_protocol::client::Servers;
use atomix_protocol::{Address, Index, LocalTime, limits};
use rand::rngs::Xoshiro256PlusPlus;
use rand::{Rng, SeedableRng};

/// Longest wait before the first attempt after the link to a leader is lost: many clients lose it at the same time.
const SPREAD: Duration = Duration::from_millis(5);
/// Wait before the second attempt. A fail-over takes some 50 ms: looking every 10–20 ms at first costs little of that.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
/// Longest wait between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

/// First bound of an attempt. A frozen process still accepts connections: it costs this much to learn that it does not answer.
const ATTEMPT: Duration = Duration::from_millis(250);

/// The servers in turn, hints first, with growing pauses until a leader has shown that it leads.
#[derive(Debug)]
pub(super) struct Router {
    /// Those that the cluster said it has, then those that the user named and that are not among them.
    servers: Vec<Address>,
    /// What the user named.
    named: Vec<Address>,
    /// How many of them the cluster named, and by which configuration.
    known: (usize, Index),
    /// The next in turn.
    turn: usize,
    hint: Option<Address>,
    /// The next hint is followed at once. Only one per search: two servers that name each other must not make a hot loop.
    free_hint: bool,
    /// Left because it fell silent: passed over for so many picks, so that a frozen leader is not the first to be tried again, also
    /// when others still name it.
    shunned: Option<(Address, usize)>,
    /// Attempts since a leader last showed that it leads.
    failures: u32,
    /// Servers that said, since then, that they belong to another cluster.
    foreign: BTreeSet<Address>,
    random: Xoshiro256PlusPlus,
}

impl Router {
    pub(super) fn new(servers: Vec<Address>, seed: u64) -> Self {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
        let turn = usize::try_from(random.next_u64() % servers.len().max(1) as u64).unwrap_or(0);
        Router {
            named: servers.clone(),
            servers,
            known: (0, Index::ZERO),
            turn,
            hint: None,
            free_hint: true,
            shunned: None,
            failures: 0,
            foreign: BTreeSet::new(),
            random,
        }
    }

    /// The cluster says where it is. What the user named is only asked again when all of these are in vain: it may be long gone.
    pub(super) fn learn(&mut self, told: Servers) {
        let Servers { configuration, mut addresses } = told;
        addresses.truncate(limits::MEMBERS);
        if addresses.is_empty() || (self.known.0 > 0 && configuration <= self.known.1) {
            return;
        }
        let named = std::mem::take(&mut self.named);
        self.known = (addresses.len(), configuration);
        addresses
            .extend(named.iter().filter(|server| !addresses.contains(server)).cloned().collect::<Vec<_>>());
        self.named = named;
        self.servers = addresses;
    }

    /// How many of the servers take turns now.
    fn in_turn(&self) -> usize {
        let (known, _) = self.known;
        let enough = usize::try_from(self.failures).unwrap_or(usize::MAX) < 2 * known;
        if enough { known } else { self.servers.len() }
    }

    /// The server to try now; `None` if none was ever named.
    pub(super) fn pick(&mut self) -> Option<Address> {
        let shunned = self.shunned.take();
        if let Some((server, picks)) = shunned.clone().filter(|(_, picks)| *picks > 1) {
            self.shunned = Some((server, picks - 1));
        }
        let is_shunned = |server: &Address| shunned.as_ref().is_some_and(|(shunned, _)| shunned == server);
        if let Some(hint) = self.hint.take().filter(|hint| !is_shunned(hint)) {
            return Some(hint);
        }
        let next = self.next_in_turn()?;
        if is_shunned(&next) { self.next_in_turn() } else { Some(next) }
    }

    fn next_in_turn(&mut self) -> Option<Address> {
        let count = self.in_turn().max(1);
        let server = self.servers.get(self.turn % count)?.clone();
        self.turn = (self.turn + 1) % count;
        Some(server)
    }

    /// `server` fell silent: the others are tried first.
    pub(super) fn shun(&mut self, server: Address) {
        self.shunned = Some((server, self.in_turn()));
    }

    /// A quorum stands behind the server that was tried: the next search begins anew.
    pub(super) fn found(&mut self) {
        self.failures = 0;
        self.free_hint = true;
        self.foreign.clear();
    }

    /// The attempt failed, or the link that it gave was lost. Returns when to try next.
    pub(super) fn failed(&mut self, now: LocalTime) -> LocalTime {
        let pause = self.pause();
        self.failures = self.failures.saturating_add(1);
        now + pause
    }

    /// The server that was tried does not lead. Returns when to try next.
    pub(super) fn redirected(&mut self, now: LocalTime, leader: Option<Address>) -> LocalTime {
        let named = leader.is_some();
        self.hint = leader;
        if named && std::mem::take(&mut self.free_hint) {
            return now;
        }
        self.failed(now)
    }

    /// `server` belongs to another cluster. Returns whether most servers said so: one that was moved or mistyped is not the
    /// cluster, and a cluster without a majority is gone.
    pub(super) fn is_lost(&mut self, server: &Address) -> bool {
        self.foreign.insert(server.clone());
        // Where the cluster was before, anybody may be now.
        let meant = &self.servers[..if self.known.0 > 0 { self.known.0 } else { self.servers.len() }];
        meant.iter().filter(|server| self.foreign.contains(server)).count() * 2 > meant.len()
    }

    /// How long an attempt may take: little while others can be tried, more each time all were in vain.
    pub(super) fn patience(&self) -> Duration {
        let rounds = self.failures / u32::try_from(self.in_turn().max(1)).unwrap_or(u32::MAX);
        ATTEMPT.saturating_mul(1 << rounds.min(6))
    }

    fn pause(&mut self) -> Duration {
        if self.failures == 0 {
            return self.up_to(SPREAD);
        }
        let steps = self.failures.min(32) - 1;
        let pause = (0..steps).fold(FIRST_PAUSE, |pause, _| (pause * 4 / 3).min(LONGEST_PAUSE));
        // A quarter less at most: clients that lost the same leader drift apart.
        pause - self.up_to(pause / 4)
    }

    fn up_to(&mut self, longest: Duration) -> Duration {
        let micros = u64::try_from(longest.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(self.random.next_u64() % micros.saturating_add(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn router() -> Router {
        Router::new(["a", "b", "c"].map(Address::from).to_vec(), 1)
    }

    #[test]
    fn servers_are_tried_in_turn_and_hints_first() {
        let mut router = router();
        let turn: Vec<_> = (0..4).filter_map(|_| router.pick()).collect();
        assert_eq!(turn[0], turn[3]);
        assert_eq!(BTreeSet::from_iter(turn).len(), 3);
        router.redirected(LocalTime::ZERO, Some("d".into()));
        assert_eq!(router.pick(), Some("d".into()));
        assert_ne!(router.pick(), Some("d".into()));
        assert_eq!(Router::new(Vec::new(), 1).pick(), None);
    }

    /// A review of the real binary found it: after a rolling replacement, clients looked for the next leader where nobody was any more.
    #[test]
    fn where_the_cluster_is_now_is_looked_at_first() {
        let picks = |router: &mut Router, count: usize| -> BTreeSet<String> {
            (0..count).filter_map(|_| router.pick()).map(|server| server.to_string()).collect()
        };
        let told = |index, servers: &[&str]| Servers {
            configuration: Index(index),
            addresses: servers.iter().map(|server| Address::from(*server)).collect(),
        };
        let mut router = router();
        router.learn(told(7, &["c", "d", "e"]));
        assert_eq!(picks(&mut router, 9), ["c", "d", "e"].map(String::from).into());
        router.learn(told(5, &["x"]));
        router.learn(told(8, &[]));
        assert_eq!(picks(&mut router, 9), ["c", "d", "e"].map(String::from).into(), "old, or empty");
        router.learn(told(9, &["e", "f"]));
        assert_eq!(picks(&mut router, 9), ["e", "f"].map(String::from).into());
        // Nobody is there: perhaps whoever the user named knows more.
        for _ in 0..4 {
            let _ = router.failed(LocalTime::ZERO);
        }
        assert_eq!(picks(&mut router, 9), ["a", "b", "c", "e", "f"].map(String::from).into());
        router.found();
        assert_eq!(picks(&mut router, 9), ["e", "f"].map(String::from).into());
    }

    #[test]
    fn a_silent_server_is_tried_last_also_when_named() {
        let mut router = router();
        let silent = router.pick().expect("there are servers");
        router.shun(silent.clone());
        router.redirected(LocalTime::ZERO, Some(silent.clone()));
        let picks: Vec<_> = (0..6).filter_map(|_| router.pick()).collect();
        assert!(!picks[..3].contains(&silent), "{silent} in {picks:?}");
        assert!(picks[3..].contains(&silent), "{silent} in {picks:?}");
        let mut alone = Router::new(vec!["a".into()], 1);
        alone.shun("a".into());
        assert_eq!(alone.pick(), Some("a".into()));
    }

    #[test]
    fn one_hint_is_free_and_the_next_are_not() {
        let mut router = router();
        assert_eq!(router.redirected(LocalTime::ZERO, Some("a".into())), LocalTime::ZERO);
        assert!(router.redirected(LocalTime::ZERO, Some("b".into())).since(LocalTime::ZERO) <= SPREAD);
        assert!(
            router.redirected(LocalTime::ZERO, Some("a".into())).since(LocalTime::ZERO) >= FIRST_PAUSE / 2
        );
        router.found();
        assert_eq!(router.redirected(LocalTime::ZERO, Some("b".into())), LocalTime::ZERO);
    }

    #[test]
    fn pauses_begin_short_and_grow_to_their_bound() {
        let mut router = router();
        let pauses: Vec<_> = (0..40).map(|_| router.failed(LocalTime::ZERO).since(LocalTime::ZERO)).collect();
        assert!(pauses[0] <= SPREAD, "{pauses:?}");
        assert!(pauses[1] <= FIRST_PAUSE && pauses[1] >= FIRST_PAUSE * 3 / 4);
        assert!(pauses[..5].iter().sum::<Duration>() < Duration::from_millis(75), "{pauses:?}");
        assert!(pauses[20..].iter().all(|pause| *pause <= LONGEST_PAUSE && *pause >= LONGEST_PAUSE * 3 / 4));
    }

    #[test]
    fn patience_grows_with_each_round_in_vain() {
        let mut router = router();
        for expected in [1, 1, 1, 2, 2, 2, 4] {
            assert_eq!(router.patience(), ATTEMPT * expected);
            router.failed(LocalTime::ZERO);
        }
    }

    #[test]
    fn one_foreign_server_is_not_the_cluster() {
        let mut router = router();
        assert!(!router.is_lost(&"a".into()));
        assert!(!router.is_lost(&"a".into()));
        assert!(router.is_lost(&"b".into()));
        router.found();
        assert!(!router.is_lost(&"b".into()));
    }

    /// A review of the real binary found it: another cluster at the addresses of servers that were replaced ended the session.
    #[test]
    fn another_cluster_where_this_one_was_before_is_not_it() {
        let mut router = router();
        let addresses = ["d", "e", "f"].map(Address::from).to_vec();
        router.learn(Servers { configuration: Index(7), addresses });
        assert!(["a", "b", "c"].into_iter().all(|former| !router.is_lost(&former.into())));
        assert!(!router.is_lost(&"d".into()) && router.is_lost(&"e".into()));
    }
}
