//! The model: every command of two clients against a map that a child could write, and every stream against what a child would tell.

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Put(u8, u16),
    PutIfAbsent(u8, u16),
    Replace(u8, u16),
    /// With a version so far off that of the entry.
    ReplaceIf(u8, i8, u16),
    Remove(u8),
    RemoveIf(u8, i8),
    Clear,
    Get(u8),
    Entries,
    /// The servers go on from a snapshot.
    Restore,
    /// A new stream: of all keys or one, with what is there first or not.
    Watch(Option<u8>, bool),
    /// Everything is taken out of the streams.
    Take,
    /// The stream before last is dropped.
    Drop,
}

fn step() -> impl Strategy<Value = Step> {
    // Few keys, so that they meet. 200 and 7 differ in the length of their encoding.
    let key = prop_oneof![Just(7u8), Just(8), Just(200)];
    let off = prop_oneof![2 => Just(0i8), 1 => Just(-1), 1 => Just(1)];
    prop_oneof![
        4 => (key.clone(), any::<u16>()).prop_map(|(k, v)| Step::Put(k, v)),
        2 => (key.clone(), any::<u16>()).prop_map(|(k, v)| Step::PutIfAbsent(k, v)),
        2 => (key.clone(), any::<u16>()).prop_map(|(k, v)| Step::Replace(k, v)),
        3 => (key.clone(), off.clone(), any::<u16>()).prop_map(|(k, off, v)| Step::ReplaceIf(k, off, v)),
        2 => key.clone().prop_map(Step::Remove),
        2 => (key.clone(), off).prop_map(|(k, off)| Step::RemoveIf(k, off)),
        1 => Just(Step::Clear),
        2 => key.clone().prop_map(Step::Get),
        1 => Just(Step::Entries),
        1 => Just(Step::Restore),
        3 => (proptest::option::of(key), any::<bool>()).prop_map(|(key, first)| Step::Watch(key, first)),
        1 => Just(Step::Take),
        1 => Just(Step::Drop),
    ]
}

/// Key to value and version.
type Twin = BTreeMap<u16, (u16, u64)>;

fn check(loopback: &Loopback, map: &DistributedMap<u16, u16>, twin: &mut Twin, step: &Step) {
    let value_of = |held: Option<&(u16, u64)>| held.map(|(value, _)| *value);
    // A version so far off that of an entry; any at all if there is none.
    let version = |twin: &Twin, key: u16, off: i8| {
        serde_version(twin.get(&key).map_or(1, |(_, version)| version.wrapping_add_signed(off.into())))
    };
    match *step {
        Step::Put(key, value) => {
            let before = ready(map.put(&key.into(), &value)).unwrap();
            assert_eq!(before, value_of(twin.insert(key.into(), (value, index(loopback))).as_ref()));
        }
        Step::PutIfAbsent(key, value) => {
            let held = ready(map.put_if_absent(&key.into(), &value)).unwrap();
            assert_eq!(held, value_of(twin.get(&key.into())));
            twin.entry(key.into()).or_insert((value, index(loopback)));
        }
        Step::Replace(key, value) => {
            let before = ready(map.replace(&key.into(), &value)).unwrap();
            assert_eq!(before, value_of(twin.get(&key.into())));
            twin.entry(key.into()).and_modify(|held| *held = (value, index(loopback)));
        }
        Step::ReplaceIf(key, off, value) => {
            let version = version(twin, key.into(), off);
            let replaced = ready(map.replace_if(&key.into(), version, &value)).unwrap();
            let expected = off == 0 && twin.contains_key(&key.into());
            assert_eq!(replaced.map(|version| version.index().0), expected.then(|| index(loopback)));
            if expected {
                twin.insert(key.into(), (value, index(loopback)));
            }
        }
        Step::Remove(key) => {
            let before = ready(map.remove(&key.into())).unwrap();
            assert_eq!(before, value_of(twin.remove(&key.into()).as_ref()));
        }
        Step::RemoveIf(key, off) => {
            let version = version(twin, key.into(), off);
            let removed = ready(map.remove_if(&key.into(), version)).unwrap();
            assert_eq!(removed, off == 0 && twin.contains_key(&key.into()));
            if removed {
                twin.remove(&key.into());
            }
        }
        Step::Clear => {
            ready(map.clear()).unwrap();
            twin.clear();
        }
        Step::Get(key) => {
            let held = twin.get(&key.into());
            let found = ready(map.get_versioned(&key.into())).unwrap();
            assert_eq!(found.map(|found| (found.value, found.version.index().0)), held.copied());
            assert_eq!(ready(map.get(&key.into())).unwrap(), value_of(held));
            assert_eq!(ready(map.contains_key(&key.into())).unwrap(), held.is_some());
            let expected = value_of(held).unwrap_or(9);
            assert_eq!(ready(map.get_or_default(&key.into(), 9)).unwrap(), expected);
        }
        Step::Entries => {
            let mut entries = ready(map.entries()).unwrap();
            entries.sort_unstable();
            let expected: Vec<_> = twin.iter().map(|(key, (value, _))| (*key, *value)).collect();
            assert_eq!(entries, expected);
            assert_eq!(ready(map.len()).unwrap(), twin.len() as u64);
            assert_eq!(ready(map.is_empty()).unwrap(), twin.is_empty());
        }
        Step::Restore => drop(loopback.snapshot_and_restore(register(Registry::new()))),
        Step::Watch(..) | Step::Take | Step::Drop => {}
    }
}

/// Index of the command just applied.
fn index(loopback: &Loopback) -> u64 {
    loopback.applied().0.0
}

type Change = MapChange<u16, u16>;

/// A stream, and what it has to tell.
struct Watched {
    stream: MapStream<u16, u16>,
    key: Option<u16>,
    expected: Vec<Result<Change, WatchEnd>>,
}

fn versioned(&(value, version): &(u16, u64)) -> Versioned<u16> {
    Versioned { value, version: serde_version(version) }
}

/// What has changed, and of which key.
fn change(before: &Twin, after: &Twin, step: &Step, index: u64) -> Option<(Option<u16>, Change)> {
    let version = serde_version(index);
    if matches!(step, Step::Clear) {
        return (!before.is_empty()).then_some((None, MapChange::Cleared { version }));
    }
    let key = before.keys().chain(after.keys()).copied().find(|key| before.get(key) != after.get(key))?;
    let change = match (before.get(&key).map(versioned), after.get(&key).map(versioned)) {
        (None, Some(entry)) => MapChange::Added { key, entry },
        (Some(old), Some(new)) => MapChange::Updated { key, old, new },
        (Some(old), None) => MapChange::Removed { key, old, version },
        (None, None) => return None,
    };
    Some((Some(key), change))
}

impl Watched {
    fn new(map: &DistributedMap<u16, u16>, twin: &Twin, key: Option<u16>, current_first: bool) -> Self {
        let stream = ready(async {
            match &key {
                Some(key) => map.watch_key(key).await,
                None => map.watch().await,
            }
        });
        let (mut stream, mut expected) = (stream.unwrap(), Vec::new());
        if current_first {
            stream = stream.current_first();
            let held = twin.iter().filter(|(held, _)| key.is_none_or(|key| key == **held));
            expected = held
                .map(|(key, entry)| Ok(MapChange::Current { key: *key, entry: versioned(entry) }))
                .collect();
        }
        Watched { stream, key, expected }
    }

    fn expect(&mut self, before: &Twin, (changed, change): &(Option<u16>, Change)) {
        let mine = match (self.key, changed) {
            (None, _) => true,
            (Some(key), Some(changed)) => key == *changed,
            (Some(key), None) => before.contains_key(&key),
        };
        if mine {
            self.expected.push(Ok(change.clone()));
        }
    }

    fn take(&mut self) {
        assert_eq!(taken(&mut self.stream), std::mem::take(&mut self.expected), "of {:?}", self.key);
    }
}

proptest! {
    #[test]
    fn a_map_does_and_tells_what_its_twin_does(
        steps in proptest::collection::vec((any::<bool>(), step()), 1..60),
    ) {
        let loopback = loopback();
        let maps = [(), ()].map(|()| ready(DistributedMap::open(&loopback.session(), "/map")).unwrap());
        let (mut twin, mut streams) = (Twin::new(), Vec::<Watched>::new());
        for (client, step) in &steps {
            let (map, before) = (&maps[usize::from(*client)], twin.clone());
            check(&loopback, map, &mut twin, step);
            if let Some(change) = change(&before, &twin, step, index(&loopback)) {
                streams.iter_mut().for_each(|watched| watched.expect(&before, &change));
            }
            match *step {
                Step::Watch(key, first) => streams.push(Watched::new(map, &twin, key.map(u16::from), first)),
                Step::Take => streams.iter_mut().for_each(Watched::take),
                Step::Drop if streams.len() > 1 => drop(streams.remove(streams.len() - 2)),
                _ => {}
            }
        }
        streams.iter_mut().for_each(Watched::take);
        prop_assert_eq!(watches(&loopback).len(), streams.len());
        check(&loopback, &maps[0], &mut twin, &Step::Restore);
        check(&loopback, &maps[0], &mut twin, &Step::Entries);
    }
}
