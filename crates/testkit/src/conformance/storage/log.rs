//! Fields and entries.

use atomix_protocol::{ClusterTime, Entry, EntryId, EntryKind, HardState, ServerId, WriteBatch};
use atomix_storage::Recovered;
use bytes::Bytes;

use super::model::Model;
use super::{Server, configuration, entries, entry, id, identity, index, term};

pub(super) fn fresh_place_holds_nothing(mut server: Server) {
    for _ in 0..2 {
        assert_eq!(server.recovered, Recovered::default());
        assert_eq!(server.entries, []);
        assert_eq!(server.reader().entries(index(1), index(9), 1_000), Ok(None));
        assert_eq!(server.reader().snapshot(EntryId::ZERO, 0, 10), Ok(None));
        server.restart();
    }
}

pub(super) fn each_field_is_found_again(mut server: Server) {
    let hard_state = HardState { term: term(3), voted_for: Some(ServerId(2)) };
    let whole = WriteBatch {
        identity: Some(identity()),
        configuration: Some(configuration(1)),
        abstention: Some(Some(index(9))),
        hard_state: Some(hard_state),
        truncate_after: Some(EntryId::ZERO),
        entries: entries(term(3), 1..=3),
        ..WriteBatch::default()
    };
    server.write(whole);
    let found = Recovered {
        identity: Some(identity()),
        hard_state,
        configuration: Some(configuration(1)),
        abstention: Some(index(9)),
        snapshot: None,
        damage: Vec::new(),
    };
    server.finds(&entries(term(3), 1..=3));
    assert_eq!(server.recovered, found);
    server.write(WriteBatch { abstention: Some(None), ..WriteBatch::default() });
    server.finds(&entries(term(3), 1..=3));
    assert_eq!(server.recovered, Recovered { abstention: None, ..found });
}

pub(super) fn fields_stay(mut server: Server) {
    server.identify();
    for at in 1..=60 {
        let hard_state = HardState { term: term(at), voted_for: None };
        server.write(WriteBatch { hard_state: Some(hard_state), ..WriteBatch::default() });
        if at % 20 == 5 {
            server.write(WriteBatch { configuration: Some(configuration(at)), ..WriteBatch::default() });
        }
        server.append([entry(term(at), index(at))]);
        server.write(WriteBatch::default());
    }
    server.restart();
    assert_eq!(server.recovered.identity, Some(identity()));
    assert_eq!(server.recovered.hard_state, HardState { term: term(60), voted_for: None });
    assert_eq!(server.recovered.configuration, Some(configuration(45)));
    assert_eq!(server.recovered.abstention, None);
}

pub(super) fn entries_are_found(mut server: Server) {
    server.identify();
    server.append(entries(term(1), 1..=1));
    server.append(entries(term(1), 2..=40));
    server.append(entries(term(4), 41..=50));
    let all = [entries(term(1), 1..=40), entries(term(4), 41..=50)].concat();
    server.finds(&all);
    let configuration = Entry { kind: EntryKind::Configuration, ..entry(term(4), index(51)) };
    server.append([configuration.clone()]);
    server.finds(&[all, vec![configuration]].concat());
}

pub(super) fn many_starts(mut server: Server) {
    server.identify();
    for at in 1..=25 {
        server.append(entries(term(at), [at]));
        server.restart();
        assert_eq!(server.entries.len() as u64, at);
        assert_eq!(server.entries.last(), Some(&entry(term(at), index(at))));
        assert_eq!(server.recovered.identity, Some(identity()));
    }
}

pub(super) fn truncation_ends_the_log(mut server: Server) {
    server.identify();
    server.append(entries(term(1), 1..=9));
    server.write(WriteBatch { truncate_after: Some(id(term(1), index(6))), ..WriteBatch::default() });
    server.finds(&entries(term(1), 1..=6));
    server.append(entries(term(2), 7..=8));
    server.finds(&[entries(term(1), 1..=6), entries(term(2), 7..=8)].concat());
    server.write(WriteBatch { truncate_after: Some(EntryId::ZERO), ..WriteBatch::default() });
    server.finds(&[]);
    server.append(entries(term(3), 1..=2));
    server.finds(&entries(term(3), 1..=2));
}

pub(super) fn truncation_and_entries(mut server: Server) {
    server.identify();
    server.append(entries(term(1), 1..=9));
    for (kept, of, until) in
        [(id(term(1), index(6)), 2, 12), (id(term(1), index(4)), 3, 5), (id(term(3), index(5)), 4, 20)]
    {
        server.write(WriteBatch {
            truncate_after: Some(kept),
            entries: entries(term(of), kept.index.0 + 1..=until),
            ..WriteBatch::default()
        });
    }
    let found = [entries(term(1), 1..=4), entries(term(3), 5..=5), entries(term(4), 6..=20)].concat();
    assert_eq!(server.reader().entries(index(1), index(20), u64::MAX), Ok(Some(found.clone())));
    server.finds(&found);
}

pub(super) fn truncation_to_the_end(mut server: Server) {
    server.identify();
    server.append(entries(term(1), 1..=3));
    server.write(WriteBatch {
        truncate_after: Some(id(term(1), index(3))),
        entries: entries(term(2), 4..=4),
        ..WriteBatch::default()
    });
    let found = [entries(term(1), 1..=3), entries(term(2), 4..=4)].concat();
    assert_eq!(server.reader().entries(index(1), index(9), u64::MAX), Ok(Some(found.clone())));
    server.finds(&found);
}

pub(super) fn long_log(mut server: Server) {
    server.identify();
    let large = Entry { payload: Bytes::from(vec![7; 300_000]), ..entry(term(1), index(301)) };
    server.append(entries(term(1), 1..=100));
    server.append(entries(term(1), 101..=300));
    server.append([large.clone()]);
    server.append(entries(term(1), 302..=310));
    let all = [entries(term(1), 1..=300), vec![large], entries(term(1), 302..=310)].concat();
    server.finds(&all);
    assert_eq!(server.reader().entries(index(1), index(310), u64::MAX), Ok(Some(all)));
}

pub(super) fn nothing_to_write(mut server: Server) {
    server.write(WriteBatch::default());
    server.identify();
    server.append(entries(term(1), 1..=3));
    server.write(WriteBatch::default());
    server.finds(&entries(term(1), 1..=3));
    assert_eq!(server.recovered.identity, Some(identity()));
    assert_eq!(server.storage().has_room(), Ok(true), "nothing else is on the device");
}

pub(super) fn entries_of_all_kinds(mut server: Server) {
    server.identify();
    let kinds = [EntryKind::NoOp, EntryKind::Configuration, EntryKind::Session];
    // Around what devices and databases write at once; and the longest command.
    let lengths = [0, 1, 7, 8, 9, 255, 511, 512, 513, 4_095, 4_096, 4_097, 65_536, (1 << 20) + 100];
    let mut all = Vec::new();
    for (at, length) in (1..).zip(lengths) {
        let payload = (0..length).map(|byte| (byte * 13 + at as usize) as u8).collect();
        let kind = kinds[at as usize % kinds.len()];
        all.push(Entry {
            id: id(term(at), index(at)),
            time: ClusterTime(u64::MAX - 100 + at),
            kind,
            payload,
        });
    }
    server.append(all[..5].to_vec());
    server.append(all[5..].to_vec());
    assert_eq!(server.reader().entries(index(1), index(99), u64::MAX), Ok(Some(all.clone())));
    server.finds(&all);
}

pub(super) fn each_field_by_itself(mut server: Server) {
    let hard_state = |of, voted_for| HardState { term: term(of), voted_for };
    let empty = WriteBatch::default();
    let batches = [
        WriteBatch { hard_state: Some(hard_state(1, Some(ServerId(u64::MAX)))), ..empty.clone() },
        WriteBatch { abstention: Some(Some(index(u64::MAX))), ..empty.clone() },
        WriteBatch { configuration: Some(configuration(7)), ..empty.clone() },
        WriteBatch { identity: Some(identity()), ..empty.clone() },
        WriteBatch { entries: entries(term(2), 1..=2), ..empty.clone() },
        WriteBatch { truncate_after: Some(id(term(2), index(1))), ..empty.clone() },
        WriteBatch { hard_state: Some(hard_state(u64::MAX, None)), ..empty.clone() },
        WriteBatch { abstention: Some(Some(index(0))), ..empty.clone() },
        WriteBatch { abstention: Some(None), ..empty },
    ];
    let mut model = Model::default();
    for batch in batches {
        model.write(&batch);
        server.write(batch);
        server.finds(&model.recover());
        assert_eq!(server.recovered, model.recovered);
    }
}

pub(super) fn truncation_against_the_log(mut server: Server) {
    server.identify();
    server.append(entries(term(1), 1..=12));
    let last = id(term(2), index(5));
    server.snapshot(last, b"installed");
    // Another term at its index: what lies behind it is of that other history too.
    server.write(WriteBatch {
        truncate_after: Some(last),
        entries: entries(term(2), 6..=7),
        ..WriteBatch::default()
    });
    assert_eq!(server.reader().entries(index(5), index(99), u64::MAX), Ok(None));
    let found = server.reader().entries(index(6), index(99), u64::MAX);
    assert_eq!(found, Ok(Some(entries(term(2), 6..=7))));
    server.finds(&entries(term(2), 6..=7));
}
