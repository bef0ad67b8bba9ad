//! What a map holds first, then what changes: together neither a gap nor an overlap, whatever happens between the pages.

use super::slow::Slow;
use super::*;

#[derive(Clone, Debug)]
enum Step {
    /// Another client sets a key.
    Put(u8),
    Remove(u8),
    Clear,
    /// An answer arrives.
    Arrive,
    /// The stream is asked for so many changes.
    Take(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0u8..6).prop_map(Step::Put),
        3 => (0u8..6).prop_map(Step::Remove),
        1 => Just(Step::Clear),
        4 => Just(Step::Arrive),
        5 => (1u8..4).prop_map(Step::Take),
    ]
}

/// What a value is besides its number: with it, two fill a page.
const PADDING: usize = 130 << 10;

type Value = (u64, String);

/// What a stream has told, as somebody keeps it who believes every word.
#[derive(Default)]
struct Copy {
    held: BTreeMap<u8, (u64, Version)>,
    /// The last key that was shown.
    shown: Option<u8>,
    /// The last change.
    last: Option<Version>,
}

impl Copy {
    fn take(&mut self, change: MapChange<u8, Value>) {
        let short = |entry: Versioned<Value>| (entry.value.0, entry.version);
        let version = match change {
            MapChange::Current { key, entry } => {
                assert!(self.shown < Some(key), "{key} is shown once, and in order");
                self.shown = Some(key);
                assert_eq!(self.held.insert(key, short(entry)), None, "{key} is shown before it changes");
                return;
            }
            MapChange::Added { key, entry } => {
                let (value, version) = short(entry);
                assert_eq!(self.held.insert(key, (value, version)), None, "{key} is added");
                version
            }
            MapChange::Updated { key, old, new } => {
                let (value, version) = short(new);
                assert_eq!(self.held.insert(key, (value, version)), Some(short(old)), "{key} is updated");
                version
            }
            MapChange::Removed { key, old, version } => {
                assert_eq!(self.held.remove(&key), Some(short(old)), "{key} is removed");
                version
            }
            MapChange::Cleared { version } => {
                self.held.clear();
                version
            }
        };
        assert!(self.last < Some(version), "changes come in order");
        self.last = Some(version);
    }
}

/// Takes what there is, at most so many. Returns whether there was less.
fn take(stream: &mut MapStream<u8, Value>, copy: &mut Copy, most: u8) -> bool {
    (0..most).any(|_| match poll_once(stream.next()) {
        Poll::Ready(change) => {
            copy.take(change.unwrap());
            false
        }
        Poll::Pending => true,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_told_adds_up_to_what_is_there(
        before in proptest::collection::vec(0u8..6, 0..8),
        steps in proptest::collection::vec(step(), 0..40),
    ) {
        let loopback = loopback();
        let writer: DistributedMap<u8, Value> =
            ready(DistributedMap::open(&loopback.session(), "/map")).unwrap();
        let mut written = 0;
        let mut put = |key: u8| {
            written += 1;
            ready(writer.put(&key, &(written, "v".repeat(PADDING)))).unwrap();
        };
        before.into_iter().for_each(&mut put);
        let slow = Slow::new(&loopback, false);
        let map: DistributedMap<u8, Value> =
            slow.ready(DistributedMap::open(&slow.session(), "/map")).unwrap();
        let mut stream = slow.ready(map.watch()).unwrap().current_first();

        let mut copy = Copy::default();
        for step in steps {
            match step {
                Step::Put(key) => put(key),
                Step::Remove(key) => drop(ready(writer.remove(&key)).unwrap()),
                Step::Clear => ready(writer.clear()).unwrap(),
                Step::Arrive => drop(slow.arrive()),
                Step::Take(most) => drop(take(&mut stream, &mut copy, most)),
            }
        }
        while !take(&mut stream, &mut copy, u8::MAX) || slow.arrive() {}
        for key in 0u8..6 {
            let held = ready(writer.get_versioned(&key)).unwrap();
            let held = held.map(|held| (held.value.0, held.version));
            prop_assert_eq!(copy.held.get(&key).copied(), held, "{}", key);
        }
    }
}

/// A map with three entries, two to a page, and a stream of it that has not been asked yet.
fn three() -> (DistributedMap<u8, Value>, Arc<Slow>, MapStream<u8, Value>) {
    let loopback = loopback();
    let writer: DistributedMap<u8, Value> = ready(DistributedMap::open(&loopback.session(), "/map")).unwrap();
    for key in 1..=3 {
        ready(writer.put(&key, &(0, "v".repeat(PADDING)))).unwrap();
    }
    let slow = Slow::new(&loopback, false);
    let map: DistributedMap<u8, Value> = slow.ready(DistributedMap::open(&slow.session(), "/map")).unwrap();
    let stream = slow.ready(map.watch()).unwrap().current_first();
    (writer, slow, stream)
}

/// What kind of change it is, and of which key.
fn kinds(stream: &mut MapStream<u8, Value>) -> Vec<(char, u8)> {
    let kind = |change| match change {
        Ok(MapChange::Current { key, .. }) => ('=', key),
        Ok(MapChange::Added { key, .. }) => ('+', key),
        Ok(MapChange::Updated { key, .. }) => ('~', key),
        Ok(MapChange::Removed { key, .. }) => ('-', key),
        Ok(MapChange::Cleared { .. }) => ('0', 0),
        Err(end) => panic!("{end}"),
    };
    taken(stream).into_iter().map(kind).collect()
}

#[test]
fn a_change_that_a_page_has_in_it_is_not_told_again_and_one_behind_it_is() {
    let (writer, slow, mut stream) = three();
    let small = (1, String::new());
    // The first page was read; its answer is on its way. These come behind it.
    ready(writer.put(&3, &small)).unwrap();
    ready(writer.put(&1, &small)).unwrap();
    assert_eq!(kinds(&mut stream), []);
    assert!(slow.arrive());
    // The second page is asked for once the first was handed out, and has 3 as it was written above.
    assert_eq!(kinds(&mut stream), [('=', 1), ('=', 2)]);
    ready(writer.remove(&2)).unwrap();
    assert!(slow.arrive());
    assert_eq!(kinds(&mut stream), [('~', 1), ('=', 3), ('-', 2)]);
    assert!(!slow.arrive());
}

#[test]
fn clearing_concerns_what_was_shown_only() {
    let (writer, slow, mut stream) = three();
    assert!(slow.arrive());
    assert!(matches!(poll_once(stream.next()), Poll::Ready(Ok(MapChange::Current { key: 1, .. }))));
    ready(writer.clear()).unwrap();
    ready(writer.put(&9, &(1, String::new()))).unwrap();
    assert_eq!(kinds(&mut stream), [('=', 2)]);
    assert!(slow.arrive());
    assert_eq!(kinds(&mut stream), [('0', 0), ('=', 9)]);

    let (writer, slow, stream) = three();
    ready(writer.clear()).unwrap();
    // Anew: the first page is read behind the clearing, and nothing was shown before.
    let mut stream = stream.current_first();
    slow.arrive_all();
    assert_eq!(kinds(&mut stream), []);
}

#[test]
fn a_stream_lags_while_pages_are_read_and_says_so() {
    let (writer, slow, stream) = three();
    drop(stream);
    let map: DistributedMap<u8, Value> = slow.ready(DistributedMap::open(&slow.session(), "/map")).unwrap();
    let mut stream = slow.ready(map.with_queue(2).watch()).unwrap().current_first();
    for n in 0..3 {
        ready(writer.put(&1, &(n, String::new()))).unwrap();
    }
    assert_eq!(taken(&mut stream).len(), 0);
    slow.arrive_all();
    let first: Vec<_> = taken(&mut stream).into_iter().map(|change| change.is_ok()).collect();
    assert_eq!(first, [true, true]);
    slow.arrive_all();
    // Two changes were queued; what the pages hold beside them could not be told apart from what is missing.
    let rest = taken(&mut stream);
    assert_eq!(rest.last(), Some(&Err(WatchEnd::Lagged)));
}

#[test]
fn what_cannot_be_read_ends_the_stream() {
    let loopback = loopback();
    let session = loopback.session();
    let stream = ready(map::<u8>(&session).watch()).unwrap();
    loopback.close(session.id());
    let mut stream = stream.current_first();
    assert_eq!(taken(&mut stream), [Err(WatchEnd::SessionEnded)]);
}
