//! Fields and entries.

use atomix_protocol::{Entry, EntryId, EntryKind, HardState, ServerId, WriteBatch};
use atomix_storage::Recovered;
use bytes::Bytes;

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
